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

/// From this version on a client knows `OFFSET_NOT_AVAILABLE`.
const NOT_AVAILABLE_FROM: i16 = 5;

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
                    .and_then(|partition| {
                        let isolation = is_consumer.then_some(isolation);
                        let list =
                            |query| partition.list_offset(query, isolation, asked.current_leader_epoch);
                        match query(asked.timestamp, version)? {
                            Some(query) => list(query),
                            // Of nothing, too, the leader tells.
                            None => list(OffsetQuery::Earliest).map(|_| NOTHING),
                        }
                    })
                    .map_err(|code| told(code, version))
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

/// There is no such offset.
const NOTHING: FoundOffset = FoundOffset { timestamp: -1, offset: -1, leader_epoch: -1 };

/// `OFFSET_NOT_AVAILABLE` (KIP-207) as clients from before know it.
fn told(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        ErrorCode::OffsetNotAvailable if version < NOT_AVAILABLE_FROM => ErrorCode::LeaderNotAvailable,
        other => other,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_known_from_its_version_on() {
        assert_eq!(query(LATEST, 1), Ok(Some(OffsetQuery::Latest)));
        assert_eq!(query(EARLIEST_LOCAL, 8), Ok(Some(OffsetQuery::Earliest)));
        assert_eq!(query(LATEST_TIERED, 9), Ok(None));
        for (timestamp, version) in
            [(MAX_TIMESTAMP, 6), (EARLIEST_LOCAL, 7), (LATEST_TIERED, 8), (-6, 10), (-7, 11)]
        {
            assert_eq!(query(timestamp, version), Err(ErrorCode::UnsupportedVersion), "{timestamp}");
        }
    }

    #[test]
    fn old_clients_are_told_that_there_is_no_leader_yet() {
        assert_eq!(told(ErrorCode::OffsetNotAvailable, 4), ErrorCode::LeaderNotAvailable);
        assert_eq!(told(ErrorCode::OffsetNotAvailable, 5), ErrorCode::OffsetNotAvailable);
        assert_eq!(told(ErrorCode::NotLeaderOrFollower, 4), ErrorCode::NotLeaderOrFollower);
    }
}
