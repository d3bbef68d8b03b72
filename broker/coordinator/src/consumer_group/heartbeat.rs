//! ConsumerGroupHeartbeat (KIP-848; KIP-1082: the client makes the member id): what is refused, and what follows.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{ConsumerHeartbeat, ConsumerHeartbeatReply, Refusal};
use super::config::ConsumerGroupConfig;
use super::leave;
use super::reconcile::is_subset;
use super::regex;
use super::state::{
    ConsumerGroup, ConsumerMember, ConsumerRecord, CurrentAssignment, JOIN_EPOCH, LEAVE_EPOCH,
    LEAVE_STATIC_EPOCH, MemberMetadata, MemberState, partitions_of,
};
use super::update::{self, Context, Update, Updated};
use crate::group::{MEMBER_TEXTS_BYTES_MAX, MEMBERS_PER_GROUP_MAX, PATTERNS_PER_GROUP_MAX};

/// What follows from a heartbeat.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) records: Vec<ConsumerRecord>,
    pub(crate) reply: ConsumerHeartbeatReply,
    /// The member after it; None: it leaves for good, which the records do not say yet.
    pub(crate) member_id: Option<Text>,
    /// A static member that it replaced, or the member that left.
    pub(crate) gone: Option<Text>,
}

/// What is wrong with a request whatever the group.
pub(crate) fn validate(command: &ConsumerHeartbeat, config: &ConsumerGroupConfig) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let is_empty = |text: &Option<Text>| text.as_ref().is_some_and(|text| text.is_empty());
    if command.group_id.is_empty() {
        return invalid("GroupId can't be empty.");
    }
    let joins = command.member_epoch == JOIN_EPOCH;
    if command.member_id.is_empty() && (command.member_id_required || !joins) {
        return invalid("MemberId can't be empty.");
    }
    if is_empty(&command.instance_id) {
        return invalid("InstanceId can't be empty.");
    }
    if is_empty(&command.rack_id) {
        return invalid("RackId can't be empty.");
    }
    if joins {
        if command.rebalance_timeout_ms.is_none() {
            return invalid("RebalanceTimeoutMs must be provided in the first request.");
        }
        if command.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if command.topics.is_none() && command.regex.is_none() {
            return invalid("SubscribedTopicNames or SubscribedTopicRegex must be set when (re-)joining.");
        }
    } else if command.member_epoch == LEAVE_STATIC_EPOCH && command.instance_id.is_none() {
        return invalid("InstanceId can't be null.");
    } else if command.member_epoch < LEAVE_STATIC_EPOCH {
        return invalid("MemberEpoch is invalid.");
    }
    if texts_bytes(command) > MEMBER_TEXTS_BYTES_MAX {
        return invalid("The subscription is too long.");
    }
    if let Some(assignor) = &command.server_assignor
        && !config.assignors.contains(assignor)
    {
        let message = format!(
            "ServerAssignor {assignor} is not supported. Supported assignors: {}.",
            config.assignors.join(", ")
        );
        return Err(Refusal::new(ErrorCode::UnsupportedAssignor, message));
    }
    Ok(())
}

fn texts_bytes(command: &ConsumerHeartbeat) -> usize {
    let optional = [&command.instance_id, &command.rack_id, &command.regex].into_iter().flatten();
    let topics = command.topics.iter().flatten();
    let always = [&command.member_id, &command.client_id];
    optional.chain(topics).chain(always).map(|text| text.len()).sum()
}

