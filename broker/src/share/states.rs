//! One partition of `__share_group_state`: its machine behind a small lock that is never held across an await.
//!
//! A request is decided, appended and applied under the lock; then it waits for its record's commit by itself. A leader
//! reads to the end of its log before it answers, also beyond the high watermark: what is there can only be lost together
//! with this leadership, and answers wait for the high watermark anyway.

use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::group::CoordinatorRecord;
use ottla_coordinator::share_state::{Command, ReadState, ShareKey, ShareStates};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchBuilder, BatchOptions, Batches};
use ottla_wire::text::Text;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Refused, ShareOptions, is_partition};
use crate::replica::{AckState, AppendedRecords, Clock, Partition, ReplicaManager, Waiter};

/// Pause before a load that failed is tried again.
const LOAD_RETRY_PAUSE: Duration = Duration::from_millis(200);
/// `share.coordinator.load.buffer.size`: bytes read at a time.
const LOAD_BYTES: usize = 5 * 1024 * 1024;
/// Records of one round of upkeep.
const UPKEEP_RECORDS_MAX: usize = 500;

struct State {
    machine: ShareStates,
    is_loaded: bool,
    is_resigned: bool,
    /// What was appended last: who only reads waits for it, so that what it is told stays true.
    last: Option<AppendedRecords>,
}

