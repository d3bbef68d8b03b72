//! StreamsGroupHeartbeat (KIP-1071): what is refused, and what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{Status, StatusCode, StreamsHeartbeat, StreamsHeartbeatReply};
use super::configure::Configured;
use super::reconcile::is_subset;
use super::state::{
    CurrentTasks, StreamsGroup, StreamsMember, StreamsMemberMetadata, StreamsRecord, TaskSet,
};
use super::topology::Topology;
use super::update::{self, Context, Update, Updated};
use crate::consumer_group::{JOIN_EPOCH, LEAVE_STATIC_EPOCH, MemberState, Refusal};
use crate::group::{MEMBER_TEXTS_BYTES_MAX, MEMBERS_PER_GROUP_MAX};

/// What follows from a heartbeat.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) records: Vec<StreamsRecord>,
    pub(crate) reply: StreamsHeartbeatReply,
    /// The topology beside the topics there are now, where it was looked at.
    pub(crate) configured: Option<Arc<Configured>>,
    /// The member's tasks are others than before.
    pub(crate) moved: bool,
    /// The first members of the group wait for more.
    pub(crate) starts_delay: bool,
}

/// What is wrong with a request whatever the group.
pub(crate) fn validate(command: &StreamsHeartbeat) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    if command.instance_id.is_some() {
        return invalid("Static membership is not yet supported.");
    }
    if command.has_offsets {
        return invalid("TaskOffsets and TaskEndOffsets are not supported yet.");
    }
    if command.owned.as_ref().is_some_and(|owned| !owned.warmup.is_empty()) {
        return invalid("WarmupTasks are not supported yet.");
    }
    if command.has_patterns {
        return invalid("Regular expressions for source topics are not supported yet.");
    }
    if command.member_id.is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if command.group_id.is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if command.rack_id.as_ref().is_some_and(|rack| rack.is_empty()) {
        return invalid("RackId can't be empty.");
    }
    if command.owns_in_part {
        return invalid("If one task-type is non-null, all must be non-null.");
    }
    if command.member_epoch == JOIN_EPOCH {
        validate_join(command)?;
    } else if command.member_epoch == LEAVE_STATIC_EPOCH {
        return invalid("InstanceId can't be null.");
    } else if command.member_epoch < LEAVE_STATIC_EPOCH {
        return invalid("MemberEpoch must be greater than or equal to -2.");
    } else if command.topology.is_some() {
        return invalid("Topology can only be provided when (re-)joining.");
    }
    if texts_bytes(command) > MEMBER_TEXTS_BYTES_MAX {
        return invalid("What the member tells of itself is too long.");
    }
    Ok(())
}

fn validate_join(command: &StreamsHeartbeat) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    if command.rebalance_timeout_ms.is_none() {
        return invalid("RebalanceTimeoutMs must be provided in first request.");
    }
    if command.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
        return invalid("ActiveTasks, StandbyTasks and WarmupTasks must be empty when (re-)joining.");
    }
    let topology = match &command.topology {
        None => return invalid("Topology must be non-null when (re-)joining."),
        Some(Err(refusal)) => return Err(refusal.clone()),
        Some(Ok(topology)) => topology,
    };
    if topology.epoch < 0 {
        let message = "The epoch of a topology can't be negative.";
        return Err(Refusal::new(ErrorCode::StreamsInvalidTopologyEpoch, message));
    }
    if !topology.is_bounded() {
        return Err(Refusal::new(ErrorCode::StreamsInvalidTopology, "The topology is too large."));
    }
    let mut changelogs =
        topology.subtopologies.values().flat_map(|subtopology| &subtopology.state_changelog_topics);
    if let Some((name, topic)) = changelogs.find(|(_, topic)| topic.partitions != 0) {
        let message = format!(
            "Changelog topic {name} must have an undefined partition count, but it is set to {}.",
            topic.partitions
        );
        return Err(Refusal::new(ErrorCode::StreamsInvalidTopology, message));
    }
    let mut repartitioned =
        topology.subtopologies.values().flat_map(|subtopology| &subtopology.repartition_source_topics);
    if let Some((name, _)) = repartitioned.find(|(_, topic)| topic.partitions < 0) {
        let message = format!("Repartition topic {name} has a negative partition count.");
        return Err(Refusal::new(ErrorCode::StreamsInvalidTopology, message));
    }
    Ok(())
}

