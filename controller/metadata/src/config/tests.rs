//! Of the tables and names; `tests_values.rs` has the layers.

use super::*;

const KINDS: [(ConfigKind, &str, usize); 4] = [
    (ConfigKind::Broker, include_str!("broker.tsv"), 368),
    (ConfigKind::Topic, include_str!("topic.tsv"), 34),
    (ConfigKind::Group, include_str!("group.tsv"), 17),
    (ConfigKind::ClientMetrics, include_str!("client_metrics.tsv"), 3),
];

fn broker(name: &str, value: &str) -> Result<String, String> {
    validate(ConfigKind::Broker, name, value)
}

fn topic(name: &str, value: &str) -> Result<String, String> {
    validate(ConfigKind::Topic, name, value)
}

fn group(name: &str, value: &str) -> Result<String, String> {
    validate(ConfigKind::Group, name, value)
}

#[test]
fn every_line_of_the_tables_is_a_definition() {
    for (kind, text, count) in KINDS {
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!((lines, definitions(kind).count()), (count, count), "{kind:?}");
    }
}

#[test]
fn every_property_is_documented_in_one_sentence() {
    for (kind, ..) in KINDS {
        for found in definitions(kind) {
            assert!(found.documentation.ends_with('.') && found.documentation.len() > 15, "{}", found.name);
        }
    }
}

#[test]
fn every_default_is_valid_and_in_its_stored_form() {
    for (kind, ..) in KINDS {
        for found in definitions(kind) {
            // An empty list of controllers cannot be set, but it is what nobody sets.
            let Some(default) = found.default.filter(|default| !default.is_empty()) else { continue };
            assert_eq!(validate(kind, found.name, default).as_deref(), Ok(default), "{}", found.name);
        }
    }
}

#[test]
fn every_topic_and_group_default_is_the_brokers() {
    let none = BTreeMap::new();
    let image = crate::image::MetadataImage::default();
    for found in definitions(ConfigKind::Topic) {
        let value = topic_value(&image, &none, None, "t", found.name);
        assert_eq!(value.as_deref(), found.default, "{}", found.name);
    }
    for found in definitions(ConfigKind::Group) {
        assert_eq!(group_value(&image, &none, "g", found.name), found.default, "{}", found.name);
    }
}

#[test]
fn type_and_source_codes_are_those_of_the_protocol() {
    let types = [
        (ConfigType::Boolean, 1),
        (ConfigType::String, 2),
        (ConfigType::Int, 3),
        (ConfigType::Short, 4),
        (ConfigType::Long, 5),
        (ConfigType::Double, 6),
        (ConfigType::List, 7),
        (ConfigType::Class, 8),
        (ConfigType::Password, 9),
    ];
    assert!(types.iter().all(|(config_type, code)| config_type.code() == *code));
    assert_eq!(ConfigSource::DynamicTopicConfig.code(), 1);
    assert_eq!(ConfigSource::GroupConfig.code(), 8);
}

#[test]
fn booleans_are_read_in_any_case() {
    assert_eq!(topic("preallocate", " TRUE ").unwrap(), "true");
    let problem = topic("preallocate", "yes").unwrap_err();
    assert_eq!(
        problem,
        "Invalid value yes for configuration preallocate: Expected value to be either true or false"
    );
}

#[test]
fn whole_numbers_have_a_type_and_a_range() {
    assert_eq!(topic("segment.bytes", "+01048576").unwrap(), "1048576");
    assert_eq!(
        topic("segment.bytes", "1048575").unwrap_err(),
        "Invalid value 1048575 for configuration segment.bytes: Value must be at least 1048576"
    );
    assert_eq!(
        topic("segment.bytes", "2147483648").unwrap_err(),
        "Invalid value 2147483648 for configuration segment.bytes: Not a number of type INT"
    );
    assert_eq!(topic("retention.ms", "-1").unwrap(), "-1");
    assert!(topic("retention.ms", "-2").unwrap_err().ends_with("Value must be at least -1"));
    assert!(topic("retention.ms", "9223372036854775808").unwrap_err().ends_with("type LONG"));
    assert!(topic("retention.ms", "1.5").is_err());
    assert!(topic("retention.ms", "").is_err());
    assert!(broker("offsets.topic.replication.factor", "32768").unwrap_err().ends_with("type SHORT"));
}

