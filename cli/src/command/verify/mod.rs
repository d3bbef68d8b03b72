//! `ottla verify`: writes, reads back and proves. The checker is the crate `ottla-verify`; here is the workload, which talks
//! to any cluster that speaks the Kafka protocol.

mod check;
mod payload;
mod reader;
mod recorder;
mod run;
mod topics;
mod transformer;
mod writer;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use futures_util::future::{join, join_all};
use ottla_verify::{Event, Header, Report, Topic, VERSION};

use self::recorder::Recorder;
use self::run::{Plan, Run};
use crate::client::cluster::Cluster;
use crate::client::producer::now_ms;
use crate::client::{self, ClientError};
use crate::failure::{Failure, Silent};
use crate::output::Output;
use crate::parse;
use crate::profile::Session;
use crate::server::signals::Stop;

/// How long a run writes when nobody says.
const DURATION_DEFAULT: Duration = Duration::from_secs(60);
/// How long readers and transformers may take to come to the end once the writers have stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(180);
/// Bytes of one answer to a reader.
const FETCH_BYTES_MAX: i32 = 1024 * 1024;
/// How often the progress is shown.
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);
/// Most of each: every producer and consumer has a connection for each partition.
const PARTICIPANTS_MAX: i64 = 100;
const PARTITIONS_MAX: i64 = 1_000;
/// A batch must stay below the usual max.message.bytes.
const RECORD_BYTES_MAX: i64 = 100_000;
const BATCH_BYTES_MAX: usize = 900_000;

/// The arguments.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  ottla verify --duration 60s
  ottla verify --transactions --history run.history --report run.json
  ottla verify --bootstrap kafka:9092 --records 1000000 --rate 0
  ottla verify check run.history")]
pub(crate) struct Verify {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    workload: Workload,
}

/// What is done with a history that is there.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check a history again
    Check(check::Check),
}

/// The arguments of a run.
#[derive(Debug, Args)]
struct Workload {
    /// The topic to write; nobody else may write to it [default: one of its own, which is deleted when all held]
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// How many partitions a new topic has
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=PARTITIONS_MAX))]
    partitions: u32,
    /// How many replicas each partition of a new topic has [default: 3, or as many as there are brokers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// How many producers write
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=PARTICIPANTS_MAX))]
    producers: u32,
    /// How many consumers read, each everything; with --transactions also how many transform
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=PARTICIPANTS_MAX))]
    consumers: u32,
    /// Records a second; 0 is as many as go
    #[arg(long, value_name = "R", default_value_t = 1_000)]
    rate: u32,
    /// How long to write [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, conflicts_with = "records")]
    duration: Option<Duration>,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=RECORD_BYTES_MAX))]
    record_size: u32,
    /// Most records of a batch
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// How long to try before the outcome of a write counts as unknown; what comes behind is written all the same
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, default_value = "120s")]
    delivery_timeout: Duration,
    /// Write in transactions, and transform what is committed into a second topic exactly once
    #[arg(long)]
    transactions: bool,
    /// Write the history into this file
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Write the report as JSON into this file too
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Repeat the choices of a run [default: at random]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

impl Verify {
    /// Whether it needs no cluster.
    pub(crate) fn check(&self) -> Option<&check::Check> {
        self.command.as_ref().map(|Command::Check(check)| check)
    }

    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let workload = &self.workload;
        let bootstrap = client::bootstrap(session).await?;
        let mut cluster = Cluster::new(bootstrap.clone(), session.timeout);
        let mut plan = workload.plan();
        let created = workload.create_topics(&mut cluster, &mut plan, session.timeout).await?;
        let header = Event::History(Header {
            version: VERSION,
            topics: plan
                .topics
                .iter()
                .map(|name| Topic { name: name.clone(), partitions: plan.partitions })
                .collect(),
            idempotent: true,
            transactions: plan.transactions,
            seed: plan.seed,
            started_ms: now_ms(),
        });
        let recorder = Recorder::new(&header, workload.history.as_deref())?;
        let mut run = Run::new(plan, recorder, bootstrap);
        run.starts = reader::ends(&run).await.map_err(Failure::from)?;
        let result = execute(&run, session.output.quiet).await;
        let topics = run.plan.topics.clone();
        // What came to light before a failure is worth more than the failure.
        let report = run.recorder.finish()?;
        let shown = show(&report, session.output, workload.report.as_deref());
        result.map_err(Failure::from)?;
        if report.held && created && workload.topic.is_none() {
            for topic in topics {
                topics::delete(&mut cluster, &topic).await.map_err(Failure::from)?;
            }
        }
        shown
    }
}

impl Workload {
    fn plan(&self) -> Plan {
        let seed = self.seed.unwrap_or_else(rand::random);
        let name = self.topic.clone().unwrap_or_else(|| format!("ottla-verify-{seed:016x}"));
        let mut topics = vec![name];
        if self.transactions {
            topics.push(format!("{}-transformed", topics[0]));
        }
        let record_bytes = usize::try_from(self.record_size).unwrap_or(1);
        // The overhead of a record is guessed high.
        let fits = (BATCH_BYTES_MAX / (record_bytes + 200)).max(1);
        let by_default = self.records.is_none().then_some(DURATION_DEFAULT);
        Plan {
            topics,
            partitions: self.partitions,
            producers: self.producers,
            consumers: self.consumers,
            rate: self.rate,
            duration: self.duration.or(by_default),
            records: self.records,
            record_bytes,
            batch_records: self.batch.min(u32::try_from(fits).unwrap_or(u32::MAX)),
            transactions: self.transactions,
            delivery_timeout: self.delivery_timeout,
            seed,
        }
    }

