//! ShareGroupHeartbeat (KIP-932): what is refused, and what follows.

use std::collections::{BTreeMap, BTreeSet};

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use uuid::Uuid;

use super::assignor;
use super::command::{ShareGroupConfig, ShareHeartbeat, ShareHeartbeatReply, ShareOverrides};
use super::offsets;
use super::state::{ShareCurrent, ShareGroup, ShareMember, ShareMetadata, ShareRecord};
use crate::consumer_group::{JOIN_EPOCH, LEAVE_EPOCH, Partitions, Refusal, TopicsView, metadata_hash};
use crate::group::{MEMBER_TEXTS_BYTES_MAX, MEMBERS_PER_GROUP_MAX};

/// What a decision goes by beside the group.
pub(crate) struct ShareContext<'a> {
    pub(crate) config: &'a ShareGroupConfig,
    pub(crate) overrides: ShareOverrides,
    pub(crate) topics: &'a TopicsView,
    /// Milliseconds since the Unix epoch.
    pub(crate) wall_ms: i64,
}

impl ShareContext<'_> {
    fn heartbeat_interval_ms(&self) -> i32 {
        self.overrides.heartbeat_interval_ms.unwrap_or(self.config.heartbeat_interval_ms)
    }

    fn assignment_interval_ms(&self) -> i64 {
        self.overrides.assignment_interval_ms.unwrap_or(self.config.assignment_interval_ms)
    }
}

/// What follows from a heartbeat.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) records: Vec<ShareRecord>,
    pub(crate) reply: ShareHeartbeatReply,
    /// The member after it; None: it leaves.
    pub(crate) member_id: Option<Text>,
}

/// What is wrong with a request whatever the group.
pub(crate) fn validate(command: &ShareHeartbeat) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    if command.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if command.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if command.rack_id.as_ref().is_some_and(|rack| rack.trim().is_empty()) {
        return invalid("RackId can't be empty.");
    }
    if command.member_epoch == JOIN_EPOCH {
        if command.topics.as_ref().is_none_or(Vec::is_empty) {
            return invalid("SubscribedTopicNames must be set in first request.");
        }
    } else if command.member_epoch < LEAVE_EPOCH {
        return invalid("MemberEpoch is invalid.");
    }
    let texts = command.topics.iter().flatten().chain(&command.rack_id);
    let bytes: usize = texts.chain([&command.member_id, &command.client_id]).map(|text| text.len()).sum();
    if bytes > MEMBER_TEXTS_BYTES_MAX {
        return invalid("The subscription is too long.");
    }
    Ok(())
}

/// Decides a valid heartbeat. `retries`: share-partitions whose initialisation is to be tried again.
pub(crate) fn decide(
    group: &ShareGroup,
    context: &ShareContext<'_>,
    command: &ShareHeartbeat,
    retries: &Partitions,
) -> Result<Decision, Refusal> {
    let found = group.members().get(&command.member_id);
    if command.member_epoch == LEAVE_EPOCH {
        if found.is_none() {
            return Err(Refusal::unknown_member(&command.member_id));
        }
        let reply = reply_of(&command.member_id, LEAVE_EPOCH, 0);
        let records = remove(group, context, &BTreeSet::from([command.member_id.clone()]));
        return Ok(Decision { records, reply, member_id: None });
    }
    check_member(group, context, command, found)?;
    let member_id = command.member_id.detached();
    let nobody = ShareMember::default();
    let before = found.unwrap_or(&nobody);
    let metadata = told(&before.metadata, command);
    let mut records = Vec::new();
    let mut after = group.clone();
    let record = |record: ShareRecord, after: &mut ShareGroup, records: &mut Vec<ShareRecord>| {
        after.apply(record.clone());
        records.push(record);
    };
    let subscribes_anew = found.is_none() || metadata.topics != before.metadata.topics;
    if found.is_none() || metadata != before.metadata {
        record(ShareRecord::Member(member_id.clone(), Some(metadata)), &mut after, &mut records);
    }
    let hash = metadata_hash(names(&after).into_iter(), context.topics);
    if let Some(partitions) = offsets::without_deleted_topics(&after, context.topics) {
        record(ShareRecord::Partitions(Some(partitions)), &mut after, &mut records);
    }
    let initialize = offsets::to_initialize(&after, context.topics);
    if !initialize.is_empty() {
        let partitions = offsets::initializing(&after, context.topics, &initialize);
        record(ShareRecord::Partitions(Some(partitions)), &mut after, &mut records);
    }
    // What was initialised since the target was made is to be shared out.
    let pending = offsets::readable(&after, context.topics) != targeted(&after);
    if subscribes_anew || hash != after.metadata_hash || (pending && after.epoch == after.target_epoch) {
        record(ShareRecord::Group(Some((after.epoch + 1, hash))), &mut after, &mut records);
    }
    if after.epoch > after.target_epoch && interval_is_over(&after, context) {
        for target in new_target(&after, context) {
            record(target, &mut after, &mut records);
        }
    }
    let target = after.targets().get(&member_id).cloned().unwrap_or_default();
    let current = &before.current;
    let epoch = after.target_epoch.max(1);
    let moves = found.is_none() || current.epoch != epoch || current.assigned != target;
    if moves {
        let current = ShareCurrent { epoch, previous_epoch: current.epoch, assigned: target.clone() };
        record(ShareRecord::Current(member_id.clone(), Some(current)), &mut after, &mut records);
    }
    // Who tells everything, or an epoch from before, may not have got the last answer.
    let is_unsure = command.topics.is_some() || command.member_epoch != current.epoch;
    let tells = is_unsure || current.assigned != target;
    let mut initialize = initialize;
    for (topic, numbers) in retries {
        initialize.entry(*topic).or_default().extend(numbers);
    }
    let reply = ShareHeartbeatReply {
        assignment: tells.then_some(target),
        initialize: (!initialize.is_empty()).then_some((after.epoch, initialize)),
        ..reply_of(&member_id, epoch, context.heartbeat_interval_ms())
    };
    Ok(Decision { records, reply, member_id: Some(member_id) })
}

