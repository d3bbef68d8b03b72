//! The log directories of a broker: whose they are, where new replicas go, how replicas are removed.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ottla_log::directory::{self, DirectoryLock, Owner};
use ottla_log::{Log, LogError, OpenOptions};
use ottla_metadata::config;
use parking_lot::Mutex;
use uuid::Uuid;

use super::loading::{Candidate, load_all};
use super::options::Clock;
use super::rules::Rules;
use super::shared::{LogDir, PartitionId, ReplicaShared};

/// Log directories that take no new replicas (KIP-1066).
pub(crate) const CORDONED: &str = "cordoned.log.dirs";

/// Why the log directories cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Every directory failed.
    #[error("no log directory can be used: {0}")]
    NoDirectory(String),
    /// `cordoned.log.dirs` names something else than the directories.
    #[error("{0}")]
    Cordoned(String),
    /// Another process has a directory, or its files are another node's.
    #[error(transparent)]
    Directory(#[from] LogError),
}

/// A log found on disk.
#[derive(Debug)]
pub struct Loaded {
    /// Its topic's name.
    pub topic: String,
    /// None: it could not be read.
    pub log: Option<Box<Log>>,
    /// Where it lies.
    pub log_dir: Arc<LogDir>,
    /// As checkpointed.
    pub high_watermark: i64,
    /// It was not opened because records that were on disk are damaged.
    pub(crate) damaged: Option<Box<Damaged>>,
}

/// A log that lost what was on disk once.
#[derive(Debug)]
pub(crate) struct Damaged {
    pub(crate) reason: String,
    pub(crate) path: PathBuf,
    pub(crate) options: OpenOptions,
}

/// What became of a new replica.
#[derive(Debug)]
pub(crate) struct Created {
    /// None: it could not be made.
    pub(crate) log: Option<Log>,
    pub(crate) log_dir: Arc<LogDir>,
    /// There was no room for it.
    pub(crate) is_full: bool,
}

/// A renamed replica.
#[derive(Debug)]
pub(super) struct Deletion {
    pub(super) due_ms: u64,
    pub(super) path: PathBuf,
}

/// All log directories.
#[derive(Debug)]
pub struct Directories {
    all: Vec<Arc<LogDir>>,
    /// Of `log.dirs`, what could not be opened: nothing lies in them as long as this process runs, and operators see that.
    unusable: Vec<Arc<LogDir>>,
    /// Held until the process ends.
    locks: Vec<DirectoryLock>,
    pub(super) deletions: Mutex<Vec<Deletion>>,
    /// Whose directories these are, by path; written when the cluster is known.
    owners: Mutex<Vec<(PathBuf, Owner)>>,
    /// From the clean-shutdown marker; -1: the last stop was not a clean one.
    previous_broker_epoch: i64,
    /// Replicas that were on their way into a directory when the last process ended.
    pub(super) interrupted_moves: Mutex<Vec<(PartitionId, PathBuf)>>,
    /// Where replicas are to be made that are not here yet (KIP-113).
    preferred: Mutex<HashMap<(String, i32), Arc<LogDir>>>,
}

