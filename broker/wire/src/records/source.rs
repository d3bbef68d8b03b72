//! Where the bytes of records come from: a slice, or a decompressor that is read as a stream.
//!
//! Both give varints (zigzag, as in protocol buffers), skips, and an absolute position, so that the walk over records
//! is written once and compiled twice.

use std::io::Read;

use bytes::{Bytes, BytesMut};

use crate::compression::CompressionError;

/// Bytes of the buffer between a decompressor and the walk.
const STREAM_BUFFER_BYTES: usize = 16 * 1024;

/// Bytes that a stream reserves at most before it has seen them, whatever a length claims.
const STREAM_RESERVE_BYTES_MAX: usize = 64 * 1024;

/// Why the records of a batch cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside a record.
    #[error("the records end before the batch's record count is reached")]
    Truncated,
    /// A varint of more bytes than its type can need.
    #[error("a varint is longer than its type allows")]
    Varint,
    /// A length or count below zero where there is no null.
    #[error("the length {0} is negative where there is no null")]
    NegativeLength(i32),
    /// A field reaches beyond its record, or the record is longer than its fields.
    #[error("the fields of a record do not fill its stated length")]
    LengthMismatch,
    /// Bytes follow the last counted record.
    #[error("there are more records than the batch counts")]
    RecordsBehind,
    /// The record count is negative.
    #[error("the record count {0} is negative")]
    Count(i32),
    /// The decompressor gave up.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// A source of record bytes.
pub(crate) trait Source {
    /// The next byte.
    fn read_byte(&mut self) -> Result<u8, RecordError>;

    /// Passes over bytes without copying them.
    fn skip(&mut self, bytes: usize) -> Result<(), RecordError>;

    /// Bytes passed so far.
    fn position(&self) -> u64;

    /// Whether no byte is left. A stream reads on to find out, which also checks its codec's trailer.
    fn at_end(&mut self) -> Result<bool, RecordError>;

    /// The bytes left where that is known; a record cannot be longer.
    fn remaining(&self) -> Option<u64>;

    /// A zigzag varint of up to 5 bytes.
    #[inline]
    fn varint(&mut self) -> Result<i32, RecordError> {
        let first = self.read_byte()?;
        if first < 0x80 {
            let value = u32::from(first);
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let byte = self.read_byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(RecordError::Varint)
    }

    /// A zigzag varint of up to 10 bytes.
    #[inline]
    fn varlong(&mut self) -> Result<i64, RecordError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.read_byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(RecordError::Varint)
    }
}

/// Plain records in memory.
pub(crate) struct SliceSource<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> SliceSource<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(crate) fn index(&self) -> usize {
        self.at
    }
}

impl Source for SliceSource<'_> {
    #[inline]
    fn read_byte(&mut self) -> Result<u8, RecordError> {
        let byte = *self.bytes.get(self.at).ok_or(RecordError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, bytes: usize) -> Result<(), RecordError> {
        if bytes > self.bytes.len() - self.at {
            return Err(RecordError::Truncated);
        }
        self.at += bytes;
        Ok(())
    }

    #[inline]
    fn position(&self) -> u64 {
        self.at as u64
    }

    fn at_end(&mut self) -> Result<bool, RecordError> {
        Ok(self.at == self.bytes.len())
    }

    #[inline]
    fn remaining(&self) -> Option<u64> {
        Some((self.bytes.len() - self.at) as u64)
    }
}

/// Records that come out of a decompressor; holds one small buffer of them at a time.
pub(crate) struct StreamSource<R> {
    reader: R,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    /// Position of the buffer's first byte.
    base: u64,
}

impl<R: Read> StreamSource<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; STREAM_BUFFER_BYTES].into_boxed_slice(), at: 0, end: 0, base: 0 }
    }

    /// Fills the empty buffer; false at the end of the stream.
    fn fill(&mut self) -> Result<bool, RecordError> {
        self.base += self.end as u64;
        (self.at, self.end) = (0, 0);
        loop {
            match self.reader.read(&mut self.buffer) {
                Ok(read) => {
                    self.end = read.min(self.buffer.len());
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(RecordError::Compression(CompressionError::from_read(error))),
            }
        }
    }

    /// Copies bytes out; memory grows with what is really there.
    pub(crate) fn read_bytes(&mut self, length: usize) -> Result<Bytes, RecordError> {
        let mut bytes = BytesMut::with_capacity(length.min(STREAM_RESERVE_BYTES_MAX));
        while bytes.len() < length {
            if self.at == self.end && !self.fill()? {
                return Err(RecordError::Truncated);
            }
            let take = (length - bytes.len()).min(self.end - self.at);
            bytes.extend_from_slice(&self.buffer[self.at..self.at + take]);
            self.at += take;
        }
        Ok(bytes.freeze())
    }
}

impl<R: Read> Source for StreamSource<R> {
    #[inline]
    fn read_byte(&mut self) -> Result<u8, RecordError> {
        if self.at == self.end && !self.fill()? {
            return Err(RecordError::Truncated);
        }
        let byte = self.buffer[self.at];
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, bytes: usize) -> Result<(), RecordError> {
        let mut left = bytes;
        loop {
            let take = left.min(self.end - self.at);
            self.at += take;
            left -= take;
            if left == 0 {
                return Ok(());
            }
            if !self.fill()? {
                return Err(RecordError::Truncated);
            }
        }
    }

    #[inline]
    fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    fn at_end(&mut self) -> Result<bool, RecordError> {
        Ok(self.at == self.end && !self.fill()?)
    }

    #[inline]
    fn remaining(&self) -> Option<u64> {
        None
    }
}
