//! The machine of one partition of `__consumer_offsets`: many groups, their members and committed offsets.
//!
//! How a shell drives it:
//!
//! 1. While it reads the log (as leader to be, or as standby): [`GroupCoordinator::apply`] and
//!    [`GroupCoordinator::apply_marker`], in order of offsets.
//! 2. Once the log is applied to its end and this node leads: [`GroupCoordinator::lead`].
//! 3. Every request: [`GroupCoordinator::step`] (or a query: `fetch_offsets`, `describe`, `list`). Then the
//!    [`Effects`]: append each batch, send each reply.
//! 4. When a batch is committed: `apply` its records with their offsets, then [`GroupCoordinator::committed`]; if it
//!    failed, [`GroupCoordinator::failed`]. Replies that the append makes true come out of these. While it is neither for
//!    too long, [`GroupCoordinator::timed_out`] answers, and the append stays on its way.
//! 5. A timer at [`GroupCoordinator::next_deadline_ms`], then [`GroupCoordinator::tick`].
//! 6. When it leads no more: [`GroupCoordinator::resign`].
//!
//! Durable state ([`DurableState`]) is changed by records only, when they are committed: what is read from it is never
//! taken back. Soft state (who is a member *now*, who waits for what) is what Kafka calls the classic group's
//! in-memory state; a failover loses it, as told at the head of `member.rs`.

mod classic_member;
mod command;
mod consumer;
mod consumer_timers;
mod convert;
mod convert_consumer;
mod convert_share;
mod convert_streams;
mod describe;
mod describe_consumer;
mod describe_streams;
mod expire;
mod heartbeat;
mod join;
mod leave;
mod member;
mod migrate;
mod offsets;
mod records;
mod share;
mod state;
mod streams;
mod sync;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use crate::consumer_group::{ConsumerGroupConfig, ConsumerHeartbeatReply, GroupOverrides, TopicsView};
use crate::share_group::{ShareGroupConfig, ShareHeartbeatReply};
use crate::streams_group::{StreamsGroupConfig, StreamsHeartbeatReply};

pub use command::{
    Append, Command, CoordinatorRecord, Effects, Heartbeat, Join, JoinReply, JoinedMember, Leave, LeaveReply,
    MemberIdentity, Now, OffsetCommit, OffsetDelete, OffsetDeleteReply, OffsetToCommit, Protocol, Reply,
    RequestToken, Sync, SyncReply, Ticket, TopicResult, Transaction,
};
pub use convert::Client;
pub use describe::{GroupDescription, GroupFilter, GroupListing, MemberDescription};
pub use describe_consumer::{ConsumerGroupDescription, ConsumerMemberDescription, DescribedPartitions};
pub use describe_streams::StreamsGroupDescription;
pub use member::GroupState;
pub use offsets::{FetchedOffset, FetchedTopic};
pub use records::{Applied, RecordError};
pub use share::{ShareGroupDescription, ShareMemberDescription};
pub use state::{CommittedOffset, DurableGroup, DurableState, GroupMetadata, StoredMember, TopicPartition};

use member::LiveGroup;
use sync::PendingAssignment;
use timers::{TimerKey, TimerKind, Timers};

/// Groups of one coordinator partition that are kept in memory. One more is refused with POLICY_VIOLATION.
pub const GROUPS_MAX: usize = 1_000_000;
/// Members of one group, whatever `group.max.size` says.
pub const MEMBERS_PER_GROUP_MAX: usize = 100_000;
/// Member ids of one group that were handed out and not used yet; each lives for one session timeout.
pub const PENDING_MEMBERS_PER_GROUP_MAX: usize = 10_000;
/// Bytes of names and metadata of all protocols of one member. One more is refused with INVALID_REQUEST.
pub const MEMBER_PROTOCOLS_BYTES_MAX: usize = 1 << 20;
/// Bytes of all texts that a member of a consumer group tells. One more is refused with INVALID_REQUEST.
pub const MEMBER_TEXTS_BYTES_MAX: usize = 1 << 20;
/// Patterns of one consumer group; each is matched against every topic. One more is refused with INVALID_REQUEST.
pub const PATTERNS_PER_GROUP_MAX: usize = 1_000;
/// How long a new member's JoinGroup may wait: it cannot send heartbeats yet, so nothing else tells that it is gone.
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;

