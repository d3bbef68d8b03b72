//! OffsetForLeaderEpoch 2-4: where an epoch ended, so that followers and consumers find where they diverge (KIP-101,
//! KIP-279, KIP-320).

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::offset_for_leader_epoch_response::{Partition, Topic};
use ottla_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: OffsetForLeaderEpochRequest,
) -> Answer {
    let replicas = &dispatcher.context.replicas;
    let access = dispatcher.context.access(&call);
    // Followers ask too.
    let is_broker = access.has_cluster(Operation::ClusterAction);
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let permitted = if is_broker { Ok(()) } else { access.topic(Operation::Describe, &topic.topic) };
            let known = permitted.and_then(|()| {
                replicas.topic_by_name(&topic.topic).ok_or(ErrorCode::UnknownTopicOrPartition)
            });
            let partitions = topic
                .partitions
                .iter()
                .map(|asked| {
                    let found = known
                        .as_ref()
                        .map_err(|code| *code)
                        .and_then(|topic| topic.partition(asked.partition));
                    match found.and_then(|partition| {
                        partition.end_offset_for_leader_epoch(asked.leader_epoch, asked.current_leader_epoch)
                    }) {
                        Ok(found) => Partition {
                            partition: asked.partition,
                            leader_epoch: found.map_or(-1, |found| found.epoch),
                            end_offset: found.map_or(-1, |found| found.end_offset),
                            ..Default::default()
                        },
                        Err(error) => Partition {
                            partition: asked.partition,
                            error_code: error.code(),
                            ..Default::default()
                        },
                    }
                })
                .collect();
            Topic { topic: topic.topic, partitions }
        })
        .collect();
    call.ready(&OffsetForLeaderEpochResponse { topics, ..Default::default() })
}
