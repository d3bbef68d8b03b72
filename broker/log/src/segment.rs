//! One segment: a data file named by its first offset, and its indexes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_wire::records::{BatchHeader, HEADER_BYTES};
use parking_lot::Mutex;

use crate::config::LogConfig;
use crate::error::LogError;
use crate::fs;
use crate::held::HeldFile;
use crate::index::{Index, Position, Time};
use crate::segment_file::{Kind, SegmentFile};
use crate::transaction_index::TransactionIndex;

/// `index.interval.bytes` of indexes that are made anew, where the topic's setting does not matter.
const INDEX_INTERVAL_BYTES: usize = 4096;

/// A new segment that is being written by compaction; opening the log removes it.
pub(crate) const CLEANED: &str = ".cleaned";
/// A new segment that takes the place of old ones; opening the log finishes that.
pub(crate) const SWAP: &str = ".swap";
/// A file that is removed later; opening the log removes it at once.
pub(crate) const DELETED: &str = ".deleted";

/// A segment's files.
#[derive(Debug)]
pub struct Segment {
    base_offset: i64,
    data: SegmentFile,
    /// Of a segment that is not written to it is opened when needed; readers keep it as long as they need it.
    file: Mutex<Option<HeldFile>>,
    is_active: bool,
    /// Something was written to the indexes since they were synced.
    has_dirty_indexes: bool,
    size: u64,
    pub(crate) offsets: Index<Position>,
    pub(crate) times: Index<Time>,
    pub(crate) transactions: TransactionIndex,
    /// Greatest time stamp so far and the last offset of its batch; -1: not known, or none.
    pub(crate) max_timestamp: i64,
    pub(crate) max_timestamp_offset: i64,
    /// Time stamp of the first batch; `None`: empty, or not read yet.
    pub(crate) first_timestamp: Option<i64>,
    bytes_since_index: usize,
}

/// The name of a file of the segment that begins at an offset.
pub(crate) fn file_name(directory: &Path, base_offset: i64, extension: &str) -> PathBuf {
    directory.join(format!("{base_offset:020}.{extension}"))
}

impl Segment {
    fn new(directory: &Arc<Path>, base_offset: i64, is_cleaned: bool) -> Self {
        let named = |kind| SegmentFile::new(directory, base_offset, kind, is_cleaned);
        Self {
            base_offset,
            data: named(Kind::Data),
            file: Mutex::new(None),
            is_active: false,
            has_dirty_indexes: false,
            size: 0,
            offsets: Index::inactive(named(Kind::Offsets)),
            times: Index::inactive(named(Kind::Times)),
            transactions: TransactionIndex::new(named(Kind::Transactions)),
            max_timestamp: -1,
            max_timestamp_offset: -1,
            first_timestamp: None,
            bytes_since_index: 0,
        }
    }

    /// A new segment to write to.
    pub(crate) fn create(directory: &Arc<Path>, base_offset: i64) -> Result<Self, LogError> {
        let segment = Self::create_unsynced(directory, base_offset)?;
        fs::sync_directory(directory)?;
        Ok(segment)
    }

    /// The same; its names are not on disk before the directory is synced.
    pub(crate) fn create_unsynced(directory: &Arc<Path>, base_offset: i64) -> Result<Self, LogError> {
        let mut segment = Self::create_files(directory, base_offset, false)?;
        segment.is_active = true;
        Ok(segment)
    }

    /// A new segment for compaction to write, under names that nobody opens.
    pub(crate) fn create_cleaned(directory: &Arc<Path>, base_offset: i64) -> Result<Self, LogError> {
        let mut segment = Self::create_files(directory, base_offset, true)?;
        // Always there: to rename it to the old one's name is then one step, and a repeated swap does not lose it.
        let transactions = segment.transactions.file();
        fs::set_length(&fs::open(transactions)?, transactions, 0)?;
        segment.is_active = true;
        Ok(segment)
    }

    /// Compaction has written all: makes it durable under the names that it has.
    pub(crate) fn finish_cleaned(&mut self) -> Result<(), LogError> {
        self.push_time()?;
        fs::sync(&*self.file()?, &self.data)?;
        self.offsets.sync()?;
        self.times.sync()?;
        fs::sync_path(&self.transactions.path())
    }

    fn create_files(directory: &Arc<Path>, base_offset: i64, is_cleaned: bool) -> Result<Self, LogError> {
        let mut segment = Self::new(directory, base_offset, is_cleaned);
        let file = fs::open(&segment.data)?;
        fs::set_length(&file, &segment.data, 0)?;
        segment.offsets.reset()?;
        segment.times.reset()?;
        fs::remove(segment.transactions.file())?;
        segment.has_dirty_indexes = true;
        *segment.file.lock() = HeldFile::hold(&Arc::new(file));
        Ok(segment)
    }