/// Of a member alone: the topology, of which a group keeps one, has bounds of its own.
fn texts_bytes(command: &StreamsHeartbeat) -> usize {
    let optional = [&command.rack_id, &command.process_id].into_iter().flatten();
    let tags = command.client_tags.iter().flatten().flat_map(|(key, value)| [key, value]);
    let host = command.user_endpoint.iter().map(|endpoint| &endpoint.host);
    let always = [&command.member_id, &command.client_id];
    optional.chain(tags).chain(host).chain(always).map(|text| text.len()).sum()
}

/// Decides a valid heartbeat that does not leave.
pub(crate) fn decide(
    group: &StreamsGroup,
    context: &Context<'_>,
    command: &StreamsHeartbeat,
) -> Result<Decision, Refusal> {
    let joins = command.member_epoch == JOIN_EPOCH;
    let member_id = command.member_id.detached();
    if joins {
        has_room(group, context, &member_id)?;
    }
    let member = find_member(group, command, &member_id)?;
    let told = told(member.map(|member| &member.metadata), command, joins);
    let new_topology = new_topology(group, command)?;
    let topology_epoch =
        told.as_ref().or(member.map(|member| &member.metadata)).map_or(0, |metadata| metadata.topology_epoch);
    let settled = told.is_none() && new_topology.is_none() && is_settled(group, context, member);
    let updated = if settled {
        Updated::default()
    } else {
        let owned = command.owned.as_ref();
        update::decide(group, context, Update { member_id: &member_id, member, told, new_topology, owned })?
    };
    let nothing = CurrentTasks::default();
    let before = member.map_or(&nothing, |member| &member.current);
    let after = updated.current.as_ref().unwrap_or(before);
    let moved = member.is_none() || after.assigned != before.assigned;
    // Who was not told or did not hear what it has.
    let asks = command.member_epoch != before.epoch
        || (command.rebalance_timeout_ms.is_some() && command.owned.is_some());
    let configured = updated.configured.as_ref().or(context.configured);
    let mut status = Vec::new();
    status.extend(stale(group, topology_epoch));
    status.extend(updated.delayed);
    status.extend(configured.and_then(|configured| configured.problem.clone()));
    let reply = StreamsHeartbeatReply {
        heartbeat_interval_ms: context.config.heartbeat_interval_ms,
        status,
        tasks: (joins || asks || moved).then(|| after.assigned.tasks()),
        missing: configured.map(|configured| configured.missing.clone()).unwrap_or_default(),
        ..StreamsHeartbeatReply::of(member_id, after.epoch)
    };
    Ok(Decision {
        records: updated.records,
        reply,
        configured: updated.configured,
        moved,
        starts_delay: updated.starts_delay,
    })
}

/// Nothing of the group or the member can move.
fn is_settled(group: &StreamsGroup, context: &Context<'_>, member: Option<&StreamsMember>) -> bool {
    let there = member.is_some_and(|member| {
        member.current.state == MemberState::Stable && member.current.epoch == group.target_epoch
    });
    there
        && group.head.epoch == group.target_epoch
        && !context.look_at_topics
        && update::has_configs(group, context)
}

/// Whether `group.streams.max.size` lets the member in.
fn has_room(group: &StreamsGroup, context: &Context<'_>, member_id: &Text) -> Result<(), Refusal> {
    let most = context.config.group_size_max.min(MEMBERS_PER_GROUP_MAX);
    if group.members().contains_key(member_id) || group.members().len() < most {
        return Ok(());
    }
    let message = format!("The streams group has reached its maximum capacity of {most} members.");
    Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message))
}

fn find_member<'a>(
    group: &'a StreamsGroup,
    command: &StreamsHeartbeat,
    member_id: &Text,
) -> Result<Option<&'a StreamsMember>, Refusal> {
    let Some(member) = group.members().get(member_id) else {
        let joins = command.member_epoch == JOIN_EPOCH;
        return if joins { Ok(None) } else { Err(Refusal::unknown_member(member_id)) };
    };
    check_epoch(member, command)?;
    Ok(Some(member))
}

/// The member's epoch; or the one before, if the member has nothing that it should not have in this one: the answer
/// that told the new epoch may have been lost. Joining anew is always right.
fn check_epoch(member: &StreamsMember, command: &StreamsHeartbeat) -> Result<(), Refusal> {
    let current = &member.current;
    if command.member_epoch == JOIN_EPOCH || command.member_epoch == current.epoch {
        return Ok(());
    }
    let has_no_more = command.owned.as_ref().is_some_and(|owned| is_subset(owned, &current.assigned));
    if command.member_epoch == current.previous_epoch && has_no_more {
        return Ok(());
    }
    let compared = if command.member_epoch > current.epoch { "greater" } else { "smaller" };
    let message = format!(
        "The streams group member has a {compared} member epoch ({}) than the one known by the group coordinator \
         ({}). The member must abandon all its partitions and rejoin.",
        command.member_epoch, current.epoch
    );
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
}

