//! `ottla log …`: what is on disk.

mod agree;
mod caches;
mod dump;
mod segment;

use clap::Subcommand;

use crate::output::Output;

/// What can be looked at.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Show segments, indexes, snapshots and checkpoints, and what is wrong with them; exit code 1 if anything is
    Dump(dump::Dump),
}

impl Log {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        let Self::Dump(dump) = self;
        dump.run(output)
    }
}