    /// A segment that is there. Its size is the file's; nothing is read.
    pub(crate) fn open(directory: &Arc<Path>, base_offset: i64) -> Result<Self, LogError> {
        let mut segment = Self::new(directory, base_offset, false);
        segment.size =
            std::fs::metadata(segment.path()).map_err(LogError::io_at("cannot read", &segment.data))?.len();
        if let Some(last) = segment.times.last() {
            segment.max_timestamp = last.timestamp;
            segment.max_timestamp_offset = base_offset + i64::from(last.relative_offset);
        }
        Ok(segment)
    }

    /// Makes it the one that is written to.
    pub(crate) fn activate(&mut self) -> Result<(), LogError> {
        self.offsets.activate()?;
        self.times.activate()?;
        self.is_active = true;
        self.file().map(drop)
    }

    /// Lets go of the memory and the file of a segment that nobody has written to for a while; [`Self::activate`] takes them
    /// again.
    pub(crate) fn rest(&mut self) -> Result<(), LogError> {
        self.offsets.deactivate()?;
        self.times.deactivate()?;
        *self.file.lock() = None;
        Ok(())
    }

    /// Nothing is written to it any more: its time index gets its last entry, its file may close.
    pub(crate) fn deactivate(&mut self) -> Result<(), LogError> {
        self.push_time()?;
        self.offsets.deactivate()?;
        self.times.deactivate()?;
        self.is_active = false;
        *self.file.lock() = None;
        Ok(())
    }

    /// First offset.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Bytes of the data file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The data file's path.
    pub fn path(&self) -> PathBuf {
        self.data.path()
    }

    /// The data file, open.
    pub(crate) fn file(&self) -> Result<Arc<File>, LogError> {
        let mut place = self.file.lock();
        if let Some(held) = &*place {
            return Ok(held.file());
        }
        let file = Arc::new(fs::open(&self.data)?);
        if self.is_active {
            *place = HeldFile::hold(&file);
        }
        Ok(file)
    }

    /// Whether more bytes, up to an offset and of a time, still belong into this segment. Its age is that of its records: the
    /// time from the first one to the new one.
    pub(crate) fn has_room(
        &self,
        config: &LogConfig,
        bytes: usize,
        last_offset: i64,
        record_ms: i64,
        jitter_ms: i64,
    ) -> bool {
        let is_near = last_offset - self.base_offset <= i64::from(i32::MAX);
        if self.size == 0 {
            return is_near;
        }
        let fits = self.size + bytes as u64 <= config.segment_bytes as u64;
        let has_index_room = self.offsets.bytes() < config.segment_index_bytes
            && self.times.bytes() < config.segment_index_bytes;
        let is_young = self.first_timestamp.is_none_or(|first| {
            record_ms.saturating_sub(first) <= config.segment_age_ms_max().saturating_sub(jitter_ms)
        });
        fits && is_near && has_index_room && is_young
    }