/// The settings of classic groups and offsets; Kafka's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_ms_max: i32,
    /// `group.max.size`
    pub group_size_max: usize,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: u64,
    /// `offset.metadata.max.bytes`; UTF-16 code units, as Kafka counts.
    pub offset_metadata_length_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// Of consumer groups (KIP-848).
    pub consumer: ConsumerGroupConfig,
    /// Of share groups (KIP-932).
    pub share: ShareGroupConfig,
    /// Of streams groups (KIP-1071).
    pub streams: StreamsGroupConfig,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            group_size_max: usize::MAX,
            initial_rebalance_delay_ms: 3_000,
            offset_metadata_length_max: 4_096,
            offsets_retention_ms: 10_080 * 60 * 1000,
            consumer: ConsumerGroupConfig::default(),
            share: ShareGroupConfig::default(),
            streams: StreamsGroupConfig::default(),
        }
    }
}

/// The coordinator of the groups of one partition of the offsets topic.
#[derive(Debug)]
pub struct GroupCoordinator {
    config: GroupConfig,
    durable: DurableState,
    leading: bool,
    groups: BTreeMap<Text, LiveGroup>,
    machinery: Machinery,
}

/// What all groups share: timers and appends on their way.
#[derive(Debug, Default)]
struct Machinery {
    timers: Timers,
    pending: BTreeMap<Ticket, PendingAppend>,
    tickets: u64,
    /// The topics there are.
    topics: Arc<TopicsView>,
    /// Whether they have been told: a group that took none for all would take everything from its members.
    topics_known: bool,
    /// What single groups have set of their own.
    overrides: Arc<BTreeMap<Text, GroupOverrides>>,
}

/// An append on its way.
#[derive(Debug)]
struct PendingAppend {
    group: Text,
    /// Partitions whose offsets it commits or deletes.
    partitions: Vec<TopicPartition>,
    /// Whether these are of a transaction.
    is_transactional: bool,
    then: Then,
    /// Of a consumer group, which is ahead of the log by these.
    ahead: Vec<CoordinatorRecord>,
    /// Answers that changed nothing themselves, but tell what this append makes true.
    followers: Vec<(RequestToken, Reply)>,
}

/// What follows from an append's fate.
#[derive(Debug)]
enum Then {
    /// Nothing.
    Nothing,
    /// The reply if it is committed; its form with an error if not.
    Reply(RequestToken, Reply),
    /// Likewise, of what is no offset commit.
    MetadataReply(RequestToken, Reply),
    /// The generation's assignment counts.
    Assigned(PendingAssignment),
    /// A returned static member holds its place.
    Replaced(join::StaticReplacement),
    /// The group is gone.
    Deleted(Option<RequestToken>),
}

/// One step's view of everything but the groups.
struct Turn<'a> {
    now: Now,
    config: &'a GroupConfig,
    machinery: &'a mut Machinery,
    effects: &'a mut Effects,
}

impl Turn<'_> {
    fn reply(&mut self, token: RequestToken, reply: Reply) {
        self.effects.replies.push((token, reply));
    }

    fn append(
        &mut self,
        group: &mut LiveGroup,
        records: Vec<CoordinatorRecord>,
        partitions: Vec<TopicPartition>,
        transaction: Option<Transaction>,
        then: Then,
    ) {
        self.machinery.tickets += 1;
        let ticket = Ticket(self.machinery.tickets);
        group.appends_in_flight += 1;
        for partition in &partitions {
            let ways = group.in_flight.entry(partition.clone()).or_default();
            ways.all += 1;
            ways.transactional += u32::from(transaction.is_some());
        }
        let pending = PendingAppend {
            group: group.id.clone(),
            partitions,
            is_transactional: transaction.is_some(),
            then,
            ahead: Vec::new(),
            followers: Vec::new(),
        };
        self.machinery.pending.insert(ticket, pending);
        self.effects.appends.push(Append { ticket, records, transaction });
    }
}

