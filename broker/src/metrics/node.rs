//! The broker as a whole, read when scraped: connections (Kafka's `socket-server-metrics`), fetch sessions (`FetchSessionCache`), groups
//! (`group-coordinator-metrics`), what of the metadata is agreed on (`MetadataLoader`).

use std::fmt::{Debug, Error, Formatter};
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};

use super::scrape::{counter, counters, gauge, gauges, whole};
use crate::context::BrokerContext;

/// Holds no broker alive.
pub(super) struct Node(pub(super) Weak<BrokerContext>);

impl Debug for Node {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Node")
    }
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct ListenerLabel {
    listener: String,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct GroupLabel {
    r#type: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct FeatureLabel {
    feature: String,
}

impl Collector for Node {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(context) = self.0.upgrade() else { return Ok(()) };
        connections(&mut encoder, &context)?;
        let (sessions, partitions, evictions) = context.sessions.counts();
        gauge(&mut encoder, "fetch_sessions", "Incremental fetch sessions", whole(sessions))?;
        gauge(&mut encoder, "fetch_session_partitions", "Partitions in fetch sessions", whole(partitions))?;
        counter(
            &mut encoder,
            "fetch_session_evictions",
            "Fetch sessions that had to make room for others",
            evictions,
        )?;
        groups(&mut encoder, &context)?;
        gauge(
            &mut encoder,
            "current_controller_id",
            "The node that leads the metadata quorum, as far as this one knows; -1: none",
            i64::from(context.controller.leader_id()),
        )?;
        let image = context.image.current();
        gauges(
            &mut encoder,
            "feature_level",
            "Level of a feature that the cluster has agreed on",
            image
                .features()
                .map(|(feature, level)| (FeatureLabel { feature: feature.to_owned() }, i64::from(level))),
        )
    }
}

fn connections(encoder: &mut DescriptorEncoder<'_>, context: &BrokerContext) -> Result<(), Error> {
    let Some(limits) = context.connections.get() else { return Ok(()) };
    let open = limits.open_by_listener();
    gauges(
        encoder,
        "listener_connections",
        "Client connections open now, by listener",
        open.iter().map(|(name, count)| (ListenerLabel { listener: name.to_string() }, whole(*count))),
    )?;
    let (admitted, refused) = limits.counts();
    counters(
        encoder,
        "failed_authentications",
        "Clients refused before their first request: no TLS handshake, or not who they said they are; by listener",
        context
            .security
            .listeners()
            .iter()
            .map(|listener| (ListenerLabel { listener: listener.name().to_owned() }, listener.failures())),
    )?;
    counter(encoder, "connections_accepted", "Client connections that were taken", admitted)?;
    counter(encoder, "connections_refused", "Client connections that a limit or quota forbade", refused)
}

/// Groups that this broker coordinates; those of a coordinator that loads are not known yet.
fn groups(encoder: &mut DescriptorEncoder<'_>, context: &BrokerContext) -> Result<(), Error> {
    gauges(
        encoder,
        "groups",
        "Groups that this node coordinates, by type and state",
        context
            .groups
            .counts()
            .into_iter()
            .map(|((r#type, state), count)| (GroupLabel { r#type, state }, whole(count))),
    )
}
