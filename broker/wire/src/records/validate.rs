//! What the leader checks of a batch that a client produces, and what it must change before it stores it.
//!
//! The rules are those of Kafka's validator of produce requests: one batch a partition, format 2, base offset 0, right
//! checksum, no control records, offset deltas 0, 1, 2 and on, counts that agree with the records, times near the
//! clock (KIP-937), keys where the topic is compacted. The records are walked without being held: plain ones in
//! place, compressed ones as a stream.
//!
//! [`validate_produce`] only decides. [`ValidatedBatch::store`] carries it out: corrects the timestamps, or brings
//! the records into the topic's codec.

use bytes::{Bytes, BytesMut};

use super::batch::{
    BATCH_OVERHEAD_BYTES, BatchError, BatchHeader, HEADER_BYTES, NO_TIMESTAMP, TimestampType, crc_of,
};
use super::build::{length_of, seal};
use super::iterate::{self, DECOMPRESSED_BYTES_MAX, begin_record, end_record, header_count, nullable_length};
use super::source::{RecordError, SliceSource, Source};
use crate::compression::{self, Codec, CompressionError};
use crate::error_code::ErrorCode;

/// Record errors that an answer lists at most; a batch of keyless records could give hundreds of thousands.
pub const RECORD_ERRORS_MAX: usize = 100;

/// The codec in which a topic keeps its records (`compression.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetCompression {
    /// As the producer sent them.
    #[default]
    Producer,
    /// In this codec, at this level (none: the codec's default).
    Codec(Codec, Option<i32>),
}

/// What the topic and the request ask of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceRules {
    /// `max.message.bytes`: of the batch as it came and as it is stored.
    pub max_message_bytes: usize,
    /// Whether the topic is compacted, so that each record needs a key.
    pub keys_required: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a record may lie behind the clock.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a record may lie ahead of the clock.
    pub timestamp_after_max_ms: i64,
    /// The clock, ms.
    pub now_ms: i64,
    /// `compression.type` and its level.
    pub compression: TargetCompression,
    /// Whether the request's version may carry Zstandard: Produce from 7 on (KIP-110).
    pub zstd_allowed: bool,
    /// Plain bytes to which a compressed batch may grow.
    pub decompressed_bytes_max: u64,
}

impl Default for ProduceRules {
    /// Kafka's defaults of a topic, at time 0.
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            keys_required: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            now_ms: 0,
            compression: TargetCompression::Producer,
            zstd_allowed: true,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        }
    }
}

/// The kinds of refusal, each with its Kafka error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The checksum or the outermost structure is wrong.
    Corrupt,
    /// The batch or a record breaks a rule.
    InvalidRecord,
    /// A record lies too far from the clock.
    InvalidTimestamp,
    /// The codec is not allowed in this version of the request.
    UnsupportedCompression,
    /// Larger than the topic allows.
    TooLarge,
}

impl RefusalReason {
    /// The Kafka error.
    pub fn error_code(self) -> ErrorCode {
        match self {
            Self::Corrupt => ErrorCode::CorruptMessage,
            Self::InvalidRecord => ErrorCode::InvalidRecord,
            Self::InvalidTimestamp => ErrorCode::InvalidTimestamp,
            Self::UnsupportedCompression => ErrorCode::UnsupportedCompressionType,
            Self::TooLarge => ErrorCode::MessageTooLarge,
        }
    }
}

/// Why a batch is not stored; nothing of it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind, which gives the error code.
    pub reason: RefusalReason,
    /// For the answer's `error_message`.
    pub message: String,
    /// The records at fault, by their index in the batch, where single ones are (KIP-467).
    pub record_errors: Vec<(i32, String)>,
}

impl Refusal {
    fn new(reason: RefusalReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), record_errors: Vec::new() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(RefusalReason::InvalidRecord, message)
    }

    /// The Kafka error.
    pub fn error_code(&self) -> ErrorCode {
        self.reason.error_code()
    }
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        // The checksum was right, so sending again would not help: INVALID_RECORD, which clients do not retry.
        let reason = match error {
            RecordError::Compression(CompressionError::OutputLimit { .. }) => RefusalReason::TooLarge,
            _ => RefusalReason::InvalidRecord,
        };
        Self::new(reason, error.to_string())
    }
}

/// A batch that may be stored, once what is stated here has been changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidatedBatch {
    /// The header as it came.
    pub header: BatchHeader,
    /// Largest timestamp as it will be stored, ms; -1 if no record has one.
    pub max_timestamp: i64,
    /// Distance from the base offset to the first record of the largest timestamp.
    pub offset_delta_of_max_timestamp: i32,
    /// What the stored timestamps mean.
    pub timestamp_type: TimestampType,
    /// Whether timestamp type or largest timestamp differ from what came.
    pub timestamps_change: bool,
    /// The codec to bring the records into, if another than they came in.
    pub recompress: Option<(Codec, Option<i32>)>,
}

