//! `ottla perf consume TOPIC`: everything from the first offset to what is the end now, or so many records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::measure::{Meter, Rates, text};
use crate::client;
use crate::client::cluster::Cluster;
use crate::client::fetcher::Fetcher;
use crate::client::offsets::{self, EARLIEST, LATEST, TopicPartition};
use crate::failure::Failure;
use crate::parse;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla perf consume orders
  ottla perf consume orders --records 1000000 --timeout 5s")]
pub(crate) struct Consume {
    /// The topic
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Stop after so many records [default: at what is the end when the command starts]
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// Stop after this time
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    result: super::Result,
}

impl Consume {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let bootstrap = client::bootstrap(session).await?;
        let mut cluster = Cluster::new(bootstrap, session.timeout);
        let deadline = Instant::now() + session.timeout;
        cluster.refresh_until(std::slice::from_ref(&self.topic), deadline).await.map_err(Failure::from)?;
        let name: Arc<str> = Arc::from(self.topic.as_str());
        let partitions: Vec<TopicPartition> = cluster
            .topic(&self.topic)
            .map(|topic| topic.leaders.keys().map(|index| (name.clone(), *index)).collect())
            .unwrap_or_default();
        let at = |timestamp| partitions.iter().map(|one| (one.clone(), timestamp)).collect();
        let starts: BTreeMap<_, _> =
            offsets::list(&mut cluster, &at(EARLIEST), false).await.map_err(Failure::from)?;
        let ends = offsets::list(&mut cluster, &at(LATEST), false).await.map_err(Failure::from)?;
        let until = self.duration.map(|duration| Instant::now() + duration);
        let mut fetcher = Fetcher::new(cluster, starts, false);
        let mut meter = Meter::new(session.output.quiet)?;
        let is_at_end = |positions: &BTreeMap<TopicPartition, i64>| {
            positions.iter().all(|(one, offset)| ends.get(one).is_none_or(|end| offset >= end))
        };
        loop {
            let enough = match self.records {
                Some(records) => meter.records >= records,
                None => until.is_none() && is_at_end(fetcher.positions()),
            };
            if enough || until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            let records = fetcher.next().await.map_err(Failure::from)?;
            let size = |field: &Option<bytes::Bytes>| field.as_ref().map_or(0, bytes::Bytes::len);
            let bytes: usize = records.iter().map(|record| size(&record.key) + size(&record.value)).sum();
            let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
            meter.add(count, u64::try_from(bytes).unwrap_or(u64::MAX), None);
        }
        let document = Document { rates: meter.rates() };
        let rows = |document: &Document| text(&document.rates.rows());
        super::show(&document, rows, session.output, self.result.report.as_deref())
    }
}

#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    rates: Rates,
}
