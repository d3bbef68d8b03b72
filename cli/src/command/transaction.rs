//! `ottla transaction …`: transactional ids and what they have open.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::client::cluster::Cluster;
use crate::client::{self, transactions};
use crate::failure::Failure;
use crate::output;
use crate::parse;
use crate::profile::Session;

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Transaction {
    /// Transactional ids and where they stand
    List(List),
    /// One transactional id in all detail
    Describe(Describe),
    /// End a transaction that hangs in a partition
    Abort(Abort),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla transaction list --state Ongoing
  ottla transaction list --running-longer-than 10m --output json")]
pub(crate) struct List {
    /// Only those in this state: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit or CompleteAbort
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only ids that match this regular expression as a whole
    #[arg(long, value_name = "PATTERN")]
    id: Option<String>,
    /// Only those whose transaction was begun longer ago
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    running_longer_than: Option<std::time::Duration>,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla transaction describe payments-1")]
pub(crate) struct Describe {
    /// The transactional id
    #[arg(value_name = "ID")]
    transactional_id: String,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ottla transaction abort --topic orders --partition 0 --start-offset 1234

Writes an abort marker into the partition, past the coordinator. For a transaction whose coordinator \
does not know it any more; one that it knows ends by itself when its timeout is over.")]
pub(crate) struct Abort {
    /// The topic
    #[arg(long)]
    topic: String,
    /// The partition
    #[arg(long, short, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// Where the transaction begins, as 'ottla producer list' shows it
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    start_offset: i64,
}

#[derive(Debug, Serialize)]
struct ListDocument {
    transactions: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    transactional_id: String,
    coordinator: i32,
    producer_id: i64,
    state: String,
}

#[derive(Debug, Serialize)]
struct DescribeDocument {
    transactional_id: String,
    coordinator: i32,
    state: String,
    producer_id: i64,
    producer_epoch: i16,
    timeout_ms: i32,
    /// Milliseconds since the Unix epoch; -1: no transaction was begun yet.
    start_time_ms: i64,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    topic: String,
    partition: i32,
}

#[derive(Debug, Serialize)]
struct AbortDocument {
    topic: String,
    partition: i32,
    start_offset: i64,
    producer_id: i64,
    producer_epoch: i32,
}

impl Transaction {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let mut cluster = Cluster::new(client::bootstrap(session).await?, session.timeout);
        match self {
            Self::List(list) => list.run(session, &mut cluster).await,
            Self::Describe(describe) => describe.run(session, &mut cluster).await,
            Self::Abort(abort) => abort.run(session, &mut cluster).await,
        }
    }
}

impl List {
    async fn run(&self, session: &Session, cluster: &mut Cluster) -> anyhow::Result<()> {
        let duration_ms = self.running_longer_than.map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        let listed = transactions::list(cluster, self.state.as_deref(), self.id.as_deref(), duration_ms)
            .await
            .map_err(Failure::from)?;
        let transactions = listed
            .into_iter()
            .map(|listed| Listed {
                transactional_id: listed.state.transactional_id.to_string(),
                coordinator: listed.coordinator,
                producer_id: listed.state.producer_id,
                state: listed.state.transaction_state.to_string(),
            })
            .collect();
        session.output.show(&ListDocument { transactions }, |document| {
            let row = |one: &Listed| {
                vec![
                    one.transactional_id.clone(),
                    one.coordinator.to_string(),
                    one.producer_id.to_string(),
                    one.state.clone(),
                ]
            };
            output::table(
                &["TRANSACTIONAL ID", "COORDINATOR", "PRODUCER", "STATE"],
                document.transactions.iter().map(row),
            )
        })
    }
}

impl Describe {
    async fn run(&self, session: &Session, cluster: &mut Cluster) -> anyhow::Result<()> {
        let (coordinator, found) =
            transactions::describe(cluster, &self.transactional_id).await.map_err(Failure::from)?;
        let partitions = found
            .topics
            .iter()
            .flat_map(|topic| {
                let of_topic =
                    |partition: &i32| Partition { topic: topic.topic.to_string(), partition: *partition };
                topic.partitions.iter().map(of_topic)
            })
            .collect();
        let document = DescribeDocument {
            transactional_id: self.transactional_id.clone(),
            coordinator,
            state: found.transaction_state.to_string(),
            producer_id: found.producer_id,
            producer_epoch: found.producer_epoch,
            timeout_ms: found.transaction_timeout_ms,
            start_time_ms: found.transaction_start_time_ms,
            partitions,
        };
        session.output.show(&document, |document| {
            let partitions: Vec<String> =
                document.partitions.iter().map(|one| format!("{}:{}", one.topic, one.partition)).collect();
            let start = Some(document.start_time_ms).filter(|start_ms| *start_ms >= 0);
            output::fields(&[
                ("transactional id", document.transactional_id.clone()),
                ("state", document.state.clone()),
                ("coordinator", document.coordinator.to_string()),
                ("producer", format!("{} epoch {}", document.producer_id, document.producer_epoch)),
                ("timeout", format!("{} ms", document.timeout_ms)),
                ("start time (ms)", output::optional(start.as_ref())),
                ("partitions", output::list(&partitions)),
            ])
        })
    }
}

impl Abort {
    async fn run(&self, session: &Session, cluster: &mut Cluster) -> anyhow::Result<()> {
        let producers =
            transactions::producers(cluster, &self.topic, self.partition).await.map_err(Failure::from)?;
        let hanging =
            producers.iter().find(|producer| producer.current_txn_start_offset == self.start_offset);
        let Some(producer) = hanging else {
            let what = format!(
                "no transaction that is open in {}:{} begins at offset {}",
                self.topic, self.partition, self.start_offset
            );
            let hint = format!(
                "'ottla producer list {} --partition {}' shows those that do",
                self.topic, self.partition
            );
            return Err(Failure::new(what).hint(hint).into());
        };
        transactions::abort(cluster, &self.topic, self.partition, producer).await.map_err(Failure::from)?;
        let document = AbortDocument {
            topic: self.topic.clone(),
            partition: self.partition,
            start_offset: self.start_offset,
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
        };
        session.output.done(&document, |document| {
            format!("aborted the transaction of producer {}\n", document.producer_id)
        })
    }
}
