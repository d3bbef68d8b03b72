//! What every handler of the data plane reaches: the image, the replicas, the link to the controller.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ottla_metadata::acl::AuthorizerOptions;
use ottla_metadata::config::DescribedConfig;
use ottla_metadata::features::SupportedFeature;
use ottla_metadata::image::{BrokerId, MetadataImage};
use ottla_wire::text::Text;

use crate::controller_link::{ControllerClient, ImageHandle};
use crate::departed::Departed;
use crate::groups::GroupService;
use crate::metrics::Metrics;
use crate::network::ConnectionLimits;
use crate::options::BrokerOptions;
use crate::own_configs::OwnConfigs;
use crate::producer_ids::ProducerIds;
use crate::quotas::Quotas;
use crate::replica::{Clock, FetchSessions, Grant, ReplicaManager};
use crate::security::{NodeSecurity, TokenSecret};
use crate::share::ShareService;
use crate::telemetry::Telemetry;
use crate::transactions::TransactionService;

/// A broker as clients of one listener reach it.
#[derive(Debug, Clone)]
pub(crate) struct NodeAddress {
    pub(crate) id: i32,
    pub(crate) host: Text,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
}

/// Shared by all connections of a broker.
pub(crate) struct BrokerContext {
    pub(crate) options: BrokerOptions,
    pub(crate) image: ImageHandle,
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) sessions: FetchSessions,
    pub(crate) grant: Arc<Grant>,
    pub(crate) controller: ControllerClient,
    pub(crate) producer_ids: Arc<ProducerIds>,
    pub(crate) groups: Arc<GroupService>,
    pub(crate) transactions: Arc<TransactionService>,
    pub(crate) share: Arc<ShareService>,
    pub(crate) metrics: Arc<Metrics>,
    /// Empty until the listeners accept.
    pub(crate) connections: OnceLock<Arc<ConnectionLimits>>,
    pub(crate) security: Arc<NodeSecurity>,
    /// Whether its own properties may be changed to something.
    pub(crate) own_configs: OwnConfigs,
    pub(crate) quotas: Arc<Quotas>,
    /// `None`: everybody may do everything.
    pub(crate) authorizer: Option<Arc<AuthorizerOptions>>,
    /// Of delegation tokens; `None`: they are not offered.
    pub(crate) token_secret: Option<TokenSecret>,
    pub(crate) telemetry: Telemetry,
    /// Brokers that clients are told of still.
    pub(crate) departed: Departed,
    pub(crate) features: &'static [SupportedFeature],
}

impl BrokerContext {
    /// Milliseconds since 1970.
    pub(crate) fn now_ms() -> i64 {
        Clock::wall_ms()
    }

    /// This broker's epoch; 0 before it is registered.
    pub(crate) fn broker_epoch(&self) -> i64 {
        self.grant.broker_epoch()
    }

    /// How clients of a listener reach a broker; `None` when it is not alive or has no such listener.
    pub(crate) fn node(&self, id: i32, listener: &str) -> Option<NodeAddress> {
        node_in(&self.image.current(), id, listener)
    }

    /// Every broker that is alive, as clients of a listener reach it.
    pub(crate) fn nodes(image: &MetadataImage, listener: &str) -> Vec<NodeAddress> {
        image
            .brokers()
            .filter(|broker| !broker.fenced)
            .filter_map(|broker| address_of(broker, listener))
            .collect()
    }

    /// Every broker that is alive, and those that left a moment ago and that a client which has been connected since a time may
    /// know.
    pub(crate) fn nodes_known(
        &self,
        image: &MetadataImage,
        listener: &str,
        connected_at: Instant,
    ) -> Vec<NodeAddress> {
        let mut nodes = Self::nodes(image, listener);
        let unreachable = self.replicas.shared().unreachable.now();
        let has_ended = |id: BrokerId| unreachable.contains(&id.0);
        for id in self.departed.named(Instant::now(), connected_at, has_ended) {
            let left = image.broker(id).filter(|broker| broker.fenced);
            nodes.extend(left.and_then(|broker| address_of(broker, listener)));
        }
        nodes.sort_by_key(|node| node.id);
        nodes
    }

    /// Every property of a topic, as DescribeConfigs shows it.
    pub(crate) fn describe_topic_configs(&self, topic: &str) -> Vec<DescribedConfig> {
        let image = self.image.current();
        ottla_metadata::config::describe_topic(&image, &self.options.properties, self.options.node_id, topic)
    }

    /// Every broker that is registered but fenced.
    pub(crate) fn fenced_nodes(image: &MetadataImage, listener: &str) -> Vec<NodeAddress> {
        image
            .brokers()
            .filter(|broker| broker.fenced)
            .filter_map(|broker| address_of(broker, listener))
            .collect()
    }

    /// Whom clients send what only a controller decides to: this very broker, which passes it on. A client keeps the answer
    /// long after the one that leads the quorum has changed, and a broker that answers lives. (Kafka names any broker.)
    pub(crate) fn controller_id(&self, nodes: &[NodeAddress]) -> i32 {
        let own = self.options.node_id;
        if nodes.iter().any(|node| node.id == own) { own } else { nodes.first().map_or(-1, |node| node.id) }
    }
}

fn node_in(image: &MetadataImage, id: i32, listener: &str) -> Option<NodeAddress> {
    image.broker(id.into()).filter(|broker| !broker.fenced).and_then(|broker| address_of(broker, listener))
}

fn address_of(broker: &ottla_metadata::image::BrokerRegistration, listener: &str) -> Option<NodeAddress> {
    let endpoint = broker.endpoints.iter().find(|endpoint| endpoint.name == listener)?;
    Some(NodeAddress {
        id: broker.id.0,
        host: Text::from(endpoint.host.as_str()),
        port: i32::from(endpoint.port),
        rack: broker.rack.as_deref().map(str::to_owned),
    })
}
