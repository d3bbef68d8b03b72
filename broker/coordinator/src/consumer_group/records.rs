//! The records of consumer groups in Kafka's formats (KIP-848), all of version 0.
//!
//! | key type | what                                                                     |
//! |----------|--------------------------------------------------------------------------|
//! | 3        | group epoch, hash of the subscribed topics                               |
//! | 4        | partition metadata: before Kafka 4.1; neither written nor used           |
//! | 5        | what a member told                                                       |
//! | 6        | epoch of the target assignment                                           |
//! | 7        | target assignment of a member                                            |
//! | 8        | current assignment of a member                                           |
//! | 16       | topics that a pattern matches                                            |

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_wire::encode::EncodeError;
use ottla_wire::persisted::{
    self, ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue, ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue, Persisted,
    consumer_group_current_member_assignment_value as current_value,
    consumer_group_member_metadata_value as member_value, consumer_group_target_assignment_member_value,
};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::state::{
    Assigned, ClassicMetadata, ConsumerRecord, CurrentAssignment, MemberMetadata, MemberState, ResolvedRegex,
};
use crate::group::{CoordinatorRecord, RecordError};

/// The version of every value.
const VALUE_VERSION: i16 = 0;

/// The record of a key of a consumer group, with the group's id; None: of another kind.
pub(crate) fn decode(
    kind: i16,
    key: &Bytes,
    value: Option<&Bytes>,
) -> Result<Option<(Text, ConsumerRecord)>, RecordError> {
    let decoded = match kind {
        ConsumerGroupMetadataKey::TYPE => {
            let key: ConsumerGroupMetadataKey = persisted::decode_key(key)?;
            let value: Option<ConsumerGroupMetadataValue> = decode_value(kind, value)?;
            let group = value.map(|value| (value.epoch, value.metadata_hash));
            (key.group_id, ConsumerRecord::Group(group))
        }
        ConsumerGroupMemberMetadataKey::TYPE => {
            let key: ConsumerGroupMemberMetadataKey = persisted::decode_key(key)?;
            let value = decode_value(kind, value)?.map(|value| metadata_of(&value));
            (key.group_id, ConsumerRecord::Member(key.member_id.detached(), value))
        }
        ConsumerGroupTargetAssignmentMetadataKey::TYPE => {
            let key: ConsumerGroupTargetAssignmentMetadataKey = persisted::decode_key(key)?;
            let value: Option<ConsumerGroupTargetAssignmentMetadataValue> = decode_value(kind, value)?;
            let target = value.map(|value| (value.assignment_epoch, value.assignment_timestamp));
            (key.group_id, ConsumerRecord::TargetEpoch(target))
        }
        ConsumerGroupTargetAssignmentMemberKey::TYPE => {
            let key: ConsumerGroupTargetAssignmentMemberKey = persisted::decode_key(key)?;
            let value: Option<ConsumerGroupTargetAssignmentMemberValue> = decode_value(kind, value)?;
            let target = value.map(|value| {
                let each = value.topic_partitions.into_iter();
                each.map(|topic| (topic.topic_id, topic.partitions.into_iter().collect())).collect()
            });
            (key.group_id, ConsumerRecord::Target(key.member_id.detached(), target))
        }
        ConsumerGroupCurrentMemberAssignmentKey::TYPE => {
            let key: ConsumerGroupCurrentMemberAssignmentKey = persisted::decode_key(key)?;
            let value = decode_value(kind, value)?.map(|value| current_of(&value));
            (key.group_id, ConsumerRecord::Current(key.member_id.detached(), value))
        }
        ConsumerGroupRegularExpressionKey::TYPE => {
            let key: ConsumerGroupRegularExpressionKey = persisted::decode_key(key)?;
            let value: Option<ConsumerGroupRegularExpressionValue> = decode_value(kind, value)?;
            let resolved = value.map(|value| ResolvedRegex {
                topics: value.topics.iter().map(Text::detached).collect(),
                version: value.version,
                timestamp_ms: value.timestamp,
            });
            (key.group_id, ConsumerRecord::Regex(key.regular_expression.detached(), resolved))
        }
        _ => return Ok(None),
    };
    Ok(Some((decoded.0.detached(), decoded.1)))
}

