//! The records of streams groups in Kafka's formats (KIP-1071), all of version 0.
//!
//! | key type | what                                                                     |
//! |----------|--------------------------------------------------------------------------|
//! | 17       | group epoch, hash of the topics, the validated topology, settings        |
//! | 19       | what a member told                                                       |
//! | 20       | epoch of the target assignment                                           |
//! | 21       | target assignment of a member                                            |
//! | 22       | current assignment of a member                                           |
//! | 23       | the topology                                                             |

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_wire::encode::EncodeError;
use ottla_wire::persisted::{
    self, Persisted, StreamsGroupCurrentMemberAssignmentKey, StreamsGroupCurrentMemberAssignmentValue,
    StreamsGroupMemberMetadataKey, StreamsGroupMemberMetadataValue, StreamsGroupMetadataKey,
    StreamsGroupMetadataValue, StreamsGroupTargetAssignmentMemberKey,
    StreamsGroupTargetAssignmentMemberValue, StreamsGroupTargetAssignmentMetadataKey,
    StreamsGroupTargetAssignmentMetadataValue, StreamsGroupTopologyKey, StreamsGroupTopologyValue,
    streams_group_current_member_assignment_value as current_value,
    streams_group_member_metadata_value as member_value, streams_group_metadata_value as group_value,
    streams_group_target_assignment_member_value as target_value,
};
use ottla_wire::text::Text;

use super::state::{
    AssignedTasks, CurrentTasks, Endpoint, GroupEpoch, StreamsMemberMetadata, StreamsRecord, TaskSet,
};
use super::topology::Topology;
use crate::consumer_group::records::{
    coordinator_record, decode_value, member_state, state_number, with_epochs,
};
use crate::group::{CoordinatorRecord, RecordError};

/// Lists of tasks have the same shape in every message, but types of their own.
macro_rules! tasks_of {
    ($list:expr) => {{
        let mut tasks = $crate::streams_group::Tasks::new();
        for one in $list {
            tasks.entry(one.subtopology_id.detached()).or_default().extend(one.partitions.iter().copied());
        }
        tasks
    }};
}

/// Likewise, the other way; further fields are as by default.
macro_rules! list_of {
    ($tasks:expr, $message:path) => {{
        use $message as Message;
        let one = |(id, numbers): (&ottla_wire::text::Text, &std::collections::BTreeSet<i32>)| {
            #[allow(clippy::needless_update, reason = "some of these types have more fields")]
            Message {
                subtopology_id: id.clone(),
                partitions: numbers.iter().copied().collect(),
                ..Default::default()
            }
        };
        $tasks.iter().map(one).collect()
    }};
}

pub(crate) use {list_of, tasks_of};

/// The record of a key of a streams group, with the group's id; None: of another kind.
pub(crate) fn decode(
    kind: i16,
    key: &Bytes,
    value: Option<&Bytes>,
) -> Result<Option<(Text, StreamsRecord)>, RecordError> {
    let decoded = match kind {
        StreamsGroupMetadataKey::TYPE => {
            let key: StreamsGroupMetadataKey = persisted::decode_key(key)?;
            let value: Option<StreamsGroupMetadataValue> = decode_value(kind, value)?;
            (key.group_id, StreamsRecord::Group(value.map(|value| group_of(&value))))
        }
        StreamsGroupTopologyKey::TYPE => {
            let key: StreamsGroupTopologyKey = persisted::decode_key(key)?;
            let value: Option<StreamsGroupTopologyValue> = decode_value(kind, value)?;
            let topology = value.map(|value| Topology::from_record(&value)).transpose();
            let topology = topology.map_err(|_| RecordError::Topology)?;
            (key.group_id, StreamsRecord::Topology(topology.map(Arc::new)))
        }
        StreamsGroupMemberMetadataKey::TYPE => {
            let key: StreamsGroupMemberMetadataKey = persisted::decode_key(key)?;
            let value = decode_value(kind, value)?.map(|value| metadata_of(&value));
            (key.group_id, StreamsRecord::Member(key.member_id.detached(), value))
        }
        StreamsGroupTargetAssignmentMetadataKey::TYPE => {
            let key: StreamsGroupTargetAssignmentMetadataKey = persisted::decode_key(key)?;
            let value: Option<StreamsGroupTargetAssignmentMetadataValue> = decode_value(kind, value)?;
            let target = value.map(|value| (value.assignment_epoch, value.assignment_timestamp));
            (key.group_id, StreamsRecord::TargetEpoch(target))
        }
        StreamsGroupTargetAssignmentMemberKey::TYPE => {
            let key: StreamsGroupTargetAssignmentMemberKey = persisted::decode_key(key)?;
            let value: Option<StreamsGroupTargetAssignmentMemberValue> = decode_value(kind, value)?;
            let target = value.map(|value| TaskSet {
                active: tasks_of!(&value.active_tasks),
                standby: tasks_of!(&value.standby_tasks),
                warmup: tasks_of!(&value.warmup_tasks),
            });
            (key.group_id, StreamsRecord::Target(key.member_id.detached(), target))
        }
        StreamsGroupCurrentMemberAssignmentKey::TYPE => {
            let key: StreamsGroupCurrentMemberAssignmentKey = persisted::decode_key(key)?;
            let value = decode_value(kind, value)?.map(|value| current_of(&value));
            (key.group_id, StreamsRecord::Current(key.member_id.detached(), value))
        }
        _ => return Ok(None),
    };
    Ok(Some((decoded.0.detached(), decoded.1)))
}

