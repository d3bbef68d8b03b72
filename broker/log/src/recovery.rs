//! Opening a log: after a clean stop only what the caches do not say is read; after a crash everything from the recovery
//! point on is read and checked, and the first byte that is wrong ends the log there.
//!
//! What is kept is always a prefix. Doing it twice does the same: a crash during recovery is a crash.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ottla_wire::records::BatchHeader;

use crate::batch_reader::BatchReader;
use crate::compaction::finish_swaps;
use crate::config::LogConfig;
use crate::epoch_cache::EpochCache;
use crate::error::LogError;
use crate::log::Log;
use crate::producer_state::ProducerState;
use crate::segment::{SWAP, Segment};
use crate::{fs, snapshot};

/// Progress is counted in steps of so many bytes.
const PROGRESS_BYTES: u64 = 16 << 20;

/// What the directory's checkpoints say of a log.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Everything before this offset was synced.
    pub recovery_point: i64,
    /// The last stop was a clean one.
    pub clean_shutdown: bool,
    /// First offset.
    pub log_start_offset: i64,
    /// Wall clock.
    pub now_ms: i64,
    /// Damage before the recovery point is [`LogError::Damaged`], and nothing is cut: what lies there was on disk once, and may
    /// have been acknowledged (I29). Without it the log is cut there, as it is at a torn tail.
    pub keeps_damage: bool,
}

/// How far the opening of logs has come, for who waits; many logs may count into one.
#[derive(Debug, Default)]
pub struct LoadProgress {
    /// Bytes that are to be read and checked, of the logs that were begun.
    pub bytes_to_check: AtomicU64,
    /// Bytes that were.
    pub bytes_checked: AtomicU64,
}

/// What opening a log took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Bytes that were read and checked.
    pub checked_bytes: u64,
    /// Bytes that were cut off.
    pub truncated_bytes: u64,
    /// Segments behind the damage, which were removed.
    pub removed_segments: usize,
    /// Where the log was cut because of damage. Before the recovery point this is no torn tail: the disk has lost what it said
    /// it had, and the replica must get it from elsewhere.
    pub cut_at: Option<i64>,
}

impl Log {
    /// Opens a log that is there.
    pub fn open(
        directory: &Path,
        config: impl Into<Arc<LogConfig>>,
        options: OpenOptions,
    ) -> Result<(Self, LoadReport), LogError> {
        Self::open_with_progress(directory, config, options, &LoadProgress::default())
    }

    /// As [`Self::open`]; somebody watches.
    pub fn open_with_progress(
        directory: &Path,
        config: impl Into<Arc<LogConfig>>,
        options: OpenOptions,
        progress: &LoadProgress,
    ) -> Result<(Self, LoadReport), LogError> {
        Self::open_shared(&Arc::from(directory), config.into(), options, progress)
    }

    fn open_shared(
        directory: &Arc<Path>,
        config: Arc<LogConfig>,
        options: OpenOptions,
        progress: &LoadProgress,
    ) -> Result<(Self, LoadReport), LogError> {
        let bases = tidy(directory)?;
        let mut segments = Vec::with_capacity(bases.len().max(1));
        for base in bases {
            segments.push(Segment::open(directory, base)?);
        }
        if segments.is_empty() {
            segments.push(Segment::create(directory, options.log_start_offset.max(0))?);
        }
        let (epochs, has_epochs) = EpochCache::open(directory);
        let mut log = Self::assemble(directory, config, segments, epochs, ProducerState::default());
        let first = log.segments.first().map_or(0, Segment::base_offset);
        log.log_start_offset = options.log_start_offset.max(first);
        log.recovery_point = options.recovery_point;
        log.recovery_point_told = options.recovery_point;
        let mut report = LoadReport::default();
        let mut epochs_found = Vec::new();
        let mut snapshots_until = i64::MAX;
        if !options.clean_shutdown {
            // The transaction indexes from this segment on are made anew: later snapshots know nothing of their aborts.
            snapshots_until =
                log.segments.get(log.segment_of(log.recovery_point)).map_or(0, Segment::base_offset);
            let first = log.segment_of(log.recovery_point);
            let bytes: u64 = log.segments[first..].iter().map(Segment::size).sum();
            progress.bytes_to_check.fetch_add(bytes, Ordering::Relaxed);
            log.recover(options.keeps_damage, &mut report, &mut epochs_found, progress)?;
        }
        log.restore_indexes()?;
        log.find_end(&mut report)?;
        log.recovery_point =
            log.recovery_point.clamp(log.log_start_offset.min(log.end_offset), log.end_offset);
        if log.log_start_offset > log.end_offset {
            let start = log.log_start_offset;
            log.truncate_fully_and_start_at(start)?;
        }
        log.repair_epochs(has_epochs)?;
        // The file may be older than the crash: what was checked knows better.
        for (epoch, start) in epochs_found.into_iter().filter(|(_, start)| *start < log.end_offset) {
            log.epochs.assign(epoch, start)?;
        }
        log.rebuild_producers(snapshots_until)?;
        // Most partitions of many are not written to at once.
        log.rest()?;
        Ok((log, report))
    }

