//! Writing batches: group and transaction state, markers, and whatever the broker stores of its own.
//!
//! A record inside a batch (lengths and deltas are zigzag varints):
//!
//! | field | |
//! |---|---|
//! | length | bytes that follow |
//! | attributes | one byte, 0 |
//! | timestamp delta | to the base timestamp |
//! | offset delta | to the base offset |
//! | key length, key | -1: null |
//! | value length, value | -1: null |
//! | header count | |
//! | key length, key, value length, value | per header; only the value may be null |

use bytes::Bytes;

use super::batch::{
    ATTRIBUTE_CONTROL, ATTRIBUTE_DELETE_HORIZON, ATTRIBUTE_LOG_APPEND_TIME, ATTRIBUTE_TRANSACTIONAL,
    BATCH_OVERHEAD_BYTES, BatchHeader, HEADER_BYTES, MAGIC, NO_PRODUCER_ID, NO_TIMESTAMP, TimestampType,
    crc_of,
};
use crate::compression::{self, Codec, CompressionError};

/// Plain bytes that a batch may have: its length field is an `i32`.
const BATCH_BYTES_MAX: usize = 0x7fff_ffff;

/// What the length field of a batch says that is a header only.
const EMPTY_BATCH_LENGTH: i32 = 49;

/// Where the checksum lies in a batch.
const CRC_AT: usize = 17;

/// Why a batch cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The batch or a field of it is longer than the format can say.
    #[error("a batch is limited to {BATCH_BYTES_MAX} bytes and 2^31-1 records")]
    TooLarge,
    /// A batch without records has no place in a log.
    #[error("a batch needs a record")]
    Empty,
    /// Offset deltas must rise.
    #[error("the offset delta {0} does not lie behind the one before it")]
    OffsetDelta(i32),
    /// The codec refused.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// What a batch says of itself. The default is a plain batch at offset 0 of no particular producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// How the records are compressed.
    pub codec: Codec,
    /// Level of the codec; none is its default.
    pub level: Option<i32>,
    /// Offset of the first record; the log sets it anew when it appends.
    pub base_offset: i64,
    /// Epoch of the leader; the log sets it anew when it appends.
    pub partition_leader_epoch: i32,
    /// The time of the append, if all records shall have it (ms); none keeps the records' own times.
    pub append_time_ms: Option<i64>,
    /// -1: not idempotent.
    pub producer_id: i64,
    /// -1: not idempotent.
    pub producer_epoch: i16,
    /// -1: not idempotent.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub transactional: bool,
    /// Holds control records.
    pub control: bool,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            codec: Codec::None,
            level: None,
            base_offset: 0,
            partition_leader_epoch: -1,
            append_time_ms: None,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: -1,
            transactional: false,
            control: false,
        }
    }
}

/// Collects records into one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// Room for the header, then the plain records.
    bytes: Vec<u8>,
    record_count: i32,
    next_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    /// Compaction: the range of offsets stays, whatever records are left.
    last_offset_delta: Option<i32>,
    /// Compaction: the base timestamp is the delete horizon.
    delete_horizon_ms: Option<i64>,
}

impl BatchBuilder {
    /// An empty batch that takes the place of another in compaction: it keeps that one's range of offsets, producer, codec
    /// and flags, and says when its tombstones may go, if it has any (KIP-534: the base timestamp then is that time).
    pub fn replacing(original: &BatchHeader, delete_horizon_ms: Option<i64>) -> Result<Self, BuildError> {
        let is_append_time = original.timestamp_type() == TimestampType::LogAppendTime;
        let options = BatchOptions {
            codec: original.codec()?,
            level: None,
            base_offset: original.base_offset,
            partition_leader_epoch: original.partition_leader_epoch,
            append_time_ms: is_append_time.then_some(original.max_timestamp),
            producer_id: original.producer_id,
            producer_epoch: original.producer_epoch,
            base_sequence: original.base_sequence,
            transactional: original.is_transactional(),
            control: original.is_control(),
        };
        Ok(Self {
            last_offset_delta: Some(original.last_offset_delta),
            delete_horizon_ms,
            base_timestamp: delete_horizon_ms.unwrap_or(NO_TIMESTAMP),
            ..Self::new(options)
        })
    }

