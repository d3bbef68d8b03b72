//! One replica of one partition as a protocol machine: which role it has, how far records are committed, which ISR it
//! asks the controller for.
//!
//! The shell reports facts ([`Input`]) and executes what comes back ([`Effect`]); it decides nothing. Rules: KIP-497 (only
//! the controller changes an ISR; the *maximal* ISR counts meanwhile), KIP-841 and KIP-903 (who may join), KIP-966 (the
//! high watermark stands still while the ISR is under `min.insync.replicas`).

use crate::follower::adopted_high_watermark;
use crate::leader::{FollowerView, IsrMember, Leader, Pending};

/// The time of a step, and until when this broker may act as a leader.
///
/// The lease is part of the time and not of the machine: one heartbeat renews it for all partitions of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub ms: u64,
    /// The same clock: from then on the controller may have made another broker the leader.
    pub lease_until_ms: u64,
}

impl Now {
    /// Whether this broker may still act as a leader.
    pub fn has_lease(self) -> bool {
        self.ms < self.lease_until_ms
    }
}

/// The settings that the machine follows; they may change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MachineOptions {
    /// `replica.lag.time.max.ms`: a follower that did not reach the leader's end for longer leaves the ISR.
    pub lag_ms_max: u64,
    /// `min.insync.replicas` of the topic. More than there are replicas counts as all of them.
    pub min_insync_replicas: usize,
    /// With `flush.messages=1` only synced bytes count: for acks and for the high watermark.
    pub synced_only: bool,
}

/// What the metadata image says of the partition, with what the local log says at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The leader; -1: none.
    pub leader: i32,
    /// Rises with every change of the leader.
    pub leader_epoch: i32,
    /// Rises with every change of the partition.
    pub partition_epoch: i32,
    /// All replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// The ISR.
    pub isr: Vec<i32>,
    /// First offset of the local log.
    pub log_start: i64,
    /// Next offset of the local log.
    pub log_end: i64,
    /// Next offset of the local log of which everything before is on disk.
    pub synced_end: i64,
}

/// The committed ISR of a partition as the controller states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrState {
    /// Of the state.
    pub leader_epoch: i32,
    /// Of the state.
    pub partition_epoch: i32,
    /// The members.
    pub isr: Vec<i32>,
}

/// How the controller answered a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IsrAnswer {
    /// It is committed.
    Accepted(IsrState),
    /// A member may not join (`INELIGIBLE_REPLICA`): nothing was changed.
    Ineligible,
    /// The leader's view is old (`INVALID_UPDATE_VERSION`, `FENCED_LEADER_EPOCH`...): the image will bring the new one, or
    /// the answer carries it.
    Outdated(Option<IsrState>),
    /// No answer, or one that says to try again: what was proposed may be committed or not.
    Unknown,
}

/// A fact that the shell reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The image gives this replica a role, or changes the ISR.
    Assigned(Assignment),
    /// The log or its disk is broken, or the partition is deleted.
    Offline,
    /// Settings changed.
    Options(MachineOptions),
    /// The log grew (leader).
    Appended {
        /// Next offset.
        log_end: i64,
    },
    /// Everything before the offset is on disk.
    Synced {
        /// First offset that may be not.
        synced_end: i64,
    },
    /// The log's start moved up.
    LogStartMoved {
        /// First offset.
        log_start: i64,
    },
    /// A follower asked for records, which says that it holds all before (leader).
    FollowerFetched {
        /// Its id.
        broker: i32,
        /// Its broker epoch; -1: it did not say.
        broker_epoch: i64,
        /// Where it fetches.
        fetch_offset: i64,
        /// The first offset of its log.
        log_start: i64,
        /// Whether the image has it registered with this epoch, not fenced and not shutting down.
        eligible: bool,
    },
    /// The image changed a follower's standing (leader).
    BrokerChanged {
        /// Its id.
        broker: i32,
        /// Its epoch in the image.
        broker_epoch: i64,
        /// Not fenced and not shutting down.
        eligible: bool,
    },
    /// The controller answered the proposal made at this partition epoch (leader).
    IsrAnswered {
        /// Leader epoch of the proposal.
        leader_epoch: i32,
        /// Partition epoch of the proposal.
        partition_epoch: i32,
        /// The answer.
        answer: IsrAnswer,
    },
    /// The leader's answer to a fetch was applied (follower).
    LeaderAnswered {
        /// Leader epoch under which it was fetched.
        leader_epoch: i32,
        /// The leader's high watermark.
        high_watermark: i64,
        /// The own log's next offset now.
        log_end: i64,
    },
    /// The log was cut (follower, or recovery).
    Truncated {
        /// Its first offset now.
        log_start: i64,
        /// Its next offset now.
        log_end: i64,
    },
    /// Time passed: lagging followers leave, unanswered proposals are sent again.
    Tick,
}