    /// Reads every segment that was written to since the recovery point.
    fn recover(
        &mut self,
        keeps_damage: bool,
        report: &mut LoadReport,
        epochs: &mut Vec<(i32, i64)>,
        progress: &LoadProgress,
    ) -> Result<(), LogError> {
        let mut at = self.segment_of(self.recovery_point);
        while at < self.segments.len() {
            let segment = &mut self.segments[at];
            let (valid, end, reason) = check_segment(segment, report, epochs, progress)?;
            let is_damaged = valid < segment.size();
            // A segment ends where the next one begins: otherwise its tail was lost, and what is behind does not count. (Only
            // behind compaction there are gaps, of more offsets than a segment could have lost.)
            let next = self.segments.get(at + 1).map_or(end, Segment::base_offset);
            let is_cut = is_damaged || next < end || (1..=i64::from(i32::MAX)).contains(&(next - end));
            let is_last = at + 1 >= self.segments.len();
            if keeps_damage && end < self.recovery_point && (is_cut || is_last) {
                return Err(LogError::Damaged {
                    path: self.directory.to_path_buf(),
                    offset: end,
                    recovery_point: self.recovery_point,
                    reason: reason.unwrap_or_else(|| "the log ends there".to_owned()),
                });
            }
            if is_cut {
                report.cut_at = Some(end);
                self.cut_behind(at, valid, report)?;
            }
            if at + 1 < self.segments.len() {
                self.segments[at].deactivate()?;
            }
            at += 1;
        }
        Ok(())
    }

    /// Keeps the first bytes of a segment, and nothing behind it. The last segments go first: a crash leaves no hole.
    fn cut_behind(&mut self, at: usize, valid: u64, report: &mut LoadReport) -> Result<(), LogError> {
        while self.segments.len() > at + 1
            && let Some(segment) = self.segments.pop()
        {
            report.truncated_bytes += segment.size();
            report.removed_segments += 1;
            segment.remove()?;
        }
        fs::sync_directory(&self.directory)?;
        let segment = &mut self.segments[at];
        if valid < segment.size() {
            report.truncated_bytes += segment.size() - valid;
            let file = segment.file()?;
            let path = segment.path();
            fs::set_length(&file, &path, valid)?;
            fs::sync(&file, &path)?;
            segment.set_size(valid);
        }
        tracing::warn!(
            directory = %self.directory.display(),
            truncated_bytes = report.truncated_bytes,
            removed_segments = report.removed_segments,
            "the log was cut at its first damaged, incomplete or missing batch"
        );
        Ok(())
    }

    /// Makes the indexes anew of segments that lack a file, or whose time index has no entry: by it a search by time passes
    /// over a segment.
    fn restore_indexes(&mut self) -> Result<(), LogError> {
        let inactive = self.segments.len().saturating_sub(1);
        for (at, segment) in self.segments.iter_mut().enumerate() {
            let is_there = segment.offsets.path().exists() && segment.times.path().exists();
            let has_times = at == inactive || segment.size() == 0 || segment.times.last().is_some();
            if is_there && has_times {
                continue;
            }
            segment.reset_offset_and_time_indexes()?;
            segment.index_again()?;
            if at < inactive {
                segment.deactivate()?;
            }
        }
        Ok(())
    }

