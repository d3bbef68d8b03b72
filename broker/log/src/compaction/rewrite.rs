//! The work of a pass: fills the map from the dirty part, then rewrites the segments, a group at a time.

use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use ottla_wire::records::{Batch, BatchHeader};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::filter::{Filter, Left, marker_of};
use super::offset_map::OffsetMap;
use super::plan::{CompactionPlan, Source};
use super::transactions::Transactions;
use super::{CompactionError, Throttle};
use crate::batch_reader::BatchReader;
use crate::error::LogError;
use crate::fs;
use crate::segment::Segment;
use crate::transaction_index::{Aborted, TransactionIndex};

/// Bytes that wait before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionReport {
    /// The new entry for `cleaner-offset-checkpoint`: the first offset that no pass has seen.
    pub first_dirty: i64,
    /// Of the dirty part and of all rewritten segments.
    pub bytes_read: u64,
    /// Of the new segments.
    pub bytes_written: u64,
    /// Segments before.
    pub segments_before: usize,
    /// Segments after.
    pub segments_after: usize,
    /// Different keys of the dirty part.
    pub keys: usize,
    /// The map was full before the dirty part was at its end: another pass should follow.
    pub map_was_full: bool,
}

/// A new segment that stands ready, on disk, to take the place of others. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct CleanedGroup {
    pub(super) segment: Option<Segment>,
    pub(super) sources: Vec<Source>,
    pub(super) generation: u64,
    /// The pass is under way as long as this is there.
    _token: Arc<()>,
}

impl Drop for CleanedGroup {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take()
            && let Err(error) = segment.remove()
        {
            tracing::warn!(%error, "cannot remove what compaction wrote; the next start will");
        }
    }
}

/// Carries out a pass without the log's lock. `swap` takes the lock and calls [`crate::Log::swap_cleaned`] on what it is
/// given. A group's files are written and synced before that.
pub fn compact(
    plan: &CompactionPlan,
    map: &mut OffsetMap,
    throttle: Throttle<'_>,
    swap: &mut dyn FnMut(CleanedGroup) -> Result<(), CompactionError>,
) -> Result<CompactionReport, CompactionError> {
    let result = run(plan, map, throttle, swap);
    map.release();
    match result {
        // The whole directory was renamed: the topic was deleted, or the log moved.
        Err(CompactionError::Log(LogError::Io { source, .. })) if source.kind() == ErrorKind::NotFound => {
            Err(CompactionError::Superseded)
        }
        result => result,
    }
}

fn run(
    plan: &CompactionPlan,
    map: &mut OffsetMap,
    throttle: Throttle<'_>,
    swap: &mut dyn FnMut(CleanedGroup) -> Result<(), CompactionError>,
) -> Result<CompactionReport, CompactionError> {
    let mut report = CompactionReport::default();
    let mut aborted = Vec::new();
    for file in &plan.transaction_indexes {
        aborted.extend(TransactionIndex::new(file.clone()).read()?);
    }
    let mapped_end = fill(plan, map, &aborted, throttle, &mut report)?;
    sync_dirty(plan, mapped_end)?;
    let filter = Filter {
        map,
        mapped_end,
        producers: &plan.producers,
        now_ms: plan.now_ms,
        delete_retention_ms: plan.config.delete_retention_ms,
    };
    let first = plan.sources.first().map_or(0, |source| source.base_offset);
    let mut transactions = Transactions::new(&aborted, first);
    for group in groups(plan, mapped_end) {
        report.segments_before += group.len();
        report.segments_after += 1;
        let is_empty = group.iter().all(|source| source.size == 0);
        if is_empty {
            report.segments_after += group.len() - 1;
            continue;
        }
        if let Some(cleaned) = rewrite(plan, group, &filter, &mut transactions, throttle, &mut report)? {
            // In order: a tombstone must not go before what it deletes, so a group that fails ends the pass.
            swap(cleaned)?;
        }
    }
    report.keys = map.len();
    report.first_dirty = mapped_end;
    Ok(report)
}

