//! `ottla server --adopt`: a new cluster of one node begins with the partitions that Apache Kafka has left in its log directories.
//!
//! The directories are read in place: records, offsets, leader epochs, producers' sequences, committed offsets and transactions stay.
//! What only Kafka's metadata log knows, settings of topics, users, ACLs, quotas, is not read. A broker holds whole topics or
//! it is not adopted: of a partition that lies on another broker nothing is known here.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use ottla_log::directory::{self, Kind};
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{
    ConfigRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord, ResourceType, TopicRecord,
};
use uuid::Uuid;

use crate::failure::Failure;
use crate::node_config::NodeConfig;

/// Kafka hands out producer ids from 0 on, and how far it has come stands in its metadata log. New producers must not be taken for
/// old ones: theirs begin here.
const FIRST_PRODUCER_ID: i64 = 1 << 40;

/// Topics of the cluster itself, which are compacted whatever else; the others get the node's defaults.
const COMPACTED: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];
/// Kafka's segment size of those.
const COMPACTED_SEGMENT_BYTES: &str = "104857600";

/// What a cluster that is formed begins with.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    /// Beside the cluster's own records.
    pub(crate) records: Vec<MetadataRecord>,
    /// `None`: drawn at random.
    pub(crate) cluster_id: Option<String>,
}

impl From<Vec<MetadataRecord>> for Beginning {
    fn from(records: Vec<MetadataRecord>) -> Self {
        Self { records, cluster_id: None }
    }
}

#[derive(Debug, Default)]
struct Topic {
    /// Kafka writes it down with a partition's first record: of a topic without any it is not known.
    id: Option<Uuid>,
    /// By index: the log directory's id and the latest leader epoch.
    partitions: BTreeMap<i32, (Uuid, i32)>,
}

/// What lies in the log directories.
#[derive(Debug, Default)]
struct Found {
    cluster_id: String,
    topics: BTreeMap<String, Topic>,
}

impl Beginning {
    /// Adds what lies in the log directories.
    pub(crate) fn adopt(&mut self, config: &NodeConfig) -> anyhow::Result<()> {
        if !(config.roles.broker && config.roles.controller && config.voters.len() <= 1) {
            return Err(Failure::usage(
                "--adopt needs a cluster of one node with process.roles=broker,controller; more nodes join it afterwards",
            )
            .into());
        }
        let found = Found::scan(config)?;
        found.check_whole()?;
        tracing::info!(
            topics = found.topics.len(),
            partitions = found.topics.values().map(|topic| topic.partitions.len()).sum::<usize>(),
            cluster = found.cluster_id,
            "a new cluster begins with what lies in the log directories"
        );
        self.records.extend(found.records(config.node_id));
        self.cluster_id = (!found.cluster_id.is_empty()).then_some(found.cluster_id);
        Ok(())
    }
}

impl Found {
    fn scan(config: &NodeConfig) -> anyhow::Result<Self> {
        let mut found = Self::default();
        for path in config.log_dirs.iter().filter(|path| path.exists()) {
            let Some(owner) = directory::read_owner(path)? else { continue };
            if owner.node_id != config.node_id {
                let (theirs, own) = (owner.node_id, config.node_id);
                return Err(Failure::new(format!(
                    "{} belongs to node {theirs}, this is node {own}",
                    path.display()
                ))
                .hint(format!("set node.id={theirs}"))
                .into());
            }
            if !found.cluster_id.is_empty() && found.cluster_id != owner.cluster_id {
                return Err(Failure::new(format!(
                    "{} belongs to another cluster than its neighbour",
                    path.display()
                ))
                .into());
            }
            found.cluster_id = owner.cluster_id;
            found.add(path, owner.directory_id)?;
        }
        Ok(found)
    }

    fn add(&mut self, path: &Path, directory_id: Uuid) -> anyhow::Result<()> {
        for partition in directory::scan(path)?.into_iter().filter(|found| found.kind == Kind::Partition) {
            let shown = partition.path.display();
            let id = directory::read_topic_id(&partition.path)?;
            if id.is_none() && has_records(&partition.path)? {
                return Err(Failure::new(format!(
                    "{shown} has no partition.metadata, which names its topic's id"
                ))
                .hint("start Kafka 2.8 or later on it once, or move it away")
                .into());
            }
            let topic = self.topics.entry(partition.topic.clone()).or_default();
            let epoch = directory::latest_epoch(&partition.path).unwrap_or(0);
            let is_new = topic.partitions.insert(partition.partition, (directory_id, epoch)).is_none();
            let is_other = id.is_some() && topic.id.is_some() && topic.id != id;
            topic.id = topic.id.or(id);
            if is_other || !is_new {
                return Err(Failure::new(format!(
                    "{shown} is there twice, or is of another topic of the same name"
                ))
                .hint("move one of them away")
                .into());
            }
        }
        Ok(())
    }

