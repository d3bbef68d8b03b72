//! `ottla broker …`.

mod drain;

use clap::{Args, Subcommand};
use ottla_proto::admin;
use serde::Serialize;

use crate::admin::Admin;
use crate::failure::Failure;
use crate::output;
use crate::profile::Session;

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Broker {
    /// All brokers and how they are
    List(List),
    /// One broker: its addresses, its disks, its replicas
    Describe(Describe),
    /// Move all that a broker holds to others, and give it nothing new
    Drain(drain::Drain),
    /// Let a broker take partitions again
    Undrain(drain::Undrain),
    /// Drain a broker and, once its node has stopped, forget it
    Decommission(drain::Decommission),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla broker list")]
pub(crate) struct List {}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla broker describe 1")]
pub(crate) struct Describe {
    /// Id of the broker
    id: i32,
}

/// A broker as it is registered.
#[derive(Debug, Serialize)]
pub(super) struct BrokerDocument {
    pub(super) id: i32,
    pub(super) epoch: i64,
    /// `running`, `fenced` or `shutting_down`.
    pub(super) state: &'static str,
    pub(super) rack: Option<String>,
    pub(super) listeners: Vec<Listener>,
    pub(super) grpc_endpoint: Option<String>,
    pub(super) version: String,
    pub(super) leaders: i32,
    pub(super) replicas: i32,
}

/// An address for clients.
#[derive(Debug, Serialize)]
pub(super) struct Listener {
    name: String,
    host: String,
    port: u32,
    security_protocol: String,
}

/// A disk of a broker.
#[derive(Debug, Serialize)]
pub(super) struct LogDirectory {
    path: String,
    id: String,
    pub(super) total_bytes: i64,
    pub(super) free_bytes: i64,
    pub(super) offline: bool,
}

#[derive(Debug, Serialize)]
struct ListDocument {
    brokers: Vec<BrokerDocument>,
}

#[derive(Debug, Serialize)]
struct DescribeDocument {
    #[serde(flatten)]
    broker: BrokerDocument,
    /// Null when the broker itself could not be asked.
    log_directories: Option<Vec<LogDirectory>>,
    partitions: Option<Vec<Replica>>,
}

#[derive(Debug, Serialize)]
struct Replica {
    topic: String,
    partition: i32,
    is_leader: bool,
    start_offset: i64,
    end_offset: i64,
    high_watermark: i64,
    size_bytes: i64,
    log_directory: String,
}

impl Broker {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let mut admin = Admin::connect(session).await?;
        match self {
            Self::Drain(drain) => return drain.run(session, admin).await,
            Self::Undrain(undrain) => return undrain.run(session, admin).await,
            Self::Decommission(decommission) => return decommission.run(session, admin).await,
            Self::List(_) | Self::Describe(_) => {}
        }
        let mut brokers: Vec<_> =
            admin.describe_cluster().await?.brokers.into_iter().map(BrokerDocument::from).collect();
        brokers.sort_by_key(|broker| broker.id);
        match self {
            Self::List(_) => session.output.show(&ListDocument { brokers }, |list| table(&list.brokers)),
            Self::Describe(Describe { id }) => {
                let Some(broker) = brokers.into_iter().find(|broker| broker.id == *id) else {
                    let hint = "'ottla broker list' shows those that are";
                    return Err(Failure::new(format!("broker {id} is not registered")).hint(hint).into());
                };
                let (log_directories, partitions) = match own_view(&broker, session).await {
                    Ok((directories, replicas)) => (Some(directories), Some(replicas)),
                    Err(reason) => {
                        eprintln!("broker {id} could not be asked itself: {reason}");
                        (None, None)
                    }
                };
                session.output.show(&DescribeDocument { broker, log_directories, partitions }, describe_text)
            }
            Self::Drain(_) | Self::Undrain(_) | Self::Decommission(_) => Ok(()),
        }
    }
}

/// The disks of a broker, asked of itself.
pub(super) async fn log_directories(
    broker: &BrokerDocument,
    session: &Session,
) -> Result<Vec<LogDirectory>, String> {
    // No topic has an empty name: the answer holds the disks and no replicas.
    let reply = ask(broker, session, vec![String::new()]).await?;
    Ok(reply.log_directories.into_iter().map(LogDirectory::from).collect())
}

async fn own_view(
    broker: &BrokerDocument,
    session: &Session,
) -> Result<(Vec<LogDirectory>, Vec<Replica>), String> {
    let reply = ask(broker, session, Vec::new()).await?;
    let mut replicas: Vec<_> = reply.replicas.into_iter().map(Replica::from).collect();
    replicas.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
    Ok((reply.log_directories.into_iter().map(LogDirectory::from).collect(), replicas))
}

