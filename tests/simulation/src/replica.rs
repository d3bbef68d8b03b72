//! One replica: the real machine over a simulated log, and between them what the broker's shell does.
//!
//! The shell's rules are few and stand in `broker/src/replica`: `partition.rs` (append, acknowledge), `read.rs` (a follower's
//! fetch), `follow.rs` (what a follower does with the answer). They are repeated here word by word, without locks and bytes.

use ottla_replica::follower::{EpochEnd, truncation_offset};
use ottla_replica::{AckState, Assignment, Effect, Effects, Input, MachineOptions, Now, PartitionMachine};

use crate::fault::Fault;
use crate::log::{Entry, ReplicaLog};

/// A follower's fetch of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FetchRequest {
    /// The follower.
    pub broker: i32,
    /// Its broker epoch.
    pub broker_epoch: i64,
    /// The leader epoch that it follows.
    pub leader_epoch: i32,
    /// Its log's end.
    pub offset: i64,
    /// Its log's start.
    pub log_start: i64,
    /// Epoch of its last record; -1: none.
    pub last_fetched_epoch: i32,
}

/// The leader's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FetchAnswer<P> {
    /// Not the leader, or not in that epoch.
    Refused,
    /// Histories part there.
    Diverging(i32, i64),
    /// The follower starts over at the leader's start.
    OutOfRange(i64),
    /// What there is.
    Records {
        /// Entries from the fetch offset on.
        entries: Vec<Entry<P>>,
        /// The leader's high watermark.
        high_watermark: i64,
        /// The leader's log start.
        log_start: i64,
    },
}

/// The machine and its log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replica<P> {
    broker: i32,
    /// The machine.
    pub machine: PartitionMachine,
    /// The log.
    pub log: ReplicaLog<P>,
    /// Whom the fetcher was told to follow: leader and its epoch.
    pub following: Option<(i32, i32)>,
}

/// What the image says of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Role {
    /// The leader; -1: none.
    pub leader: i32,
    /// See the image.
    pub leader_epoch: i32,
    /// See the image.
    pub partition_epoch: i32,
    /// All replicas.
    pub replicas: Vec<i32>,
    /// The ISR.
    pub isr: Vec<i32>,
}

impl<P: Clone> Replica<P> {
    /// A process has opened its log; `high_watermark` is the checkpointed one.
    pub fn open(broker: i32, options: MachineOptions, log: ReplicaLog<P>, high_watermark: i64) -> Self {
        let high_watermark = high_watermark.clamp(log.start(), log.end());
        let machine = PartitionMachine::new(broker, options, high_watermark);
        Self { broker, machine, log, following: None }
    }

