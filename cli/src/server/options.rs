//! A node's properties as the typed options of its roles.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ottla_broker::controller_link::{ControllerClient, ImageHandle};
use ottla_broker::groups::GroupOptions;
use ottla_broker::http::NodeStatus;
use ottla_broker::network::{ConnectionMaxima, ConnectionRates, ListenerOptions};
use ottla_broker::quotas::QuotaWindows;
use ottla_broker::quotas::rate::Windows;
use ottla_broker::replica::{CleanerOptions, ReplicaOptions};
use ottla_broker::share::ShareOptions;
use ottla_broker::transactions::TransactionOptions;
use ottla_broker::{AdvertisedListener, BrokerOptions};
use ottla_controller::ControllerOptions;
use ottla_coordinator::consumer_group::{ASSIGNORS, ConsumerGroupConfig, MigrationPolicy};
use ottla_coordinator::group::GroupConfig;
use ottla_coordinator::share_group::ShareGroupConfig;
use ottla_coordinator::share_partition::ShareLimits;
use ottla_coordinator::share_state::ShareStateConfig;
use ottla_coordinator::streams_group::StreamsGroupConfig;
use ottla_coordinator::transaction::TransactionConfig;
use ottla_metadata::config::{get_bool, get_f64, get_i32, get_i64, get_list, get_string};
use ottla_wire::text::Text;

use crate::node_config::{Listener, NodeConfig};

/// Heartbeats in an election timeout: some may be lost or late without an election.
const HEARTBEATS_PER_ELECTION: u64 = 6;
/// No quorum is asked to notice a dead leader faster, in milliseconds.
const ELECTION_TIMEOUT_MS_MIN: u64 = 300;

type Properties = BTreeMap<String, String>;

/// A count or size; what is negative is unlimited.
fn size(properties: &Properties, name: &str) -> usize {
    usize::try_from(get_i64(properties, name)).unwrap_or(usize::MAX)
}

/// As [`size`], in milliseconds.
fn ms(properties: &Properties, name: &str) -> u64 {
    u64::try_from(get_i64(properties, name)).unwrap_or(u64::MAX)
}

fn duration(properties: &Properties, name: &str) -> Duration {
    Duration::from_millis(ms(properties, name))
}

/// What is set to -1 is left to the system.
fn or_system(properties: &Properties, name: &str) -> Option<usize> {
    usize::try_from(get_i64(properties, name)).ok()
}

/// The controller's options. The times of elections are ours, faster than Kafka's defaults, unless
/// `controller.quorum.election.timeout.ms` is set.
pub(super) fn controller(config: &NodeConfig) -> ControllerOptions {
    let properties = &config.properties;
    let mut options = ControllerOptions {
        node_id: config.node_id,
        metadata_dir: config.metadata_dir.clone(),
        voters: config.voters.iter().map(|(id, address)| (*id, address.to_string())).collect(),
        bootstrap_servers: config.bootstrap_servers.iter().map(ToString::to_string).collect(),
        joins_by_itself: get_bool(properties, "controller.quorum.auto.join.enable"),
        own_endpoint: config.grpc.as_ref().map(|grpc| grpc.endpoint.to_string()).unwrap_or_default(),
        properties: Arc::clone(properties),
        session_timeout_ms: ms(properties, "broker.session.timeout.ms"),
        snapshot_bytes: ms(properties, "metadata.log.max.record.bytes.between.snapshots"),
        snapshot_interval: Some(duration(properties, "metadata.log.max.snapshot.interval.ms"))
            .filter(|interval| !interval.is_zero()),
        ..ControllerOptions::default()
    };
    if properties.contains_key("controller.quorum.election.timeout.ms") {
        let timeout_ms = ms(properties, "controller.quorum.election.timeout.ms").max(ELECTION_TIMEOUT_MS_MIN);
        options.election_timeout_max_ms = timeout_ms;
        options.election_timeout_min_ms = timeout_ms / 2;
        options.heartbeat_interval_ms = timeout_ms / HEARTBEATS_PER_ELECTION;
    }
    options
}