    /// Walks from the active segment's last index entry to its end.
    fn find_end(&mut self, report: &mut LoadReport) -> Result<(), LogError> {
        let Some(active) = self.segments.last_mut() else { return Ok(()) };
        active.activate()?;
        let base = active.base_offset();
        let file = active.file()?;
        if !active.last_index_entry_fits(&file) {
            // A cache that is wrong must not decide where the log ends.
            active.reset_offset_and_time_indexes()?;
            active.index_again()?;
        }
        let mut position = active.offsets.last().map_or(0, |entry| u64::from(entry.position));
        let mut end = base;
        active.first_timestamp = active.header_at(&file, 0).ok().flatten().map(|header| header.max_timestamp);
        loop {
            let header = match active.header_at(&file, position) {
                Ok(Some(header)) if position + header.total_length() as u64 <= active.size() => header,
                Ok(None) => break,
                // A copied or damaged directory with a marker of a clean stop: what is not a batch cannot be served.
                Ok(Some(_)) | Err(_) => {
                    report.truncated_bytes += active.size() - position;
                    active.truncate(position, end)?;
                    break;
                }
            };
            if header.max_timestamp > active.max_timestamp && header.record_count > 0 {
                active.max_timestamp = header.max_timestamp;
                active.max_timestamp_offset = header.last_offset();
            }
            end = header.next_offset();
            position += header.total_length() as u64;
        }
        self.end_offset = end;
        Ok(())
    }

    /// Epochs beyond the log's end are forgotten; a missing file is made anew from the batches.
    fn repair_epochs(&mut self, has_epochs: bool) -> Result<(), LogError> {
        self.epochs.truncate_from_end(self.end_offset)?;
        if has_epochs && (self.epochs.latest().is_some() || self.end_offset == self.log_start_offset) {
            return Ok(());
        }
        let mut found = Vec::new();
        for segment in &self.segments {
            walk(segment, 0, |header, _| {
                if found.last().is_none_or(|(epoch, _)| *epoch < header.partition_leader_epoch) {
                    found.push((header.partition_leader_epoch, header.base_offset));
                }
                Ok(())
            })?;
        }
        for (epoch, start) in found {
            self.epochs.assign(epoch, start)?;
        }
        Ok(())
    }

    /// The producer state from the latest usable snapshot and the batches behind it.
    pub(crate) fn rebuild_producers(&mut self, snapshots_until: i64) -> Result<(), LogError> {
        let mut from = self.log_start_offset;
        self.producers = ProducerState::default();
        self.last_snapshot = -1;
        for offset in snapshot::list(&self.directory)?.into_iter().rev() {
            let path = snapshot::path(&self.directory, offset);
            if offset > self.end_offset || offset > snapshots_until {
                fs::remove(&path)?;
                continue;
            }
            match snapshot::read(&path) {
                Ok(state) => {
                    self.producers = state;
                    self.last_snapshot = offset;
                    from = offset;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "a snapshot of producers cannot be used");
                    fs::remove(&path)?;
                }
            }
        }
        if from >= self.end_offset {
            return Ok(());
        }
        let producers = &mut self.producers;
        let first = self.segments.partition_point(|segment| segment.base_offset() <= from).saturating_sub(1);
        let mut aborted = Vec::new();
        for at in first..self.segments.len() {
            let segment = &self.segments[at];
            let start = segment.find(from)?.map_or(segment.size(), |(_, position)| position);
            walk(segment, start, |header, position| {
                if header.base_offset < from {
                    return Ok(());
                }
                if !header.is_control() {
                    producers.append(header);
                } else if header.is_transactional() {
                    let batch = crate::read::read_batch(segment, position)?;
                    if let Some((commit, epoch)) = marker(&batch)
                        && let Some(found) = producers.end_transaction(header, commit, epoch)
                    {
                        aborted.push((at, found));
                    }
                }
                Ok(())
            })?;
        }
        // Aborts that the index has not: recovery emptied it, or it was lost.
        for (at, found) in aborted {
            let index = &mut self.segments[at].transactions;
            if !index.read()?.iter().any(|known| known.last_offset == found.last_offset) {
                index.push(found)?;
            }
        }
        Ok(())
    }
}

fn marker(batch: &ottla_wire::records::Batch) -> Option<(bool, i32)> {
    use ottla_wire::records::{ControlRecord, EndTransaction};
    let record = batch.records().ok()?.next()?.ok()?;
    match ControlRecord::parse(&record) {
        Ok(ControlRecord::EndTransaction { end, coordinator_epoch }) => {
            Some((end == EndTransaction::Commit, coordinator_epoch))
        }
        _ => None,
    }
}

