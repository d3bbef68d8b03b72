//! `ottla topic create NAME…`.

use clap::Args;
use ottla_proto::admin::{CreateTopicsRequest, NewTopic, Replicas, TopicResult};
use serde::Serialize;

use super::{code, refusal};
use crate::admin::Admin;
use crate::failure::Failures;
use crate::output::counted;
use crate::parse;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla topic create orders --partitions 6 --replication-factor 3 --config retention.ms=86400000
  ottla topic create orders --assign 1:2:3,2:3:1")]
pub(crate) struct Create {
    /// Names of the topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How many partitions [default: the cluster's num.partitions]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..), conflicts_with = "assign")]
    partitions: Option<i32>,
    /// How many replicas each partition has [default: the cluster's default.replication.factor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=32_767), conflicts_with = "assign")]
    replication_factor: Option<i32>,
    /// A setting of the topic; may be given several times
    #[arg(long = "config", value_name = "NAME=VALUE", value_parser = parse::name_value)]
    pub(crate) configs: Vec<(String, String)>,
    /// The brokers of each partition, the preferred leader first
    #[arg(long, value_name = "1:2:3,2:3:1")]
    assign: Option<String>,
    /// A topic that exists already is no failure
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    topics: Vec<Created>,
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Created {
    name: String,
    /// Absent when nothing was created.
    id: Option<String>,
    /// False: it was there already.
    created: bool,
    partitions: Option<i32>,
    replication_factor: Option<i32>,
}

impl Create {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        let results = admin.create_topics(self.request()?).await?;
        let is_there =
            |result: &TopicResult| self.if_not_exists && result.error_code == code::TOPIC_ALREADY_EXISTS;
        let failures = results
            .iter()
            .filter(|result| result.error_code != 0 && !is_there(result))
            .map(|result| refusal(result, "created"))
            .collect();
        let topics: Vec<_> = results
            .into_iter()
            .filter(|result| result.error_code == 0 || is_there(result))
            .map(|result| Created::new(result, self.dry_run))
            .collect();
        if !topics.is_empty() {
            session.output.done(&Document { topics, dry_run: self.dry_run }, sentence)?;
        }
        Failures::check(failures)
    }

    fn request(&self) -> Result<CreateTopicsRequest, crate::failure::Failure> {
        let assignments = match &self.assign {
            Some(text) => parse::assignment(text).map_err(crate::failure::Failure::usage)?,
            None => Vec::new(),
        };
        let new_topic = |name: &String| NewTopic {
            name: name.clone(),
            partitions: self.partitions.unwrap_or(-1),
            replication_factor: self.replication_factor.unwrap_or(-1),
            assignments: assignments.iter().map(|brokers| Replicas { brokers: brokers.clone() }).collect(),
            configs: self.configs.iter().cloned().collect(),
        };
        Ok(CreateTopicsRequest {
            validate_only: self.dry_run,
            topics: self.names.iter().map(new_topic).collect(),
        })
    }
}

impl Created {
    fn new(result: TopicResult, dry_run: bool) -> Self {
        let known = |count: i32| (count > 0).then_some(count);
        Self {
            created: result.error_code == 0 && !dry_run,
            id: Some(result.id).filter(|id| !id.is_empty()),
            name: result.name,
            partitions: known(result.partitions),
            replication_factor: known(result.replication_factor),
        }
    }
}

fn sentence(document: &Document) -> String {
    let line = |topic: &Created| {
        let what = match (topic.created, document.dry_run) {
            (true, _) => "created",
            (false, true) => "could be created:",
            (false, false) => "exists already:",
        };
        let size = match (topic.partitions, topic.replication_factor) {
            (Some(partitions), Some(factor)) => {
                let partitions = counted(usize::try_from(partitions).unwrap_or(0), "partition");
                format!(" ({partitions}, replication factor {factor})")
            }
            _ => String::new(),
        };
        format!("{what} {}{size}\n", topic.name)
    };
    document.topics.iter().map(line).collect()
}
