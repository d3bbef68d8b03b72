//! The header of a record batch (format 2), its checksum, and the few fields that are patched in place.
//!
//! | at | bytes | field | |
//! |---:|---:|---|---|
//! | 0 | 8 | base offset | set by the leader; outside the checksum |
//! | 8 | 4 | batch length | bytes behind this field |
//! | 12 | 4 | partition leader epoch | set by the leader; outside the checksum |
//! | 16 | 1 | magic | 2 |
//! | 17 | 4 | crc | CRC-32C of everything from the attributes on |
//! | 21 | 2 | attributes | bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon |
//! | 23 | 4 | last offset delta | |
//! | 27 | 8 | base timestamp | or the delete horizon, ms |
//! | 35 | 8 | max timestamp | ms |
//! | 43 | 8 | producer id | -1: none |
//! | 51 | 2 | producer epoch | |
//! | 53 | 4 | base sequence | |
//! | 57 | 4 | record count | |

use crate::compression::{Codec, CompressionError};

/// Bytes of a batch's header; the records (or their compressed form) follow.
pub const HEADER_BYTES: usize = 61;

/// Bytes in front of what `batch_length` counts: the base offset and the length itself.
pub const BATCH_OVERHEAD_BYTES: usize = 12;

/// The only magic that is served.
pub const MAGIC: i8 = 2;

/// Timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

/// Producer id of a batch that is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;

/// The smallest `batch_length` that leaves room for the header.
const BATCH_LENGTH_MIN: i32 = 49;

const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
/// Where the checksummed part begins.
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

/// Attribute bit: timestamps were set by the log (all records have `max_timestamp`).
pub(crate) const ATTRIBUTE_LOG_APPEND_TIME: i16 = 1 << 3;
/// Attribute bit: part of a transaction.
pub(crate) const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
/// Attribute bit: holds control records.
pub(crate) const ATTRIBUTE_CONTROL: i16 = 1 << 5;
/// Attribute bit: the base timestamp is a delete horizon (KIP-534).
pub(crate) const ATTRIBUTE_DELETE_HORIZON: i16 = 1 << 6;

/// Why bytes are not a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header or the length field call for.
    #[error("the batch needs {needed} bytes but {have} are there")]
    Truncated {
        /// Bytes that would be enough to go on.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// The length field leaves no room for the header.
    #[error("the batch length {0} is less than the {BATCH_LENGTH_MIN} bytes of a header")]
    LengthTooSmall(i32),
    /// A message format that is not served.
    #[error("the magic {0} is not {MAGIC}")]
    Magic(i8),
    /// The checksum does not match.
    #[error("the checksum is {found:#010x} but the batch says {stated:#010x}")]
    Crc {
        /// What the header says.
        stated: u32,
        /// What the bytes give.
        found: u32,
    },
}

/// What the timestamps of a batch mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// Set by the producer.
    #[default]
    CreateTime,
    /// Set by the log when it appended.
    LogAppendTime,
}

/// A batch's header, parsed. Nothing in it has been checked but the magic and the lower bound of the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the batch's first record (it may have been compacted away).
    pub base_offset: i64,
    /// Bytes behind the length field.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch.
    pub partition_leader_epoch: i32,
    /// Message format; always 2.
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: i16,
    /// Offset of the last record less the base offset; survives compaction.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are relative to, ms.
    pub base_timestamp: i64,
    /// Largest timestamp, or the time of the append, ms.
    pub max_timestamp: i64,
    /// -1 when the producer is not idempotent.
    pub producer_id: i64,
    /// -1 when the producer is not idempotent.
    pub producer_epoch: i16,
    /// Sequence of the first record; -1 when the producer is not idempotent.
    pub base_sequence: i32,
    /// Records in the batch.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; the rest of the batch need not be there.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() <= MAGIC_AT {
            return Err(BatchError::Truncated { needed: HEADER_BYTES, have: bytes.len() });
        }
        let magic = bytes[MAGIC_AT].cast_signed();
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let batch_length = i32::from_be_bytes(field(bytes, LENGTH_AT));
        if batch_length < BATCH_LENGTH_MIN {
            return Err(BatchError::LengthTooSmall(batch_length));
        }
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Truncated { needed: HEADER_BYTES, have: bytes.len() });
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length,
            partition_leader_epoch: i32::from_be_bytes(field(bytes, LEADER_EPOCH_AT)),
            magic,
            crc: u32::from_be_bytes(field(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        })
    }

    /// Reads the header of a batch that must be there whole.
    pub fn parse_whole(bytes: &[u8]) -> Result<Self, BatchError> {
        let header = Self::parse(bytes)?;
        if bytes.len() < header.total_length() {
            return Err(BatchError::Truncated { needed: header.total_length(), have: bytes.len() });
        }
        Ok(header)
    }

    /// The header's 61 bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.base_offset.to_be_bytes());
        put(&self.batch_length.to_be_bytes());
        put(&self.partition_leader_epoch.to_be_bytes());
        put(&self.magic.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        bytes
    }

    /// Bytes of the whole batch, header included.
    pub fn total_length(&self) -> usize {
        BATCH_OVERHEAD_BYTES + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// Offset of the last record. Wraps for hostile headers; validation refuses those first.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// Offset behind the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// Sequence of the last record; sequences wrap from 2^31-1 to 0. -1 when the producer is not idempotent.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        self.base_sequence.wrapping_add(self.last_offset_delta) & i32::MAX
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Result<Codec, CompressionError> {
        Codec::from_attributes(self.attributes)
    }

    /// What the timestamps mean.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & ATTRIBUTE_LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the producer is idempotent.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records, which clients never see.
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// Whether the base timestamp is the time after which tombstones may go (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & ATTRIBUTE_DELETE_HORIZON != 0
    }

    /// The time after which compaction may drop the batch's tombstones, ms.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }
}

