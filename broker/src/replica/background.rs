//! What happens by the clock, for all partitions together: one task each for lag, checkpoints, retention and deletion, and
//! the group commit of `flush.messages=1`. Disk work runs on blocking threads.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::manager::ReplicaManager;
use super::options::Clock;
use super::partition::Partition;
use super::shared::{LogDir, PartitionId};

/// A follower that lags is noticed within this part of `replica.lag.time.max.ms`; Kafka checks at half.
const LAG_CHECKS_PER_LAG_TIME: u64 = 2;

/// Proposals without an answer are sent again, and replies whose clients are gone dropped, at least this often.
const TICK_MS_MAX: u64 = 1_000;

/// `flush.ms` is looked at this often.
const FLUSH_CHECK_MS: u64 = 1_000;

/// A log without an append for so many of those rounds gives back what it holds in memory.
const REST_CHECK_ROUNDS: u64 = 10;

/// So many files of a directory are synced side by side in a group commit.
const SYNC_THREADS_MAX: usize = 8;

/// What could not be synced because the disk is full is tried again after so long.
const FULL_DISK_PAUSE_MS: u64 = 500;

/// Removed replicas are looked at this often.
const DELETION_CHECK_MS: u64 = 1_000;

/// Starts all timers. They end when `stop` is cancelled; `tracker` tells when they have.
pub fn start(manager: &Arc<ReplicaManager>, tracker: &TaskTracker, stop: &CancellationToken) {
    let options = manager.shared().options.clone();
    let tick_ms = (options.replica_lag_time_ms_max / LAG_CHECKS_PER_LAG_TIME).clamp(1, TICK_MS_MAX);
    every(manager, tracker, stop, tick_ms, ReplicaManager::tick);
    every_on_disk(manager, tracker, stop, options.high_watermark_checkpoint_ms, |manager| {
        manager.directories().checkpoint_high_watermarks(&manager.partitions());
    });
    every_on_disk(manager, tracker, stop, options.recovery_point_checkpoint_ms, |manager| {
        manager.directories().checkpoint_recovery_points(&manager.partitions());
    });
    every_on_disk(manager, tracker, stop, options.retention_check_ms, |manager| {
        for partition in manager.partitions() {
            let files = partition.enforce_retention(Clock::wall_ms());
            manager.directories().delete_later(manager.shared(), files);
        }
    });
    every_on_disk(manager, tracker, stop, DELETION_CHECK_MS, |manager| {
        for path in manager.delete_due() {
            super::directories::remove(&path);
        }
        manager.directories().measure_room();
        manager.directories().clear_without_space();
        manager.make_unmade();
    });
    super::cleaner::start(manager, tracker, stop);
    super::moves::start(manager, tracker, stop);
    tracker.spawn(checkpoint_cuts(Arc::clone(manager), stop.clone()));
    tracker.spawn(flush_by_time(Arc::clone(manager), stop.clone()));
    for log_dir in manager.directories().all() {
        let (manager, log_dir, stop) = (Arc::clone(manager), Arc::clone(log_dir), stop.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = group_commit(manager, log_dir) => {}
            }
        });
    }
}

/// Recovery points of logs that were cut are written soon: a crash would otherwise take what was appended there since for damage.
async fn checkpoint_cuts(manager: Arc<ReplicaManager>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = manager.shared().log_was_cut.notified() => {}
        }
        let manager = Arc::clone(&manager);
        let written = tokio::task::spawn_blocking(move || {
            manager.directories().checkpoint_recovery_points(&manager.partitions());
        });
        if let Err(error) = written.await {
            tracing::error!(%error, "a checkpoint ended by a fault");
        }
    }
}

/// `flush.ms`, and rest for logs that nobody appends to.
async fn flush_by_time(manager: Arc<ReplicaManager>, stop: CancellationToken) {
    let mut timer = timer(FLUSH_CHECK_MS);
    let mut rounds = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        rounds += 1;
        let manager = Arc::clone(&manager);
        let round = tokio::task::spawn_blocking(move || {
            let now_ms = Clock::wall_ms();
            for partition in manager.partitions() {
                partition.flush_if_due(now_ms);
                if rounds.is_multiple_of(REST_CHECK_ROUNDS) {
                    partition.rest_if_idle();
                }
            }
        });
        if let Err(error) = round.await {
            tracing::error!(%error, "flushing by time ended by a fault");
        }
    }
}

fn every(
    manager: &Arc<ReplicaManager>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
    period_ms: u64,
    work: fn(&ReplicaManager),
) {
    let (manager, stop) = (Arc::clone(manager), stop.clone());
    tracker.spawn(async move {
        let mut timer = timer(period_ms);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = timer.tick() => work(&manager),
            }
        }
    });
}

fn every_on_disk(
    manager: &Arc<ReplicaManager>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
    period_ms: u64,
    work: fn(&ReplicaManager),
) {
    let (manager, stop) = (Arc::clone(manager), stop.clone());
    tracker.spawn(async move {
        let mut timer = timer(period_ms);
        timer.tick().await; // The first one is due at once, and there is nothing to do yet.
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = timer.tick() => {}
            }
            let manager = Arc::clone(&manager);
            if let Err(error) = tokio::task::spawn_blocking(move || work(&manager)).await {
                tracing::error!(%error, "background work on logs ended by a fault");
            }
        }
    });
}

fn timer(period_ms: u64) -> tokio::time::Interval {
    let mut timer = tokio::time::interval(Duration::from_millis(period_ms.max(1)));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    timer
}

/// Syncs what partitions of one directory with `flush.messages=1` have appended. While one round is at the disk the next one
/// gathers: that is what makes one sync serve many appends. The files of a round are synced side by side, for the file system
/// brings them to the disk with one commit of its journal then; another directory's disk is waited for by nobody here.
async fn group_commit(manager: Arc<ReplicaManager>, log_dir: Arc<LogDir>) {
    loop {
        let ids = log_dir.sync_queue.take().await;
        let mut partitions = ids.into_keys().filter_map(|id| manager.by_id(id)).collect::<Vec<_>>();
        let share = partitions.len().div_ceil(SYNC_THREADS_MAX).max(1);
        let mut rounds = Vec::new();
        while !partitions.is_empty() {
            let part = partitions.split_off(partitions.len().saturating_sub(share));
            rounds.push(tokio::task::spawn_blocking(move || unsynced(&part)));
        }
        let mut again = Vec::new();
        for round in rounds {
            match round.await {
                Ok(ids) => again.extend(ids),
                Err(error) => tracing::error!(%error, "the group commit ended by a fault"),
            }
        }
        if !again.is_empty() {
            tokio::time::sleep(Duration::from_millis(FULL_DISK_PAUSE_MS)).await;
            for id in again {
                log_dir.sync_queue.put(id, ());
            }
        }
    }
}

/// Syncs partitions; gives those that there was no room for.
fn unsynced(partitions: &[Arc<Partition>]) -> Vec<PartitionId> {
    partitions.iter().filter(|partition| !partition.sync()).map(|partition| partition.id()).collect()
}
