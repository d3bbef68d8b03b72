//! `ottla cluster …`: the cluster as a whole.

mod local;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use ottla_proto::admin::{DescribeClusterReply, PartitionRef};
use serde::Serialize;
use tokio::time::Instant;

use super::broker::{self, BrokerDocument, LogDirectory};
use super::quorum::{self, QuorumDocument};
use crate::admin::Admin;
use crate::failure::{Failure, Silent};
use crate::output::{self, counted};
use crate::parse::show_duration;
use crate::profile::Session;

/// How long `await` waits when nobody says.
const AWAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often `await` looks.
const AWAIT_PAUSE: Duration = Duration::from_millis(50);
/// A node that does not answer in this time is left out of the disks of `status`.
const DISK_TIMEOUT: Duration = Duration::from_secs(2);

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Quorum, brokers, partitions in trouble, disks on one screen; exit code 1 if not healthy
    Status(Status),
    /// Wait until the cluster serves
    Await(Await),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla cluster status && echo all is well")]
pub(crate) struct Status {}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla cluster await --brokers 3 --healthy --timeout 60s")]
pub(crate) struct Await {
    /// So many brokers serve [default: all that are registered, at least one]
    #[arg(long, value_name = "N")]
    brokers: Option<usize>,
    /// And every partition has a leader and all its replicas in sync
    #[arg(long)]
    healthy: bool,
    /// Only the node on this machine, by its HTTP port: what a container's health check asks
    #[arg(long, conflicts_with_all = ["brokers", "healthy"])]
    local: bool,
    /// The HTTP port that --local asks, with https:// in front if it speaks TLS; of every address (0.0.0.0), this machine's
    #[arg(long, env = "OTTLA_HTTP_LISTENER", value_name = "HOST:PORT", default_value = local::HTTP_DEFAULT)]
    http: String,
}

#[derive(Debug, Serialize)]
struct StatusDocument {
    cluster_id: String,
    healthy: bool,
    /// What is wrong, in sentences.
    problems: Vec<String>,
    controller_id: i32,
    metadata_index: i64,
    topics: i32,
    partitions: i32,
    /// Null when it could not be asked.
    quorum: Option<QuorumDocument>,
    brokers: Vec<BrokerDocument>,
    under_replicated: Vec<Partition>,
    offline: Vec<Partition>,
    under_min_isr: Vec<Partition>,
    /// By broker id; only brokers that answered.
    disks: BTreeMap<i32, Vec<LogDirectory>>,
}

#[derive(Debug, Serialize)]
struct Partition {
    topic: String,
    partition: i32,
}

#[derive(Debug, Serialize)]
struct AwaitDocument {
    brokers: usize,
    healthy: bool,
}

impl Cluster {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Status(_) => status(session).await,
            Self::Await(wait) => wait.run(session).await,
        }
    }
}

async fn status(session: &Session) -> anyhow::Result<()> {
    let mut admin = Admin::connect(session).await?;
    let reply = admin.describe_cluster().await?;
    let quorum = quorum::describe(&mut admin).await.ok();
    let mut problems = problems(&reply);
    let mut brokers: Vec<_> = reply.brokers.into_iter().map(BrokerDocument::from).collect();
    brokers.sort_by_key(|broker| broker.id);
    let disks = disks(&brokers, session, &mut problems).await;
    let document = StatusDocument {
        cluster_id: reply.cluster_id,
        healthy: problems.is_empty(),
        problems,
        controller_id: reply.controller_id,
        metadata_index: reply.metadata_index,
        topics: reply.topics,
        partitions: reply.partitions,
        quorum,
        brokers,
        under_replicated: partitions(reply.under_replicated),
        offline: partitions(reply.offline),
        under_min_isr: partitions(reply.under_min_isr),
        disks,
    };
    let healthy = document.healthy;
    session.output.show(&document, status_text)?;
    if healthy { Ok(()) } else { Err(Silent.into()) }
}

