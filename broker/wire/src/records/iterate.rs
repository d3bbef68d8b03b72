//! Reading: batches of a run of bytes, and the records of a batch.
//!
//! Plain records are slices of the batch's own memory. Compressed ones come out of a stream, one at a time, and no
//! more than a stated limit of bytes in all.

use std::io::Read;

use bytes::Bytes;
use bytes::buf::{Buf, Reader as BytesReader};

use super::batch::{BatchError, BatchHeader, HEADER_BYTES, TimestampType};
use super::source::{RecordError, SliceSource, Source, StreamSource};
use crate::compression::{Codec, Limited, Reader};

/// Plain bytes that a compressed batch may have in all, unless the reader says otherwise: what Kafka's clients could
/// ever hold, 2^31-1.
pub const DECOMPRESSED_BYTES_MAX: u64 = 0x7fff_ffff;

/// Header slots reserved before the headers are seen.
const HEADERS_RESERVE_MAX: usize = 16;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset in the partition.
    pub offset: i64,
    /// The producer's time or, for a batch in log append time, the batch's; ms.
    pub timestamp: i64,
    /// Null and empty are different.
    pub key: Option<Bytes>,
    /// Null (a tombstone where compacted) and empty are different.
    pub value: Option<Bytes>,
    /// In order; duplicates kept.
    pub headers: Vec<RecordHeader>,
}

/// A header of a record. Kafka wants UTF-8 keys but checks nothing; the bytes are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Never null.
    pub key: Bytes,
    /// Null and empty are different.
    pub value: Option<Bytes>,
}

/// Walks the whole batches of a slice: header and bytes of each. Ends at a partial batch, which [`Self::tail`] gives.
pub struct BatchSlices<'a> {
    rest: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> BatchSlices<'a> {
    /// Over `bytes`, which begin with a batch.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, position: 0, failed: false }
    }

    /// What lies behind the batches given so far; after the end: the partial batch, or nothing.
    pub fn tail(&self) -> &'a [u8] {
        self.rest
    }

    /// Where [`Self::tail`] begins in the bytes.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for BatchSlices<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.rest.is_empty() {
            return None;
        }
        match BatchHeader::parse_whole(self.rest) {
            Ok(header) => {
                let (batch, rest) = self.rest.split_at(header.total_length());
                self.rest = rest;
                self.position += batch.len();
                Some(Ok((header, batch)))
            }
            Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// Walks the whole batches of shared bytes without copying.
pub struct Batches {
    rest: Bytes,
    failed: bool,
}

impl Batches {
    /// Over `bytes`, which begin with a batch.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, failed: false }
    }

    /// What lies behind the batches given so far; after the end: the partial batch, or nothing.
    pub fn tail(&self) -> &Bytes {
        &self.rest
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.rest.is_empty() {
            return None;
        }
        match BatchHeader::parse_whole(&self.rest) {
            Ok(header) => Some(Ok(Batch { header, bytes: self.rest.split_to(header.total_length()) })),
            Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// One whole batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its header.
    pub header: BatchHeader,
    /// All its bytes, header included.
    bytes: Bytes,
}

impl Batch {
    /// The batch at the start of `bytes`.
    pub fn parse(bytes: &Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse_whole(bytes)?;
        Ok(Self { header, bytes: bytes.slice(..header.total_length()) })
    }

    /// All its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Verifies the checksum.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        super::batch::verify_crc(&self.bytes)
    }

    /// Its records, at most [`DECOMPRESSED_BYTES_MAX`] plain bytes of them.
    pub fn records(&self) -> Result<RecordIterator, RecordError> {
        self.records_limited(DECOMPRESSED_BYTES_MAX)
    }

    /// Its records; an error once they come to more than `limit` plain bytes.
    pub fn records_limited(&self, limit: u64) -> Result<RecordIterator, RecordError> {
        let left = u32::try_from(self.header.record_count)
            .map_err(|_| RecordError::Count(self.header.record_count))?;
        let records = self.bytes.slice(HEADER_BYTES..);
        let input = match self.header.codec()? {
            Codec::None => Input::Plain { bytes: records, at: 0 },
            codec => Input::Stream(StreamSource::new(Limited::new(
                Box::new(Reader::new(codec, records.reader())?) as Box<BytesStream>,
                limit,
            ))),
        };
        Ok(RecordIterator { header: self.header, input, left, done: false })
    }
}

type BytesStream = Reader<'static, BytesReader<Bytes>>;

enum Input {
    Plain { bytes: Bytes, at: usize },
    Stream(StreamSource<Limited<Box<BytesStream>>>),
}

/// The records of a batch. Ends after the first error; bytes behind the last record are one.
pub struct RecordIterator {
    header: BatchHeader,
    input: Input,
    left: u32,
    done: bool,
}

impl RecordIterator {
    fn read(&mut self) -> Result<Record, RecordError> {
        match &mut self.input {
            Input::Plain { bytes, at } => {
                let mut source = SliceSource::at(bytes, *at);
                let record = read_record(&mut source, &self.header, |source, length| {
                    let begin = source.index();
                    source.skip(length)?;
                    Ok(bytes.slice(begin..begin + length))
                })?;
                *at = source.index();
                Ok(record)
            }
            Input::Stream(source) => read_record(source, &self.header, StreamSource::read_bytes),
        }
    }

    fn at_end(&mut self) -> Result<bool, RecordError> {
        match &mut self.input {
            Input::Plain { bytes, at } => Ok(*at == bytes.len()),
            Input::Stream(source) => source.at_end(),
        }
    }
}

impl Iterator for RecordIterator {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.left == 0 {
            self.done = true;
            return match self.at_end() {
                Ok(true) => None,
                Ok(false) => Some(Err(RecordError::RecordsBehind)),
                Err(error) => Some(Err(error)),
            };
        }
        self.left -= 1;
        let record = self.read();
        self.done = record.is_err();
        Some(record)
    }
}

