//! The Raft log, vote and progress on disk. The only module that names sled.
//!
//! sled 0.34 alone is not durable: its `flush` never calls fsync, and large pages go to files that are never synced. Hence:
//!
//! * `flush` is followed by `fdatasync` on sled's file, in one place ([`group_commit`]);
//! * values are cut into chunks of at most [`CHUNK_BYTES_MAX`], with segments of [`SEGMENT_BYTES`], so that no page is ever
//!   large enough for `blobs/`; opening a store with a blob is refused;
//! * deletions go in batches of at most [`DELETE_BATCH_KEYS`];
//! * after a kill the old process can hold the lock for a while: opening is retried for [`OPEN_RETRY`].
//!
//! | tree | key | value |
//! |---|---|---|
//! | `raft_log` | index (8), chunk (2), both big-endian | a chunk of the entry; chunk 0 starts with the entry's length (4) |
//! | `raft_meta` | `vote`, `committed`, `purged` | JSON |

mod group_commit;
mod log_storage;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::files;
use crate::metrics::SyncTimes;
use crate::types::{Entry, LogId, RaftId, Vote};
use group_commit::GroupCommit;

/// Size of sled's segments: a quarter of it is the size from which a page goes to a blob.
const SEGMENT_BYTES: usize = 4 << 20;
/// sled's page cache; the log that matters is short.
const CACHE_BYTES: u64 = 16 << 20;
/// Largest value that is stored.
const CHUNK_BYTES_MAX: usize = 16 << 10;
/// Most keys that one batch deletes.
const DELETE_BATCH_KEYS: usize = 256;
/// How long a lock that another process holds is waited for.
const OPEN_RETRY: Duration = Duration::from_secs(15);
const OPEN_RETRY_PAUSE: Duration = Duration::from_millis(50);

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the metadata store {0} is in use by another process; waited {OPEN_RETRY:?}")]
    Locked(String),
    /// A value landed where nothing syncs it.
    #[error(
        "the metadata store {0} holds blob files, which are not durable; restore the directory from another controller"
    )]
    Blobs(String),
    /// The disk.
    #[error("the metadata store {0}: {1}")]
    Io(String, io::Error),
}

/// The store of one controller. Clones share it.
#[derive(Clone)]
pub(crate) struct SledStore {
    log: sled::Tree,
    meta: sled::Tree,
    commit: Arc<GroupCommit>,
}

/// Vote and progress of a controller.
pub(crate) struct Position {
    /// Given last.
    pub(crate) vote: Option<Vote>,
    /// Known to be committed.
    pub(crate) committed: Option<LogId>,
    /// Given up for a snapshot.
    pub(crate) purged: Option<LogId>,
}

