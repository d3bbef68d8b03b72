//! One partition of `__share_group_state`: its machine behind a small lock that is never held across an await.
//!
//! A request is decided, appended and applied under the lock; then it waits for its record's commit by itself.

use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::group::{Applied, CoordinatorRecord};
use ottla_coordinator::share_state::{Command, ReadState, ShareKey, ShareStateConfig, ShareStates};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchHeader, Record};
use ottla_wire::text::Text;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Refused, ShareOptions, is_partition};
use crate::coordinator_log::{Found, Machine, Phase, append_refusal, encode, load_machine};
use crate::replica::{AckState, AppendedRecords, Clock, Partition, ReplicaManager, Waiter};

/// Records of one round of upkeep.
const UPKEEP_RECORDS_MAX: usize = 500;

struct State {
    machine: ShareStates,
    phase: Phase,
    /// What was appended last: who only reads waits for it, so that what it is told stays true.
    last: Option<AppendedRecords>,
}

/// See the module.
pub(super) struct StateShard {
    partition: Arc<Partition>,
    leader_epoch: i32,
    config: ShareStateConfig,
    write_timeout: Duration,
    prune_interval: Duration,
    state: Mutex<State>,
    resigned: Notify,
}

impl StateShard {
    pub(super) fn new(partition: Arc<Partition>, leader_epoch: i32, options: &ShareOptions) -> Arc<Self> {
        Arc::new(Self {
            partition,
            leader_epoch,
            config: options.states,
            write_timeout: Duration::from_millis(options.write_timeout_ms.max(1)),
            prune_interval: Duration::from_millis(options.prune_interval_ms.max(1)),
            state: Mutex::new(State {
                machine: ShareStates::new(options.states),
                phase: Phase::Loading,
                last: None,
            }),
            resigned: Notify::new(),
        })
    }

    pub(super) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Leadership is lost.
    pub(super) fn resign(&self) {
        self.state.lock().phase = Phase::Resigned;
        self.resigned.notify_one();
    }

    /// Carries a command out; answers when it is committed.
    pub(super) async fn submit(
        &self,
        key: &ShareKey,
        is_partition: bool,
        command: &Command,
    ) -> Result<Option<ReadState>, Refused> {
        let (read, appended, last) = {
            let mut state = self.state.lock();
            state.phase.check()?;
            let decision = state
                .machine
                .decide(Clock::wall_ms(), key, is_partition, command)
                .map_err(|refusal| Refused { error: refusal.error, message: Text::from(refusal.message) })?;
            let appended =
                decision.record.map(|record| self.append(&mut state, std::slice::from_ref(&record)));
            (decision.read, appended.transpose()?, state.last)
        };
        match (appended, last) {
            (Some(appended), _) => self.committed(&appended).await?,
            (None, Some(last)) => self.may_be_told(&last).await?,
            (None, None) => {}
        }
        Ok(read)
    }

    /// How far a group has read, when that is committed.
    pub(super) async fn summary(&self, key: &ShareKey) -> Result<ReadState, Refused> {
        let (summary, last) = {
            let state = self.state.lock();
            state.phase.check()?;
            (state.machine.summary(key), state.last)
        };
        if let Some(last) = last {
            self.may_be_told(&last).await?;
        }
        Ok(summary)
    }

    /// Appends records and applies them.
    fn append(&self, state: &mut State, records: &[CoordinatorRecord]) -> Result<AppendedRecords, ErrorCode> {
        let batch = encode(records, None)?;
        let appended = self
            .partition
            .append_as_coordinator(batch, -1, self.leader_epoch, Clock::wall_ms())
            .map_err(|refusal| append_refusal(refusal.code))?;
        state.last = Some(appended);
        for (offset, record) in (appended.base_offset..).zip(records) {
            if let Err(error) = state.machine.apply(offset, &record.key, record.value.as_ref()) {
                tracing::error!(%error, offset, "a record of this coordinator's own cannot be read");
            }
        }
        Ok(appended)
    }

