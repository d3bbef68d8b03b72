//! ListGroups 0-5: the groups that this broker coordinates.

use ottla_coordinator::group::GroupFilter;
use ottla_wire::messages::list_groups_response::Group;
use ottla_wire::messages::{ListGroupsRequest, ListGroupsResponse};

use super::authorization::{Operation, Resource};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ListGroupsRequest,
) -> Answer {
    let filter = GroupFilter { states: request.states_filter, types: request.types_filter };
    let access = dispatcher.context.access(&call);
    let sees_all = access.has_cluster(Operation::Describe);
    let response = match dispatcher.context.groups.query_all(|machine| machine.list(&filter)) {
        Ok(lists) => ListGroupsResponse {
            groups: lists
                .into_iter()
                .flatten()
                .map(Group::from)
                .filter(|group| {
                    sees_all || access.sees(Operation::Describe, Resource::Group, &group.group_id)
                })
                .collect(),
            ..Default::default()
        },
        Err(error) => ListGroupsResponse { error_code: error.code(), ..Default::default() },
    };
    call.ready(&response)
}