/// Decides a valid heartbeat.
pub(crate) fn decide(
    group: &ConsumerGroup,
    context: &Context<'_>,
    command: &ConsumerHeartbeat,
) -> Result<Decision, Refusal> {
    if command.member_epoch < JOIN_EPOCH {
        return leave::decide(group, command);
    }
    let joins = command.member_epoch == JOIN_EPOCH;
    let member_id = if command.member_id.is_empty() {
        command.new_member_id.detached()
    } else {
        command.member_id.detached()
    };
    has_room(group, context.config, &member_id, command.instance_id.as_ref())?;
    let (found, former_id) = find_member(group, command, &member_id)?;
    let is_new = found.is_none();
    let replaced =
        former_id.and_then(|former_id| group.members().get(former_id)).map(|former| taken_over(former));
    let member = replaced.as_ref().or(found);
    has_room_for_pattern(group, command.regex.as_ref())?;
    let metadata = told(member.map(|member| &member.metadata), command, joins)?;
    let settled = former_id.is_none() && metadata.is_none() && is_settled(group, context, member);
    let (records, current) = if settled {
        (Vec::new(), None)
    } else {
        let owned = command.owned.as_ref();
        let update = Update { member_id: &member_id, former_id, member, metadata, owned };
        let Updated { records, member } = update::decide(group, context, update);
        (records, Some(member.current))
    };
    let nothing = CurrentAssignment::default();
    let before = member.map_or(&nothing, |member| &member.current);
    let after = current.as_ref().unwrap_or(before);
    let tells_all = joins
        || (command.rebalance_timeout_ms.is_some()
            && (command.topics.is_some() || command.regex.is_some())
            && command.owned.is_some());
    let moved = is_new || after.assigned != before.assigned;
    let reply = ConsumerHeartbeatReply {
        error: ErrorCode::None,
        message: None,
        member_id: Some(member_id.clone()),
        member_epoch: after.epoch,
        heartbeat_interval_ms: context.heartbeat_interval_ms(),
        assignment: (tells_all || moved).then(|| partitions_of(&after.assigned)),
    };
    Ok(Decision { records, reply, member_id: Some(member_id), gone: former_id.cloned() })
}

/// Nothing of the group or the member can move.
fn is_settled(group: &ConsumerGroup, context: &Context<'_>, member: Option<&ConsumerMember>) -> bool {
    let there = member.is_some_and(|member| {
        member.current.state == MemberState::Stable && member.current.epoch == group.target_epoch
    });
    there && group.epoch == group.target_epoch && !context.look_at_topics && !context.refresh_regexes
}

/// Whether `group.consumer.max.size` lets the member in.
pub(crate) fn has_room(
    group: &ConsumerGroup,
    config: &ConsumerGroupConfig,
    member_id: &Text,
    instance: Option<&Text>,
) -> Result<(), Refusal> {
    let most = config.group_size_max.min(MEMBERS_PER_GROUP_MAX);
    let is_member = group.members().contains_key(member_id)
        || instance.is_some_and(|instance| group.static_member(instance).is_some());
    if is_member || group.members().len() < most {
        return Ok(());
    }
    let message = format!("The consumer group has reached its maximum capacity of {most} members.");
    Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message))
}

fn has_room_for_pattern(group: &ConsumerGroup, pattern: Option<&Text>) -> Result<(), Refusal> {
    let patterns = group.regex_counts();
    let is_new = pattern.is_some_and(|pattern| !pattern.is_empty() && !patterns.contains_key(pattern));
    if !is_new || patterns.len() < PATTERNS_PER_GROUP_MAX {
        return Ok(());
    }
    let message = format!("A group may have at most {PATTERNS_PER_GROUP_MAX} different patterns.");
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

/// The member that the heartbeat is of, if there is one, or the static member whose place it takes.
fn find_member<'a>(
    group: &'a ConsumerGroup,
    command: &ConsumerHeartbeat,
    member_id: &Text,
) -> Result<(Option<&'a ConsumerMember>, Option<&'a Text>), Refusal> {
    let joins = command.member_epoch == JOIN_EPOCH;
    if let Some(instance) = &command.instance_id {
        match group.static_member(instance) {
            None if !joins => return Err(unknown_instance(instance)),
            Some(holder) if holder != member_id => {
                let released = group.members().get(holder);
                if !joins {
                    return Err(fenced_instance(instance));
                }
                // A member of the classic protocol never says that it will be back.
                let holds = |member: &ConsumerMember| {
                    !member.is_classic() && member.current.epoch != LEAVE_STATIC_EPOCH
                };
                if released.is_some_and(|released| holds(released)) {
                    let message = format!("Static member {instance} is still used by another member.");
                    return Err(Refusal::new(ErrorCode::UnreleasedInstanceId, message));
                }
                return Ok((None, Some(holder)));
            }
            _ => {}
        }
    }
    let member = group.members().get(member_id);
    match member {
        None if joins => Ok((None, None)),
        None => Err(Refusal::unknown_member(member_id)),
        Some(member) => {
            check_epoch(member, command)?;
            Ok((Some(member), None))
        }
    }
}

pub(crate) fn unknown_instance(instance: &str) -> Refusal {
    Refusal::new(ErrorCode::UnknownMemberId, format!("Instance id {instance} is unknown."))
}

