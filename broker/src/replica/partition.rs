//! One partition's replica on this broker: its log, its machine and who waits for it, behind one small lock.
//!
//! The lock is taken once per part of a request and never held across an await. What it releases (acks, fetches) is woken
//! after it is free. Crash story of an append: the record is in the page cache before anyone hears of it; a kill of the
//! process loses nothing, a power failure what was not synced, which is why acks=all asks for copies elsewhere.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use ottla_coordinator::transaction::verification::{VerificationGuard, Verifications};
use ottla_log::{Log, LogError};
use ottla_replica::{Assignment, Effect, Effects, Input, Now, PartitionMachine};
use ottla_wire::error_code::ErrorCode;
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::durability::SyncWait;
use super::moves::Moving;
use super::options::Clock;
use super::rules::Rules;
use super::shared::{Following, IsrProposal, LogDir, PartitionId, ReplicaShared};
use super::transactions::Admission;
use super::waiter::{FetchInterest, InterestKind, Waiter, Wakes};
use crate::metrics::PartitionTraffic;

/// A question to the transaction coordinator that nobody came back to for so many milliseconds is forgotten.
const VERIFICATION_MS_MAX: i64 = 600_000;

thread_local! {
    /// What a step of a machine says is executed before the next one: a thread needs one list, kept for its capacity, and ten
    /// thousand idle partitions none.
    static EFFECTS: Cell<Effects> = const { Cell::new(Effects::new()) };
}

/// How something is to be appended.
#[derive(Debug, Clone, Copy)]
pub(super) struct AppendMode {
    /// 0, 1 or -1.
    pub(super) acks: i16,
    /// Refuse unless this replica leads in this very epoch.
    pub(super) leader_epoch_required: Option<i32>,
    /// Wall clock.
    pub(super) now_ms: i64,
    /// What the records have to do with transactions.
    pub(super) admission: Admission,
}

/// Where records were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendedRecords {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record: what to wait for.
    pub last_offset: i64,
    /// With log-append time that time, otherwise -1.
    pub log_append_time_ms: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// The epoch under which it was appended.
    pub leader_epoch: i32,
}

/// Where an acks=all append stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckState {
    /// Not committed yet; after a timeout: `REQUEST_TIMED_OUT`.
    Pending,
    /// Committed while the ISR is large enough.
    Done,
    /// It may be lost, or has been.
    Failed(ErrorCode),
}

impl From<ottla_replica::AckState> for AckState {
    fn from(state: ottla_replica::AckState) -> Self {
        match state {
            ottla_replica::AckState::Pending => Self::Pending,
            ottla_replica::AckState::Done => Self::Done,
            ottla_replica::AckState::NotEnoughReplicasAfterAppend => {
                Self::Failed(ErrorCode::NotEnoughReplicasAfterAppend)
            }
            ottla_replica::AckState::NoLongerLeader => Self::Failed(ErrorCode::NotLeaderOrFollower),
        }
    }
}

/// Why an append was refused.
#[derive(Debug)]
pub struct ProduceRefusal {
    /// For the client.
    pub code: ErrorCode,
    /// For the client; empty: the code says it all.
    pub message: String,
    /// Record by record: its index in the batch and what is wrong with it.
    pub record_errors: Vec<(i32, String)>,
    /// With `NOT_LEADER_OR_FOLLOWER`: the leader and its epoch, -1 where not known.
    pub current_leader: Option<(i32, i32)>,
}

impl From<ErrorCode> for ProduceRefusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: String::new(), record_errors: Vec::new(), current_leader: None }
    }
}

/// A parked acks=all reply.
#[derive(Debug)]
struct AckWait {
    last_offset: i64,
    waiter: Arc<Waiter>,
}

/// A parked `DeleteRecords` reply.
#[derive(Debug)]
struct LowWatermarkWait {
    offset: i64,
    waiter: Arc<Waiter>,
}

/// A fetch session that has this partition.
#[derive(Debug)]
struct InterestEntry {
    interest: Arc<FetchInterest>,
    slot: u32,
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
    acks: VecDeque<AckWait>,
    /// Who waits for this replica's disk.
    pub(super) sync_waits: Vec<SyncWait>,
    low_watermark_waits: Vec<LowWatermarkWait>,
    interests: Vec<InterestEntry>,
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

/// Replies that wait for followers wait no longer than so long after the lease.
const LEASE_OVER_MS: u64 = 500;

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

