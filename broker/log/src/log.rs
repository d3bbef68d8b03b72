//! A partition's log: segments in order, the last of which is written to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::{Bytes, BytesMut};
use ottla_wire::records::{
    BatchError, BatchHeader, BatchSlices, ControlRecord, EndTransaction, set_base_offset,
    set_partition_leader_epoch, verify_crc,
};
use uuid::Uuid;

use crate::compaction::Running;
use crate::config::LogConfig;
use crate::epoch_cache::EpochCache;
use crate::error::LogError;
use crate::producer_state::{ProducerState, Verdict};
use crate::segment::Segment;
use crate::{directory, fs, snapshot};

/// Snapshots of the producer state that are kept.
const SNAPSHOTS_KEPT: usize = 2;

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendInfo {
    /// Offset of the first record.
    pub first_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The batch was there already: these are its offsets, and nothing was written.
    pub is_duplicate: bool,
}

/// One partition's log. One writer at a time; whoever owns it serialises.
#[derive(Debug)]
pub struct Log {
    /// Shared with every file of the log.
    pub(crate) directory: Arc<Path>,
    /// Shared with the topic's other partitions.
    pub(crate) config: Arc<LogConfig>,
    /// Never empty, by rising base offset; the last is active.
    pub(crate) segments: Vec<Segment>,
    pub(crate) epochs: EpochCache,
    pub(crate) producers: ProducerState,
    pub(crate) log_start_offset: i64,
    pub(crate) end_offset: i64,
    pub(crate) recovery_point: i64,
    pub(crate) high_watermark: i64,
    /// How much earlier than `segment.ms` this log's segments roll.
    pub(crate) jitter_ms: i64,
    pub(crate) unflushed_records: i64,
    /// Created and not flushed since: not even its directory's name is on disk.
    pub(crate) is_new: bool,
    /// Written since the last flush.
    pub(crate) unsynced_snapshots: Vec<PathBuf>,
    /// Offset of the latest snapshot of producers; -1: there is none.
    pub(crate) last_snapshot: i64,
    /// The largest recovery point that was ever given out: a checkpoint may still have it.
    pub(crate) recovery_point_told: i64,
    /// Counts truncations: a flush that began before one says nothing of what was appended since.
    pub(crate) cuts: u64,
    /// A sync failed, or a change of several files was cut short: what the disk holds is not known any more.
    pub(crate) broken: Arc<AtomicBool>,
    /// Counts truncations and moves of the log's start: a compaction that began before one does not count.
    pub(crate) generation: u64,
    /// No pass of compaction has seen what was appended from here on since the log was opened.
    pub(crate) first_dirty_max: i64,
    pub(crate) compaction: Running,
}

impl Log {
    /// A new, empty log in a directory that is not there yet.
    ///
    /// Nothing is synced: thousands of partitions may come at once, and nothing was promised of them. The first flush syncs the
    /// directory's own name and what is in it before any record counts as being on disk (I33); a crash before that leaves a
    /// directory that is made anew, or none.
    pub fn create(
        path: &Path,
        topic_id: Uuid,
        config: impl Into<Arc<LogConfig>>,
        _now_ms: i64,
    ) -> Result<Self, LogError> {
        std::fs::create_dir_all(path).map_err(LogError::io("cannot create", path))?;
        directory::write_topic_id(path, topic_id)?;
        let path = Arc::from(path);
        let mut segment = Segment::create_unsynced(&path, 0)?;
        // Most partitions of many are not written to at once.
        segment.rest()?;
        let (epochs, _) = EpochCache::open(&path);
        let mut log = Self::assemble(&path, config.into(), vec![segment], epochs, ProducerState::default());
        log.is_new = true;
        Ok(log)
    }

    pub(crate) fn assemble(
        directory: &Arc<Path>,
        config: Arc<LogConfig>,
        segments: Vec<Segment>,
        epochs: EpochCache,
        producers: ProducerState,
    ) -> Self {
        let jitter_ms = jitter(directory, config.segment_jitter_ms);
        Self {
            directory: Arc::clone(directory),
            config,
            segments,
            epochs,
            producers,
            log_start_offset: 0,
            end_offset: 0,
            recovery_point: 0,
            high_watermark: 0,
            jitter_ms,
            unflushed_records: 0,
            is_new: false,
            unsynced_snapshots: Vec::new(),
            last_snapshot: -1,
            recovery_point_told: 0,
            cuts: 0,
            broken: Arc::default(),
            generation: 0,
            first_dirty_max: i64::MAX,
            compaction: Running::default(),
        }
    }

    // --- what it is ---