    /// Writes bytes at the end; on failure the file is as it was, as far as the disk allows.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<u64, LogError> {
        let position = self.size;
        let file = self.file()?;
        if let Err(error) = fs::write_at(&file, &self.data, bytes, position) {
            // A part may have been written; left there, recovery would cut it, and so would the next append.
            let _ = fs::set_length(&file, &self.data, position);
            return Err(error);
        }
        self.size += bytes.len() as u64;
        Ok(position)
    }

    /// Indexes a batch that was written at a position.
    pub(crate) fn note(
        &mut self,
        header: &BatchHeader,
        position: u64,
        interval_bytes: usize,
    ) -> Result<(), LogError> {
        self.has_dirty_indexes = true;
        self.first_timestamp.get_or_insert(header.max_timestamp);
        // Compaction leaves batches without records: nobody finds anything there.
        if header.max_timestamp > self.max_timestamp && header.record_count > 0 {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.last_offset();
        }
        if self.bytes_since_index > interval_bytes {
            self.bytes_since_index = 0;
            let relative = header.last_offset() - self.base_offset;
            if let (Ok(relative_offset), Ok(position)) = (u32::try_from(relative), u32::try_from(position)) {
                self.offsets.push(Position { relative_offset, position })?;
            }
            self.push_time()?;
        }
        self.bytes_since_index += header.total_length();
        Ok(())
    }

    fn push_time(&mut self) -> Result<(), LogError> {
        let is_news = self.times.last().is_none_or(|last| last.timestamp < self.max_timestamp);
        if self.max_timestamp >= 0
            && is_news
            && let Ok(relative_offset) = u32::try_from(self.max_timestamp_offset - self.base_offset)
        {
            self.times.push(Time { timestamp: self.max_timestamp, relative_offset })?;
        }
        Ok(())
    }

    /// Time stamp of the first batch; none: there is no batch.
    pub(crate) fn first_time(&self) -> Result<Option<i64>, LogError> {
        if self.first_timestamp.is_some() || self.size == 0 {
            return Ok(self.first_timestamp);
        }
        Ok(self.header_at(&*self.file()?, 0)?.map(|header| header.max_timestamp))
    }

    /// Reads the header at a position; none: the file ends there.
    pub(crate) fn header_at(&self, file: &File, position: u64) -> Result<Option<BatchHeader>, LogError> {
        if position >= self.size {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, position).map_err(LogError::io_at("cannot read", &self.data))?;
        BatchHeader::parse(&bytes)
            .map(Some)
            .map_err(|error| LogError::corrupt(&self.path(), position, error.to_string()))
    }

    /// The first batch that ends at or behind an offset: its header and position.
    pub(crate) fn find(&self, offset: i64) -> Result<Option<(BatchHeader, u64)>, LogError> {
        let file = self.file()?;
        let relative = u32::try_from((offset - self.base_offset).max(0)).unwrap_or(u32::MAX);
        let mut position = self
            .offsets
            .find(|entry| entry.relative_offset <= relative)
            // Indexes of old segments are not checked when the log opens: one that is wrong costs a scan, no more.
            .filter(|entry| self.is_active || self.entry_fits(&file, *entry))
            .map_or(0, |entry| u64::from(entry.position));
        while let Some(header) = self.header_at(&file, position)? {
            if header.last_offset() >= offset {
                return Ok(Some((header, position)));
            }
            position += header.total_length() as u64;
        }
        Ok(None)
    }

    /// The offset behind the last batch.
    pub(crate) fn end_offset(&self) -> Result<i64, LogError> {
        let file = self.file()?;
        let near = self.offsets.last().filter(|entry| self.entry_fits(&file, *entry));
        let mut position = near.map_or(0, |entry| u64::from(entry.position));
        let mut end = self.base_offset;
        while let Some(header) = self.header_at(&file, position)? {
            end = header.next_offset();
            position += header.total_length() as u64;
        }
        Ok(end)
    }

    /// Where a cut of at most `bytes_max` from a position falls between two batches: the position behind the last whole
    /// batch and the offset of the one that begins there (`end_offset` at the segment's end).
    pub(crate) fn cut(&self, from: u64, bytes_max: u64, end_offset: i64) -> Result<(u64, i64), LogError> {
        if self.size - from <= bytes_max {
            return Ok((self.size, end_offset));
        }
        let file = self.file()?;
        let limit = from + bytes_max;
        let near = self
            .offsets
            .find(|entry| u64::from(entry.position) <= limit)
            .map_or(0, |entry| u64::from(entry.position));
        let mut position = near.max(from);
        while let Some(header) = self.header_at(&file, position)? {
            let end = position + header.total_length() as u64;
            if end > limit {
                return Ok((position, header.base_offset));
            }
            position = end;
        }
        Ok((position, end_offset))
    }

    /// Cuts the data file and the indexes; what is left ends before the offset.
    pub(crate) fn truncate(&mut self, position: u64, offset: i64) -> Result<(), LogError> {
        let file = self.file()?;
        fs::set_length(&file, &self.data, position)?;
        fs::sync(&file, &self.data)?;
        self.size = position;
        self.has_dirty_indexes = true;
        let base = self.base_offset;
        self.offsets.truncate(|entry| base + i64::from(entry.relative_offset) < offset)?;
        self.times.truncate(|entry| base + i64::from(entry.relative_offset) < offset)?;
        self.transactions.truncate(offset)?;
        let last = self.times.last();
        self.max_timestamp = last.map_or(-1, |last| last.timestamp);
        self.max_timestamp_offset = last.map_or(-1, |last| base + i64::from(last.relative_offset));
        self.first_timestamp = self.header_at(&file, 0)?.map(|header| header.max_timestamp);
        self.bytes_since_index = 0;
        // What came behind the last entry of the time index.
        let mut position = self.offsets.last().map_or(0, |last| u64::from(last.position));
        while let Some(header) = self.header_at(&file, position)? {
            if header.max_timestamp > self.max_timestamp && header.record_count > 0 {
                self.max_timestamp = header.max_timestamp;
                self.max_timestamp_offset = header.last_offset();
            }
            position += header.total_length() as u64;
        }
        Ok(())
    }

    /// Cuts nothing but empties the indexes, to make them anew.
    pub(crate) fn reset_indexes(&mut self) -> Result<(), LogError> {
        self.reset_offset_and_time_indexes()?;
        fs::remove(self.transactions.file())
    }

    /// As [`Self::reset_indexes`], but for the transaction index, which batches alone cannot restore.
    pub(crate) fn reset_offset_and_time_indexes(&mut self) -> Result<(), LogError> {
        self.has_dirty_indexes = true;
        self.offsets.reset()?;
        self.times.reset()?;
        self.max_timestamp = -1;
        self.max_timestamp_offset = -1;
        self.first_timestamp = None;
        self.bytes_since_index = 0;
        Ok(())
    }

    /// Fills empty indexes from the data file, up to the first byte that is no batch.
    pub(crate) fn index_again(&mut self) -> Result<(), LogError> {
        let file = self.file()?;
        let mut position = 0;
        while let Ok(Some(header)) = self.header_at(&file, position) {
            let end = position + header.total_length() as u64;
            if end > self.size {
                break;
            }
            self.note(&header, position, INDEX_INTERVAL_BYTES)?;
            position = end;
        }
        Ok(())
    }

    /// Whether the last entry of the offset index leads to the batch that it names.
    pub(crate) fn last_index_entry_fits(&self, file: &File) -> bool {
        let Some(entry) = self.offsets.last() else { return true };
        self.entry_fits(file, entry)
    }

    fn entry_fits(&self, file: &File, entry: Position) -> bool {
        let position = u64::from(entry.position);
        let offset = self.base_offset + i64::from(entry.relative_offset);
        matches!(self.header_at(file, position), Ok(Some(header))
            if header.base_offset >= self.base_offset
                && header.base_offset <= offset
                && position + header.total_length() as u64 <= self.size)
    }

    pub(crate) fn set_size(&mut self, size: u64) {
        self.size = size;
    }

    /// What is to be synced besides the data file before the recovery point passes this segment: recovery does not read it again
    /// then. The active segment's indexes are made anew from its data in any case.
    pub(crate) fn caches_to_sync(&mut self, paths: &mut Vec<PathBuf>) -> Result<(), LogError> {
        if self.transactions.take_dirty() {
            paths.push(self.transactions.path());
        }
        self.offsets.write_pending()?;
        self.times.write_pending()?;
        if !self.is_active {
            paths.extend([self.offsets.path(), self.times.path()]);
        }
        Ok(())
    }

    /// Its directory has another name.
    pub(crate) fn move_to(&mut self, directory: &Arc<Path>) {
        self.data = self.data.in_directory(directory);
        self.offsets.move_to(directory);
        self.times.move_to(directory);
        self.transactions.move_to(directory);
    }

    /// Syncs the indexes, which the next start believes: before a clean stop, the data being synced already.
    pub(crate) fn sync_indexes(&mut self) -> Result<(), LogError> {
        if self.has_dirty_indexes {
            self.push_time()?;
            self.offsets.sync()?;
            self.times.sync()?;
            self.has_dirty_indexes = false;
        }
        Ok(())
    }

    /// Renames all files to `.deleted`, which recovery removes; gives their names for the removal later.
    pub(crate) fn rename_for_deletion(self) -> Result<Vec<PathBuf>, LogError> {
        let mut renamed = Vec::new();
        for path in [self.path(), self.offsets.path(), self.times.path(), self.transactions.path()] {
            if path.exists() {
                let to = fs::with_suffix(&path, DELETED);
                fs::rename(&path, &to)?;
                renamed.push(to);
            }
        }
        Ok(renamed)
    }

    /// Removes the files of a segment that did not come to be.
    pub(crate) fn remove_files(directory: &Path, base_offset: i64) -> Result<(), LogError> {
        for extension in ["log", "index", "timeindex", "txnindex"] {
            fs::remove(&file_name(directory, base_offset, extension))?;
        }
        Ok(())
    }

    /// Removes all files at once.
    pub(crate) fn remove(self) -> Result<(), LogError> {
        for path in [self.path(), self.offsets.path(), self.times.path(), self.transactions.path()] {
            fs::remove(&path)?;
        }
        Ok(())
    }
}