    /// Makes the topics, or takes those that are there as they are. True: all are new.
    async fn create_topics(
        &self,
        cluster: &mut Cluster,
        plan: &mut Plan,
        timeout: Duration,
    ) -> Result<bool, Failure> {
        let deadline = Instant::now() + timeout;
        cluster.refresh_until(&[], deadline).await?;
        let brokers = i16::try_from(cluster.broker_count()).unwrap_or(i16::MAX);
        let replication_factor = self.replication_factor.unwrap_or(3.min(brokers).max(1));
        let in_sync = if replication_factor > 2 { 2 } else { 1 };
        let mut all_new = true;
        for name in &plan.topics {
            let topic = topics::NewTopic {
                name,
                partitions: i32::try_from(plan.partitions).unwrap_or(i32::MAX),
                replication_factor,
                configs: vec![
                    ("min.insync.replicas", in_sync.to_string()),
                    ("retention.ms", "-1".to_owned()),
                    ("retention.bytes", "-1".to_owned()),
                    ("cleanup.policy", "delete".to_owned()),
                ],
            };
            all_new &= topics::create(cluster, &topic, deadline).await?;
            let found = cluster.topic(name).map_or(0, |topic| topic.leaders.len());
            plan.partitions = plan.partitions.min(u32::try_from(found).unwrap_or(u32::MAX));
        }
        Ok(all_new)
    }
}

/// The run: writers until they stop, transformers until they have all, readers until the end of everything.
async fn execute(run: &Run, quiet: bool) -> Result<(), ClientError> {
    let plan = &run.plan;
    let mut readers = Vec::new();
    for id in 0..plan.consumers {
        // With transactions the first reads all, the second what is committed, and so on.
        let committed = plan.transactions && id % 2 == 1;
        run.recorder.record(&Event::Reader { r: id, committed });
        readers.extend((0..run.partitions()).map(|one| (id, one, committed)));
    }
    if plan.transactions && plan.consumers == 1 {
        run.recorder.record(&Event::Reader { r: 1, committed: true });
        readers.extend((0..run.partitions()).map(|one| (1, one, true)));
    }
    let reading = join_all(readers.into_iter().map(|(reader, partition, committed)| {
        reader::Lane::new(run, reader, partition, committed, FETCH_BYTES_MAX).read_to_end()
    }));
    let writing = async {
        let result = write(run).await;
        if result.is_err() {
            // Without ends nobody would come to one.
            run.give_up_in(Duration::ZERO);
        }
        result
    };
    let (((written, _), ()), ()) =
        join(join(join(writing, reading), reader::watch(run)), progress(run, quiet)).await;
    written
}

/// Writers, then transformers, then the ends.
async fn write(run: &Run) -> Result<(), ClientError> {
    let plan = &run.plan;
    let transformers = if plan.transactions { plan.consumers.min(plan.partitions) } else { 0 };
    for index in 0..transformers {
        run.recorder.record(&Event::Reader { r: transformer::FIRST_ID + index, committed: true });
    }
    let transforming = async {
        let all = (0..transformers)
            .map(|index| transformer::Transformer::new(run, index, transformers).transform());
        let all = join_all(all).await.into_iter().collect::<Result<Vec<bool>, _>>();
        if all.is_err() {
            run.stop();
        }
        all
    };
    let writing = async {
        let written = if plan.transactions {
            join_all((0..plan.producers).map(|writer| writer::write_transactions(run, writer))).await
        } else {
            let lanes =
                (0..plan.producers).flat_map(|writer| (0..plan.partitions).map(move |one| (writer, one)));
            join_all(lanes.map(|(writer, one)| writer::write_lane(run, writer, one))).await
        };
        run.give_up_in(DRAIN_TIMEOUT);
        let written: Result<Vec<()>, _> = written.into_iter().collect();
        match written {
            Ok(_) => {
                *run.input_ends.borrow_mut() = Some(reader::ends(run).await?);
                Ok(())
            }
            Err(error) => {
                run.give_up_in(Duration::ZERO);
                Err(error)
            }
        }
    };
    let (written, transformed) = join(writing, transforming).await;
    written?;
    if transformers > 0 && transformed?.into_iter().all(|done| done) {
        run.recorder.record(&Event::Drained { t: run.recorder.now() });
    }
    let ends = reader::ends(run).await?;
    run.recorder.record(&Event::Final { t: run.recorder.now(), ends: ends.clone() });
    *run.ends.borrow_mut() = Some(ends);
    Ok(())
}

/// Shows how far the run is, and stops the writers at a signal.
async fn progress(run: &Run, quiet: bool) {
    let Ok(mut stop) = Stop::new() else { return };
    let mut before = 0;
    while run.ends.borrow().is_none() && !run.gives_up() {
        tokio::select! {
            () = tokio::time::sleep(PROGRESS_PAUSE) => {
                let now = run.recorder.acknowledged();
                if !quiet {
                    let rate = (now - before) / PROGRESS_PAUSE.as_secs();
                    eprintln!("{now} records acknowledged, {rate} a second");
                }
                before = now;
            }
            () = stop.wait() => {
                eprintln!("stopping: what is under way is read to its end");
                run.stop();
            }
            () = until_the_end(run) => {}
        }
    }
}

async fn until_the_end(run: &Run) {
    while run.ends.borrow().is_none() && !run.gives_up() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Shows a report; bad news are exit code 1.
fn show(report: &Report, output: Output, file: Option<&Path>) -> anyhow::Result<()> {
    if let Some(path) = file {
        let text = serde_json::to_string_pretty(report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    output.show(report, Report::text)?;
    if report.held { Ok(()) } else { Err(Silent.into()) }
}