/// Decides about the `records` of one partition of a produce request.
pub fn validate_produce(records: &[u8], rules: &ProduceRules) -> Result<ValidatedBatch, Refusal> {
    let header = check_structure(records)?;
    let codec = header.codec().map_err(|error| Refusal::invalid(error.to_string()))?;
    if codec == Codec::Zstd && !rules.zstd_allowed {
        let message = "zstd needs version 7 of the produce request";
        return Err(Refusal::new(RefusalReason::UnsupportedCompression, message));
    }
    check_size(records.len(), rules)?;
    let found = crc_of(records);
    if found != header.crc {
        let error = BatchError::Crc { stated: header.crc, found };
        return Err(Refusal::new(RefusalReason::Corrupt, error.to_string()));
    }
    check_header(&header)?;

    let bytes = &records[HEADER_BYTES..];
    let mut walk = Walk::new(&header, rules);
    match codec {
        Codec::None => walk.records(&mut SliceSource::new(bytes))?,
        codec => walk.records(&mut iterate::stream(codec, bytes, rules.decompressed_bytes_max)?)?,
    }
    walk.refuse_records()?;

    let (max_timestamp, offset_delta_of_max_timestamp) = match rules.timestamp_type {
        TimestampType::CreateTime => (walk.max_timestamp, walk.max_timestamp_at),
        TimestampType::LogAppendTime => (rules.now_ms, 0),
    };
    Ok(ValidatedBatch {
        header,
        max_timestamp,
        offset_delta_of_max_timestamp,
        timestamp_type: rules.timestamp_type,
        timestamps_change: max_timestamp != header.max_timestamp
            || rules.timestamp_type != header.timestamp_type(),
        recompress: match rules.compression {
            TargetCompression::Codec(target, level) if target != codec => Some((target, level)),
            _ => None,
        },
    })
}

/// Exactly one whole batch of format 2.
fn check_structure(records: &[u8]) -> Result<BatchHeader, Refusal> {
    let header = BatchHeader::parse_whole(records).map_err(|error| match error {
        BatchError::Truncated { .. } | BatchError::Magic(0 | 1) => Refusal::invalid(error.to_string()),
        error => Refusal::new(RefusalReason::Corrupt, error.to_string()),
    })?;
    if records.len() > header.total_length() {
        return Err(Refusal::invalid("a produce request holds exactly one batch for a partition"));
    }
    Ok(header)
}

fn check_size(bytes: usize, rules: &ProduceRules) -> Result<(), Refusal> {
    if bytes <= rules.max_message_bytes {
        return Ok(());
    }
    let limit = rules.max_message_bytes;
    let message = format!("the batch has {bytes} bytes, more than the topic's max.message.bytes of {limit}");
    Err(Refusal::new(RefusalReason::TooLarge, message))
}

/// What the header alone can show. The checksum is known to be right.
fn check_header(header: &BatchHeader) -> Result<(), Refusal> {
    if header.base_offset != 0 {
        return Err(Refusal::invalid(format!("the base offset is {} but must be 0", header.base_offset)));
    }
    if header.is_control() {
        return Err(Refusal::invalid("clients cannot write control records"));
    }
    if header.has_delete_horizon() {
        return Err(Refusal::invalid("clients cannot set a delete horizon"));
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        let message = "producers cannot set the timestamp type to LogAppendTime";
        return Err(Refusal::new(RefusalReason::InvalidTimestamp, message));
    }
    if header.record_count <= 0 || header.last_offset_delta != header.record_count - 1 {
        let (count, delta) = (header.record_count, header.last_offset_delta);
        return Err(Refusal::invalid(format!(
            "a count of {count} does not fit a last offset delta of {delta}"
        )));
    }
    if header.has_producer_id() && (header.producer_epoch < 0 || header.base_sequence < 0) {
        let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
        return Err(Refusal::invalid(format!(
            "the producer epoch {epoch} or sequence {sequence} is negative"
        )));
    }
    if header.is_transactional() && !header.has_producer_id() {
        return Err(Refusal::invalid("a transactional batch needs a producer id"));
    }
    Ok(())
}

/// The walk over the records; keeps numbers only.
struct Walk<'a> {
    header: &'a BatchHeader,
    rules: &'a ProduceRules,
    max_timestamp: i64,
    max_timestamp_at: i32,
    timestamps_wrong: bool,
    error_count: usize,
    errors: Vec<(i32, String)>,
}

impl<'a> Walk<'a> {
    fn new(header: &'a BatchHeader, rules: &'a ProduceRules) -> Self {
        Self {
            header,
            rules,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_at: header.last_offset_delta,
            timestamps_wrong: false,
            error_count: 0,
            errors: Vec::new(),
        }
    }

