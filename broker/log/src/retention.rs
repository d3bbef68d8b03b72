//! Which segments go: whole ones below the high watermark, the oldest first, never the one that is written to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::LogError;
use crate::fs;
use crate::log::Log;
use crate::segment::Segment;

impl Log {
    /// Takes out the segments that time, size or the log's start have passed; their files are renamed, for removal after
    /// `file.delete.delay.ms`.
    pub fn delete_old_segments(
        &mut self,
        now_ms: i64,
        high_watermark: i64,
    ) -> Result<Vec<PathBuf>, LogError> {
        self.producers.expire(now_ms.saturating_sub(self.config.producer_id_expiration_ms));
        if self.config.deletes && self.is_active_expired(now_ms) && self.end_offset <= high_watermark {
            // All of it is old: the active segment can only go when another one is written to.
            self.roll()?;
        }
        let mut renamed = Vec::new();
        while self.segments.len() > 1 {
            let next = self.segments[1].base_offset();
            let passed = next <= self.log_start_offset
                || self.config.deletes && (self.is_expired(&self.segments[0], now_ms) || self.is_surplus());
            if next > high_watermark || !passed {
                break;
            }
            let segment = self.segments.remove(0);
            tracing::info!(
                directory = %self.directory.display(),
                base_offset = segment.base_offset(),
                bytes = segment.size(),
                "segment deleted by retention"
            );
            self.log_start_offset = self.log_start_offset.max(next);
            renamed.extend(segment.rename_for_deletion()?);
        }
        if !renamed.is_empty() {
            self.generation += 1;
            self.epochs.truncate_from_start(self.log_start_offset)?;
        }
        Ok(renamed)
    }

    fn is_active_expired(&self, now_ms: i64) -> bool {
        self.segments.last().is_some_and(|active| active.size() > 0 && self.is_expired(active, now_ms))
    }

    /// By the youngest record. A time stamp in the future would hold a segment for ever: it counts as the time at which
    /// the file was last written.
    fn is_expired(&self, segment: &Segment, now_ms: i64) -> bool {
        if self.config.retention_ms < 0 || segment.size() == 0 {
            return false;
        }
        let written_ms = || {
            let modified = std::fs::metadata(segment.path()).and_then(|metadata| metadata.modified()).ok()?;
            i64::try_from(modified.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
        };
        let youngest = match segment.max_timestamp {
            timestamp if timestamp < 0 || timestamp > now_ms => written_ms().unwrap_or(now_ms),
            timestamp => timestamp,
        };
        now_ms - youngest > self.config.retention_ms
    }

    /// Whether the log is larger than allowed even without its first segment.
    fn is_surplus(&self) -> bool {
        let Ok(limit) = u64::try_from(self.config.retention_bytes) else { return false };
        self.size_bytes() - self.segments.first().map_or(0, Segment::size) >= limit
    }

    /// Moves the log's start; what is before it is not served any more.
    pub fn increment_log_start_offset(&mut self, offset: i64) -> Result<(), LogError> {
        if offset > self.log_start_offset {
            self.generation += 1;
            self.log_start_offset = offset.min(self.end_offset);
            self.epochs.truncate_from_start(self.log_start_offset)?;
        }
        Ok(())
    }
}

/// Files that were renamed to `.deleted` and wait for `file.delete.delay.ms`: readers may be about to open them. A crash loses
/// nothing, for opening a log removes them.
#[derive(Debug, Default)]
pub struct PendingRemovals {
    by_time: BTreeMap<i64, Vec<PathBuf>>,
}

impl PendingRemovals {
    /// Adds files that may go after a delay.
    pub fn add(&mut self, paths: Vec<PathBuf>, now_ms: i64, delay_ms: i64) {
        if !paths.is_empty() {
            self.by_time.entry(now_ms.saturating_add(delay_ms.max(0))).or_default().extend(paths);
        }
    }

    /// Takes out those whose time has come; [`remove_files`] removes them, without any lock.
    pub fn take_due(&mut self, now_ms: i64) -> Vec<PathBuf> {
        let later = self.by_time.split_off(&now_ms.saturating_add(1));
        std::mem::replace(&mut self.by_time, later).into_values().flatten().collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_time.values().map(Vec::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }
}

/// Removes files; those that are gone already (their whole log was deleted) are no error. Goes on behind an error, and gives
/// the first one.
pub fn remove_files(paths: &[PathBuf]) -> Result<(), LogError> {
    let mut result = Ok(());
    for path in paths {
        result = result.and(fs::remove(path));
    }
    result
}