/// What a broker shares with the other parts of its node.
#[derive(Clone)]
pub(super) struct Shared {
    /// The way to the controllers.
    pub(super) controller: ControllerClient,
    /// The metadata of this node.
    pub(super) image: ImageHandle,
    /// For probes and metrics.
    pub(super) status: Arc<NodeStatus>,
}

/// The broker's options. `grpc` is this node's own gRPC endpoint.
pub(super) fn broker(config: &NodeConfig, grpc: Option<String>, shared: Shared) -> BrokerOptions {
    let properties = &config.properties;
    BrokerOptions {
        node_id: config.node_id,
        rack: Some(get_string(properties, "broker.rack").to_owned()).filter(|rack| !rack.is_empty()),
        listeners: config.listeners.iter().map(|listener| bound(config, listener)).collect(),
        advertised_listeners: config.advertised.iter().map(|listener| advertised(config, listener)).collect(),
        inter_broker_listener: config.inter_broker_listener.clone(),
        grpc_endpoint: grpc,
        controller: shared.controller,
        image: shared.image,
        groups: groups(properties),
        transactions: transactions(properties),
        share: share(properties),
        replica: replica(config),
        properties: Arc::clone(properties),
        auto_create_topics_enable: get_bool(properties, "auto.create.topics.enable"),
        delete_topic_enable: get_bool(properties, "delete.topic.enable"),
        request_bytes_max: size(properties, "socket.request.max.bytes"),
        connection_idle_max: u64::try_from(get_i64(properties, "connections.max.idle.ms"))
            .ok()
            .map(Duration::from_millis),
        connections_max: connections_max(config),
        connection_rate_max: connection_rates(config),
        quota_windows: QuotaWindows {
            client: windows(properties, "quota"),
            controller: windows(properties, "controller.quota"),
        },
        fetch_bytes_max: size(properties, "fetch.max.bytes"),
        describe_partitions_max: size(properties, "max.request.partition.size.limit"),
        heartbeat_interval: duration(properties, "broker.heartbeat.interval.ms"),
        registration_timeout: duration(properties, "initial.broker.registration.timeout.ms"),
        controlled_shutdown_enable: get_bool(properties, "controlled.shutdown.enable"),
        status: shared.status,
    }
}

fn bound(config: &NodeConfig, listener: &Listener) -> ListenerOptions {
    let properties = &config.properties;
    ListenerOptions {
        name: listener.name.clone(),
        protocol: config.protocol(&listener.name),
        bind: listener.address.to_string(),
        backlog: u32::try_from(get_i32(properties, "socket.listen.backlog.size")).unwrap_or(50),
        send_buffer_bytes: or_system(properties, "socket.send.buffer.bytes"),
        receive_buffer_bytes: or_system(properties, "socket.receive.buffer.bytes"),
    }
}

fn advertised(config: &NodeConfig, listener: &Listener) -> AdvertisedListener {
    AdvertisedListener {
        name: listener.name.clone(),
        host: listener.address.host.clone(),
        port: listener.address.port,
        security_protocol: config.protocol(&listener.name).name().to_owned(),
    }
}

fn connections_max(config: &NodeConfig) -> ConnectionMaxima {
    let properties = &config.properties;
    ConnectionMaxima {
        node: size(properties, "max.connections"),
        listeners: of_listeners(config, "max.connections"),
        protected_listener: (config.listeners.len() > 1).then(|| config.inter_broker_listener.clone()),
        address: size(properties, "max.connections.per.ip"),
        address_overrides: overrides(get_string(properties, "max.connections.per.ip.overrides")),
    }
}