impl GroupCoordinator {
    /// An empty one, not leading.
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config,
            durable: DurableState::default(),
            leading: false,
            groups: BTreeMap::new(),
            machinery: Machinery::default(),
        }
    }

    /// What the log says.
    pub fn durable(&self) -> &DurableState {
        &self.durable
    }

    /// The settings; new ones count from the next step on.
    pub fn set_config(&mut self, config: GroupConfig) {
        self.config = config;
    }

    /// One committed record of the log; `producer_id` is given for records of transactional batches.
    pub fn apply(
        &mut self,
        offset: i64,
        producer_id: Option<i64>,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<Applied, RecordError> {
        self.durable.apply(offset, producer_id, key, value)
    }

    /// A committed end-of-transaction marker of the log.
    pub fn apply_marker(&mut self, offset: i64, producer_id: i64, commit: bool) {
        self.durable.apply_marker(offset, producer_id, commit);
    }

    /// Leadership begins: the log is applied to its end. Members of stable groups keep their generation and have one
    /// session timeout to show up.
    pub fn lead(&mut self, now: Now, effects: &mut Effects) {
        self.leading = true;
        self.groups.clear();
        self.machinery.timers.clear();
        self.machinery.pending.clear();
        for (id, durable) in self.durable.groups() {
            self.groups.insert(id.clone(), LiveGroup::from_durable(id.clone(), durable));
        }
        let mut turn = Turn { now, config: &self.config, machinery: &mut self.machinery, effects };
        for group in self.groups.values_mut() {
            turn.reschedule_all_sessions(group);
            turn.arm_consumer_timers(group);
            turn.arm_share_sessions(group);
            if group.members.len() > self.config.group_size_max {
                turn.rebalance_or_complete_join(group);
            }
        }
    }

    /// Leadership is lost: whoever waits is sent to the new coordinator, soft state is dropped. Appends on their way
    /// may yet be committed; if they are, they come back through `apply`.
    pub fn resign(&mut self, effects: &mut Effects) {
        self.leading = false;
        let error = ErrorCode::NotCoordinator;
        for (_, pending) in std::mem::take(&mut self.machinery.pending) {
            let followers = pending.followers.into_iter();
            effects.replies.extend(followers.map(|(token, reply)| (token, reply.failed(error))));
            match pending.then {
                Then::Reply(token, reply) | Then::MetadataReply(token, reply) => {
                    effects.replies.push((token, reply.failed(error)));
                }
                Then::Deleted(Some(token)) => effects.replies.push((token, Reply::DeleteGroup(error))),
                Then::Nothing | Then::Deleted(None) | Then::Assigned(_) | Then::Replaced(_) => {}
            }
        }
        for (_, group) in std::mem::take(&mut self.groups) {
            for member in group.members.into_values() {
                if let Some(token) = member.awaiting_join {
                    let reply = JoinReply::refused(error, member.member_id);
                    effects.replies.push((token, Reply::Join(reply)));
                }
                if let Some(token) = member.awaiting_sync {
                    effects.replies.push((token, Reply::Sync(SyncReply::refused(error))));
                }
            }
        }
        self.machinery.timers.clear();
    }

    /// A request that may change something. Its answer, under its token, is among these effects or later ones.
    pub fn step(&mut self, now: Now, token: RequestToken, command: Command, effects: &mut Effects) {
        if !self.leading {
            effects.replies.push((token, command.refusal(ErrorCode::NotCoordinator)));
            return;
        }
        match command {
            Command::Join(command) => self.join(now, token, command, effects),
            Command::Sync(command) => self.sync(now, token, command, effects),
            Command::Heartbeat(command) => self.heartbeat(now, token, &command, effects),
            Command::Leave(command) => self.leave(now, token, command, effects),
            Command::ConsumerHeartbeat(command) => self.consumer_heartbeat(now, token, &command, effects),
            Command::ShareHeartbeat(command) => self.share_heartbeat(now, token, &command, effects),
            Command::ShareState(command) => self.share_state(now, token, &command, effects),
            Command::StreamsHeartbeat(command) => self.streams_heartbeat(now, token, &command, effects),
            Command::OffsetCommit(command) => self.commit_offsets(now, token, command, effects),
            Command::OffsetDelete(command) => self.delete_offsets(now, token, command, effects),
            Command::DeleteGroup { group_id } => self.delete_group(now, token, &group_id, effects),
        }
        // A delay of zero ends in the step that began it.
        self.tick(now, effects);
    }

    /// The records of this append are committed and have been applied.
    pub fn committed(&mut self, now: Now, ticket: Ticket, effects: &mut Effects) {
        self.settle(now, ticket, None, effects);
    }

    /// The append failed with this code. Should its records be committed all the same, they are applied like any others.
    /// One that is only late has not failed: see [`Self::timed_out`]. REQUEST_TIMED_OUT here says that the records are in
    /// the log and that nobody will tell more of them: consumer groups, which are ahead of the log, count on them, since
    /// they can only be lost together with this leadership. After any other code they go back to what the log has. So an append
    /// that was not made must be told before the next request of its group: what was decided after it counted on it.
    pub fn failed(&mut self, now: Now, ticket: Ticket, error: ErrorCode, effects: &mut Effects) {
        self.settle(now, ticket, Some(error), effects);
    }

    /// The append is in the log, but not committed in time: whoever waits for it is told so, once. It is still on its way:
    /// [`Self::committed`] or [`Self::failed`] says what became of it. A generation that could not be logged in time
    /// is given up, and the members begin another.
    pub fn timed_out(&mut self, now: Now, ticket: Ticket, effects: &mut Effects) {
        let Some(pending) = self.machinery.pending.get_mut(&ticket) else { return };
        if matches!(pending.then, Then::Assigned(_) | Then::Replaced(_)) {
            self.settle(now, ticket, Some(ErrorCode::RequestTimedOut), effects);
            return;
        }
        let metadata_error = metadata_append_error(ErrorCode::RequestTimedOut);
        for (token, reply) in std::mem::take(&mut pending.followers) {
            effects.replies.push((token, reply.failed(metadata_error)));
        }
        match std::mem::replace(&mut pending.then, Then::Nothing) {
            Then::Reply(token, reply) => {
                let error = offset_append_error(ErrorCode::RequestTimedOut);
                effects.replies.push((token, reply.failed(error)));
            }
            Then::MetadataReply(token, reply) => effects.replies.push((token, reply.failed(metadata_error))),
            Then::Deleted(token) => {
                pending.then = Then::Deleted(None);
                effects.replies.extend(token.map(|token| (token, Reply::DeleteGroup(metadata_error))));
            }
            Then::Nothing | Then::Assigned(_) | Then::Replaced(_) => {}
        }
    }

    fn settle(&mut self, now: Now, ticket: Ticket, error: Option<ErrorCode>, effects: &mut Effects) {
        let Some(pending) = self.machinery.pending.remove(&ticket) else { return };
        if let Some(group) = self.groups.get_mut(&pending.group) {
            group.appends_in_flight -= 1;
            for partition in &pending.partitions {
                if let Some(ways) = group.in_flight.get_mut(partition) {
                    ways.all -= 1;
                    ways.transactional -= u32::from(pending.is_transactional);
                    if ways.all == 0 {
                        group.in_flight.remove(partition);
                    }
                }
            }
        }
        if let Some(error) = error
            && !pending.ahead.is_empty()
        {
            self.consumer_append_failed(now, &pending.group, &pending.ahead, error, effects);
        }
        for (token, reply) in pending.followers {
            let reply = error
                .map_or_else(|| reply.clone(), |error| reply.clone().failed(metadata_append_error(error)));
            effects.replies.push((token, reply));
        }
        match (pending.then, error) {
            (Then::Nothing, _) => {}
            (Then::Reply(token, reply) | Then::MetadataReply(token, reply), None) => {
                effects.replies.push((token, reply));
            }
            (Then::Reply(token, reply), Some(error)) => {
                effects.replies.push((token, reply.failed(offset_append_error(error))));
            }
            (Then::MetadataReply(token, reply), Some(error)) => {
                effects.replies.push((token, reply.failed(metadata_append_error(error))));
            }
            (Then::Assigned(assignment), error) => {
                let error = error.map(metadata_append_error);
                self.with_group(now, effects, &pending.group, |turn, group| {
                    turn.assignment_settled(group, assignment, error);
                });
            }
            (Then::Replaced(replacement), error) => {
                let error = error.map(metadata_append_error);
                self.with_group(now, effects, &pending.group, |turn, group| {
                    turn.replacement_settled(group, replacement, error);
                });
            }
            (Then::Deleted(token), error) => {
                if let Some(token) = token {
                    let error = error.map_or(ErrorCode::None, metadata_append_error);
                    effects.replies.push((token, Reply::DeleteGroup(error)));
                }
            }
        }
        self.drop_if_gone(&pending.group);
        self.tick(now, effects);
    }

    /// When something may be due, on the monotonic clock. Possibly earlier than anything is.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.machinery.timers.next_ms()
    }

    /// Does what has become due: silent members, ends of rebalances.
    pub fn tick(&mut self, now: Now, effects: &mut Effects) {
        while let Some(key) = self.machinery.timers.pop(now.monotonic_ms) {
            let id = key.group.clone();
            self.with_group(now, effects, &id, |turn, group| turn.timer_up(group, key));
        }
    }

    /// A group that is there, and what remains of it afterwards.
    fn with_group<R>(
        &mut self,
        now: Now,
        effects: &mut Effects,
        id: &Text,
        act: impl FnOnce(&mut Turn<'_>, &mut LiveGroup) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(id).filter(|group| group.state != GroupState::Dead)?;
        let mut turn = Turn { now, config: &self.config, machinery: &mut self.machinery, effects };
        let result = act(&mut turn, group);
        self.drop_if_gone(id);
        Some(result)
    }

    /// Makes the group if it is not there.
    fn ensure_group(&mut self, id: &Text) -> Result<(), ErrorCode> {
        if let Some(group) = self.groups.get_mut(id) {
            if group.state == GroupState::Dead {
                // Deleted, but the log does not have it yet: what comes now is a new group. What is on its way for the
                // old one goes on being counted.
                let mut new = LiveGroup::new(group.id.clone());
                new.in_flight = std::mem::take(&mut group.in_flight);
                new.appends_in_flight = group.appends_in_flight;
                *group = new;
            }
            return Ok(());
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(ErrorCode::PolicyViolation);
        }
        let id = records::own(id);
        self.groups.insert(id.clone(), LiveGroup::new(id));
        Ok(())
    }

    /// Forgets a deleted group once its deletion is settled, and one that never came to anything. If the log did not
    /// take all of a deletion, the group is what the log has left of it.
    fn drop_if_gone(&mut self, id: &Text) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let durable = self.durable.group(id);
        if group.state == GroupState::Dead && group.appends_in_flight == 0 {
            match durable {
                Some(durable) => *group = LiveGroup::from_durable(group.id.clone(), durable),
                None => drop(self.groups.remove(id)),
            }
        } else if group.is_bare() && durable.is_none() {
            self.groups.remove(id);
        }
    }
}

