//! `ottla partition elect` and `ottla partition rebalance`.

use clap::Args;
use ottla_proto::admin::{Partition, PartitionRef};
use serde::Serialize;

use super::{Target, check, resolve, target};
use crate::admin::Admin;
use crate::output;
use crate::profile::Session;

/// Kafka's ELECTION_NOT_NEEDED.
const ELECTION_NOT_NEEDED: i32 = 84;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla partition elect orders:0 orders:1
  ottla partition elect orders --unclean")]
pub(crate) struct Elect {
    /// Topics, or single partitions of them
    #[arg(required = true, value_name = "TOPIC[:P]", value_parser = target)]
    targets: Vec<Target>,
    /// The first of the replicas is to lead: the default
    #[arg(long, conflicts_with = "unclean")]
    preferred: bool,
    /// Any replica that lives may lead where none that is in sync does: records may be lost
    #[arg(long)]
    unclean: bool,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla partition rebalance --dry-run")]
pub(crate) struct Rebalance {
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    partitions: Vec<Elected>,
}

#[derive(Debug, Serialize)]
struct Elected {
    topic: String,
    partition: i32,
    /// Null: not known.
    leader: Option<i32>,
    /// False: the leader is the one that an election would choose.
    changed: bool,
}

impl Elect {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        let asked = resolve(&mut admin, &self.targets).await?;
        let asked: Vec<PartitionRef> =
            asked.into_iter().map(|(topic, partition)| PartitionRef { topic, partition }).collect();
        let outcomes = admin.elect_leaders(self.unclean, asked).await?;
        let partitions: Vec<Elected> = outcomes
            .iter()
            .map(|outcome| Elected {
                topic: outcome.topic.clone(),
                partition: outcome.partition,
                leader: None,
                changed: outcome.error_code == 0,
            })
            .collect();
        let refused: Vec<_> = outcomes
            .into_iter()
            .filter(|outcome| outcome.error_code != 0 && outcome.error_code != ELECTION_NOT_NEEDED)
            .collect();
        let document = Document { partitions };
        check(&refused, "given another leader")?;
        session.output.done(&document, |document| {
            let changed = document.partitions.iter().filter(|partition| partition.changed).count();
            let kept = document.partitions.len() - changed;
            format!("partitions with another leader: {changed}; that needed none: {kept}")
        })
    }
}

impl Rebalance {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        let topics = admin.describe_topics(Vec::new()).await?;
        let due: Vec<(String, &Partition)> = super::all(&topics)
            .filter(|(_, partition)| is_due(partition))
            .map(|(topic, partition)| (topic.to_owned(), partition))
            .collect();
        let partitions: Vec<Elected> = due
            .iter()
            .map(|(topic, partition)| Elected {
                topic: topic.clone(),
                partition: partition.partition,
                leader: partition.replicas.first().copied(),
                changed: !self.dry_run,
            })
            .collect();
        let document = Document { partitions };
        if self.dry_run {
            return session.output.show(&document, |document| {
                let row = |one: &Elected| {
                    vec![one.topic.clone(), one.partition.to_string(), output::optional(one.leader.as_ref())]
                };
                output::table(&["TOPIC", "PARTITION", "NEW LEADER"], document.partitions.iter().map(row))
            });
        }
        if !due.is_empty() {
            let asked = due
                .iter()
                .map(|(topic, partition)| PartitionRef {
                    topic: topic.clone(),
                    partition: partition.partition,
                })
                .collect();
            let mut outcomes = admin.elect_leaders(false, asked).await?;
            outcomes.retain(|outcome| outcome.error_code != ELECTION_NOT_NEEDED);
            check(&outcomes, "given its preferred leader")?;
        }
        session.output.done(&document, |document| {
            format!("partitions that have their preferred leader again: {}", document.partitions.len())
        })
    }
}

/// Another replica leads than the preferred one, which is in sync.
fn is_due(partition: &Partition) -> bool {
    let preferred = partition.replicas.first();
    preferred.is_some_and(|preferred| {
        partition.leader >= 0 && partition.leader != *preferred && partition.isr.contains(preferred)
    })
}
