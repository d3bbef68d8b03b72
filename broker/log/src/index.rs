//! Offset and time index files: sorted entries of fixed size, relative to the segment's base offset.
//!
//! The active segment's entries are in memory and reach the file in bunches; those of other segments are searched on
//! disk. An index is a cache: without it a segment is read from its start.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::LogError;
use crate::fs;
use crate::segment_file::SegmentFile;

/// Entries that wait in memory before they are written.
const PENDING_ENTRIES_MAX: usize = 256;

/// An entry of a file.
pub trait Entry: Copy {
    /// Bytes of one.
    const BYTES: usize;
    /// From the file.
    fn read(bytes: &[u8]) -> Self;
    /// Into the file.
    fn write(self, out: &mut Vec<u8>);
    /// What entries are sorted by.
    fn key(self) -> i64;
}

/// Of an `.index` file: the batch that ends at or behind an offset begins at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Offset, less the segment's base.
    pub relative_offset: u32,
    /// Byte in the data file.
    pub position: u32,
}

/// Of a `.timeindex` file: up to an offset no record is younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Offset, less the segment's base.
    pub relative_offset: u32,
}

impl Entry for Position {
    const BYTES: usize = 8;

    fn read(bytes: &[u8]) -> Self {
        let word =
            |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
        Self { relative_offset: word(0), position: word(4) }
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn key(self) -> i64 {
        i64::from(self.relative_offset)
    }
}

impl Entry for Time {
    const BYTES: usize = 12;

    fn read(bytes: &[u8]) -> Self {
        let timestamp = bytes.get(..8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_be_bytes);
        let relative_offset = bytes.get(8..12).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
        Self { timestamp, relative_offset }
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn key(self) -> i64 {
        self.timestamp
    }
}

/// One index file.
#[derive(Debug)]
pub struct Index<E> {
    file: SegmentFile,
    /// Of the active segment: all entries. Of others: none, they are read when needed.
    entries: Option<Box<Entries<E>>>,
}

#[derive(Debug)]
struct Entries<E> {
    all: Vec<E>,
    /// How many of them are in the file.
    written: usize,
}

impl<E: Entry> Index<E> {
    /// The index of a segment that is not written to.
    pub(crate) fn inactive(file: SegmentFile) -> Self {
        Self { file, entries: None }
    }

    /// A new, empty index of the active segment.
    pub(crate) fn active(file: SegmentFile) -> Result<Self, LogError> {
        fs::remove(&file)?;
        fs::open(&file)?;
        Ok(Self { file, entries: Some(Box::new(Entries { all: Vec::new(), written: 0 })) })
    }

    /// Removes all entries, in memory and of the file; it is active then.
    pub(crate) fn reset(&mut self) -> Result<(), LogError> {
        *self = Self::active(self.file.clone())?;
        Ok(())
    }

    /// Takes an index into memory, to be written to. Entries that are out of order, or zeros at the end (space that was
    /// reserved), are left out.
    pub(crate) fn activate(&mut self) -> Result<(), LogError> {
        if self.entries.is_some() {
            return Ok(());
        }
        let bytes = match std::fs::read(self.path()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(LogError::io_at("cannot read", &self.file)(error)),
        };
        let mut entries: Vec<E> = Vec::new();
        for entry in bytes.chunks_exact(E::BYTES).map(E::read) {
            if entries.last().is_some_and(|last| last.key() >= entry.key()) {
                break;
            }
            entries.push(entry);
        }
        self.truncate_file(entries.len())?;
        self.entries = Some(Box::new(Entries { written: entries.len(), all: entries }));
        Ok(())
    }

    /// Writes what waits, and lets go of the memory.
    pub(crate) fn deactivate(&mut self) -> Result<(), LogError> {
        self.write_pending()?;
        self.entries = None;
        Ok(())
    }

    /// Adds an entry behind all others.
    pub(crate) fn push(&mut self, entry: E) -> Result<(), LogError> {
        if let Some(entries) = &mut self.entries {
            entries.all.push(entry);
            if entries.all.len() - entries.written >= PENDING_ENTRIES_MAX {
                self.write_pending()?;
            }
        }
        Ok(())
    }