/// What the shell has to do. Effects of one step are independent of each other unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The high watermark moved: release acks and wake consumers.
    HighWatermarkAdvanced(i64),
    /// Ask the controller for this ISR; answered by [`Input::IsrAnswered`]. The own epoch is -1: the shell fills it in.
    ProposeIsr {
        /// All members.
        isr: Vec<IsrMember>,
        /// Of the state that it changes.
        leader_epoch: i32,
        /// Of the state that it changes (compare-and-set).
        partition_epoch: i32,
    },
    /// The committed ISR lost so many members.
    IsrShrunk(usize),
    /// The committed ISR won so many members.
    IsrExpanded(usize),
    /// This replica leads from now on; its epoch starts at the log's end.
    BecameLeader {
        /// The epoch to write into batches and into the epoch cache.
        leader_epoch: i32,
        /// First offset of the epoch.
        start_offset: i64,
    },
    /// This replica does not lead (in that epoch) any more: refuse all that wait for it.
    LeadershipLost,
    /// Fetch from this leader. Stop any earlier fetch first.
    Follow {
        /// Its id; -1: there is none now.
        leader: i32,
        /// The epoch to fetch under.
        leader_epoch: i32,
    },
    /// This replica is not of the partition any more, or has no log: stop fetching.
    StopFollowing,
}

/// Effects of steps, in order. Reused by the shell: a step on the hot path allocates nothing.
pub type Effects = Vec<Effect>;

/// Where an acks=all append stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckState {
    /// Not committed yet.
    Pending,
    /// Committed while the ISR is large enough.
    Done,
    /// Committed by fewer replicas than `min.insync.replicas`: the record may be lost.
    NotEnoughReplicasAfterAppend,
    /// This replica does not lead in that epoch any more: the record may be kept or cut.
    NoLongerLeader,
}

/// What this replica is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Offline,
    Leader(Box<Leader>),
    Follower { leader: i32, leader_epoch: i32, partition_epoch: i32 },
}

/// One replica of one partition. See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionMachine {
    broker_id: i32,
    options: MachineOptions,
    role: Role,
    high_watermark: i64,
    log_start: i64,
    log_end: i64,
    synced_end: i64,
}

impl PartitionMachine {
    /// A replica without a role. `high_watermark` is the checkpointed one.
    pub fn new(broker_id: i32, options: MachineOptions, high_watermark: i64) -> Self {
        let high_watermark = high_watermark.max(0);
        Self {
            broker_id,
            options,
            role: Role::Offline,
            high_watermark,
            log_start: 0,
            log_end: high_watermark,
            synced_end: 0,
        }
    }