impl Directories {
    /// Locks the directories and loads every log in them.
    ///
    /// Crash story of the clean-shutdown marker: it is removed before the first log is opened for writing, so that a broker
    /// that dies right after its start is not taken for one that was stopped cleanly.
    pub(crate) fn open(
        shared: &Arc<ReplicaShared>,
        properties: &BTreeMap<String, String>,
    ) -> Result<(Self, HashMap<PartitionId, Loaded>), OpenError> {
        let mut directories = Self {
            all: Vec::new(),
            unusable: Vec::new(),
            locks: Vec::new(),
            deletions: Mutex::default(),
            owners: Mutex::default(),
            previous_broker_epoch: -1,
            interrupted_moves: Mutex::default(),
            preferred: Mutex::default(),
        };
        let mut candidates = Vec::new();
        let mut failures = Vec::new();
        for path in &shared.options.log_dirs {
            match directories.claim_one(shared, path) {
                Ok(one) => candidates.push(one),
                Err(error) if error.is_storage_fault() => {
                    // Nobody may be told that replicas lie in it.
                    directories.owners.lock().retain(|(owned, _)| owned != path);
                    failures.push(error.to_string());
                    let log_dir = LogDir::new(path.clone());
                    log_dir.fail(&error);
                    directories.unusable.push(log_dir);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let cordoned = config::get_string(properties, CORDONED);
        directories.check_cordons(cordoned).map_err(OpenError::Cordoned)?;
        if directories.all.is_empty() {
            return Err(OpenError::NoDirectory(failures.join("; ")));
        }
        if !failures.is_empty() {
            // What lies there may be all that this broker had of a partition.
            directories.previous_broker_epoch = -1;
        }
        let threads = shared.options.recovery_threads;
        let found = load_all(threads, properties, &shared.options.recovery, candidates);
        Ok((directories, found))
    }

    /// The cluster that the directories belong to; none: they are new.
    pub fn cluster_id(&self) -> Option<String> {
        self.owners.lock().iter().map(|(_, owner)| owner.cluster_id.clone()).find(|id| !id.is_empty())
    }

    /// Ids of the directories.
    pub fn ids(&self) -> Vec<Uuid> {
        self.owners.lock().iter().map(|(_, owner)| owner.directory_id).collect()
    }

    /// Makes the directories the cluster's for good.
    pub fn set_cluster_id(&self, cluster_id: &str) -> Result<(), OpenError> {
        for (path, owner) in self.owners.lock().iter_mut() {
            if owner.cluster_id != cluster_id {
                cluster_id.clone_into(&mut owner.cluster_id);
                directory::write_owner(path, owner)?;
            }
        }
        Ok(())
    }

    /// Reads who a directory belongs to; another node's, or one of another cluster than its neighbours', is refused.
    fn claim(&self, node_id: i32, path: &Path) -> Result<(), LogError> {
        let owner = match directory::read_owner(path)? {
            Some(owner) if owner.node_id != node_id => {
                return Err(LogError::Foreign(format!(
                    "the log directory {} belongs to node {}, this is node {node_id}; change 'node.id' or 'log.dirs'",
                    path.display(),
                    owner.node_id
                )));
            }
            Some(owner) => owner,
            None => Owner { cluster_id: String::new(), node_id, directory_id: Uuid::nil() },
        };
        if let Some(cluster) = self.cluster_id()
            && !owner.cluster_id.is_empty()
            && owner.cluster_id != cluster
        {
            return Err(LogError::Foreign(format!(
                "the log directory {} belongs to cluster {}, another one to cluster {cluster}",
                path.display(),
                owner.cluster_id
            )));
        }
        let directory_id = if owner.directory_id.is_nil() { Uuid::new_v4() } else { owner.directory_id };
        self.owners.lock().push((path.to_owned(), Owner { directory_id, ..owner }));
        Ok(())
    }

    /// Broker epoch of the last registration if the last stop was a clean one; -1: it was not.
    pub fn previous_broker_epoch(&self) -> i64 {
        self.previous_broker_epoch
    }

    /// All directories that could be opened.
    pub fn all(&self) -> &[Arc<LogDir>] {
        &self.all
    }

    /// All directories of `log.dirs`: those that could not be opened are offline.
    pub fn configured(&self) -> impl Iterator<Item = &Arc<LogDir>> {
        self.all.iter().chain(&self.unusable)
    }

    /// Whether a directory that is in service has room for records.
    pub(crate) fn has_room(&self) -> bool {
        self.all.iter().any(|log_dir| !log_dir.is_offline() && log_dir.has_room())
    }

    /// A new replica goes where there is room and the fewest are. Without a usable directory it has no log.
    pub(crate) fn create(&self, topic: &str, id: PartitionId, rules: &Rules) -> Created {
        // The controller gives a broker nothing new when all are cordoned; a decision of before may still come.
        let is_open = |dir: &&Arc<LogDir>| !dir.is_offline();
        let has_open = self.all.iter().any(|dir| is_open(&dir) && !dir.is_cordoned());
        let usable = self.all.iter().filter(|dir| is_open(dir) && !(has_open && dir.is_cordoned()));
        let preferred = self.preferred.lock().remove(&(topic.to_owned(), id.index));
        let preferred = preferred.as_ref().filter(|dir| !dir.is_offline());
        let Some(log_dir) = preferred
            .or_else(|| usable.min_by_key(|dir| (!dir.has_room(), dir.partitions.load(Ordering::Relaxed))))
            .or(self.all.first())
        else {
            return Created { log: None, log_dir: Self::without_directory(), is_full: false };
        };
        log_dir.partitions.fetch_add(1, Ordering::Relaxed);
        let path = log_dir.path().join(directory::partition_directory_name(topic, id.index));
        // Something of the same name that is not this replica (I36): nobody but its owner can say what it is worth.
        let aside = directory::set_aside(&path, topic, id.index).inspect(|aside| {
            if let Some(aside) = aside {
                tracing::error!(from = %path.display(), to = %aside.display(), "files that belong to no replica were set aside; remove them when they are not needed");
            }
        });
        let create = |_| {
            Log::create(&path, id.topic_id, rules.log_config(), Clock::wall_ms()).inspect_err(|error| {
                if error.is_no_space() {
                    // What there was room for is in the way of the next attempt.
                    drop(std::fs::remove_dir_all(&path));
                }
            })
        };
        let log = aside.and_then(create);
        let log = log.inspect_err(|error| {
            log_dir.partitions.fetch_sub(1, Ordering::Relaxed);
            tracing::error!(topic, partition = id.index, %error, "a replica cannot be created");
            if error.is_disk_fault() {
                log_dir.fail(error);
            }
        });
        let is_full = log.as_ref().is_err_and(LogError::is_no_space);
        Created { log: log.ok(), log_dir: Arc::clone(log_dir), is_full }
    }

    /// Notes renamed files or directories for removal: readers that began before may still be sending them.
    pub(crate) fn delete_later(&self, shared: &ReplicaShared, paths: Vec<PathBuf>) {
        let due_ms = shared.grant.clock().monotonic_ms() + shared.options.delete_delay_ms;
        self.deletions.lock().extend(paths.into_iter().map(|path| Deletion { due_ms, path }));
    }

    /// Takes out what is due.
    pub(crate) fn take_due(&self, now_ms: u64) -> Vec<PathBuf> {
        let mut deletions = self.deletions.lock();
        let (due, later) =
            std::mem::take(&mut *deletions).into_iter().partition(|deletion| deletion.due_ms <= now_ms);
        *deletions = later;
        let due: Vec<Deletion> = due;
        due.into_iter().map(|deletion| deletion.path).collect()
    }

    /// Whether a replica lies, by the metadata, in a directory that could not be opened. An empty one must not be made in its
    /// place: if it were the last in-sync replica it would be elected, and all records would be gone.
    pub(crate) fn is_missing(&self, directory: Uuid) -> bool {
        !self.unusable.is_empty() && directory.as_u128() > UNNAMED_MAX && !self.ids().contains(&directory)
    }

    /// A replica that lies where nothing can be read.
    pub(crate) fn without_directory() -> Arc<LogDir> {
        LogDir::new(PathBuf::new())
    }

    /// A replica that may come is to be made there.
    pub(crate) fn prefer(&self, topic: &str, index: i32, log_dir: &Arc<LogDir>) {
        let mut preferred = self.preferred.lock();
        if preferred.len() < PREFERRED_MAX {
            preferred.insert((topic.to_owned(), index), Arc::clone(log_dir));
        }
    }

    /// Takes out what was on its way, and where to.
    pub(crate) fn take_interrupted_moves(&self) -> Vec<(PartitionId, PathBuf)> {
        std::mem::take(&mut *self.interrupted_moves.lock())
    }

    /// The id of a directory.
    pub fn id_of(&self, log_dir: &LogDir) -> Option<Uuid> {
        let owners = self.owners.lock();
        owners.iter().find(|(path, _)| path == log_dir.path()).map(|(_, owner)| owner.directory_id)
    }

    /// `cordoned.log.dirs`: paths, or `*`.
    pub(crate) fn apply_cordons(&self, cordoned: Option<&str>) {
        let cordoned = cordoned.unwrap_or_default();
        for log_dir in &self.all {
            let is_named = |path: &str| path == "*" || Path::new(path) == log_dir.path();
            log_dir.set_cordoned(cordoned.split(',').map(str::trim).any(is_named));
        }
    }

    /// Whether `cordoned.log.dirs` names directories of this broker, or `*` alone; the text says what it may be.
    pub(crate) fn check_cordons(&self, cordoned: &str) -> Result<(), String> {
        let named: Vec<&str> = cordoned.split(',').map(str::trim).filter(|path| !path.is_empty()).collect();
        if named == ["*"] {
            return Ok(());
        }
        let is_known = |path: &str| self.configured().any(|log_dir| Path::new(path) == log_dir.path());
        match named.iter().find(|path| !is_known(path)) {
            None => Ok(()),
            Some(&"*") => Err("cordoned.log.dirs: '*' means every directory and stands alone".to_owned()),
            Some(path) => {
                let known: Vec<String> =
                    self.configured().map(|log_dir| log_dir.path().display().to_string()).collect();
                Err(format!("cordoned.log.dirs: {path} is none of log.dirs, which are {}", known.join(",")))
            }
        }
    }

    /// Appends that are refused for want of room are logged again.
    pub(crate) fn clear_without_space(&self) {
        for log_dir in &self.all {
            log_dir.clear_without_space();
        }
    }

    /// Asks the system how much room is left in each.
    pub(crate) fn measure_room(&self) {
        for log_dir in self.all.iter().filter(|log_dir| !log_dir.is_offline()) {
            log_dir.measure_room();
        }
    }

    /// Renames the directory of a replica that nobody knows: it is not served, and whoever knows better finds it.
    pub(crate) fn set_aside(topic: &str, id: PartitionId, log: &Log, log_dir: &LogDir) {
        log_dir.partitions.fetch_sub(1, Ordering::Relaxed);
        log_dir.stale_names.lock().insert((topic.to_owned(), id.index));
        match directory::set_aside(log.directory(), topic, id.index) {
            Ok(Some(to)) => tracing::warn!(to = %to.display(), "remove it when it is not needed"),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(topic, partition = id.index, %error, "a stray replica's directory cannot be renamed");
            }
        }
    }

    /// Renames the replica's directory, which takes it off the disk's namespace at once, and notes it for removal.
    pub(crate) fn delete(
        &self,
        shared: &ReplicaShared,
        topic: &str,
        id: PartitionId,
        log: Log,
        log_dir: &LogDir,
    ) {
        log_dir.partitions.fetch_sub(1, Ordering::Relaxed);
        log_dir.stale_names.lock().insert((topic.to_owned(), id.index));
        match log.rename_for_deletion() {
            Ok(path) => self.delete_later(shared, vec![path]),
            Err(error) => {
                tracing::error!(topic, partition = id.index, %error, "a removed replica's directory cannot be renamed");
                if error.is_disk_fault() {
                    log_dir.fail(&error);
                }
            }
        }
    }
}
/// Replicas that are not here and of which a place is remembered; more are made where there is most room.
const PREFERRED_MAX: usize = 10_000;

/// Ids up to this one name no directory: not assigned, lost, being moved.
const UNNAMED_MAX: u128 = 2;

impl Directories {
    fn claim_one(
        &mut self,
        shared: &Arc<ReplicaShared>,
        path: &Path,
    ) -> Result<(Arc<LogDir>, Vec<Candidate>), LogError> {
        self.locks.push(directory::lock(path)?);
        self.claim(shared.options.broker_id, path)?;
        let clean_shutdown = directory::take_clean_shutdown(path)?;
        let log_dir = LogDir::new(path.to_owned());
        log_dir.measure_room();
        let candidates = self.candidates(&log_dir, clean_shutdown.is_some())?;
        // One directory that was not closed cleanly is enough: what it held may be gone.
        let epoch = clean_shutdown.unwrap_or(-1);
        let is_first = self.all.is_empty();
        self.previous_broker_epoch = if is_first { epoch } else { self.previous_broker_epoch.min(epoch) };
        self.all.push(Arc::clone(&log_dir));
        Ok((log_dir, candidates))
    }
}

/// Removes a renamed file or directory for good. What fails stays on disk until the next start.
pub(crate) fn remove(path: &Path) {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::error!(path = %path.display(), %error, "a deleted file cannot be removed");
    }
}
