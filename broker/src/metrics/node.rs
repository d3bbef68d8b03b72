//! The broker as a whole, read when scraped: connections (Kafka's `socket-server-metrics`), fetch sessions (`FetchSessionCache`), groups
//! (`group-coordinator-metrics`), what of the metadata is agreed on (`MetadataLoader`).

use std::collections::BTreeMap;
use std::fmt::{Debug, Error, Formatter};
use std::sync::Weak;

use ottla_coordinator::group::GroupFilter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};

use super::scrape::{counter, gauge, gauges, whole};
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
    counter(encoder, "connections_accepted", "Client connections that were taken", admitted)?;
    counter(encoder, "connections_refused", "Client connections that a limit or quota forbade", refused)
}

/// Groups that this broker coordinates; those of a coordinator that loads are not known yet.
fn groups(encoder: &mut DescriptorEncoder<'_>, context: &BrokerContext) -> Result<(), Error> {
    let mut counts: BTreeMap<(&'static str, &'static str), i64> = BTreeMap::new();
    // Ok even for a coordinator that loads: the others are counted all the same.
    let lists =
        context.groups.query_all(|machine| Ok(machine.list(&GroupFilter::default()).unwrap_or_default()));
    for group in lists.into_iter().flatten().flatten() {
        *counts.entry((group.group_type, group.state)).or_default() += 1;
    }
    gauges(
        encoder,
        "groups",
        "Groups that this node coordinates, by type and state",
        counts.into_iter().map(|((r#type, state), count)| (GroupLabel { r#type, state }, count)),
    )
}
