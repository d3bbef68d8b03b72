//! ListOffsets 1-11: offsets by time, and the first, the last, the one with the greatest time stamp.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::list_offsets_request::Topic as Asked;
use ottla_wire::messages::list_offsets_response::{Partition, Topic};
use ottla_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::authorization::{Access, Operation};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::replica::{FoundOffset, Isolation, OffsetQuery};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// The first offset on local disks: everything is local.
const EARLIEST_LOCAL: i64 = -4;
/// The last offset in, or on its way to, remote storage: there is none.
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ListOffsetsRequest,
) -> Answer {
    let isolation =
        if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let is_consumer = request.replica_id < 0;
    let access = dispatcher.context.access(&call);
    let topics = request
        .topics
        .into_iter()
        .map(|topic| list(&dispatcher.context, &access, call.version, topic, isolation, is_consumer))
        .collect();
    call.ready(&ListOffsetsResponse { topics, ..Default::default() })
}

fn list(
    context: &BrokerContext,
    access: &Access,
    version: i16,
    topic: Asked,
    isolation: Isolation,
    is_consumer: bool,
) -> Topic {
    let replicas = access
        .topic(Operation::Describe, &topic.name)
        .and_then(|()| context.replicas.topic_by_name(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition));
    let partitions = topic
        .partitions
        .iter()
        .map(|asked| {
            let duplicates =
                topic.partitions.iter().filter(|other| other.partition_index == asked.partition_index);
            let found = if duplicates.count() > 1 {
                Err(ErrorCode::InvalidRequest)
            } else {
                replicas
                    .as_ref()
                    .map_err(|code| *code)
                    .and_then(|topic| topic.partition(asked.partition_index))
                    .and_then(|partition| match query(asked.timestamp, version)? {
                        Some(query) => partition.list_offset(
                            query,
                            is_consumer.then_some(isolation),
                            asked.current_leader_epoch,
                        ),
                        None => Ok(FoundOffset { timestamp: -1, offset: -1, leader_epoch: -1 }),
                    })
            };
            match found {
                Ok(found) => Partition {
                    partition_index: asked.partition_index,
                    timestamp: found.timestamp,
                    offset: found.offset,
                    leader_epoch: found.leader_epoch,
                    ..Default::default()
                },
                Err(error) => Partition {
                    partition_index: asked.partition_index,
                    error_code: error.code(),
                    ..Default::default()
                },
            }
        })
        .collect();
    Topic { name: topic.name, partitions }
}

/// What a time stamp asks for; `None`: something of which there is none.
fn query(timestamp: i64, version: i16) -> Result<Option<OffsetQuery>, ErrorCode> {
    let since = match timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => 0,
    };
    if version < since {
        return Err(ErrorCode::UnsupportedVersion);
    }
    Ok(Some(match timestamp {
        LATEST => OffsetQuery::Latest,
        EARLIEST | EARLIEST_LOCAL => OffsetQuery::Earliest,
        MAX_TIMESTAMP => OffsetQuery::MaxTimestamp,
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok(None),
        time if time >= 0 => OffsetQuery::AtOrAfter(time),
        _ => return Err(ErrorCode::UnsupportedVersion),
    }))
}
