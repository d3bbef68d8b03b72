//! `ottla partition …`: where partitions lie and who leads them.

mod elect;
mod list;
mod moves;
pub(crate) mod progress;

use clap::Subcommand;
use ottla_proto::admin::{PartitionResult, Topic};

use crate::admin::Admin;
use crate::failure::{Failure, Failures};
use crate::profile::Session;

/// What can be done with partitions.
#[derive(Debug, Subcommand)]
pub(crate) enum Partition {
    /// Partitions, where they lie, and what is wrong with them
    List(list::List),
    /// Give partitions to other brokers
    Move(moves::Move),
    /// Have leaders elected
    Elect(elect::Elect),
    /// Give leadership back to the preferred leader of every partition
    Rebalance(elect::Rebalance),
}

impl Partition {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let admin = Admin::connect(session).await?;
        match self {
            Self::List(list) => list.run(session, admin).await,
            Self::Move(moves) => moves.run(session, admin).await,
            Self::Elect(elect) => elect.run(session, admin).await,
            Self::Rebalance(rebalance) => rebalance.run(session, admin).await,
        }
    }
}

/// `TOPIC` or `TOPIC:P`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    topic: String,
    /// None: all.
    partition: Option<i32>,
}

/// Reads a target. Names of topics have no colon.
fn target(text: &str) -> Result<Target, String> {
    match text.split_once(':') {
        None => Ok(Target { topic: text.to_owned(), partition: None }),
        Some((topic, partition)) => {
            let partition = partition.parse().ok().filter(|partition| *partition >= 0);
            let partition = partition.ok_or_else(|| format!("\"{text}\" is not TOPIC or TOPIC:PARTITION"))?;
            Ok(Target { topic: topic.to_owned(), partition: Some(partition) })
        }
    }
}

/// The partitions that are meant: topic and index.
async fn resolve(admin: &mut Admin, targets: &[Target]) -> anyhow::Result<Vec<(String, i32)>> {
    let mut names: Vec<String> = targets.iter().map(|target| target.topic.clone()).collect();
    names.sort();
    names.dedup();
    let topics = admin.describe_topics(names).await?;
    let mut found = Vec::new();
    for target in targets {
        let Some(topic) = topics.iter().find(|topic| topic.name == target.topic) else { continue };
        let partitions = topic.partitions.iter().map(|partition| partition.partition);
        let wanted: Vec<i32> =
            partitions.filter(|index| target.partition.is_none_or(|wanted| wanted == *index)).collect();
        if wanted.is_empty() {
            let index = target.partition.unwrap_or_default();
            return Err(Failure::new(format!("topic \"{}\" has no partition {index}", target.topic))
                .hint("'ottla topic describe' shows those that it has")
                .into());
        }
        found.extend(wanted.into_iter().map(|index| (target.topic.clone(), index)));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The refusals among outcomes, in words; `what` is what was not done, "moved".
pub(crate) fn check(outcomes: &[PartitionResult], what: &str) -> anyhow::Result<()> {
    let refused = outcomes.iter().filter(|outcome| outcome.error_code != 0).map(|outcome| {
        let reason = if outcome.message.is_empty() { &outcome.error } else { &outcome.message };
        let PartitionResult { topic, partition, .. } = outcome;
        Failure::new(format!("partition {topic}:{partition} was not {what}: {reason}"))
    });
    Failures::check(refused.collect())
}

/// Every partition with its topic's name.
pub(crate) fn all(topics: &[Topic]) -> impl Iterator<Item = (&str, &ottla_proto::admin::Partition)> {
    topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.as_str(), partition)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_topics_or_single_partitions() {
        assert_eq!(target("a.b").unwrap(), Target { topic: "a.b".into(), partition: None });
        assert_eq!(target("a:3").unwrap(), Target { topic: "a".into(), partition: Some(3) });
        assert!(target("a:").is_err() && target("a:-1").is_err() && target("a:x").is_err());
    }
}