/// The greatest number stands for no limit.
fn connection_rates(config: &NodeConfig) -> ConnectionRates {
    const NAME: &str = "max.connection.creation.rate";
    let node = get_i32(&config.properties, NAME);
    ConnectionRates {
        node: (node != i32::MAX).then_some(f64::from(node)),
        listeners: of_listeners(config, NAME),
    }
}

/// What single listeners say of a property, by their names.
fn of_listeners<N: FromStr>(config: &NodeConfig, property: &str) -> HashMap<String, N> {
    let of = |listener: &Listener| {
        let name = format!("listener.name.{}.{property}", listener.name.to_ascii_lowercase());
        Some((listener.name.clone(), config.properties.get(&name)?.trim().parse().ok()?))
    };
    config.listeners.iter().filter_map(of).collect()
}

fn windows(properties: &Properties, prefix: &str) -> Windows {
    Windows::new(
        get_i64(properties, &format!("{prefix}.window.num")),
        get_i64(properties, &format!("{prefix}.window.size.seconds")),
    )
}

fn groups(properties: &Properties) -> GroupOptions {
    GroupOptions {
        machine: GroupConfig {
            session_timeout_ms_min: get_i32(properties, "group.min.session.timeout.ms"),
            session_timeout_ms_max: get_i32(properties, "group.max.session.timeout.ms"),
            group_size_max: size(properties, "group.max.size"),
            initial_rebalance_delay_ms: ms(properties, "group.initial.rebalance.delay.ms"),
            offset_metadata_length_max: size(properties, "offset.metadata.max.bytes"),
            offsets_retention_ms: get_i64(properties, "offsets.retention.minutes").saturating_mul(60_000),
            consumer: consumer_groups(properties),
            share: share_groups(properties),
            streams: streams_groups(properties),
        },
        commit_timeout_ms: ms(properties, "offsets.commit.timeout.ms"),
        retention_check_ms: ms(properties, "offsets.retention.check.interval.ms"),
        serves_streams: get_list(properties, "group.coordinator.rebalance.protocols")
            .iter()
            .any(|protocol| protocol.eq_ignore_ascii_case("streams")),
    }
}

fn consumer_groups(properties: &Properties) -> ConsumerGroupConfig {
    // Kafka takes names of classes too.
    let assignor = |name: &str| {
        let short = name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase();
        let known = |known: &&str| short == **known || short == format!("{known}assignor");
        ASSIGNORS.into_iter().find(known).map(Text::from)
    };
    let named: Vec<Text> =
        get_list(properties, "group.consumer.assignors").into_iter().filter_map(assignor).collect();
    let assignors = if named.is_empty() { ASSIGNORS.into_iter().map(Text::from).collect() } else { named };
    let policy = get_string(properties, "group.consumer.migration.policy");
    ConsumerGroupConfig {
        session_timeout_ms: get_i32(properties, "group.consumer.session.timeout.ms"),
        heartbeat_interval_ms: get_i32(properties, "group.consumer.heartbeat.interval.ms"),
        group_size_max: size(properties, "group.consumer.max.size"),
        assignors,
        migration_policy: MigrationPolicy::from_name(policy).unwrap_or_default(),
        regex_refresh_interval_ms: get_i64(properties, "group.consumer.regex.refresh.interval.ms"),
        assignment_interval_ms: get_i64(properties, "group.consumer.assignment.interval.ms"),
    }
}

fn streams_groups(properties: &Properties) -> StreamsGroupConfig {
    StreamsGroupConfig {
        session_timeout_ms: get_i32(properties, "group.streams.session.timeout.ms"),
        heartbeat_interval_ms: get_i32(properties, "group.streams.heartbeat.interval.ms"),
        group_size_max: size(properties, "group.streams.max.size"),
        standby_replicas: get_i32(properties, "group.streams.num.standby.replicas"),
        initial_rebalance_delay_ms: get_i32(properties, "group.streams.initial.rebalance.delay.ms"),
        assignment_interval_ms: get_i64(properties, "group.streams.assignment.interval.ms"),
    }
}

