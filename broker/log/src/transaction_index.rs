//! `.txnindex`: the aborted transactions that end in a segment, so that read_committed consumers can pass over them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::LogError;
use crate::fs;
use crate::segment_file::SegmentFile;

/// Bytes of one entry: version, producer id, first offset, last offset, last stable offset.
const ENTRY_BYTES: usize = 2 + 4 * 8;

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Whose.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// Its marker.
    pub last_offset: i64,
    /// The last stable offset when the marker was written.
    pub last_stable_offset: i64,
}

/// The file of one segment; it is there only if something was aborted.
#[derive(Debug)]
pub struct TransactionIndex {
    file: SegmentFile,
    /// Written to since the last sync.
    is_dirty: bool,
}

impl TransactionIndex {
    pub(crate) fn new(file: SegmentFile) -> Self {
        Self { file, is_dirty: false }
    }

    /// Which file it is.
    pub(crate) fn file(&self) -> &SegmentFile {
        &self.file
    }

    pub(crate) fn push(&mut self, aborted: Aborted) -> Result<(), LogError> {
        let file = fs::open(&self.file)?;
        let end = file.metadata().map_err(LogError::io_at("cannot read", &self.file))?.len();
        let end = end - end % ENTRY_BYTES as u64;
        let mut bytes = Vec::with_capacity(ENTRY_BYTES);
        bytes.extend_from_slice(&0i16.to_be_bytes());
        for value in
            [aborted.producer_id, aborted.first_offset, aborted.last_offset, aborted.last_stable_offset]
        {
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        self.is_dirty = true;
        fs::write_at(&file, &self.file, &bytes, end)
    }

    /// Whether entries were added since the last call. They must be on disk before the recovery point passes the markers that
    /// they could be made anew from.
    pub(crate) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    /// Its directory has another name.
    pub(crate) fn move_to(&mut self, directory: &Arc<Path>) {
        self.file = self.file.in_directory(directory);
    }

    /// All entries, in order of their markers.
    pub fn read(&self) -> Result<Vec<Aborted>, LogError> {
        let bytes = match std::fs::read(self.path()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LogError::io_at("cannot read", &self.file)(error)),
        };
        let number = |entry: &[u8], at: usize| {
            entry.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_be_bytes)
        };
        Ok(bytes
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| Aborted {
                producer_id: number(entry, 2),
                first_offset: number(entry, 10),
                last_offset: number(entry, 18),
                last_stable_offset: number(entry, 26),
            })
            .collect())
    }

    /// Forgets transactions whose marker is at or behind an offset.
    pub(crate) fn truncate(&mut self, offset: i64) -> Result<(), LogError> {
        let keep = self.read()?.iter().take_while(|aborted| aborted.last_offset < offset).count();
        if keep == 0 {
            return fs::remove(&self.file);
        }
        let length = (keep * ENTRY_BYTES) as u64;
        fs::set_length(&fs::open(&self.file)?, &self.file, length)
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        self.file.path()
    }
}
