//! What coordinators that keep their state in a partition have alike: how it is read when a leadership begins, in which
//! phase that leadership is, how records become a batch, and what a client is told when a batch is not taken.
//!
//! The leader reads to the end of its log, also beyond the high watermark: what is there can only be lost together with
//! this leadership. It begins only when all of that is committed: an answer that rests on more (an offset to go on from, a
//! marker) could not be taken back. Followers fetch from a new leader at once, so this takes a fetch or two; where they
//! do not, the high watermark waits for the ISR to shrink.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_coordinator::group::CoordinatorRecord;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchBuilder, BatchHeader, BatchOptions, Batches, Record};
use tokio::time::Instant;

use crate::replica::{AckState, AppendedRecords, Clock, Partition, Waiter};

/// Pause before a load that failed is tried again.
const LOAD_RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Bytes read at a time while a partition is loaded, as Kafka's `offsets.load.buffer.size`,
/// `transaction.state.log.load.buffer.size` and `share.coordinator.load.buffer.size` have it by default.
const LOAD_BYTES: usize = 5 * 1024 * 1024;

/// How far a leadership has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The partition is being read, or not all of that is committed yet.
    Loading,
    /// Commands are carried out.
    Serving,
    /// Another leads.
    Resigned,
}

impl Phase {
    /// Whether commands are carried out, or what whoever asks is told.
    pub(crate) fn check(self) -> Result<(), ErrorCode> {
        match self {
            Self::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            Self::Serving => Ok(()),
            Self::Resigned => Err(ErrorCode::NotCoordinator),
        }
    }

    pub(crate) fn is_resigned(self) -> bool {
        self == Self::Resigned
    }
}

/// What a record was for the machine that it was read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is part of the state now.
    State,
    /// It could not be understood, or is of a kind that is not kept.
    Unknown,
    /// It says nothing by itself: a marker, or a record without a key.
    Nothing,
}

/// What a load found.
#[derive(Debug, Default, Clone, Copy)]
struct Loaded {
    /// Records that are part of the state.
    records: u64,
    /// Records that could not be understood and were passed over.
    unknown: u64,
    /// The offset behind the last one.
    next_offset: i64,
}

/// A machine that a partition's records are read into.
pub(crate) trait Machine: Send + 'static {
    /// As it is called in the node's log.
    const COORDINATOR: &'static str;

    /// Takes the next record.
    fn take(&mut self, header: &BatchHeader, record: &Record) -> Found;
}

/// Reads a partition from its first record to its last, in order; blocking reads of files.
fn load(partition: &Partition, machine: &mut impl Machine) -> Result<Loaded, ErrorCode> {
    let mut loaded = Loaded::default();
    while let Some(slice) = partition.read_own(loaded.next_offset, LOAD_BYTES, true)? {
        let bytes = slice.to_bytes().map_err(|error| {
            tracing::error!(topic = %partition.topic(), partition = partition.index(), %error, "cannot be read");
            ErrorCode::KafkaStorageError
        })?;
        let before = loaded.next_offset;
        for batch in Batches::new(bytes) {
            let batch = batch.map_err(|_| ErrorCode::CorruptMessage)?;
            for record in batch.records().map_err(|_| ErrorCode::CorruptMessage)? {
                let record = record.map_err(|_| ErrorCode::CorruptMessage)?;
                // A batch may begin before the offset that was asked for.
                if record.offset < loaded.next_offset {
                    continue;
                }
                match machine.take(&batch.header, &record) {
                    Found::State => loaded.records += 1,
                    Found::Unknown => loaded.unknown += 1,
                    Found::Nothing => {}
                }
            }
            loaded.next_offset = loaded.next_offset.max(batch.header.next_offset());
        }
        if loaded.next_offset == before {
            return Err(ErrorCode::CorruptMessage);
        }
    }
    Ok(loaded)
}