fn share_groups(properties: &Properties) -> ShareGroupConfig {
    ShareGroupConfig {
        session_timeout_ms: get_i32(properties, "group.share.session.timeout.ms"),
        heartbeat_interval_ms: get_i32(properties, "group.share.heartbeat.interval.ms"),
        group_size_max: size(properties, "group.share.max.size"),
        assignment_interval_ms: get_i64(properties, "group.share.assignment.interval.ms"),
        initialize_retry_interval_ms: ms(properties, "group.share.initialize.retry.interval.ms"),
    }
}

fn share(properties: &Properties) -> ShareOptions {
    let delivery_count = get_i32(properties, "group.share.delivery.count.limit");
    ShareOptions {
        states: ShareStateConfig {
            updates_per_snapshot: size(properties, "share.coordinator.snapshot.update.records.per.snapshot"),
            cold_interval_ms: get_i64(properties, "share.coordinator.cold.partition.snapshot.interval.ms"),
        },
        write_timeout_ms: ms(properties, "share.coordinator.write.timeout.ms"),
        prune_interval_ms: ms(properties, "share.coordinator.state.topic.prune.interval.ms"),
        sessions_max: size(properties, "group.share.max.share.sessions"),
        limits: ShareLimits {
            delivery_count: i16::try_from(delivery_count).unwrap_or(i16::MAX),
            record_locks: get_i64(properties, "group.share.partition.max.record.locks"),
            lock_duration_ms: ms(properties, "group.share.record.lock.duration.ms"),
        },
    }
}

fn transactions(properties: &Properties) -> TransactionOptions {
    TransactionOptions {
        machine: TransactionConfig {
            timeout_ms_max: get_i32(properties, "transaction.max.timeout.ms"),
            id_expiration_ms: get_i64(properties, "transactional.id.expiration.ms"),
            ..TransactionConfig::default()
        },
        abort_check_ms: ms(properties, "transaction.abort.timed.out.transaction.cleanup.interval.ms"),
        expiry_check_ms: ms(properties, "transaction.remove.expired.transaction.cleanup.interval.ms"),
        commit_timeout_ms: ms(properties, "request.timeout.ms"),
    }
}

fn cleaner(properties: &BTreeMap<String, String>) -> CleanerOptions {
    CleanerOptions {
        enable: get_bool(properties, "log.cleaner.enable"),
        threads: size(properties, "log.cleaner.threads"),
        backoff_ms: ms(properties, "log.cleaner.backoff.ms"),
        dedupe_buffer_bytes: size(properties, "log.cleaner.dedupe.buffer.size"),
        io_bytes_per_second_max: get_f64(properties, "log.cleaner.io.max.bytes.per.second"),
    }
}

fn replica(config: &NodeConfig) -> ReplicaOptions {
    let properties = &config.properties;
    ReplicaOptions {
        inter_broker_listener: config.inter_broker_listener.clone(),
        replica_lag_time_ms_max: ms(properties, "replica.lag.time.max.ms"),
        replica_fetch_wait_ms_max: get_i32(properties, "replica.fetch.wait.max.ms"),
        replica_fetch_bytes_min: get_i32(properties, "replica.fetch.min.bytes"),
        replica_fetch_partition_bytes_max: get_i32(properties, "replica.fetch.max.bytes"),
        replica_fetch_response_bytes_max: get_i32(properties, "replica.fetch.response.max.bytes"),
        replica_fetch_backoff_ms: ms(properties, "replica.fetch.backoff.ms"),
        replica_socket_timeout_ms: ms(properties, "replica.socket.timeout.ms"),
        recovery_threads: size(properties, "num.recovery.threads.per.data.dir"),
        high_watermark_checkpoint_ms: ms(properties, "replica.high.watermark.checkpoint.interval.ms"),
        recovery_point_checkpoint_ms: ms(properties, "log.flush.offset.checkpoint.interval.ms"),
        retention_check_ms: ms(properties, "log.retention.check.interval.ms"),
        delete_delay_ms: ms(properties, "log.segment.delete.delay.ms"),
        fetch_session_slots: size(properties, "max.incremental.fetch.session.cache.slots"),
        cleaner: cleaner(properties),
        ..ReplicaOptions::new(config.node_id, config.log_dirs.clone())
    }
}

