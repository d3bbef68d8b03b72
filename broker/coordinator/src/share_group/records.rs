//! The records of share groups in Kafka's formats (KIP-932), all of version 0.
//!
//! | key type | what                                              |
//! |----------|---------------------------------------------------|
//! | 10       | what a member told                                |
//! | 11       | group epoch, hash of the subscribed topics        |
//! | 12       | epoch of the target assignment                    |
//! | 13       | target assignment of a member                     |
//! | 14       | current assignment of a member                    |
//! | 15       | which share-partitions are kept for the group     |

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_wire::encode::EncodeError;
use ottla_wire::persisted::{
    self, Persisted, ShareGroupCurrentMemberAssignmentKey, ShareGroupCurrentMemberAssignmentValue,
    ShareGroupMemberMetadataKey, ShareGroupMemberMetadataValue, ShareGroupMetadataKey,
    ShareGroupMetadataValue, ShareGroupStatePartitionMetadataKey, ShareGroupStatePartitionMetadataValue,
    ShareGroupTargetAssignmentMemberKey, ShareGroupTargetAssignmentMemberValue,
    ShareGroupTargetAssignmentMetadataKey, ShareGroupTargetAssignmentMetadataValue,
    share_group_current_member_assignment_value as current_value,
    share_group_state_partition_metadata_value as partitions_value,
    share_group_target_assignment_member_value as target_value,
};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::state::{ShareCurrent, ShareMetadata, ShareRecord, StatePartitions};
use crate::consumer_group::Partitions;
use crate::group::{CoordinatorRecord, RecordError};

/// The version of every value.
const VALUE_VERSION: i16 = 0;
/// The state of a member's current assignment: share groups have no other.
const STABLE: i8 = 0;

/// The record of a key of a share group, with the group's id; None: of another kind.
pub(crate) fn decode(
    kind: i16,
    key: &Bytes,
    value: Option<&Bytes>,
) -> Result<Option<(Text, ShareRecord)>, RecordError> {
    let decoded = match kind {
        ShareGroupMetadataKey::TYPE => {
            let key: ShareGroupMetadataKey = persisted::decode_key(key)?;
            let value: Option<ShareGroupMetadataValue> = decode_value(kind, value)?;
            (key.group_id, ShareRecord::Group(value.map(|value| (value.epoch, value.metadata_hash))))
        }
        ShareGroupMemberMetadataKey::TYPE => {
            let key: ShareGroupMemberMetadataKey = persisted::decode_key(key)?;
            let value: Option<ShareGroupMemberMetadataValue> = decode_value(kind, value)?;
            let metadata = value.map(|value| ShareMetadata {
                rack_id: value.rack_id.as_ref().map(Text::detached),
                client_id: value.client_id.detached(),
                client_host: value.client_host.detached(),
                topics: value.subscribed_topic_names.iter().map(Text::detached).collect(),
            });
            (key.group_id, ShareRecord::Member(key.member_id.detached(), metadata))
        }
        ShareGroupTargetAssignmentMetadataKey::TYPE => {
            let key: ShareGroupTargetAssignmentMetadataKey = persisted::decode_key(key)?;
            let value: Option<ShareGroupTargetAssignmentMetadataValue> = decode_value(kind, value)?;
            let target = value.map(|value| (value.assignment_epoch, value.assignment_timestamp));
            (key.group_id, ShareRecord::TargetEpoch(target))
        }
        ShareGroupTargetAssignmentMemberKey::TYPE => {
            let key: ShareGroupTargetAssignmentMemberKey = persisted::decode_key(key)?;
            let value: Option<ShareGroupTargetAssignmentMemberValue> = decode_value(kind, value)?;
            let target = value.map(|value| {
                let each = value.topic_partitions.into_iter();
                each.map(|topic| (topic.topic_id, topic.partitions.into_iter().collect())).collect()
            });
            (key.group_id, ShareRecord::Target(key.member_id.detached(), target))
        }
        ShareGroupCurrentMemberAssignmentKey::TYPE => {
            let key: ShareGroupCurrentMemberAssignmentKey = persisted::decode_key(key)?;
            let value: Option<ShareGroupCurrentMemberAssignmentValue> = decode_value(kind, value)?;
            let current = value.map(|value| ShareCurrent {
                epoch: value.member_epoch,
                previous_epoch: value.previous_member_epoch,
                assigned: value
                    .assigned_partitions
                    .into_iter()
                    .map(|topic| (topic.topic_id, topic.partitions.into_iter().collect()))
                    .collect(),
            });
            (key.group_id, ShareRecord::Current(key.member_id.detached(), current))
        }
        ShareGroupStatePartitionMetadataKey::TYPE => {
            let key: ShareGroupStatePartitionMetadataKey = persisted::decode_key(key)?;
            let value: Option<ShareGroupStatePartitionMetadataValue> = decode_value(kind, value)?;
            (key.group_id, ShareRecord::Partitions(value.map(|value| state_partitions(&value))))
        }
        _ => return Ok(None),
    };
    Ok(Some((decoded.0.detached(), decoded.1)))
}

fn decode_value<V: Persisted>(key: i16, value: Option<&Bytes>) -> Result<Option<V>, RecordError> {
    let Some(value) = value else { return Ok(None) };
    let version = persisted::prefix(value)?;
    if !V::VERSIONS.contains(&version) {
        return Err(RecordError::Version { key, version });
    }
    Ok(Some(persisted::decode_value(value)?))
}

