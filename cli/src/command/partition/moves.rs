//! `ottla partition move`.

use clap::Args;
use ottla_proto::admin::{AlterConfigsRequest, ConfigScope, PartitionMove};
use serde::Serialize;

use super::{Target, check, progress, resolve, target};
use crate::admin::Admin;
use crate::failure::Failure;
use crate::output;
use crate::parse;
use crate::profile::Session;

/// What is set on brokers and topics while a move is held back (KIP-73).
const RATES: [&str; 2] = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"];
const REPLICAS: [&str; 2] =
    ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla partition move orders --to 1,2,3 --watch
  ottla partition move orders:0 --to 4,5,6 --throttle 50MB --watch
  ottla partition move orders:0 --cancel")]
pub(crate) struct Move {
    /// A topic, or one of its partitions
    #[arg(value_name = "TOPIC[:P]", value_parser = target)]
    target: Target,
    /// Brokers that are to hold it, the preferred leader first
    #[arg(long, value_delimiter = ',', value_name = "1,2,3", required_unless_present = "cancel")]
    to: Vec<i32>,
    /// Bytes a second that moving may take of each broker; lifted again when the move is done
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes, requires = "watch")]
    throttle: Option<u64>,
    /// Wait until it is done
    #[arg(long)]
    watch: bool,
    /// End the move that is under way
    #[arg(long, conflicts_with_all = ["to", "throttle", "watch"])]
    cancel: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    partitions: Vec<Moved>,
    /// `started`, `done` or `cancelled`.
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct Moved {
    topic: String,
    partition: i32,
    to: Vec<i32>,
}

impl Move {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        let partitions = resolve(&mut admin, std::slice::from_ref(&self.target)).await?;
        let throttle = match self.throttle {
            Some(rate) => Some(Throttle::begin(&mut admin, &self.target.topic, rate).await?),
            None => None,
        };
        let moved = self.start(session, &mut admin, &partitions).await;
        if let Some(throttle) = throttle {
            throttle.end(&mut admin).await?;
        }
        moved?;
        let state = match (self.cancel, self.watch) {
            (true, _) => "cancelled",
            (false, true) => "done",
            (false, false) => "started",
        };
        let partitions: Vec<Moved> = partitions
            .into_iter()
            .map(|(topic, partition)| Moved { topic, partition, to: self.to.clone() })
            .collect();
        session.output.done(&Document { partitions, state }, |document| {
            let (count, to) = (document.partitions.len(), output::list(&self.to));
            match document.state {
                "cancelled" => format!("moves cancelled: {count}"),
                "done" => format!("partitions moved to {to}: {count}"),
                _ => format!(
                    "partitions on their way to {to}: {count}; 'ottla partition list --moving' shows how far"
                ),
            }
        })
    }

    async fn start(
        &self,
        session: &Session,
        admin: &mut Admin,
        partitions: &[(String, i32)],
    ) -> anyhow::Result<()> {
        let moves = partitions.iter().map(|(topic, partition)| PartitionMove {
            topic: topic.clone(),
            partition: *partition,
            brokers: self.to.clone(),
            cancel: self.cancel,
        });
        let outcomes = admin.move_partitions(moves.collect()).await?;
        check(&outcomes, if self.cancel { "brought back" } else { "moved" })?;
        if self.watch {
            progress::watch(session, admin, partitions).await?;
        }
        Ok(())
    }
}

/// Settings that hold a move back, to be taken away again.
struct Throttle {
    brokers: Vec<String>,
    topic: String,
}

impl Throttle {
    async fn begin(admin: &mut Admin, topic: &str, rate: u64) -> Result<Self, Failure> {
        let brokers = admin.describe_cluster().await?.brokers;
        let brokers: Vec<String> = brokers.into_iter().map(|broker| broker.id.to_string()).collect();
        let set =
            |names: [&str; 2], value: &str| names.map(|name| (name.to_owned(), value.to_owned())).into();
        for broker in &brokers {
            admin
                .alter_configs(AlterConfigsRequest {
                    scope: ConfigScope::Broker.into(),
                    name: broker.clone(),
                    set: set(RATES, &rate.to_string()),
                    ..Default::default()
                })
                .await?;
        }
        admin
            .alter_configs(AlterConfigsRequest {
                scope: ConfigScope::Topic.into(),
                name: topic.to_owned(),
                set: set(REPLICAS, "*"),
                ..Default::default()
            })
            .await?;
        Ok(Self { brokers, topic: topic.to_owned() })
    }

    async fn end(self, admin: &mut Admin) -> Result<(), Failure> {
        let unset = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        for broker in self.brokers {
            admin
                .alter_configs(AlterConfigsRequest {
                    scope: ConfigScope::Broker.into(),
                    name: broker,
                    unset: unset(RATES),
                    ..Default::default()
                })
                .await?;
        }
        admin
            .alter_configs(AlterConfigsRequest {
                scope: ConfigScope::Topic.into(),
                name: self.topic,
                unset: unset(REPLICAS),
                ..Default::default()
            })
            .await
    }
}