/// See the module.
pub(super) struct StateShard {
    partition: Arc<Partition>,
    leader_epoch: i32,
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
            write_timeout: Duration::from_millis(options.write_timeout_ms.max(1)),
            prune_interval: Duration::from_millis(options.prune_interval_ms.max(1)),
            state: Mutex::new(State {
                machine: ShareStates::new(options.states),
                is_loaded: false,
                is_resigned: false,
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
        self.state.lock().is_resigned = true;
        self.resigned.notify_one();
    }

    /// Carries a command out; answers when it is committed.
    pub(super) async fn submit(
        &self,
        key: &ShareKey,
        is_partition: bool,
        command: &Command,
    ) -> Result<Option<ReadState>, Refused> {
        let (read, appended) = {
            let mut state = self.state.lock();
            state.check()?;
            let decision = state
                .machine
                .decide(Clock::wall_ms(), key, is_partition, command)
                .map_err(|refusal| Refused { error: refusal.error, message: Text::from(refusal.message) })?;
            if let Some(record) = decision.record {
                self.append(&mut state, std::slice::from_ref(&record))?;
            }
            (decision.read, state.last)
        };
        if let Some(appended) = appended {
            self.committed(&appended).await?;
        }
        Ok(read)
    }

    pub(super) fn summary(&self, key: &ShareKey) -> Result<ReadState, Refused> {
        let state = self.state.lock();
        state.check()?;
        Ok(state.machine.summary(key))
    }

    /// Appends records and applies them.
    fn append(&self, state: &mut State, records: &[CoordinatorRecord]) -> Result<(), ErrorCode> {
        let batch = encode(records)?;
        let appended = self
            .partition
            .append_as_coordinator(batch, -1, self.leader_epoch, Clock::wall_ms())
            .map_err(|refusal| coordinator_error(refusal.code))?;
        state.last = Some(appended);
        for (offset, record) in (appended.base_offset..).zip(records) {
            if let Err(error) = state.machine.apply(offset, &record.key, record.value.as_ref()) {
                tracing::error!(%error, offset, "a record of this coordinator's own cannot be read");
            }
        }
        Ok(())
    }

    async fn committed(&self, appended: &AppendedRecords) -> Result<(), ErrorCode> {
        let waiter = Waiter::new(1);
        if self.partition.await_ack(appended, &waiter) == AckState::Pending {
            waiter.wait_at_most(self.write_timeout).await;
        }
        match self.partition.ack_result(appended) {
            AckState::Done => Ok(()),
            AckState::Pending => Err(ErrorCode::CoordinatorNotAvailable),
            AckState::Failed(code) => Err(coordinator_error(code)),
        }
    }

    /// Loads, then keeps the log short until leadership ends.
    pub(super) async fn run(self: Arc<Self>, replicas: Arc<ReplicaManager>, stopping: CancellationToken) {
        let served = async {
            if !self.load().await {
                return;
            }
            loop {
                tokio::time::sleep(self.prune_interval).await;
                self.keep_short(&replicas);
            }
        };
        tokio::select! {
            () = served => {}
            () = self.resigned.notified() => {}
            () = stopping.cancelled() => self.resign(),
        }
    }

    async fn load(self: &Arc<Self>) -> bool {
        loop {
            let shard = Arc::clone(self);
            let loaded = tokio::task::spawn_blocking(move || {
                let mut state = shard.state.lock();
                if state.is_resigned {
                    return Ok(None);
                }
                let records = load(&shard.partition, &mut state.machine)?;
                state.is_loaded = true;
                Ok::<_, ErrorCode>(Some(records))
            })
            .await;
            match loaded {
                Ok(Ok(None)) => return false,
                Ok(Ok(Some(records))) => {
                    let (partition, leader_epoch) = (self.partition.index(), self.leader_epoch);
                    tracing::info!(partition, leader_epoch, records, "share coordinator loaded");
                    return true;
                }
                Ok(Err(error)) => {
                    let partition = self.partition.index();
                    tracing::warn!(partition, %error, "share states cannot be loaded yet; trying again");
                }
                Err(error) => tracing::error!(%error, "loading share states failed"),
            }
            tokio::time::sleep(LOAD_RETRY_PAUSE).await;
        }
    }

    /// New snapshots of what is cold, and no log before the oldest snapshot.
    fn keep_short(&self, replicas: &ReplicaManager) {
        let image = replicas.image();
        let mut state = self.state.lock();
        if state.check().is_err() {
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
        let view = self.partition.view();
        let before = state.machine.redundant_before(view.log_end_offset).min(view.high_watermark);
        drop(state);
        if before > view.log_start_offset
            && let Err(error) = self.partition.delete_records(before, &Waiter::new(1))
        {
            tracing::debug!(partition = self.partition.index(), %error, "share states are not shortened now");
        }
    }
}

impl State {
    fn check(&self) -> Result<(), ErrorCode> {
        if self.is_resigned {
            Err(ErrorCode::NotCoordinator)
        } else if self.is_loaded {
            Ok(())
        } else {
            Err(ErrorCode::CoordinatorLoadInProgress)
        }
    }
}

/// Applies everything that the log has; blocking reads of files. Gives the number of records.
fn load(partition: &Partition, machine: &mut ShareStates) -> Result<u64, ErrorCode> {
    let (mut next_offset, mut count) = (0, 0);
    while let Some(slice) = partition.read_own(next_offset, LOAD_BYTES, true)? {
        let bytes = slice.to_bytes().map_err(|error| {
            tracing::error!(topic = %partition.topic(), partition = partition.index(), %error, "cannot be read");
            ErrorCode::KafkaStorageError
        })?;
        let before = next_offset;
        for batch in Batches::new(bytes) {
            let batch = batch.map_err(|_| ErrorCode::CorruptMessage)?;
            if !batch.header.is_control() {
                for record in batch.records().map_err(|_| ErrorCode::CorruptMessage)? {
                    let record = record.map_err(|_| ErrorCode::CorruptMessage)?;
                    // A batch may begin before the offset that was asked for.
                    if let Some(key) = record.key.as_ref().filter(|_| record.offset >= next_offset)
                        && machine.apply(record.offset, key, record.value.as_ref()).is_ok()
                    {
                        count += 1;
                    }
                }
            }
            next_offset = next_offset.max(batch.header.next_offset());
        }
        if next_offset == before {
            return Err(ErrorCode::CorruptMessage);
        }
    }
    Ok(count)
}

/// What a share coordinator's client is told of an append that failed.
fn coordinator_error(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}

fn encode(records: &[CoordinatorRecord]) -> Result<bytes::Bytes, ErrorCode> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let now_ms = Clock::wall_ms();
    for record in records {
        builder
            .add(now_ms, Some(&record.key), record.value.as_deref(), &[])
            .map_err(|_| ErrorCode::RecordListTooLarge)?;
    }
    builder.finish().map_err(|_| ErrorCode::RecordListTooLarge)
}
