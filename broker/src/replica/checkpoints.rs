//! The checkpoints of log directories, and their end: the closing of all logs and the marker that vouches for it.
//!
//! Checkpoints are by the names of partitions. What is left in them of a topic that was deleted must not be taken for the offsets of
//! the next topic of that name: it would be cut to the old one's start by the first recovery. So they are written anew before a
//! replica is made whose name they may still have.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use ottla_log::{LogError, directory};
use parking_lot::Mutex;

use super::directories::{Directories, Loaded};
use super::partition::Partition;
use super::shared::{LogDir, PartitionId};
use super::upkeep::Checkpointed;

/// Closing waits for the disk and not for processors: with more syncs at a time the file system commits its journal less often.
const CLOSE_THREADS_MIN: usize = 8;

/// A line of a checkpoint.
type Entry = (String, i32, i64);

impl Directories {
    /// High watermarks, from which a leader starts that has not heard of its followers yet.
    pub(crate) fn checkpoint_high_watermarks(&self, partitions: &[Arc<Partition>]) {
        self.checkpoint(partitions, directory::HIGH_WATERMARKS, |offsets| offsets.high_watermark);
    }

    /// Recovery points and log starts.
    pub(crate) fn checkpoint_recovery_points(&self, partitions: &[Arc<Partition>]) {
        self.checkpoint(partitions, directory::RECOVERY_POINTS, |offsets| offsets.recovery_point);
        self.checkpoint(partitions, directory::LOG_STARTS, |offsets| offsets.log_start);
    }

    /// Whether a checkpoint may still have the offsets of a deleted replica of this name.
    pub(crate) fn is_stale(&self, topic: &str, index: i32) -> bool {
        let name = (topic.to_owned(), index);
        self.all().iter().any(|dir| dir.stale_names.lock().contains(&name))
    }

    /// Writes all checkpoints anew, without what is not there any more.
    pub(crate) fn forget_stale(&self, partitions: &[Arc<Partition>]) {
        let stale: Vec<_> =
            self.all().iter().map(|dir| std::mem::take(&mut *dir.stale_names.lock())).collect();
        self.checkpoint_high_watermarks(partitions);
        self.checkpoint_recovery_points(partitions);
        tracing::debug!(
            names = stale.iter().map(std::collections::HashSet::len).sum::<usize>(),
            "checkpoints without deleted replicas"
        );
    }

    fn checkpoint(
        &self,
        partitions: &[Arc<Partition>],
        file: &'static str,
        offset: fn(&Checkpointed) -> i64,
    ) {
        for log_dir in self.all().iter().filter(|dir| !dir.is_offline()) {
            let entries: Vec<Entry> = partitions
                .iter()
                .filter_map(|partition| {
                    let offsets = partition.checkpointed(log_dir)?;
                    Some((partition.topic().to_string(), partition.index(), offset(&offsets)))
                })
                .collect();
            write(log_dir, file, &entries);
        }
    }

    /// Closes all logs, so many at a time in each directory, and writes the last checkpoints, and after them the marker that
    /// vouches for them: a directory of which one log could not be closed gets none.
    pub(crate) fn close(&self, open: HashMap<PartitionId, Loaded>, broker_epoch: i64, threads: usize) {
        let mut by_dir: HashMap<PathBuf, Vec<(PartitionId, Loaded)>> = HashMap::new();
        for (id, loaded) in open {
            by_dir.entry(loaded.log_dir.path().to_owned()).or_default().push((id, loaded));
        }
        std::thread::scope(|scope| {
            for log_dir in self.all().iter().filter(|dir| !dir.is_offline()) {
                let logs = by_dir.remove(log_dir.path()).unwrap_or_default();
                scope.spawn(move || close_directory(log_dir, logs, broker_epoch, threads));
            }
        });
    }
}

/// What closing a directory's logs has come to.
#[derive(Default)]
struct Closed {
    /// High watermarks, ends, starts.
    offsets: [Vec<Entry>; 3],
    failures: usize,
}

fn close_directory(log_dir: &LogDir, logs: Vec<(PartitionId, Loaded)>, broker_epoch: i64, threads: usize) {
    let queue = Mutex::new(logs);
    let closed = Mutex::new(Closed::default());
    let work = || {
        loop {
            let Some((id, Loaded { topic, log, high_watermark, .. })) = queue.lock().pop() else { return };
            let Some(log) = log else { continue };
            let (log_start, log_end) = (log.log_start_offset(), log.end_offset());
            let result = log.close();
            let mut closed = closed.lock();
            if let Err(error) = result {
                tracing::error!(topic, partition = id.index, %error, "a log was not closed cleanly");
                closed.failures += 1;
                continue;
            }
            for (list, offset) in closed.offsets.iter_mut().zip([high_watermark, log_end, log_start]) {
                list.push((topic.clone(), id.index, offset));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(CLOSE_THREADS_MIN) {
            scope.spawn(work);
        }
    });
    let Closed { offsets, failures } = closed.into_inner();
    let files = [directory::HIGH_WATERMARKS, directory::RECOVERY_POINTS, directory::LOG_STARTS];
    let mut is_clean = failures == 0;
    for (file, entries) in files.into_iter().zip(&offsets) {
        is_clean &= write(log_dir, file, entries);
    }
    if is_clean && let Err(error) = directory::write_clean_shutdown(log_dir.path(), broker_epoch) {
        tracing::error!(directory = %log_dir.path().display(), %error, "the clean-shutdown marker was not written");
    }
}

/// Writes a checkpoint, if it says something else than the last time; a disk that refuses takes the directory offline.
fn write(log_dir: &LogDir, file: &'static str, entries: &[Entry]) -> bool {
    let sum = sum(entries);
    if log_dir.checkpoint_sums.lock().get(file) == Some(&sum) {
        return true;
    }
    match directory::write_checkpoint(&log_dir.path().join(file), entries) {
        Ok(()) => {
            log_dir.checkpoint_sums.lock().insert(file, sum);
            true
        }
        Err(error) => {
            refused(log_dir, file, &error);
            false
        }
    }
}

fn refused(log_dir: &LogDir, file: &str, error: &LogError) {
    if error.is_disk_fault() {
        log_dir.fail(error);
    } else {
        // A full disk: what the file said before still holds, and costs the next start time.
        tracing::warn!(directory = %log_dir.path().display(), file, %error, "a checkpoint was not written");
    }
}

/// The same for the same entries, in whatever order.
fn sum(entries: &[Entry]) -> u64 {
    entries.iter().fold(entries.len() as u64, |sum, entry| {
        let mut hasher = DefaultHasher::new();
        entry.hash(&mut hasher);
        sum.wrapping_add(hasher.finish())
    })
}