    /// Brings the file up to date.
    pub(crate) fn write_pending(&mut self) -> Result<(), LogError> {
        let Some(entries) = &mut self.entries else { return Ok(()) };
        if entries.all.len() == entries.written {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity((entries.all.len() - entries.written) * E::BYTES);
        for entry in &entries.all[entries.written..] {
            entry.write(&mut bytes);
        }
        let file = fs::open(&self.file)?;
        let at = (entries.written * E::BYTES) as u64;
        fs::write_at(&file, &self.file, &bytes, at)?;
        entries.written = entries.all.len();
        Ok(())
    }

    /// Syncs the file.
    pub(crate) fn sync(&mut self) -> Result<(), LogError> {
        self.write_pending()?;
        fs::sync_path(&self.path())
    }

    /// How many bytes the entries take.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.as_ref().map_or(0, |entries| entries.all.len() * E::BYTES)
    }

    /// Keeps only the first entries for which `keep` holds.
    pub(crate) fn truncate(&mut self, keep: impl Fn(&E) -> bool) -> Result<(), LogError> {
        self.activate()?;
        let Some(entries) = &mut self.entries else { return Ok(()) };
        let count = entries.all.iter().take_while(|entry| keep(entry)).count();
        entries.all.truncate(count);
        if entries.written > count {
            entries.written = count;
            self.truncate_file(count)?;
        }
        Ok(())
    }

    fn truncate_file(&self, count: usize) -> Result<(), LogError> {
        let length = (count * E::BYTES) as u64;
        match std::fs::metadata(self.path()) {
            Ok(metadata) if metadata.len() > length => {
                fs::set_length(&fs::open(&self.file)?, &self.file, length)
            }
            _ => Ok(()),
        }
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<E> {
        self.find(|_| true)
    }

    /// The last entry for which `holds`; entries for which it holds come before all others.
    pub(crate) fn find(&self, holds: impl Fn(&E) -> bool) -> Option<E> {
        if let Some(entries) = &self.entries {
            let count = entries.all.partition_point(holds);
            return count.checked_sub(1).and_then(|at| entries.all.get(at)).copied();
        }
        let file = File::open(self.path()).ok()?;
        let total = usize::try_from(file.metadata().ok()?.len()).ok()? / E::BYTES;
        let read = |at: usize| {
            let mut bytes = [0; 16];
            let bytes = &mut bytes[..E::BYTES];
            file.read_exact_at(bytes, (at * E::BYTES) as u64).ok()?;
            Some(E::read(bytes))
        };
        // Space that was reserved and never used is zeros: an entry behind a larger one is not an entry.
        let first = read(0)?;
        let is_entry = |at: usize, entry: &E| at == 0 || entry.key() > first.key();
        let (mut low, mut high) = (0, total);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = read(middle)?;
            if is_entry(middle, &entry) && holds(&entry) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1).and_then(read)
    }

    /// Its directory has another name.
    pub(crate) fn move_to(&mut self, directory: &Arc<Path>) {
        self.file = self.file.in_directory(directory);
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        self.file.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment_file::Kind;

    #[test]
    fn entries_are_found_in_memory_and_on_disk_alike() {
        let directory = tempfile::tempdir().unwrap();
        let file = SegmentFile::new(&Arc::from(directory.path()), 0, Kind::Offsets, false);
        let path = file.path();
        let mut index = Index::active(file).unwrap();
        for n in 1..600u32 {
            index.push(Position { relative_offset: n * 10, position: n * 100 }).unwrap();
        }
        let check = |index: &Index<Position>| {
            let at =
                |offset: u32| index.find(|entry| entry.relative_offset <= offset).map(|entry| entry.position);
            assert_eq!(at(9), None);
            assert_eq!(at(10), Some(100));
            assert_eq!(at(4321), Some(43_200));
            assert_eq!(at(u32::MAX), Some(59_900));
        };
        check(&index);
        index.deactivate().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 599 * 8);
        check(&index);
        fs::open(&path).unwrap().set_len(800 * 8).unwrap();
        check(&index);
        index.truncate(|entry| entry.relative_offset < 100).unwrap();
        assert_eq!(index.last().unwrap().position, 900);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 9 * 8);
    }
}
