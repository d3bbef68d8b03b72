//! `ottla consume TOPIC…`.

mod format;
pub(crate) mod from;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};

use self::format::RecordFormat;
pub(crate) use self::from::From;
use crate::client::cluster::Cluster;
use crate::client::fetcher::Fetcher;
use crate::client::group::{HEARTBEAT_PAUSE, Member, Standing};
use crate::client::offsets::{self, LATEST, TopicPartition};
use crate::client::records::Consumed;
use crate::client::{self};
use crate::failure::Failure;
use crate::profile::Session;
use crate::server::signals::Stop;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla consume orders --from beginning --count 10
  ottla consume orders --from -15m --format '%p %o %k %v\\n'
  ottla consume orders --group billing --json")]
pub(crate) struct Consume {
    /// Topics to read
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Read as a member of this group: partitions are shared with its other members, and it goes on where it was
    #[arg(long, short, value_name = "GROUP", conflicts_with = "partitions")]
    group: Option<String>,
    /// Where to begin: beginning, end, an offset, the last N (-N), a time ago (-15m) or a time; of a group only where it has
    /// been nowhere yet [default: beginning]
    #[arg(long, short, value_name = "WHERE", value_parser = From::parse, allow_hyphen_values = true)]
    pub(crate) from: Option<From>,
    /// Only this partition; may be given several times
    #[arg(long = "partition", short, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Stop after so many records
    #[arg(long, short, value_name = "N")]
    count: Option<u64>,
    /// Stop at what is the end when the command starts
    #[arg(long)]
    exit_at_end: bool,
    /// How to show a record: %t topic, %p partition, %o offset, %T time in ms, %k key, %v value, %h headers
    #[arg(long, value_name = "FORMAT", value_parser = RecordFormat::parse, default_value = "%v\\n", conflicts_with = "json")]
    format: RecordFormat,
    /// Show records as JSON objects, one a line
    #[arg(long)]
    json: bool,
    /// Whether to read records of transactions that are open or aborted
    #[arg(long, value_enum, default_value_t)]
    isolation: Isolation,
}

/// `--isolation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Isolation {
    /// Only records of transactions that are committed, and of none
    ReadCommitted,
    /// All records
    #[default]
    ReadUncommitted,
}

impl Consume {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let bootstrap = client::bootstrap(session).await?;
        let mut cluster = Cluster::new(bootstrap.clone(), session.timeout);
        let deadline = Instant::now() + session.timeout;
        cluster.refresh_until(&self.topics, deadline).await.map_err(Failure::from)?;
        let mut sink = Sink {
            out: io::BufWriter::with_capacity(256 * 1024, io::stdout()),
            json: self.json || session.output.is_machine(),
            format: &self.format,
            left: self.count.unwrap_or(u64::MAX),
        };
        let mut stop = Stop::new()?;
        let result = match &self.group {
            Some(group) => {
                let mut member =
                    Member::new(Cluster::new(bootstrap, session.timeout), group, self.topics.clone());
                let result = self.as_member(cluster, &mut member, &mut sink, &mut stop).await;
                // The group does without us either way; a failure of ours is worth more than one of leaving.
                let left = member.leave().await.map_err(|error| Failure::from(error).into());
                result.and(left)
            }
            None => self.alone(cluster, &mut sink, &mut stop).await,
        };
        sink.out.flush()?;
        result
    }

    fn read_committed(&self) -> bool {
        self.isolation == Isolation::ReadCommitted
    }

    /// The partitions that were asked for.
    fn chosen(&self, cluster: &Cluster) -> Result<Vec<TopicPartition>, Failure> {
        let mut chosen = Vec::new();
        for name in &self.topics {
            let all: Vec<i32> =
                cluster.topic(name).map(|topic| topic.leaders.keys().copied().collect()).unwrap_or_default();
            if let Some(missing) = self.partitions.iter().find(|partition| !all.contains(partition)) {
                let last = all.len().saturating_sub(1);
                return Err(Failure::new(format!("topic \"{name}\" has no partition {missing}"))
                    .hint(format!("it has partitions 0 to {last}")));
            }
            let name: Arc<str> = Arc::from(name.as_str());
            let wanted =
                all.into_iter().filter(|one| self.partitions.is_empty() || self.partitions.contains(one));
            chosen.extend(wanted.map(|partition| (name.clone(), partition)));
        }
        Ok(chosen)
    }

    /// Without a group: all partitions that were asked for.
    async fn alone(&self, mut cluster: Cluster, sink: &mut Sink<'_>, stop: &mut Stop) -> anyhow::Result<()> {
        let chosen = self.chosen(&cluster)?;
        let ends = self.ends(&mut cluster, &chosen).await?;
        let from = self.from.unwrap_or(From::Beginning);
        let positions =
            from.resolve(&mut cluster, &chosen, self.read_committed()).await.map_err(Failure::from)?;
        let mut fetcher = Fetcher::new(cluster, positions, self.read_committed());
        while sink.left > 0 && !ends.as_ref().is_some_and(|ends| reached(ends, fetcher.positions())) {
            let records = tokio::select! {
                records = fetcher.next() => records.map_err(Failure::from)?,
                () = stop.wait() => return Ok(()),
            };
            sink.take(&records, ends.as_ref())?;
        }
        Ok(())
    }

    /// Where to stop; `None`: nowhere.
    async fn ends(
        &self,
        cluster: &mut Cluster,
        partitions: &[TopicPartition],
    ) -> Result<Option<BTreeMap<TopicPartition, i64>>, Failure> {
        if !self.exit_at_end {
            return Ok(None);
        }
        let wanted = partitions.iter().map(|one| (one.clone(), LATEST)).collect();
        Ok(Some(offsets::list(cluster, &wanted, self.read_committed()).await?))
    }

    /// As a member of a group, one generation after the other.
    async fn as_member(
        &self,
        mut cluster: Cluster,
        member: &mut Member,
        sink: &mut Sink<'_>,
        stop: &mut Stop,
    ) -> anyhow::Result<()> {
        loop {
            let own = tokio::select! {
                own = member.join() => own.map_err(Failure::from)?,
                () = stop.wait() => return Ok(()),
            };
            let ends = self.ends(&mut cluster, &own).await?;
            let positions = self.positions_of_group(&mut cluster, member, &own).await?;
            let mut generation =
                Generation { fetcher: Fetcher::new(cluster, positions, self.read_committed()), ends };
            let ending = generation.run(member, sink, stop).await;
            cluster = generation.fetcher.into_cluster();
            if ending? == Ending::Done {
                return Ok(());
            }
        }
    }

    /// Where the group has come to, or where the user wants to begin.
    async fn positions_of_group(
        &self,
        cluster: &mut Cluster,
        member: &mut Member,
        own: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
        if own.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut positions = member.committed(own).await?;
        positions.retain(|_, offset| *offset >= 0);
        let fresh: Vec<_> = own.iter().filter(|one| !positions.contains_key(*one)).cloned().collect();
        if !fresh.is_empty() {
            let from = self.from.unwrap_or(From::Beginning);
            positions.extend(from.resolve(cluster, &fresh, self.read_committed()).await?);
        }
        Ok(positions)
    }
}