    fn records<S: Source>(&mut self, source: &mut S) -> Result<(), Refusal> {
        let check_times = self.rules.timestamp_type == TimestampType::CreateTime;
        for index in 0..self.header.record_count {
            let end = begin_record(source)?;
            source.skip(1)?;
            let timestamp = self.header.base_timestamp.wrapping_add(source.varlong()?);
            let offset_delta = source.varint()?;
            if offset_delta != index {
                return Err(Refusal::invalid(format!("record {index} has the offset delta {offset_delta}")));
            }
            let key = nullable_length(source, end)?;
            source.skip(key.unwrap_or(0))?;
            let value = nullable_length(source, end)?;
            source.skip(value.unwrap_or(0))?;
            for _ in 0..header_count(source, end)? {
                let key = nullable_length(source, end)?.ok_or(RecordError::NegativeLength(-1))?;
                source.skip(key)?;
                let value = nullable_length(source, end)?;
                source.skip(value.unwrap_or(0))?;
            }
            end_record(source, end)?;
            if key.is_none() && self.rules.keys_required {
                self.record_error(index, "a compacted topic needs a key in every record".to_owned());
            }
            if check_times {
                self.timestamp(index, timestamp);
            }
        }
        if !source.at_end()? {
            return Err(RecordError::RecordsBehind.into());
        }
        Ok(())
    }

    #[inline]
    fn timestamp(&mut self, index: i32, timestamp: i64) {
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.max_timestamp_at = index;
        }
        let behind_ms = self.rules.now_ms.saturating_sub(timestamp);
        let ahead_ms = timestamp.saturating_sub(self.rules.now_ms);
        let far =
            behind_ms > self.rules.timestamp_before_max_ms || ahead_ms > self.rules.timestamp_after_max_ms;
        if far && timestamp != NO_TIMESTAMP {
            self.timestamps_wrong = true;
            let earliest = self.rules.now_ms.saturating_sub(self.rules.timestamp_before_max_ms);
            let latest = self.rules.now_ms.saturating_add(self.rules.timestamp_after_max_ms);
            self.record_error(
                index,
                format!("the timestamp {timestamp} lies outside [{earliest}, {latest}]"),
            );
        }
    }

    #[cold]
    fn record_error(&mut self, index: i32, message: String) {
        self.error_count += 1;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push((index, message));
        }
    }

    fn refuse_records(&mut self) -> Result<(), Refusal> {
        if self.error_count == 0 {
            return Ok(());
        }
        let (reason, message) = if self.timestamps_wrong {
            let message = "records lie too far from the broker's clock".to_owned();
            (RefusalReason::InvalidTimestamp, message)
        } else {
            (RefusalReason::InvalidRecord, format!("{} records break a rule of the topic", self.error_count))
        };
        Err(Refusal { reason, message, record_errors: std::mem::take(&mut self.errors) })
    }
}

impl ValidatedBatch {
    /// The bytes to store, in memory that the log may patch. Takes over `records` (those that were validated)
    /// without a copy where nobody else holds them.
    pub fn store(&self, records: Bytes, rules: &ProduceRules) -> Result<BytesMut, Refusal> {
        if let Some((codec, level)) = self.recompress {
            return self.recompressed(&records, codec, level, rules);
        }
        let mut batch = records.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if self.timestamps_change {
            super::batch::set_max_timestamp(&mut batch, self.timestamp_type, self.max_timestamp)
                .map_err(|error| Refusal::new(RefusalReason::Corrupt, error.to_string()))?;
        }
        Ok(batch)
    }

    /// The records' bytes are the same in every codec, so they go from one into the other as a stream.
    fn recompressed(
        &self,
        records: &[u8],
        codec: Codec,
        level: Option<i32>,
        rules: &ProduceRules,
    ) -> Result<BytesMut, Refusal> {
        let compressed = records.get(HEADER_BYTES..).unwrap_or_default();
        let from = self.header.codec().map_err(RecordError::from)?;
        let mut batch = compression::transcode(
            from,
            compressed,
            codec,
            level,
            &[0; HEADER_BYTES],
            rules.decompressed_bytes_max,
            rules.max_message_bytes.saturating_sub(HEADER_BYTES),
        )
        .map_err(|error| match error {
            CompressionError::OutputLimit { .. } => {
                let limit = rules.max_message_bytes;
                let name = codec.name();
                let message =
                    format!("the batch in {name} is larger than the topic's max.message.bytes of {limit}");
                Refusal::new(RefusalReason::TooLarge, message)
            }
            error => Refusal::invalid(error.to_string()),
        })?;
        let header = BatchHeader {
            batch_length: length_of(batch.len() - BATCH_OVERHEAD_BYTES)
                .map_err(|error| Refusal::new(RefusalReason::TooLarge, error.to_string()))?,
            attributes: (self.header.attributes & !Codec::ATTRIBUTE_MASK) | codec.id(),
            ..self.header
        };
        seal(&mut batch, &header);
        if self.timestamps_change {
            super::batch::set_max_timestamp(&mut batch, self.timestamp_type, self.max_timestamp)
                .map_err(|error| Refusal::new(RefusalReason::Corrupt, error.to_string()))?;
        }
        // A Vec becomes BytesMut through Bytes, which is its only owner.
        Ok(Bytes::from(batch).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..])))
    }
}
