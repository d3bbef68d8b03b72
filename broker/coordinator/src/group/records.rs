//! The records of `__consumer_offsets` that belong to classic groups, in Kafka's formats.
//!
//! | key type | key                      | value version written                                            |
//! |----------|--------------------------|------------------------------------------------------------------|
//! | 0, 1     | OffsetCommitKey          | 3; 1 if the client chose an expiry time, the only version with it |
//! | 2        | GroupMetadataKey         | 3                                                                |
//!
//! These are the newest versions without tagged fields, as Kafka 4.3 writes them. All versions are read. Records of
//! consumer groups (KIP-848) are in [`crate::consumer_group::records`], of share groups (KIP-932) in
//! [`crate::share_group::records`], of streams groups (KIP-1071) in [`crate::streams_group::records`]; those of other kinds are
//! skipped.

use bytes::Bytes;
use ottla_wire::decode::DecodeError;
use ottla_wire::encode::EncodeError;
use ottla_wire::persisted::{
    self, GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue, Persisted,
    group_metadata_value,
};
use ottla_wire::text::Text;

use super::command::CoordinatorRecord;
use super::state::{CommittedOffset, GroupMetadata, StoredMember, TopicPartition};
use crate::consumer_group::ConsumerRecord;
use crate::share_group::ShareRecord;
use crate::streams_group::StreamsRecord;

/// Types of keys.
const OFFSET_COMMIT_KEYS: [i16; 2] = [0, 1];
const GROUP_METADATA_KEY: i16 = 2;

/// Versions of values that are written.
const OFFSET_COMMIT_VALUE_VERSION: i16 = 3;
const OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_METADATA_VALUE_VERSION: i16 = 3;

/// What a record did to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is part of the state now.
    Changed,
    /// It is of a kind that is not kept.
    Skipped,
}

/// A record that cannot be understood: the log is damaged, or written by a newer version.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Key or value ends too early or holds nonsense.
    #[error("a coordinator record does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// A streams group's topology that points at nothing.
    #[error("a coordinator record has a topology that points at nothing")]
    Topology,
    /// A value of a version that is not known.
    #[error("a coordinator record of key type {key} has a value of version {version}, which is not known")]
    Version {
        /// The type of the key.
        key: i16,
        /// The version of the value.
        version: i16,
    },
}

/// A record, understood.
#[derive(Debug)]
pub(crate) enum Record {
    Offset { group: Text, partition: TopicPartition, value: Option<CommittedOffset> },
    Group { group: Text, metadata: Option<GroupMetadata> },
    Consumer { group: Text, record: ConsumerRecord },
    Share { group: Text, record: ShareRecord },
    Streams { group: Text, record: StreamsRecord },
    Other,
}

/// A text that does not keep the frame or batch alive that it was cut from.
pub(crate) fn own(text: &Text) -> Text {
    text.detached()
}