/// The topology that the group gets. It keeps the one it has; a member with an older one is told so.
fn new_topology(group: &StreamsGroup, command: &StreamsHeartbeat) -> Result<Option<Arc<Topology>>, Refusal> {
    match (&command.topology, group.topology()) {
        (Some(Ok(told)), None) => Ok(Some(Arc::new(told.clone()))),
        (Some(Ok(told)), Some(known)) if told.epoch >= known.epoch && *told != **known => {
            Err(Refusal::new(ErrorCode::InvalidRequest, "Topology updates are not supported yet."))
        }
        (_, Some(_)) => Ok(None),
        // Only a damaged log has members without a topology: they have to tell it anew.
        (_, None) => {
            let message =
                "The group's topology is not known. The member must abandon all its tasks and rejoin.";
            Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
        }
    }
}

fn stale(group: &StreamsGroup, topology_epoch: i32) -> Option<Status> {
    let known = group.topology()?.epoch;
    let detail =
        format!("The member's topology epoch {topology_epoch} is behind the group's topology epoch {known}.");
    (topology_epoch < known).then(|| Status { code: StatusCode::StaleTopology, detail: Text::from(detail) })
}

/// Most heartbeats: nothing is copied for them.
fn says_nothing_new(before: &StreamsMemberMetadata, command: &StreamsHeartbeat) -> bool {
    let as_before = |told: &Option<Text>, known: Option<&Text>| told.is_none() || told.as_ref() == known;
    command.topology.is_none()
        && command.rebalance_timeout_ms.is_none_or(|timeout_ms| timeout_ms == before.rebalance_timeout_ms)
        && as_before(&command.rack_id, before.rack_id.as_ref())
        && as_before(&command.process_id, Some(&before.process_id))
        && (command.user_endpoint.is_none() || command.user_endpoint == before.user_endpoint)
        && command.client_tags.as_ref().is_none_or(|tags| *tags == before.client_tags)
        && command.client_id == before.client_id
        && command.client_host == before.client_host
}

/// What the member told, if that is new.
fn told(
    before: Option<&StreamsMemberMetadata>,
    command: &StreamsHeartbeat,
    joins: bool,
) -> Option<StreamsMemberMetadata> {
    if before.is_some_and(|before| says_nothing_new(before, command)) {
        return None;
    }
    let mut metadata = before.cloned().unwrap_or_default();
    if let Some(rack) = &command.rack_id {
        metadata.rack_id = Some(rack.detached());
    }
    if let Some(timeout_ms) = command.rebalance_timeout_ms {
        metadata.rebalance_timeout_ms = timeout_ms;
    }
    if let Some(Ok(topology)) = &command.topology {
        metadata.topology_epoch = topology.epoch;
    }
    if let Some(process_id) = &command.process_id {
        metadata.process_id = process_id.detached();
    }
    if let Some(endpoint) = &command.user_endpoint {
        metadata.user_endpoint = Some(endpoint.clone());
    }
    if let Some(tags) = &command.client_tags {
        metadata.client_tags.clone_from(tags);
    }
    if joins || metadata.client_id != command.client_id || metadata.client_host != command.client_host {
        metadata.client_id = command.client_id.detached();
        metadata.client_host = command.client_host.detached();
    }
    (before != Some(&metadata)).then_some(metadata)
}

/// What a member says that it has is of the topology.
pub(crate) fn check_tasks(configured: &Configured, owned: Option<&TaskSet>) -> Result<(), Refusal> {
    let Some(owned) = owned else { return Ok(()) };
    let invalid = |message: String| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let check = |tasks: &BTreeMap<Text, BTreeSet<i32>>| {
        for (id, numbers) in tasks {
            let Some(known) = configured.tasks.get(id) else {
                return invalid(format!("Subtopology {id} does not exist in the topology."));
            };
            if let Some(number) = numbers.iter().find(|number| !(0..known.count).contains(*number)) {
                return invalid(format!(
                    "Task {number} for subtopology {id} is invalid. Number of tasks for this subtopology: {}",
                    known.count
                ));
            }
        }
        Ok(())
    };
    [&owned.active, &owned.standby, &owned.warmup].into_iter().try_for_each(check)
}