fn other(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

fn log_key(index: u64, chunk: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&index.to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

fn key_index(key: &[u8]) -> io::Result<u64> {
    let (index, _) =
        key.split_first_chunk::<8>().ok_or_else(|| io::Error::other("a short key in the Raft log"))?;
    Ok(u64::from_be_bytes(*index))
}

impl SledStore {
    /// Opens or creates the store in a directory. Blocks.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let name = || directory.display().to_string();
        let io_error = |error| StoreError::Io(name(), error);
        let started = Instant::now();
        let db = loop {
            let opened = sled::Config::new()
                .path(directory)
                .cache_capacity(CACHE_BYTES)
                .segment_size(SEGMENT_BYTES)
                .flush_every_ms(None)
                .open()
                .map_err(other);
            match opened {
                Ok(db) => break db,
                // sled wraps the lock's WouldBlock in a text of its own.
                Err(error) if is_locked(&error) => {
                    if started.elapsed() >= OPEN_RETRY {
                        return Err(StoreError::Locked(name()));
                    }
                    std::thread::sleep(OPEN_RETRY_PAUSE);
                }
                Err(error) => return Err(io_error(error)),
            }
        };
        if std::fs::read_dir(directory.join("blobs")).is_ok_and(|mut blobs| blobs.next().is_some()) {
            return Err(StoreError::Blobs(name()));
        }
        let log = db.open_tree("raft_log").map_err(|error| io_error(other(error)))?;
        let meta = db.open_tree("raft_meta").map_err(|error| io_error(other(error)))?;
        let file = File::open(directory.join("db")).map_err(io_error)?;
        let commit = GroupCommit::start(db, file).map_err(io_error)?;
        let store = Self { log, meta, commit: Arc::new(commit) };
        store.commit.sync_blocking().map_err(io_error)?;
        files::sync_directory(directory).map_err(io_error)?;
        // A crash in the middle of a purge leaves entries that the marker has already given up.
        if let Some(purged) = store.get::<LogId>(PURGED).map_err(io_error)? {
            store.delete(&log_key(0, 0), Some(&log_key(purged.index, u16::MAX))).map_err(io_error)?;
        }
        Ok(store)
    }

    /// How long syncs of the log take.
    pub(crate) fn sync_times(&self) -> SyncTimes {
        self.commit.times()
    }

    /// What this node was leading when it stopped, it does not go on leading in the same term.
    ///
    /// A leader sends entries while its own disk still writes them, and the followers' disks suffice to commit. Killed in
    /// between it comes back without them. openraft resumes as the leader of the term when the stored vote says so, and would
    /// then give other entries the same term and index: nobody could tell them apart, and what was committed would be lost.
    /// With its vote cast but not won it follows, and an election in the next term finds who has everything.
    pub(crate) fn give_up_leadership(&self, own: RaftId) -> io::Result<()> {
        match self.get::<Vote>(VOTE)? {
            Some(vote) if vote.committed && vote.leader_id.voted_for == own => {
                self.put(VOTE, &Vote::new(vote.leader_id.term, own))
            }
            _ => Ok(()),
        }
    }

    /// Whether a cluster was ever seen: a vote or an entry is there.
    pub(crate) fn is_used(&self) -> io::Result<bool> {
        let voted =
            self.meta.contains_key(VOTE).map_err(other)? || self.meta.contains_key(PURGED).map_err(other)?;
        Ok(voted || !self.log.is_empty())
    }

    /// Vote and progress.
    pub(crate) fn position(&self) -> io::Result<Position> {
        let committed = self.get::<Option<LogId>>(COMMITTED)?.flatten();
        Ok(Position { vote: self.get(VOTE)?, committed, purged: self.get(PURGED)? })
    }

    /// All entries.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        self.read(0, u64::MAX)
    }

    /// Ends the thread that syncs, after a last sync. Errors were reported to whoever waited.
    pub(crate) fn close(&self) {
        self.commit.stop();
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> io::Result<Option<T>> {
        let value = self.meta.get(key).map_err(other)?;
        Ok(value.map(|value| serde_json::from_slice(&value)).transpose()?)
    }

    fn put<T: Serialize>(&self, key: &str, value: &T) -> io::Result<()> {
        self.meta.insert(key, serde_json::to_vec(value)?).map_err(other)?;
        Ok(())
    }

    /// Writes entries, readable at once, durable after the next sync. A batch of sled is atomic: an entry is there with all
    /// of its chunks or not at all.
    fn write(&self, entries: impl IntoIterator<Item = Entry>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for entry in entries {
            let index = entry.log_id.index;
            let encoded = codec::encode_entry(&entry)?;
            let length = u32::try_from(encoded.len()).map_err(|_| io::Error::other("an entry over 4 GiB"))?;
            let mut framed = Vec::with_capacity(4 + encoded.len());
            framed.extend_from_slice(&length.to_be_bytes());
            framed.extend_from_slice(&encoded);
            for (chunk, part) in framed.chunks(CHUNK_BYTES_MAX).enumerate() {
                let chunk = u16::try_from(chunk).map_err(|_| io::Error::other("an entry over 1 GiB"))?;
                batch.insert(&log_key(index, chunk), part);
            }
        }
        self.log.apply_batch(batch).map_err(other)
    }

    /// Entries from one index up to, not including, another.
    fn read(&self, from: u64, until: u64) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut partial: Vec<u8> = Vec::new();
        let mut wanted = 0usize;
        for item in self.log.range(log_key(from, 0)..log_key(until, 0)) {
            let (key, value) = item.map_err(other)?;
            let mut part: &[u8] = &value;
            if key.ends_with(&[0, 0]) {
                let (length, rest) = value.split_first_chunk::<4>().ok_or_else(|| {
                    io::Error::other(format!("entry {} has no length", key_index(&key).unwrap_or(0)))
                })?;
                wanted = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
                partial.clear();
                part = rest;
            }
            partial.extend_from_slice(part);
            if partial.len() == wanted {
                entries.push(codec::decode_entry(Bytes::from(std::mem::take(&mut partial)))?);
            }
        }
        Ok(entries)
    }

    fn last_log_id(&self) -> io::Result<Option<LogId>> {
        let Some((key, _)) = self.log.last().map_err(other)? else { return Ok(None) };
        let index = key_index(&key)?;
        let entry = self.read(index, index + 1)?.pop();
        Ok(Some(entry.ok_or_else(|| io::Error::other(format!("entry {index} lacks a chunk")))?.log_id))
    }

    /// Deletes keys from one on, up to another (inclusive), in small batches.
    fn delete(&self, from: &[u8], to: Option<&[u8]>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        let mut count = 0;
        for key in self.log.range(from..).keys() {
            let key = key.map_err(other)?;
            if to.is_some_and(|to| &key[..] > to) {
                break;
            }
            batch.remove(key);
            count += 1;
            if count == DELETE_BATCH_KEYS {
                self.log.apply_batch(std::mem::take(&mut batch)).map_err(other)?;
                count = 0;
            }
        }
        self.log.apply_batch(batch).map_err(other)
    }

    /// Deletes the newest entries first: a crash in between leaves a prefix, never a hole.
    fn delete_backwards(&self, from: &[u8]) -> io::Result<()> {
        loop {
            let keys: Vec<_> = self
                .log
                .range(from..)
                .keys()
                .rev()
                .take(DELETE_BATCH_KEYS)
                .collect::<Result<_, _>>()
                .map_err(other)?;
            if keys.is_empty() {
                return Ok(());
            }
            let mut batch = sled::Batch::default();
            for key in keys {
                batch.remove(key);
            }
            self.log.apply_batch(batch).map_err(other)?;
        }
    }
}

fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}
