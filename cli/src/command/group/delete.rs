//! `ottla group delete G…` and `ottla group delete-offsets G --topic T`.

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use super::places::{TopicPlaces, chosen};
use super::{no_such_group, refusal};
use crate::client::ClientError;
use crate::client::cluster::Cluster;
use crate::client::groups::Coordinator;
use crate::client::offsets::TopicPartition;
use crate::command::topic::delete::confirm;
use crate::failure::{Failure, Failures};
use crate::output;
use crate::profile::Session;

/// The arguments of `delete`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla group delete billing --yes")]
pub(crate) struct Delete {
    /// The groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Deleted {
    deleted: Vec<String>,
}

impl Delete {
    /// Before anything is asked of a cluster.
    pub(super) fn confirm(&self) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        confirm(&format!("delete {} and all committed offsets?", self.groups.join(", ")))
    }

    pub(super) async fn run(&self, session: &Session, cluster: &mut Cluster) -> anyhow::Result<()> {
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for group in &self.groups {
            match Coordinator::new(cluster, group).delete().await {
                Ok(()) => deleted.push(group.clone()),
                Err(error) => failures.push(refusal(group, "deleted", error)),
            }
        }
        if !deleted.is_empty() {
            let sentence = |document: &Deleted| {
                output::lines(document.deleted.iter().map(|group| format!("deleted {group}")))
            };
            session.output.done(&Deleted { deleted }, sentence)?;
        }
        Failures::check(failures)
    }
}

/// The arguments of `delete-offsets`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla group delete-offsets billing --topic orders --yes")]
pub(crate) struct DeleteOffsets {
    /// The group
    group: String,
    /// Of which topic, or of which of its partitions; may be given several times
    #[arg(long = "topic", required = true, value_name = "TOPIC[:P,…]", value_parser = TopicPlaces::parse)]
    topics: Vec<TopicPlaces>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct DeletedOffsets {
    group: String,
    deleted: Vec<Place>,
}

#[derive(Debug, Serialize)]
struct Place {
    topic: String,
    partition: i32,
}

impl DeleteOffsets {
    /// Before anything is asked of a cluster.
    pub(super) fn confirm(&self) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        let topics = self.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>().join(", ");
        confirm(&format!("delete the offsets of {} in {topics}?", self.group))
    }

    pub(super) async fn run(&self, session: &Session, cluster: &mut Cluster) -> anyhow::Result<()> {
        let group = &self.group;
        let mut coordinator = Coordinator::new(cluster, group);
        if coordinator.describe().await.map_err(Failure::from)?.is_none() {
            return Err(no_such_group(group).into());
        }
        let committed: BTreeSet<TopicPartition> =
            coordinator.committed().await.map_err(Failure::from)?.into_keys().collect();
        let partitions: BTreeSet<TopicPartition> = chosen(&self.topics, &committed).into_iter().collect();
        if partitions.is_empty() {
            return Err(Failure::new(format!("group \"{group}\" has no such offset"))
                .hint("'ottla group describe' shows what it has committed")
                .into());
        }
        let refused = coordinator
            .delete_offsets(&partitions)
            .await
            .map_err(|error| refusal(group, "changed", error))?;
        let failures = refused.iter().map(|((topic, partition), code)| {
            let what = format!("offset of {topic}:{partition}");
            refusal(group, "changed", ClientError::Refused { what, code: *code, message: None })
        });
        let failures = failures.collect();
        let deleted: Vec<Place> = partitions
            .iter()
            .filter(|partition| !refused.contains_key(*partition))
            .map(|(topic, partition)| Place { topic: topic.to_string(), partition: *partition })
            .collect();
        if !deleted.is_empty() {
            let document = DeletedOffsets { group: group.clone(), deleted };
            session.output.done(&document, |document| {
                let line =
                    |place: &Place| format!("deleted the offset of {}:{}", place.topic, place.partition);
                output::lines(document.deleted.iter().map(line))
            })?;
        }
        Failures::check(failures)
    }
}
