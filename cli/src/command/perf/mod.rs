//! `ottla perf`: how fast, and how long one waits.

mod consume;
mod latency;
mod measure;
mod produce;

use std::path::Path;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::output::Output;
use crate::profile::Session;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Perf {
    /// Write records as fast as it goes, or at a rate
    Produce(produce::Produce),
    /// Read records as fast as it goes
    Consume(consume::Consume),
    /// Write one record at a time and wait until it is read
    Latency(latency::Latency),
}

/// How the result is kept.
#[derive(Debug, Args)]
struct Result {
    /// Write the result as JSON into this file too
    #[arg(long, value_name = "FILE")]
    report: Option<std::path::PathBuf>,
}

impl Perf {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Produce(produce) => produce.run(session).await,
            Self::Consume(consume) => consume.run(session).await,
            Self::Latency(latency) => latency.run(session).await,
        }
    }
}

/// The document as JSON in the file; on the terminal for people with a line of JSON at the end, or as JSON only.
fn show<T: Serialize>(
    document: &T,
    text: impl FnOnce(&T) -> String,
    output: Output,
    file: Option<&Path>,
) -> anyhow::Result<()> {
    if let Some(path) = file {
        let json = serde_json::to_string_pretty(document)? + "\n";
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let line = serde_json::to_string(document)?;
    output.show(document, |document| format!("{}{line}\n", text(document)))
}
