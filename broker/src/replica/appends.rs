//! One partition's appends as the leader: what may be appended, the append itself, and the wait for the followers' copies.
//!
//! Crash story of an append: the record is in the page cache before anyone hears of it; a kill of the process loses nothing,
//! a power failure what was not synced, which is why acks=all asks for copies elsewhere.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ottla_coordinator::transaction::verification::VerificationGuard;
use ottla_log::LogError;
use ottla_replica::{Input, Now};
use ottla_wire::error_code::ErrorCode;

use super::partition::{Partition, State, hint};
use super::transactions::Admission;
use super::waiter::{Waiter, Wakes};

/// Replies that wait for followers wait no longer than so long after the lease.
const LEASE_OVER_MS: u64 = 500;

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
pub(super) struct AckWait {
    last_offset: i64,
    pub(super) waiter: Arc<Waiter>,
}

impl Partition {
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
            return Err(Self::not_leader(&self.lock()));
        }
        // Checked before the lock is taken: this is the expensive part, and other appends may go on meanwhile.
        let checked = self.loaded_rules().check(records, produce_version, now_ms)?;
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
        let mut state = self.lock();
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
                    self.topic(),
                    self.index()
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
        if self.loaded_rules().is_synced_only() {
            state.log_dir.sync_queue.put(self.id(), ());
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
        let mut state = self.lock();
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
        let state = self.lock();
        match state.machine.ack_state(now, appended.leader_epoch, appended.last_offset).into() {
            AckState::Pending if is_lease_long_over(now) => AckState::Failed(ErrorCode::NotLeaderOrFollower),
            standing => standing,
        }
    }

    /// Wakes whose records every in-sync replica has.
    pub(super) fn release_acks(state: &mut State, wakes: &mut Wakes) {
        let high_watermark = state.machine.high_watermark();
        while state.acks.front().is_some_and(|wait| wait.last_offset < high_watermark) {
            if let Some(wait) = state.acks.pop_front() {
                wakes.add_waiter(wait.waiter);
            }
        }
    }
}

/// A lease that is only late (the machine was busy) may come back before anybody else leads.
pub(super) fn is_lease_long_over(now: Now) -> bool {
    now.ms >= now.lease_until_ms.saturating_add(LEASE_OVER_MS)
}