pub(crate) fn decode_value<V: Persisted>(key: i16, value: Option<&Bytes>) -> Result<Option<V>, RecordError> {
    let Some(value) = value else { return Ok(None) };
    let version = persisted::prefix(value)?;
    if !V::VERSIONS.contains(&version) {
        return Err(RecordError::Version { key, version });
    }
    Ok(Some(persisted::decode_value(value)?))
}

fn metadata_of(value: &ConsumerGroupMemberMetadataValue) -> MemberMetadata {
    let own = |text: &Option<Text>| text.as_ref().map(Text::detached);
    let protocol = |known: &member_value::SupportedProtocol| {
        (known.name.detached(), Bytes::copy_from_slice(&known.metadata))
    };
    MemberMetadata {
        instance_id: own(&value.instance_id),
        rack_id: own(&value.rack_id),
        client_id: value.client_id.detached(),
        client_host: value.client_host.detached(),
        topics: value.subscribed_topic_names.iter().map(Text::detached).collect(),
        regex: own(&value.subscribed_topic_regex),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        server_assignor: own(&value.server_assignor),
        classic: value.classic_member_metadata.as_ref().map(|classic| ClassicMetadata {
            session_timeout_ms: classic.session_timeout_ms,
            protocols: classic.supported_protocols.iter().map(protocol).collect(),
        }),
    }
}

fn current_of(value: &ConsumerGroupCurrentMemberAssignmentValue) -> CurrentAssignment {
    let mut current = CurrentAssignment {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        state: member_state(value.state),
        ..CurrentAssignment::default()
    };
    for topic in &value.assigned_partitions {
        let epochs = with_epochs(&topic.partitions, topic.assignment_epochs.as_deref(), value.member_epoch);
        current.assigned.entry(topic.topic_id).or_default().extend(epochs);
    }
    for topic in &value.partitions_pending_revocation {
        let epochs = with_epochs(&topic.partitions, topic.assignment_epochs.as_deref(), value.member_epoch);
        current.revoking.entry(topic.topic_id).or_default().extend(epochs);
    }
    current
}

/// Streams groups number their members' states alike.
pub(crate) fn member_state(number: i8) -> MemberState {
    match number {
        1 => MemberState::Stable,
        2 => MemberState::UnrevokedPartitions,
        3 => MemberState::UnreleasedPartitions,
        _ => MemberState::Unknown,
    }
}

pub(crate) fn state_number(state: MemberState) -> i8 {
    match state {
        MemberState::Stable => 1,
        MemberState::UnrevokedPartitions => 2,
        MemberState::UnreleasedPartitions => 3,
        MemberState::Unknown => i8::MAX,
    }
}

/// Records from before KIP-1251 have no epochs: the member's own stands for them.
pub(crate) fn with_epochs(partitions: &[i32], epochs: Option<&[i32]>, default: i32) -> Vec<(i32, i32)> {
    let epoch = |index: usize| epochs.and_then(|epochs| epochs.get(index)).copied().unwrap_or(default);
    partitions.iter().enumerate().map(|(index, partition)| (*partition, epoch(index))).collect()
}

