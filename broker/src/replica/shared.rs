//! What all partitions of a broker share: options, grants, queues to the background tasks, counters, log directories.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use ottla_log::LogError;
use ottla_replica::IsrMember;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::metrics::Times;

use super::options::{Grant, ReplicaOptions};
use super::throttles::Throttles;
use super::unreachable::Unreachable;

/// A partition by its topic's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic's id.
    pub topic_id: Uuid,
    /// Its index in the topic.
    pub index: i32,
}

/// An ISR that a leader asks the controller for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrProposal {
    /// The partition.
    pub id: PartitionId,
    /// The members; the own epoch is -1.
    pub isr: Vec<IsrMember>,
    /// Of the state that it changes.
    pub leader_epoch: i32,
    /// Of the state that it changes.
    pub partition_epoch: i32,
}

/// Whom a partition follows from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Following {
    /// The partition.
    pub id: PartitionId,
    /// The leader; -1: nobody.
    pub leader: i32,
    /// The epoch to fetch under.
    pub leader_epoch: i32,
}

/// Work of partitions for one background task: at most one item a partition, the latest; one wake-up for many.
#[derive(Debug)]
pub struct WorkQueue<T> {
    items: Mutex<HashMap<PartitionId, T>>,
    notify: Notify,
}

impl<T> Default for WorkQueue<T> {
    fn default() -> Self {
        Self { items: Mutex::new(HashMap::new()), notify: Notify::new() }
    }
}

impl<T> WorkQueue<T> {
    /// Adds or replaces the partition's item.
    pub fn put(&self, id: PartitionId, item: T) {
        self.items.lock().insert(id, item);
        self.notify.notify_one();
    }

    /// Waits until there is something, and takes all of it.
    pub async fn take(&self) -> HashMap<PartitionId, T> {
        loop {
            let items = self.take_now();
            if !items.is_empty() {
                return items;
            }
            self.notify.notified().await;
        }
    }

    /// Takes what there is.
    pub fn take_now(&self) -> HashMap<PartitionId, T> {
        std::mem::take(&mut *self.items.lock())
    }
}

impl WorkQueue<IsrProposal> {
    /// One proposal a partition is in flight, so that a newer one replaces only one that is void.
    pub fn push(&self, proposal: IsrProposal) {
        self.put(proposal.id, proposal);
    }
}