async fn ask(
    broker: &BrokerDocument,
    session: &Session,
    topics: Vec<String>,
) -> Result<admin::DescribeReplicasReply, String> {
    let endpoint = broker.grpc_endpoint.as_ref().ok_or("it has no gRPC listener")?;
    let mut own = Admin::connect_to(endpoint, session).await?;
    own.describe_replicas(topics).await.map_err(|failure| failure.to_string())
}

impl From<admin::Broker> for BrokerDocument {
    fn from(broker: admin::Broker) -> Self {
        let present = |text: String| Some(text).filter(|text| !text.is_empty());
        let listener = |listener: admin::Listener| Listener {
            name: listener.name,
            host: listener.host,
            port: listener.port,
            security_protocol: listener.security_protocol,
        };
        Self {
            id: broker.id,
            epoch: broker.epoch,
            state: match (broker.fenced, broker.in_controlled_shutdown) {
                (true, _) => "fenced",
                (false, true) => "shutting_down",
                // It serves, but has been drained or is to be.
                (false, false) if broker.cordoned => "cordoned",
                (false, false) => "running",
            },
            rack: present(broker.rack),
            listeners: broker.listeners.into_iter().map(listener).collect(),
            grpc_endpoint: present(broker.grpc_endpoint),
            version: broker.version,
            leaders: broker.leaders,
            replicas: broker.replicas,
        }
    }
}

impl From<admin::LogDirectory> for LogDirectory {
    fn from(directory: admin::LogDirectory) -> Self {
        Self {
            path: directory.path,
            id: directory.id,
            total_bytes: directory.total_bytes,
            free_bytes: directory.free_bytes,
            offline: directory.offline,
        }
    }
}

impl From<admin::Replica> for Replica {
    fn from(replica: admin::Replica) -> Self {
        Self {
            topic: replica.topic,
            partition: replica.partition,
            is_leader: replica.is_leader,
            start_offset: replica.start_offset,
            end_offset: replica.end_offset,
            high_watermark: replica.high_watermark,
            size_bytes: replica.size_bytes,
            log_directory: replica.log_directory,
        }
    }
}

fn addresses(broker: &BrokerDocument) -> String {
    output::list(&broker.listeners.iter().map(|l| format!("{}:{}", l.host, l.port)).collect::<Vec<_>>())
}

/// Brokers, a line each.
pub(super) fn table(brokers: &[BrokerDocument]) -> String {
    let row = |broker: &BrokerDocument| {
        vec![
            broker.id.to_string(),
            broker.state.to_owned(),
            addresses(broker),
            output::optional(broker.grpc_endpoint.as_ref()),
            output::optional(broker.rack.as_ref()),
            broker.leaders.to_string(),
            broker.replicas.to_string(),
        ]
    };
    output::table(&["ID", "STATE", "KAFKA", "GRPC", "RACK", "LEADERS", "REPLICAS"], brokers.iter().map(row))
}

fn describe_text(document: &DescribeDocument) -> String {
    let broker = &document.broker;
    let mut text = output::fields(&[
        ("broker", broker.id.to_string()),
        ("state", broker.state.to_owned()),
        ("epoch", broker.epoch.to_string()),
        ("kafka", addresses(broker)),
        ("grpc", output::optional(broker.grpc_endpoint.as_ref())),
        ("rack", output::optional(broker.rack.as_ref())),
        ("version", broker.version.clone()),
        ("leaders", broker.leaders.to_string()),
        ("replicas", broker.replicas.to_string()),
    ]);
    if let Some(directories) = &document.log_directories {
        text.push('\n');
        text.push_str(&output::table(
            &["LOG DIRECTORY", "FREE", "TOTAL", "STATE"],
            directories.iter().map(|directory| {
                vec![
                    directory.path.clone(),
                    output::bytes(directory.free_bytes),
                    output::bytes(directory.total_bytes),
                    if directory.offline { "offline" } else { "online" }.to_owned(),
                ]
            }),
        ));
    }
    if let Some(replicas) = document.partitions.as_ref().filter(|replicas| !replicas.is_empty()) {
        text.push('\n');
        let row = |replica: &Replica| {
            vec![
                replica.topic.clone(),
                replica.partition.to_string(),
                if replica.is_leader { "leader" } else { "follower" }.to_owned(),
                replica.start_offset.to_string(),
                replica.end_offset.to_string(),
                replica.high_watermark.to_string(),
                output::bytes(replica.size_bytes),
            ]
        };
        let headings = ["TOPIC", "PARTITION", "ROLE", "START", "END", "HIGH WATERMARK", "SIZE"];
        text.push_str(&output::table(&headings, replicas.iter().map(row)));
    }
    text
}