    /// Waits until an append is as safe as whoever wrote it wants it.
    async fn committed(&self, appended: &AppendedRecords) -> Result<(), ErrorCode> {
        match self.fate(appended).await {
            AckState::Done => Ok(()),
            AckState::Pending => Err(ErrorCode::CoordinatorNotAvailable),
            AckState::Failed(code) => Err(append_refusal(code)),
        }
    }

    /// Waits until who only reads may be told of what this append was the last. It cannot be lost once every member of the
    /// ISR has it, also where the ISR has become too small.
    async fn may_be_told(&self, last: &AppendedRecords) -> Result<(), ErrorCode> {
        match self.fate(last).await {
            AckState::Done | AckState::Failed(ErrorCode::NotEnoughReplicasAfterAppend) => Ok(()),
            AckState::Pending => Err(ErrorCode::CoordinatorNotAvailable),
            AckState::Failed(code) => Err(append_refusal(code)),
        }
    }

    async fn fate(&self, appended: &AppendedRecords) -> AckState {
        let waiter = Waiter::new(1);
        if self.partition.await_ack(appended, &waiter) == AckState::Pending {
            waiter.wait_at_most(self.write_timeout).await;
        }
        self.partition.ack_result(appended)
    }

    /// Loads, then keeps the log short until leadership ends.
    pub(super) async fn run(self: Arc<Self>, replicas: Arc<ReplicaManager>, stopping: CancellationToken) {
        let served = async {
            if !self.load().await {
                return;
            }
            loop {
                tokio::time::sleep(self.prune_interval).await;
                self.keep_short(&replicas).await;
            }
        };
        tokio::select! {
            () = served => {}
            () = self.resigned.notified() => {}
            () = stopping.cancelled() => self.resign(),
        }
    }

    /// Reads the partition and takes up the lead; false: the leadership is over.
    async fn load(&self) -> bool {
        let empty = || ShareStates::new(self.config);
        let is_resigned = || self.state.lock().phase.is_resigned();
        let loaded = load_machine(&self.partition, self.leader_epoch, empty, is_resigned).await;
        let Some(machine) = loaded else { return false };
        let mut state = self.state.lock();
        if state.phase.is_resigned() {
            return false;
        }
        state.machine = machine;
        state.phase = Phase::Serving;
        true
    }

    /// New snapshots of what is cold, and no log before the oldest snapshot. What a snapshot replaces goes only when the
    /// snapshot is committed: else both could be lost.
    async fn keep_short(&self, replicas: &ReplicaManager) {
        let image = replicas.image();
        let (before, last) = {
            let mut state = self.state.lock();
            if state.phase.check().is_err() {
                return;
            }
            let there = |key: &ShareKey| is_partition(&image, key);
            let records = state.machine.maintain(Clock::wall_ms(), UPKEEP_RECORDS_MAX, there);
            if !records.is_empty()
                && let Err(error) = self.append(&mut state, &records)
            {
                tracing::debug!(partition = self.partition.index(), %error, "no upkeep of share states now");
                return;
            }
            (state.machine.redundant_before(self.partition.view().log_end_offset), state.last)
        };
        if let Some(last) = last
            && let Err(error) = self.may_be_told(&last).await
        {
            tracing::debug!(partition = self.partition.index(), %error, "no upkeep of share states now");
            return;
        }
        let view = self.partition.view();
        let before = before.min(view.high_watermark);
        if before > view.log_start_offset
            && let Err(error) = self.partition.delete_records(before, &Waiter::new(1))
        {
            tracing::debug!(partition = self.partition.index(), %error, "share states are not shortened now");
        }
    }
}

impl Machine for ShareStates {
    const COORDINATOR: &'static str = "share";

    fn take(&mut self, header: &BatchHeader, record: &Record) -> Found {
        let Some(key) = record.key.as_ref().filter(|_| !header.is_control()) else { return Found::Nothing };
        match self.apply(record.offset, key, record.value.as_ref()) {
            Ok(Applied::Skipped) | Err(_) => Found::Unknown,
            Ok(_) => Found::State,
        }
    }
}
