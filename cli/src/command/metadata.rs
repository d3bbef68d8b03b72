//! `ottla metadata dump PATH`: the Raft log and snapshot of a stopped controller.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use ottla_controller::dump::{self, EntryContent, MetadataDump};
use ottla_metadata::config::{ConfigKind, definition};
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{MetadataRecord, ResourceType};
use serde::Serialize;

use crate::failure::{Failure, Silent};
use crate::output::{self, Output, counted};

/// The folder of a controller in its log directory.
const DIRECTORY: &str = "__cluster_metadata";
/// What stands for a secret.
const SECRET: &str = "(secret)";

/// What can be done with metadata on disk.
#[derive(Debug, Subcommand)]
pub(crate) enum Metadata {
    /// Show the Raft log and the snapshot of a stopped controller, and what is wrong with them; exit code 1 if anything is
    Dump(Dump),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla metadata dump ottla-data/node-1
  ottla metadata dump /var/lib/ottla/__cluster_metadata --from 5000 --output json")]
pub(crate) struct Dump {
    /// The controller's metadata directory, or the log directory that holds it
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Only entries from this index on
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// No records of the snapshot, only how many there are
    #[arg(long)]
    no_snapshot: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    path: String,
    identity: Option<String>,
    vote: Option<String>,
    /// Null: none is known.
    committed_index: Option<i64>,
    purged_index: Option<i64>,
    snapshot: Option<Snapshot>,
    entries: Vec<Entry>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    index: i64,
    record_count: usize,
    records: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Entry {
    index: u64,
    term: u64,
    /// `records`, `blank` or `membership`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<String>,
    records: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(rename = "type")]
    kind: String,
    content: String,
}

impl Metadata {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        let Self::Dump(dump) = self;
        dump.run(output)
    }
}

impl Dump {
    fn run(&self, output: Output) -> anyhow::Result<()> {
        let inner = self.path.join(DIRECTORY);
        let path = if inner.is_dir() { inner } else { self.path.clone() };
        refuse_running(&path)?;
        let found = dump::dump(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let document = self.document(&path, found);
        let is_sound = document.problems.is_empty();
        output.show(&document, text)?;
        if is_sound { Ok(()) } else { Err(Silent.into()) }
    }

    fn document(&self, path: &Path, found: MetadataDump) -> Document {
        let entries = found.entries.into_iter().filter(|entry| entry.index >= self.from).map(|entry| {
            let (kind, membership, records) = match entry.content {
                EntryContent::Blank => ("blank", None, Vec::new()),
                EntryContent::Membership(membership) => ("membership", Some(membership), Vec::new()),
                EntryContent::Records(records) => ("records", None, records),
            };
            let records = records.into_iter().map(shown).collect();
            Entry { index: entry.index, term: entry.term, kind, membership, records }
        });
        let snapshot = found.snapshot.map(|snapshot| Snapshot {
            index: snapshot.index,
            record_count: snapshot.records.len(),
            records: if self.no_snapshot {
                Vec::new()
            } else {
                snapshot.records.into_iter().map(shown).collect()
            },
        });
        Document {
            path: path.display().to_string(),
            identity: found.identity.map(|text| text.trim().to_owned()),
            vote: found.vote,
            committed_index: found.committed,
            purged_index: found.purged,
            snapshot,
            entries: entries.collect(),
            problems: found.problems,
        }
    }
}

/// A controller that runs writes what would be read.
fn refuse_running(path: &Path) -> anyhow::Result<()> {
    let Ok(lock) = std::fs::File::open(path.join(".lock")) else { return Ok(()) };
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_err() {
        let text = format!("{} is in use by a node that runs", path.display());
        return Err(Failure::new(text)
            .hint("stop the node first; 'ottla quorum status' asks one that runs")
            .into());
    }
    Ok(())
}

/// A record in words, without what is secret.
fn shown(record: MetadataRecord) -> Shown {
    let Some(mut record) = record.record else {
        return Shown { kind: "unknown".to_owned(), content: "a record of a newer version".to_owned() };
    };
    let mut secret = "";
    match &mut record {
        Record::ScramCredential(credential) => {
            for part in [&mut credential.salt, &mut credential.stored_key, &mut credential.server_key] {
                part.clear();
            }
            secret = " salt and keys are secret";
        }
        Record::Config(config) => {
            let kind =
                ResourceType::try_from(config.resource_type).ok().and_then(ConfigKind::from_resource_type);
            let is_secret =
                kind.and_then(|kind| definition(kind, &config.name)).is_none_or(|found| found.sensitive);
            if is_secret && config.value.is_some() {
                config.value = Some(SECRET.to_owned());
            }
        }
        _ => {}
    }
    let text = format!("{record:?}");
    // `Topic(TopicRecord { … })`: the kind, and what is in the braces.
    let (kind, rest) = text.split_once('(').unwrap_or((text.as_str(), ""));
    let rest = rest.strip_suffix(')').unwrap_or(rest);
    let content = rest.split_once(' ').map_or(rest, |(_, fields)| fields);
    Shown { kind: kind.to_owned(), content: format!("{content}{secret}") }
}

fn text(document: &Document) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let number = |index: Option<i64>| or_none(index.map(|index| index.to_string()));
    let mut text = output::fields(&[
        ("path", document.path.clone()),
        ("identity", or_none(document.identity.clone())),
        ("vote", or_none(document.vote.clone())),
        ("committed", number(document.committed_index)),
        ("purged", number(document.purged_index)),
    ]);
    let lines = |records: &[Shown]| -> String {
        output::lines(records.iter().map(|record| format!("  {} {}", record.kind, record.content)))
    };
    if let Some(snapshot) = &document.snapshot {
        let count = counted(snapshot.record_count, "record");
        text.extend([format!("\nsnapshot of index {}: {count}\n", snapshot.index)]);
        text += &lines(&snapshot.records);
    }
    text.extend([format!("\nlog, entries: {}\n", document.entries.len())]);
    for entry in &document.entries {
        let words = entry.membership.as_deref().unwrap_or_default();
        text += format!("{} term {} {} {words}", entry.index, entry.term, entry.kind).trim_end();
        text += "\n";
        text += &lines(&entry.records);
    }
    text.extend(document.problems.iter().map(|problem| format!("WRONG: {problem}\n")));
    text
}

