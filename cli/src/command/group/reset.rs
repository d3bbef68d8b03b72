//! `ottla group reset G …`: moves committed offsets. Without `--execute` it only shows what would change.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::places::{FILE_BYTES_MAX, TopicPlaces, chosen, offsets_of_file};
use super::refusal;
use crate::client::ClientError;
use crate::client::cluster::Cluster;
use crate::client::groups::Coordinator;
use crate::client::offsets::{self, EARLIEST, LATEST, TopicPartition};
use crate::command::consume::From;
use crate::failure::Failure;
use crate::output;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla group reset billing --topic orders --to earliest              shows what would change
  ottla group reset billing --topic orders:0,1 --to -15m --execute
  ottla group reset billing --topic orders --shift -100 --execute
  ottla group reset billing --from-file offsets.csv --execute")]
#[command(group = ArgGroup::new("where").required(true).multiple(false))]
pub(crate) struct Reset {
    /// The group; it must have no members
    group: String,
    /// Of which topic, or of which of its partitions; may be given several times; without it, all that the file names
    #[arg(
        long = "topic",
        value_name = "TOPIC[:P,…]",
        value_parser = TopicPlaces::parse,
        required_unless_present = "from_file"
    )]
    topics: Vec<TopicPlaces>,
    /// Where to: earliest, latest, current (as committed, but within the log), an offset, the last N (-N), a time ago (-15m)
    /// or a time
    #[arg(long, value_name = "WHERE", value_parser = To::parse, allow_hyphen_values = true, group = "where")]
    to: Option<To>,
    /// So many records on, or back where negative
    #[arg(long, value_name = "N", allow_hyphen_values = true, group = "where")]
    shift: Option<i64>,
    /// Lines of topic,partition,offset; - is the standard input
    #[arg(long, value_name = "FILE", group = "where")]
    from_file: Option<PathBuf>,
    /// Do it
    #[arg(long)]
    execute: bool,
}

/// `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// Where it is.
    Current,
    /// As `consume --from` has it.
    Place(From),
}

impl To {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "current" {
            return Ok(Self::Current);
        }
        From::parse(text).map(Self::Place)
    }
}

#[derive(Debug, Serialize)]
struct Document {
    group: String,
    /// Whether the offsets are committed.
    executed: bool,
    partitions: Vec<Change>,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Change {
    topic: String,
    partition: i32,
    /// Absent: nothing is committed.
    from: Option<i64>,
    to: i64,
    /// Records that the group would be behind.
    lag: i64,
}

impl Reset {
    pub(super) async fn run(&self, session: &Session, cluster: &mut Cluster) -> anyhow::Result<()> {
        let group = &self.group;
        let from_file = self.from_file.as_ref().map(read_file).transpose()?;
        let targets = self.targets(cluster, from_file.as_ref()).await?;
        let mut coordinator = Coordinator::new(cluster, group);
        let described = coordinator.describe().await.map_err(Failure::from)?;
        if let Some(described) = described.filter(|described| !described.members.is_empty()) {
            let members = output::counted(described.members.len(), "member");
            return Err(Failure::new(format!("group \"{group}\" was not reset: it has {members}"))
                .hint("stop its consumers; 'ottla group describe' names them")
                .into());
        }
        let committed: BTreeMap<TopicPartition, i64> = coordinator
            .committed()
            .await
            .map_err(Failure::from)?
            .into_iter()
            .map(|(partition, committed)| (partition, committed.offset))
            .collect();
        let wanted = self.wanted(cluster, &targets, &committed, from_file).await.map_err(Failure::from)?;
        let bounds = bounds(cluster, &targets).await.map_err(Failure::from)?;
        let changes = changes(&wanted, &committed, &bounds);
        if self.execute {
            let offsets = changes
                .iter()
                .map(|change| ((Arc::from(change.topic.as_str()), change.partition), change.to));
            Coordinator::new(cluster, group)
                .commit(&offsets.collect())
                .await
                .map_err(|error| refusal(group, "reset", error))?;
        }
        let document = Document { group: group.clone(), executed: self.execute, partitions: changes };
        session.output.show(&document, table)?;
        if !self.execute && !session.output.quiet && !session.output.is_machine() {
            eprintln!("nothing was changed; add --execute to commit these offsets");
        }
        Ok(())
    }