/// Why a generation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Rejoin,
    Done,
}

/// What a member reads until the group shares out anew.
struct Generation {
    fetcher: Fetcher,
    ends: Option<BTreeMap<TopicPartition, i64>>,
}

impl Generation {
    /// Reads and heartbeats. Offsets are committed with every heartbeat and at the end: what was shown is committed, never
    /// more, so a record is shown at least once.
    async fn run(
        &mut self,
        member: &mut Member,
        sink: &mut Sink<'_>,
        stop: &mut Stop,
    ) -> anyhow::Result<Ending> {
        let mut shown = BTreeMap::new();
        let mut heartbeat = tokio::time::interval(HEARTBEAT_PAUSE);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ending = loop {
            if sink.left == 0
                || self.ends.as_ref().is_some_and(|ends| reached(ends, self.fetcher.positions()))
            {
                break Ending::Done;
            }
            tokio::select! {
                records = self.fetcher.next(), if !self.fetcher.positions().is_empty() => {
                    let records = records.map_err(Failure::from)?;
                    let all = sink.take(&records, self.ends.as_ref())?;
                    for record in &records[..all] {
                        shown.insert((record.topic.clone(), record.partition), record.offset + 1);
                    }
                    if all == records.len() {
                        // Also what holds no records: markers, aborted transactions.
                        let moved = self.fetcher.positions().iter().filter(|(one, _)| shown.contains_key(*one));
                        let moved: Vec<_> = moved.map(|(one, offset)| (one.clone(), *offset)).collect();
                        shown.extend(moved);
                    }
                }
                _ = heartbeat.tick() => {
                    let kept = member.heartbeat().await.map_err(Failure::from)?;
                    sink.out.flush()?;
                    let committed = member.commit(&shown).await.map_err(Failure::from)?;
                    if kept == Standing::Rejoin || committed == Standing::Rejoin {
                        return Ok(Ending::Rejoin);
                    }
                    shown.clear();
                }
                () = stop.wait() => break Ending::Done,
            }
        };
        sink.out.flush()?;
        member.commit(&shown).await.map_err(Failure::from)?;
        Ok(ending)
    }
}

fn reached(ends: &BTreeMap<TopicPartition, i64>, positions: &BTreeMap<TopicPartition, i64>) -> bool {
    ends.iter().all(|(partition, end)| positions.get(partition).is_none_or(|position| position >= end))
}

/// Where records are shown.
struct Sink<'a> {
    out: io::BufWriter<io::Stdout>,
    json: bool,
    format: &'a RecordFormat,
    /// How many more are wanted.
    left: u64,
}

impl Sink<'_> {
    /// Shows records, as many as are wanted and none behind the end; gives how many were dealt with.
    fn take(
        &mut self,
        records: &[Consumed],
        ends: Option<&BTreeMap<TopicPartition, i64>>,
    ) -> anyhow::Result<usize> {
        for (at, record) in records.iter().enumerate() {
            if self.left == 0 {
                return Ok(at);
            }
            let behind = ends
                .and_then(|ends| ends.get(&(record.topic.clone(), record.partition)))
                .is_some_and(|end| record.offset >= *end);
            if behind {
                continue;
            }
            if self.json {
                serde_json::to_writer(&mut self.out, &record.to_json()).map_err(io::Error::from)?;
                self.out.write_all(b"\n")?;
            } else {
                self.format.write(record, &mut self.out)?;
            }
            self.left -= 1;
        }
        self.out.flush()?;
        Ok(records.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_reached_when_every_partition_is_there() {
        let at = |a: i64, b: i64| BTreeMap::from([((Arc::from("t"), 0), a), ((Arc::from("t"), 1), b)]);
        assert!(reached(&at(3, 0), &at(3, 0)));
        assert!(reached(&at(3, 0), &at(4, 0)));
        assert!(!reached(&at(3, 1), &at(3, 0)));
        assert!(reached(&BTreeMap::new(), &at(0, 0)));
    }
}
