//! ReadShareGroupState 0: the leader of a partition takes a share-partition over (KIP-932). Brokers ask; each share-partition answers by itself.

use std::sync::Arc;

use ottla_coordinator::share_state::{Command, ReadState, ShareKey};
use ottla_wire::messages::read_share_group_state_response::{Partition, Result as Topic, StateBatch};
use ottla_wire::messages::{ReadShareGroupStateRequest, ReadShareGroupStateResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};
use crate::share::Refused;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ReadShareGroupStateRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let permitted = context.access(&call).cluster(Operation::ClusterAction);
    call.waiting(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let key = ShareKey {
                    group_id: request.group_id.clone(),
                    topic_id: topic.topic_id,
                    partition: asked.partition,
                };
                let command = Command::Read { leader_epoch: asked.leader_epoch };
                let outcome = match permitted {
                    Err(code) => Err(Refused::from(code)),
                    Ok(()) => context.share.state_here(&key, &command).await.map(Option::unwrap_or_default),
                };
                partitions.push(answer(asked.partition, outcome));
            }
            results.push(Topic { topic_id: topic.topic_id, partitions });
        }
        ReadShareGroupStateResponse { results }
    })
}

fn answer(partition: i32, outcome: Result<ReadState, Refused>) -> Partition {
    match outcome {
        Ok(read) => Partition {
            partition,
            state_epoch: read.state_epoch,
            start_offset: read.start_offset,
            state_batches: read
                .batches
                .iter()
                .map(|batch| StateBatch {
                    first_offset: batch.first_offset,
                    last_offset: batch.last_offset,
                    delivery_state: batch.delivery_state,
                    delivery_count: batch.delivery_count,
                })
                .collect(),
            ..Default::default()
        },
        Err(refused) => Partition {
            partition,
            error_code: refused.error.code(),
            error_message: Some(refused.message),
            ..Default::default()
        },
    }
}