/// The parts of a record in their order; see the table at [`super::build`].
fn read_record<S: Source>(
    source: &mut S,
    header: &BatchHeader,
    mut take: impl FnMut(&mut S, usize) -> Result<Bytes, RecordError>,
) -> Result<Record, RecordError> {
    let end = begin_record(source)?;
    source.skip(1)?;
    let timestamp_delta = source.varlong()?;
    let offset_delta = source.varint()?;
    let mut field = |source: &mut S| {
        let Some(length) = nullable_length(source, end)? else { return Ok(None) };
        take(source, length).map(Some)
    };
    let key = field(source)?;
    let value = field(source)?;
    let count = header_count(source, end)?;
    let mut headers = Vec::with_capacity(count.min(HEADERS_RESERVE_MAX));
    for _ in 0..count {
        let key = field(source)?.ok_or(RecordError::NegativeLength(-1))?;
        headers.push(RecordHeader { key, value: field(source)? });
    }
    end_record(source, end)?;
    let timestamp = match header.timestamp_type() {
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(timestamp_delta),
        TimestampType::LogAppendTime => header.max_timestamp,
    };
    let offset = header.base_offset.wrapping_add(i64::from(offset_delta));
    Ok(Record { offset, timestamp, key, value, headers })
}

/// Reads a record's length; returns the position where the record must end.
#[inline]
pub(crate) fn begin_record<S: Source>(source: &mut S) -> Result<u64, RecordError> {
    let length = source.varint()?;
    let length = u64::try_from(length).map_err(|_| RecordError::NegativeLength(length))?;
    if source.remaining().is_some_and(|remaining| remaining < length) {
        return Err(RecordError::Truncated);
    }
    Ok(source.position() + length)
}

/// Reads a length that may be -1 for null and must fit into its record.
#[inline]
pub(crate) fn nullable_length<S: Source>(source: &mut S, end: u64) -> Result<Option<usize>, RecordError> {
    let length = source.varint()?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| RecordError::NegativeLength(length))?;
    if source.position() + length as u64 > end {
        return Err(RecordError::LengthMismatch);
    }
    Ok(Some(length))
}

/// Reads the number of headers; each takes two bytes at least, so the record bounds it.
#[inline]
pub(crate) fn header_count<S: Source>(source: &mut S, end: u64) -> Result<usize, RecordError> {
    let count = source.varint()?;
    let count = usize::try_from(count).map_err(|_| RecordError::NegativeLength(count))?;
    if count as u64 * 2 > end.saturating_sub(source.position()) {
        return Err(RecordError::LengthMismatch);
    }
    Ok(count)
}

/// Checks that the fields filled the record exactly.
#[inline]
pub(crate) fn end_record<S: Source>(source: &S, end: u64) -> Result<(), RecordError> {
    if source.position() == end { Ok(()) } else { Err(RecordError::LengthMismatch) }
}

/// A stream of plain record bytes of `batch`, for walks that copy nothing.
pub(crate) fn stream(
    codec: Codec,
    records: &[u8],
    limit: u64,
) -> Result<StreamSource<impl Read>, RecordError> {
    Ok(StreamSource::new(Limited::new(Reader::new(codec, records)?, limit)))
}
