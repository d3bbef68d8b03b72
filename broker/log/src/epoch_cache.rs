//! Where each leader epoch began: `leader-epoch-checkpoint`. Truncation and fetching go by it (KIP-101, KIP-279).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{read_lines, write_lines};
use crate::error::LogError;

const FILE: &str = "leader-epoch-checkpoint";
/// The file has something else than the first of the entries.
const OTHER: usize = usize::MAX;

/// Epochs and their first offsets, both rising.
#[derive(Debug)]
pub struct EpochCache {
    /// Of the log.
    directory: Arc<Path>,
    entries: Vec<(i32, i64)>,
    /// How many of them are in the file. Those behind are epochs without a record: opening the log drops such in any case.
    in_file: usize,
    /// The file was replaced and not synced since.
    is_dirty: bool,
}

impl EpochCache {
    /// Reads the file of a log's directory. Damage and absence are the same: the entries are made anew from the log.
    pub(crate) fn open(directory: &Arc<Path>) -> (Self, bool) {
        let path = directory.join(FILE);
        let parse = |line: &String| {
            let (epoch, offset) = line.split_once(' ')?;
            Some((epoch.parse().ok()?, offset.trim().parse().ok()?))
        };
        let entries: Option<Vec<(i32, i64)>> = match read_lines(&path) {
            Ok(lines) if path.exists() => lines.iter().map(parse).collect(),
            _ => None,
        };
        let entries = entries
            .filter(|entries| entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        let was_there = entries.is_some();
        let entries = entries.unwrap_or_default();
        (
            Self { directory: Arc::clone(directory), in_file: entries.len(), entries, is_dirty: false },
            was_there,
        )
    }

    /// Notes that there is a record of an epoch from an offset on; an epoch that is known already begins where it did.
    pub(crate) fn assign(&mut self, epoch: i32, start: i64) -> Result<(), LogError> {
        if self.begin(epoch, start) || self.in_file != self.entries.len() { self.write() } else { Ok(()) }
    }

    /// Notes that an epoch begins at an offset, which is the log's end. The file hears of it with the first record: a broker that
    /// starts begins an epoch in each of its logs, and most see no record in it. True: the epoch is new.
    pub(crate) fn begin(&mut self, epoch: i32, start: i64) -> bool {
        if epoch < 0 || self.latest().is_some_and(|latest| latest >= epoch) {
            return false;
        }
        // An epoch in which nothing was written ends where it began: the next one takes its place in lookups.
        self.entries.retain(|(_, offset)| *offset <= start);
        if self.entries.len() < self.in_file {
            self.in_file = OTHER;
        }
        self.entries.push((epoch, start));
        true
    }

    /// The latest epoch.
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// The epoch of an offset.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.entries.iter().rev().find(|(_, start)| *start <= offset).map(|(epoch, _)| *epoch)
    }

    /// The largest epoch that is at most the one asked for, and where it ends: where the next one begins, or at the log's
    /// end.
    pub fn end_offset(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        let at = self.entries.iter().rposition(|(known, _)| *known <= epoch)?;
        let end = self.entries.get(at + 1).map_or(log_end, |(_, start)| *start);
        Some((self.entries[at].0, end))
    }

    /// Where the first known epoch above one begins.
    pub fn start_of_next(&self, epoch: i32) -> Option<i64> {
        self.entries.iter().find(|(known, _)| *known > epoch).map(|(_, start)| *start)
    }

    /// Forgets what began at or behind an offset.
    pub(crate) fn truncate_from_end(&mut self, offset: i64) -> Result<(), LogError> {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < offset);
        if self.entries.len() == before || self.entries.len() == self.in_file { Ok(()) } else { self.write() }
    }

    /// Forgets what ended before an offset; the epoch that contains it begins there now.
    pub(crate) fn truncate_from_start(&mut self, offset: i64) -> Result<(), LogError> {
        let Some(at) = self.entries.iter().rposition(|(_, start)| *start <= offset) else { return Ok(()) };
        if at == 0 && self.entries[0].1 == offset {
            return Ok(());
        }
        self.entries.drain(..at);
        self.entries[0].1 = offset;
        self.write()
    }

    pub(crate) fn clear(&mut self) -> Result<(), LogError> {
        self.entries.clear();
        self.write()
    }

    /// The log's directory has another name.
    pub(crate) fn move_to(&mut self, directory: &Arc<Path>) {
        self.directory = Arc::clone(directory);
    }

    /// Keeps no more memory than the entries take.
    pub(crate) fn rest(&mut self) {
        self.entries.shrink_to_fit();
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// How many epochs are known.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes back epochs that were assigned last.
    pub(crate) fn keep_first(&mut self, count: usize) {
        self.entries.truncate(count);
        if self.in_file > count {
            (self.in_file, self.is_dirty) = (OTHER, true);
        }
    }

    /// Makes the file durable: before the recovery point passes the batches that it could be made anew from.
    pub(crate) fn sync(&mut self) -> Result<(), LogError> {
        if self.is_dirty {
            let lines: Vec<String> =
                self.entries.iter().map(|(epoch, start)| format!("{epoch} {start}")).collect();
            write_lines(&self.path(), &lines, true)?;
            self.in_file = self.entries.len();
            self.is_dirty = false;
        }
        Ok(())
    }

    /// A cache: a crash may lose the last change, which opening the log makes again.
    fn write(&mut self) -> Result<(), LogError> {
        self.is_dirty = true;
        self.in_file = OTHER;
        let lines: Vec<String> =
            self.entries.iter().map(|(epoch, start)| format!("{epoch} {start}")).collect();
        write_lines(&self.path(), &lines, false)?;
        self.in_file = self.entries.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_end_where_the_next_begins() {
        let directory = tempfile::tempdir().unwrap();
        let path: Arc<Path> = Arc::from(directory.path());
        let (mut cache, was_there) = EpochCache::open(&path);
        assert!(!was_there);
        for (epoch, start) in [(1, 0), (3, 10), (3, 99), (5, 20)] {
            cache.assign(epoch, start).unwrap();
        }
        assert_eq!(cache.end_offset(0, 30), None);
        assert_eq!(cache.end_offset(2, 30), Some((1, 10)));
        assert_eq!(cache.end_offset(3, 30), Some((3, 20)));
        assert_eq!(cache.end_offset(9, 30), Some((5, 30)));
        assert_eq!(cache.epoch_for_offset(19), Some(3));
        let (again, was_there) = EpochCache::open(&path);
        assert!(was_there);
        assert_eq!(again.entries, cache.entries);
        cache.truncate_from_start(15).unwrap();
        assert_eq!(cache.entries, [(3, 15), (5, 20)]);
        cache.truncate_from_end(20).unwrap();
        assert_eq!(cache.entries, [(3, 15)]);
    }
}