    /// Takes a fact and adds what follows from it to `out`. Never fails: facts that are out of date change nothing.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Effects) {
        match input {
            Input::Assigned(assignment) => self.assigned(now, assignment, out),
            Input::Offline => self.offline(out),
            Input::Options(options) => {
                self.options = options;
                self.advance(now, out);
            }
            Input::Appended { log_end } => self.appended(now, log_end, out),
            Input::Synced { synced_end } => {
                self.synced_end = self.synced_end.max(synced_end.min(self.log_end));
                self.advance(now, out);
            }
            Input::LogStartMoved { log_start } => self.log_start_moved(log_start, out),
            Input::FollowerFetched { broker, broker_epoch, fetch_offset, log_start, eligible } => {
                let (log_end, high_watermark) = (self.log_end, self.high_watermark);
                let Role::Leader(leader) = &mut self.role else { return };
                let fetched_offset = fetch_offset.min(log_end);
                if leader.fetched(now.ms, broker, broker_epoch, fetched_offset, log_start, log_end, eligible)
                {
                    leader.try_expand(now, broker, high_watermark, out);
                    self.advance(now, out);
                }
            }
            Input::BrokerChanged { broker, broker_epoch, eligible } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.broker_changed(broker, broker_epoch, eligible);
                    leader.try_expand(now, broker, self.high_watermark, out);
                    self.advance(now, out);
                }
            }
            Input::IsrAnswered { leader_epoch, partition_epoch, answer } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.answered(now.ms, leader_epoch, partition_epoch, answer, out);
                    self.advance(now, out);
                }
            }
            Input::LeaderAnswered { leader_epoch, high_watermark, log_end } => {
                self.leader_answered(leader_epoch, high_watermark, log_end, out);
            }
            Input::Truncated { log_start, log_end } => {
                self.log_start = log_start;
                self.log_end = log_end;
                self.synced_end = self.synced_end.min(log_end);
                self.high_watermark = self.high_watermark.clamp(log_start, log_end.max(log_start));
            }
            Input::Tick => self.tick(now, out),
        }
    }

    fn assigned(&mut self, now: Now, assignment: Assignment, out: &mut Effects) {
        if self.partition_epoch().is_some_and(|known| assignment.partition_epoch < known) {
            return; // An answer of the controller overtook the image.
        }
        if !assignment.replicas.contains(&self.broker_id) {
            self.offline(out);
            return;
        }
        self.log_start = assignment.log_start;
        self.log_end = assignment.log_end;
        self.synced_end = assignment.synced_end.min(assignment.log_end);
        // The watermark never leaves the log: a log that was cut to its leader's start begins above it (KAFKA-9491).
        self.high_watermark = self.high_watermark.clamp(self.log_start, self.log_end.max(self.log_start));
        if assignment.leader == self.broker_id {
            self.assigned_as_leader(now, assignment, out);
        } else {
            self.assigned_as_follower(&assignment, out);
        }
        self.advance(now, out);
    }

    fn assigned_as_leader(&mut self, now: Now, assignment: Assignment, out: &mut Effects) {
        if let Role::Leader(leader) = &mut self.role {
            if leader.leader_epoch == assignment.leader_epoch {
                leader.image_changed(
                    assignment.partition_epoch,
                    assignment.isr,
                    &assignment.replicas,
                    now.ms,
                    out,
                );
                return;
            }
            out.push(Effect::LeadershipLost);
        }
        if let Role::Follower { leader, .. } = self.role
            && leader != self.broker_id
        {
            out.push(Effect::StopFollowing);
        }
        let start_offset = self.log_end;
        out.push(Effect::BecameLeader { leader_epoch: assignment.leader_epoch, start_offset });
        self.role = Role::Leader(Box::new(Leader::new(now.ms, self.broker_id, &assignment)));
    }

    fn assigned_as_follower(&mut self, assignment: &Assignment, out: &mut Effects) {
        let is_new = match &self.role {
            Role::Leader(_) => {
                out.push(Effect::LeadershipLost);
                true
            }
            Role::Follower { leader, leader_epoch, .. } => {
                *leader != assignment.leader || *leader_epoch != assignment.leader_epoch
            }
            Role::Offline => true,
        };
        if is_new {
            out.push(Effect::Follow { leader: assignment.leader, leader_epoch: assignment.leader_epoch });
        }
        self.role = Role::Follower {
            leader: assignment.leader,
            leader_epoch: assignment.leader_epoch,
            partition_epoch: assignment.partition_epoch,
        };
    }

    fn offline(&mut self, out: &mut Effects) {
        match self.role {
            Role::Offline => return,
            Role::Leader(_) => out.push(Effect::LeadershipLost),
            Role::Follower { .. } => out.push(Effect::StopFollowing),
        }
        self.role = Role::Offline;
    }

    fn appended(&mut self, now: Now, log_end: i64, out: &mut Effects) {
        let before = self.log_end;
        self.log_end = log_end.max(before);
        if let Role::Leader(leader) = &mut self.role {
            leader.log_grew(now.ms, before);
            self.advance(now, out);
        }
    }

    fn log_start_moved(&mut self, log_start: i64, out: &mut Effects) {
        self.log_start = self.log_start.max(log_start);
        if self.high_watermark < self.log_start {
            self.high_watermark = self.log_start;
            out.push(Effect::HighWatermarkAdvanced(self.high_watermark));
        }
    }

    fn leader_answered(&mut self, epoch: i32, high_watermark: i64, log_end: i64, out: &mut Effects) {
        if !matches!(self.role, Role::Follower { leader_epoch, .. } if leader_epoch == epoch) {
            return;
        }
        self.log_end = log_end;
        let adopted = adopted_high_watermark(self.high_watermark, high_watermark, log_end);
        if adopted > self.high_watermark {
            self.high_watermark = adopted;
            out.push(Effect::HighWatermarkAdvanced(adopted));
        }
    }

    fn tick(&mut self, now: Now, out: &mut Effects) {
        let Role::Leader(leader) = &mut self.role else { return };
        if !now.has_lease() {
            return; // Whoever may be deposed does not ask for another ISR.
        }
        leader.propose_again(out);
        leader.try_shrink(now.ms, self.log_end, self.options.lag_ms_max, out);
        leader.try_expand_any(now, self.high_watermark, out);
        self.advance(now, out);
    }

    /// Moves the high watermark as far as the rules allow: with a lease, with enough members, to what all of them hold.
    fn advance(&mut self, now: Now, out: &mut Effects) {
        let own_end = self.ackable_end();
        let Role::Leader(leader) = &self.role else { return };
        if !now.has_lease() || leader.isr.len() < effective_min(&self.options, leader) {
            return;
        }
        let committed = leader.least_log_end(now.ms, own_end, self.log_end, self.options.lag_ms_max);
        if committed > self.high_watermark {
            self.high_watermark = committed;
            out.push(Effect::HighWatermarkAdvanced(committed));
        }
    }

    /// The next offset of which everything before counts as held by this replica.
    fn ackable_end(&self) -> i64 {
        if self.options.synced_only { self.synced_end } else { self.log_end }
    }

    // --- questions ---

    /// Whether an acks=all append may be taken: the committed ISR has at least `min.insync.replicas` members.
    pub fn can_accept_acks_all(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.isr.len() >= effective_min(&self.options, leader))
    }

    /// Where an append with this last offset, made under this leader epoch, stands.
    pub fn ack_state(&self, now: Now, leader_epoch: i32, last_offset: i64) -> AckState {
        match &self.role {
            Role::Leader(leader) if leader.leader_epoch == leader_epoch => {
                if self.high_watermark <= last_offset || !now.has_lease() {
                    AckState::Pending
                } else if leader.isr.len() >= effective_min(&self.options, leader) {
                    AckState::Done
                } else {
                    AckState::NotEnoughReplicasAfterAppend
                }
            }
            _ => AckState::NoLongerLeader,
        }
    }

    /// The first offset that is not known to be committed.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Whether this replica leads (the lease is asked for separately).
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whether this replica follows a leader.
    pub fn is_follower(&self) -> bool {
        matches!(self.role, Role::Follower { .. })
    }

    /// The leader that this replica knows; -1: none.
    pub fn leader(&self) -> i32 {
        match &self.role {
            Role::Offline => -1,
            Role::Leader(_) => self.broker_id,
            Role::Follower { leader, .. } => *leader,
        }
    }

    /// The leader epoch that this replica knows; -1: none.
    pub fn leader_epoch(&self) -> i32 {
        match &self.role {
            Role::Offline => -1,
            Role::Leader(leader) => leader.leader_epoch,
            Role::Follower { leader_epoch, .. } => *leader_epoch,
        }
    }

    /// The partition epoch that this replica knows.
    pub fn partition_epoch(&self) -> Option<i32> {
        match &self.role {
            Role::Offline => None,
            Role::Leader(leader) => Some(leader.partition_epoch),
            Role::Follower { partition_epoch, .. } => Some(*partition_epoch),
        }
    }

    /// First offset of the leader's epoch; none: not the leader. Consumers may not be told an end offset while the high
    /// watermark is below it: an earlier leader may have told a higher one.
    pub fn leader_epoch_start_offset(&self) -> Option<i64> {
        self.as_leader().map(|leader| leader.epoch_start_offset)
    }

    /// The committed ISR; empty: not the leader.
    pub fn isr(&self) -> &[i32] {
        self.as_leader().map_or(&[], |leader| &leader.isr)
    }

    /// Committed ISR and what is asked to join it; empty: not the leader.
    pub fn maximal_isr(&self) -> Vec<i32> {
        self.as_leader().map_or_else(Vec::new, |leader| leader.maximal_isr().collect())
    }

    /// Whether a proposal waits for the controller or for the image.
    pub fn has_pending_isr(&self) -> bool {
        self.as_leader().is_some_and(|leader| !matches!(leader.pending, Pending::None))
    }

    /// Number of replicas; 0: not the leader.
    pub fn replica_count(&self) -> usize {
        self.as_leader().map_or(0, |leader| leader.followers.len() + 1)
    }

    /// Whether the committed ISR has fewer members than `min.insync.replicas`.
    pub fn is_under_min_isr(&self) -> bool {
        self.is_leader() && !self.can_accept_acks_all()
    }

    /// Whether the committed ISR has just as many members as `min.insync.replicas` wants.
    pub fn is_at_min_isr(&self) -> bool {
        self.as_leader().is_some_and(|leader| leader.isr.len() == effective_min(&self.options, leader))
    }

    /// What the leader knows of its followers; none: not the leader.
    pub fn followers(&self) -> impl Iterator<Item = FollowerView> + '_ {
        self.as_leader().into_iter().flat_map(Leader::views)
    }

    /// Whether this broker is a follower of this leader.
    pub fn is_replica(&self, broker: i32) -> bool {
        self.as_leader()
            .is_some_and(|leader| leader.followers.iter().any(|follower| follower.broker == broker))
    }

    /// Least log start over the replicas: what `DeleteRecords` has reached everywhere.
    pub fn low_watermark(&self) -> i64 {
        self.followers().map(|follower| follower.log_start).fold(self.log_start, i64::min)
    }

    fn as_leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }
}

/// `min.insync.replicas` as it counts: more than there are replicas is all of them, and the leader alone is always one.
fn effective_min(options: &MachineOptions, leader: &Leader) -> usize {
    options.min_insync_replicas.min(leader.followers.len() + 1)
}
