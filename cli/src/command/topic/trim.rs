//! `ottla topic trim NAME --partition P`: deletes the oldest records of a partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{DeleteRecordsRequest, delete_records_request};
use serde::Serialize;

use super::offsets::partitions;
use crate::client::ClientError;
use crate::client::cluster::Cluster;
use crate::client::offsets;
use crate::command::consume::From;
use crate::failure::Failure;
use crate::profile::Session;

/// Newest version that is asked.
const DELETE_RECORDS_VERSION: i16 = 2;
/// Kafka's name of the high watermark: everything goes.
const ALL: i64 = -1;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla topic trim orders --partition 0 --before-offset 1000 --yes
  ottla topic trim orders --partition 0 --before-time 2026-01-31T12:00:00Z --yes")]
#[command(group = clap::ArgGroup::new("before").required(true).args(["before_offset", "before_time"]))]
pub(crate) struct Trim {
    /// Name of the topic
    name: String,
    /// The partition
    #[arg(long, short, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// Delete the records in front of this offset; -1: all that are committed
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(ALL..))]
    before_offset: Option<i64>,
    /// Delete the records in front of the first one of this time or later, as 'consume --from' takes it
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    before_time: Option<i64>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

fn time(text: &str) -> Result<i64, String> {
    match From::parse(text)? {
        From::Time(ms) => Ok(ms),
        _ => Err(format!("'{text}' is no time; write -15m, 2026-01-31T12:00:00Z or @1700000000000")),
    }
}

#[derive(Debug, Serialize)]
struct Document {
    topic: String,
    partition: i32,
    /// The partition begins with it from now on.
    start_offset: i64,
}

impl Trim {
    /// Before anything is asked of a cluster.
    pub(super) fn confirm(&self) -> anyhow::Result<()> {
        let question = format!("delete the oldest records of {}:{}?", self.name, self.partition);
        if self.yes { Ok(()) } else { super::confirm(&question) }
    }

    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let (mut cluster, partitions) = partitions(session, &self.name).await?;
        if !partitions.iter().any(|(_, partition)| *partition == self.partition) {
            let text = format!("topic \"{}\" has no partition {}", self.name, self.partition);
            return Err(Failure::new(text).hint("'ottla topic describe' shows those that it has").into());
        }
        let offset = self.offset(&mut cluster).await.map_err(Failure::from)?;
        let start_offset = self.delete(&mut cluster, offset).await.map_err(Failure::from)?;
        let document = Document { topic: self.name.clone(), partition: self.partition, start_offset };
        session.output.done(&document, |document| {
            format!("{}:{} begins with offset {}", document.topic, document.partition, document.start_offset)
        })
    }

    async fn offset(&self, cluster: &mut Cluster) -> Result<i64, ClientError> {
        let Some(time) = self.before_time else { return Ok(self.before_offset.unwrap_or(ALL)) };
        let partition = (Arc::from(self.name.as_str()), self.partition);
        let found = offsets::list(cluster, &BTreeMap::from([(partition.clone(), time)]), false).await?;
        // No record is that late: all are older.
        Ok(found.get(&partition).copied().filter(|offset| *offset >= 0).unwrap_or(ALL))
    }

    async fn delete(&self, cluster: &mut Cluster, offset: i64) -> Result<i64, ClientError> {
        let what = format!("{}:{}", self.name, self.partition);
        let leader = cluster
            .leader(&self.name, self.partition)
            .ok_or_else(|| ClientError::refused(what.clone(), ErrorCode::LeaderNotAvailable.code()))?;
        let partition = delete_records_request::Partition { partition_index: self.partition, offset };
        let topic =
            delete_records_request::Topic { name: self.name.as_str().into(), partitions: vec![partition] };
        let timeout_ms = i32::try_from(cluster.timeout().as_millis()).unwrap_or(i32::MAX);
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms };
        let answer = cluster.ask(leader, &request, DELETE_RECORDS_VERSION).await?;
        let partition = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        match partition {
            Some(partition) if partition.error_code == 0 => Ok(partition.low_watermark),
            Some(partition) => Err(ClientError::refused(what, partition.error_code)),
            None => Err(ClientError::refused(what, ErrorCode::UnknownServerError.code())),
        }
    }
}