fn reply_of(member_id: &Text, member_epoch: i32, heartbeat_interval_ms: i32) -> ShareHeartbeatReply {
    ShareHeartbeatReply {
        error: ErrorCode::None,
        message: None,
        member_id: Some(member_id.clone()),
        member_epoch,
        heartbeat_interval_ms,
        assignment: None,
        initialize: None,
    }
}

fn check_member(
    group: &ShareGroup,
    context: &ShareContext<'_>,
    command: &ShareHeartbeat,
    found: Option<&ShareMember>,
) -> Result<(), Refusal> {
    let most = context.config.group_size_max.min(MEMBERS_PER_GROUP_MAX);
    match found {
        None if command.member_epoch != JOIN_EPOCH => Err(Refusal::unknown_member(&command.member_id)),
        None if group.members().len() >= most => {
            let message = format!("The share group has reached its maximum capacity of {most} members.");
            Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message))
        }
        None => Ok(()),
        Some(member) => {
            let (epoch, current) = (command.member_epoch, &member.current);
            // The answer that told the new epoch may have been lost.
            if epoch == JOIN_EPOCH || epoch == current.epoch || epoch == current.previous_epoch {
                return Ok(());
            }
            let message = format!(
                "The share group member has another member epoch ({epoch}) than the one known by the group \
                 coordinator ({}). The member must abandon all its partitions and rejoin.",
                current.epoch
            );
            Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
        }
    }
}

/// What the member is, with what it tells now.
fn told(before: &ShareMetadata, command: &ShareHeartbeat) -> ShareMetadata {
    ShareMetadata {
        rack_id: command.rack_id.as_ref().map(Text::detached).or_else(|| before.rack_id.clone()),
        client_id: command.client_id.detached(),
        client_host: command.client_host.detached(),
        topics: match &command.topics {
            Some(topics) => topics.iter().map(Text::detached).collect(),
            None => before.topics.clone(),
        },
    }
}

/// Names that members subscribe to.
pub(super) fn names(group: &ShareGroup) -> BTreeSet<&Text> {
    group.members().values().flat_map(|member| &member.metadata.topics).collect()
}

/// What the target gives to anybody.
fn targeted(group: &ShareGroup) -> Partitions {
    let mut all = Partitions::new();
    for (topic, numbers) in group.targets().values().flatten() {
        all.entry(*topic).or_default().extend(numbers);
    }
    all
}

fn interval_is_over(group: &ShareGroup, context: &ShareContext<'_>) -> bool {
    let since_ms = context.wall_ms.saturating_sub(group.target_timestamp_ms);
    // A clock that went back must not stop assignments.
    group.target_epoch == 0 || since_ms < 0 || since_ms >= context.assignment_interval_ms()
}

/// The records of a target for the group's epoch.
fn new_target(group: &ShareGroup, context: &ShareContext<'_>) -> Vec<ShareRecord> {
    let readable = offsets::readable(group, context.topics);
    let may_have = |member: &ShareMember| -> Partitions {
        let ids = member.metadata.topics.iter().filter_map(|name| context.topics.by_name(name));
        ids.filter_map(|topic| Some((topic.id, readable.get(&topic.id)?.clone()))).collect()
    };
    let members: BTreeMap<Text, Partitions> =
        group.members().iter().map(|(member_id, member)| (member_id.clone(), may_have(member))).collect();
    let assigned = assignor::assign(&members, group.targets());
    let mut records: Vec<ShareRecord> = assigned
        .into_iter()
        .filter(|(member_id, partitions)| group.targets().get(member_id) != Some(partitions))
        .map(|(member_id, partitions)| ShareRecord::Target(member_id, Some(partitions)))
        .collect();
    records.push(ShareRecord::TargetEpoch(Some((group.epoch, context.wall_ms))));
    records
}

/// The records that take members out. The others share anew with their next heartbeats.
pub(crate) fn remove(
    group: &ShareGroup,
    context: &ShareContext<'_>,
    gone: &BTreeSet<Text>,
) -> Vec<ShareRecord> {
    let mut records = Vec::new();
    let mut after = group.clone();
    for member_id in gone.iter().filter(|member_id| group.members().contains_key(*member_id)) {
        records.push(ShareRecord::Current(member_id.clone(), None));
        records.push(ShareRecord::Target(member_id.clone(), None));
        records.push(ShareRecord::Member(member_id.clone(), None));
        after.apply(ShareRecord::Member(member_id.clone(), None));
    }
    if !records.is_empty() {
        let hash = metadata_hash(names(&after).into_iter(), context.topics);
        records.push(ShareRecord::Group(Some((group.epoch + 1, hash))));
    }
    records
}

/// The ids of topics that members subscribe to.
pub(super) fn subscribed(group: &ShareGroup, topics: &TopicsView) -> BTreeSet<Uuid> {
    names(group).into_iter().filter_map(|name| topics.by_name(name)).map(|topic| topic.id).collect()
}
