//! ReadShareGroupState 0: the leader of a partition takes a share-partition over (KIP-932). Brokers ask; each share-partition answers by itself.

use ottla_coordinator::share_state::{Command, ReadState};
use ottla_wire::messages::read_share_group_state_response::{Partition, Result as Topic, StateBatch};
use ottla_wire::messages::{ReadShareGroupStateRequest, ReadShareGroupStateResponse};

use super::share_state_requests::StateRequest;
use super::{Answer, Call, Client, Dispatcher};
use crate::share::Refused;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ReadShareGroupStateRequest,
) -> Answer {
    let state = StateRequest::new(dispatcher, &call, request.group_id);
    call.waiting(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let command = Command::Read { leader_epoch: asked.leader_epoch };
                let outcome = state.decide(topic.topic_id, asked.partition, &command).await;
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
