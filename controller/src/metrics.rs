//! The metadata quorum at `/metrics`: Kafka's `kafka.controller:type=KafkaController` and `raft-metrics`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use ottla_metadata::image::MetadataImage;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::leader::Decided;
use crate::types::Raft;

/// Upper bounds of sync times, in seconds.
const SYNC_SECONDS: [f64; 10] = [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// How long the metadata log's disk takes.
#[derive(Clone, Debug)]
pub(crate) struct SyncTimes(Histogram);

impl Default for SyncTimes {
    fn default() -> Self {
        Self(Histogram::new(SYNC_SECONDS))
    }
}

impl SyncTimes {
    pub(crate) fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

#[derive(Debug, EncodeLabelSet)]
struct NodeLabel {
    node: i32,
}

/// Entries of the log that each other controller lacks. A collector, as a family without series would have no name either.
#[derive(Debug)]
struct FollowerLags(Vec<(NodeLabel, i64)>);

impl Collector for FollowerLags {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help =
            "Entries of the metadata log that another controller has not confirmed to this one, which leads";
        let mut family = encoder.encode_descriptor("raft_follower_lag", help, None, MetricType::Gauge)?;
        self.0.iter().try_for_each(|(label, lag)| ConstGauge::new(*lag).encode(family.encode_family(label)?))
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    topics: usize,
    partitions: usize,
    offline: usize,
    not_preferred: usize,
    reassigning: usize,
    brokers: usize,
    fenced: usize,
    stopping: usize,
}

fn count(image: &MetadataImage) -> Counts {
    let mut counts = Counts::default();
    for topic in image.topics() {
        counts.topics += 1;
        counts.partitions += topic.partitions.len();
        for partition in &topic.partitions {
            counts.offline += usize::from(partition.leader.is_none());
            counts.not_preferred += usize::from(partition.leader != partition.replicas.first().copied());
            let moves = !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty();
            counts.reassigning += usize::from(moves);
        }
    }
    for broker in image.brokers() {
        counts.brokers += usize::from(!broker.fenced);
        counts.fenced += usize::from(broker.fenced);
        counts.stopping += usize::from(broker.in_controlled_shutdown);
    }
    counts
}

/// The page of one controller, in the OpenMetrics text format. Every controller says what it has applied; who sums over
/// nodes takes the one that leads (`ottla_controller_active == 1`).
pub(crate) fn page(raft: &Raft, image: &MetadataImage, sync: &SyncTimes, decided: &Decided) -> String {
    let mut registry = Registry::with_prefix("ottla_controller");
    let metrics = raft.metrics().borrow_watched().clone();
    let index = |id: Option<&openraft::alias::LogIdOf<crate::types::TypeConfig>>| {
        id.map_or(-1, |id| i64::try_from(id.index).unwrap_or(i64::MAX))
    };
    let last = metrics.last_log_index.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX));
    let is_leader = metrics.current_leader.as_ref() == Some(&metrics.id);
    let counts = count(image);
    let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let term = i64::try_from(metrics.current_term).unwrap_or(i64::MAX);
    let leader = metrics.current_leader.as_ref().map_or(-1, |id| i64::from(id.node_id));
    let voters = metrics.membership_config.membership().voter_ids().count();
    for (name, help, value) in [
        ("active", "1 on the controller that leads the metadata quorum", i64::from(is_leader)),
        ("quorum_leader", "Node id of the controller that leads; -1: none is known", leader),
        ("quorum_voters", "Voters of the metadata quorum", whole(voters)),
        ("raft_term", "The Raft term: the controller epoch", term),
        ("raft_last_log_index", "Last index of this controller's metadata log", last),
        (
            "raft_committed_index",
            "Last index that this controller knows a majority has",
            index(metrics.cluster_committed.as_ref()),
        ),
        ("raft_applied_index", "Last index applied by this controller", index(metrics.last_applied.as_ref())),
        ("raft_snapshot_index", "Last index in this controller's snapshot", index(metrics.snapshot.as_ref())),
        ("topics", "Topics of the cluster", whole(counts.topics)),
        ("partitions", "Partitions of the cluster", whole(counts.partitions)),
        ("offline_partitions", "Partitions without a leader", whole(counts.offline)),
        (
            "not_preferred_leaders",
            "Partitions that another than their first replica leads",
            whole(counts.not_preferred),
        ),
        ("reassigning_partitions", "Partitions that are being moved", whole(counts.reassigning)),
        ("active_brokers", "Brokers that serve", whole(counts.brokers)),
        ("fenced_brokers", "Brokers that are registered and do not serve", whole(counts.fenced)),
        ("stopping_brokers", "Brokers that are about to stop", whole(counts.stopping)),
    ] {
        registry.register(name, help, ConstGauge::new(value));
    }
    for (name, help, count) in [
        ("leader_elections", "Partitions that this controller gave another leader", &decided.elections),
        (
            "unclean_leader_elections",
            "Partitions that this controller gave a leader that was not in sync: records are lost",
            &decided.unclean_elections,
        ),
        ("broker_fencings", "Brokers that this controller fenced", &decided.fencings),
    ] {
        registry.register(name, help, ConstCounter::new(count.load(Ordering::Relaxed)));
    }
    // Known where it leads; all others have no series.
    let followers = metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id);
    let lag = |at: Option<&_>| last.saturating_sub(index(at));
    let lags = followers.map(|(id, at)| (NodeLabel { node: id.node_id }, lag(at.as_ref()))).collect();
    registry.register_collector(Box::new(FollowerLags(lags)));
    registry.register("sync_seconds", "Time of a sync of the metadata log", sync.0.clone());
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        tracing::error!(%error, "the controller's metrics could not be encoded");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_cluster_counts_nothing() {
        assert_eq!(count(&MetadataImage::default()), Counts::default());
    }
}