#[test]
fn ranges_have_both_ends_and_one_exception() {
    for level in ["-1", "1", "9"] {
        assert_eq!(topic("compression.gzip.level", level).unwrap(), level);
    }
    for level in ["0", "10", "-2"] {
        let problem = topic("compression.gzip.level", level).unwrap_err();
        assert!(problem.ends_with("Value must be between 1 and 9, or be -1"), "{problem}");
    }
    assert!(topic("compression.zstd.level", "-131072").is_ok());
    assert!(topic("compression.zstd.level", "23").unwrap_err().ends_with("between -131072 and 22"));
}

#[test]
fn fractions_are_written_as_java_does() {
    assert_eq!(topic("min.cleanable.dirty.ratio", "1").unwrap(), "1.0");
    assert_eq!(topic("min.cleanable.dirty.ratio", "0.0001").unwrap(), "1.0E-4");
    assert_eq!(broker("log.cleaner.io.max.bytes.per.second", "12500000").unwrap(), "1.25E7");
    for wrong in ["1.01", "-0.1", "NaN", "inf", "half"] {
        assert!(topic("min.cleanable.dirty.ratio", wrong).is_err(), "{wrong}");
    }
}

#[test]
fn texts_are_one_of_a_set() {
    assert_eq!(topic("compression.type", "zstd").unwrap(), "zstd");
    assert!(
        topic("compression.type", "ZSTD")
            .unwrap_err()
            .contains("one of: uncompressed, zstd, lz4, snappy, gzip")
    );
    assert_eq!(broker("group.consumer.migration.policy", "Upgrade").unwrap(), "Upgrade");
    assert!(broker("group.consumer.migration.policy", "sideways").is_err());
}

#[test]
fn lists_are_trimmed_and_their_items_are_of_a_set() {
    assert_eq!(topic("cleanup.policy", " compact , delete,compact").unwrap(), "compact,delete");
    assert_eq!(topic("cleanup.policy", "").unwrap(), "");
    assert!(topic("cleanup.policy", "remove").unwrap_err().contains("among: compact, delete"));
    assert!(topic("cleanup.policy", "delete,").is_err());
    assert!(broker("controller.quorum.voters", "").unwrap_err().ends_with("non-empty"));
    assert!(broker("remote.log.storage.manager.class.name", "").is_err());
}