/// A machine with all that its partition says, once that could be read and is committed: blocking, off the runtime's
/// threads, and outside of any lock, so that whoever asks meanwhile is told at once that it is loading. `None`: the
/// leadership is over.
pub(crate) async fn load_machine<M: Machine>(
    partition: &Arc<Partition>,
    leader_epoch: i32,
    empty: impl Fn() -> M,
    is_resigned: impl Fn() -> bool,
) -> Option<M> {
    let started = Instant::now();
    let (coordinator, index) = (M::COORDINATOR, partition.index());
    while !is_resigned() {
        let (mut machine, read) = (empty(), Arc::clone(partition));
        let read = move || load(&read, &mut machine).map(|loaded| (machine, loaded));
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok((machine, loaded))) => {
                let Loaded { records, unknown, next_offset } = loaded;
                let read = started.elapsed();
                let is_committed = committed_to(partition, leader_epoch, next_offset, is_resigned).await;
                let elapsed = started.elapsed();
                tracing::info!(
                    coordinator,
                    partition = index,
                    leader_epoch,
                    records,
                    unknown,
                    ?read,
                    ?elapsed,
                    is_committed,
                    "coordinator loaded"
                );
                return is_committed.then_some(machine);
            }
            Ok(Err(error)) => {
                tracing::warn!(coordinator, partition = index, %error, "cannot be loaded yet; trying again");
            }
            Err(error) => {
                tracing::error!(coordinator, partition = index, %error, "loading failed; trying again");
            }
        }
        tokio::time::sleep(LOAD_RETRY_PAUSE).await;
    }
    None
}

/// Waits until all that was loaded is committed; false: the leadership is over. What lies beyond the high watermark may be
/// lost if this leadership ends soon: an answer, or a marker, on the strength of it would be of a decision that nobody has
/// made. What every member of the ISR has is committed, also where the ISR is too small for another record.
async fn committed_to(
    partition: &Partition,
    leader_epoch: i32,
    next_offset: i64,
    is_resigned: impl Fn() -> bool,
) -> bool {
    let last_offset = next_offset - 1;
    let (base_offset, log_append_time_ms, log_start_offset) = (last_offset, -1, 0);
    let loaded =
        AppendedRecords { base_offset, last_offset, log_append_time_ms, log_start_offset, leader_epoch };
    while !is_resigned() {
        let waiter = Waiter::new(1);
        match partition.await_ack(&loaded, &waiter) {
            AckState::Done | AckState::Failed(ErrorCode::NotEnoughReplicasAfterAppend) => return true,
            AckState::Pending => waiter.wait().await,
            AckState::Failed(_) => tokio::time::sleep(LOAD_RETRY_PAUSE).await,
        }
    }
    false
}

/// Where an append of a leadership stands. A lease that is long over does not end that: as long as nobody else leads, what
/// is in the log may be committed yet, and a machine that did not count it would not be what the log says.
pub(crate) fn fate(partition: &Partition, appended: &AppendedRecords) -> AckState {
    let standing = partition.ack_result(appended);
    if standing != AckState::Failed(ErrorCode::NotLeaderOrFollower) {
        return standing;
    }
    let view = partition.view();
    let leads = view.is_leader && view.leader_epoch == appended.leader_epoch;
    if leads { AckState::Pending } else { standing }
}

/// One batch of a coordinator's records; of a producer's transaction, where one (id and epoch) is named.
pub(crate) fn encode(
    records: &[CoordinatorRecord],
    transaction: Option<(i64, i16)>,
) -> Result<Bytes, ErrorCode> {
    let mut options = BatchOptions::default();
    if let Some((producer_id, producer_epoch)) = transaction {
        options.producer_id = producer_id;
        options.producer_epoch = producer_epoch;
        options.transactional = true;
    }
    let mut builder = BatchBuilder::new(options);
    let now_ms = Clock::wall_ms();
    for record in records {
        builder
            .add(now_ms, Some(&record.key), record.value.as_deref(), &[])
            .map_err(|_| ErrorCode::RecordListTooLarge)?;
    }
    builder.finish().map_err(|_| ErrorCode::RecordListTooLarge)
}

/// What a coordinator's client is told of an append that failed.
pub(crate) fn append_refusal(code: ErrorCode) -> ErrorCode {
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

/// Waits for a commit; for ever where there is none to wait for.
pub(crate) async fn wait_for(waiter: Option<Arc<Waiter>>) {
    match waiter {
        Some(waiter) => waiter.wait().await,
        None => std::future::pending().await,
    }
}
