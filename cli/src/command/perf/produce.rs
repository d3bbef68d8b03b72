//! `ottla perf produce TOPIC`: each producer has a task for each partition with one batch under way.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::join_all;
use ottla_wire::compression::Codec;
use ottla_wire::records::{BatchBuilder, BatchOptions};
use serde::Serialize;

use super::measure::{Latencies, Meter, Rates, text};
use crate::client::batch::{self, Fate, PRODUCE_VERSION, Target};
use crate::client::cluster::Cluster;
use crate::client::producer::now_ms;
use crate::client::{self, ClientError};
use crate::failure::Failure;
use crate::parse;
use crate::profile::Session;

/// Records that a run writes when nobody says.
const RECORDS_DEFAULT: u64 = 1_000_000;
/// Most bytes of a batch and of a record: below the usual max.message.bytes.
const BYTES_MAX: i64 = 1_000_000;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla perf produce orders --records 1000000 --record-size 1024
  ottla perf produce orders --duration 30s --rate 10000 --acks 1")]
pub(crate) struct Produce {
    /// The topic
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// How many records [default: 1000000]
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    records: Option<u64>,
    /// How long
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    duration: Option<Duration>,
    /// Records a second; 0 is as many as go
    #[arg(long, value_name = "R", default_value_t = 0)]
    rate: u32,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=BYTES_MAX))]
    record_size: u32,
    /// Bytes of records in a batch; with a rate a batch holds what has come about
    #[arg(long, value_name = "BYTES", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=BYTES_MAX))]
    batch_size: u32,
    /// How many producers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    producers: u32,
    /// Who must have a record before it counts: all, 1 or 0
    #[arg(long, value_name = "ACKS", default_value = "all", value_parser = ["all", "1", "0"])]
    acks: String,
    #[command(flatten)]
    result: super::Result,
}

#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    rates: Rates,
    /// From when a record was due to its acknowledgement.
    latency: Latencies,
}

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    meter: RefCell<Meter>,
    left: Cell<u64>,
    until: Option<Instant>,
    value: Vec<u8>,
    /// Of all tasks.
    tasks: u32,
    acks: i16,
    /// Records of a full batch.
    batch_records: u64,
}

impl Produce {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let bootstrap = client::bootstrap(session).await?;
        let mut cluster = Cluster::new(bootstrap.clone(), session.timeout);
        let deadline = Instant::now() + session.timeout;
        cluster.refresh_until(std::slice::from_ref(&self.topic), deadline).await.map_err(Failure::from)?;
        let partitions: Vec<i32> = cluster
            .topic(&self.topic)
            .map(|topic| topic.leaders.keys().copied().collect())
            .unwrap_or_default();
        let size = usize::try_from(self.record_size).unwrap_or(0);
        let by_default = if self.duration.is_some() { u64::MAX } else { RECORDS_DEFAULT };
        let shared = Shared {
            meter: RefCell::new(Meter::new(session.output.quiet)?),
            left: Cell::new(self.records.unwrap_or(by_default)),
            until: self.duration.map(|duration| Instant::now() + duration),
            // Not all zeros: file systems and codecs would make light of it.
            value: (0..size).map(|_| rand::random_range(b' '..=b'~')).collect(),
            tasks: self.producers * u32::try_from(partitions.len()).unwrap_or(1),
            acks: match self.acks.as_str() {
                "all" => -1,
                "1" => 1,
                _ => 0,
            },
            batch_records: (u64::from(self.batch_size) / u64::from(self.record_size.max(1))).max(1),
        };
        let tasks = (0..self.producers).flat_map(|_| partitions.iter().copied());
        let lanes = tasks.map(|partition| {
            let cluster = Cluster::new(bootstrap.clone(), session.timeout);
            self.lane(&shared, cluster, partition, session.timeout)
        });
        for done in join_all(lanes).await {
            done.map_err(Failure::from)?;
        }
        let meter = shared.meter.into_inner();
        let document = Document { rates: meter.rates(), latency: meter.latencies() };
        let rows =
            |document: &Document| text(&[document.rates.rows(), document.latency.rows("latency")].concat());
        super::show(&document, rows, session.output, self.result.report.as_deref())
    }

    async fn lane(
        &self,
        shared: &Shared,
        mut cluster: Cluster,
        partition: i32,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let deadline = || Instant::now() + timeout;
        cluster.refresh_until(std::slice::from_ref(&self.topic), deadline()).await?;
        let producer = match shared.acks {
            -1 => batch::producer_id(&mut cluster, deadline()).await?,
            _ => (-1, -1),
        };
        let target = Target {
            topic: &self.topic,
            partition,
            acks: shared.acks,
            transactional_id: None,
            version: PRODUCE_VERSION,
        };
        let pause =
            (self.rate > 0).then(|| Duration::from_secs(1).saturating_mul(shared.tasks) / self.rate.max(1));
        let mut due = Instant::now();
        let mut sequence = 0;
        while let Some((began, count)) = shared.next(&mut due, pause).await {
            let batch = encode(&shared.value, count, producer, sequence).map_err(|error| {
                let code = ottla_wire::error_code::ErrorCode::MessageTooLarge;
                ClientError::Refused { what: self.topic.clone(), code, message: Some(error.to_string()) }
            })?;
            match batch::send(&mut cluster, target, &batch, deadline()).await {
                Fate::Written(_) => {
                    let latency = began.elapsed();
                    let bytes = count * u64::from(self.record_size);
                    shared.meter.borrow_mut().add(count, bytes, Some(latency));
                }
                Fate::Refused(error) | Fate::Unknown(error) => return Err(error),
            }
            sequence = sequence.wrapping_add(i32::try_from(count).unwrap_or(0)) & i32::MAX;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

impl Shared {
    /// Waits until records are due: since when the first was, and how many. A latency is counted from when a record was due,
    /// not from when it could be sent, so that a pause of the cluster is not left out.
    async fn next(&self, due: &mut Instant, pause: Option<Duration>) -> Option<(Instant, u64)> {
        if let Some(pause) = pause {
            tokio::time::sleep_until((*due).into()).await;
            let late = due.elapsed().as_nanos() / pause.as_nanos().max(1) + 1;
            let count = self.take(u64::try_from(late).unwrap_or(u64::MAX).min(self.batch_records))?;
            let began = *due;
            *due += pause.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
            return Some((began, count));
        }
        let count = self.take(self.batch_records)?;
        Some((Instant::now(), count))
    }

    fn take(&self, wanted: u64) -> Option<u64> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let count = wanted.min(self.left.get());
        self.left.set(self.left.get() - count);
        (count > 0).then_some(count)
    }
}

fn encode(
    value: &[u8],
    count: u64,
    (producer_id, producer_epoch): (i64, i16),
    sequence: i32,
) -> Result<bytes::Bytes, ottla_wire::records::BuildError> {
    let base_sequence = if producer_id < 0 { -1 } else { sequence };
    let codec = Codec::None;
    let options =
        BatchOptions { codec, producer_id, producer_epoch, base_sequence, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    let now = now_ms();
    for _ in 0..count {
        builder.add(now, None, Some(value), &[])?;
    }
    builder.finish()
}