    /// The partitions that are meant; what is named and not there is an error.
    async fn targets(
        &self,
        cluster: &mut Cluster,
        from_file: Option<&BTreeMap<TopicPartition, i64>>,
    ) -> Result<Vec<TopicPartition>, Failure> {
        let named = self.topics.iter().map(|topic| topic.name.clone());
        let in_file = from_file.into_iter().flat_map(BTreeMap::keys).map(|(topic, _)| topic.to_string());
        let names: BTreeSet<String> = if from_file.is_some() { in_file.collect() } else { named.collect() };
        let names: Vec<String> = names.into_iter().collect();
        if !names.is_empty() {
            cluster.refresh_until(&names, Instant::now() + cluster.timeout()).await?;
        }
        let all: BTreeSet<TopicPartition> = names
            .iter()
            .flat_map(|name| {
                let leaders = cluster.topic(name).map(|topic| topic.leaders.clone()).unwrap_or_default();
                let name: Arc<str> = Arc::from(name.as_str());
                leaders.into_keys().map(move |partition| (Arc::clone(&name), partition))
            })
            .collect();
        let meant = |topic: &str, partition: i32| {
            all.iter().any(|(name, number)| **name == *topic && *number == partition)
        };
        let asked = self.topics.iter().flat_map(|topic| {
            topic.partitions.iter().flatten().map(|partition| (topic.name.as_str(), *partition))
        });
        let asked_in_file =
            from_file.into_iter().flat_map(BTreeMap::keys).map(|(topic, partition)| (&**topic, *partition));
        let missing = if from_file.is_some() {
            { asked_in_file }.find(|(topic, partition)| !meant(topic, *partition))
        } else {
            { asked }.find(|(topic, partition)| !meant(topic, *partition))
        };
        if let Some((topic, partition)) = missing {
            return Err(Failure::new(format!("topic \"{topic}\" has no partition {partition}"))
                .hint("'ottla topic describe' shows its partitions"));
        }
        let targets = match from_file {
            Some(offsets) => {
                let in_file: BTreeSet<TopicPartition> = offsets.keys().cloned().collect();
                if self.topics.is_empty() {
                    in_file.into_iter().collect()
                } else {
                    chosen(&self.topics, &in_file)
                }
            }
            None => chosen(&self.topics, &all),
        };
        if targets.is_empty() {
            return Err(Failure::new("no partition is meant").hint("--topic TOPIC[:P,…] names them"));
        }
        Ok(targets)
    }

    /// Where to, before it is brought within the log. Partitions without a committed offset have no place to shift from.
    async fn wanted(
        &self,
        cluster: &mut Cluster,
        targets: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, i64>,
        from_file: Option<BTreeMap<TopicPartition, i64>>,
    ) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        if let Some(offsets) = from_file {
            return Ok(offsets.into_iter().filter(|(partition, _)| targets.contains(partition)).collect());
        }
        let shift = match (self.to, self.shift) {
            (Some(To::Place(place)), _) => return place.resolve(cluster, targets, false).await,
            (_, shift) => shift.unwrap_or(0),
        };
        let shifted = |partition: &TopicPartition| {
            Some((partition.clone(), committed.get(partition)?.saturating_add(shift)))
        };
        Ok(targets.iter().filter_map(shifted).collect())
    }
}

/// The first and the next offset of each partition.
async fn bounds(
    cluster: &mut Cluster,
    targets: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, (i64, i64)>, ClientError> {
    let all = |timestamp: i64| targets.iter().map(|one| (one.clone(), timestamp)).collect();
    let first = offsets::list(cluster, &all(EARLIEST), false).await?;
    let mut end = offsets::list(cluster, &all(LATEST), false).await?;
    let both = |(partition, first): (TopicPartition, i64)| {
        let end = end.remove(&partition)?.max(first);
        Some((partition, (first, end)))
    };
    Ok(first.into_iter().filter_map(both).collect())
}

/// What changes, within the log: a group that stood outside would begin again by `auto.offset.reset`.
fn changes(
    wanted: &BTreeMap<TopicPartition, i64>,
    committed: &BTreeMap<TopicPartition, i64>,
    bounds: &BTreeMap<TopicPartition, (i64, i64)>,
) -> Vec<Change> {
    let change = |(partition, offset): (&TopicPartition, &i64)| {
        let (first, end) = *bounds.get(partition)?;
        let to = (*offset).clamp(first, end);
        Some(Change {
            topic: partition.0.to_string(),
            partition: partition.1,
            from: committed.get(partition).copied(),
            to,
            lag: end - to,
        })
    };
    wanted.iter().filter_map(change).collect()
}

fn read_file(path: &PathBuf) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let shown = path.display();
    let unread = |error: std::io::Error| Failure::new(format!("{shown} cannot be read: {error}"));
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unread)?;
    } else {
        let file = std::fs::File::open(path).map_err(unread)?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unread)?;
    }
    let wrong = |reason: String| Failure::usage(format!("{shown}: {reason}"));
    offsets_of_file(&text).map_err(wrong)
}

fn table(document: &Document) -> String {
    let row = |change: &Change| {
        vec![
            change.topic.clone(),
            change.partition.to_string(),
            output::optional(change.from.as_ref()),
            change.to.to_string(),
            change.lag.to_string(),
        ]
    };
    output::table(&["TOPIC", "PARTITION", "FROM", "TO", "LAG"], document.partitions.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_stays_within_the_log() {
        let key = |partition: i32| -> TopicPartition { ("t".into(), partition) };
        let wanted = BTreeMap::from([(key(0), 0), (key(1), 50), (key(2), 7), (key(3), 1)]);
        let committed = BTreeMap::from([(key(0), 20)]);
        let bounds = BTreeMap::from([(key(0), (10, 30)), (key(1), (0, 40)), (key(2), (0, 9))]);
        let found: Vec<_> = changes(&wanted, &committed, &bounds)
            .into_iter()
            .map(|change| (change.partition, change.from, change.to, change.lag))
            .collect();
        assert_eq!(found, [(0, Some(20), 10, 20), (1, None, 40, 0), (2, None, 7, 2)]);
    }

    #[test]
    fn where_to_is_as_consume_has_it_or_where_it_is() {
        assert_eq!(To::parse("current"), Ok(To::Current));
        assert_eq!(To::parse("earliest"), Ok(To::Place(From::Beginning)));
        assert_eq!(To::parse("42"), Ok(To::Place(From::Offset(42))));
        assert!(To::parse("sideways").is_err());
    }
}
