//! A new segment takes the place of old ones, so that a crash at any moment leaves the old or the new.
//!
//! | step | then the directory is synced; a crash behind it |
//! |---|---|
//! | the new files are written and synced as `.cleaned` | they are removed: the old stays |
//! | the new indexes become `.swap`, then the data file `.log.swap` | finishes the swap: the new |
//! | the old data file of the same name becomes `.deleted` | the same |
//! | the other old files become `.deleted`, the new indexes get their names | the same |
//! | `.log.swap` becomes `.log` | the new is there |
//!
//! Which old segments a `.log.swap` replaces is told by it: those from its base offset up to its last batch, which is
//! therefore always kept.

use std::path::{Path, PathBuf};

use super::CompactionError;
use super::rewrite::CleanedGroup;
use crate::batch_reader::BatchReader;
use crate::error::LogError;
use crate::fs;
use crate::log::Log;
use crate::segment::{DELETED, SWAP, Segment, file_name};

/// The files of a segment besides its data.
const INDEXES: [&str; 3] = ["index", "timeindex", "txnindex"];

impl Log {
    /// Puts a new segment into the place of those that it was made of. Gives the old files, renamed to `.deleted`, for the
    /// removal after `file.delete.delay.ms`.
    pub fn swap_cleaned(&mut self, mut cleaned: CleanedGroup) -> Result<Vec<PathBuf>, CompactionError> {
        self.check_usable()?;
        let from = self.segments.iter().position(|segment| {
            cleaned.sources.first().is_some_and(|source| source.base_offset == segment.base_offset())
        });
        let (Some(from), true) = (from, cleaned.generation == self.generation) else {
            return Err(CompactionError::Superseded);
        };
        let to = from + cleaned.sources.len();
        let is_same = self.segments.get(from..to).is_some_and(|segments| {
            to < self.segments.len()
                && segments.iter().zip(&cleaned.sources).all(|(segment, source)| {
                    segment.base_offset() == source.base_offset && segment.size() == source.size
                })
        });
        let Some(segment) = cleaned.segment.take_if(|_| is_same) else {
            return Err(CompactionError::Superseded);
        };
        let base = segment.base_offset();
        let commit = || -> Result<(), LogError> {
            for extension in INDEXES {
                let name = file_name(&self.directory, base, extension);
                fs::rename(&fs::with_suffix(&name, crate::segment::CLEANED), &fs::with_suffix(&name, SWAP))?;
            }
            fs::sync_directory(&self.directory)?;
            let name = file_name(&self.directory, base, "log");
            fs::rename(&fs::with_suffix(&name, crate::segment::CLEANED), &fs::with_suffix(&name, SWAP))?;
            fs::sync_directory(&self.directory)
        };
        let committed = commit();
        self.fatal(committed)?;
        // From here on an error leaves files of both: only opening the log anew puts that right. It is a storage fault.
        let others: Vec<i64> = cleaned.sources[1..].iter().map(|source| source.base_offset).collect();
        let removed = finish(&self.directory, base, &others)
            .and_then(|removed| Ok((removed, Segment::open(&self.directory, base)?)))
            .map_err(|error| LogError::corrupt(&self.directory, 0, format!("a swap was cut short: {error}")));
        let (removed, new) = self.fatal(removed)?;
        self.segments.splice(from..to, [new]);
        Ok(removed)
    }
}

/// The steps behind `.log.swap`. All of them may be done twice.
fn finish(directory: &Path, base: i64, others: &[i64]) -> Result<Vec<PathBuf>, LogError> {
    let mut removed = Vec::new();
    let mut retire = |path: PathBuf| -> Result<(), LogError> {
        if path.exists() {
            let to = fs::with_suffix(&path, DELETED);
            fs::rename(&path, &to)?;
            removed.push(to);
        }
        Ok(())
    };
    let data = file_name(directory, base, "log");
    retire(data.clone())?;
    fs::sync_directory(directory)?;
    for other in others {
        retire(file_name(directory, *other, "log"))?;
        for extension in INDEXES {
            retire(file_name(directory, *other, extension))?;
        }
    }
    for extension in INDEXES {
        let name = file_name(directory, base, extension);
        fs::rename_existing(&fs::with_suffix(&name, SWAP), &name)?;
    }
    fs::sync_directory(directory)?;
    fs::rename_existing(&fs::with_suffix(&data, SWAP), &data)?;
    fs::sync_directory(directory)?;
    Ok(removed)
}

/// Finishes the swaps that a crash has cut, before a log is opened. `swaps` are the base offsets of `.log.swap` files, `data`
/// those of `.log` files.
pub(crate) fn finish_swaps(directory: &Path, swaps: &[i64], data: &[i64]) -> Result<(), LogError> {
    for base in swaps {
        let path = fs::with_suffix(&file_name(directory, *base, "log"), SWAP);
        match end_of(&path, *base) {
            Ok(end) => {
                let others: Vec<i64> =
                    data.iter().copied().filter(|other| other > base && *other < end).collect();
                finish(directory, *base, &others)?;
            }
            // As long as the old file of the same name is there, nothing old has gone.
            Err(error @ LogError::Corrupt { .. }) if data.contains(base) => {
                tracing::warn!(%error, "what compaction wrote is damaged; the old segments stay");
                for extension in INDEXES {
                    fs::remove(&fs::with_suffix(&file_name(directory, *base, extension), SWAP))?;
                }
                fs::remove(&path)?;
                fs::sync_directory(directory)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where a whole, right segment ends.
fn end_of(path: &Path, base: i64) -> Result<i64, LogError> {
    let file = fs::open_existing(path)?;
    let size = file.metadata().map_err(LogError::io("cannot read", path))?.len();
    let mut reader = BatchReader::new(&file, path, 0, size);
    let mut end = base;
    while let Some(header) = reader.advance()? {
        if header.base_offset < end || header.next_offset() - base > i64::from(i32::MAX) + 1 {
            return Err(reader.corrupt("offsets that are not of this segment".to_owned()));
        }
        end = header.next_offset();
    }
    if size == 0 { Err(LogError::corrupt(path, 0, "a segment without a batch")) } else { Ok(end) }
}