    /// An empty batch.
    pub fn new(options: BatchOptions) -> Self {
        Self {
            options,
            bytes: vec![0; HEADER_BYTES],
            record_count: 0,
            next_offset_delta: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            last_offset_delta: None,
            delete_horizon_ms: None,
        }
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch before compression, header included.
    pub fn plain_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record at the next offset. On error the batch is as before.
    pub fn add(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Result<(), BuildError> {
        self.add_at(self.next_offset_delta, timestamp_ms, key, value, headers)
    }

    /// Adds a record at a given distance from the base offset; compaction leaves gaps.
    pub fn add_at(
        &mut self,
        offset_delta: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Result<(), BuildError> {
        if offset_delta < self.next_offset_delta {
            return Err(BuildError::OffsetDelta(offset_delta));
        }
        let next_offset_delta = offset_delta.checked_add(1).ok_or(BuildError::TooLarge)?;
        let is_first = self.record_count == 0 && self.delete_horizon_ms.is_none();
        let base_timestamp = if is_first { timestamp_ms } else { self.base_timestamp };
        let timestamp_delta = timestamp_ms.wrapping_sub(base_timestamp);

        let mut length = 1 + varlong_length(timestamp_delta) + varlong_length(i64::from(offset_delta));
        length = length.saturating_add(field_length(key)?).saturating_add(field_length(value)?);
        length += varlong_length(length_of(headers.len())?.into());
        for (key, value) in headers {
            length = length.saturating_add(field_length(Some(key))?).saturating_add(field_length(*value)?);
        }
        let stated = length_of(length)?;
        let total = self.bytes.len().saturating_add(length).saturating_add(varlong_length(stated.into()));
        if total > BATCH_BYTES_MAX {
            return Err(BuildError::TooLarge);
        }

        self.bytes.reserve(length + 5);
        put_varlong(&mut self.bytes, stated.into());
        self.bytes.push(0);
        put_varlong(&mut self.bytes, timestamp_delta);
        put_varlong(&mut self.bytes, offset_delta.into());
        put_field(&mut self.bytes, key);
        put_field(&mut self.bytes, value);
        put_varlong(&mut self.bytes, headers.len() as i64);
        for (key, value) in headers {
            put_field(&mut self.bytes, Some(key));
            put_field(&mut self.bytes, *value);
        }

        self.base_timestamp = base_timestamp;
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        self.record_count += 1;
        self.next_offset_delta = next_offset_delta;
        Ok(())
    }

    /// Compresses, writes the header and the checksum.
    pub fn finish(self) -> Result<Bytes, BuildError> {
        if self.record_count == 0 {
            return Err(BuildError::Empty);
        }
        let options = self.options;
        let mut batch = match options.codec {
            Codec::None => self.bytes,
            codec => {
                let compressed = compression::compress(codec, options.level, &self.bytes[HEADER_BYTES..])?;
                let mut batch = vec![0; HEADER_BYTES];
                batch.extend_from_slice(&compressed);
                batch
            }
        };
        let flags = [
            (options.append_time_ms.is_some(), ATTRIBUTE_LOG_APPEND_TIME),
            (options.transactional, ATTRIBUTE_TRANSACTIONAL),
            (options.control, ATTRIBUTE_CONTROL),
            (self.delete_horizon_ms.is_some(), ATTRIBUTE_DELETE_HORIZON),
        ];
        let attributes =
            flags.iter().filter(|(set, _)| *set).fold(options.codec.id(), |all, (_, bit)| all | bit);
        let header = BatchHeader {
            base_offset: options.base_offset,
            batch_length: length_of(batch.len() - BATCH_OVERHEAD_BYTES)?,
            partition_leader_epoch: options.partition_leader_epoch,
            magic: MAGIC,
            crc: 0,
            attributes,
            last_offset_delta: self.last_offset_delta.unwrap_or(self.next_offset_delta - 1),
            base_timestamp: self.base_timestamp,
            max_timestamp: options.append_time_ms.unwrap_or(self.max_timestamp),
            producer_id: options.producer_id,
            producer_epoch: options.producer_epoch,
            base_sequence: options.base_sequence,
            record_count: self.record_count,
        };
        seal(&mut batch, &header);
        Ok(batch.into())
    }
}

/// A batch without records that takes the place of another in compaction, so that its producer's sequence, or the last offset
/// of what was cleaned, is not forgotten.
pub fn empty_batch(original: &BatchHeader) -> Bytes {
    let kept = ATTRIBUTE_LOG_APPEND_TIME | ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL;
    let header = BatchHeader {
        batch_length: EMPTY_BATCH_LENGTH,
        attributes: original.attributes & kept,
        base_timestamp: NO_TIMESTAMP,
        record_count: 0,
        ..*original
    };
    let mut batch = vec![0; HEADER_BYTES];
    seal(&mut batch, &header);
    batch.into()
}

/// Writes the header over the first 61 bytes of `batch` and then the checksum of the whole.
pub(crate) fn seal(batch: &mut [u8], header: &BatchHeader) {
    batch[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    let crc = crc_of(batch);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

pub(crate) fn length_of(bytes: usize) -> Result<i32, BuildError> {
    i32::try_from(bytes).map_err(|_| BuildError::TooLarge)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Bytes of a zigzag varint; the 32-bit form of a value has the same bytes as the 64-bit one.
fn varlong_length(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn put_varlong(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        bytes.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
}

fn field_length(field: Option<&[u8]>) -> Result<usize, BuildError> {
    let Some(field) = field else { return Ok(1) };
    Ok(varlong_length(length_of(field.len())?.into()) + field.len())
}

fn put_field(bytes: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varlong(bytes, field.map_or(-1, |field| field.len() as i64));
    bytes.extend_from_slice(field.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::super::source::{SliceSource, Source};
    use super::*;

    #[test]
    fn varints_round_trip_in_their_stated_length() {
        for value in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_varlong(&mut bytes, value);
            assert_eq!(bytes.len(), varlong_length(value), "{value}");
            assert_eq!(SliceSource::new(&bytes).varlong(), Ok(value));
            if let Ok(value) = i32::try_from(value) {
                assert_eq!(SliceSource::new(&bytes).varint(), Ok(value));
            }
        }
    }

    #[test]
    fn a_batch_that_replaces_another_keeps_its_offsets_its_producer_and_its_times() {
        let mut builder = BatchBuilder::new(BatchOptions {
            codec: Codec::Gzip,
            base_offset: 40,
            producer_id: 7,
            producer_epoch: 1,
            base_sequence: 9,
            transactional: true,
            ..BatchOptions::default()
        });
        for n in 0..5 {
            builder.add(100 + n, Some(b"k"), None, &[]).unwrap();
        }
        let original = BatchHeader::parse(&builder.finish().unwrap()).unwrap();
        let mut builder = BatchBuilder::replacing(&original, Some(5_000)).unwrap();
        builder.add_at(2, 102, Some(b"k"), None, &[]).unwrap();
        let batch = super::super::Batch::parse(&builder.finish().unwrap()).unwrap();
        batch.verify_crc().unwrap();
        assert_eq!((batch.header.base_offset, batch.header.last_offset()), (40, 44));
        assert_eq!((batch.header.last_sequence(), batch.header.producer_id), (13, 7));
        assert_eq!((batch.header.delete_horizon_ms(), batch.header.max_timestamp), (Some(5_000), 102));
        assert_eq!(batch.header.codec(), Ok(Codec::Gzip));
        let records: Vec<_> = batch.records().unwrap().map(Result::unwrap).collect();
        assert_eq!(
            records.iter().map(|record| (record.offset, record.timestamp)).collect::<Vec<_>>(),
            [(42, 102)]
        );
        let empty = super::super::Batch::parse(&empty_batch(&original)).unwrap();
        empty.verify_crc().unwrap();
        assert_eq!((empty.header.last_offset(), empty.header.last_sequence()), (44, 13));
        assert_eq!(empty.records().unwrap().count(), 0);
    }

    #[test]
    fn an_empty_batch_and_falling_offsets_are_refused() {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.add_at(5, 1, None, None, &[]).unwrap();
        assert_eq!(builder.add_at(5, 1, None, None, &[]), Err(BuildError::OffsetDelta(5)));
        assert_eq!(builder.add_at(i32::MAX, 1, None, None, &[]), Err(BuildError::TooLarge));
        assert_eq!(BatchBuilder::new(BatchOptions::default()).finish().unwrap_err(), BuildError::Empty);
    }
}
