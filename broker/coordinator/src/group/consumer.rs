//! Consumer groups (KIP-848) within the machine: decisions are those of [`crate::consumer_group`]; here are their
//! appends, timers and answers.
//!
//! A consumer group is ahead of the log: what is decided counts for the next request at once, since members need not
//! wait for each other. Answers wait until everything that they tell is committed. If an append fails, the group is again
//! what the log and the appends still on their way make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_wire::encode::EncodeError;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{CoordinatorRecord, Effects, Now, OffsetCommit, Reply, RequestToken, Ticket};
use super::member::LiveGroup;
use super::records::{self, Record};
use super::streams::LiveStreams;
use super::timers::{Deadline, TimerKind};
use super::{GroupCoordinator, Then, Turn};
use crate::consumer_group::heartbeat::{self, Decision};
use crate::consumer_group::update::Context;
use crate::consumer_group::{
    Assigned, ConsumerGroup, ConsumerHeartbeat, ConsumerHeartbeatReply, ConsumerMember, ConsumerRecord,
    GroupOverrides, JOIN_EPOCH, Refusal, TopicsView, leave,
};
use crate::streams_group::{StreamsGroup, StreamsRecord};

/// Where a record of the group's log stands that is applied before its offset is known. Only offset commits carry one.
const NO_RECORD_OFFSET: i64 = -1;
/// How soon patterns are resolved again after topics have changed: many may change one after the other.
const REGEX_REFRESH_PAUSE_MS: u64 = 10_000;

/// A consumer group as the leader sees it now.
#[derive(Debug)]
pub(crate) struct LiveConsumer {
    /// With everything that was decided.
    pub(crate) group: ConsumerGroup,
    /// By what they are for; none is kept that is not armed.
    pub(super) timers: BTreeMap<TimerKind, Deadline>,
    /// The topics that the group epoch goes by.
    looked_at: Option<i64>,
    /// The topics that patterns were resolved against, and when on the monotonic clock.
    resolved: Option<(i64, u64)>,
    /// The last append about it.
    last_append: Option<Ticket>,
}

impl LiveConsumer {
    pub(crate) fn new(group: ConsumerGroup) -> Self {
        Self { group, timers: BTreeMap::new(), looked_at: None, resolved: None, last_append: None }
    }

    /// The records that take it out of the log.
    pub(crate) fn tombstones(&self, id: &Text) -> Result<Vec<CoordinatorRecord>, EncodeError> {
        encode(id, &leave::delete(&self.group))
    }