/// The latest offset of each key of the dirty part; gives where the map ends.
fn fill(
    plan: &CompactionPlan,
    map: &mut OffsetMap,
    aborted: &[Aborted],
    throttle: Throttle<'_>,
    report: &mut CompactionReport,
) -> Result<i64, CompactionError> {
    let dirty = || plan.sources.iter().filter(|source| source.end_offset > plan.first_dirty);
    let keys_max: i64 = dirty()
        .map(|source| source.end_offset.min(plan.end) - source.base_offset.max(plan.first_dirty))
        .filter(|offsets| *offsets > 0)
        .sum();
    map.reset(u64::try_from(keys_max).unwrap_or(0));
    let mut transactions = Transactions::new(aborted, plan.first_dirty);
    let mut mapped_end = plan.first_dirty;
    for source in dirty() {
        let file = open(source)?;
        let mut reader = BatchReader::new(&file, &source.path, 0, source.size);
        while let Some(header) = reader.advance()? {
            let length = header.total_length() as u64;
            report.bytes_read += length;
            if !throttle(length) {
                return Err(CompactionError::Stopped);
            }
            if header.base_offset >= plan.end {
                break;
            }
            if header.last_offset() < plan.first_dirty {
                continue;
            }
            let full_at = put_all(&header, &reader, plan.first_dirty, map, &mut transactions)?;
            if let Some(offset) = full_at {
                report.map_was_full = true;
                return Ok(offset);
            }
        }
        mapped_end = source.end_offset.min(plan.end);
    }
    Ok(mapped_end)
}

/// Makes the part that is in the map durable. The new segments will be: if a crash then lost a record that has replaced an
/// older one, both would be gone.
fn sync_dirty(plan: &CompactionPlan, mapped_end: i64) -> Result<(), CompactionError> {
    let dirty = plan.sources.iter().filter(|source| source.end_offset > plan.first_dirty);
    for source in dirty.take_while(|source| source.base_offset < mapped_end) {
        if let Err(error) = fs::sync(&open(source)?, &source.path) {
            plan.broken.store(true, Ordering::Release);
            return Err(error.into());
        }
    }
    Ok(())
}

