//! Where records lie: by offset, for readers that send the bytes themselves; by time, exact inside a batch.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use ottla_wire::records::{Batch, BatchHeader};

use crate::error::LogError;
use crate::log::Log;
use crate::segment::Segment;
use crate::transaction_index::Aborted;

/// Whole batches as a range of a file.
#[derive(Debug, Clone)]
pub struct ReadSlice {
    /// The data file; it stays readable when the segment is deleted meanwhile.
    pub file: Arc<File>,
    /// First byte.
    pub position: u64,
    /// Bytes; 0: there is nothing.
    pub length: usize,
    /// The offset behind the last record of the slice, at most.
    pub next_offset_max: i64,
}

impl ReadSlice {
    /// The bytes.
    pub fn to_bytes(&self) -> std::io::Result<Bytes> {
        let mut bytes = vec![0; self.length];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes.into())
    }
}

/// A record found by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its time stamp.
    pub timestamp: i64,
    /// Its offset.
    pub offset: i64,
    /// The epoch of its offset; -1: not known.
    pub leader_epoch: i32,
}

impl Log {
    /// Batches from the one that holds `offset` on, whole ones, at most `bytes_max` bytes, all of them before `until`
    /// (the log's end, the high watermark, the last stable offset: always between two batches). The first batch may be
    /// larger if `at_least_one`.
    pub fn read(
        &self,
        offset: i64,
        bytes_max: usize,
        until: i64,
        at_least_one: bool,
    ) -> Result<ReadSlice, LogError> {
        if offset < self.log_start_offset || offset > self.end_offset {
            return Err(LogError::OffsetOutOfRange { start: self.log_start_offset, end: self.end_offset });
        }
        let until = until.min(self.end_offset);
        let mut at = self.segment_of(offset);
        while let Some(segment) = self.segments.get(at) {
            if offset >= until {
                return Ok(ReadSlice {
                    file: segment.file()?,
                    position: 0,
                    length: 0,
                    next_offset_max: offset,
                });
            }
            let found = segment.find(offset)?;
            let Some((header, position)) = found.filter(|(header, _)| header.base_offset < until) else {
                // Compaction, or the end of a segment: the next one goes on.
                at += 1;
                continue;
            };
            let (end, next) =
                self.slice_end(at, segment, &header, position, bytes_max, until, at_least_one)?;
            return Ok(ReadSlice {
                file: segment.file()?,
                position,
                length: usize::try_from(end - position).unwrap_or(0),
                next_offset_max: next,
            });
        }
        let last = self
            .segments
            .last()
            .ok_or_else(|| LogError::corrupt(&self.directory, 0, "a log without a segment"))?;
        Ok(ReadSlice { file: last.file()?, position: 0, length: 0, next_offset_max: offset })
    }

    #[allow(clippy::too_many_arguments, reason = "one step of `read`, which has them all")]
    fn slice_end(
        &self,
        at: usize,
        segment: &Segment,
        first: &BatchHeader,
        position: u64,
        bytes_max: usize,
        until: i64,
        at_least_one: bool,
    ) -> Result<(u64, i64), LogError> {
        let segment_end = self.segments.get(at + 1).map_or(self.end_offset, Segment::base_offset);
        // Where the readable part of this segment ends.
        let (readable_end, readable_next) = if until >= segment_end {
            (segment.size(), segment_end)
        } else {
            segment
                .find(until)?
                .map_or((segment.size(), segment_end), |(header, at)| (at, header.base_offset))
        };
        if readable_end - position <= bytes_max as u64 {
            return Ok((readable_end, readable_next));
        }
        let (cut, next) = segment.cut(position, bytes_max as u64, readable_next)?;
        if cut > position {
            return Ok((cut.min(readable_end), next.min(readable_next)));
        }
        if at_least_one {
            return Ok((position + first.total_length() as u64, first.next_offset()));
        }
        Ok((position, first.base_offset))
    }

