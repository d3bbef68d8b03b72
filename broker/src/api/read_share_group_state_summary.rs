//! ReadShareGroupStateSummary 0-1: how far a group has read (KIP-932). Brokers ask; each share-partition answers by itself.

use ottla_coordinator::share_state::ReadState;
use ottla_wire::messages::read_share_group_state_summary_response::{Partition, Result as Topic};
use ottla_wire::messages::{ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse};

use super::share_state_requests::StateRequest;
use super::{Answer, Call, Client, Dispatcher};
use crate::share::Refused;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ReadShareGroupStateSummaryRequest,
) -> Answer {
    let state = StateRequest::new(dispatcher, &call, request.group_id);
    call.waiting(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let outcome = state.summary(topic.topic_id, asked.partition).await;
                partitions.push(answer(asked.partition, outcome));
            }
            results.push(Topic { topic_id: topic.topic_id, partitions });
        }
        ReadShareGroupStateSummaryResponse { results }
    })
}

fn answer(partition: i32, outcome: Result<ReadState, Refused>) -> Partition {
    match outcome {
        Ok(read) => Partition {
            partition,
            state_epoch: read.state_epoch,
            leader_epoch: read.leader_epoch,
            start_offset: read.start_offset,
            delivery_complete_count: read.delivery_complete_count,
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