/// Puts a batch's keys into the map; gives the offset of the first record that found no room.
fn put_all(
    header: &BatchHeader,
    reader: &BatchReader<'_>,
    first_dirty: i64,
    map: &mut OffsetMap,
    transactions: &mut Transactions,
) -> Result<Option<i64>, LogError> {
    if header.is_control() {
        transactions.end(header, marker_of(&bytes_of(reader)?));
        return Ok(None);
    }
    if transactions.is_aborted(header) || header.record_count == 0 {
        return Ok(None);
    }
    let bytes = bytes_of(reader)?;
    let damaged = |reason: String| reader.corrupt(reason);
    let batch = Batch::parse(&bytes).map_err(|error| damaged(error.to_string()))?;
    for record in batch.records().map_err(|error| damaged(error.to_string()))? {
        let record = record.map_err(|error| damaged(error.to_string()))?;
        let Some(key) = record.key.filter(|_| record.offset >= first_dirty) else { continue };
        if !map.put(&key, record.offset) {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}

/// Neighbours that fit into one segment together, if nothing of them goes.
fn groups(plan: &CompactionPlan, mapped_end: i64) -> Vec<&[Source]> {
    let count = plan.sources.iter().take_while(|source| source.base_offset < mapped_end).count();
    let sources = &plan.sources[..count];
    let mut groups = Vec::new();
    let mut from = 0;
    while from < sources.len() {
        let fits = |group: &[Source]| {
            let bytes: u64 = group.iter().map(|source| source.size).sum();
            let index_bytes: u64 = group.iter().map(|source| index_bytes(&source.path)).sum();
            let offsets = group.last().map_or(0, |last| last.end_offset - group[0].base_offset);
            bytes <= plan.config.segment_bytes as u64
                && index_bytes <= plan.config.segment_index_bytes as u64
                && offsets <= i64::from(i32::MAX)
        };
        let mut to = from + 1;
        while to < sources.len() && fits(&sources[from..=to]) {
            to += 1;
        }
        groups.push(&sources[from..to]);
        from = to;
    }
    groups
}

/// Bytes of the larger index of a segment; one that is not there will be made.
fn index_bytes(data_path: &Path) -> u64 {
    let length =
        |extension| std::fs::metadata(data_path.with_extension(extension)).map_or(0, |one| one.len());
    length("index").max(length("timeindex"))
}

/// Writes what is left of a group into one new segment. None: it would be as it was.
fn rewrite(
    plan: &CompactionPlan,
    group: &[Source],
    filter: &Filter<'_>,
    transactions: &mut Transactions,
    throttle: Throttle<'_>,
    report: &mut CompactionReport,
) -> Result<Option<CleanedGroup>, CompactionError> {
    let base_offset = group.first().map_or(0, |source| source.base_offset);
    let mut cleaned = CleanedGroup {
        segment: Some(Segment::create_cleaned(&plan.directory, base_offset)?),
        sources: group.to_vec(),
        generation: plan.generation,
        _token: Arc::clone(&plan.token),
    };
    let Some(segment) = cleaned.segment.as_mut() else { return Ok(None) };
    let mut out = Writer { segment, pending: Vec::new(), interval_bytes: plan.config.index_interval_bytes };
    let mut has_changed = group.len() > 1;
    let last_with_data = group.iter().rposition(|source| source.size > 0).unwrap_or(0);
    for (at, source) in group.iter().enumerate() {
        let file = open(source)?;
        let mut reader = BatchReader::new(&file, &source.path, 0, source.size);
        while let Some(header) = reader.advance()? {
            let end = reader.position() + header.total_length() as u64;
            let is_last = at == last_with_data && end == source.size;
            let bytes = bytes_of(&reader)?;
            let (left, aborted) = filter
                .judge(&header, &bytes, is_last, transactions)
                .map_err(|reason| reader.corrupt(reason))?;
            if let Some(aborted) = aborted {
                out.segment.transactions.push(aborted)?;
            }
            let written = match left {
                Left::Whole => out.add(&header, &bytes)?,
                Left::Rebuilt(bytes) => {
                    has_changed = true;
                    let header =
                        BatchHeader::parse(&bytes).map_err(|error| reader.corrupt(error.to_string()))?;
                    out.add(&header, &bytes)?
                }
                Left::Nothing => {
                    has_changed = true;
                    0
                }
            };
            let read = header.total_length() as u64;
            report.bytes_read += read;
            report.bytes_written += written;
            if !throttle(read + written) {
                return Err(CompactionError::Stopped);
            }
        }
    }
    if !has_changed {
        return Ok(None);
    }
    out.write_pending()?;
    segment.finish_cleaned()?;
    keep_time(group, &segment.path());
    Ok(Some(cleaned))
}

/// The new file is as old as the last of the old ones: retention may go by it. It is a courtesy.
fn keep_time(group: &[Source], path: &Path) {
    let modified =
        group.last().and_then(|last| std::fs::metadata(&last.path).and_then(|one| one.modified()).ok());
    if let (Some(modified), Ok(file)) = (modified, fs::open_existing(path)) {
        let _ = file.set_modified(modified);
    }
}

fn open(source: &Source) -> Result<std::fs::File, CompactionError> {
    match std::fs::File::open(&source.path) {
        // Retention took it, or a truncation.
        Err(error) if error.kind() == ErrorKind::NotFound => Err(CompactionError::Superseded),
        result => Ok(result.map_err(LogError::io("cannot open", &source.path))?),
    }
}

fn bytes_of(reader: &BatchReader<'_>) -> Result<Bytes, LogError> {
    let bytes = reader.bytes();
    if bytes.is_empty() { Ok(reader.read_large()?.into()) } else { Ok(Bytes::copy_from_slice(bytes)) }
}

/// Batches on their way into a new segment.
struct Writer<'a> {
    segment: &'a mut Segment,
    pending: Vec<u8>,
    interval_bytes: usize,
}

impl Writer<'_> {
    fn add(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<u64, LogError> {
        let position = self.segment.size() + self.pending.len() as u64;
        self.pending.extend_from_slice(bytes);
        self.segment.note(header, position, self.interval_bytes)?;
        if self.pending.len() >= WRITE_BYTES {
            self.write_pending()?;
        }
        Ok(bytes.len() as u64)
    }

    fn write_pending(&mut self) -> Result<(), LogError> {
        if !self.pending.is_empty() {
            self.segment.write(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}
