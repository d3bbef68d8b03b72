//! What the handlers of groups share, and the short ones: DescribeGroups, ListGroups, DeleteGroups, OffsetDelete.

use std::sync::Arc;

use ottla_coordinator::group::{
    Client as GroupClient, Command, GroupFilter, OffsetDelete, Reply, TopicResult,
};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    ListGroupsRequest, ListGroupsResponse, OffsetDeleteRequest, OffsetDeleteResponse, delete_groups_response,
    describe_groups_response, list_groups_response, offset_delete_response,
};
use ottla_wire::text::Text;

use super::{Answer, Call, Client, Dispatcher};

/// The client as groups show it.
pub(super) fn client_of(call: &Call) -> GroupClient {
    GroupClient {
        id: call.client_id.clone().unwrap_or_default(),
        host: Text::from(format!("/{}", call.client_host)),
    }
}

/// DescribeGroups 0-6.
pub(super) mod describe_groups {
    use super::*;

    pub(in crate::api) fn handle(
        dispatcher: &Dispatcher,
        _: &mut Client,
        call: Call,
        request: DescribeGroupsRequest,
    ) -> Answer {
        let groups = request
            .groups
            .into_iter()
            .map(|group_id| {
                match dispatcher.context.groups.query(&group_id, |machine| machine.describe(&group_id)) {
                    Ok(description) => description.into_response(group_id, call.version),
                    Err(error) => describe_groups_response::Group {
                        error_code: error.code(),
                        group_id,
                        ..Default::default()
                    },
                }
            })
            .collect();
        call.ready(&DescribeGroupsResponse { groups, ..Default::default() })
    }
}

/// ListGroups 0-5: of the partitions that this broker coordinates.
pub(super) mod list_groups {
    use super::*;

    pub(in crate::api) fn handle(
        dispatcher: &Dispatcher,
        _: &mut Client,
        call: Call,
        request: ListGroupsRequest,
    ) -> Answer {
        let filter = GroupFilter { states: request.states_filter, types: request.types_filter };
        let response = match dispatcher.context.groups.query_all(|machine| machine.list(&filter)) {
            Ok(lists) => ListGroupsResponse {
                groups: lists.into_iter().flatten().map(list_groups_response::Group::from).collect(),
                ..Default::default()
            },
            Err(error) => ListGroupsResponse { error_code: error.code(), ..Default::default() },
        };
        call.ready(&response)
    }
}

/// DeleteGroups 0-2.
pub(super) mod delete_groups {
    use super::*;

    pub(in crate::api) fn handle(
        dispatcher: &Dispatcher,
        _: &mut Client,
        call: Call,
        request: DeleteGroupsRequest,
    ) -> Answer {
        let context = Arc::clone(&dispatcher.context);
        call.exclusive(async move {
            let mut results = Vec::with_capacity(request.groups_names.len());
            for group_id in request.groups_names {
                let reply = context.groups.submit(Command::DeleteGroup { group_id: group_id.clone() }).await;
                let error = match reply {
                    Reply::DeleteGroup(error) => error,
                    _ => ErrorCode::UnknownServerError,
                };
                results.push(delete_groups_response::Result { group_id, error_code: error.code() });
            }
            DeleteGroupsResponse { results, ..Default::default() }
        })
    }
}

/// OffsetDelete 0.
pub(super) mod offset_delete {
    use super::*;

    pub(in crate::api) fn handle(
        dispatcher: &Dispatcher,
        _: &mut Client,
        call: Call,
        request: OffsetDeleteRequest,
    ) -> Answer {
        let image = dispatcher.context.image.current();
        let topics = request
            .topics
            .into_iter()
            .map(|topic| {
                let count = image.topic_by_name(&topic.name).map_or(0, |known| known.partitions.len());
                let partitions = topic.partitions.iter().map(|partition| {
                    let index = partition.partition_index;
                    let exists = usize::try_from(index).is_ok_and(|index| index < count);
                    (index, if exists { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition })
                });
                TopicResult { partitions: partitions.collect(), topic: topic.name }
            })
            .collect();
        let command = Command::OffsetDelete(OffsetDelete { group_id: request.group_id, topics });
        let reply = dispatcher.context.groups.begin(command);
        call.exclusive(async move {
            let Reply::OffsetDelete(reply) = reply.await else { return OffsetDeleteResponse::default() };
            OffsetDeleteResponse {
                error_code: reply.error.code(),
                topics: reply.topics.into_iter().map(deleted).collect(),
                ..Default::default()
            }
        })
    }

    fn deleted(result: TopicResult) -> offset_delete_response::Topic {
        let partition = |(partition_index, error): (i32, ErrorCode)| offset_delete_response::Partition {
            partition_index,
            error_code: error.code(),
        };
        offset_delete_response::Topic {
            name: result.topic,
            partitions: result.partitions.into_iter().map(partition).collect(),
        }
    }
}
