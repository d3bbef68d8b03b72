//! `ottla log dump PATH…`: which files there are and what is said of each.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::agree;
use super::caches::{self, Entry};
use super::segment::{self, BatchEntry};
use crate::failure::{Failure, Silent};
use crate::output::{self, Output, counted};

/// How deep directories are followed: a log directory, its partitions.
const DEPTH_MAX: usize = 3;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla log dump ottla-data/node-1/orders-0
  ottla log dump ottla-data/node-1/orders-0/00000000000000000000.log --records --output json")]
pub(crate) struct Dump {
    /// Files, partition directories or log directories
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Also the records of each batch
    #[arg(long)]
    records: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    files: Vec<FileReport>,
}

/// What is said of a file.
#[derive(Debug, Serialize)]
pub(super) struct FileReport {
    pub(super) path: String,
    pub(super) kind: &'static str,
    pub(super) size_bytes: u64,
    pub(super) problems: Vec<String>,
    #[serde(flatten)]
    pub(super) content: Content,
}

/// What is in a file.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Content {
    Batches { batches: Vec<BatchEntry> },
    Entries { entries: Vec<Entry> },
    Lines { lines: Vec<String> },
}

impl Dump {
    pub(super) fn run(&self, output: Output) -> anyhow::Result<()> {
        let mut paths = Vec::new();
        for path in &self.paths {
            let is_directory = std::fs::metadata(path)
                .with_context(|| format!("cannot look at {}", path.display()))?
                .is_dir();
            if is_directory {
                find(path, 0, &mut paths)?;
            } else if kind(path).is_some() {
                paths.push(path.clone());
            } else {
                let hint = "known are .log, .index, .timeindex, .txnindex, .snapshot files and checkpoints";
                return Err(Failure::new(format!("{} is no file of a log", path.display()))
                    .hint(hint)
                    .into());
            }
        }
        let mut document = Document { files: Vec::new() };
        let mut sound = true;
        for path in paths {
            let report = self.look(&path)?;
            sound &= report.problems.is_empty();
            if output.is_machine() {
                document.files.push(report);
            } else {
                // One file at a time: a document of all could be large.
                output::print(&text(&report))?;
            }
        }
        if output.is_machine() {
            output.show(&document, |_| String::new())?;
        }
        if sound { Ok(()) } else { Err(Silent.into()) }
    }

    fn look(&self, path: &Path) -> anyhow::Result<FileReport> {
        let kind = kind(path).unwrap_or(Kind::Text);
        let size_bytes =
            std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?.len();
        let mut problems = Vec::new();
        let content = match kind {
            Kind::Segment => Content::Batches { batches: segment::read(path, self.records, &mut problems)? },
            Kind::Index => Content::Entries { entries: caches::offset_index(path, &mut problems)? },
            Kind::TimeIndex => {
                let entries = caches::time_index(path, &mut problems)?;
                agree::time_index(path, &entries, &mut problems);
                Content::Entries { entries }
            }
            Kind::TransactionIndex => {
                Content::Entries { entries: caches::transaction_index(path, &mut problems)? }
            }
            Kind::Snapshot => Content::Entries { entries: caches::snapshot(path, &mut problems) },
            Kind::Checkpoint => {
                let lines = caches::checkpoint(path, &mut problems)?;
                if path.file_name() == Some(OsStr::new("leader-epoch-checkpoint")) {
                    agree::epochs(&lines, &mut problems);
                }
                Content::Lines { lines }
            }
            Kind::Text => {
                agree::text(path, &mut problems);
                Content::Lines { lines: caches::text(path)? }
            }
        };
        Ok(FileReport { path: path.display().to_string(), kind: kind.name(), size_bytes, problems, content })
    }
}

/// Known kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Segment,
    Index,
    TimeIndex,
    TransactionIndex,
    Snapshot,
    Checkpoint,
    Text,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Index => "offset_index",
            Self::TimeIndex => "time_index",
            Self::TransactionIndex => "transaction_index",
            Self::Snapshot => "producer_snapshot",
            Self::Checkpoint => "checkpoint",
            Self::Text => "text",
        }
    }
}

fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    if name.ends_with("-checkpoint") {
        return Some(Kind::Checkpoint);
    }
    if matches!(name, "partition.metadata" | "meta.properties" | ".kafka_cleanshutdown") {
        return Some(Kind::Text);
    }
    // Only what is named by an offset is a file of a log: `server.log` is not.
    path.file_stem().and_then(OsStr::to_str).filter(|stem| stem.len() == 20)?.parse::<i64>().ok()?;
    match path.extension()?.to_str()? {
        "log" => Some(Kind::Segment),
        "index" => Some(Kind::Index),
        "timeindex" => Some(Kind::TimeIndex),
        "txnindex" => Some(Kind::TransactionIndex),
        "snapshot" => Some(Kind::Snapshot),
        _ => None,
    }
}

fn find(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let mut entries = std::fs::read_dir(directory)
        .and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()
        })
        .with_context(|| format!("cannot list {}", directory.display()))?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if depth + 1 < DEPTH_MAX {
                find(&path, depth + 1, found)?;
            }
        } else if kind(&path).is_some() {
            found.push(path);
        }
    }
    Ok(())
}

fn text(report: &FileReport) -> String {
    let size = output::bytes(i64::try_from(report.size_bytes).unwrap_or(i64::MAX));
    let mut text = format!("{}  ({}, {size})\n", report.path, report.kind);
    match &report.content {
        Content::Batches { batches } => {
            for batch in batches {
                batch.write(&mut text);
            }
        }
        Content::Entries { entries } => text.extend(entries.iter().map(|entry| format!("  {entry}\n"))),
        Content::Lines { lines } => text.extend(lines.iter().map(|line| format!("  {line}\n"))),
    }
    for problem in &report.problems {
        text.extend([format!("  WRONG: {problem}\n")]);
    }
    if !report.problems.is_empty() {
        text.extend([format!("  {}\n", counted(report.problems.len(), "problem"))]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        let of = |name: &str| kind(Path::new(name));
        assert_eq!(of("a/00000000000000000000.log"), Some(Kind::Segment));
        assert_eq!(of("00000000000000000007.timeindex"), Some(Kind::TimeIndex));
        assert_eq!(of("leader-epoch-checkpoint"), Some(Kind::Checkpoint));
        assert_eq!(of("partition.metadata"), Some(Kind::Text));
        assert_eq!(of("server.log"), None);
        assert_eq!(of("00000000000000000000.log.deleted"), None);
    }
}