/// `address:count,…`; what cannot be read is left out, as Kafka leaves out hosts that it cannot resolve.
fn overrides(text: &str) -> HashMap<IpAddr, usize> {
    let one = |item: &str| {
        let (address, count) = item.trim().rsplit_once(':')?;
        Some((address.trim_matches(['[', ']']).parse().ok()?, count.trim().parse().ok()?))
    };
    text.split(',').filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> NodeConfig {
        let text = format!(
            "process.roles=broker,controller\nnode.id=3\ncontroller.quorum.voters=3@127.0.0.1:9093\n\
             listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\ncontroller.listener.names=CONTROLLER\n\
             log.dirs=/tmp/x\n{more}"
        );
        NodeConfig::load(&text, [], &[]).0.unwrap()
    }

    fn options(config: &NodeConfig) -> BrokerOptions {
        let shared = Shared {
            controller: ControllerClient::new(vec!["127.0.0.1:9093".into()]),
            image: ImageHandle::default(),
            status: NodeStatus::new(),
        };
        broker(config, None, shared)
    }

    #[test]
    fn kafkas_defaults_are_ours() {
        let config = config("");
        let options = options(&config);
        assert_eq!(options.request_bytes_max, 104_857_600);
        assert_eq!(options.connection_idle_max, Some(Duration::from_secs(600)));
        assert_eq!(options.heartbeat_interval, Duration::from_secs(2));
        assert_eq!(options.groups.machine.offsets_retention_ms, 7 * 24 * 3_600_000);
        assert_eq!(options.replica.replica_lag_time_ms_max, 30_000);
        assert_eq!(options.listeners[0].backlog, 50);
        assert!(options.controlled_shutdown_enable && options.auto_create_topics_enable);
        assert_eq!(controller(&config).session_timeout_ms, 9_000);
        assert_eq!(controller(&config).voters, [(3, "127.0.0.1:9093".to_owned())]);
    }

    #[test]
    fn settings_reach_their_options() {
        let config = config(
            "connections.max.idle.ms=-1\nsocket.send.buffer.bytes=-1\nbroker.rack=r1\n\
             max.connections.per.ip.overrides=127.0.0.1:5,[::1]:6,nonsense\n\
             max.connection.creation.rate=7\nlistener.name.plaintext.max.connections=4\nquota.window.num=3\n\
             controller.quorum.election.timeout.ms=1200\ngroup.consumer.assignors=range\n\
             group.consumer.migration.policy=disabled\ngroup.consumer.max.size=3\n",
        );
        let options = options(&config);
        assert_eq!(options.connection_idle_max, None);
        assert_eq!(options.listeners[0].send_buffer_bytes, None);
        assert_eq!(options.rack.as_deref(), Some("r1"));
        assert_eq!(options.connections_max.address_overrides.len(), 2);
        assert_eq!(options.connections_max.listeners["PLAINTEXT"], 4);
        assert_eq!(options.connection_rate_max.node, Some(7.0));
        assert_eq!(options.quota_windows.client, Windows { count: 3, length_ms: 1_000 });
        let consumer = &options.groups.machine.consumer;
        assert_eq!((consumer.migration_policy, consumer.group_size_max), (MigrationPolicy::Disabled, 3));
        assert_eq!(consumer.assignors, [Text::from("range")]);
        let options = controller(&config);
        assert_eq!((options.election_timeout_min_ms, options.election_timeout_max_ms), (600, 1_200));
        assert_eq!(options.heartbeat_interval_ms, 200);
    }
}
