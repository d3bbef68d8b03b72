//! OffsetDelete 0: committed offsets of single partitions.

use ottla_coordinator::group::{Command, OffsetDelete, Reply, TopicResult};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::offset_delete_response::{Partition, Topic};
use ottla_wire::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: OffsetDeleteRequest,
) -> Answer {
    let image = dispatcher.context.image.current();
    let access = dispatcher.context.access(&call);
    let permitted = access.group(Operation::Delete, &request.group_id);
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let count = image.topic_by_name(&topic.name).map_or(0, |known| known.partitions.len());
            let readable = access.topic(Operation::Read, &topic.name);
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let exists = usize::try_from(index).is_ok_and(|index| index < count);
                let outcome = match readable {
                    Err(code) => code,
                    Ok(()) if exists => ErrorCode::None,
                    Ok(()) => ErrorCode::UnknownTopicOrPartition,
                };
                (index, outcome)
            });
            TopicResult { partitions: partitions.collect(), topic: topic.name }
        })
        .collect();
    let command = Command::OffsetDelete(OffsetDelete { group_id: request.group_id, topics });
    let reply = dispatcher.context.groups.begin_if(permitted, command);
    call.exclusive(async move {
        let Reply::OffsetDelete(reply) = reply.await else { return OffsetDeleteResponse::default() };
        OffsetDeleteResponse {
            error_code: reply.error.code(),
            topics: reply.topics.into_iter().map(deleted).collect(),
            ..Default::default()
        }
    })
}

fn deleted(result: TopicResult) -> Topic {
    let partition =
        |(partition_index, error): (i32, ErrorCode)| Partition { partition_index, error_code: error.code() };
    Topic { name: result.topic, partitions: result.partitions.into_iter().map(partition).collect() }
}
