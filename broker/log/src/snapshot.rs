//! `.snapshot`: the producer state at an offset, in Kafka's format: version, CRC-32C of what follows, entries.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ottla_wire::messages::Message;
use ottla_wire::persisted::{ProducerSnapshot, producer_snapshot::ProducerEntry};

use crate::error::LogError;
use crate::fs;
use crate::producer_state::{KnownBatch, Producer, ProducerState};

const VERSION: i16 = 1;
/// Behind the version and the checksum.
const ENTRIES_AT: usize = 6;

/// The name of the snapshot at an offset.
pub(crate) fn path(directory: &Path, offset: i64) -> PathBuf {
    directory.join(format!("{offset:020}.snapshot"))
}

/// Writes a snapshot.
pub(crate) fn write(path: &Path, state: &ProducerState) -> Result<(), LogError> {
    let entries = state.producers().map(|(producer_id, producer)| {
        let last = producer.batches.back();
        ProducerEntry {
            producer_id,
            epoch: producer.epoch,
            last_sequence: last.map_or(-1, |batch| batch.last_sequence),
            last_offset: last.map_or(-1, |batch| batch.last_offset),
            offset_delta: last.map_or(0, |batch| batch.offset_delta),
            timestamp: producer.timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            current_txn_first_offset: producer.transaction_start.unwrap_or(-1),
        }
    });
    let snapshot = ProducerSnapshot { crc: 0, producer_entries: entries.collect() };
    let mut encoder = ottla_wire::encode::Encoder::new();
    encoder.i16(VERSION);
    snapshot.encode(&mut encoder, VERSION).map_err(|error| LogError::corrupt(path, 0, error.to_string()))?;
    let mut bytes = encoder.finish().into_bytes().to_vec();
    let crc = ottla_wire::records::checksum(&bytes[ENTRIES_AT..]);
    bytes[2..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
    fs::write_atomically(path, &bytes, false)
}

/// Reads a snapshot.
pub fn read(path: &Path) -> Result<ProducerState, LogError> {
    let bytes = std::fs::read(path).map_err(LogError::io("cannot read", path))?;
    let damaged = |reason: &str| LogError::corrupt(path, 0, reason);
    if bytes.len() < ENTRIES_AT || bytes[..2] != VERSION.to_be_bytes() {
        return Err(damaged("not a snapshot of version 1"));
    }
    let crc = ottla_wire::records::checksum(&bytes[ENTRIES_AT..]);
    if bytes[2..ENTRIES_AT] != crc.to_be_bytes() {
        return Err(damaged("the checksum does not fit"));
    }
    let mut decoder = ottla_wire::decode::Decoder::new(Bytes::from(bytes).slice(2..));
    let snapshot =
        ProducerSnapshot::decode(&mut decoder, VERSION).map_err(|error| damaged(&error.to_string()))?;
    let mut state = ProducerState::default();
    for entry in snapshot.producer_entries {
        if entry.last_offset >= 0
            && (entry.offset_delta < 0 || i64::from(entry.offset_delta) > entry.last_offset)
        {
            return Err(damaged("a batch that begins outside of the log"));
        }
        let batch = KnownBatch {
            first_sequence: first_sequence(entry.last_sequence, entry.offset_delta),
            last_sequence: entry.last_sequence,
            last_offset: entry.last_offset,
            offset_delta: entry.offset_delta,
            timestamp: entry.timestamp,
        };
        let producer = Producer {
            epoch: entry.epoch,
            batches: if entry.last_offset < 0 { [].into() } else { [batch].into() },
            coordinator_epoch: entry.coordinator_epoch,
            transaction_start: (entry.current_txn_first_offset >= 0)
                .then_some(entry.current_txn_first_offset),
            timestamp: entry.timestamp,
        };
        state.restore(entry.producer_id, producer);
    }
    Ok(state)
}

/// The sequence `delta` before another; it wraps.
fn first_sequence(last: i32, delta: i32) -> i32 {
    const SEQUENCES: i64 = 1 << 31;
    let first = (i64::from(last) - i64::from(delta)).rem_euclid(SEQUENCES);
    i32::try_from(first).unwrap_or(i32::MAX)
}

/// Offsets of the snapshots in a directory, rising.
pub(crate) fn list(directory: &Path) -> Result<Vec<i64>, LogError> {
    let mut offsets = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(LogError::io("cannot list", directory))? {
        let entry = entry.map_err(LogError::io("cannot list", directory))?;
        let name = entry.file_name();
        if let Some(offset) =
            name.to_str().and_then(|name| name.strip_suffix(".snapshot")).and_then(|o| o.parse().ok())
        {
            offsets.push(offset);
        }
    }
    offsets.sort_unstable();
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_and_no_number_of_a_file_overflows() {
        assert_eq!(first_sequence(9, 4), 5);
        assert_eq!(first_sequence(1, 3), i32::MAX - 1);
        for (last, delta) in [(-1, i32::MAX), (i32::MIN, i32::MAX), (i32::MAX, i32::MIN)] {
            assert!(first_sequence(last, delta) >= 0);
        }
    }

    #[test]
    fn a_batch_that_begins_outside_of_the_log_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), 7);
        for (last_offset, offset_delta, is_sound) in
            [(6, 6, true), (6, 7, false), (6, -1, false), (-1, -1, true)]
        {
            let entry = ProducerEntry {
                producer_id: 1,
                last_sequence: -1,
                last_offset,
                offset_delta,
                ..Default::default()
            };
            let snapshot = ProducerSnapshot { crc: 0, producer_entries: vec![entry] };
            let mut encoder = ottla_wire::encode::Encoder::new();
            encoder.i16(VERSION);
            snapshot.encode(&mut encoder, VERSION).unwrap();
            let mut bytes = encoder.finish().into_bytes().to_vec();
            let crc = ottla_wire::records::checksum(&bytes[ENTRIES_AT..]);
            bytes[2..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path).is_ok(), is_sound, "{last_offset} {offset_delta}");
        }
    }
}
