//! The records of `__transaction_state` in Kafka's format: TransactionLogKey (type 0) and TransactionLogValue, version 0
//! without and 1 with tagged fields (KIP-890). Both are read; which is written follows from `transaction.version`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_wire::decode::DecodeError;
use ottla_wire::encode::EncodeError;
use ottla_wire::persisted::{self, Persisted, TransactionLogKey, TransactionLogValue, transaction_log_value};
use ottla_wire::text::Text;

use super::state::{TransactionMetadata, TransactionState, TransactionVersion};
use crate::group::{CoordinatorRecord, TopicPartition};

/// A record that cannot be understood: the log is damaged, or written by a newer version.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Key or value ends too early or holds nonsense.
    #[error("a transaction record does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// A value of a version that is not known.
    #[error("a transaction record has a value of version {0}, which is not known")]
    Version(i16),
    /// A state that is not known or is never written.
    #[error("a transaction record has the state {0}, which no record may have")]
    State(i8),
}

/// A record, understood.
#[derive(Debug)]
pub(crate) enum Record {
    Transaction { transactional_id: Text, metadata: Option<TransactionMetadata> },
    Other,
}

pub(crate) fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Record, RecordError> {
    if persisted::prefix(key)? != TransactionLogKey::TYPE {
        return Ok(Record::Other);
    }
    let key = persisted::decode_key::<TransactionLogKey>(key)?;
    let transactional_id = key.transactional_id.detached();
    let metadata = value.map(decode_value).transpose()?;
    // An id that is about to be forgotten is forgotten.
    let metadata = metadata.filter(|metadata| metadata.state != TransactionState::Dead);
    Ok(Record::Transaction { transactional_id, metadata })
}

fn decode_value(value: &Bytes) -> Result<TransactionMetadata, RecordError> {
    let version = persisted::prefix(value)?;
    if !TransactionLogValue::VERSIONS.contains(&version) {
        return Err(RecordError::Version(version));
    }
    let value = persisted::decode_value::<TransactionLogValue>(value)?;
    let state = TransactionState::from_number(value.transaction_status)
        .filter(|state| *state != TransactionState::PrepareEpochFence)
        .ok_or(RecordError::State(value.transaction_status))?;
    let mut partitions = BTreeSet::new();
    for topic in value.transaction_partitions.iter().flatten() {
        let name = topic.topic.detached();
        let of_topic = |partition: &i32| TopicPartition { topic: name.clone(), partition: *partition };
        partitions.extend(topic.partition_ids.iter().map(of_topic));
    }
    Ok(TransactionMetadata {
        producer_id: value.producer_id,
        producer_epoch: value.producer_epoch,
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions,
        start_ms: value.transaction_start_timestamp_ms,
        last_update_ms: value.transaction_last_update_timestamp_ms,
        client_version: TransactionVersion(value.client_transaction_version),
    })
}

fn encode_key(transactional_id: &Text) -> Result<Bytes, EncodeError> {
    persisted::encode_key(&TransactionLogKey { transactional_id: transactional_id.clone() })
}

/// What becomes of a transactional id; `version` is the cluster's.
pub(crate) fn transaction(
    transactional_id: &Text,
    metadata: &TransactionMetadata,
    version: TransactionVersion,
) -> Result<CoordinatorRecord, EncodeError> {
    let mut topics: BTreeMap<&Text, Vec<i32>> = BTreeMap::new();
    for partition in &metadata.partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    // Kafka writes no list, not an empty one, for a producer that has no transaction yet.
    let partitions = (metadata.state != TransactionState::Empty).then(|| {
        let of_topic = |(topic, partition_ids): (&Text, Vec<i32>)| {
            transaction_log_value::TransactionPartition { topic: topic.clone(), partition_ids }
        };
        topics.into_iter().map(of_topic).collect()
    });
    let value = TransactionLogValue {
        producer_id: metadata.producer_id,
        producer_epoch: metadata.producer_epoch,
        transaction_timeout_ms: metadata.timeout_ms,
        transaction_status: metadata.state.number(),
        transaction_partitions: partitions,
        transaction_last_update_timestamp_ms: metadata.last_update_ms,
        transaction_start_timestamp_ms: metadata.start_ms,
        previous_producer_id: metadata.previous_producer_id,
        next_producer_id: metadata.next_producer_id,
        client_transaction_version: metadata.client_version.0,
        ..Default::default()
    };
    Ok(CoordinatorRecord {
        key: encode_key(transactional_id)?,
        value: Some(persisted::encode_value(&value, version.log_value_version())?),
    })
}

/// The id is forgotten.
pub(crate) fn tombstone(transactional_id: &Text) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: encode_key(transactional_id)?, value: None })
}