    /// Who may commit offsets: members by their epoch, and those who are nobody's member while there are none.
    pub(crate) fn may_commit(&self, command: &OffsetCommit, topics: &TopicsView) -> Result<(), ErrorCode> {
        let epoch = command.generation_id;
        if commits_as_nobody(command, self.group.members().is_empty()) {
            return Ok(());
        }
        let transactional = command.transaction.is_some();
        let member = self.group.members().get(&command.member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if !transactional && !member.is_classic() && !command.takes_member_epoch {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let is_older = !member.is_classic() && (0..member.current.epoch).contains(&epoch);
        let checked =
            if is_older { had_since(member, command, epoch, topics) } else { check_epoch(member, epoch) };
        // TxnOffsetCommit speaks of generations only.
        checked.map_err(|error| match error {
            ErrorCode::StaleMemberEpoch if transactional => ErrorCode::IllegalGeneration,
            other => other,
        })
    }
}

/// Whether the offsets are nobody's member's, who may commit while there are none; clients that do not name theirs in
/// transactions may too.
pub(super) fn commits_as_nobody(command: &OffsetCommit, is_empty: bool) -> bool {
    let names_nobody = command.member_id.is_empty() && command.group_instance_id.is_none();
    command.generation_id < 0 && (is_empty || (command.transaction.is_some() && names_nobody))
}

/// The member that fetches offsets; none: whoever it is does not say that it is one.
fn fetching_member(member_id: Option<&Text>, epoch: i32) -> Result<Option<&Text>, ErrorCode> {
    match member_id.filter(|member_id| !member_id.is_empty() || epoch >= 0) {
        None if epoch >= 0 => Err(ErrorCode::UnknownMemberId),
        named => Ok(named),
    }
}

/// An older epoch is as good as the member's own where it has had every partition since then: only others' partitions
/// have moved (KIP-1251).
fn had_since(
    member: &ConsumerMember,
    command: &OffsetCommit,
    epoch: i32,
    topics: &TopicsView,
) -> Result<(), ErrorCode> {
    let current = &member.current;
    let since = |id: uuid::Uuid, partition: i32| {
        let of =
            |partitions: &Assigned| partitions.get(&id).and_then(|numbers| numbers.get(&partition)).copied();
        of(&current.assigned).or_else(|| of(&current.revoking))
    };
    let had = command.topics.iter().all(|(name, offsets)| {
        topics.by_name(name).is_some_and(|topic| {
            let mut numbers = offsets.iter().map(|offset| offset.partition);
            numbers.all(|number| since(topic.id, number).is_some_and(|since| since <= epoch))
        })
    });
    if had { Ok(()) } else { Err(ErrorCode::StaleMemberEpoch) }
}

fn check_epoch(member: &ConsumerMember, epoch: i32) -> Result<(), ErrorCode> {
    if epoch == member.current.epoch {
        Ok(())
    } else if member.is_classic() {
        Err(ErrorCode::IllegalGeneration)
    } else {
        Err(ErrorCode::StaleMemberEpoch)
    }
}

pub(super) fn encode(id: &Text, records: &[ConsumerRecord]) -> Result<Vec<CoordinatorRecord>, EncodeError> {
    records.iter().map(|record| crate::consumer_group::records::encode(id, record)).collect()
}

impl GroupCoordinator {
    /// The topics there are, after every change of the metadata. Groups look at them with their members' next requests;
    /// before the first call members of consumer groups are told COORDINATOR_LOAD_IN_PROGRESS.
    pub fn set_topics(&mut self, topics: Arc<TopicsView>) {
        self.machinery.topics = topics;
        self.machinery.topics_known = true;
    }

    /// What single groups have set of their own. Counts from the next request on.
    pub fn set_overrides(&mut self, overrides: Arc<BTreeMap<Text, GroupOverrides>>) {
        self.machinery.overrides = overrides;
    }

    /// Whether someone who fetches offsets as a member is one, by what is committed, as the offsets are. `member_id` none
    /// and `member_epoch` -1: it does not say that it is. Classic groups do not ask.
    pub fn may_fetch_offsets(
        &self,
        group_id: &str,
        member_id: Option<&Text>,
        member_epoch: i32,
    ) -> Result<(), ErrorCode> {
        let Some(group) = self.durable.group(group_id) else { return Ok(()) };
        if group.consumer.is_none() && group.streams.is_none() {
            return Ok(());
        }
        let Some(member_id) = fetching_member(member_id, member_epoch)? else { return Ok(()) };
        let of_consumers = |consumer: &ConsumerGroup| {
            let member = consumer.members().get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
            check_epoch(member, member_epoch)
        };
        let of_streams = |streams: &StreamsGroup| {
            let member = streams.members().get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
            if member_epoch == member.current.epoch { Ok(()) } else { Err(ErrorCode::StaleMemberEpoch) }
        };
        group.consumer.as_deref().map_or(Ok(()), of_consumers)?;
        group.streams.as_deref().map_or(Ok(()), of_streams)
    }

    /// Whether a valid heartbeat of a group with members of its own protocol can be decided; one that joins makes the group.
    pub(super) fn ready_for(
        &mut self,
        valid: Result<(), Refusal>,
        group_id: &Text,
        joins: bool,
    ) -> Result<(), Refusal> {
        valid?;
        if !self.machinery.topics_known {
            let error = ErrorCode::CoordinatorLoadInProgress;
            return Err(Refusal::new(error, "The topics are not known yet."));
        }
        if joins {
            let refused = |error| Refusal::new(error, "There are too many groups.");
            self.ensure_group(group_id).map_err(refused)?;
        }
        Ok(())
    }

    pub(super) fn consumer_heartbeat(
        &mut self,
        now: Now,
        token: RequestToken,
        command: &ConsumerHeartbeat,
        effects: &mut Effects,
    ) {
        let refuse =
            |refusal: Refusal| (token, Reply::ConsumerHeartbeat(ConsumerHeartbeatReply::refused(refusal)));
        let joins = command.member_epoch == JOIN_EPOCH;
        let valid = heartbeat::validate(command, &self.config.consumer);
        if let Err(refusal) = self.ready_for(valid, &command.group_id, joins) {
            effects.replies.push(refuse(refusal));
            return;
        }
        let found = self.with_group(now, effects, &command.group_id, |turn, group| {
            if let Err(refusal) = turn.consumer_heartbeat(group, token, command) {
                let (token, reply) = refuse(refusal);
                turn.reply(token, reply);
            }
        });
        if found.is_none() {
            effects.replies.push(refuse(group_not_found(&command.group_id)));
        }
    }

    /// The group is what the log has and what is still on its way. Records that are in the log, but were not committed
    /// in time, count as if they were.
    pub(super) fn consumer_append_failed(
        &mut self,
        now: Now,
        id: &Text,
        ahead: &[CoordinatorRecord],
        error: ErrorCode,
        effects: &mut Effects,
    ) {
        if error == ErrorCode::RequestTimedOut {
            for record in ahead {
                // It was encoded here.
                let applied = self.durable.apply(NO_RECORD_OFFSET, None, &record.key, record.value.as_ref());
                debug_assert!(applied.is_ok());
            }
            return;
        }
        let Some(group) = self.groups.get_mut(id) else { return };
        let mut turn = super::Turn { now, config: &self.config, machinery: &mut self.machinery, effects };
        turn.drop_soft_state(group, ErrorCode::CoordinatorNotAvailable);
        let mut rebuilt = match self.durable.group(id) {
            Some(durable) => LiveGroup::from_durable(group.id.clone(), durable),
            None => LiveGroup::new(group.id.clone()),
        };
        let pending = turn.machinery.pending.iter().filter(|(_, pending)| pending.group == *id);
        for (ticket, record) in
            pending.flat_map(|(ticket, pending)| pending.ahead.iter().map(move |r| (ticket, r)))
        {
            rebuilt.apply_ahead(record);
            rebuilt.set_last_append(*ticket);
        }
        if let (Some(streams), Some(before)) = (&mut rebuilt.streams, &group.streams) {
            streams.keep_soft_state(before);
        }
        rebuilt.in_flight = std::mem::take(&mut group.in_flight);
        rebuilt.appends_in_flight = group.appends_in_flight;
        *group = rebuilt;
        turn.reschedule_all_sessions(group);
        turn.arm_consumer_timers(group);
        turn.arm_share_sessions(group);
    }
}

pub(super) fn group_not_found(group_id: &Text) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("Group {group_id} not found."))
}