    fn release_acks(state: &mut State, wakes: &mut Wakes) {
        let high_watermark = state.machine.high_watermark();
        while state.acks.front().is_some_and(|wait| wait.last_offset < high_watermark) {
            if let Some(wait) = state.acks.pop_front() {
                wakes.add_waiter(wait.waiter);
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
    fn wake_followers(state: &State, wakes: &mut Wakes) {
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

    // --- produce ---

    /// Appends a client's batches as the leader. `records` is patched in place when nobody else holds the buffer. With
    /// `acks=-1` the reply then waits for [`Partition::await_ack`].
    pub fn append_as_leader(
        &self,
        records: Bytes,
        acks: i16,
        now_ms: i64,
    ) -> Result<AppendedRecords, ProduceRefusal> {
        self.append_of_version(records, acks, i16::MAX, None, now_ms)
    }

    /// The same, for a Produce request of a version: old ones may not carry every codec. `verified`: the question that the
    /// transaction coordinator said yes to; needed by the first records of a transaction.
    pub fn append_of_version(
        &self,
        records: Bytes,
        acks: i16,
        produce_version: i16,
        verified: Option<VerificationGuard>,
        now_ms: i64,
    ) -> Result<AppendedRecords, ProduceRefusal> {
        if !self.is_leader() {
            return Err(Self::not_leader(&self.state.lock()));
        }
        // Checked before the lock is taken: this is the expensive part, and other appends may go on meanwhile.
        let checked = self.rules.load().check(records, produce_version, now_ms)?;
        let admission = Admission::Client(verified);
        let mode = AppendMode { acks, leader_epoch_required: None, now_ms, admission };
        let mut appended = self.append(checked.records, mode)?;
        appended.log_append_time_ms = checked.log_append_time_ms;
        Ok(appended)
    }

    /// Appends batches that a coordinator of this broker built, control batches among them, as they are. Refused unless
    /// this replica leads in `leader_epoch`: what a coordinator decided under another one is void.
    pub fn append_as_coordinator(
        &self,
        records: Bytes,
        acks: i16,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<AppendedRecords, ProduceRefusal> {
        let admission = Admission::Coordinator;
        self.append(
            records,
            AppendMode { acks, leader_epoch_required: Some(leader_epoch), now_ms, admission },
        )
    }

    pub(super) fn append(&self, records: Bytes, mode: AppendMode) -> Result<AppendedRecords, ProduceRefusal> {
        let mut records = records.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        let appended = self.append_locked(&mut state, mode, &mut records, &mut wakes);
        drop(state);
        wakes.run();
        appended
    }

    fn append_locked(
        &self,
        state: &mut State,
        mode: AppendMode,
        records: &mut BytesMut,
        wakes: &mut Wakes,
    ) -> Result<AppendedRecords, ProduceRefusal> {
        let leader_epoch = state.machine.leader_epoch();
        let is_other_epoch = mode.leader_epoch_required.is_some_and(|required| required != leader_epoch);
        if !state.machine.is_leader() || is_other_epoch || !self.shared.grant.now().has_lease() {
            return Err(Self::not_leader(state));
        }
        if mode.acks == -1 && !state.machine.can_accept_acks_all() {
            return Err(ProduceRefusal {
                message: format!(
                    "The ISR {:?} of partition {}-{} is smaller than min.insync.replicas",
                    state.machine.isr(),
                    self.topic,
                    self.id.index
                ),
                ..ProduceRefusal::from(ErrorCode::NotEnoughReplicas)
            });
        }
        if let Err(error) = state.log_dir.take_room(records.len()) {
            return Err(self.refuse_append(state, error, wakes));
        }
        let producer = Self::admit(state, records, mode.admission)?;
        let Some(log) = &mut state.log else {
            return Err(ProduceRefusal::from(ErrorCode::KafkaStorageError));
        };
        let info = match log.append_as_leader(records, leader_epoch, mode.now_ms) {
            Ok(info) => info,
            Err(error) => return Err(self.refuse_append(state, error, wakes)),
        };
        let (log_start_offset, log_end) = (log.log_start_offset(), log.end_offset());
        if let Some(producer_id) = producer {
            state.verifications.end(producer_id);
        }
        if !info.is_duplicate {
            self.step(state, Input::Appended { log_end }, wakes);
            Self::wake_followers(state, wakes);
            self.sync_later(state);
        }
        Ok(AppendedRecords {
            base_offset: info.first_offset,
            last_offset: info.last_offset,
            log_append_time_ms: -1,
            log_start_offset,
            leader_epoch,
        })
    }

    /// The partition has bytes that may have to be on disk before they count.
    pub(super) fn sync_later(&self, state: &State) {
        if self.rules.load().is_synced_only() {
            state.log_dir.sync_queue.put(self.id, ());
        }
    }

    fn refuse_append(&self, state: &mut State, error: LogError, wakes: &mut Wakes) -> ProduceRefusal {
        let code = error.code();
        if error.is_fatal() {
            self.broken(state, &error, wakes);
        } else if error.is_no_space() {
            self.tell_of_no_space(state);
        }
        ProduceRefusal { message: error.to_string(), ..ProduceRefusal::from(code) }
    }

    /// The disk is full: the log is still a good prefix and goes on when there is room again.
    pub(super) fn tell_of_no_space(&self, state: &State) {
        self.shared.counters.appends_without_space.add(1);
        if state.log_dir.first_without_space() {
            tracing::error!(directory = %state.log_dir.path().display(), "no space left; appends are refused until there is");
        }
    }

    pub(super) fn not_leader(state: &State) -> ProduceRefusal {
        if state.log.is_none() {
            return ProduceRefusal::from(ErrorCode::KafkaStorageError);
        }
        ProduceRefusal {
            // Without a lease it is not this broker any more, and it does not know who.
            current_leader: Some(hint(state)).filter(|_| !state.machine.is_leader()),
            ..ProduceRefusal::from(ErrorCode::NotLeaderOrFollower)
        }
    }

    /// Whether an append is committed; if not yet, `waiter` is completed once when that changes.
    pub fn await_ack(&self, appended: &AppendedRecords, waiter: &Arc<Waiter>) -> AckState {
        let now = self.shared.grant.now();
        let last_offset = appended.last_offset;
        let mut state = self.state.lock();
        let ack = state.machine.ack_state(now, appended.leader_epoch, last_offset).into();
        if ack == AckState::Pending {
            let wait = AckWait { last_offset, waiter: Arc::clone(waiter) };
            // Requests of several connections may come here in another order than they were appended in.
            let at =
                state.acks.iter().rposition(|other| other.last_offset <= last_offset).map_or(0, |at| at + 1);
            state.acks.insert(at, wait);
        }
        ack
    }

    /// Where an append stands: asked after the waiter was completed, or timed out (`Pending` then).
    pub fn ack_result(&self, appended: &AppendedRecords) -> AckState {
        let now = self.shared.grant.now();
        let state = self.state.lock();
        match state.machine.ack_state(now, appended.leader_epoch, appended.last_offset).into() {
            AckState::Pending if is_lease_long_over(now) => AckState::Failed(ErrorCode::NotLeaderOrFollower),
            standing => standing,
        }
    }

    // --- DeleteRecords ---

    /// Moves the log's start up to `before` (-1: the high watermark). Gives the low watermark of now; while that is below
    /// the offset that was moved to, `waiter` is completed once when it gets there.
    pub fn delete_records(&self, before: i64, waiter: &Arc<Waiter>) -> Result<(i64, i64), ErrorCode> {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        let result = self.delete_records_locked(&mut state, before, waiter, &mut wakes);
        drop(state);
        wakes.run();
        result
    }

    fn delete_records_locked(
        &self,
        state: &mut State,
        before: i64,
        waiter: &Arc<Waiter>,
        wakes: &mut Wakes,
    ) -> Result<(i64, i64), ErrorCode> {
        if state.log.is_none() {
            return Err(ErrorCode::KafkaStorageError);
        }
        if !state.machine.is_leader() || !self.shared.grant.now().has_lease() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let high_watermark = state.machine.high_watermark();
        let target = if before == -1 { high_watermark } else { before };
        if target < 0 || target > high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        self.move_log_start(state, target, wakes)?;
        let low_watermark = state.machine.low_watermark();
        if low_watermark < target {
            state.low_watermark_waits.push(LowWatermarkWait { offset: target, waiter: Arc::clone(waiter) });
        }
        Ok((low_watermark, target))
    }

    pub(crate) fn move_log_start(
        &self,
        state: &mut State,
        target: i64,
        wakes: &mut Wakes,
    ) -> Result<(), ErrorCode> {
        let Some(log) = &mut state.log else { return Err(ErrorCode::KafkaStorageError) };
        if target <= log.log_start_offset() {
            return Ok(());
        }
        if let Err(error) = log.increment_log_start_offset(target) {
            self.broken(state, &error, wakes);
            return Err(ErrorCode::KafkaStorageError);
        }
        self.step(state, Input::LogStartMoved { log_start: target }, wakes);
        for entry in &state.interests {
            entry.interest.mark(entry.slot);
            if entry.interest.kind() == InterestKind::Follower {
                // Followers delete too, and somebody waits for that.
                wakes.add_interest(&entry.interest);
            }
        }
        Ok(())
    }

    /// Least log start over all replicas.
    pub fn low_watermark(&self) -> i64 {
        self.state.lock().machine.low_watermark()
    }

    pub(crate) fn release_low_watermark(state: &mut State, wakes: &mut Wakes) {
        if state.low_watermark_waits.is_empty() {
            return;
        }
        let low_watermark = state.machine.low_watermark();
        let (done, waiting) = std::mem::take(&mut state.low_watermark_waits)
            .into_iter()
            .partition(|wait| wait.offset <= low_watermark);
        state.low_watermark_waits = waiting;
        let done: Vec<LowWatermarkWait> = done;
        for wait in done {
            wakes.add_waiter(wait.waiter);
        }
    }
}

/// A lease that is only late (the machine was busy) may come back before anybody else leads.
fn is_lease_long_over(now: Now) -> bool {
    now.ms >= now.lease_until_ms.saturating_add(LEASE_OVER_MS)
}

/// The leader that this replica knows, and its epoch.
pub(crate) fn hint(state: &State) -> (i32, i32) {
    (state.machine.leader(), state.machine.leader_epoch())
}