    /// Reports a fact; what the caller has to do is added to `out`.
    pub fn step(&mut self, now: Now, input: Input, fault: Fault, out: &mut Effects) {
        let now = if fault == Fault::NoLease { Now { lease_until_ms: u64::MAX, ..now } } else { now };
        let mut effects = Effects::new();
        self.machine.step(now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::BecameLeader { leader_epoch, start_offset } => {
                    self.log.assign_epoch(leader_epoch, start_offset);
                    out.push(effect);
                }
                Effect::Follow { leader, leader_epoch } => {
                    self.following = (leader >= 0).then_some((leader, leader_epoch));
                    if fault == Fault::CutAtWatermark {
                        self.log.truncate_to(self.machine.high_watermark());
                        self.truncated(now, out);
                    }
                    out.push(effect);
                }
                Effect::StopFollowing => self.following = None,
                other => out.push(other),
            }
        }
    }

    fn truncated(&mut self, now: Now, out: &mut Effects) {
        let (log_start, log_end) = (self.log.start(), self.log.end());
        self.step(now, Input::Truncated { log_start, log_end }, Fault::None, out);
    }

    /// The image gives it a role.
    pub fn assign(&mut self, now: Now, role: &Role, fault: Fault, out: &mut Effects) {
        let assignment = Assignment {
            leader: role.leader,
            leader_epoch: role.leader_epoch,
            partition_epoch: role.partition_epoch,
            replicas: role.replicas.clone(),
            isr: role.isr.clone(),
            log_start: self.log.start(),
            log_end: self.log.end(),
            synced_end: self.log.synced_end(),
        };
        self.step(now, Input::Assigned(assignment), fault, out);
    }

    /// Whether a client's records with acks=all may be appended now.
    pub fn may_append(&self, now: Now, fault: Fault) -> bool {
        let has_lease = now.has_lease() || fault == Fault::NoLease;
        self.machine.is_leader() && has_lease && self.machine.can_accept_acks_all()
    }

    /// Appends as the leader; gives the offset.
    pub fn append(&mut self, now: Now, payload: P, fault: Fault, out: &mut Effects) -> i64 {
        let offset = self.log.append(self.machine.leader_epoch(), payload);
        let log_end = self.log.end();
        self.step(now, Input::Appended { log_end }, fault, out);
        offset
    }

    /// The disk has what was appended.
    pub fn synced(&mut self, now: Now, end: i64, fault: Fault, out: &mut Effects) {
        let synced_end = self.log.synced_to(end);
        self.step(now, Input::Synced { synced_end }, fault, out);
    }

    /// Where an append stands.
    pub fn ack_state(&self, now: Now, leader_epoch: i32, offset: i64, fault: Fault) -> AckState {
        let now = if fault == Fault::NoLease { Now { lease_until_ms: u64::MAX, ..now } } else { now };
        self.machine.ack_state(now, leader_epoch, offset)
    }

    /// What the fetcher asks; none: it follows nobody.
    pub fn fetch_request(&self, broker_epoch: i64) -> Option<(i32, FetchRequest)> {
        let (leader, leader_epoch) = self.following?;
        if !self.machine.is_follower() || self.machine.leader_epoch() != leader_epoch {
            return None;
        }
        let request = FetchRequest {
            broker: self.broker,
            broker_epoch,
            leader_epoch,
            offset: self.log.end(),
            log_start: self.log.start(),
            last_fetched_epoch: self.log.latest_epoch().unwrap_or(-1),
        };
        Some((leader, request))
    }

    /// Answers a follower's fetch; `eligible`: by the image, with that broker epoch. At most `count_max` entries.
    pub fn fetched(
        &mut self,
        now: Now,
        request: &FetchRequest,
        eligible: bool,
        count_max: i64,
        fault: Fault,
        out: &mut Effects,
    ) -> FetchAnswer<P> {
        let is_same_epoch = request.leader_epoch == self.machine.leader_epoch();
        let is_known = self.machine.is_leader() && self.machine.is_replica(request.broker);
        if !is_known || !(is_same_epoch || fault == Fault::NoEpochCheck) {
            return FetchAnswer::Refused;
        }
        if request.last_fetched_epoch >= 0 && fault != Fault::NoDivergence {
            let Some((epoch, end)) = self.log.end_of_epoch(request.last_fetched_epoch) else {
                return FetchAnswer::OutOfRange(self.log.start());
            };
            if epoch < request.last_fetched_epoch || end < request.offset {
                return FetchAnswer::Diverging(epoch, end);
            }
        }
        let log_end = self.log.end();
        if request.offset < self.log.start() || request.offset > log_end {
            return FetchAnswer::OutOfRange(self.log.start());
        }
        let fetch_offset = if fault == Fault::CountsWhatIsSent { log_end } else { request.offset };
        let input = Input::FollowerFetched {
            broker: request.broker,
            broker_epoch: request.broker_epoch,
            fetch_offset,
            log_start: request.log_start,
            eligible,
        };
        self.step(now, input, fault, out);
        FetchAnswer::Records {
            entries: self.log.slice(request.offset, request.offset.saturating_add(count_max)).to_vec(),
            high_watermark: self.machine.high_watermark(),
            log_start: self.log.start(),
        }
    }

    /// Applies the answer to a fetch that was made at the log's present end; with `flush.messages=1` the caller syncs before
    /// it fetches again. True: the log changed.
    pub fn apply_answer(
        &mut self,
        now: Now,
        leader_epoch: i32,
        answer: &FetchAnswer<P>,
        fault: Fault,
        out: &mut Effects,
    ) -> bool {
        if !self.machine.is_follower() || self.machine.leader_epoch() != leader_epoch {
            return false;
        }
        match answer {
            FetchAnswer::Refused => false,
            FetchAnswer::Diverging(epoch, end_offset) => {
                let diverging = EpochEnd { epoch: *epoch, end_offset: *end_offset };
                let own = self.log.end_of_epoch(*epoch);
                let own = own.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
                let bounds = (self.log.start(), self.log.end());
                self.log.truncate_to(truncation_offset(diverging, own, bounds));
                self.truncated(now, out);
                true
            }
            FetchAnswer::OutOfRange(start) => {
                self.log.start_over_at((*start).max(0));
                self.truncated(now, out);
                true
            }
            FetchAnswer::Records { entries, high_watermark, log_start } => {
                if !self.log.append_as_follower(entries, leader_epoch) {
                    return false;
                }
                let log_end = self.log.end();
                let high_watermark = *high_watermark;
                self.step(now, Input::LeaderAnswered { leader_epoch, high_watermark, log_end }, fault, out);
                if *log_start <= log_end && *log_start > self.log.start() {
                    self.log.delete_before(*log_start);
                    self.step(now, Input::LogStartMoved { log_start: *log_start }, fault, out);
                }
                !entries.is_empty()
            }
        }
    }

    /// What a leader says is the end, to who asks for the latest offset; none: it does not know yet (KIP-207).
    pub fn latest_offset(&self) -> Option<i64> {
        let start = self.machine.leader_epoch_start_offset()?;
        let high_watermark = self.machine.high_watermark();
        (start <= high_watermark).then_some(high_watermark)
    }
}
