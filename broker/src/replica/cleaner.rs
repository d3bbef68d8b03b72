//! Compaction of the logs whose policy asks for it: `log.cleaner.threads` passes at a time, one log each.
//!
//! The log that has most to gain goes first (the ratio of what no pass has seen), before it those whose oldest such record
//! has reached `max.compaction.lag.ms`. A pass reads and writes without the partition's lock; only the swap of the segments
//! takes it. A log that cannot be compacted is named, counted and left alone until the broker starts anew; the others go on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use ottla_log::compaction::{CompactionError, CompactionPlan, CompactionReport, OffsetMap, compact};
use ottla_log::directory;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::manager::ReplicaManager;
use super::options::Clock;
use super::partition::Partition;
use super::shared::{LogDir, PartitionId};

/// Settings of the compaction.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanerOptions {
    /// `log.cleaner.enable`.
    pub enable: bool,
    /// `log.cleaner.threads`.
    pub threads: usize,
    /// `log.cleaner.backoff.ms`: the pause when nothing is to be done.
    pub backoff_ms: u64,
    /// `log.cleaner.dedupe.buffer.size`: of all threads together.
    pub dedupe_buffer_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: of all threads together, read and written.
    pub io_bytes_per_second_max: f64,
}

impl Default for CleanerOptions {
    fn default() -> Self {
        Self {
            enable: true,
            threads: 1,
            backoff_ms: 15_000,
            dedupe_buffer_bytes: 128 << 20,
            io_bytes_per_second_max: f64::MAX,
        }
    }
}

/// What the passes share.
#[derive(Debug, Default)]
struct Progress {
    /// First offset of each log that no pass has seen.
    first_dirty: HashMap<PartitionId, i64>,
    at_work: HashSet<PartitionId>,
    uncleanable: HashSet<PartitionId>,
}

struct Cleaner {
    manager: Arc<ReplicaManager>,
    options: CleanerOptions,
    progress: Mutex<Progress>,
    stop: CancellationToken,
}

/// Starts the passes.
pub(super) fn start(manager: &Arc<ReplicaManager>, tracker: &TaskTracker, stop: &CancellationToken) {
    let options = manager.shared().options.cleaner.clone();
    if !options.enable {
        return;
    }
    let cleaner = Arc::new(Cleaner {
        manager: Arc::clone(manager),
        progress: Mutex::default(),
        stop: stop.clone(),
        options,
    });
    let checkpoints = read_checkpoints(manager);
    let checkpoints = Arc::new(Mutex::new(checkpoints));
    for _ in 0..cleaner.options.threads {
        tracker.spawn(run(Arc::clone(&cleaner), Arc::clone(&checkpoints)));
    }
}

/// Entries of the checkpoint files, by name: a partition is known by name until it is first looked at.
type ByName = HashMap<(String, i32), i64>;

fn read_checkpoints(manager: &ReplicaManager) -> ByName {
    let mut entries = ByName::new();
    for log_dir in manager.directories().all() {
        match directory::read_checkpoint(&log_dir.path().join(directory::CLEANER_OFFSETS)) {
            Ok(read) => entries.extend(read),
            // A cache: without it everything is looked at again.
            Err(error) => {
                tracing::warn!(directory = %log_dir.path().display(), %error, "compaction begins from the start");
            }
        }
    }
    entries
}