fn group_of(value: &StreamsGroupMetadataValue) -> GroupEpoch {
    let configs = value.last_assignment_configs.iter().flatten();
    GroupEpoch {
        epoch: value.epoch,
        metadata_hash: value.metadata_hash,
        validated_topology_epoch: value.validated_topology_epoch,
        assignment_configs: configs.map(|one| (one.key.detached(), one.value.detached())).collect(),
    }
}

fn metadata_of(value: &StreamsGroupMemberMetadataValue) -> StreamsMemberMetadata {
    let own = |text: &Option<Text>| text.as_ref().map(Text::detached);
    let endpoint = |endpoint: &member_value::UserEndpoint| Endpoint {
        host: endpoint.host.detached(),
        port: endpoint.port,
    };
    StreamsMemberMetadata {
        instance_id: own(&value.instance_id),
        rack_id: own(&value.rack_id),
        client_id: value.client_id.detached(),
        client_host: value.client_host.detached(),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        topology_epoch: value.topology_epoch,
        process_id: value.process_id.detached(),
        user_endpoint: value.user_endpoint.as_ref().map(endpoint),
        client_tags: value.client_tags.iter().map(|tag| (tag.key.detached(), tag.value.detached())).collect(),
    }
}

fn current_of(value: &StreamsGroupCurrentMemberAssignmentValue) -> CurrentTasks {
    let mut current = CurrentTasks {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        state: member_state(value.state),
        assigned: AssignedTasks {
            active: BTreeMap::new(),
            standby: tasks_of!(&value.standby_tasks),
            warmup: tasks_of!(&value.warmup_tasks),
        },
        revoking: AssignedTasks {
            active: BTreeMap::new(),
            standby: tasks_of!(&value.standby_tasks_pending_revocation),
            warmup: tasks_of!(&value.warmup_tasks_pending_revocation),
        },
    };
    for one in &value.active_tasks {
        let epochs = with_epochs(&one.partitions, one.assignment_epochs.as_deref(), value.member_epoch);
        current.assigned.active.entry(one.subtopology_id.detached()).or_default().extend(epochs);
    }
    for one in &value.active_tasks_pending_revocation {
        let epochs = with_epochs(&one.partitions, one.assignment_epochs.as_deref(), value.member_epoch);
        current.revoking.active.entry(one.subtopology_id.detached()).or_default().extend(epochs);
    }
    current
}

