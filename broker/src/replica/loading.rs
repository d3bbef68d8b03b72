//! Opening every log of the log directories at the start, side by side: `num.recovery.threads.per.data.dir` threads for each
//! directory, all directories at once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ottla_log::directory::{self, Kind};
use ottla_log::{LoadProgress, Log, LogError, OpenOptions};
use ottla_metadata::image::MetadataImage;
use parking_lot::Mutex;

use super::directories::{Damaged, Deletion, Directories, Loaded};
use super::options::Clock;
use super::rules::Rules;
use super::shared::{LogDir, PartitionId};

/// How far the start has come with the logs; its text is for people.
#[derive(Debug, Default)]
pub struct Recovery {
    logs: AtomicUsize,
    logs_open: AtomicUsize,
    bytes: LoadProgress,
}

impl Recovery {
    /// Whether all logs that were found are open.
    pub fn is_done(&self) -> bool {
        self.logs_open.load(Ordering::Relaxed) >= self.logs.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        let (open, all) = (self.logs_open.load(Ordering::Relaxed), self.logs.load(Ordering::Relaxed));
        write!(f, "opening logs: {open} of {all} are open")?;
        let (checked, to_check) = (
            self.bytes.bytes_checked.load(Ordering::Relaxed),
            self.bytes.bytes_to_check.load(Ordering::Relaxed),
        );
        if to_check > 0 {
            write!(
                f,
                ", {} of at least {} MiB checked after an unclean stop",
                checked / MIB,
                to_check / MIB
            )?;
        }
        Ok(())
    }
}

/// A partition's directory and what the checkpoints say of it.
pub(super) struct Candidate {
    id: PartitionId,
    topic: String,
    path: PathBuf,
    options: OpenOptions,
    high_watermark: i64,
}

