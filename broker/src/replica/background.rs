//! What happens by the clock, for all partitions together: one task each for lag, checkpoints, retention and deletion, and
//! the group commit of `flush.messages=1`. Disk work runs on blocking threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::manager::ReplicaManager;
use super::options::Clock;
use super::partition::Partition;
use super::shared::PartitionId;

/// A follower that lags is noticed within this part of `replica.lag.time.max.ms`; Kafka checks at half.
const LAG_CHECKS_PER_LAG_TIME: u64 = 2;

/// Proposals without an answer are sent again, and replies whose clients are gone dropped, at least this often.
const TICK_MS_MAX: u64 = 1_000;

/// `flush.ms` is looked at this often.
const FLUSH_CHECK_MS: u64 = 1_000;

/// A log without an append for so many of those rounds gives back what it holds in memory.
const REST_CHECK_ROUNDS: u64 = 10;

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
        manager.directories().clear_without_space();
    });
    super::cleaner::start(manager, tracker, stop);
    super::moves::start(manager, tracker, stop);
    tracker.spawn(flush_by_time(Arc::clone(manager), stop.clone()));
    let manager = Arc::clone(manager);
    let stop = stop.clone();
    tracker.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = group_commit(manager) => {}
        }
    });
}

/// `flush.ms`, and rest for logs that nobody appends to.
async fn flush_by_time(manager: Arc<ReplicaManager>, stop: CancellationToken) {
    let mut timer = timer(FLUSH_CHECK_MS);
    let mut seen: HashMap<PartitionId, (i64, Option<i64>)> = HashMap::new();
    let mut rounds = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        rounds += 1;
        let (manager, mut before) = (Arc::clone(&manager), std::mem::take(&mut seen));
        let round = tokio::task::spawn_blocking(move || {
            let now_ms = Clock::wall_ms();
            let mut after = HashMap::new();
            for partition in manager.partitions() {
                let (mut flushed_ms, mut end) = before.remove(&partition.id()).unwrap_or((now_ms, None));
                if now_ms.saturating_sub(flushed_ms) >= partition.rules().flush_ms() {
                    partition.sync();
                    flushed_ms = now_ms;
                }
                if rounds.is_multiple_of(REST_CHECK_ROUNDS) {
                    end = partition.rest_if_idle(end);
                }
                after.insert(partition.id(), (flushed_ms, end));
            }
            after
        });
        match round.await {
            Ok(after) => seen = after,
            Err(error) => tracing::error!(%error, "flushing by time ended by a fault"),
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

/// Syncs what partitions with `flush.messages=1` have appended. While one round is at the disk the next one gathers: that
/// is what makes one sync serve many appends.
async fn group_commit(manager: Arc<ReplicaManager>) {
    loop {
        let ids = manager.shared().sync_queue.take().await;
        let partitions: Vec<Arc<Partition>> = ids.into_keys().filter_map(|id| manager.by_id(id)).collect();
        let synced = tokio::task::spawn_blocking(move || {
            for partition in partitions {
                partition.sync();
            }
        })
        .await;
        if let Err(error) = synced {
            tracing::error!(%error, "the group commit ended by a fault");
        }
    }
}
