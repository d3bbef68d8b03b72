//! Moving replicas between the log directories of this broker while they are written to (KIP-113).
//!
//! A copy is made beside the replica, in a `-future` directory, from batches read like a follower reads them; when it has
//! everything, it takes the replica's place under the partition's lock.
//!
//! Crash story: the copy is synced, then renamed to the partition's name, then the old directory is renamed away. A crash
//! before the first rename leaves the old replica and a copy that the next start removes; between the two it leaves both,
//! and the start keeps the longer one; after the second only the copy.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ottla_log::{Log, LogError, directory};
use ottla_wire::error_code::ErrorCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::manager::ReplicaManager;
use super::options::Clock;
use super::partition::{Partition, State};
use super::shared::LogDir;

/// Bytes that are copied at a time.
const COPY_BYTES_MAX: usize = 1 << 20;
/// A copy waits so long before it looks again whether it may take the replica's place.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The last bytes are copied under the partition's lock when they are at most so many, at the first attempt; at each further one
/// twice as many. A producer may write more than this while the copy is synced, again and again.
const LAST_BYTES_FIRST: usize = 64 << 10;
/// So many at the most: the partition stands still for as long as they take.
const LAST_BYTES_MAX: usize = 64 << 20;

/// A replica on its way to another directory.
#[derive(Debug)]
pub(crate) struct Moving {
    target: Arc<LogDir>,
    cancelled: AtomicBool,
    /// Of the copy.
    end_offset: AtomicI64,
    size_bytes: AtomicU64,
}

impl Moving {
    fn to(target: Arc<LogDir>) -> Arc<Self> {
        let (end_offset, size_bytes) = (AtomicI64::new(0), AtomicU64::new(0));
        Arc::new(Self { target, cancelled: AtomicBool::new(false), end_offset, size_bytes })
    }