impl LiveGroup {
    fn set_last_append(&mut self, ticket: Ticket) {
        if let Some(consumer) = &mut self.consumer {
            consumer.last_append = Some(ticket);
        }
        if let Some(streams) = &mut self.streams {
            streams.last_append = Some(ticket);
        }
        if let Some(share) = &mut self.share {
            share.last_append = Some(ticket);
        }
    }

    fn last_append(&self) -> Option<Ticket> {
        let of_consumer = self.consumer.as_ref().and_then(|consumer| consumer.last_append);
        let of_streams = || self.streams.as_ref().and_then(|streams| streams.last_append);
        let of_share = || self.share.as_ref().and_then(|share| share.last_append);
        of_consumer.or_else(of_streams).or_else(of_share)
    }

    /// A record that is on its way.
    fn apply_ahead(&mut self, record: &CoordinatorRecord) {
        match records::decode(&record.key, record.value.as_ref()) {
            Ok(Record::Consumer { record, .. }) => {
                if matches!(record, ConsumerRecord::Group(None)) {
                    self.consumer = None;
                } else if !record.is_tombstone() {
                    let new = || Box::new(LiveConsumer::new(ConsumerGroup::default()));
                    self.consumer.get_or_insert_with(new).group.apply(record);
                } else if let Some(consumer) = &mut self.consumer {
                    consumer.group.apply(record);
                }
            }
            Ok(Record::Share { record, .. }) => self.apply_share_ahead(record),
            Ok(Record::Streams { record, .. }) => {
                if matches!(record, StreamsRecord::Group(None)) {
                    self.streams = None;
                } else if !record.is_tombstone() {
                    let new = || Box::new(LiveStreams::new(StreamsGroup::default()));
                    self.streams.get_or_insert_with(new).group.apply(record);
                } else if let Some(streams) = &mut self.streams {
                    streams.group.apply(record);
                }
            }
            Ok(Record::Group { metadata, .. }) => {
                let (consumer, streams) = (self.consumer.take(), self.streams.take());
                *self = match metadata {
                    Some(metadata) => Self::from_metadata(self.id.clone(), &metadata),
                    None => Self::new(self.id.clone()),
                };
                (self.consumer, self.streams) = (consumer, streams);
            }
            Ok(Record::Offset { .. } | Record::Other) | Err(_) => {}
        }
    }
}

