//! ReadShareGroupStateSummary 0-1: how far a group has read (KIP-932). Brokers ask; each share-partition answers by itself.

use std::sync::Arc;

use ottla_coordinator::share_state::{ReadState, ShareKey};
use ottla_wire::messages::read_share_group_state_summary_response::{Partition, Result as Topic};
use ottla_wire::messages::{ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};
use crate::share::Refused;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ReadShareGroupStateSummaryRequest,
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
                let outcome =
                    permitted.map_err(Refused::from).and_then(|()| context.share.summary_here(&key));
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
