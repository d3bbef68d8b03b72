//! The files of a whole log directory: its owner, its lock, its checkpoints, its partitions.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::checkpoint::{read_lines, write_lines};
use crate::epoch_cache::EpochCache;
use crate::error::LogError;
use crate::fs;

/// High watermarks.
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Offsets up to which logs are synced.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// First offsets.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// First offsets that no pass of compaction has seen.
pub const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const LOCK: &str = ".lock";
const META: &str = "meta.properties";
const PARTITION_METADATA: &str = "partition.metadata";

/// Held as long as a process uses a directory.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Creates the directory if need be and takes it for this process. The refusal names the process that has it.
pub fn lock(path: &Path) -> Result<DirectoryLock, LogError> {
    std::fs::create_dir_all(path).map_err(LogError::io("cannot create", path))?;
    let lock_path = path.join(LOCK);
    let mut file = fs::open(&lock_path)?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut owner = String::new();
        // The owner's number is a courtesy: the refusal stands without it.
        let _ = file.read_to_string(&mut owner);
        let owner = owner.trim();
        let who = if owner.is_empty() { "another process".to_owned() } else { format!("process {owner}") };
        return Err(LogError::Foreign(format!(
            "the log directory {} is in use by {who}; stop it, or change the property 'log.dirs'",
            path.display()
        )));
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(LogError::io("cannot write", &lock_path))?;
    Ok(DirectoryLock { _file: file })
}

/// Who a directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Empty: not known yet.
    pub cluster_id: String,
    /// `node.id`.
    pub node_id: i32,
    /// Of this directory.
    pub directory_id: Uuid,
}

/// Reads `meta.properties`; none: the directory is new.
pub fn read_owner(path: &Path) -> Result<Option<Owner>, LogError> {
    let path = path.join(META);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("cannot read", &path)(error)),
    };
    let value = |name: &str| {
        text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let damaged = |reason: &str| LogError::corrupt(&path, 0, reason);
    let node_id = value("node.id")
        .or_else(|| value("broker.id"))
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| damaged("no node.id"))?;
    let directory_id = match value("directory.id") {
        Some(id) => decode_id(&id).ok_or_else(|| damaged("directory.id is not an id"))?,
        None => Uuid::nil(),
    };
    Ok(Some(Owner { cluster_id: value("cluster.id").unwrap_or_default(), node_id, directory_id }))
}

/// Writes `meta.properties`, durably.
pub fn write_owner(path: &Path, owner: &Owner) -> Result<(), LogError> {
    let text = format!(
        "version=1\ncluster.id={}\nnode.id={}\ndirectory.id={}\n",
        owner.cluster_id,
        owner.node_id,
        encode_id(owner.directory_id)
    );
    fs::write_atomically(&path.join(META), text.as_bytes(), true)
}

fn encode_id(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

fn decode_id(text: &str) -> Option<Uuid> {
    Uuid::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// What a directory's name says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A partition's log.
    Partition,
    /// On its way to be removed.
    Deleted,
    /// A copy that is being moved here.
    Future,
}

/// A partition's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDirectory {
    /// Where.
    pub path: PathBuf,
    /// The topic's name (of a deleted one, as far as it can be told).
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// See the type.
    pub kind: Kind,
}

/// The name of a partition's directory.
pub fn partition_directory_name(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// A name for the copy of a partition that is being moved into this log directory (KIP-113):
/// `topic-partition.<uuid>-future`. When it has caught up, [`crate::Log::rename_directory`] gives it the partition's name.
pub fn future_directory_name(topic: &str, partition: i32) -> String {
    name_with_id(topic, &partition.to_string(), "-future")
}

/// Renames a partition's directory that is in the way of a new one: `topic-partition.<uuid>-stray`, as Kafka names them. Nothing
/// reads it any more, and nothing removes it. Gives the new name, or none if there is nothing in the way.
pub fn set_aside(path: &Path, topic: &str, partition: i32) -> Result<Option<PathBuf>, LogError> {
    if !path.exists() {
        return Ok(None);
    }
    let to = path.with_file_name(name_with_id(topic, &partition.to_string(), "-stray"));
    fs::rename(path, &to)?;
    path.parent().map_or(Ok(()), fs::sync_directory)?;
    Ok(Some(to))
}

/// A long topic is cut, as Kafka does, for the name to fit into a file system's 255 bytes.
pub(crate) fn name_with_id(topic: &str, partition: &str, suffix: &str) -> String {
    const NAME_BYTES_MAX: usize = 255;
    let suffix = format!("-{partition}.{}{suffix}", Uuid::new_v4().simple());
    let mut end = topic.len().min(NAME_BYTES_MAX.saturating_sub(suffix.len()));
    while !topic.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &topic[..end])
}

