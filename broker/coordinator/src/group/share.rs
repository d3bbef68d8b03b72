//! Share groups (KIP-932) within the machine: decisions are those of [`crate::share_group`]; here are their appends, timers
//! and answers. As a consumer group, a share group is ahead of the log (see `consumer.rs`).

use std::collections::{BTreeMap, BTreeSet};

use ottla_wire::encode::EncodeError;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use uuid::Uuid;

use super::command::{CoordinatorRecord, Effects, Now, Reply, RequestToken, Ticket};
use super::consumer::not_encoded;
use super::describe_consumer::DescribedPartitions;
use super::member::{LiveGroup, milliseconds};
use super::timers::{Deadline, TimerKey, TimerKind};
use super::{GroupCoordinator, GroupState, Turn};
use crate::consumer_group::{JOIN_EPOCH, Partitions, Refusal, TopicsView};
use crate::share_group::heartbeat::{self, ShareContext};
use crate::share_group::{
    ShareGroup, ShareGroupState, ShareHeartbeat, ShareHeartbeatReply, ShareMetadata, ShareRecord,
    ShareStateChange, ShareStateCommand, StatePartitions, offsets, records,
};

/// A share group as the leader sees it now.
#[derive(Debug, Default)]
pub(crate) struct LiveShare {
    /// With everything that was decided.
    pub(crate) group: ShareGroup,
    /// Members' sessions.
    sessions: BTreeMap<Text, Deadline>,
    /// When the initialisation of share-partitions of a topic was begun, on the monotonic clock; topics that are not here
    /// were begun by an earlier leader.
    initializing: BTreeMap<Uuid, u64>,
    /// The last append about it.
    pub(super) last_append: Option<Ticket>,
}

impl LiveShare {
    pub(crate) fn new(group: ShareGroup) -> Self {
        Self { group, ..Self::default() }
    }

    /// The records that take it out of the log.
    pub(crate) fn tombstones(&self, id: &Text) -> Result<Vec<CoordinatorRecord>, EncodeError> {
        records::encode_all(id, &self.group.tombstones())
    }

    /// What an earlier leader, or this one long ago, began to initialise and nobody has ended.
    fn retries(&self, now_ms: u64, interval_ms: u64) -> Partitions {
        let is_due = |id: &Uuid| {
            self.initializing.get(id).is_none_or(|begun_ms| now_ms.saturating_sub(*begun_ms) >= interval_ms)
        };
        let initializing = self.group.partitions.initializing.iter();
        initializing.filter(|(id, _)| is_due(id)).map(|(id, (_, numbers))| (*id, numbers.clone())).collect()
    }
}

/// A member of a described share group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareMemberDescription {
    /// Its id.
    pub member_id: Text,
    /// Its epoch.
    pub member_epoch: i32,
    /// What it told of itself.
    pub metadata: ShareMetadata,
    /// What it reads. Topics that are gone are left out.
    pub assignment: Vec<DescribedPartitions>,
}

/// A described share group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareGroupDescription {
    /// Its state.
    pub state: ShareGroupState,
    /// Its epoch.
    pub group_epoch: i32,
    /// Of the target.
    pub assignment_epoch: i32,
    /// By member id.
    pub members: Vec<ShareMemberDescription>,
}

/// A group that is of another type, or is not there.
fn not_a_share_group(group_id: &Text) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("Group {group_id} is not a share group."))
}

fn not_coordinator() -> Refusal {
    Refusal::new(ErrorCode::NotCoordinator, ErrorCode::NotCoordinator.message())
}

impl GroupCoordinator {
    /// A share group as it is committed; GROUP_ID_NOT_FOUND if there is none, or one of another type.
    pub fn describe_share_group(&self, group_id: &Text) -> Result<ShareGroupDescription, Refusal> {
        if !self.leading {
            return Err(not_coordinator());
        }
        let found = self.durable.group(group_id).ok_or_else(|| super::consumer::group_not_found(group_id))?;
        let group = found.share.as_ref().ok_or_else(|| not_a_share_group(group_id))?;
        let topics = &*self.machinery.topics;
        let members = group.members().iter().map(|(member_id, member)| ShareMemberDescription {
            member_id: member_id.clone(),
            member_epoch: member.current.epoch,
            metadata: member.metadata.clone(),
            assignment: described(topics, &member.current.assigned),
        });
        Ok(ShareGroupDescription {
            state: group.state(),
            group_epoch: group.epoch,
            assignment_epoch: group.target_epoch,
            members: members.collect(),
        })
    }

    /// Which share-partitions are kept for a share group, and whether it has members; its epoch is their state epoch.
    pub fn share_partitions(&self, group_id: &Text) -> Result<(StatePartitions, bool, i32), Refusal> {
        let group = self.share_group(group_id)?;
        Ok((group.partitions.clone(), group.members().is_empty(), group.epoch))
    }