impl WorkQueue<Following> {
    /// The latest word counts.
    pub fn push(&self, following: Following) {
        self.put(following.id, following);
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted; read by the metrics page.
#[derive(Debug, Default)]
pub struct ReplicaCounters {
    /// Members that left an ISR led here.
    pub isr_shrinks: Counter,
    /// Members that joined an ISR led here.
    pub isr_expands: Counter,
    /// `AlterPartitions` requests that the controller refused, partition by partition.
    pub isr_refusals: Counter,
    /// Partitions taken offline.
    pub partitions_failed: Counter,
    /// Appends refused because a disk is full.
    pub appends_without_space: Counter,
    /// Bytes that followers here have fetched.
    pub replicated_bytes: Counter,
    /// Truncations after leader changes.
    pub truncations: Counter,
    /// Passes of the compaction that came to their end.
    pub compactions: Counter,
    /// Bytes that they read.
    pub compacted_bytes: Counter,
    /// Logs that cannot be compacted and are left alone.
    pub uncleanable_partitions: Counter,
    /// Fetches from leaders that failed as a whole.
    pub fetch_failures: Counter,
    /// How long the disks take to sync what was appended to a log.
    pub flush_times: Times,
}

/// So much of a disk is kept for the metadata log, checkpoints, indexes and new replicas: records are refused before nothing is left.
/// A node whose metadata lie on the same disk would else have to end when it is full.
const RESERVED_BYTES: i64 = 64 << 20;
/// Of a small disk only this part.
const RESERVED_PART: i64 = 20;

/// One of `log.dirs`.
#[derive(Debug)]
pub struct LogDir {
    path: PathBuf,
    is_offline: AtomicBool,
    is_full: AtomicBool,
    /// Bytes that may be appended before the next measurement.
    room_bytes: AtomicI64,
    is_cordoned: AtomicBool,
    /// For placement.
    pub(crate) partitions: AtomicUsize,
    /// To its group commit: partitions with `flush.messages=1` that have bytes to sync.
    pub(crate) sync_queue: WorkQueue<()>,
    /// What the checkpoints may still say of replicas that are gone.
    pub(crate) stale_names: Mutex<HashSet<(String, i32)>>,
    /// Of the checkpoints that were written last: an unchanged one is not written again.
    pub(crate) checkpoint_sums: Mutex<HashMap<&'static str, u64>>,
}

impl LogDir {
    /// A directory in service.
    pub fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            path,
            is_offline: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            room_bytes: AtomicI64::new(i64::MAX),
            is_cordoned: AtomicBool::new(false),
            partitions: AtomicUsize::new(0),
            sync_queue: WorkQueue::default(),
            stale_names: Mutex::default(),
            checkpoint_sums: Mutex::default(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its disk failed. It stays so until the broker is started again: after a failed fsync nothing that the page
    /// cache holds can be trusted.
    pub fn is_offline(&self) -> bool {
        self.is_offline.load(Ordering::Acquire)
    }

    /// Whether it takes no new replicas (KIP-1066).
    pub fn is_cordoned(&self) -> bool {
        self.is_cordoned.load(Ordering::Relaxed)
    }

    pub(crate) fn set_cordoned(&self, is_cordoned: bool) {
        self.is_cordoned.store(is_cordoned, Ordering::Relaxed);
    }

    /// Its disk failed: no partition of it is served any more. Logged once, the first reason wins.
    pub fn fail(&self, error: &LogError) {
        if !self.is_offline.swap(true, Ordering::AcqRel) {
            tracing::error!(directory = %self.path.display(), %error, "the log directory goes offline");
        }
    }

    /// Asks the system how much room is left on the disk.
    pub(crate) fn measure_room(&self) {
        let Ok(space) = rustix::fs::statvfs(&self.path) else { return };
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(space.f_frsize)).unwrap_or(i64::MAX);
        // Some file systems do not say how large they are.
        let room_bytes = match bytes(space.f_blocks) {
            0 => i64::MAX,
            total => bytes(space.f_bavail) - RESERVED_BYTES.min(total / RESERVED_PART),
        };
        self.room_bytes.store(room_bytes, Ordering::Relaxed);
    }

    /// Takes room for an append, or refuses it as the system does when a disk is full.
    pub(crate) fn take_room(&self, bytes: usize) -> Result<(), LogError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.room_bytes.load(Ordering::Relaxed) < bytes {
            let kept = "what is left is kept for metadata and checkpoints";
            let full = std::io::Error::new(std::io::ErrorKind::StorageFull, kept);
            return Err(LogError::io("no space left for records in", &self.path)(full));
        }
        self.room_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Whether records are taken.
    pub(crate) fn has_room(&self) -> bool {
        self.room_bytes.load(Ordering::Relaxed) > 0
    }

    /// True for the first refusal since there was room.
    pub(crate) fn first_without_space(&self) -> bool {
        !self.is_full.swap(true, Ordering::AcqRel)
    }

    /// There is room again, or it may be tried.
    pub(crate) fn clear_without_space(&self) {
        self.is_full.store(false, Ordering::Release);
    }
}

/// Shared by all partitions of a broker.
#[derive(Debug)]
pub struct ReplicaShared {
    /// Settings.
    pub options: ReplicaOptions,
    /// Lease, broker epoch, clock.
    pub grant: Arc<Grant>,
    /// To `replication::isr_updates`.
    pub isr_queue: WorkQueue<IsrProposal>,
    /// To `replication::fetcher`.
    pub following: WorkQueue<Following>,
    /// To the moves between log directories.
    pub(crate) move_queue: WorkQueue<()>,
    /// Leaders that clients are not sent to for a moment.
    pub unreachable: Unreachable,
    /// How fast partitions are moved.
    pub throttles: Throttles,
    /// A log was cut: its recovery point is to be checkpointed, which may be too large now.
    pub(crate) log_was_cut: Notify,
    /// Replicas lie elsewhere than before: the controller is to be told.
    pub placement_changed: Notify,
    /// What is counted.
    pub counters: ReplicaCounters,
}

impl ReplicaShared {
    /// With empty queues.
    pub fn new(options: ReplicaOptions, grant: Arc<Grant>) -> Arc<Self> {
        Arc::new(Self {
            options,
            grant,
            isr_queue: WorkQueue::default(),
            following: WorkQueue::default(),
            move_queue: WorkQueue::default(),
            unreachable: Unreachable::default(),
            throttles: Throttles::default(),
            log_was_cut: Notify::new(),
            placement_changed: Notify::new(),
            counters: ReplicaCounters::default(),
        })
    }
}