/// Every partition's directory in a log directory.
pub fn scan(path: &Path) -> Result<Vec<FoundDirectory>, LogError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(LogError::io("cannot list", path))? {
        let entry = entry.map_err(LogError::io("cannot list", path))?;
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let (stem, kind) = if let Some(stem) = name.strip_suffix("-delete") {
            (stem.rsplit_once('.').map_or(stem, |(stem, _)| stem), Kind::Deleted)
        } else if let Some(stem) = name.strip_suffix("-future") {
            (stem.rsplit_once('.').map_or(stem, |(stem, _)| stem), Kind::Future)
        } else if name.ends_with("-stray") {
            continue;
        } else {
            (name.as_str(), Kind::Partition)
        };
        let Some((topic, partition)) = stem.rsplit_once('-') else { continue };
        let Ok(partition) = partition.parse() else { continue };
        // Kafka's own metadata log is not a partition of ours.
        if topic == "__cluster_metadata" {
            continue;
        }
        found.push(FoundDirectory { path: entry.path(), topic: topic.to_owned(), partition, kind });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The topic id in a partition's `partition.metadata`.
pub fn read_topic_id(path: &Path) -> Result<Option<Uuid>, LogError> {
    let path = path.join(PARTITION_METADATA);
    match std::fs::read_to_string(&path) {
        Ok(text) => text
            .lines()
            .find_map(|line| line.strip_prefix("topic_id:"))
            .and_then(|id| decode_id(id.trim()))
            .map(Some)
            .ok_or_else(|| LogError::corrupt(&path, 0, "no topic_id")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io("cannot read", &path)(error)),
    }
}

/// The latest leader epoch of a partition's directory, by its `leader-epoch-checkpoint`.
pub fn latest_epoch(path: &Path) -> Option<i32> {
    EpochCache::open(&Arc::from(path)).0.latest()
}

/// Where a partition's directory says what topic it is of.
pub(crate) fn topic_id_path(path: &Path) -> PathBuf {
    path.join(PARTITION_METADATA)
}

/// Durable with the log's first flush.
pub(crate) fn write_topic_id(path: &Path, id: Uuid) -> Result<(), LogError> {
    let text = format!("version: 0\ntopic_id: {}\n", encode_id(id));
    fs::write_atomically(&topic_id_path(path), text.as_bytes(), false)
}

/// Reads and removes the marker of a clean stop; gives the broker epoch in it.
pub fn take_clean_shutdown(path: &Path) -> Result<Option<i64>, LogError> {
    let marker = path.join(CLEAN_SHUTDOWN);
    let text = match std::fs::read_to_string(&marker) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("cannot read", &marker)(error)),
    };
    fs::remove(&marker)?;
    fs::sync_directory(path)?;
    // Old markers are empty: a clean stop of an unknown epoch.
    let digits: String = text
        .split_once("\"brokerEpoch\":")
        .map(|(_, rest)| rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect())
        .unwrap_or_default();
    Ok(Some(digits.parse().unwrap_or(-1)))
}

/// Writes the marker of a clean stop, durably: nothing may be written to the directory's logs after it.
pub fn write_clean_shutdown(path: &Path, broker_epoch: i64) -> Result<(), LogError> {
    let text = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
    fs::write_atomically(&path.join(CLEAN_SHUTDOWN), text.as_bytes(), true)
}

/// Reads a checkpoint of offsets by topic and partition.
pub fn read_checkpoint(path: &Path) -> Result<HashMap<(String, i32), i64>, LogError> {
    let mut offsets = HashMap::new();
    for line in read_lines(path)? {
        let mut words = line.split_whitespace();
        let entry = (|| Some((words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?)))();
        let (topic, partition, offset) =
            entry.ok_or_else(|| LogError::corrupt(path, 0, format!("not an entry: {line}")))?;
        offsets.insert((topic.to_owned(), partition), offset);
    }
    Ok(offsets)
}

/// Replaces a checkpoint of offsets, durably.
pub fn write_checkpoint(path: &Path, offsets: &[(String, i32, i64)]) -> Result<(), LogError> {
    let lines: Vec<String> =
        offsets.iter().map(|(topic, partition, offset)| format!("{topic} {partition} {offset}")).collect();
    write_lines(path, &lines, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_and_its_owner_named() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        let refusal = lock(directory.path()).unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        drop(held);
        lock(directory.path()).unwrap();
    }

    #[test]
    fn checkpoints_owner_and_marker_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(HIGH_WATERMARKS);
        assert!(read_checkpoint(&path).unwrap().is_empty());
        write_checkpoint(&path, &[("a-b".into(), 3, 77), ("c".into(), 0, 0)]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n2\na-b 3 77\nc 0 0\n");
        assert_eq!(read_checkpoint(&path).unwrap()[&("a-b".into(), 3)], 77);
        let owner = Owner { cluster_id: "x".into(), node_id: 4, directory_id: Uuid::from_u128(9) };
        write_owner(directory.path(), &owner).unwrap();
        assert_eq!(read_owner(directory.path()).unwrap(), Some(owner));
        assert_eq!(take_clean_shutdown(directory.path()).unwrap(), None);
        write_clean_shutdown(directory.path(), 12).unwrap();
        assert_eq!(take_clean_shutdown(directory.path()).unwrap(), Some(12));
        assert_eq!(take_clean_shutdown(directory.path()).unwrap(), None);
    }
}