impl Turn<'_> {
    /// A timer's entry came up; whether it is due, its deadline knows.
    fn timer_up(&mut self, group: &mut LiveGroup, key: TimerKey) {
        if group.timers().is_some() {
            self.consumer_timer_up(group, key);
            return;
        }
        if group.share.is_some() {
            self.share_timer_up(group, key);
            return;
        }
        let now_ms = self.now.monotonic_ms;
        let timers = &mut self.machinery.timers;
        match key.kind.clone() {
            TimerKind::Session(member_id) => {
                if let Some(member) = group.members.get_mut(&member_id) {
                    if timers.is_due(&mut member.session, key, now_ms) {
                        self.session_expired(group, &member_id);
                    }
                } else if let Some(deadline) = group.pending_members.get_mut(&member_id)
                    && timers.is_due(deadline, key, now_ms)
                {
                    group.pending_members.remove(&member_id);
                    self.maybe_complete_join(group);
                }
            }
            TimerKind::Join => {
                if timers.is_due(&mut group.join_timer, key, now_ms) {
                    self.join_timer_expired(group);
                }
            }
            TimerKind::Sync => {
                if timers.is_due(&mut group.sync_timer, key, now_ms) {
                    self.sync_timer_expired(group);
                }
            }
            // Of consumer groups; this one was one.
            TimerKind::Revocation(_)
            | TimerKind::Rejoin(_)
            | TimerKind::Resync(_)
            | TimerKind::InitialRebalance => {}
        }
    }
}