/// The record in the log's form.
pub(crate) fn encode(group: &Text, record: &ConsumerRecord) -> Result<CoordinatorRecord, EncodeError> {
    let group_id = group.clone();
    Ok(match record {
        ConsumerRecord::Group(value) => {
            let value =
                value.map(|(epoch, metadata_hash)| ConsumerGroupMetadataValue { epoch, metadata_hash });
            coordinator_record(&ConsumerGroupMetadataKey { group_id }, value)?
        }
        ConsumerRecord::Member(member_id, metadata) => {
            let key = ConsumerGroupMemberMetadataKey { group_id, member_id: member_id.clone() };
            coordinator_record(&key, metadata.as_ref().map(metadata_value))?
        }
        ConsumerRecord::TargetEpoch(value) => {
            let value = value.map(|(assignment_epoch, assignment_timestamp)| {
                ConsumerGroupTargetAssignmentMetadataValue { assignment_epoch, assignment_timestamp }
            });
            coordinator_record(&ConsumerGroupTargetAssignmentMetadataKey { group_id }, value)?
        }
        ConsumerRecord::Target(member_id, partitions) => {
            let topic = |(topic_id, partitions): (&Uuid, &BTreeSet<i32>)| {
                consumer_group_target_assignment_member_value::TopicPartition {
                    topic_id: *topic_id,
                    partitions: partitions.iter().copied().collect(),
                }
            };
            let value = partitions.as_ref().map(|partitions| ConsumerGroupTargetAssignmentMemberValue {
                topic_partitions: partitions.iter().map(topic).collect(),
            });
            let key = ConsumerGroupTargetAssignmentMemberKey { group_id, member_id: member_id.clone() };
            coordinator_record(&key, value)?
        }
        ConsumerRecord::Current(member_id, current) => {
            let key = ConsumerGroupCurrentMemberAssignmentKey { group_id, member_id: member_id.clone() };
            coordinator_record(&key, current.as_ref().map(current_value))?
        }
        ConsumerRecord::Regex(regex, resolved) => {
            let value = resolved.as_ref().map(|resolved| ConsumerGroupRegularExpressionValue {
                topics: resolved.topics.iter().cloned().collect(),
                version: resolved.version,
                timestamp: resolved.timestamp_ms,
            });
            let key = ConsumerGroupRegularExpressionKey { group_id, regular_expression: regex.clone() };
            coordinator_record(&key, value)?
        }
    })
}

pub(crate) fn coordinator_record<V: Persisted>(
    key: &impl Persisted,
    value: Option<V>,
) -> Result<CoordinatorRecord, EncodeError> {
    let value = value.map(|value| persisted::encode_value(&value, VALUE_VERSION)).transpose()?;
    Ok(CoordinatorRecord { key: persisted::encode_key(key)?, value })
}

fn metadata_value(metadata: &MemberMetadata) -> ConsumerGroupMemberMetadataValue {
    let classic = |classic: &ClassicMetadata| member_value::ClassicMemberMetadata {
        session_timeout_ms: classic.session_timeout_ms,
        supported_protocols: classic
            .protocols
            .iter()
            .map(|(name, metadata)| member_value::SupportedProtocol {
                name: name.clone(),
                metadata: metadata.clone(),
            })
            .collect(),
    };
    ConsumerGroupMemberMetadataValue {
        instance_id: metadata.instance_id.clone(),
        rack_id: metadata.rack_id.clone(),
        client_id: metadata.client_id.clone(),
        client_host: metadata.client_host.clone(),
        subscribed_topic_names: metadata.topics.iter().cloned().collect(),
        subscribed_topic_regex: metadata.regex.clone(),
        rebalance_timeout_ms: metadata.rebalance_timeout_ms,
        server_assignor: metadata.server_assignor.clone(),
        classic_member_metadata: metadata.classic.as_ref().map(classic),
    }
}

fn current_value(current: &CurrentAssignment) -> ConsumerGroupCurrentMemberAssignmentValue {
    let split = |partitions: &BTreeMap<i32, i32>| {
        (partitions.keys().copied().collect::<Vec<i32>>(), partitions.values().copied().collect::<Vec<i32>>())
    };
    let assigned = |assigned: &Assigned| {
        let topic = |(topic_id, partitions): (&Uuid, &BTreeMap<i32, i32>)| {
            let (partitions, epochs) = split(partitions);
            current_value::AssignedPartition {
                topic_id: *topic_id,
                partitions,
                assignment_epochs: Some(epochs),
            }
        };
        assigned.iter().map(topic).collect()
    };
    let revoking = |revoking: &Assigned| {
        let topic = |(topic_id, partitions): (&Uuid, &BTreeMap<i32, i32>)| {
            let (partitions, epochs) = split(partitions);
            current_value::PartitionsPendingRevocation {
                topic_id: *topic_id,
                partitions,
                assignment_epochs: Some(epochs),
            }
        };
        revoking.iter().map(topic).collect()
    };
    ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: current.epoch,
        previous_member_epoch: current.previous_epoch,
        state: state_number(current.state),
        assigned_partitions: assigned(&current.assigned),
        partitions_pending_revocation: revoking(&current.revoking),
    }
}
