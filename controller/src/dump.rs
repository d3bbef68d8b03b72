//! What a stopped controller has on its disk: snapshot, vote and log, for `ottla metadata dump`.
//!
//! The store is copied first and the copy is opened: opening sled writes to its directory, and a look must change nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use ottla_proto::controller::SnapshotChunk;
use ottla_proto::metadata::{MetadataBatch, MetadataRecord};
use prost::Message;

use crate::controller::LOG_DIRECTORY;
use crate::state_machine::snapshot_file;
use crate::store::SledStore;
use crate::types::{Entry, image_index};

/// Everything that was found.
#[derive(Debug)]
pub struct MetadataDump {
    /// Node id and incarnation of the disk, and the cluster's id; as the file has them.
    pub identity: Option<String>,
    /// The vote that was given last.
    pub vote: Option<String>,
    /// The last entry that was known to be committed.
    pub committed: Option<i64>,
    /// The last entry that was given up because a snapshot has it.
    pub purged: Option<i64>,
    /// The snapshot, if there is one.
    pub snapshot: Option<SnapshotDump>,
    /// The log.
    pub entries: Vec<EntryDump>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// A snapshot.
#[derive(Debug)]
pub struct SnapshotDump {
    /// The last entry that it holds.
    pub index: i64,
    /// Its records.
    pub records: Vec<MetadataRecord>,
}

/// An entry of the log.
#[derive(Debug)]
pub struct EntryDump {
    /// Its position.
    pub index: u64,
    /// The term that it was written in.
    pub term: u64,
    /// What it holds.
    pub content: EntryContent,
}

/// What an entry holds.
#[derive(Debug)]
pub enum EntryContent {
    /// Nothing: the first of a term.
    Blank,
    /// The members of the quorum, in words.
    Membership(String),
    /// Records.
    Records(Vec<MetadataRecord>),
}

/// A directory that is gone when this is.
struct Copy(PathBuf);

impl Copy {
    fn of(from: &Path) -> io::Result<Self> {
        let to = std::env::temp_dir().join(format!(
            "ottla-dump-{}-{:x}",
            std::process::id(),
            rand::random::<u64>()
        ));
        let copy = Self(to);
        copy_files(from, &copy.0)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Under the system's directory for what is temporary: what cannot be removed goes with it.
        drop(fs::remove_dir_all(&self.0));
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Reads a controller's metadata directory. What cannot be read is among the problems. Blocks.
pub fn dump(directory: &Path) -> io::Result<MetadataDump> {
    let mut problems = Vec::new();
    let identity = fs::read_to_string(directory.join("raft-identity")).ok();
    let snapshot = match snapshot(directory, &mut problems) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    };
    let log = directory.join(LOG_DIRECTORY);
    let mut found = MetadataDump {
        identity,
        vote: None,
        committed: None,
        purged: None,
        snapshot,
        entries: Vec::new(),
        problems,
    };
    if !log.is_dir() {
        if found.snapshot.is_none() && found.identity.is_none() && found.problems.is_empty() {
            let text = format!("{} is no metadata directory of a controller", directory.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        found.problems.push(format!("there is no {}", log.display()));
        return Ok(found);
    }
    let copy = Copy::of(&log)?;
    let store = SledStore::open(&copy.0).map_err(io::Error::other)?;
    let read = found.read_store(&store);
    store.close();
    read?;
    found.check();
    Ok(found)
}

fn snapshot(directory: &Path, problems: &mut Vec<String>) -> io::Result<Option<SnapshotDump>> {
    let Some(snapshot) = snapshot_file::read(directory)? else { return Ok(None) };
    let index = snapshot.meta.last_log_id.as_ref().map_or(-1, image_index);
    if let Err(error) = snapshot_file::to_image(index, &snapshot.snapshot) {
        problems.push(format!("the snapshot's records do not fit together: {error}"));
    }
    let mut rest = snapshot.snapshot;
    let mut records = Vec::new();
    while !rest.is_empty() {
        records.extend(SnapshotChunk::decode_length_delimited(&mut rest).map_err(io::Error::other)?.records);
    }
    Ok(Some(SnapshotDump { index, records }))
}

impl MetadataDump {
    fn read_store(&mut self, store: &SledStore) -> io::Result<()> {
        let position = store.position()?;
        self.vote = position.vote.map(|vote| vote.to_string());
        self.committed = position.committed.as_ref().map(image_index);
        self.purged = position.purged.as_ref().map(image_index);
        for entry in store.entries()? {
            match content(&entry) {
                Ok(content) => {
                    let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
                    self.entries.push(EntryDump { index, term, content });
                }
                Err(error) => self.problems.push(format!("entry {}: {error}", entry.log_id.index)),
            }
        }
        Ok(())
    }

    /// What a reader of it must be able to rely on: no gap, and records that apply.
    fn check(&mut self) {
        let mut expected = self.purged.and_then(|index| u64::try_from(index + 1).ok());
        for entry in &self.entries {
            if let Some(expected) = expected
                && entry.index != expected
            {
                self.problems
                    .push(format!("entries {expected} to {} are missing", entry.index.saturating_sub(1)));
            }
            expected = Some(entry.index + 1);
        }
        let base = self.snapshot.as_ref().map_or(-1, |snapshot| snapshot.index);
        if self.purged.is_some_and(|purged| purged > base) {
            self.problems
                .push("the log begins behind the snapshot: entries between them are missing".to_owned());
        }
    }
}

fn content(entry: &Entry) -> io::Result<EntryContent> {
    Ok(match &entry.payload {
        EntryPayload::Blank => EntryContent::Blank,
        EntryPayload::Membership(membership) => EntryContent::Membership(membership.to_string()),
        EntryPayload::Normal(batch) => {
            let batch = MetadataBatch::decode(batch.0.clone()).map_err(io::Error::other)?;
            EntryContent::Records(batch.records)
        }
    })
}