/// Bytes that do not keep the frame or batch alive that they were cut from.
pub(crate) fn own_bytes(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(crate) fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Record, RecordError> {
    let kind = persisted::prefix(key)?;
    if OFFSET_COMMIT_KEYS.contains(&kind) {
        let key = persisted::decode_key::<OffsetCommitKey>(key)?;
        let value = value.map(|value| decode_offset(kind, value)).transpose()?;
        let partition = TopicPartition { topic: own(&key.topic), partition: key.partition };
        return Ok(Record::Offset { group: own(&key.group), partition, value });
    }
    if kind == GROUP_METADATA_KEY {
        let key = persisted::decode_key::<GroupMetadataKey>(key)?;
        let metadata = value.map(|value| decode_group(kind, value)).transpose()?;
        return Ok(Record::Group { group: own(&key.group), metadata });
    }
    if let Some((group, record)) = crate::share_group::records::decode(kind, key, value)? {
        return Ok(Record::Share { group, record });
    }
    let consumer = crate::consumer_group::records::decode(kind, key, value)?;
    if let Some((group, record)) = consumer {
        return Ok(Record::Consumer { group, record });
    }
    let streams = crate::streams_group::records::decode(kind, key, value)?;
    Ok(streams.map_or(Record::Other, |(group, record)| Record::Streams { group, record }))
}

/// The value and its version.
fn decode_value<V: Persisted>(key: i16, value: &Bytes) -> Result<(i16, V), RecordError> {
    let version = persisted::prefix(value)?;
    if !V::VERSIONS.contains(&version) {
        return Err(RecordError::Version { key, version });
    }
    Ok((version, persisted::decode_value(value)?))
}

fn decode_offset(key: i16, value: &Bytes) -> Result<CommittedOffset, RecordError> {
    let (_, value) = decode_value::<OffsetCommitValue>(key, value)?;
    Ok(CommittedOffset {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: own(&value.metadata),
        commit_timestamp_ms: value.commit_timestamp,
        expire_timestamp_ms: (value.expire_timestamp >= 0).then_some(value.expire_timestamp),
        record_offset: 0,
    })
}

fn decode_group(key: i16, value: &Bytes) -> Result<GroupMetadata, RecordError> {
    let (version, value) = decode_value::<GroupMetadataValue>(key, value)?;
    let member = |member: &group_metadata_value::Member| StoredMember {
        member_id: own(&member.member_id),
        group_instance_id: member.group_instance_id.as_ref().map(own),
        client_id: own(&member.client_id),
        client_host: own(&member.client_host),
        // Version 0 has none: there the session timeout was both.
        rebalance_timeout_ms: if version == 0 { member.session_timeout } else { member.rebalance_timeout },
        session_timeout_ms: member.session_timeout,
        subscription: own_bytes(&member.subscription),
        assignment: own_bytes(&member.assignment),
    };
    let timestamp_ms = value.current_state_timestamp;
    Ok(GroupMetadata {
        protocol_type: (!value.protocol_type.is_empty()).then(|| own(&value.protocol_type)),
        generation: value.generation,
        protocol_name: value.protocol.as_ref().map(own),
        leader: value.leader.as_ref().map(own),
        state_timestamp_ms: (timestamp_ms >= 0).then_some(timestamp_ms),
        members: value.members.iter().map(member).collect(),
    })
}

fn offset_key(group: &Text, partition: &TopicPartition) -> Result<Bytes, EncodeError> {
    let key = OffsetCommitKey {
        group: group.clone(),
        topic: partition.topic.clone(),
        partition: partition.partition,
    };
    persisted::encode_key(&key)
}

/// A committed offset. Its `record_offset` is not written: that is where the record ends up.
pub(crate) fn offset(
    group: &Text,
    partition: &TopicPartition,
    committed: &CommittedOffset,
) -> Result<CoordinatorRecord, EncodeError> {
    let version = match committed.expire_timestamp_ms {
        Some(_) => OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY,
        None => OFFSET_COMMIT_VALUE_VERSION,
    };
    let value = OffsetCommitValue {
        offset: committed.offset,
        leader_epoch: committed.leader_epoch,
        metadata: committed.metadata.clone(),
        commit_timestamp: committed.commit_timestamp_ms,
        expire_timestamp: committed.expire_timestamp_ms.unwrap_or(-1),
        ..Default::default()
    };
    Ok(CoordinatorRecord {
        key: offset_key(group, partition)?,
        value: Some(persisted::encode_value(&value, version)?),
    })
}

/// No offset any more.
pub(crate) fn offset_tombstone(
    group: &Text,
    partition: &TopicPartition,
) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: offset_key(group, partition)?, value: None })
}

fn group_key(group: &Text) -> Result<Bytes, EncodeError> {
    persisted::encode_key(&GroupMetadataKey { group: group.clone() })
}

/// A generation of a group.
pub(crate) fn group(group: &Text, metadata: &GroupMetadata) -> Result<CoordinatorRecord, EncodeError> {
    let member = |member: &StoredMember| group_metadata_value::Member {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout: member.rebalance_timeout_ms,
        session_timeout: member.session_timeout_ms,
        subscription: member.subscription.clone(),
        assignment: member.assignment.clone(),
    };
    let value = GroupMetadataValue {
        protocol_type: metadata.protocol_type.clone().unwrap_or_default(),
        generation: metadata.generation,
        protocol: metadata.protocol_name.clone(),
        leader: metadata.leader.clone(),
        current_state_timestamp: metadata.state_timestamp_ms.unwrap_or(-1),
        members: metadata.members.iter().map(member).collect(),
    };
    let version = GROUP_METADATA_VALUE_VERSION;
    Ok(CoordinatorRecord { key: group_key(group)?, value: Some(persisted::encode_value(&value, version)?) })
}

/// No group any more.
pub(crate) fn group_tombstone(group: &Text) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: group_key(group)?, value: None })
}