async fn run(cleaner: Arc<Cleaner>, names: Arc<Mutex<ByName>>) {
    let share = cleaner.options.dedupe_buffer_bytes / cleaner.options.threads.max(1);
    let mut map = OffsetMap::with_budget(share);
    loop {
        let (working, known) = (Arc::clone(&cleaner), Arc::clone(&names));
        let pass = tokio::task::spawn_blocking(move || {
            let has_worked = working.pass(&mut map, &known);
            (map, has_worked)
        });
        let has_worked;
        (map, has_worked) = match pass.await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "a pass of the compaction ended by a fault");
                return;
            }
        };
        let backoff_ms = cleaner.manager.own_value("log.cleaner.backoff.ms", |text| text.parse().ok());
        let backoff_ms = backoff_ms.unwrap_or(cleaner.options.backoff_ms).max(1);
        let pause = if has_worked { Duration::ZERO } else { Duration::from_millis(backoff_ms) };
        tokio::select! {
            () = cleaner.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Cleaner {
    /// Compacts the log that needs it most; false when none does.
    fn pass(&self, map: &mut OffsetMap, names: &Mutex<ByName>) -> bool {
        let Some((partition, first_dirty)) = self.choose(names) else { return false };
        let id = partition.id();
        let outcome = self.compact(&partition, first_dirty, map);
        let mut progress = self.progress.lock();
        progress.at_work.remove(&id);
        let counters = &self.manager.shared().counters;
        match outcome {
            Ok(Some((next, report))) => {
                progress.first_dirty.insert(id, next);
                counters.compactions.add(1);
                counters.compacted_bytes.add(usize::try_from(report.bytes_read).unwrap_or(usize::MAX));
                tracing::debug!(
                    topic = %partition.topic(), partition = id.index, next, read = report.bytes_read,
                    written = report.bytes_written, keys = report.keys, "compacted"
                );
            }
            Ok(None) | Err(CompactionError::Superseded | CompactionError::Stopped) => return false,
            Err(CompactionError::Log(error)) if error.is_fatal() => {
                tracing::error!(
                    topic = %partition.topic(), partition = id.index, %error,
                    "the log cannot be compacted; it is left alone until the broker starts anew"
                );
                counters.uncleanable_partitions.add(1);
                progress.uncleanable.insert(id);
            }
            Err(CompactionError::Log(error)) => {
                tracing::warn!(topic = %partition.topic(), partition = id.index, %error, "compaction is tried again later");
                return false;
            }
        }
        let entries = progress.first_dirty.clone();
        drop(progress);
        self.write_checkpoint(&partition, &entries);
        true
    }

    fn choose(&self, names: &Mutex<ByName>) -> Option<(Arc<Partition>, Option<i64>)> {
        let now_ms = Clock::wall_ms();
        let mut best: Option<(bool, f64, Arc<Partition>, Option<i64>)> = None;
        let mut progress = self.progress.lock();
        for partition in self.manager.partitions() {
            let id = partition.id();
            if !partition.rules().compacts()
                || progress.at_work.contains(&id)
                || progress.uncleanable.contains(&id)
            {
                continue;
            }
            let first_dirty = progress
                .first_dirty
                .get(&id)
                .copied()
                .or_else(|| names.lock().get(&(partition.topic().to_string(), id.index)).copied());
            let cleanable = match partition.lock().log.as_ref().map(|log| log.cleanable(first_dirty, now_ms))
            {
                Some(Ok(cleanable)) if cleanable.is_due => cleanable,
                Some(Err(error)) => {
                    tracing::error!(topic = %partition.topic(), partition = id.index, %error, "the log cannot be compacted");
                    self.manager.shared().counters.uncleanable_partitions.add(1);
                    progress.uncleanable.insert(id);
                    continue;
                }
                _ => continue,
            };
            let is_better = best
                .as_ref()
                .is_none_or(|(must, ratio, ..)| (cleanable.must, cleanable.ratio) > (*must, *ratio));
            if is_better {
                best = Some((cleanable.must, cleanable.ratio, partition, first_dirty));
            }
        }
        let (_, _, partition, first_dirty) = best?;
        progress.at_work.insert(partition.id());
        Some((partition, first_dirty))
    }

    fn compact(
        &self,
        partition: &Partition,
        first_dirty: Option<i64>,
        map: &mut OffsetMap,
    ) -> Result<Option<(i64, CompactionReport)>, CompactionError> {
        let Some(plan) = Self::plan(partition, first_dirty)? else { return Ok(None) };
        let began = Instant::now();
        let bytes_done = AtomicI64::new(0);
        #[allow(clippy::cast_precision_loss, reason = "threads are few; a rate needs no last digit")]
        let threads = self.options.threads.max(1) as f64;
        let number = |name: &str| self.manager.own_value(name, |text| text.parse::<f64>().ok());
        let rate = number("log.cleaner.io.max.bytes.per.second")
            .filter(|rate| *rate > 0.0)
            .unwrap_or(self.options.io_bytes_per_second_max)
            / threads;
        let mut throttle = |bytes: u64| {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            let done = bytes_done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
            #[allow(clippy::cast_precision_loss, reason = "a pause needs no last digit")]
            let due = done as f64 / rate - began.elapsed().as_secs_f64();
            if due > 0.001 {
                std::thread::sleep(Duration::from_secs_f64(due.min(1.0)));
            }
            !self.stop.is_cancelled()
        };
        let mut swap = |group| {
            let mut state = partition.lock();
            let log = state.log.as_mut().ok_or(CompactionError::Superseded)?;
            let old = log.swap_cleaned(group)?;
            drop(state);
            self.manager.directories().delete_later(self.manager.shared(), old);
            Ok(())
        };
        let report = compact(&plan, map, &mut throttle, &mut swap)?;
        let mut state = partition.lock();
        let log = state.log.as_mut().ok_or(CompactionError::Superseded)?;
        Ok(log.finish_compaction(plan, &report).map(|next| (next, report)))
    }

    fn plan(
        partition: &Partition,
        first_dirty: Option<i64>,
    ) -> Result<Option<CompactionPlan>, CompactionError> {
        let mut state = partition.lock();
        let log = state.log.as_mut().ok_or(CompactionError::Superseded)?;
        Ok(log.plan_compaction(first_dirty, Clock::wall_ms())?)
    }

    /// Writes the checkpoint of the partition's directory. An entry is never beyond the log's end: after a truncation it would
    /// hide new records from the next passes.
    fn write_checkpoint(&self, changed: &Partition, first_dirty: &HashMap<PartitionId, i64>) {
        let log_dir: Arc<LogDir> = Arc::clone(&changed.lock().log_dir);
        let entries: Vec<(String, i32, i64)> = self
            .manager
            .partitions()
            .iter()
            .filter_map(|partition| {
                let offset = *first_dirty.get(&partition.id())?;
                let state = partition.lock();
                let log = state.log.as_ref().filter(|_| Arc::ptr_eq(&state.log_dir, &log_dir))?;
                Some((partition.topic().to_string(), partition.index(), offset.min(log.end_offset())))
            })
            .collect();
        let path = log_dir.path().join(directory::CLEANER_OFFSETS);
        if let Err(error) = directory::write_checkpoint(&path, &entries) {
            tracing::warn!(path = %path.display(), %error, "the progress of the compaction was not written");
        }
    }
}
