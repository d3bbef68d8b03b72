//! The records of `__share_group_state` in Kafka's formats (KIP-932), all of version 0.
//!
//! | key type | what                                                          |
//! |----------|---------------------------------------------------------------|
//! | 0        | snapshot of a share-partition; without a value: it is deleted |
//! | 1        | what changed since the snapshot                               |

use bytes::Bytes;
use ottla_wire::encode::EncodeError;
use ottla_wire::persisted::{
    self, Persisted, ShareSnapshotKey, ShareSnapshotValue, ShareUpdateKey, ShareUpdateValue,
    share_snapshot_value, share_update_value,
};

use super::{ShareKey, ShareState, StateBatch};
use crate::group::{CoordinatorRecord, RecordError};

/// The version of every value.
const VALUE_VERSION: i16 = 0;

/// A record, understood.
pub(super) enum Record {
    Snapshot(ShareKey, Option<ShareState>),
    Update(ShareKey, Option<ShareState>),
    Other,
}

pub(super) fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Record, RecordError> {
    match persisted::prefix(key)? {
        ShareSnapshotKey::TYPE => {
            let key: ShareSnapshotKey = persisted::decode_key(key)?;
            let value: Option<ShareSnapshotValue> = decode_value(ShareSnapshotKey::TYPE, value)?;
            let key = ShareKey {
                group_id: key.group_id.detached(),
                topic_id: key.topic_id,
                partition: key.partition,
            };
            Ok(Record::Snapshot(key, value.map(|value| snapshot_state(&value))))
        }
        ShareUpdateKey::TYPE => {
            let key: ShareUpdateKey = persisted::decode_key(key)?;
            let value: Option<ShareUpdateValue> = decode_value(ShareUpdateKey::TYPE, value)?;
            let key = ShareKey {
                group_id: key.group_id.detached(),
                topic_id: key.topic_id,
                partition: key.partition,
            };
            Ok(Record::Update(key, value.map(|value| update_state(&value))))
        }
        _ => Ok(Record::Other),
    }
}

fn decode_value<V: Persisted>(key: i16, value: Option<&Bytes>) -> Result<Option<V>, RecordError> {
    let Some(value) = value else { return Ok(None) };
    let version = persisted::prefix(value)?;
    if !V::VERSIONS.contains(&version) {
        return Err(RecordError::Version { key, version });
    }
    Ok(Some(persisted::decode_value(value)?))
}

fn snapshot_state(value: &ShareSnapshotValue) -> ShareState {
    let batch = |batch: &share_snapshot_value::StateBatch| StateBatch {
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        delivery_state: batch.delivery_state,
        delivery_count: batch.delivery_count,
    };
    ShareState {
        snapshot_epoch: value.snapshot_epoch,
        state_epoch: value.state_epoch,
        leader_epoch: value.leader_epoch,
        start_offset: value.start_offset,
        delivery_complete_count: value.delivery_complete_count,
        batches: value.state_batches.iter().map(batch).collect(),
        created_ms: value.create_timestamp,
        written_ms: value.write_timestamp,
        updates: 0,
        snapshot_offset: 0,
    }
}

/// An update in the form of a state; it tells no state epoch and no times.
fn update_state(value: &ShareUpdateValue) -> ShareState {
    let batch = |batch: &share_update_value::StateBatch| StateBatch {
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        delivery_state: batch.delivery_state,
        delivery_count: batch.delivery_count,
    };
    ShareState {
        snapshot_epoch: value.snapshot_epoch,
        state_epoch: 0,
        leader_epoch: value.leader_epoch,
        start_offset: value.start_offset,
        delivery_complete_count: value.delivery_complete_count,
        batches: value.state_batches.iter().map(batch).collect(),
        created_ms: 0,
        written_ms: 0,
        updates: 0,
        snapshot_offset: 0,
    }
}

fn snapshot_key(key: &ShareKey) -> Result<Bytes, EncodeError> {
    persisted::encode_key(&ShareSnapshotKey {
        group_id: key.group_id.clone(),
        topic_id: key.topic_id,
        partition: key.partition,
    })
}

/// A share-partition is deleted.
pub(super) fn tombstone(key: &ShareKey) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: snapshot_key(key)?, value: None })
}

pub(super) fn snapshot(key: &ShareKey, state: &ShareState) -> Result<CoordinatorRecord, EncodeError> {
    let batch = |batch: &StateBatch| share_snapshot_value::StateBatch {
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        delivery_state: batch.delivery_state,
        delivery_count: batch.delivery_count,
    };
    let value = ShareSnapshotValue {
        snapshot_epoch: state.snapshot_epoch,
        state_epoch: state.state_epoch,
        leader_epoch: state.leader_epoch,
        start_offset: state.start_offset,
        create_timestamp: state.created_ms,
        write_timestamp: state.written_ms,
        state_batches: state.batches.iter().map(batch).collect(),
        delivery_complete_count: state.delivery_complete_count,
    };
    Ok(CoordinatorRecord {
        key: snapshot_key(key)?,
        value: Some(persisted::encode_value(&value, VALUE_VERSION)?),
    })
}

pub(super) fn update(key: &ShareKey, state: &ShareState) -> Result<CoordinatorRecord, EncodeError> {
    let batch = |batch: &StateBatch| share_update_value::StateBatch {
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        delivery_state: batch.delivery_state,
        delivery_count: batch.delivery_count,
    };
    let value = ShareUpdateValue {
        snapshot_epoch: state.snapshot_epoch,
        leader_epoch: state.leader_epoch,
        start_offset: state.start_offset,
        state_batches: state.batches.iter().map(batch).collect(),
        delivery_complete_count: state.delivery_complete_count,
    };
    let key =
        ShareUpdateKey { group_id: key.group_id.clone(), topic_id: key.topic_id, partition: key.partition };
    Ok(CoordinatorRecord {
        key: persisted::encode_key(&key)?,
        value: Some(persisted::encode_value(&value, VALUE_VERSION)?),
    })
}