/// Calls for each batch of a segment from a position on.
fn walk(
    segment: &Segment,
    from: u64,
    mut visit: impl FnMut(&BatchHeader, u64) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let file = segment.file()?;
    let mut position = from;
    while let Some(header) = segment.header_at(&file, position)? {
        visit(&header, position)?;
        position += header.total_length() as u64;
    }
    Ok(())
}

/// Removes what a crash left of deletions and cleanings, and indexes without a data file, and finishes swaps; gives the base
/// offsets.
fn tidy(directory: &Path) -> Result<Vec<i64>, LogError> {
    let found = list(directory)?;
    // A swap that is finished makes new names.
    let found = if found.swaps.is_empty() && !found.has_index_swaps {
        found
    } else {
        finish_swaps(directory, &found.swaps, &found.bases)?;
        list(directory)?
    };
    for path in &found.leftovers {
        fs::remove(path)?;
    }
    for (base, path) in &found.indexes {
        if !found.bases.contains(base) {
            fs::remove(path)?;
        }
    }
    Ok(found.bases)
}

/// The files of a log's directory, by what is to be done with them.
#[derive(Debug, Default)]
struct Files {
    /// Of data files, rising.
    bases: Vec<i64>,
    /// Of data files that compaction was about to put into their place, rising.
    swaps: Vec<i64>,
    has_index_swaps: bool,
    indexes: Vec<(i64, PathBuf)>,
    /// To be removed; indexes to be swapped are among them, once no data file is.
    leftovers: Vec<PathBuf>,
}

fn list(directory: &Path) -> Result<Files, LogError> {
    let mut files = Files::default();
    for entry in std::fs::read_dir(directory).map_err(LogError::io("cannot list", directory))? {
        let entry = entry.map_err(LogError::io("cannot list", directory))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some((stem, extension)) = name.split_once('.') else { continue };
        if extension.ends_with("deleted") || extension.ends_with("cleaned") || extension.ends_with("tmp") {
            files.leftovers.push(entry.path());
            continue;
        }
        let Ok(base) = stem.parse::<i64>() else { continue };
        match extension {
            "log" => files.bases.push(base),
            "index" | "timeindex" | "txnindex" => files.indexes.push((base, entry.path())),
            "log.swap" => files.swaps.push(base),
            _ if extension.ends_with(SWAP) => {
                files.has_index_swaps = true;
                files.leftovers.push(entry.path());
            }
            _ => {}
        }
    }
    files.bases.sort_unstable();
    files.swaps.sort_unstable();
    Ok(files)
}

/// Reads a segment from its start, checks every batch and makes its indexes anew; gives the length of what is right, and
/// the offset behind it, and what is wrong there.
fn check_segment(
    segment: &mut Segment,
    report: &mut LoadReport,
    epochs: &mut Vec<(i32, i64)>,
    progress: &LoadProgress,
) -> Result<(u64, i64, Option<String>), LogError> {
    segment.activate()?;
    segment.reset_indexes()?;
    let file = segment.file()?;
    let path = segment.path();
    let mut reader = BatchReader::new(&file, &path, 0, segment.size());
    let mut valid = 0;
    let mut next_offset = segment.base_offset();
    let mut reason = None;
    let mut told = 0;
    // The base offset lies outside the checksum; beyond this it cannot be of this segment.
    let offset_max = segment.base_offset().saturating_add(i64::from(i32::MAX));
    loop {
        let header = match reader.advance() {
            Ok(Some(header)) => header,
            Ok(None) => break,
            Err(error @ LogError::Corrupt { .. }) => {
                reason = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        };
        if !(next_offset..=offset_max).contains(&header.base_offset) || header.last_offset() > offset_max {
            reason = Some(reader.corrupt("the batch's offsets do not follow".to_owned()).to_string());
            break;
        }
        // Every entry that an index of the shortest interval has; recovery does not know the topic's setting.
        segment.note(&header, reader.position(), 4096)?;
        if epochs.last().is_none_or(|(epoch, _)| *epoch < header.partition_leader_epoch) {
            epochs.push((header.partition_leader_epoch, header.base_offset));
        }
        next_offset = header.next_offset();
        valid = reader.position() + header.total_length() as u64;
        if valid - told >= PROGRESS_BYTES {
            progress.bytes_checked.fetch_add(valid - told, Ordering::Relaxed);
            told = valid;
        }
    }
    progress.bytes_checked.fetch_add(segment.size() - told, Ordering::Relaxed);
    report.checked_bytes += valid;
    Ok((valid, next_offset, reason))
}