    /// Whether this is a share group.
    pub fn is_share_group(&self, group_id: &str) -> bool {
        let found = self.groups.get(group_id).filter(|group| group.state != GroupState::Dead);
        found.is_some_and(|group| group.share.is_some())
    }

    fn share_group(&self, group_id: &Text) -> Result<&ShareGroup, Refusal> {
        if !self.leading {
            return Err(not_coordinator());
        }
        let found = self.groups.get(group_id).filter(|group| group.state != GroupState::Dead);
        match found {
            None => Err(super::consumer::group_not_found(group_id)),
            Some(group) => {
                group.share.as_ref().map(|share| &share.group).ok_or_else(|| not_a_share_group(group_id))
            }
        }
    }

    pub(super) fn share_heartbeat(
        &mut self,
        now: Now,
        token: RequestToken,
        command: &ShareHeartbeat,
        effects: &mut Effects,
    ) {
        let refuse = |refusal: Refusal| (token, Reply::ShareHeartbeat(ShareHeartbeatReply::refused(refusal)));
        let joins = command.member_epoch == JOIN_EPOCH;
        let mut ready = heartbeat::validate(command);
        if ready.is_ok() && !self.machinery.topics_known {
            let error = ErrorCode::CoordinatorLoadInProgress;
            ready = Err(Refusal::new(error, "The topics are not known yet."));
        }
        if ready.is_ok() && joins {
            ready = self
                .ensure_group(&command.group_id)
                .map_err(|error| Refusal::new(error, "There are too many groups."));
        }
        if let Err(refusal) = ready {
            effects.replies.push(refuse(refusal));
            return;
        }
        let found = self.with_group(now, effects, &command.group_id, |turn, group| {
            if let Err(refusal) = turn.share_heartbeat(group, token, command) {
                let (token, reply) = refuse(refusal);
                turn.reply(token, reply);
            }
        });
        if found.is_none() {
            effects.replies.push(refuse(super::consumer::group_not_found(&command.group_id)));
        }
    }

    pub(super) fn share_state(
        &mut self,
        now: Now,
        token: RequestToken,
        command: &ShareStateCommand,
        effects: &mut Effects,
    ) {
        if let ShareStateChange::Initialized { create: true, .. } = command.change
            && let Err(error) = self.ensure_group(&command.group_id)
        {
            effects.replies.push((token, Reply::ShareState(error)));
            return;
        }
        let found = self.with_group(now, effects, &command.group_id, |turn, group| {
            if let Err(error) = turn.share_state(group, token, command) {
                turn.reply(token, Reply::ShareState(error));
            }
        });
        if found.is_none() {
            effects.replies.push((token, Reply::ShareState(ErrorCode::GroupIdNotFound)));
        }
    }
}

fn described(topics: &TopicsView, partitions: &Partitions) -> Vec<DescribedPartitions> {
    let one = |(topic_id, numbers): (&Uuid, &BTreeSet<i32>)| {
        let topic = topics.by_id(*topic_id)?;
        let partitions = numbers.iter().copied().collect();
        Some(DescribedPartitions { topic_id: *topic_id, topic_name: topic.name.clone(), partitions })
    };
    partitions.iter().filter_map(one).collect()
}

impl LiveGroup {
    /// A record of a share group that is on its way.
    pub(super) fn apply_share_ahead(&mut self, record: ShareRecord) {
        if matches!(record, ShareRecord::Group(None)) {
            self.share = None;
        } else if !record.is_tombstone() {
            self.share.get_or_insert_default().group.apply(record);
        } else if let Some(share) = &mut self.share {
            share.group.apply(record);
        }
    }

    /// Whether a share group may stand under this id: nothing else does.
    fn may_be_share(&self) -> bool {
        self.share.is_some()
            || (self.consumer.is_none()
                && self.streams.is_none()
                && self.members.is_empty()
                && self.protocol_type.is_none()
                && self.generation == 0
                && self.pending_members.is_empty()
                && self.in_flight.is_empty())
    }
}

