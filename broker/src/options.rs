//! What the node's configuration gives the data plane.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::controller_link::{ControllerClient, ImageHandle};
use crate::groups::GroupOptions;
use crate::http::NodeStatus;
use crate::network::{ConnectionMaxima, ConnectionRates, ListenerOptions};
use crate::quotas::QuotaWindows;
use crate::replica::ReplicaOptions;
use crate::share::ShareOptions;
use crate::transactions::TransactionOptions;

/// An address given to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedListener {
    /// Name of the listener, upper case.
    pub name: String,
    /// Host that clients connect to.
    pub host: String,
    /// Port that clients connect to; 0: the one that was bound.
    pub port: u16,
    /// Kafka's name of what it speaks.
    pub security_protocol: String,
}

/// Everything that starts a broker.
#[derive(Clone)]
pub struct BrokerOptions {
    /// `node.id`.
    pub node_id: i32,
    /// `broker.rack`; `None`: none.
    pub rack: Option<String>,
    /// The Kafka listeners to bind.
    pub listeners: Vec<ListenerOptions>,
    /// What clients are told, one for each listener of the same name.
    pub advertised_listeners: Vec<AdvertisedListener>,
    /// Name of the listener that brokers reach each other by.
    pub inter_broker_listener: String,
    /// `host:port` of this node's gRPC listener; `None`: it has none.
    pub grpc_endpoint: Option<String>,
    /// The way to the controllers, shared with the node's admin plane.
    pub controller: ControllerClient,
    /// The metadata that the broker follows, shared with the node's admin plane.
    pub image: ImageHandle,
    /// Consumer groups.
    pub groups: GroupOptions,
    /// Transactions.
    pub transactions: TransactionOptions,
    /// Share groups.
    pub share: ShareOptions,
    /// Replicas, replication, log directories.
    pub replica: ReplicaOptions,
    /// Static properties of this node that brokers and topics take defaults from, by Kafka's names.
    pub properties: Arc<BTreeMap<String, String>>,
    /// `auto.create.topics.enable`.
    pub auto_create_topics_enable: bool,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`; `None`: for ever.
    pub connection_idle_max: Option<Duration>,
    /// How many connections there may be.
    pub connections_max: ConnectionMaxima,
    /// `max.connection.creation.rate`: of the node, and of single listeners by name.
    pub connection_rate_max: ConnectionRates,
    /// Windows that quotas are measured over.
    pub quota_windows: QuotaWindows,
    /// `fetch.max.bytes`.
    pub fetch_bytes_max: usize,
    /// `max.request.partition.size.limit`.
    pub describe_partitions_max: usize,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `initial.broker.registration.timeout.ms`.
    pub registration_timeout: Duration,
    /// `controlled.shutdown.enable`.
    pub controlled_shutdown_enable: bool,
    /// Where the process publishes readiness and metrics.
    pub status: Arc<NodeStatus>,
}

impl BrokerOptions {
    /// The first log directory.
    pub fn first_log_dir(&self) -> Option<&PathBuf> {
        self.replica.log_dirs.first()
    }
}
