//! One partition's replica on this broker: its log, its machine and who waits for it, behind one small lock.
//!
//! The lock is taken once per part of a request and never held across an await. What it releases (acks, fetches) is woken
//! after it is free. What requests do with a partition stands beside this file: `appends`, `read`, `delete_records`, `follow`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwap;
use ottla_coordinator::transaction::verification::Verifications;
use ottla_log::{Log, LogError};
use ottla_metadata::image::PartitionImage;
use ottla_replica::{Assignment, Effect, Effects, Input, PartitionMachine};
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::appends::{AckWait, is_lease_long_over};
use super::delete_records::LowWatermarkWait;
use super::durability::SyncWait;
use super::moves::Moving;
use super::options::Clock;
use super::rules::Rules;
use super::shared::{Following, IsrProposal, LogDir, PartitionId, ReplicaShared};
use super::waiter::{FetchInterest, InterestKind, Wakes};
use crate::metrics::PartitionTraffic;

/// A question to the transaction coordinator that nobody came back to for so many milliseconds is forgotten.
const VERIFICATION_MS_MAX: i64 = 600_000;

thread_local! {
    /// What a step of a machine says is executed before the next one: a thread needs one list, kept for its capacity, and ten
    /// thousand idle partitions none.
    static EFFECTS: Cell<Effects> = const { Cell::new(Effects::new()) };
}

/// A fetch session that has this partition.
#[derive(Debug)]
pub(super) struct InterestEntry {
    pub(super) interest: Arc<FetchInterest>,
    pub(super) slot: u32,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) machine: PartitionMachine,
    /// None: the directory is offline, or the replica was removed.
    pub(crate) log: Option<Box<Log>>,
    /// Where the log lies.
    pub(crate) log_dir: Arc<LogDir>,
    /// A copy of the log is being made in another directory.
    pub(crate) moving: Option<Arc<Moving>>,
    /// In order of offsets: appends are.
    pub(super) acks: VecDeque<AckWait>,
    /// Who waits for this replica's disk.
    pub(super) sync_waits: Vec<SyncWait>,
    /// Who waits for the followers to delete.
    pub(super) low_watermark_waits: Vec<LowWatermarkWait>,
    pub(super) interests: Vec<InterestEntry>,
    /// Transactions that the coordinator is asked about.
    pub(super) verifications: Verifications,
    /// The log's end when it was last looked at whether somebody appends; -1: not yet.
    pub(super) end_seen: i64,
}

/// One replica of one partition.
#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    topic: Arc<str>,
    pub(crate) shared: Arc<ReplicaShared>,
    rules: ArcSwap<Rules>,
    /// What the machine says, readable without the lock: a request to a follower is refused before it costs anything.
    leads: AtomicBool,
    deleted: AtomicBool,
    /// What went in and out.
    pub traffic: Arc<PartitionTraffic>,
    /// Wall clock of the last sync by `flush.ms`; `i64::MIN`: it was not looked at yet.
    pub(super) flushed_ms: AtomicI64,
    state: Mutex<State>,
}

impl Partition {
    /// A replica without a role.
    pub(crate) fn new(
        shared: Arc<ReplicaShared>,
        topic: Arc<str>,
        id: PartitionId,
        rules: Arc<Rules>,
        mut log: Option<Box<Log>>,
        log_dir: Arc<LogDir>,
        high_watermark: i64,
    ) -> Self {
        let options = rules.machine_options(&shared.options);
        let high_watermark = log.as_ref().map_or(0, |log| {
            high_watermark.clamp(log.log_start_offset(), log.end_offset().max(log.log_start_offset()))
        });
        if let Some(log) = &mut log {
            // The machine tells of changes only: transactions that ended below are stable from the start.
            log.update_high_watermark(high_watermark);
        }
        let machine = PartitionMachine::new(shared.options.broker_id, options, high_watermark);
        let state = State {
            machine,
            log,
            log_dir,
            moving: None,
            acks: VecDeque::new(),
            sync_waits: Vec::new(),
            low_watermark_waits: Vec::new(),
            interests: Vec::new(),
            verifications: Verifications::default(),
            end_seen: -1,
        };
        Self {
            id,
            topic,
            shared,
            rules: ArcSwap::new(rules),
            leads: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            traffic: Arc::default(),
            flushed_ms: AtomicI64::new(i64::MIN),
            state: Mutex::new(state),
        }
    }

    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The topic's id.
    pub fn topic_id(&self) -> Uuid {
        self.id.topic_id
    }

    /// Its index in the topic.
    pub fn index(&self) -> i32 {
        self.id.index
    }