#[test]
fn throttled_replicas_are_pairs_or_a_star() {
    for right in ["*", "", "0:1", "0:1,12:3"] {
        assert_eq!(topic("leader.replication.throttled.replicas", right).unwrap(), right);
    }
    for wrong in ["*,0:1", "0", "0:", ":1", "a:1", "0:1:2", "-1:2", "0:99999999999"] {
        assert!(topic("leader.replication.throttled.replicas", wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_offset_reset_is_an_end_or_a_duration() {
    for right in ["earliest", "latest", "by_duration:PT1H", "by_duration:P2DT3H4M5.5S", "by_duration:p1d"] {
        assert_eq!(group("share.auto.offset.reset", right).unwrap(), right);
    }
    for wrong in
        ["none", "by_duration:", "by_duration:P", "by_duration:PT", "by_duration:-PT1H", "by_duration:P1H"]
    {
        assert!(group("share.auto.offset.reset", wrong).is_err(), "{wrong}");
    }
    for wrong in ["by_duration:PTH", "by_duration:PT1S2M", "by_duration:PT1M2H", "by_duration:P1DT"] {
        assert!(group("share.auto.offset.reset", wrong).is_err(), "{wrong}");
    }
}

#[test]
fn groups_stay_within_the_brokers_bounds() {
    let none = BTreeMap::new();
    let name = "consumer.session.timeout.ms";
    assert_eq!(validate_group(&none, name, "50000").unwrap(), "50000");
    assert!(
        validate_group(&none, name, "44999")
            .unwrap_err()
            .contains("group.consumer.min.session.timeout.ms (45000)")
    );
    assert!(
        validate_group(&none, name, "60001")
            .unwrap_err()
            .contains("group.consumer.max.session.timeout.ms (60000)")
    );
    let wider = BTreeMap::from([("group.consumer.min.session.timeout.ms".to_owned(), "10".to_owned())]);
    assert!(validate_group(&wider, name, "11").is_ok());
    assert!(validate_group(&none, "streams.num.standby.replicas", "3").is_err());
    assert!(validate_group(&none, "share.auto.offset.reset", "earliest").is_ok());
}

#[test]
fn a_listeners_secret_is_known_as_one() {
    assert!(definition(ConfigKind::Broker, "ssl.key.password").unwrap().sensitive);
    let name = "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config";
    let found = definition(ConfigKind::Broker, name).unwrap();
    assert_eq!((found.name, found.sensitive), ("sasl.jaas.config", true));
    assert_eq!(broker(name, "Module required;").unwrap(), "Module required;");
}

#[test]
fn only_properties_of_listeners_are_known_with_a_listener() {
    for known in ["listener.name.a.ssl.keystore.location", "listener.name.a.max.connections"] {
        assert!(definition(ConfigKind::Broker, known).is_some(), "{known}");
    }
    for unknown in
        ["listener.name.a.log.dirs", "listener.name.a", "listener.name.a.b.ssl.provider", "listener.name."]
    {
        assert!(definition(ConfigKind::Broker, unknown).is_none(), "{unknown}");
    }
    assert!(definition(ConfigKind::Topic, "listener.name.a.ssl.provider").is_none());
}

#[test]
fn a_wrong_name_has_a_nearest_one() {
    let near = |name: &str| nearest(ConfigKind::Broker, name);
    assert_eq!(near("log.dir"), Some("log.dir"));
    assert_eq!(near("num.partition"), Some("num.partitions"));
    assert_eq!(near("LOG_SEGMENT_BYTES"), Some("log.segment.bytes"));
    assert_eq!(nearest(ConfigKind::Topic, "retention"), Some("retention.ms"));
    assert_eq!(near("completely.unlike.anything.there.is"), None);
    assert_eq!(near(""), None);
    assert_eq!(near(&"n".repeat(1000)), None);
    assert_eq!(
        topic("retention.m", "1").unwrap_err(),
        "Unknown config name: retention.m; did you mean retention.ms?"
    );
}

#[test]
fn names_of_a_jvm_or_zookeeper_have_a_note() {
    for name in [
        "zookeeper.connect",
        "metric.reporters",
        "ssl.provider",
        "log.message.format.version",
        "rsm.config.x",
    ] {
        assert!(replacement_note(name).is_some(), "{name}");
    }
    for name in
        ["log.dirs", "authorizer.class.name", "ssl.keystore.location", "nonsense", "ottla.http.listener"]
    {
        assert!(replacement_note(name).is_none(), "{name}");
    }
}

#[test]
fn metrics_subscriptions_have_a_bounded_interval() {
    let check = |value| validate(ConfigKind::ClientMetrics, "interval.ms", value);
    assert!(check("100").is_ok() && check("3600000").is_ok());
    assert!(check("99").is_err() && check("3600001").is_err());
}

/// In the shape of the file that Kafka ships for a node with both roles.
const KAFKAS_FILE: &str = "
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
#log.flush.interval.messages=10000
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

#[test]
fn a_node_file_of_kafka_is_valid_as_it_stands() {
    let all = crate::properties::parse(KAFKAS_FILE);
    assert_eq!(all.len(), 24);
    for property in all {
        assert_eq!(
            broker(&property.name, &property.value).unwrap(),
            property.value,
            "line {}",
            property.line
        );
        // What has no effect here is told only to those who change it.
        let default = definition(ConfigKind::Broker, &property.name).unwrap().default;
        let is_default = default == Some(property.value.as_str());
        assert!(is_default || replacement_note(&property.name).is_none(), "{}", property.name);
    }
}