impl Turn<'_> {
    fn share_context(&self, id: &Text) -> ShareContext<'_> {
        ShareContext {
            config: &self.config.share,
            overrides: self.machinery.overrides.get(id).copied().unwrap_or_default().share,
            topics: &self.machinery.topics,
            wall_ms: self.now.wall_ms,
        }
    }

    fn share_heartbeat(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &ShareHeartbeat,
    ) -> Result<(), Refusal> {
        let joins = command.member_epoch == JOIN_EPOCH;
        if !group.may_be_share() || (group.share.is_none() && !joins) {
            return Err(not_a_share_group(&group.id));
        }
        let nothing = ShareGroup::default();
        let share = group.share.as_deref();
        let known = share.map_or(&nothing, |share| &share.group);
        let interval_ms = self.config.share.initialize_retry_interval_ms;
        let retries =
            share.map(|share| share.retries(self.now.monotonic_ms, interval_ms)).unwrap_or_default();
        let decision = heartbeat::decide(known, &self.share_context(&group.id), command, &retries)?;
        let records = records::encode_all(&group.id, &decision.records).map_err(|_| not_encoded())?;
        let share = group.share.get_or_insert_default();
        for record in decision.records {
            share.group.apply(record);
        }
        if let Some((_, initialize)) = &decision.reply.initialize {
            let begun = initialize.keys().map(|id| (*id, self.now.monotonic_ms));
            share.initializing.extend(begun);
        }
        match &decision.member_id {
            Some(member_id) => self.arm_share_session(group, member_id),
            None => self.cancel_share_session(group, &command.member_id),
        }
        self.append_ahead(group, records, Some((token, Reply::ShareHeartbeat(decision.reply))));
        Ok(())
    }

    fn share_state(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &ShareStateCommand,
    ) -> Result<(), ErrorCode> {
        let creates = matches!(command.change, ShareStateChange::Initialized { create: true, .. });
        if !group.may_be_share() || (group.share.is_none() && !creates) {
            return Err(ErrorCode::GroupIdNotFound);
        }
        let nothing = ShareGroup::default();
        let known = group.share.as_deref().map_or(&nothing, |share| &share.group);
        if command.must_be_empty && !known.members().is_empty() {
            return Err(ErrorCode::NonEmptyGroup);
        }
        let mut decided = Vec::new();
        if group.share.is_none() {
            decided.push(ShareRecord::Group(Some((0, 0))));
        }
        decided.extend(offsets::change(known, &self.machinery.topics, &command.change)?);
        let records = records::encode_all(&group.id, &decided).map_err(|_| ErrorCode::UnknownServerError)?;
        let share = group.share.get_or_insert_default();
        for record in decided {
            share.group.apply(record);
        }
        let LiveShare { group: known, initializing, .. } = &mut **share;
        initializing.retain(|id, _| known.partitions.initializing.contains_key(id));
        self.append_ahead(group, records, Some((token, Reply::ShareState(ErrorCode::None))));
        Ok(())
    }

    /// A session's entry came up: a silent member is taken out.
    pub(super) fn share_timer_up(&mut self, group: &mut LiveGroup, key: TimerKey) {
        let Some(share) = &mut group.share else { return };
        let TimerKind::Session(member_id) = key.kind.clone() else { return };
        let Some(deadline) = share.sessions.get_mut(&member_id) else { return };
        if !self.machinery.timers.is_due(deadline, key, self.now.monotonic_ms) {
            return;
        }
        share.sessions.remove(&member_id);
        let gone = BTreeSet::from([member_id]);
        let Some(share) = &group.share else { return };
        let decided = heartbeat::remove(&share.group, &self.share_context(&group.id), &gone);
        // The names are in the log already.
        let Ok(records) = records::encode_all(&group.id, &decided) else { return };
        let Some(share) = &mut group.share else { return };
        for record in decided {
            share.group.apply(record);
        }
        self.append_ahead(group, records, None);
    }

    /// The member showed a sign of life.
    fn arm_share_session(&mut self, group: &mut LiveGroup, member_id: &Text) {
        let overrides = self.machinery.overrides.get(&group.id).copied().unwrap_or_default().share;
        let timeout_ms = overrides.session_timeout_ms.unwrap_or(self.config.share.session_timeout_ms);
        let due_ms = self.now.monotonic_ms.saturating_add(milliseconds(timeout_ms));
        let Some(share) = &mut group.share else { return };
        let deadline = share.sessions.entry(member_id.clone()).or_default();
        let id = &group.id;
        let key = || TimerKey { group: id.clone(), kind: TimerKind::Session(member_id.clone()) };
        self.machinery.timers.arm(deadline, key, due_ms);
    }

    fn cancel_share_session(&mut self, group: &mut LiveGroup, member_id: &Text) {
        let Some(share) = &mut group.share else { return };
        if let Some(mut deadline) = share.sessions.remove(member_id) {
            let id = &group.id;
            let key = || TimerKey { group: id.clone(), kind: TimerKind::Session(member_id.clone()) };
            self.machinery.timers.cancel(&mut deadline, key);
        }
    }

    /// Leadership begins, or the group is anew what the log has: every member has its timeout from now on.
    pub(super) fn arm_share_sessions(&mut self, group: &mut LiveGroup) {
        let Some(share) = &group.share else { return };
        let members: Vec<Text> = share.group.members().keys().cloned().collect();
        for member_id in members {
            self.arm_share_session(group, &member_id);
        }
    }

    /// No timer is left.
    pub(super) fn drop_share_sessions(&mut self, group: &mut LiveGroup) {
        let Some(share) = &group.share else { return };
        let members: Vec<Text> = share.sessions.keys().cloned().collect();
        for member_id in members {
            self.cancel_share_session(group, &member_id);
        }
    }
}
