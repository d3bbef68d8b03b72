//! Who overrides whom, typed values, and what is described.

use super::*;
use crate::image::{ConfigResource, MetadataImage};

type Values = BTreeMap<String, String>;

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

type Set<'a> = (ResourceType, &'a str, &'a [(&'a str, &'a str)]);

fn image(resources: &[Set<'_>]) -> MetadataImage {
    let mut image = MetadataImage::default();
    for (kind, name, pairs) in resources {
        for (property, value) in *pairs {
            image.configs.set(&ConfigResource::new(*kind, *name), property, Some(value));
        }
    }
    image
}

fn find(described: Vec<DescribedConfig>, name: &str) -> DescribedConfig {
    described.into_iter().find(|config| config.name == name).unwrap()
}

fn says(config: &DescribedConfig) -> Vec<(&str, Option<&str>, i8)> {
    config.synonyms.iter().map(|(name, value, source)| (name.as_str(), value.as_deref(), *source)).collect()
}

#[test]
fn a_topic_goes_before_a_broker_before_the_cluster_before_the_file_before_the_default() {
    let topic = (ResourceType::Topic, "t", [("segment.bytes", "5000000")]);
    let broker = (ResourceType::Broker, "1", [("log.segment.bytes", "4000000")]);
    let cluster = (ResourceType::Broker, "", [("log.segment.bytes", "3000000")]);
    let file = values(&[("log.segment.bytes", "2000000")]);
    let all = image(&[
        (topic.0, topic.1, &topic.2),
        (broker.0, broker.1, &broker.2),
        (cluster.0, cluster.1, &cluster.2),
    ]);
    let segment_bytes = |image: &MetadataImage, file: &Values, broker, topic| {
        TopicConfig::effective(image, file, broker, topic).segment_bytes
    };
    assert_eq!(segment_bytes(&all, &file, 1, "t"), 5_000_000);
    assert_eq!(segment_bytes(&all, &file, 1, "other"), 4_000_000);
    assert_eq!(segment_bytes(&all, &file, 2, "other"), 3_000_000);
    assert_eq!(segment_bytes(&image(&[]), &file, 1, "t"), 2_000_000);
    assert_eq!(segment_bytes(&image(&[]), &Values::new(), 1, "t"), 1 << 30);

    let described = find(describe_topic(&all, &file, 1, "t"), "segment.bytes");
    assert_eq!((described.value.as_deref(), described.source), (Some("5000000"), 1));
    assert_eq!(
        says(&described),
        [
            ("segment.bytes", Some("5000000"), 1),
            ("log.segment.bytes", Some("4000000"), 2),
            ("log.segment.bytes", Some("3000000"), 3),
            ("log.segment.bytes", Some("2000000"), 4),
            ("log.segment.bytes", Some("1073741824"), 5),
        ]
    );
    let described = find(describe_broker(&all, &file, 1), "log.segment.bytes");
    assert_eq!((described.value.as_deref(), described.source), (Some("4000000"), 2));
    assert_eq!(described.synonyms.len(), 4);
}

#[test]
fn milliseconds_go_before_minutes_before_hours() {
    let retention =
        |pairs: &[(&str, &str)]| TopicConfig::effective(&image(&[]), &values(pairs), 1, "t").retention_ms;
    assert_eq!(retention(&[]), 604_800_000);
    assert_eq!(retention(&[("log.retention.hours", "2")]), 7_200_000);
    assert_eq!(retention(&[("log.retention.hours", "2"), ("log.retention.minutes", "3")]), 180_000);
    assert_eq!(
        retention(&[("log.retention.hours", "2"), ("log.retention.minutes", "3"), ("log.retention.ms", "4")]),
        4
    );
    assert_eq!(retention(&[("log.retention.hours", "-1")]), -1);
    let roll = TopicConfig::effective(
        &image(&[]),
        &values(&[("log.roll.hours", "1"), ("log.roll.jitter.hours", "2")]),
        1,
        "t",
    );
    assert_eq!((roll.segment_ms, roll.segment_jitter_ms), (3_600_000, 7_200_000));
}

#[test]
fn synonyms_keep_their_own_units_and_the_value_has_the_topics() {
    let file = values(&[("log.retention.hours", "24")]);
    let described = find(describe_topic(&image(&[]), &file, 1, "t"), "retention.ms");
    assert_eq!((described.value.as_deref(), described.source), (Some("86400000"), 4));
    assert_eq!(
        says(&described),
        [("log.retention.hours", Some("24"), 4), ("log.retention.hours", Some("168"), 5)]
    );
    let described = find(describe_broker(&image(&[]), &file, 1), "log.retention.ms");
    assert_eq!((described.value, described.source, described.synonyms.len()), (None, 4, 2));
}

#[test]
fn a_dynamic_retention_goes_before_any_unit_of_the_file() {
    let dynamic = image(&[(ResourceType::Broker, "", &[("log.retention.ms", "9")])]);
    let file = values(&[("log.retention.ms", "8"), ("log.retention.hours", "1")]);
    assert_eq!(TopicConfig::effective(&dynamic, &file, 1, "t").retention_ms, 9);
}

#[test]
fn flushes_fall_back_to_the_scheduler() {
    let file = values(&[("log.flush.scheduler.interval.ms", "77")]);
    assert_eq!(TopicConfig::effective(&image(&[]), &file, 1, "t").flush_ms, 77);
    let described = find(describe_broker(&image(&[]), &file, 1), "log.flush.interval.ms");
    assert_eq!(says(&described)[0], ("log.flush.scheduler.interval.ms", Some("77"), 4));
    let both = values(&[("log.flush.scheduler.interval.ms", "77"), ("log.flush.interval.ms", "66")]);
    assert_eq!(TopicConfig::effective(&image(&[]), &both, 1, "t").flush_ms, 66);
}

#[test]
fn the_defaults_of_a_topic_are_kafkas() {
    let config = TopicConfig::effective(&image(&[]), &Values::new(), 1, "t");
    let expected = TopicConfig {
        min_insync_replicas: 1,
        flush_messages: i64::MAX,
        flush_ms: i64::MAX,
        segment_bytes: 1 << 30,
        segment_ms: 604_800_000,
        segment_jitter_ms: 0,
        segment_index_bytes: 10_485_760,
        index_interval_bytes: 4096,
        retention_ms: 604_800_000,
        retention_bytes: -1,
        cleanup_policy: CleanupPolicy { delete: true, compact: false },
        max_message_bytes: 1_048_588,
        compression_type: "producer".to_owned(),
        compression_gzip_level: -1,
        compression_lz4_level: 9,
        compression_zstd_level: 3,
        log_append_time: false,
        message_timestamp_before_max_ms: i64::MAX,
        message_timestamp_after_max_ms: 3_600_000,
        file_delete_delay_ms: 60_000,
        preallocate: false,
        delete_retention_ms: 86_400_000,
        min_compaction_lag_ms: 0,
        max_compaction_lag_ms: i64::MAX,
        min_cleanable_dirty_ratio: 0.5,
        unclean_leader_election_enable: false,
    };
    assert_eq!(config, expected);
}

#[test]
fn every_typed_property_follows_the_topic() {
    let set: &[(&str, &str)] = &[
        ("cleanup.policy", "compact"),
        ("compression.type", "zstd"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("preallocate", "true"),
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "2"),
    ];
    let config = TopicConfig::effective(&image(&[(ResourceType::Topic, "t", set)]), &Values::new(), 1, "t");
    assert_eq!(config.cleanup_policy, CleanupPolicy { delete: false, compact: true });
    assert_eq!(config.compression_type, "zstd");
    assert!(config.log_append_time && config.preallocate && config.unclean_leader_election_enable);
    assert!((config.min_cleanable_dirty_ratio - 0.25).abs() < f64::EPSILON);
    assert_eq!(config.min_insync_replicas, 2);
}

#[test]
fn an_empty_cleanup_policy_keeps_everything() {
    let image = image(&[(ResourceType::Topic, "t", &[("cleanup.policy", "")])]);
    let config = TopicConfig::effective(&image, &Values::new(), 1, "t");
    assert_eq!(config.cleanup_policy, CleanupPolicy { delete: false, compact: false });
}

#[test]
fn a_value_that_cannot_be_read_is_passed_over() {
    let image = image(&[(ResourceType::Topic, "t", &[("segment.bytes", "many")])]);
    let file = values(&[("log.retention.ms", "soon")]);
    let config = TopicConfig::effective(&image, &file, 1, "t");
    assert_eq!((config.segment_bytes, config.retention_ms), (1 << 30, 604_800_000));
}

#[test]
fn min_insync_replicas_is_the_topics_or_the_clusters_never_a_brokers() {
    let image = image(&[
        (ResourceType::Topic, "t", &[("min.insync.replicas", "4")]),
        (ResourceType::Broker, "", &[("min.insync.replicas", "3")]),
        (ResourceType::Broker, "1", &[("min.insync.replicas", "9")]),
    ]);
    assert_eq!(min_insync_replicas(&image, &Values::new(), "t"), 4);
    assert_eq!(min_insync_replicas(&image, &Values::new(), "other"), 3);
    assert_eq!(TopicConfig::effective(&image, &Values::new(), 1, "other").min_insync_replicas, 3);
    let file = values(&[("min.insync.replicas", "2"), ("unclean.leader.election.enable", "TRUE")]);
    let bare = MetadataImage::default();
    assert_eq!(min_insync_replicas(&bare, &file, "t"), 2);
    assert_eq!(min_insync_replicas(&bare, &Values::new(), "t"), 1);
    assert!(unclean_leader_election_enable(&bare, &file, "t"));
    assert!(!unclean_leader_election_enable(&bare, &Values::new(), "t"));
}

#[test]
fn secrets_are_described_without_a_value() {
    let file = values(&[("ssl.key.password", "hush"), ("listener.name.x.plain.sasl.jaas.config", "hush")]);
    let all = describe_broker(&image(&[]), &file, 1);
    for name in ["ssl.key.password", "listener.name.x.plain.sasl.jaas.config"] {
        let described = find(all.clone(), name);
        assert_eq!(
            (described.value.as_deref(), described.sensitive, described.config_type),
            (None, true, 9),
            "{name}"
        );
        assert_eq!(says(&described).len(), 1);
        assert_eq!(says(&described)[0].1, None);
    }
    assert!(!format!("{all:?}").contains("hush"));
}

#[test]
fn a_listeners_own_property_shows_what_is_set_while_the_broker_runs() {
    let name = "listener.name.x.ssl.keystore.location";
    let image = image(&[(ResourceType::Broker, "1", &[(name, "/new")])]);
    let described = find(describe_broker(&image, &values(&[(name, "/old")]), 1), name);
    assert_eq!((described.value.as_deref(), described.source), (Some("/new"), 2));
    assert_eq!(says(&described), [(name, Some("/new"), 2), (name, Some("/old"), 4)]);
}

#[test]
fn internal_properties_are_described_only_when_set() {
    let name = "internal.segment.bytes";
    let has = |image: &MetadataImage| {
        describe_topic(image, &Values::new(), 1, "t").iter().any(|one| one.name == name)
    };
    assert!(!has(&image(&[])));
    assert!(has(&image(&[(ResourceType::Topic, "t", &[(name, "99")])])));
}

#[test]
fn only_what_is_set_for_the_cluster_is_its_default() {
    assert_eq!(describe_cluster_default(&image(&[])), []);
    let described = describe_cluster_default(&image(&[
        (ResourceType::Broker, "", &[("log.cleaner.threads", "2")]),
        (ResourceType::Broker, "1", &[("log.cleaner.threads", "3")]),
    ]));
    assert_eq!(described.len(), 1);
    assert_eq!(
        (described[0].value.as_deref(), described[0].source, described[0].read_only),
        (Some("2"), 3, false)
    );
}

#[test]
fn read_only_is_what_a_running_broker_cannot_change() {
    let all = describe_broker(&image(&[]), &Values::new(), 1);
    assert!(find(all.clone(), "node.id").read_only);
    assert!(!find(all.clone(), "log.cleaner.threads").read_only);
    assert!(!find(all, "ssl.keystore.location").read_only);
    assert!(describe_topic(&image(&[]), &Values::new(), 1, "t").iter().all(|config| !config.read_only));
}

#[test]
fn a_group_falls_back_to_the_brokers() {
    let file = values(&[("group.consumer.session.timeout.ms", "46000")]);
    let bare = image(&[]);
    let described = find(describe_group(&bare, &file, "g"), "consumer.session.timeout.ms");
    assert_eq!((described.value.as_deref(), described.source), (Some("46000"), 4));
    let name = "consumer.session.timeout.ms";
    let own = image(&[(ResourceType::Group, "g", &[(name, "47000")])]);
    let described = find(describe_group(&own, &file, "g"), name);
    assert_eq!((described.value.as_deref(), described.source), (Some("47000"), 8));
    assert_eq!(described.synonyms.len(), 3);
    assert_eq!(group_value(&own, &file, "g", name), Some("47000"));
    let isolation = find(describe_group(&bare, &file, "g"), "share.isolation.level");
    assert_eq!((isolation.value.as_deref(), isolation.source), (Some("read_uncommitted"), 5));
}

#[test]
fn a_metrics_subscription_is_described() {
    let image = image(&[(ResourceType::ClientMetrics, "s", &[("metrics", "*")])]);
    let described = describe_client_metrics(&image, "s");
    assert_eq!(find(described.clone(), "metrics").source, 7);
    assert_eq!(find(described, "interval.ms").value.as_deref(), Some("300000"));
}

#[test]
fn a_nodes_values_have_aliases_and_types() {
    let file = values(&[
        ("broker.id", "5"),
        ("log.dir", "/a, /b,"),
        ("num.partitions", "x"),
        ("auto.create.topics.enable", "False"),
    ]);
    assert_eq!(node_value(&file, "node.id"), Some("5"));
    assert_eq!(get_list(&file, "log.dirs"), ["/a", "/b"]);
    assert_eq!(get_i64(&file, "num.partitions"), 1);
    assert!(!get_bool(&file, "auto.create.topics.enable"));
    assert!(get_bool(&Values::new(), "auto.create.topics.enable"));
    assert_eq!(get_string(&Values::new(), "ottla.http.listener"), "0.0.0.0:9644");
    assert_eq!(get_string(&values(&[("ottla.http.listener", "")]), "ottla.http.listener"), "");
    assert_eq!(get_i32(&Values::new(), "socket.request.max.bytes"), 104_857_600);
    assert!((get_f64(&Values::new(), "log.cleaner.io.buffer.load.factor") - 0.9).abs() < f64::EPSILON);
    assert_eq!(node_value(&file, "no.such.property"), None);
}

#[test]
fn a_brokers_value_is_dynamic_before_static() {
    let image = image(&[
        (ResourceType::Broker, "1", &[("max.connections", "1")]),
        (ResourceType::Broker, "", &[("max.connections", "2")]),
    ]);
    let file = values(&[("max.connections", "3")]);
    assert_eq!(broker_value(&image, &file, Some(1), "max.connections"), Some("1"));
    assert_eq!(broker_value(&image, &file, Some(2), "max.connections"), Some("2"));
    assert_eq!(broker_value(&image, &file, None, "max.connections"), Some("2"));
    assert_eq!(broker_value(&MetadataImage::default(), &file, Some(1), "max.connections"), Some("3"));
}

#[test]
fn compaction_lags_of_a_topic_fit_together() {
    let check = |pairs: &[(&str, &str)]| validate_topic(&image(&[]), &Values::new(), &values(pairs));
    assert!(check(&[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "5")]).is_ok());
    assert!(check(&[("min.compaction.lag.ms", "6"), ("max.compaction.lag.ms", "5")]).is_err());
    assert!(check(&[("remote.storage.enable", "true")]).is_err());
}

#[test]
fn thread_counts_change_by_half_or_double() {
    let check = |value| check_thread_count(&image(&[]), &Values::new(), None, "num.io.threads", value);
    assert!(check("4").is_ok() && check("16").is_ok());
    assert!(check("3").is_err() && check("17").is_err());
}