#[cfg(test)]
mod tests {
    use ottla_proto::metadata::{ConfigRecord, ScramCredentialRecord, TopicRecord};

    use super::*;

    fn of(record: Record) -> Shown {
        shown(MetadataRecord { record: Some(record) })
    }

    #[test]
    fn records_are_shown_by_kind_and_secrets_are_not() {
        let topic = of(Record::Topic(TopicRecord { topic_id: vec![1].into(), name: "orders".into() }));
        assert_eq!((topic.kind.as_str(), topic.content.contains("\"orders\"")), ("Topic", true));
        let scram = ScramCredentialRecord {
            user: "alice".into(),
            salt: b"SALTY".to_vec().into(),
            stored_key: b"KEY1".to_vec().into(),
            server_key: b"KEY2".to_vec().into(),
            ..Default::default()
        };
        let shown = of(Record::ScramCredential(scram)).content;
        assert!(shown.contains("alice") && !shown.contains("SALTY") && !shown.contains("KEY"), "{shown}");
        let config = |name: &str| ConfigRecord {
            resource_type: ResourceType::Broker.into(),
            resource_name: "1".into(),
            name: name.into(),
            value: Some("hunter2".into()),
        };
        for name in ["ssl.key.password", "listener.name.x.plain.sasl.jaas.config", "no.such.property"] {
            let shown = of(Record::Config(config(name))).content;
            assert!(!shown.contains("hunter2") && shown.contains(SECRET), "{shown}");
        }
        assert!(of(Record::Config(config("broker.rack"))).content.contains("hunter2"));
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let dump = Dump { path: directory.path().to_owned(), from: 0, no_snapshot: false };
        let output = Output { format: crate::output::Format::Table, quiet: false };
        let error = format!("{:#}", dump.run(output).unwrap_err());
        assert!(error.contains("no metadata directory"), "{error}");
    }
}