    /// First offset.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start_offset
    }

    /// Next offset.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Everything before this offset is on disk. It falls when the log is cut.
    pub fn recovery_point(&self) -> i64 {
        self.recovery_point
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(Segment::size).sum()
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Counts truncations and moves of the log's start: what was read before one may not be there any more.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a pass of the compaction goes over it.
    pub fn is_being_compacted(&self) -> bool {
        self.compaction.is_under_way()
    }

    /// Its settings.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// New settings; they count from the next append on.
    pub fn set_config(&mut self, config: impl Into<Arc<LogConfig>>) {
        let config = config.into();
        self.jitter_ms = jitter(&self.directory, config.segment_jitter_ms);
        self.config = config;
    }

    /// What it knows of producers.
    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// The high watermark moved: transactions that ended below it are stable.
    pub fn update_high_watermark(&mut self, high_watermark: i64) {
        self.high_watermark = high_watermark;
        self.producers.set_high_watermark(high_watermark);
    }

    /// What read_committed may see. Of a transaction whose records are deleted only what is left counts.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        let first = self.producers.first_unstable_offset().map(|first| first.max(self.log_start_offset()));
        first.map_or(high_watermark, |first| first.min(high_watermark))
    }

    // --- leader epochs ---

    /// A leader epoch begins at an offset.
    pub fn begin_leader_epoch(&mut self, epoch: i32, start: i64) {
        self.epochs.begin(epoch, start);
    }

    /// The latest epoch of which there is a record.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest()
    }

    /// The epoch of an offset.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.epochs.epoch_for_offset(offset)
    }

    /// The largest epoch that is at most the one asked for, and its end.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        self.epochs.end_offset(epoch, self.end_offset)
    }

    /// Where the first epoch above one begins that this log has records of.
    pub fn start_of_next_epoch(&self, epoch: i32) -> Option<i64> {
        self.epochs.start_of_next(epoch)
    }

    // --- append ---

    /// Appends validated batches as the leader: they get the next offsets and the leader's epoch, in place.
    pub fn append_as_leader(
        &mut self,
        records: &mut BytesMut,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<AppendInfo, LogError> {
        let mut headers = Vec::with_capacity(1);
        let mut position = 0;
        let mut offset = self.end_offset;
        while position < records.len() {
            let batch = &mut records[position..];
            let mut header = BatchHeader::parse_whole(batch)
                .map_err(|error| LogError::Malformed { position, reason: error.to_string() })?;
            if let Verdict::Duplicate(known) = self.producers.check(&header)? {
                return Ok(AppendInfo {
                    first_offset: known.first_offset(),
                    last_offset: known.last_offset,
                    is_duplicate: true,
                });
            }
            set_base_offset(batch, offset);
            set_partition_leader_epoch(batch, leader_epoch);
            header.base_offset = offset;
            header.partition_leader_epoch = leader_epoch;
            offset = header.next_offset();
            headers.push((header, position));
            position += header.total_length();
        }
        self.append(records, &headers, now_ms)
    }

    /// Appends batches that a leader has ordered. They must continue this log, in offsets and in leader epochs. What is of a
    /// later epoch than the leader's was not ordered by it: it is left out, and with it everything behind.
    pub fn append_as_follower(&mut self, records: &Bytes, leader_epoch: i32) -> Result<AppendInfo, LogError> {
        let mut headers = Vec::new();
        let mut slices = BatchSlices::new(records);
        let mut next = self.end_offset;
        let mut epoch = self.epochs.epoch_for_offset(next - 1).unwrap_or(-1);
        let mut whole = 0;
        loop {
            let position = slices.position();
            let Some(batch) = slices.next() else { break };
            let malformed = |error: BatchError| LogError::Malformed { position, reason: error.to_string() };
            let (header, bytes) = batch.map_err(malformed)?;
            // On its way, or on the leader's disk, a byte may have changed: it must not be kept twice.
            verify_crc(bytes).map_err(malformed)?;
            if header.base_offset < next || header.last_offset_delta < 0 {
                return Err(LogError::NotContiguous { expected: next, found: header.base_offset });
            }
            if header.partition_leader_epoch < epoch {
                return Err(LogError::EpochWentBack { last: epoch, found: header.partition_leader_epoch });
            }
            if header.partition_leader_epoch > leader_epoch && leader_epoch >= 0 {
                break;
            }
            next = header.next_offset();
            epoch = header.partition_leader_epoch;
            whole = position + bytes.len();
            headers.push((header, position));
        }
        if self.epochs.latest() > Some(epoch) && !headers.is_empty() {
            // An epoch that this log began as leader, and wrote nothing in.
            self.epochs.truncate_from_end(self.end_offset)?;
        }
        let now_ms = headers.first().map_or(0, |(header, _)| header.max_timestamp);
        self.append(&records[..whole], &headers, now_ms)
    }

    fn append(
        &mut self,
        bytes: &[u8],
        headers: &[(BatchHeader, usize)],
        now_ms: i64,
    ) -> Result<AppendInfo, LogError> {
        let (Some((first, _)), Some((last, _))) = (headers.first(), headers.last()) else {
            return Ok(AppendInfo {
                first_offset: self.end_offset,
                last_offset: self.end_offset - 1,
                is_duplicate: false,
            });
        };
        if bytes.len() > self.config.segment_bytes {
            return Err(LogError::TooLarge { bytes: bytes.len(), limit: self.config.segment_bytes });
        }
        self.check_usable()?;
        self.segments.last_mut().map_or(Ok(()), Segment::activate)?;
        let (config, jitter_ms) = (&self.config, self.jitter_ms);
        let record_ms = headers.iter().map(|(header, _)| header.max_timestamp).max().unwrap_or(now_ms);
        let has_room = self.segments.last().is_some_and(|active| {
            active.has_room(config, bytes.len(), last.last_offset(), record_ms, jitter_ms)
        });
        if !has_room {
            // At the log's end, even if the records begin behind it (their neighbours were compacted away): a segment ends
            // where the next one begins, and recovery knows a lost tail by that. But for a gap that no segment could span.
            let is_far = last.last_offset() - self.end_offset > i64::from(i32::MAX);
            self.roll_at(if is_far { first.base_offset } else { self.end_offset })?;
        }
        let interval_bytes = self.config.index_interval_bytes;
        let Some(active) = self.segments.last_mut() else {
            return Err(LogError::corrupt(&self.directory, 0, "a log without a segment"));
        };
        let position = active.write(bytes)?;
        let epochs_before = self.epochs.len();
        if let Err(error) = self.note_append(bytes, headers, position, interval_bytes) {
            self.undo_append(position, first.base_offset, epochs_before)?;
            return Err(error);
        }
        self.end_offset = last.next_offset();
        if self.unflushed_records >= self.config.flush_messages && self.config.flush_messages > 1 {
            self.flush()?;
        }
        Ok(AppendInfo {
            first_offset: first.base_offset,
            last_offset: last.last_offset(),
            is_duplicate: false,
        })
    }

    /// Takes written batches into the indexes, the epochs and the producer state.
    fn note_append(
        &mut self,
        bytes: &[u8],
        headers: &[(BatchHeader, usize)],
        position: u64,
        interval_bytes: usize,
    ) -> Result<(), LogError> {
        if let Some(active) = self.segments.last_mut() {
            for (header, at) in headers {
                active.note(header, position + *at as u64, interval_bytes)?;
            }
        }
        for (header, at) in headers {
            self.epochs.assign(header.partition_leader_epoch, header.base_offset)?;
            let batch = &bytes[*at..*at + header.total_length()];
            self.note_producer(header, || Ok(Bytes::copy_from_slice(batch)))?;
            self.unflushed_records += i64::from(header.record_count);
        }
        Ok(())
    }

    /// Takes back batches that were written but not noted (the disk filled up behind the data). Left there, the next append
    /// would give their offsets again, and recovery would cut everything from there on, acknowledged or not.
    fn undo_append(&mut self, position: u64, offset: i64, epochs_before: usize) -> Result<(), LogError> {
        let undone = self
            .segments
            .last_mut()
            .map_or(Ok(()), |active| active.truncate(position, offset))
            .and_then(|()| self.rebuild_producers(self.end_offset));
        self.epochs.keep_first(epochs_before);
        self.producers.set_high_watermark(self.high_watermark);
        // Whatever the reason, a log that cannot be taken back is not a good prefix any more: this must be fatal.
        let undone = undone.map_err(|error| LogError::corrupt(&self.directory, position, error.to_string()));
        self.fatal(undone)
    }

    /// Takes a batch into the producer state; an abort goes to the transaction index of the active segment.
    pub(crate) fn note_producer(
        &mut self,
        header: &BatchHeader,
        batch: impl FnOnce() -> Result<Bytes, LogError>,
    ) -> Result<(), LogError> {
        if !header.is_control() {
            self.producers.append(header);
            return Ok(());
        }
        if !header.is_transactional() {
            return Ok(());
        }
        let bytes = batch()?;
        let damaged = |reason: String| LogError::corrupt(&self.directory, 0, reason);
        let batch = ottla_wire::records::Batch::parse(&bytes).map_err(|error| damaged(error.to_string()))?;
        let records = batch.records().map_err(|error| damaged(error.to_string()))?;
        for record in records {
            let record = record.map_err(|error| damaged(error.to_string()))?;
            if let Ok(ControlRecord::EndTransaction { end, coordinator_epoch }) =
                ControlRecord::parse(&record)
            {
                let commit = end == EndTransaction::Commit;
                let aborted = self.producers.end_transaction(header, commit, coordinator_epoch);
                if let (Some(aborted), Some(active)) = (aborted, self.segments.last_mut()) {
                    active.transactions.push(aborted)?;
                }
            }
        }
        Ok(())
    }

    // --- segments ---

    /// Begins a new segment at the log's end.
    pub fn roll(&mut self) -> Result<(), LogError> {
        self.roll_at(self.end_offset)
    }

    fn roll_at(&mut self, offset: i64) -> Result<(), LogError> {
        if self.segments.last().is_some_and(|active| active.size() == 0 && active.base_offset() == offset) {
            return Ok(());
        }
        if self.recovery_point < offset && offset <= self.recovery_point_told {
            // The directory's checkpoint may still have the recovery point from before the log was cut. Recovery begins at the
            // segment of that: all before it must be on disk.
            self.flush()?;
        }
        self.take_snapshot()?;
        let begun = Segment::create(&self.directory, offset).and_then(|new| {
            self.segments.last_mut().map_or(Ok(()), Segment::deactivate)?;
            Ok(new)
        });
        match begun {
            Ok(new) => self.segments.push(new),
            Err(error) => {
                // Appends go on in the old segment if there is room again: an empty file in the middle of its offsets would
                // make recovery cut what comes behind.
                let undone = Segment::remove_files(&self.directory, offset)
                    .and_then(|()| self.segments.last_mut().map_or(Ok(()), Segment::activate));
                self.fatal(undone)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets go of the file handle and the index entries of a log that nobody writes to, as those of closed segments always are.
    /// The next append takes them again; reads work, a little slower. Worth it after some seconds without an append.
    pub fn rest(&mut self) -> Result<(), LogError> {
        self.unsynced_snapshots.shrink_to_fit();
        self.segments.shrink_to_fit();
        self.epochs.rest();
        self.producers.rest();
        match self.segments.last_mut().map_or(Ok(()), Segment::rest) {
            // On a full disk the entries stay in memory until there is room.
            Err(error) if error.is_no_space() => Ok(()),
            rested => rested,
        }
    }

    /// Writes the producer state at the log's end; older snapshots go, but for the last ones.
    fn take_snapshot(&mut self) -> Result<(), LogError> {
        let offsets = snapshot::list(&self.directory)?;
        // Without producers too: with no snapshot at all, the next start would walk the whole log to learn that.
        if self.end_offset > self.log_start_offset || !offsets.is_empty() {
            let path = snapshot::path(&self.directory, self.end_offset);
            snapshot::write(&path, &self.producers)?;
            self.unsynced_snapshots.push(path);
            self.last_snapshot = self.end_offset;
            // Recovery begins at a segment and makes its transaction index anew: the snapshot before it must stay.
            let floor =
                self.segments.get(self.segment_of(self.recovery_point)).map_or(0, Segment::base_offset);
            let needed = offsets.iter().rposition(|offset| *offset <= floor).unwrap_or(0);
            let old = offsets.len().saturating_sub(SNAPSHOTS_KEPT - 1).min(needed);
            for offset in offsets.iter().take(old).filter(|offset| **offset != self.end_offset) {
                fs::remove(&snapshot::path(&self.directory, *offset))?;
            }
        }
        Ok(())
    }

    // --- the end ---

    /// Syncs and closes everything, so that the next start reads no segment. Nothing is touched of a log that nobody has written
    /// to since it was opened after such a stop.
    pub fn close(mut self) -> Result<(), LogError> {
        if self.last_snapshot != self.end_offset {
            self.take_snapshot()?;
        }
        self.flush()?;
        self.segments.last_mut().map_or(Ok(()), Segment::sync_indexes)
    }

    /// Renames the directory, so that nothing finds it (`topic-partition.<uuid>-delete`); gives the name for the removal later.
    pub fn rename_for_deletion(self) -> Result<PathBuf, LogError> {
        let name = self.directory.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        let (topic, partition) = name.rsplit_once('-').unwrap_or((name, "0"));
        let to = self.directory.with_file_name(directory::name_with_id(topic, partition, "-delete"));
        fs::rename(&self.directory, &to)?;
        if let Some(parent) = to.parent() {
            fs::sync_directory(parent)?;
        }
        Ok(to)
    }
}

/// A share of the jitter that differs from log to log and stays the same for one.
fn jitter(directory: &Path, jitter_ms_max: i64) -> i64 {
    let name = directory.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
    let hash = name.iter().fold(17u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    if jitter_ms_max <= 0 { 0 } else { i64::from(hash) % jitter_ms_max }
}
