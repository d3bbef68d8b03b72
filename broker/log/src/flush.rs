//! Syncing a log without holding up those who append to it, so that one sync serves all who wait (group commit).
//!
//! [`Log::begin_flush`], under the log's lock, collects what is to be synced; [`FlushTicket::sync`] does it without the lock;
//! [`Log::finish_flush`], under it again, moves the recovery point. What was appended in between is the next flush's.
//!
//! A sync that fails is final: the system may have dropped what it could not write, and a second try would succeed without
//! writing it. The log refuses everything from then on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::directory;
use crate::error::LogError;
use crate::fs;
use crate::log::Log;
use crate::segment::Segment;

/// What a flush has to sync, and up to where the log is on disk then.
#[derive(Debug)]
#[must_use = "nothing is synced until `sync`, and nobody knows until `finish_flush`"]
pub struct FlushTicket {
    target: i64,
    cuts: u64,
    data: Vec<(Arc<File>, PathBuf)>,
    /// Indexes of closed segments, snapshots: by name, for they are not open. One that is gone needs no sync.
    caches: Vec<PathBuf>,
    /// New names are to be made durable too.
    directory: Option<PathBuf>,
    /// Of a log that is new: the log directory, which holds its name.
    parent: Option<PathBuf>,
    is_synced: bool,
    failed: Arc<AtomicBool>,
}

impl FlushTicket {
    /// The offset up to which the log is on disk once this has succeeded.
    pub fn target(&self) -> i64 {
        self.target
    }

    /// Whether there is nothing to sync: no disk is asked.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() && self.caches.is_empty() && self.directory.is_none() && self.parent.is_none()
    }

    /// Syncs; to be called without the log's lock. On an error nothing of the log may be acknowledged any more.
    pub fn sync(&mut self) -> Result<(), LogError> {
        let sync = || {
            for (file, path) in &self.data {
                fs::sync(file, path)?;
            }
            for path in &self.caches {
                fs::sync_path(path)?;
            }
            self.directory.as_deref().map_or(Ok(()), fs::sync_directory)?;
            self.parent.as_deref().map_or(Ok(()), fs::sync_directory)
        };
        let result = sync();
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        self.is_synced = result.is_ok();
        result
    }
}

impl Log {
    /// Collects what is not on disk yet.
    pub fn begin_flush(&mut self) -> Result<FlushTicket, LogError> {
        self.check_usable()?;
        // Small and rare: a new epoch's entry must be there before the recovery point passes the batches that say it too.
        match self.epochs.sync() {
            Err(error) if error.is_no_space() => return Err(error),
            synced => self.fatal(synced)?,
        }
        let mut ticket = FlushTicket {
            target: self.end_offset,
            cuts: self.cuts,
            data: Vec::new(),
            caches: std::mem::take(&mut self.unsynced_snapshots),
            directory: None,
            parent: None,
            is_synced: false,
            failed: Arc::clone(&self.broken),
        };
        if !ticket.caches.is_empty() {
            ticket.directory = Some(self.directory.to_path_buf());
        }
        if self.is_new {
            ticket.caches.push(directory::topic_id_path(&self.directory));
            ticket.directory = Some(self.directory.to_path_buf());
            ticket.parent = self.directory.parent().map(Path::to_owned);
        }
        self.unflushed_records = 0;
        if self.recovery_point < self.end_offset {
            let from = self
                .segments
                .partition_point(|segment| segment.base_offset() <= self.recovery_point)
                .saturating_sub(1);
            for segment in &mut self.segments[from..] {
                ticket.data.push((segment.file()?, segment.path()));
                segment.caches_to_sync(&mut ticket.caches)?;
            }
            ticket.directory = Some(self.directory.to_path_buf());
        }
        Ok(ticket)
    }

    /// Takes note of a flush that has succeeded; gives the offset up to which everything is on disk.
    pub fn finish_flush(&mut self, ticket: FlushTicket) -> Result<i64, LogError> {
        self.check_usable()?;
        self.is_new &= !ticket.is_synced;
        if ticket.is_synced && ticket.cuts == self.cuts {
            self.recovery_point = self.recovery_point.max(ticket.target);
            self.recovery_point_told = self.recovery_point_told.max(self.recovery_point);
        }
        Ok(self.recovery_point)
    }

    /// Syncs what is not on disk yet; gives the offset up to which everything is.
    pub fn flush(&mut self) -> Result<i64, LogError> {
        let mut ticket = self.begin_flush()?;
        ticket.sync()?;
        self.finish_flush(ticket)
    }

    /// Something failed that leaves this log in between: it can only be opened anew. Gives the result.
    pub(crate) fn fatal<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        if result.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        result
    }

    /// An earlier sync has failed: nothing can be said of this log until it is opened anew.
    pub(crate) fn check_usable(&self) -> Result<(), LogError> {
        if !self.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let path = self.segments.last().map_or_else(|| self.directory.to_path_buf(), Segment::path);
        Err(LogError::io("cannot use, because an earlier change or sync has failed,", &path)(
            std::io::Error::other("what the disk holds is not known"),
        ))
    }
}
