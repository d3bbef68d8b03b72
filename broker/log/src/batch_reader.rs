//! Reads a data file batch by batch, checks every one, and holds little: what recovery and compaction walk with.
//!
//! A length field is not trusted before its checksum: a batch that is longer than the buffer is first checked piece by
//! piece, and only then read whole, if somebody wants its bytes. So damage never costs more memory than one real batch.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};
use ottla_wire::records::{BATCH_OVERHEAD_BYTES, BatchHeader, HEADER_BYTES, verify_crc};

use crate::error::LogError;

/// Read at a time. A batch that is longer is read by itself.
pub(crate) const READ_BYTES: usize = 1 << 20;

/// Where the checksummed part of a batch begins.
const CHECKED_FROM: u64 = 21;

/// A walk over a range of a data file.
#[derive(Debug)]
pub(crate) struct BatchReader<'a> {
    file: &'a File,
    path: &'a Path,
    /// Where the buffer begins in the file.
    buffer_at: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were read.
    filled: usize,
    /// The batch that was given last.
    batch_at: u64,
    batch_bytes: u64,
    end: u64,
}

impl<'a> BatchReader<'a> {
    /// From the batch that begins at a position on, up to another position.
    pub(crate) fn new(file: &'a File, path: &'a Path, position: u64, end: u64) -> Self {
        Self {
            file,
            path,
            buffer_at: position,
            buffer: Vec::new(),
            filled: 0,
            batch_at: position,
            batch_bytes: 0,
            end,
        }
    }

    /// Where the batch that was given last begins.
    pub(crate) fn position(&self) -> u64 {
        self.batch_at
    }

    /// Its bytes. Empty if it is longer than the buffer: then [`Self::read_large`] reads it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // Of a long batch the buffer begins behind it.
        let from = self.batch_at.checked_sub(self.buffer_at).and_then(|from| usize::try_from(from).ok());
        let from = from.unwrap_or(usize::MAX);
        let length = usize::try_from(self.batch_bytes).unwrap_or(usize::MAX);
        self.buffer[..self.filled].get(from..from.saturating_add(length)).unwrap_or_default()
    }

    /// Its bytes, however long it is.
    pub(crate) fn read_large(&self) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; usize::try_from(self.batch_bytes).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, self.batch_at).map_err(LogError::io("cannot read", self.path))?;
        Ok(bytes)
    }

    /// The next batch, its checksum verified; none at the end. What is no whole batch is [`LogError::Corrupt`], and the walk
    /// must not go on.
    pub(crate) fn advance(&mut self) -> Result<Option<BatchHeader>, LogError> {
        let at = self.batch_at + self.batch_bytes;
        if at >= self.end {
            return Ok(None);
        }
        if self.end - at < HEADER_BYTES as u64 {
            return Err(LogError::corrupt(self.path, at, "the file ends inside a batch"));
        }
        if !self.has(at, HEADER_BYTES as u64) {
            self.fill(at)?;
        }
        self.batch_at = at;
        self.batch_bytes = HEADER_BYTES as u64;
        let damaged = |reason: String| LogError::corrupt(self.path, at, reason);
        let header = BatchHeader::parse(self.bytes()).map_err(|error| damaged(error.to_string()))?;
        let length = header.total_length() as u64;
        if length > self.end - at {
            return Err(damaged("the file ends inside a batch".to_owned()));
        }
        if header.last_offset_delta < 0 || header.base_offset < 0 {
            return Err(damaged("a batch ends before it begins".to_owned()));
        }
        if length > READ_BYTES as u64 {
            self.batch_bytes = length;
            self.check_large(&header)?;
            return Ok(Some(header));
        }
        if !self.has(at, length) {
            self.fill(at)?;
        }
        self.batch_bytes = length;
        verify_crc(self.bytes()).map_err(|error| LogError::corrupt(self.path, at, error.to_string()))?;
        Ok(Some(header))
    }

    /// The batch that was given last is damaged inside.
    pub(crate) fn corrupt(&self, reason: String) -> LogError {
        LogError::corrupt(self.path, self.batch_at, reason)
    }

    fn has(&self, at: u64, length: u64) -> bool {
        at >= self.buffer_at && at + length <= self.buffer_at + self.filled as u64
    }

    fn fill(&mut self, at: u64) -> Result<(), LogError> {
        let length = usize::try_from((self.end - at).min(READ_BYTES as u64)).unwrap_or(READ_BYTES);
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        self.filled = 0;
        self.file
            .read_exact_at(&mut self.buffer[..length], at)
            .map_err(LogError::io("cannot read", self.path))?;
        self.buffer_at = at;
        self.filled = length;
        Ok(())
    }

    /// Verifies the checksum of a batch that is longer than the buffer, and leaves the buffer behind it.
    fn check_large(&mut self, header: &BatchHeader) -> Result<(), LogError> {
        let end = self.batch_at + self.batch_bytes;
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut at = self.batch_at + CHECKED_FROM;
        self.filled = 0;
        self.buffer.resize(READ_BYTES, 0);
        while at < end {
            let length = usize::try_from((end - at).min(READ_BYTES as u64)).unwrap_or(READ_BYTES);
            let piece = &mut self.buffer[..length];
            self.file.read_exact_at(piece, at).map_err(LogError::io("cannot read", self.path))?;
            digest.update(piece);
            at += length as u64;
        }
        self.buffer_at = end;
        if digest.finalize() == u64::from(header.crc) {
            return Ok(());
        }
        let reason = format!("the checksum of a batch of {} bytes is wrong", self.batch_bytes);
        Err(LogError::corrupt(self.path, end - self.batch_bytes, reason))
    }
}

const _: () = assert!(READ_BYTES > HEADER_BYTES + BATCH_OVERHEAD_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_wire::records::{BatchBuilder, BatchOptions};

    fn batch(offset: i64, bytes: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions { base_offset: offset, ..Default::default() });
        builder.add(5, None, Some(&vec![7; bytes]), &[]).unwrap();
        builder.finish().unwrap().to_vec()
    }

    #[test]
    fn batches_of_every_size_are_read_and_damage_ends_the_walk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let sizes =
            [10, READ_BYTES - 100, 5, READ_BYTES, 3 * READ_BYTES + 1, 20, READ_BYTES / 2, READ_BYTES / 2, 1];
        let mut all = Vec::new();
        let mut starts = Vec::new();
        for (offset, size) in sizes.iter().enumerate() {
            starts.push(all.len() as u64);
            all.extend(batch(offset as i64, *size));
        }
        std::fs::write(&path, &all).unwrap();
        let file = File::open(&path).unwrap();
        let mut reader = BatchReader::new(&file, &path, 0, all.len() as u64);
        for start in &starts {
            let header = reader.advance().unwrap().unwrap();
            assert_eq!(reader.position(), *start);
            let expected = &all[usize::try_from(*start).unwrap()..][..header.total_length()];
            let bytes = reader.bytes();
            assert!(bytes == expected || bytes.is_empty() && reader.read_large().unwrap() == expected);
        }
        assert!(reader.advance().unwrap().is_none());
        // In the middle of the largest.
        let at = usize::try_from(starts[4]).unwrap() + READ_BYTES;
        all[at] ^= 1;
        std::fs::write(&path, &all).unwrap();
        let mut reader = BatchReader::new(&file, &path, 0, all.len() as u64);
        for _ in 0..4 {
            reader.advance().unwrap();
        }
        assert!(matches!(reader.advance(), Err(LogError::Corrupt { position, .. }) if position == starts[4]));
    }
}