/// Reads the fixed bytes at `at`; the caller has checked the length.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// CRC-32C, as Kafka uses it in batches and in snapshots.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of a batch's checksummed part; 0 for bytes shorter than a header.
pub(crate) fn crc_of(batch: &[u8]) -> u32 {
    batch.get(ATTRIBUTES_AT..).map_or(0, crc_fast::crc32_iscsi)
}

/// Verifies the checksum of exactly one whole batch.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    let header = BatchHeader::parse_whole(batch)?;
    let found = crc_of(&batch[..header.total_length()]);
    if found == header.crc { Ok(()) } else { Err(BatchError::Crc { stated: header.crc, found }) }
}

/// Sets the base offset; it lies outside the checksum. Does nothing to bytes that are no header.
pub fn set_base_offset(batch: &mut [u8], offset: i64) {
    put(batch, 0, &offset.to_be_bytes());
}

/// Sets the leader epoch; it lies outside the checksum. Does nothing to bytes that are no header.
pub fn set_partition_leader_epoch(batch: &mut [u8], epoch: i32) {
    put(batch, LEADER_EPOCH_AT, &epoch.to_be_bytes());
}

/// Sets the largest timestamp and the timestamp type of one whole batch and renews its checksum.
pub fn set_max_timestamp(
    batch: &mut [u8],
    timestamp_type: TimestampType,
    timestamp_ms: i64,
) -> Result<(), BatchError> {
    let header = BatchHeader::parse_whole(batch)?;
    let batch = &mut batch[..header.total_length()];
    let attributes = match timestamp_type {
        TimestampType::CreateTime => header.attributes & !ATTRIBUTE_LOG_APPEND_TIME,
        TimestampType::LogAppendTime => header.attributes | ATTRIBUTE_LOG_APPEND_TIME,
    };
    put(batch, ATTRIBUTES_AT, &attributes.to_be_bytes());
    put(batch, MAX_TIMESTAMP_AT, &timestamp_ms.to_be_bytes());
    let crc = crc_of(batch);
    put(batch, CRC_AT, &crc.to_be_bytes());
    Ok(())
}

/// Marks one whole batch as appended at `now_ms`: every record then has that timestamp (KIP-32).
pub fn log_append_time(batch: &mut [u8], now_ms: i64) -> Result<(), BatchError> {
    set_max_timestamp(batch, TimestampType::LogAppendTime, now_ms)
}

fn put(batch: &mut [u8], at: usize, field: &[u8]) {
    if batch.len() >= HEADER_BYTES {
        batch[at..at + field.len()].copy_from_slice(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            base_offset: 7,
            batch_length: 49,
            partition_leader_epoch: 3,
            magic: 2,
            crc: 0,
            attributes: 0x1c,
            last_offset_delta: 2,
            base_timestamp: 11,
            max_timestamp: 12,
            producer_id: 13,
            producer_epoch: 14,
            base_sequence: i32::MAX - 1,
            record_count: 3,
        }
    }

    #[test]
    fn header_round_trips() {
        assert_eq!(BatchHeader::parse(&header().to_bytes()), Ok(header()));
    }

    #[test]
    fn sequence_wraps_to_zero() {
        assert_eq!(header().last_sequence(), 0);
    }

    #[test]
    fn patches_keep_the_checksum_right() {
        let mut batch = header().to_bytes();
        log_append_time(&mut batch, 99).unwrap();
        set_base_offset(&mut batch, 1000);
        set_partition_leader_epoch(&mut batch, 8);
        verify_crc(&batch).unwrap();
        let patched = BatchHeader::parse(&batch).unwrap();
        assert_eq!(
            (patched.base_offset, patched.partition_leader_epoch, patched.max_timestamp),
            (1000, 8, 99)
        );
        assert_eq!(patched.timestamp_type(), TimestampType::LogAppendTime);
    }

    #[test]
    fn lengths_that_leave_no_room_are_errors() {
        let mut batch = header().to_bytes();
        batch[8..12].copy_from_slice(&48i32.to_be_bytes());
        assert_eq!(BatchHeader::parse(&batch), Err(BatchError::LengthTooSmall(48)));
        assert!(matches!(BatchHeader::parse(&batch[..10]), Err(BatchError::Truncated { .. })));
    }
}
