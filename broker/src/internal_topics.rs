//! Topics that belong to the cluster itself: their names, and how they are created on demand.

use ottla_proto::controller as proto;

use crate::options::BrokerOptions;

/// Committed offsets and consumer groups.
pub(crate) const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Transactions.
pub(crate) const TRANSACTION_STATE: &str = "__transaction_state";

/// What share groups have of partitions.
pub(crate) const SHARE_GROUP_STATE: &str = "__share_group_state";

/// Whether clients are to treat a topic as internal.
pub fn is_internal(name: &str) -> bool {
    [CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE].contains(&name)
}

/// The command that creates a topic on demand, with the counts and configs that its kind needs.
pub(crate) fn new_topic(options: &BrokerOptions, name: &str) -> proto::NewTopic {
    let property = |key: &str, default: &str| {
        options.properties.get(key).map_or(default, String::as_str).trim().to_owned()
    };
    let number = |key: &str, default: i32| property(key, "").parse().unwrap_or(default);
    if name == CONSUMER_OFFSETS {
        let configs = [
            ("cleanup.policy", "compact".to_owned()),
            ("compression.type", "producer".to_owned()),
            ("segment.bytes", property("offsets.topic.segment.bytes", "104857600")),
        ];
        return proto::NewTopic {
            name: name.to_owned(),
            partitions: number("offsets.topic.num.partitions", 50),
            replication_factor: number("offsets.topic.replication.factor", 3),
            assignments: Vec::new(),
            configs: configs
                .into_iter()
                .map(|(name, value)| proto::ConfigValue { name: name.to_owned(), value: Some(value) })
                .collect(),
        };
    }
    if name == TRANSACTION_STATE {
        let configs = [
            ("cleanup.policy", "compact".to_owned()),
            ("compression.type", "uncompressed".to_owned()),
            ("unclean.leader.election.enable", "false".to_owned()),
            ("min.insync.replicas", property("transaction.state.log.min.isr", "2")),
            ("segment.bytes", property("transaction.state.log.segment.bytes", "104857600")),
        ];
        return proto::NewTopic {
            name: name.to_owned(),
            partitions: number("transaction.state.log.num.partitions", 50),
            replication_factor: number("transaction.state.log.replication.factor", 3),
            assignments: Vec::new(),
            configs: configs
                .into_iter()
                .map(|(name, value)| proto::ConfigValue { name: name.to_owned(), value: Some(value) })
                .collect(),
        };
    }
    if name == SHARE_GROUP_STATE {
        let configs = [
            // Not compacted: the share coordinator deletes what lies before its snapshots.
            ("cleanup.policy", "delete".to_owned()),
            ("compression.type", "uncompressed".to_owned()),
            ("min.insync.replicas", property("share.coordinator.state.topic.min.isr", "2")),
            ("retention.ms", "-1".to_owned()),
            ("segment.bytes", property("share.coordinator.state.topic.segment.bytes", "104857600")),
        ];
        return proto::NewTopic {
            name: name.to_owned(),
            partitions: number("share.coordinator.state.topic.num.partitions", 50),
            replication_factor: number("share.coordinator.state.topic.replication.factor", 3),
            assignments: Vec::new(),
            configs: configs
                .into_iter()
                .map(|(name, value)| proto::ConfigValue { name: name.to_owned(), value: Some(value) })
                .collect(),
        };
    }
    proto::NewTopic {
        name: name.to_owned(),
        partitions: -1,
        replication_factor: -1,
        assignments: Vec::new(),
        configs: Vec::new(),
    }
}
