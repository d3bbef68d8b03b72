//! `ottla group describe G…`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::no_such_group;
use crate::client::cluster::Cluster;
use crate::client::groups::{self, Committed, Coordinator, Described};
use crate::client::offsets::TopicPartition;
use crate::failure::{Failure, Failures};
use crate::output;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ottla group describe billing\n  ottla group describe billing audit --output json"
)]
pub(crate) struct Describe {
    /// The groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Document {
    groups: Vec<GroupDocument>,
}

#[derive(Debug, Serialize)]
struct GroupDocument {
    group: String,
    r#type: &'static str,
    state: String,
    /// Empty without members.
    assignor: String,
    coordinator: String,
    /// Records behind, of all partitions of which that is known.
    lag: i64,
    members: Vec<MemberDocument>,
    partitions: Vec<PartitionDocument>,
}

#[derive(Debug, Serialize)]
struct MemberDocument {
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    /// Of the protocols of consumer and share groups only.
    epoch: Option<i32>,
    partitions: usize,
}

#[derive(Debug, Serialize)]
struct PartitionDocument {
    topic: String,
    partition: i32,
    /// Of a share group the first one that is not finished. Absent: nothing is committed.
    offset: Option<i64>,
    /// Absent: the partition is gone.
    end_offset: Option<i64>,
    /// Absent where either is.
    lag: Option<i64>,
    metadata: String,
    /// Who reads it now; of a share group one of those.
    member_id: Option<String>,
}

impl Describe {
    pub(super) async fn run(&self, session: &Session, cluster: &mut Cluster) -> anyhow::Result<()> {
        let (mut groups, mut failures) = (Vec::new(), Vec::new());
        for name in &self.groups {
            match describe(cluster, name).await {
                Ok(group) => groups.push(group),
                Err(failure) => failures.push(failure),
            }
        }
        if !groups.is_empty() {
            session.output.show(&Document { groups }, table)?;
        }
        Failures::check(failures)
    }
}

async fn describe(cluster: &mut Cluster, name: &str) -> Result<GroupDocument, Failure> {
    let mut coordinator = Coordinator::new(cluster, name);
    let described = coordinator.describe().await?.ok_or_else(|| no_such_group(name))?;
    let committed = coordinator.committed().await?;
    let assigned = described.members.iter().flat_map(|member| &member.partitions);
    let wanted: BTreeSet<TopicPartition> = committed.keys().chain(assigned).cloned().collect();
    let ends = groups::ends(cluster, wanted.iter().cloned()).await?;
    Ok(document(name, described, &committed, &ends, wanted))
}

fn document(
    name: &str,
    described: Described,
    committed: &BTreeMap<TopicPartition, Committed>,
    ends: &BTreeMap<TopicPartition, i64>,
    wanted: BTreeSet<TopicPartition>,
) -> GroupDocument {
    let owners: BTreeMap<&TopicPartition, &str> = described
        .members
        .iter()
        .flat_map(|member| member.partitions.iter().map(|partition| (partition, member.member_id.as_str())))
        .collect();
    let partition = |key: TopicPartition| {
        let found = committed.get(&key);
        let end_offset = ends.get(&key).copied();
        PartitionDocument {
            topic: key.0.to_string(),
            partition: key.1,
            offset: found.map(|committed| committed.offset),
            end_offset,
            lag: found
                .zip(end_offset)
                .map(|(committed, end)| committed.left.unwrap_or(end - committed.offset).max(0)),
            metadata: found.map(|committed| committed.metadata.clone()).unwrap_or_default(),
            member_id: owners.get(&key).map(|member| (*member).to_owned()),
        }
    };
    let partitions: Vec<PartitionDocument> = wanted.into_iter().map(partition).collect();
    drop(owners);
    let member = |member: groups::GroupMember| MemberDocument {
        member_id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        epoch: member.epoch,
        partitions: member.partitions.len(),
    };
    GroupDocument {
        group: name.to_owned(),
        r#type: described.group_type,
        state: described.state,
        assignor: described.assignor,
        coordinator: described.coordinator,
        lag: partitions.iter().filter_map(|partition| partition.lag).sum(),
        members: described.members.into_iter().map(member).collect(),
        partitions,
    }
}

fn table(document: &Document) -> String {
    document.groups.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn one(group: &GroupDocument) -> String {
    let mut text = output::fields(&[
        ("group", group.group.clone()),
        ("type", group.r#type.to_owned()),
        ("state", group.state.clone()),
        ("assignor", if group.assignor.is_empty() { "-".to_owned() } else { group.assignor.clone() }),
        ("coordinator", group.coordinator.clone()),
        ("lag", group.lag.to_string()),
    ]);
    if !group.members.is_empty() {
        let row = |member: &MemberDocument| {
            vec![
                member.member_id.clone(),
                output::optional(member.instance_id.as_ref()),
                member.client_id.clone(),
                member.client_host.clone(),
                output::optional(member.epoch.as_ref()),
                member.partitions.to_string(),
            ]
        };
        let headings = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "EPOCH", "PARTITIONS"];
        text.push('\n');
        text.push_str(&output::table(&headings, group.members.iter().map(row)));
    }
    if !group.partitions.is_empty() {
        let row = |partition: &PartitionDocument| {
            vec![
                partition.topic.clone(),
                partition.partition.to_string(),
                output::optional(partition.offset.as_ref()),
                output::optional(partition.end_offset.as_ref()),
                output::optional(partition.lag.as_ref()),
                output::optional(partition.member_id.as_ref()),
            ]
        };
        text.push('\n');
        let headings = ["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "MEMBER"];
        text.push_str(&output::table(&headings, group.partitions.iter().map(row)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_known_where_both_ends_are_and_summed() {
        let key = |partition: i32| -> TopicPartition { ("t".into(), partition) };
        let at = |offset: i64| Committed { offset, metadata: String::new(), left: None };
        let described = Described {
            group_type: "consumer",
            state: "Stable".into(),
            assignor: "uniform".into(),
            coordinator: "h:1".into(),
            members: vec![groups::GroupMember {
                member_id: "m".into(),
                instance_id: None,
                client_id: "c".into(),
                client_host: "/1".into(),
                epoch: Some(2),
                partitions: vec![key(3)],
            }],
        };
        let committed = BTreeMap::from([(key(0), at(5)), (key(1), at(9)), (key(2), at(7))]);
        let ends = BTreeMap::from([(key(0), 15), (key(1), 8), (key(3), 4)]);
        let found = document("g", described, &committed, &ends, (0..4).map(key).collect());
        let lags: Vec<_> = found.partitions.iter().map(|partition| partition.lag).collect();
        assert_eq!((lags, found.lag), (vec![Some(10), Some(0), None, None], 10));
        assert_eq!(found.partitions[3].member_id.as_deref(), Some("m"));
        let text = table(&Document { groups: vec![found] });
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.contains(&vec!["lag:", "10"]), "{text}");
        assert!(rows.contains(&vec!["t", "2", "7", "-", "-", "-"]), "{text}");
    }
}
