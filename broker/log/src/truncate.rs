//! Cutting a log, and moving it to another directory.

use std::path::Path;
use std::sync::Arc;

use crate::error::LogError;
use crate::log::Log;
use crate::producer_state::ProducerState;
use crate::segment::Segment;
use crate::{fs, snapshot};

impl Log {
    /// Cuts the log back to an offset. The batch that holds the offset goes whole.
    pub fn truncate_to(&mut self, offset: i64) -> Result<(), LogError> {
        if offset >= self.end_offset {
            // There may be an epoch that began at the log's end and in which nothing was written: the leader does not know it.
            return self.epochs.truncate_from_end(self.end_offset);
        }
        if offset <= self.log_start_offset && offset <= self.segments.first().map_or(0, Segment::base_offset)
        {
            return self.truncate_fully_and_start_at(offset);
        }
        self.check_usable()?;
        let result = self.cut_to(offset);
        self.fatal(result)
    }

    fn cut_to(&mut self, offset: i64) -> Result<(), LogError> {
        self.note_cut(offset);
        let count = self.segments.len();
        // The last one first: what a crash leaves is a log without a hole.
        while self.segments.len() > 1 && self.segments.last().is_some_and(|last| last.base_offset() >= offset)
        {
            if let Some(last) = self.segments.pop() {
                last.remove()?;
            }
        }
        if self.segments.len() < count {
            fs::sync_directory(&self.directory)?;
        }
        if let Some(active) = self.segments.last_mut() {
            active.activate()?;
            // A follower gets the batch again.
            if let Some((header, position)) = active.find(offset)? {
                active.truncate(position, header.base_offset)?;
                self.end_offset = header.base_offset;
            } else {
                // Compaction took what was there. Segments end where the next one begins, or recovery sees a hole.
                self.end_offset = active.end_offset()?;
            }
        }
        self.first_dirty_max = self.first_dirty_max.min(self.end_offset);
        self.recovery_point = self.recovery_point.min(self.end_offset);
        self.high_watermark = self.high_watermark.min(self.end_offset);
        self.log_start_offset = self.log_start_offset.min(self.end_offset);
        self.epochs.truncate_from_end(self.end_offset)?;
        for offset in snapshot::list(&self.directory)?.into_iter().filter(|offset| *offset > self.end_offset)
        {
            fs::remove(&snapshot::path(&self.directory, offset))?;
        }
        self.rebuild_producers(self.end_offset)?;
        self.producers.set_high_watermark(self.high_watermark);
        Ok(())
    }

    /// A compaction that is under way must not bring back what is cut, nor the next one take what is appended then for old;
    /// and a flush that is under way has not synced that.
    fn note_cut(&mut self, offset: i64) {
        self.generation += 1;
        self.cuts += 1;
        self.first_dirty_max = self.first_dirty_max.min(offset);
    }

    /// Forgets everything; the log begins anew at an offset.
    pub fn truncate_fully_and_start_at(&mut self, offset: i64) -> Result<(), LogError> {
        self.check_usable()?;
        let result = self.begin_anew_at(offset);
        self.fatal(result)
    }

    fn begin_anew_at(&mut self, offset: i64) -> Result<(), LogError> {
        self.note_cut(offset.min(self.end_offset));
        while let Some(segment) = self.segments.pop() {
            segment.remove()?;
        }
        for snapshot_offset in snapshot::list(&self.directory)? {
            fs::remove(&snapshot::path(&self.directory, snapshot_offset))?;
        }
        self.segments.push(Segment::create(&self.directory, offset)?);
        self.epochs.clear()?;
        self.producers = ProducerState::default();
        self.last_snapshot = -1;
        self.log_start_offset = offset;
        self.end_offset = offset;
        self.recovery_point = offset;
        self.high_watermark = offset;
        Ok(())
    }

    /// Gives the log's directory another name, on the same file system, and syncs that: a copy that was made in a `-future`
    /// directory takes the partition's name. Slices that were read before stay readable.
    pub fn rename_directory(&mut self, to: &Path) -> Result<(), LogError> {
        self.check_usable()?;
        fs::rename(&self.directory, to)?;
        self.generation += 1;
        // What compaction has done there says nothing of the copy.
        self.first_dirty_max = self.log_start_offset;
        self.directory = Arc::from(to);
        self.epochs.move_to(&self.directory);
        for segment in &mut self.segments {
            segment.move_to(&self.directory);
        }
        for path in &mut self.unsynced_snapshots {
            if let Some(name) = path.file_name() {
                *path = to.join(name);
            }
        }
        // The jitter goes by the name.
        self.set_config(Arc::clone(&self.config));
        to.parent().map_or(Ok(()), fs::sync_directory)
    }
}
