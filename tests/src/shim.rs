//! Faults of the disk and of the wall clock for one node: a library (`tests/shim/faulty.c`) that is loaded before libc and turned on
//! and off while the node runs. It needs no rights, but a C compiler (`cc`, which cargo needs to link anyway) and an `ottla` that is
//! linked to libc at run time, as cargo builds it by default: a static one is not reached, and [`Shim::assert_loaded`] says so.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::eventually;
use crate::node::Node;

/// What can be turned. The places are those of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knob {
    /// The library says that it is there: the process's number.
    Loaded,
    /// The wall clock is so many milliseconds ahead.
    WallOffsetMs,
    /// Writes fail with this error number.
    WriteError,
    /// Syncs do.
    SyncError,
    /// New names do.
    CreateError,
    /// Reads do.
    ReadError,
    /// Syncs take so much longer.
    SyncDelayMs,
    /// Writes do.
    WriteDelayMs,
    /// So many failures to come; below 0: without end.
    FailuresLeft,
    /// Not 0: a write that finds no room leaves half of its bytes.
    Tears,
    /// How many calls have failed.
    Failed,
    /// How many syncs there were of a file of which an earlier sync had failed.
    SyncedAgain,
}

/// EIO.
pub const DISK_FAULT: i64 = 5;
/// ENOSPC.
pub const NO_SPACE: i64 = 28;
/// Numbers in the control file.
const KNOBS: usize = 16;

/// The library in one node's process.
#[derive(Debug)]
pub struct Shim {
    control: File,
    node: i32,
}

fn library(directory: &Path) -> Result<PathBuf> {
    let library = directory.join("faulty.so");
    if !library.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/faulty.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl")
            .output()
            .context("faults of disks and clocks need a C compiler (cc)")?;
        if !built.status.success() {
            bail!("{} is not built: {}", source.display(), String::from_utf8_lossy(&built.stderr));
        }
    }
    Ok(library)
}

impl Shim {
    /// Puts the library before a node that does not run yet. Faults of the disk are those of files below `prefix`.
    pub fn install(node: &mut Node, prefix: &Path) -> Result<Self> {
        let library = library(node.directory())?;
        let path = node.directory().join("faults");
        let control = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        control.write_all_at(&[0; 8 * KNOBS], 0)?;
        node.set_variable("LD_PRELOAD", library);
        node.set_variable("OTTLA_SHIM_CONTROL", path);
        node.set_variable("OTTLA_SHIM_PREFIX", prefix);
        let shim = Self { control, node: node.id };
        shim.set(Knob::FailuresLeft, -1)?;
        Ok(shim)
    }

    /// Turns one knob.
    pub fn set(&self, knob: Knob, value: i64) -> Result<()> {
        Ok(self.control.write_all_at(&value.to_ne_bytes(), 8 * knob as u64)?)
    }

    /// What one says.
    pub fn get(&self, knob: Knob) -> Result<i64> {
        let mut value = [0; 8];
        self.control.read_exact_at(&mut value, 8 * knob as u64)?;
        Ok(i64::from_ne_bytes(value))
    }

    /// No room is left: nothing is written, and no name is made.
    pub fn fill_disk(&self) -> Result<()> {
        self.set(Knob::Tears, 1)?;
        self.set(Knob::WriteError, NO_SPACE)?;
        self.set(Knob::CreateError, NO_SPACE)
    }

    /// Nothing fails and nothing is slow any more.
    pub fn clear(&self) -> Result<()> {
        for knob in [
            Knob::WriteError,
            Knob::SyncError,
            Knob::CreateError,
            Knob::ReadError,
            Knob::SyncDelayMs,
            Knob::WriteDelayMs,
            Knob::Tears,
        ] {
            self.set(knob, 0)?;
        }
        self.set(Knob::FailuresLeft, -1)
    }

    /// The library is in the node's process: without it a test would prove nothing.
    pub fn assert_loaded(&self) -> Result<()> {
        eventually(Duration::from_secs(5), "the library of faults is loaded", || {
            Ok((self.get(Knob::Loaded)? != 0).then_some(()))
        })
        .with_context(|| {
            format!(
                "node {}: faults need an ottla that is linked to libc at run time; is OTTLA_BINARY a static one?",
                self.node
            )
        })
    }

    /// Waits until a call has failed.
    pub fn await_failure(&self, limit: Duration) -> Result<()> {
        eventually(limit, "a call fails", || Ok((self.get(Knob::Failed)? > 0).then_some(())))
    }
}
