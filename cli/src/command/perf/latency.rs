//! `ottla perf latency TOPIC`: one record at a time, from the moment of its sending until it is acknowledged, and until a
//! reader that waits for it has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use ottla_wire::records::{BatchBuilder, BatchOptions};
use serde::Serialize;

use super::measure::{Latencies, Meter, text};
use crate::client;
use crate::client::batch::{self, Fate, PRODUCE_VERSION, Target};
use crate::client::cluster::Cluster;
use crate::client::fetcher::Fetcher;
use crate::client::offsets::{self, LATEST};
use crate::client::producer::now_ms;
use crate::failure::Failure;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla perf latency orders --records 10000")]
pub(crate) struct Latency {
    /// The topic; nobody else may write to the partition
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Which partition
    #[arg(long, short, value_name = "P", default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// How many records
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Records before those that are measured
    #[arg(long, value_name = "N", default_value_t = 100)]
    warm_up: u64,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    record_size: u32,
    /// Who must have a record before it counts: all or 1
    #[arg(long, value_name = "ACKS", default_value = "all", value_parser = ["all", "1"])]
    acks: String,
    #[command(flatten)]
    result: super::Result,
}

#[derive(Debug, Serialize)]
struct Document {
    records: u64,
    /// From sending to acknowledgement.
    acknowledged: Latencies,
    /// From sending to having been read.
    read: Latencies,
}

impl Latency {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let bootstrap = client::bootstrap(session).await?;
        let topics = std::slice::from_ref(&self.topic);
        let deadline = Instant::now() + session.timeout;
        let mut writing = Cluster::new(bootstrap.clone(), session.timeout);
        let mut reading = Cluster::new(bootstrap, session.timeout);
        writing.refresh_until(topics, deadline).await.map_err(Failure::from)?;
        reading.refresh_until(topics, deadline).await.map_err(Failure::from)?;
        let place = (Arc::from(self.topic.as_str()), self.partition);
        let end = offsets::list(&mut reading, &[(place, LATEST)].into(), false).await;
        let positions: BTreeMap<_, _> = end.map_err(Failure::from)?;
        let mut fetcher = Fetcher::new(reading, positions, false);
        let (mut acknowledged, mut read) = (Meter::new(true)?, Meter::new(session.output.quiet)?);
        let acks = if self.acks == "all" { -1 } else { 1 };
        let target = Target {
            topic: &self.topic,
            partition: self.partition,
            acks,
            transactional_id: None,
            version: PRODUCE_VERSION,
        };
        let value: Vec<u8> = (0..self.record_size).map(|_| rand::random_range(b' '..=b'~')).collect();
        for at in 0..self.warm_up.saturating_add(self.records) {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            builder.add(now_ms(), None, Some(&value), &[])?;
            let batch = builder.finish()?;
            let began = Instant::now();
            let sending = async {
                let fate = batch::send(&mut writing, target, &batch, Instant::now() + session.timeout).await;
                (fate, began.elapsed())
            };
            let receiving = async {
                while fetcher.next().await?.is_empty() {}
                Ok::<Duration, client::ClientError>(began.elapsed())
            };
            let ((fate, written_in), read_in) = futures_util::future::join(sending, receiving).await;
            if let Fate::Refused(error) | Fate::Unknown(error) = fate {
                return Err(Failure::from(error)).context("a record was not written");
            }
            let read_in = read_in.map_err(Failure::from)?;
            if at >= self.warm_up {
                let bytes = u64::from(self.record_size);
                acknowledged.add(1, bytes, Some(written_in));
                read.add(1, bytes, Some(read_in));
            }
        }
        let document = Document {
            records: self.records,
            acknowledged: acknowledged.latencies(),
            read: read.latencies(),
        };
        let rows = |document: &Document| {
            text(&[document.acknowledged.rows("acknowledged"), document.read.rows("read")].concat())
        };
        super::show(&document, rows, session.output, self.result.report.as_deref())
    }
}
