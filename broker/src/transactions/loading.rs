//! Reads a partition of `__transaction_state`, from its first record to its last, into the machine.
//!
//! The leader reads to the end of its log, also beyond the high watermark; until all of that is committed the coordinator
//! answers nobody, since it may be lost with this leadership.

use bytes::Bytes;
use ottla_coordinator::transaction::{Applied, TransactionCoordinator};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{Batch, Batches};

use crate::replica::Partition;

/// `transaction.state.log.load.buffer.size`: bytes read at a time.
const LOAD_BYTES: usize = 5 * 1024 * 1024;

/// What a load found.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Loaded {
    /// Records applied.
    pub(super) records: u64,
    /// Records that could not be understood and were passed over.
    pub(super) unknown: u64,
    /// The offset behind the last one.
    pub(super) next_offset: i64,
}

/// Applies everything that the log has; blocking reads of files.
pub(super) fn load(partition: &Partition, machine: &mut TransactionCoordinator) -> Result<Loaded, ErrorCode> {
    let mut loaded = Loaded::default();
    while let Some(slice) = partition.read_own(loaded.next_offset, LOAD_BYTES, true)? {
        let bytes = slice.to_bytes().map_err(|error| {
            tracing::error!(topic = %partition.topic(), partition = partition.index(), %error, "cannot be read");
            ErrorCode::KafkaStorageError
        })?;
        let before = loaded.next_offset;
        apply(bytes, machine, &mut loaded)?;
        if loaded.next_offset == before {
            return Err(ErrorCode::CorruptMessage);
        }
    }
    Ok(loaded)
}

fn apply(bytes: Bytes, machine: &mut TransactionCoordinator, loaded: &mut Loaded) -> Result<(), ErrorCode> {
    for batch in Batches::new(bytes) {
        let batch = batch.map_err(|_| ErrorCode::CorruptMessage)?;
        apply_batch(&batch, machine, loaded)?;
        loaded.next_offset = loaded.next_offset.max(batch.header.next_offset());
    }
    Ok(())
}

fn apply_batch(
    batch: &Batch,
    machine: &mut TransactionCoordinator,
    loaded: &mut Loaded,
) -> Result<(), ErrorCode> {
    if batch.header.is_control() {
        return Ok(());
    }
    for record in batch.records().map_err(|_| ErrorCode::CorruptMessage)? {
        let record = record.map_err(|_| ErrorCode::CorruptMessage)?;
        // A batch may begin before the offset that was asked for.
        if record.offset < loaded.next_offset {
            continue;
        }
        let Some(key) = &record.key else { continue };
        match machine.apply(key, record.value.as_ref()) {
            Ok(Applied::Changed) => loaded.records += 1,
            Ok(Applied::Skipped) | Err(_) => loaded.unknown += 1,
        }
    }
    Ok(())
}