impl Turn<'_> {
    /// With what is decided about a consumer group.
    pub(super) fn with_context<R>(
        &self,
        id: &Text,
        consumer: Option<&LiveConsumer>,
        act: impl FnOnce(&Context<'_>) -> R,
    ) -> R {
        let topics = &*self.machinery.topics;
        let interval_ms = u64::try_from(self.config.consumer.regex_refresh_interval_ms).unwrap_or(0);
        let is_due = |(version, at_ms): (i64, u64)| {
            let age_ms = self.now.monotonic_ms.saturating_sub(at_ms);
            age_ms >= interval_ms || (version != topics.version() && age_ms >= REGEX_REFRESH_PAUSE_MS)
        };
        let patterned = consumer.filter(|consumer| !consumer.group.regex_counts().is_empty());
        act(&Context {
            config: &self.config.consumer,
            overrides: self.machinery.overrides.get(id).copied().unwrap_or_default(),
            topics,
            wall_ms: self.now.wall_ms,
            look_at_topics: consumer.is_none_or(|consumer| consumer.looked_at != Some(topics.version())),
            refresh_regexes: patterned.is_some_and(|consumer| consumer.resolved.is_none_or(is_due)),
        })
    }

    fn consumer_heartbeat(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &ConsumerHeartbeat,
    ) -> Result<(), Refusal> {
        let joins = command.member_epoch == JOIN_EPOCH;
        if group.share.is_some() {
            return Err(group_not_found(&group.id));
        }
        let (converted, mut records) = match &group.consumer {
            Some(_) => (None, Vec::new()),
            None if joins && group.streams.is_none() => {
                self.to_consumer_group(group).map(|(consumer, records)| (Some(consumer), records))?
            }
            None => return Err(group_not_found(&group.id)),
        };
        let live = converted.as_ref().or(group.consumer.as_deref());
        let Some(consumer) = live else { return Err(group_not_found(&group.id)) };
        let (decision, refreshes) = self.with_context(&group.id, Some(consumer), |context| {
            let decision = heartbeat::decide(&consumer.group, context, command);
            (decision, context.refresh_regexes)
        });
        let Decision { records: decided, reply, member_id, gone } = decision?;
        if let (None, Some(gone)) = (&member_id, &gone) {
            let answer = Some((token, Reply::ConsumerHeartbeat(reply)));
            return self.remove_members(group, &BTreeSet::from([gone.clone()]), answer);
        }
        records.extend(encode(&group.id, &decided).map_err(|_| not_encoded())?);
        if let Some(converted) = converted {
            self.become_consumer_group(group, converted);
        }
        let leaves = command.member_epoch < JOIN_EPOCH;
        self.apply_decided(group, &decided, refreshes, !leaves);
        if let Some(gone) = &gone {
            self.cancel_member_timers(group, gone);
        }
        if let Some(member_id) = member_id.filter(|_| !leaves) {
            self.arm_session(group, &member_id);
        }
        self.append_ahead(group, records, Some((token, Reply::ConsumerHeartbeat(reply))));
        Ok(())
    }

    /// What is decided counts from now on. `looked`: the decision went by the topics there are.
    pub(super) fn apply_decided(
        &mut self,
        group: &mut LiveGroup,
        decided: &[ConsumerRecord],
        refreshed: bool,
        looked: bool,
    ) {
        let version = self.machinery.topics.version();
        let Some(consumer) = &mut group.consumer else { return };
        let mut moved = BTreeSet::new();
        for record in decided {
            if let ConsumerRecord::Current(member_id, Some(_)) = record {
                moved.insert(member_id.clone());
            }
            consumer.group.apply(record.clone());
        }
        if looked {
            consumer.looked_at = Some(version);
            let first = consumer.resolved.is_none() && !consumer.group.regex_counts().is_empty();
            if refreshed || first {
                consumer.resolved = Some((version, self.now.monotonic_ms));
            }
        }
        for member_id in moved {
            self.arm_revocation(group, &member_id);
        }
    }

    /// Appends records of a group that has applied them; the answer waits for them, or without any for those before.
    pub(super) fn append_ahead(
        &mut self,
        group: &mut LiveGroup,
        records: Vec<CoordinatorRecord>,
        answer: Option<(RequestToken, Reply)>,
    ) {
        if !records.is_empty() {
            let then = answer.map_or(Then::Nothing, |(token, reply)| Then::MetadataReply(token, reply));
            self.append(group, records.clone(), Vec::new(), None, then);
            let ticket = Ticket(self.machinery.tickets);
            if let Some(pending) = self.machinery.pending.get_mut(&ticket) {
                pending.ahead = records;
            }
            group.set_last_append(ticket);
            return;
        }
        let Some((token, reply)) = answer else { return };
        match group.last_append().and_then(|ticket| self.machinery.pending.get_mut(&ticket)) {
            Some(pending) => pending.followers.push((token, reply)),
            None => self.reply(token, reply),
        }
    }

    /// Takes silent or slow members out.
    pub(super) fn fence(&mut self, group: &mut LiveGroup, member_id: &Text) {
        // It cannot fail: the names are in the log already. If it did, the member would stay until it is silent again.
        let removed = if group.streams.is_some() {
            self.remove_streams_member(group, member_id, None)
        } else {
            self.remove_members(group, &BTreeSet::from([member_id.clone()]), None)
        };
        debug_assert!(removed.is_ok());
    }

    /// Takes members out: the others share anew. If only members of the classic protocol are left, the group may be one
    /// of theirs again.
    pub(super) fn remove_members(
        &mut self,
        group: &mut LiveGroup,
        gone: &BTreeSet<Text>,
        answer: Option<(RequestToken, Reply)>,
    ) -> Result<(), Refusal> {
        if self.downgrades(group, gone) {
            self.downgrade(group, gone, answer)?;
            self.prepare_rebalance(group);
            return Ok(());
        }
        let Some(consumer) = group.consumer.as_deref() else { return Ok(()) };
        let decided = self
            .with_context(&group.id, Some(consumer), |context| leave::remove(&consumer.group, context, gone));
        let records = encode(&group.id, &decided).map_err(|_| not_encoded())?;
        for member_id in gone {
            self.cancel_member_timers(group, member_id);
        }
        self.apply_decided(group, &decided, false, false);
        self.append_ahead(group, records, answer);
        Ok(())
    }

    pub(super) fn become_consumer_group(&mut self, group: &mut LiveGroup, consumer: LiveConsumer) {
        self.drop_soft_state(group, ErrorCode::RebalanceInProgress);
        let mut converted = LiveGroup::new(group.id.clone());
        converted.in_flight = std::mem::take(&mut group.in_flight);
        converted.appends_in_flight = group.appends_in_flight;
        converted.consumer = Some(Box::new(consumer));
        *group = converted;
        self.arm_consumer_timers(group);
    }
}

pub(super) fn not_encoded() -> Refusal {
    Refusal::new(ErrorCode::UnknownServerError, "What the group would be does not fit its records.")
}
