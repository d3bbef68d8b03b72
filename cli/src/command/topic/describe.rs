//! `ottla topic describe NAME…`.

use std::collections::BTreeMap;

use clap::Args;
use ottla_proto::admin;
use serde::Serialize;

use super::no_such_topic;
use crate::admin::Admin;
use crate::failure::Failures;
use crate::output::{self, optional};
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla topic describe orders payments")]
pub(crate) struct Describe {
    /// Names of the topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Document {
    topics: Vec<Topic>,
}

#[derive(Debug, Serialize)]
struct Topic {
    name: String,
    id: String,
    internal: bool,
    partitions: Vec<Partition>,
    configs: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    /// -1: none.
    leader: i32,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    elr: Vec<i32>,
    /// Null, as the next three, when the leader could not be asked.
    start_offset: Option<i64>,
    end_offset: Option<i64>,
    high_watermark: Option<i64>,
    size_bytes: Option<i64>,
}

impl Describe {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        let found = admin.describe_topics(self.names.clone()).await?;
        let topics: Vec<Topic> = found.into_iter().map(Topic::from).collect();
        let missing: Vec<_> =
            self.names.iter().filter(|name| !topics.iter().any(|topic| topic.name == **name)).collect();
        if !topics.is_empty() {
            session.output.show(&Document { topics }, text)?;
        }
        Failures::check(missing.into_iter().map(|name| no_such_topic(name)).collect())
    }
}

impl From<admin::Topic> for Topic {
    fn from(topic: admin::Topic) -> Self {
        let mut partitions: Vec<Partition> = topic.partitions.into_iter().map(Partition::from).collect();
        partitions.sort_by_key(|partition| partition.partition);
        Self {
            name: topic.name,
            id: topic.id,
            internal: topic.internal,
            partitions,
            configs: topic.configs.into_iter().collect(),
        }
    }
}

impl From<admin::Partition> for Partition {
    fn from(partition: admin::Partition) -> Self {
        Self {
            partition: partition.partition,
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas,
            isr: partition.isr,
            elr: partition.elr,
            start_offset: partition.start_offset,
            end_offset: partition.end_offset,
            high_watermark: partition.high_watermark,
            size_bytes: partition.size_bytes,
        }
    }
}

fn text(document: &Document) -> String {
    document.topics.iter().map(topic_text).collect::<Vec<_>>().join("\n")
}

fn topic_text(topic: &Topic) -> String {
    let configs: Vec<String> = topic.configs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let head = output::fields(&[
        ("topic", topic.name.clone()),
        ("id", topic.id.clone()),
        ("partitions", topic.partitions.len().to_string()),
        ("configs", if configs.is_empty() { "-".into() } else { configs.join(" ") }),
    ]);
    let row = |partition: &Partition| {
        vec![
            partition.partition.to_string(),
            if partition.leader < 0 { "none".into() } else { partition.leader.to_string() },
            partition.leader_epoch.to_string(),
            output::list(&partition.replicas),
            output::list(&partition.isr),
            output::list(&partition.elr),
            optional(partition.start_offset.as_ref()),
            optional(partition.end_offset.as_ref()),
            optional(partition.high_watermark.as_ref()),
            optional(partition.size_bytes.map(output::bytes).as_ref()),
        ]
    };
    let headings =
        ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "ELR", "START", "END", "HIGH WATERMARK", "SIZE"];
    head + &output::table(&headings, topic.partitions.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_promised_keys() {
        let partition =
            admin::Partition { partition: 0, leader: 1, end_offset: Some(3), ..Default::default() };
        let topic = admin::Topic {
            name: "orders".into(),
            partitions: vec![partition],
            configs: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
            ..Default::default()
        };
        let document = Document { topics: vec![topic.into()] };
        let json = serde_json::to_value(&document).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&json["topics"][0]), ["name", "id", "internal", "partitions", "configs"]);
        let expected = [
            "partition",
            "leader",
            "leader_epoch",
            "replicas",
            "isr",
            "elr",
            "start_offset",
            "end_offset",
            "high_watermark",
            "size_bytes",
        ];
        assert_eq!(keys(&json["topics"][0]["partitions"][0]), expected);
        assert_eq!(json["topics"][0]["partitions"][0]["end_offset"], 3);
        assert!(text(&document).contains("cleanup.policy=compact"));
    }
}
