//! DeleteRecords 0-2: moves the start of logs; answered when every replica that lives has moved it too.

use std::sync::Arc;
use std::time::Duration;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::delete_records_request::Topic as Asked;
use ottla_wire::messages::delete_records_response::{Partition as Outcome, Topic};
use ottla_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::authorization::{Access, Operation};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::internal_topics::is_internal;
use crate::replica::{Partition, Waiter};

/// A partition of which not every replica has moved its start.
struct Open {
    topic: usize,
    partition: usize,
    replica: Arc<Partition>,
    target: i64,
}

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DeleteRecordsRequest,
) -> Answer {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let count = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let waiter = Waiter::new(count);
    let mut open = Vec::new();
    let access = dispatcher.context.access(&call);
    let topics = request
        .topics
        .iter()
        .enumerate()
        .map(|(index, topic)| delete((&dispatcher.context, &access), index, topic, &waiter, &mut open))
        .collect();
    let mut response = DeleteRecordsResponse { topics, ..Default::default() };
    if open.is_empty() {
        return call.ready(&response);
    }
    call.exclusive(async move {
        waiter.wait_at_most(timeout).await;
        for open in &open {
            let outcome = open.replica.deleted_up_to(open.target);
            let answer = response
                .topics
                .get_mut(open.topic)
                .and_then(|topic| topic.partitions.get_mut(open.partition));
            if let Some(answer) = answer {
                answer.low_watermark = outcome.unwrap_or(-1);
                answer.error_code = outcome.err().unwrap_or(ErrorCode::None).code();
            }
        }
        response
    })
}

fn delete(
    (context, access): (&BrokerContext, &Access),
    topic_index: usize,
    asked: &Asked,
    waiter: &Arc<Waiter>,
    open: &mut Vec<Open>,
) -> Topic {
    let known = access
        .topic(Operation::Delete, &asked.name)
        .and_then(|()| context.replicas.topic_by_name(&asked.name).ok_or(ErrorCode::UnknownTopicOrPartition))
        // What coordinators keep in topics is theirs to remove.
        .and_then(
            |topic| if is_internal(&asked.name) { Err(ErrorCode::InvalidTopicException) } else { Ok(topic) },
        );
    let partitions = asked
        .partitions
        .iter()
        .enumerate()
        .map(|(index, partition)| {
            let replica = known
                .as_ref()
                .map_err(|code| *code)
                .and_then(|topic| topic.partition(partition.partition_index));
            let outcome = replica.and_then(|replica| {
                let (low_watermark, target) = replica.delete_records(partition.offset, waiter)?;
                if low_watermark < target {
                    open.push(Open { topic: topic_index, partition: index, replica, target });
                } else {
                    waiter.complete_one();
                }
                Ok(low_watermark)
            });
            let (low_watermark, error) = match outcome {
                Ok(low_watermark) => (low_watermark, ErrorCode::None),
                Err(error) => {
                    waiter.complete_one();
                    (-1, error)
                }
            };
            Outcome { partition_index: partition.partition_index, low_watermark, error_code: error.code() }
        })
        .collect();
    Topic { name: asked.name.clone(), partitions }
}
