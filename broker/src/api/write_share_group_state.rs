//! WriteShareGroupState 0-1: the leader of a partition tells what became of records (KIP-932). Brokers ask; each share-partition answers by itself.

use ottla_coordinator::share_state::{Command, StateBatch};
use ottla_wire::messages::write_share_group_state_response::{Partition, Result as Topic};
use ottla_wire::messages::{WriteShareGroupStateRequest, WriteShareGroupStateResponse};

use super::share_state_requests::{StateRequest, told};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: WriteShareGroupStateRequest,
) -> Answer {
    let state = StateRequest::new(dispatcher, &call, request.group_id);
    call.waiting(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
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
                let outcome = state.decide(topic.topic_id, asked.partition, &command).await;
                let (error_code, error_message) = told(outcome);
                partitions.push(Partition { partition: asked.partition, error_code, error_message });
            }
            results.push(Topic { topic_id: topic.topic_id, partitions });
        }
        WriteShareGroupStateResponse { results }
    })
}