    fn check_whole(&self) -> anyhow::Result<()> {
        for (name, topic) in &self.topics {
            let missing = (0..).zip(topic.partitions.keys()).find(|(expected, index)| expected != *index);
            if let Some((missing, _)) = missing {
                return Err(Failure::new(format!("partition {missing} of topic {name} is not in log.dirs"))
                    .hint("let Kafka move all partitions to this broker first (kafka-reassign-partitions.sh)")
                    .into());
            }
        }
        Ok(())
    }

    fn records(&self, node_id: i32) -> Vec<MetadataRecord> {
        let mut records = vec![Record::ProducerIds(ProducerIdsRecord {
            next_producer_id: FIRST_PRODUCER_ID,
            ..ProducerIdsRecord::default()
        })];
        for (name, topic) in &self.topics {
            let Some(id) = topic.id else {
                tracing::warn!(topic = name, "has no record and no id, and is not taken over");
                continue;
            };
            let topic_id = Bytes::copy_from_slice(id.as_bytes());
            records.push(Record::Topic(TopicRecord { topic_id: topic_id.clone(), name: name.clone() }));
            for (partition, (directory_id, leader_epoch)) in &topic.partitions {
                let directory = Bytes::copy_from_slice(directory_id.as_bytes());
                records.push(Record::Partition(PartitionRecord {
                    topic_id: topic_id.clone(),
                    partition: *partition,
                    replicas: vec![node_id],
                    isr: vec![node_id],
                    leader: -1,
                    leader_epoch: *leader_epoch,
                    directories: if directory_id.is_nil() { Vec::new() } else { vec![directory] },
                    ..PartitionRecord::default()
                }));
            }
            if COMPACTED.contains(&name.as_str()) {
                let configs = [("cleanup.policy", "compact"), ("segment.bytes", COMPACTED_SEGMENT_BYTES)];
                records.extend(configs.map(|(key, value)| {
                    Record::Config(ConfigRecord {
                        resource_type: ResourceType::Topic.into(),
                        resource_name: name.clone(),
                        name: key.to_owned(),
                        value: Some(value.to_owned()),
                    })
                }));
            }
        }
        records.into_iter().map(|record| MetadataRecord { record: Some(record) }).collect()
    }
}

/// Whether there is anything in a partition's segments.
fn has_records(path: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if Path::new(&entry.file_name()).extension().is_some_and(|it| it == "log")
            && entry.metadata()?.len() > 0
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(root: &Path, name: &str, id: &str) {
        let path = root.join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("partition.metadata"), format!("version: 0\ntopic_id: {id}\n")).unwrap();
        std::fs::write(path.join("leader-epoch-checkpoint"), "0\n2\n0 0\n7 20\n").unwrap();
    }

    fn found(root: &Path) -> anyhow::Result<Found> {
        let mut found = Found::default();
        found.add(root, Uuid::from_u128(5))?;
        found.check_whole()?;
        Ok(found)
    }

    #[test]
    fn whole_topics_become_records() {
        let root = tempfile::tempdir().unwrap();
        let id = "BwAAAAAAAAAAAAAAAAAAAA";
        partition(root.path(), "a-b-0", id);
        partition(root.path(), "a-b-1", id);
        partition(root.path(), "__consumer_offsets-0", "CQAAAAAAAAAAAAAAAAAAAA");
        std::fs::create_dir(root.path().join("__cluster_metadata-0")).unwrap();
        // Kafka was killed before it wrote anything of these.
        std::fs::create_dir(root.path().join("a-b-2")).unwrap();
        std::fs::create_dir(root.path().join("never-written-0")).unwrap();
        let records = found(root.path()).unwrap().records(3);
        let partitions: Vec<_> = records
            .iter()
            .filter_map(|record| match record.record.as_ref()? {
                Record::Partition(record) => {
                    Some((record.partition, record.replicas.clone(), record.leader, record.leader_epoch))
                }
                _ => None,
            })
            .collect();
        let expected = [(0, 7), (0, 7), (1, 7), (2, 0)].map(|(index, epoch)| (index, vec![3], -1, epoch));
        assert_eq!(partitions, expected);
        let is_compacted = |record: &MetadataRecord| {
            matches!(&record.record, Some(Record::Config(config)) if config.resource_name == "__consumer_offsets"
                && config.value.as_deref() == Some("compact"))
        };
        assert!(records.iter().any(is_compacted));
    }

    #[test]
    fn a_topic_of_which_a_part_is_elsewhere_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        partition(root.path(), "orders-1", "BwAAAAAAAAAAAAAAAAAAAA");
        let refusal = found(root.path()).unwrap_err().to_string();
        assert!(refusal.contains("partition 0 of topic orders"), "{refusal}");
        partition(root.path(), "orders-0", "CQAAAAAAAAAAAAAAAAAAAA");
        assert!(found(root.path()).is_err(), "two topics of one name");
        std::fs::remove_file(root.path().join("orders-0/partition.metadata")).unwrap();
        assert!(found(root.path()).is_ok(), "nothing is in it");
        std::fs::write(root.path().join("orders-0/00000000000000000000.log"), "x").unwrap();
        assert!(found(root.path()).is_err(), "whose records are these?");
    }
}