/// The record in the log's form.
pub(crate) fn encode(group: &Text, record: &StreamsRecord) -> Result<CoordinatorRecord, EncodeError> {
    let group_id = group.clone();
    match record {
        StreamsRecord::Group(value) => {
            coordinator_record(&StreamsGroupMetadataKey { group_id }, value.as_ref().map(group_value))
        }
        StreamsRecord::Topology(topology) => {
            let value = topology.as_ref().map(|topology| StreamsGroupTopologyValue::from(&**topology));
            coordinator_record(&StreamsGroupTopologyKey { group_id }, value)
        }
        StreamsRecord::Member(member_id, metadata) => {
            let key = StreamsGroupMemberMetadataKey { group_id, member_id: member_id.clone() };
            coordinator_record(&key, metadata.as_ref().map(metadata_value))
        }
        StreamsRecord::TargetEpoch(value) => {
            let value = value.map(|(assignment_epoch, assignment_timestamp)| {
                StreamsGroupTargetAssignmentMetadataValue { assignment_epoch, assignment_timestamp }
            });
            coordinator_record(&StreamsGroupTargetAssignmentMetadataKey { group_id }, value)
        }
        StreamsRecord::Target(member_id, target) => {
            let value = target.as_ref().map(|target| StreamsGroupTargetAssignmentMemberValue {
                active_tasks: list_of!(target.active, target_value::ActiveTask),
                standby_tasks: list_of!(target.standby, target_value::StandbyTask),
                warmup_tasks: list_of!(target.warmup, target_value::WarmupTask),
            });
            let key = StreamsGroupTargetAssignmentMemberKey { group_id, member_id: member_id.clone() };
            coordinator_record(&key, value)
        }
        StreamsRecord::Current(member_id, current) => {
            let key = StreamsGroupCurrentMemberAssignmentKey { group_id, member_id: member_id.clone() };
            coordinator_record(&key, current.as_ref().map(current_value))
        }
    }
}

fn group_value(head: &GroupEpoch) -> StreamsGroupMetadataValue {
    let config = |(key, value): (&Text, &Text)| group_value::LastAssignmentConfig {
        key: key.clone(),
        value: value.clone(),
    };
    StreamsGroupMetadataValue {
        epoch: head.epoch,
        metadata_hash: head.metadata_hash,
        validated_topology_epoch: head.validated_topology_epoch,
        last_assignment_configs: Some(head.assignment_configs.iter().map(config).collect()),
    }
}

fn metadata_value(metadata: &StreamsMemberMetadata) -> StreamsGroupMemberMetadataValue {
    let endpoint =
        |endpoint: &Endpoint| member_value::UserEndpoint { host: endpoint.host.clone(), port: endpoint.port };
    let tag =
        |(key, value): (&Text, &Text)| member_value::ClientTag { key: key.clone(), value: value.clone() };
    StreamsGroupMemberMetadataValue {
        instance_id: metadata.instance_id.clone(),
        rack_id: metadata.rack_id.clone(),
        client_id: metadata.client_id.clone(),
        client_host: metadata.client_host.clone(),
        rebalance_timeout_ms: metadata.rebalance_timeout_ms,
        topology_epoch: metadata.topology_epoch,
        process_id: metadata.process_id.clone(),
        user_endpoint: metadata.user_endpoint.as_ref().map(endpoint),
        client_tags: metadata.client_tags.iter().map(tag).collect(),
    }
}

fn current_value(current: &CurrentTasks) -> StreamsGroupCurrentMemberAssignmentValue {
    let split = |numbers: &BTreeMap<i32, i32>| -> (Vec<i32>, Vec<i32>) {
        (numbers.keys().copied().collect(), numbers.values().copied().collect())
    };
    let assigned = |(id, numbers): (&Text, &BTreeMap<i32, i32>)| {
        let (partitions, epochs) = split(numbers);
        current_value::ActiveTask { subtopology_id: id.clone(), partitions, assignment_epochs: Some(epochs) }
    };
    let revoking = |(id, numbers): (&Text, &BTreeMap<i32, i32>)| {
        let (partitions, epochs) = split(numbers);
        current_value::ActiveTasksPendingRevocation {
            subtopology_id: id.clone(),
            partitions,
            assignment_epochs: Some(epochs),
        }
    };
    StreamsGroupCurrentMemberAssignmentValue {
        member_epoch: current.epoch,
        previous_member_epoch: current.previous_epoch,
        state: state_number(current.state),
        active_tasks: current.assigned.active.iter().map(assigned).collect(),
        standby_tasks: list_of!(current.assigned.standby, current_value::StandbyTask),
        warmup_tasks: list_of!(current.assigned.warmup, current_value::WarmupTask),
        active_tasks_pending_revocation: current.revoking.active.iter().map(revoking).collect(),
        standby_tasks_pending_revocation: list_of!(
            current.revoking.standby,
            current_value::StandbyTasksPendingRevocation
        ),
        warmup_tasks_pending_revocation: list_of!(
            current.revoking.warmup,
            current_value::WarmupTasksPendingRevocation
        ),
    }
}
