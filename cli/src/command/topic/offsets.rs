//! `ottla topic offsets NAME`: where each partition begins and ends, or where a time is.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::client::cluster::Cluster;
use crate::client::offsets::{self, EARLIEST, LATEST, TopicPartition};
use crate::client::{ClientError, bootstrap};
use crate::command::consume::From;
use crate::failure::Failure;
use crate::output;
use crate::profile::Session;

/// Kafka's name of the record with the newest time (KIP-734).
const MAX_TIMESTAMP: i64 = -3;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla topic offsets orders
  ottla topic offsets orders --time earliest
  ottla topic offsets orders --time 2026-01-31T12:00:00Z")]
pub(crate) struct Offsets {
    /// Name of the topic
    name: String,
    /// earliest, latest, max-timestamp (the record with the newest time), or a time as 'consume --from' takes it: the first
    /// record of that time or later
    #[arg(long, value_name = "WHEN", default_value = "latest", value_parser = when, allow_hyphen_values = true)]
    time: i64,
}

/// Kafka's number of a time.
fn when(text: &str) -> Result<i64, String> {
    if text == "max-timestamp" {
        return Ok(MAX_TIMESTAMP);
    }
    match From::parse(text) {
        Ok(From::Beginning) => Ok(EARLIEST),
        Ok(From::End) => Ok(LATEST),
        Ok(From::Time(ms)) => Ok(ms),
        _ => Err(format!(
            "'{text}' is no time; write earliest, latest, max-timestamp, -15m, 2026-01-31T12:00:00Z or @1700000000000"
        )),
    }
}

#[derive(Debug, Serialize)]
struct Document {
    topic: String,
    offsets: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    partition: i32,
    /// Null: no record is that late.
    offset: Option<i64>,
}

impl Offsets {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let (mut cluster, partitions) = partitions(session, &self.name).await?;
        let wanted: BTreeMap<_, _> = partitions.into_iter().map(|one| (one, self.time)).collect();
        let found = offsets::list(&mut cluster, &wanted, false).await.map_err(Failure::from)?;
        let entry = |((_, partition), offset): (TopicPartition, i64)| Entry {
            partition,
            offset: Some(offset).filter(|offset| *offset >= 0),
        };
        let document = Document { topic: self.name.clone(), offsets: found.into_iter().map(entry).collect() };
        session.output.show(&document, |document| {
            let row =
                |entry: &Entry| vec![entry.partition.to_string(), output::optional(entry.offset.as_ref())];
            output::table(&["PARTITION", "OFFSET"], document.offsets.iter().map(row))
        })
    }
}

/// A client of the cluster that knows a topic, and its partitions.
pub(super) async fn partitions(
    session: &Session,
    topic: &str,
) -> Result<(Cluster, Vec<TopicPartition>), Failure> {
    let mut cluster = Cluster::new(bootstrap(session).await?, session.timeout);
    let known: Result<Vec<i32>, ClientError> = async {
        cluster.refresh(&[topic.to_owned()]).await?;
        Ok(cluster.topic(topic).map(|topic| topic.leaders.keys().copied().collect()).unwrap_or_default())
    }
    .await;
    let name: Arc<str> = Arc::from(topic);
    let partitions = known?.into_iter().map(|partition| (Arc::clone(&name), partition)).collect();
    Ok((cluster, partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_kafka_calls_them_or_real_ones() {
        assert_eq!(when("earliest"), Ok(EARLIEST));
        assert_eq!(when("latest"), Ok(LATEST));
        assert_eq!(when("max-timestamp"), Ok(MAX_TIMESTAMP));
        assert_eq!(when("@17"), Ok(17));
        assert!(when("-15m").unwrap() > 1_600_000_000_000);
        for wrong in ["5", "-5", "now", ""] {
            assert!(when(wrong).is_err(), "{wrong}");
        }
    }
}