impl Reply {
    /// The same answer where it is an error after all.
    fn failed(self, error: ErrorCode) -> Self {
        match self {
            Self::Join(reply) => Self::Join(JoinReply::refused(error, reply.member_id)),
            Self::Sync(_) => Self::Sync(SyncReply::refused(error)),
            Self::Heartbeat(_) => Self::Heartbeat(error),
            Self::Leave(_) => Self::Leave(LeaveReply { error, members: Vec::new() }),
            Self::ConsumerHeartbeat(_) => Self::ConsumerHeartbeat(ConsumerHeartbeatReply::failed(error)),
            Self::ShareHeartbeat(_) => Self::ShareHeartbeat(ShareHeartbeatReply::failed(error)),
            Self::ShareState(_) => Self::ShareState(error),
            Self::StreamsHeartbeat(_) => {
                Self::StreamsHeartbeat(Box::new(StreamsHeartbeatReply::failed(error)))
            }
            Self::OffsetCommit(mut topics) => {
                for (_, code) in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    if *code == ErrorCode::None {
                        *code = error;
                    }
                }
                Self::OffsetCommit(topics)
            }
            Self::OffsetDelete(_) => Self::OffsetDelete(OffsetDeleteReply { error, topics: Vec::new() }),
            Self::DeleteGroup(_) => Self::DeleteGroup(error),
        }
    }
}

/// What members are told when a generation could not be logged.
fn metadata_append_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}

/// What clients are told when their offsets could not be logged.
fn offset_append_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::InvalidCommitOffsetSize
        }
        other => metadata_append_error(other),
    }
}
