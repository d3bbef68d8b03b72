//! What the checks look at. `None` and empty: it could not be read, or there is none.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ottla_broker::security::SecurityProtocol;

/// Everything that was read, at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Readings {
    /// Settings of the kernel by the names that `sysctl` gives them, as the kernel writes them.
    pub(crate) kernel: BTreeMap<String, String>,
    /// How many files a process may have open.
    pub(crate) open_files: Option<u64>,
    pub(crate) memory: Option<Memory>,
    /// Whether a process that keeps the time runs; `None` where other processes cannot be seen.
    pub(crate) time_service: Option<bool>,
    /// Source of the kernel's clock.
    pub(crate) clock_source: Option<String>,
    /// `always`, `madvise` or `never`.
    pub(crate) huge_pages: Option<String>,
    pub(crate) directories: Vec<Directory>,
    /// A node with this configuration runs here already.
    pub(crate) node_runs: bool,
    pub(crate) ports: Vec<Port>,
    /// What clients and other nodes are told.
    pub(crate) advertised: Vec<Advertised>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) listeners: Vec<Listening>,
    pub(crate) secret_files: Vec<SecretFile>,
    /// Seconds since 1970.
    pub(crate) now_s: i64,
    /// Properties that were set, empty without a configuration.
    pub(crate) properties: BTreeMap<String, String>,
    /// Problems of the configuration itself, in sentences.
    pub(crate) problems: Vec<String>,
}

/// Main memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Of the machine, or what a container may use of it.
    pub(crate) total_bytes: u64,
    pub(crate) available_bytes: u64,
    /// Room for pages that are swapped out.
    pub(crate) swap_bytes: u64,
}

/// A directory of `log.dirs`, or of the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// Why nothing can be written there.
    pub(crate) refused: Option<String>,
    /// Kind of the file system, `ext4`.
    pub(crate) file_system: String,
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// Options of the mount.
    pub(crate) options: Vec<String>,
    pub(crate) total_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) total_inodes: u64,
    pub(crate) free_inodes: u64,
}

/// Why a port cannot be bound that somebody has.
pub(crate) const TAKEN: &str = "another process listens there";

/// An address that the node is to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// The listener's name.
    pub(crate) name: String,
    pub(crate) address: String,
    /// Why it cannot be bound.
    pub(crate) refused: Option<String>,
}

/// An address that others are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advertised {
    /// The listener's name.
    pub(crate) name: String,
    pub(crate) address: String,
    /// Why its name has no address here.
    pub(crate) unknown: Option<String>,
}

/// What a listener is, as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) name: String,
    /// What it is bound to; empty: every address.
    pub(crate) host: String,
    pub(crate) protocol: SecurityProtocol,
    /// It is the one of controllers and of the admin plane.
    pub(crate) is_controller: bool,
}

/// A file that holds keys or passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretFile {
    /// The property that names it.
    pub(crate) property: String,
    pub(crate) path: PathBuf,
    /// As the file system has it.
    pub(crate) mode: u32,
}

/// Another node, a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: String,
    pub(crate) reached: Result<(), PeerFailure>,
    /// How far its clock is ahead of ours, in seconds; its answers tell whole seconds.
    pub(crate) clock_ahead_s: Option<i64>,
}

/// Why a node was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PeerFailure {
    /// Its name has no address.
    Name(String),
    /// It does not answer.
    Connection(String),
}

/// A certificate that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The property that names it.
    pub(crate) property: String,
    /// When it ends, in seconds since 1970, or why that could not be read.
    pub(crate) ends_s: Result<i64, String>,
}