    /// Index of the segment that would hold an offset.
    pub(crate) fn segment_of(&self, offset: i64) -> usize {
        self.segments.partition_point(|segment| segment.base_offset() <= offset).saturating_sub(1)
    }

    /// Aborted transactions that have records in a range of offsets.
    pub fn aborted_transactions(&self, from: i64, to: i64) -> Result<Vec<Aborted>, LogError> {
        let mut found = Vec::new();
        for segment in &self.segments[self.segment_of(from)..] {
            for aborted in segment.transactions.read()? {
                if aborted.last_offset >= from && aborted.first_offset < to {
                    found.push(aborted);
                }
                // Nothing that began before this one was open when its marker was written.
                if aborted.last_stable_offset >= to {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// The first record at or after a time.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<Found>, LogError> {
        for (at, segment) in self.segments.iter().enumerate() {
            let is_last = at + 1 == self.segments.len();
            if segment.max_timestamp < timestamp && !(is_last && segment.max_timestamp < 0) {
                continue;
            }
            let from = segment
                .times
                .find(|entry| entry.timestamp < timestamp)
                .map_or(segment.base_offset(), |entry| {
                    segment.base_offset() + i64::from(entry.relative_offset)
                });
            if let Some(found) = self.scan_for_time(segment, from.max(self.log_start_offset), timestamp)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first record with the greatest time stamp.
    pub fn max_timestamp(&self) -> Result<Option<Found>, LogError> {
        let mut best: Option<&Segment> = None;
        for segment in &self.segments {
            if segment.max_timestamp >= 0
                && best.is_none_or(|best| segment.max_timestamp > best.max_timestamp)
            {
                best = Some(segment);
            }
        }
        let Some(segment) = best else { return Ok(None) };
        let Some((_, position)) = segment.find(segment.max_timestamp_offset)? else { return Ok(None) };
        self.first_at_or_after(segment, position, segment.max_timestamp)
    }

    fn scan_for_time(&self, segment: &Segment, from: i64, timestamp: i64) -> Result<Option<Found>, LogError> {
        let Some((_, mut position)) = segment.find(from)? else { return Ok(None) };
        let file = segment.file()?;
        while let Some(header) = segment.header_at(&file, position)? {
            if header.max_timestamp >= timestamp
                && let Some(found) = self.first_at_or_after(segment, position, timestamp)?
            {
                return Ok(Some(found));
            }
            position += header.total_length() as u64;
        }
        Ok(None)
    }

    /// The first record of the batch at a position that is not older than a time and not before the log's start.
    fn first_at_or_after(
        &self,
        segment: &Segment,
        position: u64,
        timestamp: i64,
    ) -> Result<Option<Found>, LogError> {
        let batch = read_batch(segment, position)?;
        let damaged = |reason: String| LogError::corrupt(&segment.path(), position, reason);
        for record in batch.records().map_err(|error| damaged(error.to_string()))? {
            let record = record.map_err(|error| damaged(error.to_string()))?;
            if record.timestamp >= timestamp && record.offset >= self.log_start_offset {
                let leader_epoch = self.epochs.epoch_for_offset(record.offset).unwrap_or(-1);
                return Ok(Some(Found { timestamp: record.timestamp, offset: record.offset, leader_epoch }));
            }
        }
        Ok(None)
    }
}

/// Reads one whole batch.
pub(crate) fn read_batch(segment: &Segment, position: u64) -> Result<Batch, LogError> {
    let file = segment.file()?;
    let damaged = |reason: String| LogError::corrupt(&segment.path(), position, reason);
    let header =
        segment.header_at(&file, position)?.ok_or_else(|| damaged("the file ends there".to_owned()))?;
    if position + header.total_length() as u64 > segment.size() {
        return Err(damaged("the batch goes beyond the end of the file".to_owned()));
    }
    let mut bytes = vec![0; header.total_length()];
    file.read_exact_at(&mut bytes, position)
        .map_err(|error| LogError::io("cannot read", &segment.path())(error))?;
    Batch::parse(&Bytes::from(bytes)).map_err(|error| damaged(error.to_string()))
}
