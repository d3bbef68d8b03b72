//! WriteShareGroupState 0-1: the leader of a partition tells what became of records (KIP-932). Brokers ask; each share-partition answers by itself.

use std::sync::Arc;

use ottla_coordinator::share_state::{Command, ShareKey, StateBatch};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::write_share_group_state_response::{Partition, Result as Topic};
use ottla_wire::messages::{WriteShareGroupStateRequest, WriteShareGroupStateResponse};
use ottla_wire::text::Text;

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};
use crate::share::Refused;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: WriteShareGroupStateRequest,
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
                let outcome = match permitted {
                    Err(code) => Err(Refused::from(code)),
                    Ok(()) => {
                        let command = Command::Write {
                            state_epoch: asked.state_epoch,
                            leader_epoch: asked.leader_epoch,
                            start_offset: asked.start_offset,
                            delivery_complete_count: asked.delivery_complete_count,
                            batches: asked
                                .state_batches
                                .iter()
                                .map(|batch| StateBatch {
                                    first_offset: batch.first_offset,
                                    last_offset: batch.last_offset,
                                    delivery_state: batch.delivery_state,
                                    delivery_count: batch.delivery_count,
                                })
                                .collect(),
                        };
                        context.share.state_here(&key, &command).await.map(drop)
                    }
                };
                partitions.push(answer(asked.partition, outcome));
            }
            results.push(Topic { topic_id: topic.topic_id, partitions });
        }
        WriteShareGroupStateResponse { results }
    })
}

fn answer(partition: i32, outcome: Result<(), Refused>) -> Partition {
    let (error_code, error_message) = match outcome {
        Ok(()) => (ErrorCode::None.code(), None::<Text>),
        Err(refused) => (refused.error.code(), Some(refused.message)),
    };
    Partition { partition, error_code, error_message }
}
