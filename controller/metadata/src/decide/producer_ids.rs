//! Producer ids in blocks: what is committed is never handed out again, whoever crashes.

use ottla_proto::controller as proto;
use ottla_proto::metadata as records;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;

use super::{Decision, Refusal, Situation, record};
use crate::image::BrokerId;

/// Ids in one block, as in Kafka.
pub const BLOCK_SIZE: i32 = 1000;

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::AllocateProducerIds,
) -> Result<Decision<proto::AllocateProducerIdsReply>, Refusal> {
    let broker = situation.image.broker(BrokerId(command.broker_id)).ok_or_else(|| {
        Refusal::new(
            ErrorCode::BrokerIdNotRegistered,
            format!("broker {} is not registered", command.broker_id),
        )
    })?;
    if broker.epoch.0 != command.broker_epoch {
        return Err(Refusal::new(ErrorCode::StaleBrokerEpoch, "the broker has registered anew since"));
    }
    let first_producer_id = situation.image.next_producer_id();
    let next_producer_id = first_producer_id
        .checked_add(i64::from(BLOCK_SIZE))
        .ok_or_else(|| Refusal::new(ErrorCode::UnknownServerError, "every producer id has been used"))?;
    let taken = records::ProducerIdsRecord {
        broker_id: command.broker_id,
        broker_epoch: command.broker_epoch,
        next_producer_id,
    };
    Ok(Decision {
        records: vec![record(Record::ProducerIds(taken))],
        reply: proto::AllocateProducerIdsReply { first_producer_id, count: BLOCK_SIZE },
    })
}