/// Everything that makes a cluster not healthy.
fn problems(reply: &DescribeClusterReply) -> Vec<String> {
    let mut problems = Vec::new();
    if reply.controller_id < 0 {
        problems.push("no controller leads the quorum".to_owned());
    }
    if reply.brokers.is_empty() {
        problems.push("no broker is registered".to_owned());
    }
    let fenced: Vec<i32> =
        reply.brokers.iter().filter(|broker| broker.fenced).map(|broker| broker.id).collect();
    if !fenced.is_empty() {
        problems.push(format!("fenced: broker {}", output::list(&fenced)));
    }
    for (partitions, what) in [
        (&reply.offline, "without a leader"),
        (&reply.under_min_isr, "under min.insync.replicas"),
        (&reply.under_replicated, "with replicas out of sync"),
    ] {
        if !partitions.is_empty() {
            problems.push(format!("{} {what}", counted(partitions.len(), "partition")));
        }
    }
    problems
}

async fn disks(
    brokers: &[BrokerDocument],
    session: &Session,
    problems: &mut Vec<String>,
) -> BTreeMap<i32, Vec<LogDirectory>> {
    let session = &Session { timeout: session.timeout.min(DISK_TIMEOUT), ..session.clone() };
    let running = brokers.iter().filter(|broker| broker.state != "fenced");
    let answers = futures_util::future::join_all(
        running.map(async |broker| (broker.id, broker::log_directories(broker, session).await)),
    )
    .await;
    let disks: BTreeMap<_, _> =
        answers.into_iter().filter_map(|(id, disks)| Some((id, disks.ok()?))).collect();
    for (id, disks) in &disks {
        let offline = disks.iter().filter(|disk| disk.offline).count();
        if offline > 0 {
            problems.push(format!("{} of broker {id} offline", counted(offline, "log directory")));
        }
    }
    disks
}

fn partitions(references: Vec<PartitionRef>) -> Vec<Partition> {
    references.into_iter().map(|one| Partition { topic: one.topic, partition: one.partition }).collect()
}