pub(crate) fn fenced_instance(instance: &str) -> Refusal {
    let message = format!("Static member {instance} was fenced by another member.");
    Refusal::new(ErrorCode::FencedInstanceId, message)
}

/// The member's epoch; or the one before, if the member has nothing that it should not have in this one: the answer
/// that told the new epoch may have been lost. Joining anew is always right.
fn check_epoch(member: &ConsumerMember, command: &ConsumerHeartbeat) -> Result<(), Refusal> {
    let current = &member.current;
    if command.member_epoch == JOIN_EPOCH || command.member_epoch == current.epoch {
        return Ok(());
    }
    let has_no_more = command.owned.as_ref().is_some_and(|owned| is_subset(owned, &current.assigned));
    if command.member_epoch == current.previous_epoch && has_no_more {
        return Ok(());
    }
    let message = format!(
        "The member's epoch is {}, not {}. The member must abandon all its partitions and rejoin.",
        current.epoch, command.member_epoch
    );
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
}

/// What a static member that comes back takes over from its former self.
pub(crate) fn taken_over(former: &ConsumerMember) -> ConsumerMember {
    let current = CurrentAssignment {
        epoch: JOIN_EPOCH,
        previous_epoch: JOIN_EPOCH,
        state: MemberState::Stable,
        assigned: former.current.assigned.clone(),
        revoking: Default::default(),
    };
    ConsumerMember { metadata: former.metadata.clone(), current }
}

/// Most heartbeats: nothing is copied for them.
fn says_nothing_new(before: &MemberMetadata, command: &ConsumerHeartbeat) -> bool {
    let as_before = |told: &Option<Text>, known: &Option<Text>| told.is_none() || told == known;
    command.topics.is_none()
        && command.regex.is_none()
        && command.rebalance_timeout_ms.is_none_or(|timeout_ms| timeout_ms == before.rebalance_timeout_ms)
        && as_before(&command.instance_id, &before.instance_id)
        && as_before(&command.rack_id, &before.rack_id)
        && as_before(&command.server_assignor, &before.server_assignor)
        && command.client_id == before.client_id
        && command.client_host == before.client_host
        && before.classic.is_none()
}

/// What the member told, if that is new.
fn told(
    before: Option<&MemberMetadata>,
    command: &ConsumerHeartbeat,
    joins: bool,
) -> Result<Option<MemberMetadata>, Refusal> {
    if before.is_some_and(|before| says_nothing_new(before, command)) {
        return Ok(None);
    }
    let mut metadata = before.cloned().unwrap_or_default();
    let own = |text: &Text| text.detached();
    if let Some(instance) = &command.instance_id {
        metadata.instance_id = Some(own(instance));
    }
    if let Some(rack) = &command.rack_id {
        metadata.rack_id = Some(own(rack));
    }
    if let Some(timeout_ms) = command.rebalance_timeout_ms {
        metadata.rebalance_timeout_ms = timeout_ms;
    }
    if let Some(topics) = &command.topics {
        metadata.topics = topics.iter().map(own).collect();
    }
    if let Some(pattern) = &command.regex {
        if metadata.regex.as_ref() != Some(pattern) && !pattern.is_empty() {
            regex::compile(pattern).map_err(|error| {
                let message = format!("SubscribedTopicRegex `{pattern}` is not valid: {error}.");
                Refusal::new(ErrorCode::InvalidRegularExpression, message)
            })?;
        }
        metadata.regex = Some(own(pattern)).filter(|pattern| !pattern.is_empty());
    }
    if let Some(assignor) = &command.server_assignor {
        metadata.server_assignor = Some(own(assignor));
    }
    if joins || metadata.client_id != command.client_id || metadata.client_host != command.client_host {
        metadata.client_id = own(&command.client_id);
        metadata.client_host = own(&command.client_host);
    }
    // From now on it speaks this protocol.
    metadata.classic = None;
    Ok((before != Some(&metadata)).then_some(metadata))
}

/// The epoch of a member that is gone: what it is answered.
pub(crate) fn left(command: &ConsumerHeartbeat) -> ConsumerHeartbeatReply {
    debug_assert!(matches!(command.member_epoch, LEAVE_EPOCH | LEAVE_STATIC_EPOCH));
    ConsumerHeartbeatReply {
        error: ErrorCode::None,
        message: None,
        member_id: Some(command.member_id.clone()),
        member_epoch: command.member_epoch,
        heartbeat_interval_ms: 0,
        assignment: None,
    }
}