    /// Topic id and index.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Whether this replica leads; a hint that may be old by the time it is read.
    pub fn is_leader(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// Whether the replica was removed: look it up again.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Where its log lies.
    pub fn log_dir(&self) -> Arc<LogDir> {
        Arc::clone(&self.state.lock().log_dir)
    }

    /// The topic's settings.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    pub(super) fn loaded_rules(&self) -> arc_swap::Guard<Arc<Rules>> {
        self.rules.load()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    // --- steps of the machine ---

    /// Reports a fact to the machine and executes its effects, except wake-ups: those are the caller's, without the lock.
    pub(crate) fn step(&self, state: &mut State, input: Input, wakes: &mut Wakes) {
        let mut effects = EFFECTS.take();
        state.machine.step(self.shared.grant.now(), input, &mut effects);
        for effect in effects.drain(..) {
            self.execute(state, effect, wakes);
        }
        EFFECTS.set(effects);
    }

    fn execute(&self, state: &mut State, effect: Effect, wakes: &mut Wakes) {
        match effect {
            Effect::HighWatermarkAdvanced(high_watermark) => {
                Self::high_watermark_advanced(state, high_watermark, wakes);
            }
            Effect::ProposeIsr { isr, leader_epoch, partition_epoch } => {
                self.shared.isr_queue.push(IsrProposal { id: self.id, isr, leader_epoch, partition_epoch });
            }
            Effect::IsrShrunk(count) => self.shared.counters.isr_shrinks.add(count),
            Effect::IsrExpanded(count) => self.shared.counters.isr_expands.add(count),
            Effect::BecameLeader { leader_epoch, start_offset } => {
                self.leads.store(true, Ordering::Release);
                if let Some(log) = &mut state.log {
                    log.begin_leader_epoch(leader_epoch, start_offset);
                }
                tracing::debug!(topic = %self.topic, partition = self.id.index, leader_epoch, start_offset, "leads");
            }
            Effect::LeadershipLost => {
                self.leads.store(false, Ordering::Release);
                state.verifications.clear();
                for wait in state.acks.drain(..) {
                    wakes.add_waiter(wait.waiter);
                }
                for wait in state.sync_waits.drain(..) {
                    wakes.add_waiter(wait.waiter);
                }
                for wait in state.low_watermark_waits.drain(..) {
                    wakes.add_waiter(wait.waiter);
                }
                Self::mark_all(state, wakes);
            }
            Effect::Follow { leader, leader_epoch } => {
                self.shared.following.push(Following { id: self.id, leader, leader_epoch });
                Self::mark_all(state, wakes);
            }
            Effect::StopFollowing => {
                self.shared.following.push(Following { id: self.id, leader: -1, leader_epoch: -1 });
                Self::mark_all(state, wakes);
            }
        }
    }

    fn high_watermark_advanced(state: &mut State, high_watermark: i64, wakes: &mut Wakes) {
        if let Some(log) = &mut state.log {
            log.update_high_watermark(high_watermark);
        }
        Self::release_acks(state, wakes);
        for entry in &state.interests {
            entry.interest.mark(entry.slot);
            if entry.interest.kind() == InterestKind::Consumer {
                wakes.add_interest(&entry.interest);
            }
        }
    }

    fn mark_all(state: &State, wakes: &mut Wakes) {
        for entry in &state.interests {
            entry.interest.mark(entry.slot);
            wakes.add_interest(&entry.interest);
        }
    }

    /// The log is longer: followers have something to fetch.
    pub(super) fn wake_followers(state: &State, wakes: &mut Wakes) {
        for entry in &state.interests {
            if entry.interest.kind() == InterestKind::Follower {
                entry.interest.mark(entry.slot);
                wakes.add_interest(&entry.interest);
            }
        }
    }

    /// A fault of the log: the partition goes offline, with its directory when the disk is at fault.
    pub(crate) fn broken(&self, state: &mut State, error: &LogError, wakes: &mut Wakes) {
        tracing::error!(topic = %self.topic, partition = self.id.index, %error, "the partition goes offline");
        self.shared.counters.partitions_failed.add(1);
        if error.is_disk_fault() {
            state.log_dir.fail(error);
        }
        state.log = None;
        self.step(state, Input::Offline, wakes);
    }

    // --- the image's word ---

    /// The image gives the partition a leader, an ISR, replicas.
    pub(crate) fn assign(&self, leader: i32, epochs: (i32, i32), replicas: Vec<i32>, isr: Vec<i32>) {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        if let Some(log) = &state.log {
            let assignment = Assignment {
                leader,
                leader_epoch: epochs.0,
                partition_epoch: epochs.1,
                replicas,
                isr,
                log_start: log.log_start_offset(),
                log_end: log.end_offset(),
                synced_end: log.recovery_point(),
            };
            self.step(&mut state, Input::Assigned(assignment), &mut wakes);
        }
        drop(state);
        wakes.run();
    }

    /// The image gives the partition a role.
    pub(crate) fn assign_as(&self, partition: &PartitionImage) {
        self.assign(
            partition.leader.map_or(-1, |leader| leader.0),
            (partition.leader_epoch.0, partition.partition_epoch.0),
            partition.replicas.iter().map(|replica| replica.0).collect(),
            partition.isr.iter().map(|replica| replica.0).collect(),
        );
    }

    /// The log of a replica that could not be made before.
    pub(crate) fn take_log(&self, log: Box<Log>, log_dir: Arc<LogDir>) {
        let mut state = self.state.lock();
        state.log = Some(log);
        state.log_dir = log_dir;
    }

    /// Settings of the topic changed.
    pub(crate) fn set_rules(&self, rules: &Arc<Rules>) {
        self.rules.store(Arc::clone(rules));
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        if let Some(log) = &mut state.log {
            log.set_config(rules.log_config());
        }
        self.step(&mut state, Input::Options(rules.machine_options(&self.shared.options)), &mut wakes);
        drop(state);
        wakes.run();
    }

    /// The replica is removed: nobody finds it any more, everyone who waits hears of it. Gives back the log.
    pub(crate) fn remove(&self) -> Option<(Box<Log>, Arc<LogDir>)> {
        self.deleted.store(true, Ordering::Release);
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        self.step(&mut state, Input::Offline, &mut wakes);
        Self::mark_all(&state, &mut wakes);
        if let Some(moving) = state.moving.take() {
            moving.cancel();
        }
        let log = state.log.take();
        let log_dir = Arc::clone(&state.log_dir);
        drop(state);
        wakes.run();
        log.map(|log| (log, log_dir))
    }

    /// The log directory has failed: when the log lies there, it is not served any more, whatever of it could still be read.
    pub(crate) fn go_offline(&self, log_dir: &Arc<LogDir>) {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        if state.moving.as_ref().is_some_and(|moving| moving.is_to(log_dir))
            && let Some(moving) = state.moving.take()
        {
            moving.cancel();
        }
        if Arc::ptr_eq(&state.log_dir, log_dir) && state.log.take().is_some() {
            self.shared.counters.partitions_failed.add(1);
            self.step(&mut state, Input::Offline, &mut wakes);
            Self::mark_all(&state, &mut wakes);
        }
        drop(state);
        wakes.run();
    }

    /// Reports any other fact.
    pub(crate) fn report(&self, input: Input) {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        self.step(&mut state, input, &mut wakes);
        drop(state);
        wakes.run();
    }

    /// Time passed: lag, unanswered proposals, replies whose clients are gone. `eligible` says of a broker which epoch the
    /// image has for it and whether it may join an ISR.
    pub(crate) fn tick(&self, eligible: &dyn Fn(i32) -> Option<(i64, bool)>) {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        let outside: Vec<i32> = state
            .machine
            .followers()
            .filter(|follower| !follower.in_isr)
            .map(|follower| follower.broker)
            .collect();
        for broker in outside {
            let (broker_epoch, eligible) = eligible(broker).unwrap_or((-1, false));
            self.step(&mut state, Input::BrokerChanged { broker, broker_epoch, eligible }, &mut wakes);
        }
        self.step(&mut state, Input::Tick, &mut wakes);
        Self::release_acks(&mut state, &mut wakes);
        if is_lease_long_over(self.shared.grant.now()) {
            // Another leads by now, as far as this broker can know: producers are to look for it, and not to wait here until they
            // give up.
            for wait in state.acks.drain(..) {
                wakes.add_waiter(wait.waiter);
            }
        }
        state.acks.retain(|wait| Arc::strong_count(&wait.waiter) > 1);
        state.sync_waits.retain(|wait| Arc::strong_count(&wait.waiter) > 1);
        state.low_watermark_waits.retain(|wait| Arc::strong_count(&wait.waiter) > 1);
        state.verifications.expire(Clock::wall_ms() - VERIFICATION_MS_MAX);
        drop(state);
        wakes.run();
    }

    // --- interests of fetches ---

    /// Keeps no more memory than those take who wait.
    pub(super) fn shrink_waits(state: &mut State) {
        state.acks.shrink_to_fit();
        state.sync_waits.shrink_to_fit();
        state.low_watermark_waits.shrink_to_fit();
        state.interests.shrink_to_fit();
    }

    /// A fetch session has this partition at this slot: mark it when there is news.
    pub fn add_interest(&self, interest: &Arc<FetchInterest>, slot: u32) {
        self.state.lock().interests.push(InterestEntry { interest: Arc::clone(interest), slot });
    }

    /// The session dropped the slot, or ended.
    pub fn remove_interest(&self, interest: &Arc<FetchInterest>, slot: u32) {
        let mut state = self.state.lock();
        if let Some(at) = state
            .interests
            .iter()
            .position(|entry| entry.slot == slot && Arc::ptr_eq(&entry.interest, interest))
        {
            state.interests.swap_remove(at);
        }
    }
}

/// The leader that this replica knows, and its epoch.
pub(crate) fn hint(state: &State) -> (i32, i32) {
    (state.machine.leader(), state.machine.leader_epoch())
}