fn status_text(document: &StatusDocument) -> String {
    let health = if document.healthy {
        "healthy".to_owned()
    } else {
        format!("NOT HEALTHY: {}", document.problems.join("; "))
    };
    let quorum = document.quorum.as_ref().map_or_else(
        || "could not be asked".to_owned(),
        |quorum| {
            let voters: Vec<i32> = quorum.voters.iter().map(|voter| voter.node_id).collect();
            format!(
                "leader {}, epoch {}, voters {}",
                quorum.leader_id,
                quorum.leader_epoch,
                output::list(&voters)
            )
        },
    );
    let mut text = output::fields(&[
        ("cluster", document.cluster_id.clone()),
        ("state", health),
        ("quorum", quorum),
        ("topics", format!("{} with {} partitions", document.topics, document.partitions)),
    ]);
    text.push('\n');
    text.push_str(&broker::table(&document.brokers));
    let disks = document.disks.iter().flat_map(|(id, disks)| disks.iter().map(move |disk| (id, disk)));
    let rows: Vec<_> = disks
        .map(|(id, disk)| {
            let state = if disk.offline { "offline" } else { "online" };
            vec![
                id.to_string(),
                output::bytes(disk.free_bytes),
                output::bytes(disk.total_bytes),
                state.to_owned(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&output::table(&["BROKER", "DISK FREE", "DISK TOTAL", "STATE"], rows));
    }
    for (partitions, what) in [
        (&document.offline, "offline"),
        (&document.under_min_isr, "under min.insync.replicas"),
        (&document.under_replicated, "under-replicated"),
    ] {
        if !partitions.is_empty() {
            let names: Vec<_> =
                partitions.iter().map(|one| format!("{}:{}", one.topic, one.partition)).collect();
            text.extend([format!("\n{what}: {}\n", names.join(" "))]);
        }
    }
    text
}

impl Await {
    async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let limit = session.timeout_given.unwrap_or(AWAIT_TIMEOUT);
        if self.local {
            return local::wait(&self.http, limit, session.output);
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(AWAIT_PAUSE);
            let attempt = Session { timeout: left.min(session.timeout), ..session.clone() };
            let reason = match look(&attempt).await {
                Ok(reply) => match self.missing(&reply) {
                    None => {
                        let document =
                            AwaitDocument { brokers: serving(&reply), healthy: problems(&reply).is_empty() };
                        return session.output.done(&document, |document| {
                            format!("{} ready", counted(document.brokers, "broker"))
                        });
                    }
                    Some(reason) => reason,
                },
                Err(failure) => failure.to_string(),
            };
            if Instant::now() + AWAIT_PAUSE >= deadline {
                let message = format!("not within {}: {reason}", show_duration(limit));
                return Err(Failure::new(message)
                    .hint("'ottla cluster status' shows how it is; --timeout waits longer")
                    .into());
            }
            tokio::time::sleep(AWAIT_PAUSE).await;
        }
    }

    /// What is still to be waited for.
    fn missing(&self, reply: &DescribeClusterReply) -> Option<String> {
        let wanted = self.brokers.unwrap_or(reply.brokers.len().max(1));
        let serving = serving(reply);
        if reply.controller_id < 0 {
            return Some("no controller leads the quorum".to_owned());
        }
        if serving < wanted {
            return Some(format!("{serving} of {wanted} brokers serve"));
        }
        let partitions = reply.offline.len() + reply.under_min_isr.len() + reply.under_replicated.len();
        (self.healthy && partitions > 0).then(|| problems(reply).join("; "))
    }
}

async fn look(session: &Session) -> Result<DescribeClusterReply, Failure> {
    Admin::connect(session).await?.describe_cluster().await
}

fn serving(reply: &DescribeClusterReply) -> usize {
    reply.brokers.iter().filter(|broker| !broker.fenced && !broker.in_controlled_shutdown).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::admin::Broker;

    fn reply(fenced: &[bool]) -> DescribeClusterReply {
        let brokers =
            (1..).zip(fenced).map(|(id, fenced)| Broker { id, fenced: *fenced, ..Broker::default() });
        DescribeClusterReply { controller_id: 1, brokers: brokers.collect(), ..Default::default() }
    }

    fn wait(brokers: Option<usize>, healthy: bool) -> Await {
        Await { brokers, healthy, local: false, http: local::HTTP_DEFAULT.to_owned() }
    }

    #[test]
    fn awaiting_brokers_counts_those_that_serve() {
        assert_eq!(wait(Some(2), false).missing(&reply(&[false, false])), None);
        let missing = wait(Some(2), false).missing(&reply(&[false, true]));
        assert_eq!(missing.as_deref(), Some("1 of 2 brokers serve"));
        assert_eq!(wait(Some(1), false).missing(&reply(&[false, true])), None);
        assert!(wait(None, false).missing(&reply(&[false, true])).is_some());
        assert!(wait(None, false).missing(&reply(&[])).is_some());
    }

    #[test]
    fn awaiting_health_looks_at_partitions_too() {
        let mut reply = reply(&[false]);
        reply.under_replicated.push(PartitionRef { topic: "a".into(), partition: 0 });
        assert_eq!(wait(None, false).missing(&reply), None);
        assert_eq!(
            wait(None, true).missing(&reply).as_deref(),
            Some("1 partition with replicas out of sync")
        );
    }

    #[test]
    fn a_cluster_is_healthy_when_nothing_is_wrong() {
        assert_eq!(problems(&reply(&[false, false])), Vec::<String>::new());
        assert_eq!(problems(&reply(&[false, true])), ["fenced: broker 2"]);
        let mut leaderless = reply(&[false]);
        leaderless.controller_id = -1;
        assert_eq!(problems(&leaderless), ["no controller leads the quorum"]);
    }
}
