//! What is left of one batch.

use bytes::Bytes;
use ottla_wire::compression::CompressionError;
use ottla_wire::records::{
    Batch, BatchBuilder, BatchHeader, BuildError, ControlRecord, EndTransaction, Record, RecordError,
    empty_batch,
};
use std::collections::HashMap;

use super::offset_map::OffsetMap;
use super::plan::LastOfProducer;
use super::transactions::Transactions;
use crate::transaction_index::Aborted;

/// Plain bytes of a batch that is taken apart. One that is larger stays as it is: keeping too much is no loss.
const PLAIN_BYTES_MAX: u64 = 256 << 20;

/// What a pass goes by.
pub(super) struct Filter<'a> {
    pub(super) map: &'a OffsetMap,
    /// Offsets before this are in the map.
    pub(super) mapped_end: i64,
    pub(super) producers: &'a HashMap<i64, LastOfProducer>,
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
}

/// What is left.
pub(super) enum Left {
    /// All of it.
    Whole,
    /// Less, in this form.
    Rebuilt(Bytes),
    Nothing,
}

impl Filter<'_> {
    /// Judges a batch. `is_last`: of its group, so that it stays if only as a header. Gives also the entry that the
    /// transaction index of the new segment needs.
    pub(super) fn judge(
        &self,
        header: &BatchHeader,
        bytes: &Bytes,
        is_last: bool,
        transactions: &mut Transactions,
    ) -> Result<(Left, Option<Aborted>), String> {
        if header.base_offset >= self.mapped_end {
            // The rest of the last segment. It may lie behind the high watermark: an abort there may not be the last word.
            let aborted = if header.is_control() {
                transactions.end(header, marker_of(bytes)).1
            } else {
                transactions.is_aborted(header);
                None
            };
            return Ok((Left::Whole, aborted));
        }
        if header.is_control() {
            return self.judge_marker(header, bytes, is_last, transactions);
        }
        if transactions.is_aborted(header) {
            return Ok((self.emptied(header, is_last), None));
        }
        self.judge_records(header, bytes, is_last).map(|left| (left, None))
    }

    /// A batch of which no record is left.
    fn emptied(&self, header: &BatchHeader, is_last: bool) -> Left {
        if !is_last && !self.is_last_of_producer(header) {
            return Left::Nothing;
        }
        if header.record_count == 0 { Left::Whole } else { Left::Rebuilt(empty_batch(header)) }
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        let last = self.producers.get(&header.producer_id).filter(|_| header.has_producer_id());
        last.is_some_and(|last| match last.data_offset {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        })
    }

    fn judge_marker(
        &self,
        header: &BatchHeader,
        bytes: &Bytes,
        is_last: bool,
        transactions: &mut Transactions,
    ) -> Result<(Left, Option<Aborted>), String> {
        let batch = Batch::parse(bytes).map_err(|error| error.to_string())?;
        let first = batch.records().map_err(|error| error.to_string())?.next();
        let first = first.transpose().map_err(|error| error.to_string())?;
        let end = match first.as_ref().map(ControlRecord::parse) {
            Some(Ok(ControlRecord::EndTransaction { end, .. })) => Some(end),
            // Of a kind that is not known: it is not for us to remove.
            Some(_) => return Ok((Left::Whole, None)),
            None => None,
        };
        let (has_no_data, aborted) = transactions.end(header, end);
        if !has_no_data {
            return Ok((Left::Whole, aborted));
        }
        let left = match (first, header.delete_horizon_ms()) {
            (None, _) => self.emptied(header, is_last),
            // It fences the producer's older epochs.
            _ if self.is_last_of_producer(header) => Left::Whole,
            (Some(_), Some(horizon_ms)) if horizon_ms <= self.now_ms => self.emptied(header, is_last),
            (Some(_), Some(_)) => Left::Whole,
            (Some(record), None) => self.rebuild(header, &[record], true)?,
        };
        Ok((left, aborted))
    }

    fn judge_records(&self, header: &BatchHeader, bytes: &Bytes, is_last: bool) -> Result<Left, String> {
        let batch = Batch::parse(bytes).map_err(|error| error.to_string())?;
        let tombstones_stay = header.delete_horizon_ms().is_none_or(|horizon_ms| self.now_ms < horizon_ms);
        let mut kept = Vec::with_capacity(usize::try_from(header.record_count).unwrap_or(0).min(4096));
        let mut has_tombstones = false;
        let records = batch.records_limited(PLAIN_BYTES_MAX).map_err(|error| error.to_string())?;
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(RecordError::Compression(CompressionError::OutputLimit { .. })) => {
                    return Ok(Left::Whole);
                }
                Err(error) => return Err(error.to_string()),
            };
            if record.offset >= self.mapped_end {
                kept.push(record);
                continue;
            }
            // Without a key nothing ever replaces it, and nobody can ask for it: as Kafka has it, it goes.
            let Some(key) = &record.key else { continue };
            if self.map.get(key).is_some_and(|latest| latest > record.offset) {
                continue;
            }
            if record.value.is_none() {
                if !tombstones_stay {
                    continue;
                }
                has_tombstones = true;
            }
            kept.push(record);
        }
        if kept.is_empty() {
            return Ok(self.emptied(header, is_last));
        }
        let needs_horizon = has_tombstones && !header.has_delete_horizon();
        if kept.len() == usize::try_from(header.record_count).unwrap_or(0) && !needs_horizon {
            return Ok(Left::Whole);
        }
        self.rebuild(header, &kept, needs_horizon)
    }

    /// The batch with these records, in its codec.
    fn rebuild(&self, header: &BatchHeader, records: &[Record], needs_horizon: bool) -> Result<Left, String> {
        let horizon_ms = if needs_horizon {
            Some(self.now_ms.saturating_add(self.delete_retention_ms))
        } else {
            header.delete_horizon_ms()
        };
        let build = || -> Result<Bytes, BuildError> {
            let mut builder = BatchBuilder::replacing(header, horizon_ms)?;
            let mut headers = Vec::new();
            for record in records {
                headers.clear();
                headers.extend(record.headers.iter().map(|one| (one.key.as_ref(), one.value.as_deref())));
                let delta = i32::try_from(record.offset - header.base_offset).unwrap_or(-1);
                builder.add_at(
                    delta,
                    record.timestamp,
                    record.key.as_deref(),
                    record.value.as_deref(),
                    &headers,
                )?;
            }
            builder.finish()
        };
        match build() {
            Ok(bytes) => Ok(Left::Rebuilt(bytes)),
            // It does not fit its own format any more: keeping too much is no loss.
            Err(BuildError::TooLarge) => Ok(Left::Whole),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether a marker says that data was aborted; for the walk that fills the map.
pub(super) fn marker_of(bytes: &Bytes) -> Option<EndTransaction> {
    let record = Batch::parse(bytes).ok()?.records().ok()?.next()?.ok()?;
    match ControlRecord::parse(&record) {
        Ok(ControlRecord::EndTransaction { end, .. }) => Some(end),
        _ => None,
    }
}