    pub(crate) fn is_to(&self, log_dir: &Arc<LogDir>) -> bool {
        Arc::ptr_eq(&self.target, log_dir)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

/// A replica, or the copy of one, in a log directory.
#[derive(Debug, Clone)]
pub struct HeldReplica {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Index of the partition.
    pub partition: i32,
    /// Where it lies.
    pub log_dir: Arc<LogDir>,
    /// Of all its segments.
    pub size_bytes: u64,
    /// How far its end is behind the committed records, or, of a copy, behind the replica's end.
    pub offset_lag: i64,
    /// It is a copy that will take the replica's place.
    pub is_future: bool,
}

/// What a copy is to do next.
enum Next {
    /// These bytes, read when the log's generation was this.
    Append(ottla_log::ReadSlice, u64),
    /// Its records from there on are not the log's any more.
    Truncate(i64),
    /// The log begins there.
    StartOver(i64),
    /// It has everything.
    CaughtUp,
}

impl Partition {
    /// What lies of this replica in which directory. Nothing of a partition whose directory is offline.
    pub fn held(&self) -> Vec<HeldReplica> {
        let state = self.lock();
        let Some(log) = &state.log else { return Vec::new() };
        let end = log.end_offset();
        let mut held = vec![HeldReplica {
            topic: Arc::clone(self.topic()),
            partition: self.index(),
            log_dir: Arc::clone(&state.log_dir),
            size_bytes: log.size_bytes(),
            offset_lag: (state.machine.high_watermark() - end).max(0),
            is_future: false,
        }];
        held.extend(state.moving.as_ref().map(|moving| HeldReplica {
            topic: Arc::clone(self.topic()),
            partition: self.index(),
            log_dir: Arc::clone(&moving.target),
            size_bytes: moving.size_bytes.load(Ordering::Relaxed),
            offset_lag: (end - moving.end_offset.load(Ordering::Relaxed)).max(0),
            is_future: true,
        }));
        held
    }

    /// Begins, changes or ends a move. Says whether a copy has to be made.
    fn begin_move(&self, target: &Arc<LogDir>) -> Result<bool, ErrorCode> {
        let mut state = self.lock();
        if state.log.is_none() {
            return Err(ErrorCode::KafkaStorageError);
        }
        if let Some(moving) = &state.moving {
            if Arc::ptr_eq(&moving.target, target) {
                return Ok(false);
            }
            moving.cancel();
            state.moving = None;
        }
        if Arc::ptr_eq(&state.log_dir, target) {
            return Ok(false);
        }
        state.moving = Some(Moving::to(Arc::clone(target)));
        Ok(true)
    }

    fn next_of(state: &State, copy: &Log) -> Result<Option<Next>, LogError> {
        let Some(log) = &state.log else { return Ok(None) };
        let (start, end) = (log.log_start_offset(), log.end_offset());
        if copy.end_offset() < start {
            return Ok(Some(Next::StartOver(start)));
        }
        if let Some(epoch) = copy.latest_epoch() {
            let Some((_, same_until)) = log.end_offset_for_epoch(epoch) else {
                return Ok(Some(Next::StartOver(start)));
            };
            if same_until < copy.end_offset() {
                return Ok(Some(Next::Truncate(same_until)));
            }
        }
        if copy.end_offset() >= end {
            return Ok(Some(Next::CaughtUp));
        }
        let slice = log.read(copy.end_offset(), COPY_BYTES_MAX, end, true)?;
        Ok(Some(Next::Append(slice, log.generation())))
    }

    /// Does one step of a copy; true: it has everything.
    fn copy_step(&self, copy: &mut Log) -> Result<bool, CopyEnd> {
        let next = Self::next_of(&self.lock(), copy)?.ok_or(CopyEnd::Stopped)?;
        match next {
            Next::CaughtUp => return Ok(true),
            Next::StartOver(offset) => copy.truncate_fully_and_start_at(offset)?,
            Next::Truncate(offset) => copy.truncate_to(offset)?,
            Next::Append(slice, generation) => {
                let bytes = slice.to_bytes().map_err(LogError::io("cannot read", self.log_dir().path()))?;
                // Where the log was cut meanwhile, others may stand now in what was read.
                let is_same = self.lock().log.as_ref().is_some_and(|log| log.generation() == generation);
                if is_same {
                    copy.append_as_follower(&bytes, -1)?;
                }
            }
        }
        Ok(false)
    }

    /// Puts a synced copy in the replica's place, if it still has everything. Gives the copy back if it does not.
    fn replace(
        &self,
        mut copy: Box<Log>,
        moving: &Arc<Moving>,
        last_bytes_max: usize,
    ) -> Result<Replaced, CopyEnd> {
        let mut state = self.lock();
        let is_wanted = state.moving.as_ref().is_some_and(|other| Arc::ptr_eq(other, moving));
        if !is_wanted || self.is_deleted() {
            return Err(CopyEnd::Stopped);
        }
        let path = moving.target.path().join(directory::partition_directory_name(self.topic(), self.index()));
        // A pass of the compaction would end with files of the old directory; and an earlier move away from the target may not
        // have given its place free.
        if state.log.as_deref().is_some_and(Log::is_being_compacted) || path.exists() {
            return Ok(Replaced::NotYet(copy));
        }
        let mut bytes_left = last_bytes_max;
        loop {
            match Self::next_of(&state, &copy)?.ok_or(CopyEnd::Stopped)? {
                Next::CaughtUp => break,
                Next::Append(slice, _) if slice.length <= bytes_left => {
                    bytes_left -= slice.length;
                    let bytes =
                        slice.to_bytes().map_err(LogError::io("cannot read", state.log_dir.path()))?;
                    copy.append_as_follower(&bytes, -1)?;
                }
                Next::Append(..) | Next::Truncate(_) | Next::StartOver(_) => {
                    return Ok(Replaced::NotYet(copy));
                }
            }
        }
        if bytes_left < last_bytes_max {
            // What was told to be on disk must be so in the copy.
            copy.flush()?;
        }
        let Some(old) = state.log.take() else { return Err(CopyEnd::Stopped) };
        if let Err(error) = Self::adopt(&state, &old, &mut copy, &path) {
            state.log = Some(old);
            return Err(error.into());
        }
        copy.set_config(self.rules().log_config());
        let old_dir = std::mem::replace(&mut state.log_dir, Arc::clone(&moving.target));
        state.log = Some(copy);
        state.moving = None;
        Ok(Replaced::Done(old, old_dir))
    }

    fn adopt(state: &State, old: &Log, copy: &mut Log, path: &Path) -> Result<(), LogError> {
        let start = old.log_start_offset();
        if start > copy.log_start_offset() {
            copy.increment_log_start_offset(start)?;
        }
        if let Some(epoch) = old.latest_epoch().filter(|epoch| Some(*epoch) > copy.latest_epoch()) {
            // A leader has begun, and has written nothing yet.
            copy.begin_leader_epoch(epoch, copy.end_offset());
        }
        copy.update_high_watermark(state.machine.high_watermark());
        copy.rename_directory(path)
    }
}

/// What became of the attempt to put a copy in a replica's place.
enum Replaced {
    NotYet(Box<Log>),
    /// The old log and where it lies.
    Done(Box<Log>, Arc<LogDir>),
}

/// Why a copy ended before its time.
#[derive(Debug)]
enum CopyEnd {
    /// It is not wanted any more.
    Stopped,
    Failed(LogError),
}

impl From<LogError> for CopyEnd {
    fn from(error: LogError) -> Self {
        Self::Failed(error)
    }
}

impl ReplicaManager {
    /// Moves a replica into the log directory of this path: `LOG_DIR_NOT_FOUND` if there is none, `INVALID_REPLICA_ASSIGNMENT` if
    /// it takes no new replicas (KIP-1066), `REPLICA_NOT_AVAILABLE` if the replica is not here. It goes on in the background.
    pub fn move_replica(&self, topic: &str, index: i32, path: &str) -> Result<(), ErrorCode> {
        let target = self.directories().configured().find(|dir| dir.path() == Path::new(path));
        let target = target.ok_or(ErrorCode::LogDirNotFound)?;
        if target.is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let partition = self.by_name(topic, index);
        // Where it is it may stay: that is how a move is taken back.
        let is_there = partition.as_ref().is_some_and(|partition| Arc::ptr_eq(&partition.log_dir(), target));
        if target.is_cordoned() && !is_there {
            return Err(ErrorCode::InvalidReplicaAssignment);
        }
        let Some(partition) = partition else {
            // It may be on its way to this broker: then it is made there.
            self.directories().prefer(topic, index, target);
            return Err(ErrorCode::ReplicaNotAvailable);
        };
        if partition.begin_move(target)? {
            self.shared().move_queue.put(partition.id(), ());
        }
        Ok(())
    }

    /// After the first image: what was on its way when the last process ended goes on.
    pub(crate) fn resume_moves(&self) {
        for (id, path) in self.directories().take_interrupted_moves() {
            let Some(partition) = self.by_id(id) else { continue };
            let path = path.to_string_lossy();
            if let Err(code) = self.move_replica(partition.topic(), id.index, &path) {
                tracing::warn!(topic = %partition.topic(), partition = id.index, directory = %path,
                    error = code.name(), "a move that was cut short does not go on");
            }
        }
    }

    /// Makes one partition's copy and puts it in its place. Blocks.
    fn copy_replica(&self, partition: &Partition, stop: &CancellationToken) {
        let Some(moving) = partition.lock().moving.clone() else { return };
        let name = directory::future_directory_name(partition.topic(), partition.index());
        let path = moving.target.path().join(name);
        match self.copy_until_replaced(partition, &moving, &path, stop) {
            Ok((old, old_dir)) => {
                moving.target.partitions.fetch_add(1, Ordering::Relaxed);
                // Before the old directory goes, whose checkpoints name the partition.
                self.directories().checkpoint_high_watermarks(&self.partitions());
                self.directories().checkpoint_recovery_points(&self.partitions());
                self.directories().delete(self.shared(), partition.topic(), partition.id(), old, &old_dir);
                self.shared().placement_changed.notify_one();
                tracing::info!(topic = %partition.topic(), partition = partition.index(),
                    directory = %moving.target.path().display(), "the replica has moved");
            }
            Err(end) => {
                let mut state = partition.lock();
                if state.moving.as_ref().is_some_and(|other| Arc::ptr_eq(other, &moving)) {
                    state.moving = None;
                }
                drop(state);
                if let CopyEnd::Failed(error) = end {
                    tracing::error!(topic = %partition.topic(), partition = partition.index(), %error,
                        "the replica could not be moved");
                    for log_dir in [&moving.target, &partition.log_dir()] {
                        if error.is_disk_fault()
                            && error.path().is_some_and(|at| at.starts_with(log_dir.path()))
                        {
                            log_dir.fail(&error);
                        }
                    }
                }
                super::directories::remove(&path);
            }
        }
    }

    fn copy_until_replaced(
        &self,
        partition: &Partition,
        moving: &Arc<Moving>,
        path: &Path,
        stop: &CancellationToken,
    ) -> Result<(Log, Arc<LogDir>), CopyEnd> {
        let config = partition.rules().log_config();
        let mut copy = Box::new(Log::create(path, partition.topic_id(), config, Clock::wall_ms())?);
        let rate = || self.shared().throttles.move_bytes_per_second();
        let mut last_bytes_max = LAST_BYTES_FIRST;
        loop {
            let is_over = moving.cancelled.load(Ordering::Acquire) || partition.is_deleted();
            if is_over || stop.is_cancelled() {
                return Err(CopyEnd::Stopped);
            }
            let size_before = copy.size_bytes();
            let has_everything = partition.copy_step(&mut copy)?;
            moving.end_offset.store(copy.end_offset(), Ordering::Relaxed);
            moving.size_bytes.store(copy.size_bytes(), Ordering::Relaxed);
            if has_everything {
                copy.flush()?;
                match partition.replace(copy, moving, last_bytes_max)? {
                    Replaced::Done(old, old_dir) => return Ok((*old, old_dir)),
                    Replaced::NotYet(again) => copy = again,
                }
                last_bytes_max = (last_bytes_max * 2).min(LAST_BYTES_MAX);
                std::thread::sleep(RETRY_PAUSE);
            } else {
                let copied = copy.size_bytes().saturating_sub(size_before);
                wait_for_rate(copied, rate(), stop);
            }
        }
    }
}

/// `replica.alter.log.dirs.io.max.bytes.per.second`.
fn wait_for_rate(bytes: u64, bytes_per_second: u64, stop: &CancellationToken) {
    let mut wait_ms = bytes.saturating_mul(1_000) / bytes_per_second.max(1);
    while wait_ms > 0 && !stop.is_cancelled() {
        let step_ms = wait_ms.min(100);
        std::thread::sleep(Duration::from_millis(step_ms));
        wait_ms -= step_ms;
    }
}

/// Makes the copies that are asked for, `num.replica.alter.log.dirs.threads` at a time, until `stop`.
pub(crate) fn start(manager: &Arc<ReplicaManager>, tracker: &TaskTracker, stop: &CancellationToken) {
    let (manager, stop) = (Arc::clone(manager), stop.clone());
    let threads = manager.move_threads();
    let tasks = tracker.clone();
    tracker.spawn(async move {
        let permits = Arc::new(tokio::sync::Semaphore::new(threads));
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                asked = manager.shared().move_queue.take() => asked,
            };
            for id in asked.into_keys() {
                let (manager, permits, stop) = (Arc::clone(&manager), Arc::clone(&permits), stop.clone());
                tasks.spawn(async move {
                    let permit = tokio::select! {
                        () = stop.cancelled() => return,
                        permit = permits.acquire_owned() => permit,
                    };
                    let work = move || {
                        if let Some(partition) = manager.by_id(id) {
                            manager.copy_replica(&partition, &stop);
                        }
                    };
                    if let Err(error) = tokio::task::spawn_blocking(work).await {
                        tracing::error!(%error, "the move of a replica ended by a fault");
                    }
                    drop(permit);
                });
            }
        }
    });
}