impl Directories {
    /// Directories of partitions. What was renamed for deletion before the last stop is noted for removal.
    pub(super) fn candidates(
        &self,
        log_dir: &LogDir,
        clean_shutdown: bool,
    ) -> Result<Vec<Candidate>, LogError> {
        let path = log_dir.path();
        let high_watermarks = read_checkpoint(&path.join(directory::HIGH_WATERMARKS))?;
        let recovery_points = read_checkpoint(&path.join(directory::RECOVERY_POINTS))?;
        let log_starts = read_checkpoint(&path.join(directory::LOG_STARTS))?;
        let checkpoints = [&high_watermarks, &recovery_points, &log_starts];
        let mut stale: std::collections::HashSet<(String, i32)> =
            checkpoints.into_iter().flat_map(|offsets| offsets.keys().cloned()).collect();
        let mut candidates = Vec::new();
        for found in directory::scan(path)? {
            if matches!(found.kind, Kind::Future)
                && let Ok(Some(topic_id)) = directory::read_topic_id(&found.path)
            {
                // The copy is begun anew: what of it was synced is not known.
                let id = PartitionId { topic_id, index: found.partition };
                self.interrupted_moves.lock().push((id, path.to_owned()));
            }
            if !matches!(found.kind, Kind::Partition) {
                self.deletions.lock().push(Deletion { due_ms: 0, path: found.path });
                continue;
            }
            // Without a topic id nobody can say whose records these are: a stray, left alone and never served (I36).
            let topic_id = match directory::read_topic_id(&found.path) {
                Ok(Some(topic_id)) => topic_id,
                Ok(None) => {
                    tracing::warn!(path = %found.path.display(), "has no topic id and is not served");
                    continue;
                }
                Err(error @ LogError::Corrupt { .. }) => {
                    tracing::error!(path = %found.path.display(), %error, "has no readable topic id and is not served");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let key = (found.topic, found.partition);
            stale.remove(&key);
            let checkpointed =
                |offsets: &HashMap<(String, i32), i64>| offsets.get(&key).copied().unwrap_or(0);
            candidates.push(Candidate {
                id: PartitionId { topic_id, index: found.partition },
                options: OpenOptions {
                    recovery_point: checkpointed(&recovery_points),
                    clean_shutdown,
                    log_start_offset: checkpointed(&log_starts),
                    now_ms: Clock::wall_ms(),
                    keeps_damage: true,
                },
                high_watermark: checkpointed(&high_watermarks),
                topic: key.0,
                path: found.path,
            });
        }
        // Most were found, and an empty set keeps its room.
        stale.shrink_to_fit();
        *log_dir.stale_names.lock() = stale;
        Ok(candidates)
    }
}

/// A checkpoint is a cache (I28): of one that is damaged nothing is believed, and recovery reads more.
fn read_checkpoint(path: &Path) -> Result<HashMap<(String, i32), i64>, LogError> {
    match directory::read_checkpoint(path) {
        Err(error @ LogError::Corrupt { .. }) => {
            tracing::warn!(%error, "a checkpoint cannot be used; the logs are read instead");
            Ok(HashMap::new())
        }
        read => read,
    }
}

/// Opens the logs of all directories side by side. One that cannot be opened is kept without its log: the partition is offline,
/// others are not.
pub(super) fn load_all(
    threads: usize,
    properties: &BTreeMap<String, String>,
    recovery: &Recovery,
    directories: Vec<(Arc<LogDir>, Vec<Candidate>)>,
) -> HashMap<PartitionId, Loaded> {
    let count = directories.iter().map(|(_, candidates)| candidates.len()).sum();
    recovery.logs.store(count, Ordering::Relaxed);
    // Settings of topics are not known before the image is; they come with it.
    let config = Rules::of(&MetadataImage::default(), properties, -1, "").log_config();
    let work = |queue: &Mutex<Vec<Candidate>>, log_dir: &Arc<LogDir>| {
        let mut found = HashMap::new();
        loop {
            let Some(next) = queue.lock().pop() else { return found };
            let id = next.id;
            let opened =
                Log::open_with_progress(&next.path, Arc::clone(&config), next.options, &recovery.bytes);
            recovery.logs_open.fetch_add(1, Ordering::Relaxed);
            found.insert(id, loaded(next, opened, log_dir));
        }
    };
    let queues: Vec<_> = directories
        .into_iter()
        .map(|(log_dir, candidates)| {
            log_dir.partitions.store(candidates.len(), Ordering::Relaxed);
            (log_dir, Mutex::new(candidates))
        })
        .collect();
    let mut found = HashMap::with_capacity(count);
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for (log_dir, queue) in &queues {
            for _ in 0..threads.clamp(1, queue.lock().len().max(1)) {
                workers.push(scope.spawn(|| work(queue, log_dir)));
            }
        }
        for worker in workers {
            match worker.join() {
                Ok(logs) => keep_longer(&mut found, logs),
                // Its logs are not known now, and are taken for none of this broker's: better not to start.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    found
}

fn loaded(
    candidate: Candidate,
    opened: Result<(Log, ottla_log::LoadReport), LogError>,
    log_dir: &Arc<LogDir>,
) -> Loaded {
    let Candidate { topic, path, options, high_watermark, .. } = candidate;
    let mut damaged = None;
    let log = match opened {
        Ok((log, _)) => Some(Box::new(log)),
        Err(error @ LogError::Damaged { .. }) => {
            damaged = Some(Box::new(Damaged { reason: error.to_string(), path, options }));
            None
        }
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a log cannot be opened; its partition is offline");
            None
        }
    };
    Loaded { topic, log, log_dir: Arc::clone(log_dir), high_watermark, damaged }
}

/// A crash in the last step of a move between directories leaves the replica in both: the longer one stays.
fn keep_longer(found: &mut HashMap<PartitionId, Loaded>, others: HashMap<PartitionId, Loaded>) {
    let end = |loaded: &Loaded| loaded.log.as_deref().map_or(-1, Log::end_offset);
    for (id, other) in others {
        let worse = match found.remove(&id) {
            None => {
                found.insert(id, other);
                continue;
            }
            Some(known) if end(&known) >= end(&other) => {
                found.insert(id, known);
                other
            }
            Some(known) => {
                found.insert(id, other);
                known
            }
        };
        tracing::warn!(topic = worse.topic, partition = id.index, directory = %worse.log_dir.path().display(),
            "lies in two directories, because a move was cut short: the shorter one is removed");
        worse.log_dir.partitions.fetch_sub(1, Ordering::Relaxed);
        match worse.log.map(|log| log.rename_for_deletion()) {
            Some(Ok(path)) => super::directories::remove(&path),
            Some(Err(error)) => tracing::error!(%error, "a replica that was moved away cannot be removed"),
            None => {}
        }
    }
}

/// Opens a damaged log for all that, cut where the damage begins: the rest comes from its leader again.
pub(super) fn open_cut(damaged: &Damaged, rules: &Rules, path: &Path) -> Result<Log, LogError> {
    let options = OpenOptions { keeps_damage: false, now_ms: Clock::wall_ms(), ..damaged.options };
    Log::open(path, rules.log_config(), options).map(|(log, _)| log)
}
