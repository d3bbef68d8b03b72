//! Who this controller is, kept in its metadata directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::types::RaftId;

const NAME: &str = "raft-identity";
const VERSION: u32 = 1;

/// Why a metadata directory cannot be used by this node.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory of another node.
    #[error("{path} belongs to node {owner}, this is node {node_id}; check node.id and metadata.log.dir")]
    Owner {
        /// The file that says so.
        path: String,
        /// Whose it is.
        owner: i32,
        /// Who asked.
        node_id: i32,
    },
    /// Two clusters meet.
    #[error("this node belongs to cluster {ours}, but {from} says {theirs}; two clusters are never joined")]
    Cluster {
        /// The cluster of this disk.
        ours: String,
        /// The other one.
        theirs: String,
        /// Who named the other one.
        from: String,
    },
    /// A file of another version, or damaged.
    #[error("{0}: {1}")]
    Broken(String, String),
    /// The disk.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Content {
    version: u32,
    raft_id: RaftId,
    /// Empty: not part of a cluster yet.
    cluster_id: String,
    /// This disk has had a vote: without one now it was removed, and does not come back by itself.
    #[serde(default)]
    has_voted: bool,
}

/// The identity; the cluster id is written as soon as it is known.
#[derive(Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    raft_id: RaftId,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    cluster_id: String,
    has_voted: bool,
}

impl Identity {
    /// Reads the identity of a directory or draws one. Blocks.
    pub(crate) fn open(directory: &Path, node_id: i32) -> Result<Self, IdentityError> {
        let path = directory.join(NAME);
        let name = path.display().to_string();
        let content = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Content>(&bytes)
                .map_err(|error| IdentityError::Broken(name.clone(), error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let raft_id = RaftId { node_id, incarnation: rand::random() };
                let content =
                    Content { version: VERSION, raft_id, cluster_id: String::new(), has_voted: false };
                write(&path, &content).map_err(|error| IdentityError::Io(name.clone(), error))?;
                content
            }
            Err(error) => return Err(IdentityError::Io(name, error)),
        };
        if content.version != VERSION {
            let text = format!("version {} is not known; want {VERSION}", content.version);
            return Err(IdentityError::Broken(name, text));
        }
        if content.raft_id.node_id != node_id {
            return Err(IdentityError::Owner { path: name, owner: content.raft_id.node_id, node_id });
        }
        let state = State { cluster_id: content.cluster_id, has_voted: content.has_voted };
        Ok(Self { path, raft_id: content.raft_id, state: Mutex::new(state) })
    }

    pub(crate) fn raft_id(&self) -> RaftId {
        self.raft_id
    }

    /// Empty: not known yet.
    pub(crate) fn cluster_id(&self) -> String {
        self.state.lock().cluster_id.clone()
    }

    /// Whether this disk has ever had a vote.
    pub(crate) fn has_voted(&self) -> bool {
        self.state.lock().has_voted
    }

    /// This disk has a vote, durable on return. Blocks the first time.
    pub(crate) fn note_voter(&self) -> Result<(), IdentityError> {
        self.change(|state| !std::mem::replace(&mut state.has_voted, true))
    }

    /// Refuses another cluster than ours. Empty names agree with everything.
    pub(crate) fn check_cluster(&self, theirs: &str, from: &str) -> Result<(), IdentityError> {
        let ours = self.cluster_id();
        if ours.is_empty() || theirs.is_empty() || *ours == *theirs {
            return Ok(());
        }
        Err(IdentityError::Cluster { ours, theirs: theirs.to_owned(), from: from.to_owned() })
    }

    /// Takes the cluster's id, durable on return: from now on this disk refuses another cluster. Blocks the first time.
    pub(crate) fn adopt_cluster(&self, cluster_id: &str, from: &str) -> Result<(), IdentityError> {
        self.check_cluster(cluster_id, from)?;
        self.change(|state| {
            let is_news = state.cluster_id.is_empty() && !cluster_id.is_empty();
            if is_news {
                cluster_id.clone_into(&mut state.cluster_id);
            }
            is_news
        })
    }

    /// What is changed counts only when it is on disk.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) -> Result<(), IdentityError> {
        let mut state = self.state.lock();
        let mut next = state.clone();
        if !change(&mut next) {
            return Ok(());
        }
        let content = Content {
            version: VERSION,
            raft_id: self.raft_id,
            cluster_id: next.cluster_id.clone(),
            has_voted: next.has_voted,
        };
        write(&self.path, &content)
            .map_err(|error| IdentityError::Io(self.path.display().to_string(), error))?;
        *state = next;
        Ok(())
    }
}

fn write(path: &Path, content: &Content) -> io::Result<()> {
    files::replace(path, &[&serde_json::to_vec(content)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_kept_and_refused_to_another_node() {
        let directory = tempfile::tempdir().unwrap();
        let first = Identity::open(directory.path(), 1).unwrap();
        first.adopt_cluster("abc", "a test").unwrap();
        let again = Identity::open(directory.path(), 1).unwrap();
        assert_eq!((again.raft_id(), again.cluster_id()), (first.raft_id(), "abc".to_owned()));
        assert!(!again.has_voted());
        again.note_voter().unwrap();
        let again = Identity::open(directory.path(), 1).unwrap();
        assert_eq!((again.has_voted(), again.cluster_id()), (true, "abc".to_owned()));
        let error = Identity::open(directory.path(), 2).unwrap_err().to_string();
        assert!(error.contains("belongs to node 1, this is node 2"), "{error}");
    }

    #[test]
    fn another_cluster_is_refused_by_both_names() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::open(directory.path(), 1).unwrap();
        identity.adopt_cluster("abc", "a test").unwrap();
        let error = identity.adopt_cluster("xyz", "node 3").unwrap_err().to_string();
        assert!(error.contains("abc") && error.contains("xyz") && error.contains("node 3"), "{error}");
    }
}