fn state_partitions(value: &ShareGroupStatePartitionMetadataValue) -> StatePartitions {
    let numbers = |numbers: &[i32]| numbers.iter().copied().collect::<BTreeSet<i32>>();
    StatePartitions {
        initializing: value
            .initializing_topics
            .iter()
            .map(|topic| (topic.topic_id, (topic.topic_name.detached(), numbers(&topic.partitions))))
            .collect(),
        initialized: value
            .initialized_topics
            .iter()
            .map(|topic| (topic.topic_id, (topic.topic_name.detached(), numbers(&topic.partitions))))
            .collect(),
        deleting: value
            .deleting_topics
            .iter()
            .map(|topic| (topic.topic_id, topic.topic_name.detached()))
            .collect(),
    }
}

fn partitions_value(partitions: &StatePartitions) -> ShareGroupStatePartitionMetadataValue {
    let numbers = |numbers: &BTreeSet<i32>| numbers.iter().copied().collect::<Vec<i32>>();
    ShareGroupStatePartitionMetadataValue {
        initializing_topics: partitions
            .initializing
            .iter()
            .map(|(topic_id, (name, partitions))| partitions_value::InitializingTopic {
                topic_id: *topic_id,
                topic_name: name.clone(),
                partitions: numbers(partitions),
            })
            .collect(),
        initialized_topics: partitions
            .initialized
            .iter()
            .map(|(topic_id, (name, partitions))| partitions_value::InitializedTopic {
                topic_id: *topic_id,
                topic_name: name.clone(),
                partitions: numbers(partitions),
            })
            .collect(),
        deleting_topics: partitions
            .deleting
            .iter()
            .map(|(topic_id, name)| partitions_value::DeletingTopic {
                topic_id: *topic_id,
                topic_name: name.clone(),
            })
            .collect(),
    }
}

/// Records of a group in the log's form.
pub(crate) fn encode_all(
    group: &Text,
    records: &[ShareRecord],
) -> Result<Vec<CoordinatorRecord>, EncodeError> {
    records.iter().map(|record| encode(group, record)).collect()
}

/// The record in the log's form.
pub(crate) fn encode(group: &Text, record: &ShareRecord) -> Result<CoordinatorRecord, EncodeError> {
    let group_id = group.clone();
    Ok(match record {
        ShareRecord::Group(value) => {
            let value = value.map(|(epoch, metadata_hash)| ShareGroupMetadataValue { epoch, metadata_hash });
            coordinator_record(&ShareGroupMetadataKey { group_id }, value)?
        }
        ShareRecord::Member(member_id, metadata) => {
            let value = metadata.as_ref().map(|metadata| ShareGroupMemberMetadataValue {
                rack_id: metadata.rack_id.clone(),
                client_id: metadata.client_id.clone(),
                client_host: metadata.client_host.clone(),
                subscribed_topic_names: metadata.topics.iter().cloned().collect(),
            });
            let key = ShareGroupMemberMetadataKey { group_id, member_id: member_id.clone() };
            coordinator_record(&key, value)?
        }
        ShareRecord::TargetEpoch(value) => {
            let value = value.map(|(assignment_epoch, assignment_timestamp)| {
                ShareGroupTargetAssignmentMetadataValue { assignment_epoch, assignment_timestamp }
            });
            coordinator_record(&ShareGroupTargetAssignmentMetadataKey { group_id }, value)?
        }
        ShareRecord::Target(member_id, partitions) => {
            let topic = |(topic_id, partitions): (Uuid, Vec<i32>)| target_value::TopicPartition {
                topic_id,
                partitions,
            };
            let value = partitions.as_ref().map(|partitions| ShareGroupTargetAssignmentMemberValue {
                topic_partitions: listed(partitions).map(topic).collect(),
            });
            let key = ShareGroupTargetAssignmentMemberKey { group_id, member_id: member_id.clone() };
            coordinator_record(&key, value)?
        }
        ShareRecord::Current(member_id, current) => {
            let topic = |(topic_id, partitions): (Uuid, Vec<i32>)| current_value::AssignedPartition {
                topic_id,
                partitions,
            };
            let value = current.as_ref().map(|current| ShareGroupCurrentMemberAssignmentValue {
                member_epoch: current.epoch,
                previous_member_epoch: current.previous_epoch,
                state: STABLE,
                assigned_partitions: listed(&current.assigned).map(topic).collect(),
            });
            let key = ShareGroupCurrentMemberAssignmentKey { group_id, member_id: member_id.clone() };
            coordinator_record(&key, value)?
        }
        ShareRecord::Partitions(partitions) => {
            let value = partitions.as_ref().map(partitions_value);
            coordinator_record(&ShareGroupStatePartitionMetadataKey { group_id }, value)?
        }
    })
}

fn listed(partitions: &BTreeMap<Uuid, BTreeSet<i32>>) -> impl Iterator<Item = (Uuid, Vec<i32>)> + '_ {
    let _: &Partitions = partitions;
    partitions.iter().map(|(topic, numbers)| (*topic, numbers.iter().copied().collect()))
}

fn coordinator_record<V: Persisted>(
    key: &impl Persisted,
    value: Option<V>,
) -> Result<CoordinatorRecord, EncodeError> {
    let value = value.map(|value| persisted::encode_value(&value, VALUE_VERSION)).transpose()?;
    Ok(CoordinatorRecord { key: persisted::encode_key(key)?, value })
}
