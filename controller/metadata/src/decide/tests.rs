//! Every command: what it answers, every refusal, and what its records make of the image.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_proto::controller as proto;
use ottla_proto::controller::command::Command;
use ottla_proto::controller::command_reply::Reply;
use ottla_proto::metadata as records;
use ottla_proto::metadata::{MetadataRecord, ResourceType};
use ottla_wire::error_code::ErrorCode;

use super::testing::{cluster, fence, next};
use super::*;
use crate::image::{BrokerEpoch, BrokerId, MetadataImage, PartitionImage, TopicId};

pub(super) fn decide_with(
    image: &MetadataImage,
    properties: &BTreeMap<String, String>,
    command: Command,
) -> Result<Decision<Reply>, Refusal> {
    // Another seed for each entry, as ids come from it.
    decide(Situation { image, properties, seed: image.index().0.unsigned_abs() }, &command)
}

/// The answer, and the image after it.
pub(super) fn run(image: &MetadataImage, command: Command) -> (Reply, MetadataImage) {
    let decision = decide_with(image, &BTreeMap::new(), command).unwrap();
    (decision.reply, after(image, &decision.records))
}

pub(super) fn after(image: &MetadataImage, records: &[MetadataRecord]) -> MetadataImage {
    if records.is_empty() { image.clone() } else { next(image, records) }
}

pub(super) fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn code(code: i32) -> ErrorCode {
    ErrorCode::from_code(i16::try_from(code).unwrap())
}

pub(super) fn topic(name: &str, partitions: i32, replication_factor: i32) -> proto::NewTopic {
    proto::NewTopic { name: name.to_owned(), partitions, replication_factor, ..Default::default() }
}

pub(super) fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> proto::NewTopic {
    let assignments = assignments
        .iter()
        .map(|(partition, replicas)| proto::ReplicaAssignment {
            partition: *partition,
            replicas: replicas.to_vec(),
        })
        .collect();
    proto::NewTopic { assignments, ..topic(name, -1, -1) }
}

pub(super) fn with_config(name: &str, config: &str, value: Option<&str>) -> proto::NewTopic {
    let value = value.map(str::to_owned);
    proto::NewTopic {
        configs: vec![proto::ConfigValue { name: config.to_owned(), value }],
        ..topic(name, 1, 1)
    }
}

fn create(image: &MetadataImage, topics: Vec<proto::NewTopic>) -> (Vec<proto::CreatedTopic>, MetadataImage) {
    match run(image, Command::CreateTopics(proto::CreateTopics { validate_only: false, topics })) {
        (Reply::CreateTopics(reply), image) => (reply.topics, image),
        other => panic!("{other:?}"),
    }
}

pub(super) fn created(image: &MetadataImage, new: proto::NewTopic) -> MetadataImage {
    let (answers, image) = create(image, vec![new]);
    assert_eq!(answers[0].error_code, 0, "{}", answers[0].message);
    image
}

fn refusal(image: &MetadataImage, new: proto::NewTopic) -> ErrorCode {
    let (answers, same) = create(image, vec![new]);
    assert_eq!(&same, image);
    code(answers[0].error_code)
}

pub(super) fn three() -> MetadataImage {
    cluster(&[(1, "a"), (2, "b"), (3, "c")])
}

pub(super) fn id_of(image: &MetadataImage, name: &str) -> Bytes {
    Bytes::copy_from_slice(image.topic_by_name(name).unwrap().id.0.as_bytes())
}

pub(super) fn partition<'a>(image: &'a MetadataImage, name: &str, index: usize) -> &'a PartitionImage {
    &image.topic_by_name(name).unwrap().partitions[index]
}

pub(super) fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

#[test]
fn a_topic_is_created_with_its_partitions_and_configs() {
    let mut new = with_config("orders", "retention.ms", Some("12345"));
    (new.partitions, new.replication_factor) = (3, 2);
    let (answers, image) = create(&three(), vec![new]);
    assert_eq!((answers[0].error_code, answers[0].partitions, answers[0].replication_factor), (0, 3, 2));
    let made = image.topic_by_name("orders").unwrap();
    assert_eq!(answers[0].topic_id, id_of(&image, "orders"));
    assert_eq!(made.partitions.len(), 3);
    for partition in &made.partitions {
        assert_eq!((partition.replicas.len(), &partition.isr), (2, &partition.replicas));
        assert_eq!(partition.leader, Some(partition.replicas[0]));
    }
    assert_eq!(image.config(ResourceType::Topic, "orders").unwrap()["retention.ms"], "12345");
}

#[test]
fn minus_one_asks_for_the_defaults_of_the_cluster() {
    let command = proto::CreateTopics { validate_only: false, topics: vec![topic("t", -1, -1)] };
    let properties = properties(&[("num.partitions", "4"), ("default.replication.factor", "2")]);
    let Reply::CreateTopics(reply) =
        decide_with(&three(), &properties, Command::CreateTopics(command)).unwrap().reply
    else {
        panic!()
    };
    assert_eq!((reply.topics[0].partitions, reply.topics[0].replication_factor), (4, 2));
}

#[test]
fn each_topic_that_cannot_be_is_refused_with_kafkas_code() {
    let image = created(&three(), topic("a.b_c", 1, 1));
    assert_eq!(refusal(&image, topic("a.b_c", 1, 1)), ErrorCode::TopicAlreadyExists);
    assert_eq!(refusal(&image, topic("a_b.c", 1, 1)), ErrorCode::InvalidTopicException);
    for name in ["", ".", "..", "a b", "a/b", "é", &"x".repeat(250)] {
        assert_eq!(refusal(&image, topic(name, 1, 1)), ErrorCode::InvalidTopicException);
    }
    assert_eq!(refusal(&image, topic("__cluster_metadata", 1, 1)), ErrorCode::InvalidRequest);
    assert_eq!(refusal(&image, topic("t", 0, 1)), ErrorCode::InvalidPartitions);
    assert_eq!(refusal(&image, topic("t", -2, 1)), ErrorCode::InvalidPartitions);
    assert_eq!(refusal(&image, topic("t", i32::MAX, 1)), ErrorCode::PolicyViolation);
    for factor in [0, -2, 4, i32::MAX] {
        assert_eq!(refusal(&image, topic("t", 1, factor)), ErrorCode::InvalidReplicationFactor);
    }
    let nobody_lives = fence(cluster(&[(1, "")]), 1);
    assert_eq!(refusal(&nobody_lives, topic("t", 1, 1)), ErrorCode::InvalidReplicationFactor);
    assert_eq!(refusal(&image, with_config("t", "retention.ms", Some("x"))), ErrorCode::InvalidConfig);
    assert_eq!(refusal(&image, with_config("t", "retention.ms", None)), ErrorCode::InvalidConfig);
    assert_eq!(refusal(&image, with_config("t", "no.such", Some("1"))), ErrorCode::InvalidConfig);
    assert_eq!(
        refusal(&image, with_config("t", "remote.storage.enable", Some("true"))),
        ErrorCode::InvalidConfig
    );
    let mut contradiction = with_config("t", "min.compaction.lag.ms", Some("2"));
    let max = proto::ConfigValue { name: "max.compaction.lag.ms".to_owned(), value: Some("1".to_owned()) };
    contradiction.configs.push(max);
    assert_eq!(refusal(&image, contradiction), ErrorCode::InvalidConfig);
}

#[test]
fn an_assignment_is_used_as_given_or_refused() {
    let image = created(&three(), assigned("t", &[(0, &[3, 1]), (1, &[2, 3])]));
    assert_eq!(partition(&image, "t", 0).replicas, ids(&[3, 1]));
    assert_eq!(partition(&image, "t", 1).leader, Some(BrokerId(2)));
    let bad: [&[(i32, &[i32])]; 8] = [
        &[(1, &[1])],
        &[(0, &[1, 1])],
        &[(0, &[9])],
        &[(0, &[-1])],
        &[(0, &[])],
        &[(0, &[1]), (2, &[1])],
        &[(0, &[1]), (0, &[2])],
        &[(0, &[1]), (1, &[1, 2])],
    ];
    for assignment in bad {
        assert_eq!(refusal(&image, assigned("u", assignment)), ErrorCode::InvalidReplicaAssignment);
    }
    let counted = proto::NewTopic { partitions: 1, ..assigned("u", &[(0, &[1])]) };
    assert_eq!(refusal(&image, counted), ErrorCode::InvalidRequest);
    let counted = proto::NewTopic { replication_factor: 1, ..assigned("u", &[(0, &[1])]) };
    assert_eq!(refusal(&image, counted), ErrorCode::InvalidRequest);
}

#[test]
fn topics_of_one_request_succeed_or_fail_alone() {
    let asked = vec![topic("twice", 1, 1), topic("twice", 1, 1), topic("once", 1, 1), topic("bad", 0, 1)];
    let (answers, image) = create(&three(), asked);
    let codes: Vec<_> = answers.iter().map(|answer| code(answer.error_code)).collect();
    let expected =
        [ErrorCode::InvalidRequest, ErrorCode::InvalidRequest, ErrorCode::None, ErrorCode::InvalidPartitions];
    assert_eq!(codes, expected);
    assert_eq!(image.topic_count(), 1);
    let (answers, _) = create(&three(), vec![topic("a.b", 1, 1), topic("a_b", 1, 1)]);
    assert_eq!(code(answers[1].error_code), ErrorCode::InvalidTopicException);
}

#[test]
fn validate_only_writes_nothing() {
    let image = created(&three(), topic("t", 1, 1));
    let new =
        Command::CreateTopics(proto::CreateTopics { validate_only: true, topics: vec![topic("u", 4, 1)] });
    let grown = proto::NewPartitions { name: "t".to_owned(), count: 3, ..Default::default() };
    let grow =
        Command::CreatePartitions(proto::CreatePartitions { validate_only: true, topics: vec![grown] });
    for command in [new, grow] {
        assert!(decide_with(&image, &BTreeMap::new(), command).unwrap().records.is_empty());
    }
}

#[test]
fn a_fenced_broker_gets_a_replica_when_it_must_but_does_not_lead() {
    let image = created(&fence(three(), 2), topic("t", 6, 3));
    for partition in &image.topic_by_name("t").unwrap().partitions {
        assert_eq!(partition.replicas.len(), 3);
        assert!(!partition.isr.contains(&BrokerId(2)));
        assert_ne!(partition.leader, Some(BrokerId(2)));
    }
}

fn delete(image: &MetadataImage, topics: Vec<proto::TopicName>) -> (Vec<proto::DeletedTopic>, MetadataImage) {
    match run(image, Command::DeleteTopics(proto::DeleteTopics { topics })) {
        (Reply::DeleteTopics(reply), image) => (reply.topics, image),
        other => panic!("{other:?}"),
    }
}

fn by_name(name: &str) -> proto::TopicName {
    proto::TopicName { name: name.to_owned(), topic_id: Bytes::new() }
}

#[test]
fn topics_are_deleted_by_name_or_id_with_their_configs() {
    let image = created(&three(), with_config("t", "retention.ms", Some("1")));
    let image = created(&image, topic("u", 1, 1));
    let by_id = proto::TopicName { name: String::new(), topic_id: id_of(&image, "u") };
    let (answers, image) = delete(&image, vec![by_name("t"), by_id.clone()]);
    assert_eq!(
        answers.iter().map(|topic| (topic.name.as_str(), topic.error_code)).collect::<Vec<_>>(),
        [("t", 0), ("u", 0)]
    );
    assert_eq!((image.topic_count(), image.config(ResourceType::Topic, "t")), (0, None));
    let (answers, _) = delete(&image, vec![by_name("t"), by_id]);
    assert_eq!(code(answers[0].error_code), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(code(answers[1].error_code), ErrorCode::UnknownTopicId);
}

#[test]
fn a_deletion_that_is_ambiguous_doubled_or_forbidden_deletes_nothing() {
    let image = created(&three(), topic("t", 1, 1));
    let both = proto::TopicName { name: "t".to_owned(), topic_id: id_of(&image, "t") };
    let by_id = proto::TopicName { name: String::new(), topic_id: id_of(&image, "t") };
    for asked in [vec![both], vec![by_name("t"), by_name("t")], vec![by_name("t"), by_id], vec![by_name("")]]
    {
        let (answers, same) = delete(&image, asked);
        assert_eq!((answers.len(), code(answers[0].error_code)), (1, ErrorCode::InvalidRequest));
        assert_eq!(same, image);
    }
    let command = Command::DeleteTopics(proto::DeleteTopics { topics: vec![by_name("t")] });
    let decision = decide_with(&image, &properties(&[("delete.topic.enable", "false")]), command).unwrap();
    let Reply::DeleteTopics(reply) = decision.reply else { panic!() };
    assert_eq!(code(reply.topics[0].error_code), ErrorCode::TopicDeletionDisabled);
    assert!(decision.records.is_empty());
}

fn grow(image: &MetadataImage, name: &str, count: i32, assignments: &[&[i32]]) -> (ErrorCode, MetadataImage) {
    let assignments: Vec<_> = assignments
        .iter()
        .map(|replicas| proto::ReplicaAssignment { partition: 0, replicas: replicas.to_vec() })
        .collect();
    let assignments_given = !assignments.is_empty();
    let topics = vec![proto::NewPartitions { name: name.to_owned(), count, assignments, assignments_given }];
    match run(image, Command::CreatePartitions(proto::CreatePartitions { validate_only: false, topics })) {
        (Reply::CreatePartitions(reply), image) => (code(reply.topics[0].error_code), image),
        other => panic!("{other:?}"),
    }
}

#[test]
fn partitions_are_added_as_assigned_or_placed() {
    let image = created(&three(), topic("t", 1, 2));
    let (answer, image) = grow(&image, "t", 3, &[&[2, 3], &[3, 1]]);
    assert_eq!(answer, ErrorCode::None);
    assert_eq!(partition(&image, "t", 1).replicas, ids(&[2, 3]));
    let (answer, image) = grow(&image, "t", 4, &[]);
    assert_eq!((answer, partition(&image, "t", 3).replicas.len()), (ErrorCode::None, 2));
}

#[test]
fn a_growth_that_cannot_be_is_refused() {
    let image = created(&three(), topic("t", 3, 1));
    for count in [3, 2, 0, -1, i32::MAX] {
        assert_eq!(grow(&image, "t", count, &[]).0, ErrorCode::InvalidPartitions);
    }
    let bad: [(i32, &[&[i32]]); 6] =
        [(5, &[&[1]]), (4, &[&[1], &[1]]), (4, &[&[9]]), (4, &[&[]]), (4, &[&[1, 1]]), (4, &[&[1, 2]])];
    for (count, assignments) in bad {
        assert_eq!(grow(&image, "t", count, assignments).0, ErrorCode::InvalidReplicaAssignment);
    }
    assert_eq!(grow(&image, "u", 4, &[]).0, ErrorCode::UnknownTopicOrPartition);
}

const SET: i32 = 0;
const DELETE: i32 = 1;
const APPEND: i32 = 2;
const SUBTRACT: i32 = 3;

pub(super) fn alter(
    image: &MetadataImage,
    kind: ResourceType,
    name: &str,
    replace_all: bool,
    changes: &[(i32, &str, Option<&str>)],
) -> (ErrorCode, MetadataImage) {
    let changes = changes
        .iter()
        .map(|(operation, name, value)| proto::ConfigChange {
            name: (*name).to_owned(),
            operation: *operation,
            value: value.map(str::to_owned),
        })
        .collect();
    let resource =
        proto::ConfigAlteration { resource_type: kind.into(), resource_name: name.to_owned(), changes };
    let command = proto::AlterConfigs { validate_only: false, replace_all, resources: vec![resource] };
    match run(image, Command::AlterConfigs(command)) {
        (Reply::AlterConfigs(reply), image) => (code(reply.resources[0].error_code), image),
        other => panic!("{other:?}"),
    }
}

#[test]
fn configs_are_set_removed_appended_and_replaced() {
    let image = created(&three(), topic("t", 1, 1));
    let value = |image: &MetadataImage, name: &str| {
        image.config(ResourceType::Topic, "t").and_then(|set| set.get(name)).cloned()
    };
    let (answer, image) = alter(&image, ResourceType::Topic, "t", false, &[(SET, "retention.ms", Some("5"))]);
    assert_eq!((answer, value(&image, "retention.ms").as_deref()), (ErrorCode::None, Some("5")));
    let (_, image) =
        alter(&image, ResourceType::Topic, "t", false, &[(APPEND, "cleanup.policy", Some("compact"))]);
    assert_eq!(value(&image, "cleanup.policy").as_deref(), Some("delete,compact"));
    let (_, image) =
        alter(&image, ResourceType::Topic, "t", false, &[(SUBTRACT, "cleanup.policy", Some("delete"))]);
    assert_eq!(value(&image, "cleanup.policy").as_deref(), Some("compact"));
    let (_, image) = alter(&image, ResourceType::Topic, "t", false, &[(DELETE, "retention.ms", None)]);
    assert_eq!(value(&image, "retention.ms"), None);
    let (_, image) =
        alter(&image, ResourceType::Topic, "t", true, &[(SET, "segment.bytes", Some("2097152"))]);
    assert_eq!(value(&image, "cleanup.policy"), None);
    let (_, image) = alter(&image, ResourceType::Topic, "t", true, &[]);
    assert_eq!(image.config(ResourceType::Topic, "t"), None);
}

#[test]
fn appending_begins_with_the_value_in_force() {
    let image = created(&three(), topic("t", 1, 1));
    let (answer, image) =
        alter(&image, ResourceType::Broker, "", false, &[(SET, "log.cleanup.policy", Some("compact"))]);
    assert_eq!(answer, ErrorCode::None);
    let (_, image) =
        alter(&image, ResourceType::Topic, "t", false, &[(APPEND, "cleanup.policy", Some("delete"))]);
    assert_eq!(image.config(ResourceType::Topic, "t").unwrap()["cleanup.policy"], "compact,delete");
}

#[test]
fn a_change_of_configs_that_cannot_be_is_refused_whole_with_kafkas_code() {
    use ErrorCode::{
        InvalidConfig, InvalidRequest, InvalidTopicException, UnknownServerError, UnknownTopicOrPartition,
    };
    use ResourceType::{Broker, ClientMetrics, Group, Topic, Unspecified};
    let image = created(&three(), topic("t", 1, 1));
    type Case = (ResourceType, &'static str, i32, &'static str, Option<&'static str>, ErrorCode);
    let cases: [Case; 31] = [
        (Topic, "u", SET, "retention.ms", Some("5"), UnknownTopicOrPartition),
        (Topic, "a b", SET, "retention.ms", Some("5"), InvalidTopicException),
        (Topic, "", SET, "retention.ms", Some("5"), InvalidRequest),
        (Topic, "t", SET, "retention.ms", Some(""), InvalidConfig),
        (Topic, "t", SET, "retention.ms", None, InvalidRequest),
        (Topic, "t", APPEND, "cleanup.policy", None, InvalidRequest),
        (Topic, "t", APPEND, "retention.ms", Some("5"), InvalidConfig),
        (Topic, "t", SUBTRACT, "retention.ms", Some("5"), InvalidConfig),
        (Topic, "t", APPEND, "cleanup.policy", Some("foo"), InvalidConfig),
        (Topic, "t", SET, "no.such", Some("5"), InvalidConfig),
        (Topic, "t", 9, "retention.ms", Some("5"), UnknownServerError),
        (Topic, "t", SET, "min.compaction.lag.ms", Some("9223372036854775808"), InvalidConfig),
        (Broker, "1", SET, "num.partitions", Some("3"), InvalidRequest),
        (Broker, "", SET, "broker.id", Some("3"), InvalidRequest),
        (Broker, "1", SET, "advertised.listeners", Some("PLAINTEXT://x:1"), InvalidRequest),
        (Broker, "", SET, "log.retention.ms", Some("abc"), InvalidRequest),
        (Broker, "1", SET, "ssl.keystore.password", Some("secret"), InvalidRequest),
        (Broker, "x", SET, "log.retention.ms", Some("5"), InvalidRequest),
        (Broker, "9", SET, "log.retention.ms", Some("5"), InvalidRequest),
        (Broker, "1", SET, "num.io.threads", Some("100"), InvalidRequest),
        (Broker, "1", SET, "num.io.threads", Some("1"), InvalidRequest),
        (Broker, "", SET, "listener.name.plaintext.ssl.keystore.location", Some("/x"), InvalidRequest),
        (Broker, "1", SET, "min.insync.replicas", Some("1"), InvalidConfig),
        (Group, "", SET, "consumer.session.timeout.ms", Some("50000"), InvalidRequest),
        (Group, "g", SET, "consumer.session.timeout.ms", Some("5"), InvalidConfig),
        (Group, "g", SET, "consumer.session.timeout.ms", Some("90000"), InvalidConfig),
        (Group, "g", SET, "retention.ms", Some("5"), InvalidConfig),
        (ClientMetrics, "s", SET, "interval.ms", Some("1"), InvalidRequest),
        (ClientMetrics, "s", SET, "match", Some("foo"), InvalidConfig),
        (ClientMetrics, "s", SET, "foo", Some("1"), InvalidRequest),
        (Unspecified, "s", SET, "foo", Some("1"), InvalidRequest),
    ];
    for (kind, name, operation, config, value, expected) in cases {
        let (answer, same) = alter(&image, kind, name, false, &[(operation, config, value)]);
        assert_eq!(answer, expected, "{kind:?} {name} {operation} {config}={value:?}");
        assert_eq!(same, image);
    }
    let whole = [(SET, "retention.ms", Some("7")), (SET, "segment.bytes", Some("5"))];
    assert_eq!(alter(&image, Topic, "t", false, &whole).1, image);
    let twice = [(SET, "retention.ms", Some("7")), (SET, "retention.ms", Some("8"))];
    assert_eq!(alter(&image, Topic, "t", false, &twice).0, InvalidRequest);
    let contradiction =
        [(SET, "min.compaction.lag.ms", Some("2")), (SET, "max.compaction.lag.ms", Some("1"))];
    assert_eq!(alter(&image, Topic, "t", false, &contradiction).0, InvalidConfig);
    assert_eq!(alter(&image, Topic, "t", false, &[(DELETE, "no.such", None)]).0, ErrorCode::None);
}

#[test]
fn a_resource_named_twice_is_refused_twice() {
    let image = created(&three(), topic("t", 1, 1));
    let change =
        proto::ConfigChange { name: "retention.ms".to_owned(), operation: SET, value: Some("1".to_owned()) };
    let resource = proto::ConfigAlteration {
        resource_type: ResourceType::Topic.into(),
        resource_name: "t".to_owned(),
        changes: vec![change],
    };
    let resources = vec![resource.clone(), resource];
    let command = proto::AlterConfigs { validate_only: false, replace_all: false, resources };
    let (Reply::AlterConfigs(reply), same) = run(&image, Command::AlterConfigs(command)) else { panic!() };
    assert!(reply.resources.iter().all(|answer| code(answer.error_code) == ErrorCode::InvalidRequest));
    assert_eq!(same, image);
}

#[test]
fn a_lower_minimum_of_in_sync_replicas_takes_the_eligible_replicas_away_in_the_same_entry() {
    let image = created(&three(), assigned("t", &[(0, &[1, 2, 3])]));
    let (_, image) =
        alter(&image, ResourceType::Topic, "t", false, &[(SET, "min.insync.replicas", Some("2"))]);
    let image = fenced(&fenced(&image, 3), 2);
    assert_eq!(partition(&image, "t", 0).eligible_leader_replicas, ids(&[2]));
    let (answer, image) =
        alter(&image, ResourceType::Topic, "t", false, &[(SET, "min.insync.replicas", Some("1"))]);
    assert_eq!(answer, ErrorCode::None);
    assert!(partition(&image, "t", 0).eligible_leader_replicas.is_empty());
}

/// The image after a broker's lease was over.
pub(super) fn fenced(image: &MetadataImage, id: i32) -> MetadataImage {
    let (id, properties) = (BrokerId(id), BTreeMap::new());
    let epoch = image.broker(id).unwrap().epoch;
    after(image, &super::fence(Situation { image, properties: &properties, seed: 1 }, id, epoch))
}

pub(super) fn unfenced(image: &MetadataImage, id: i32) -> MetadataImage {
    let (id, properties) = (BrokerId(id), BTreeMap::new());
    let epoch = image.broker(id).unwrap().epoch;
    let image = after(image, &unfence(Situation { image, properties: &properties, seed: 1 }, id, epoch));
    after(&image, &elect_leaderless(Situation { image: &image, properties: &properties, seed: 1 }))
}

pub(super) fn alteration(image: &MetadataImage, isr: &[(i32, i64)]) -> proto::PartitionAlteration {
    let old = partition(image, "t", 0);
    proto::PartitionAlteration {
        topic_id: id_of(image, "t"),
        partition: 0,
        leader_epoch: old.leader_epoch.0,
        partition_epoch: old.partition_epoch.0,
        isr: isr
            .iter()
            .map(|(broker_id, broker_epoch)| proto::IsrMember {
                broker_id: *broker_id,
                broker_epoch: *broker_epoch,
            })
            .collect(),
        recovering: false,
    }
}

pub(super) fn alter_partition(
    image: &MetadataImage,
    asked: proto::PartitionAlteration,
) -> (ErrorCode, MetadataImage) {
    let command = proto::AlterPartitions { broker_id: 1, broker_epoch: 1, partitions: vec![asked] };
    match run(image, Command::AlterPartitions(command)) {
        (Reply::AlterPartitions(reply), image) => (code(reply.partitions[0].error_code), image),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leader_shrinks_and_grows_its_isr() {
    let image = created(&three(), assigned("t", &[(0, &[1, 2, 3])]));
    let old = partition(&image, "t", 0).clone();
    let (answer, image) = alter_partition(&image, alteration(&image, &[(1, 1), (2, 2)]));
    assert_eq!((answer, partition(&image, "t", 0).isr.clone()), (ErrorCode::None, ids(&[1, 2])));
    assert_eq!(partition(&image, "t", 0).leader_epoch, old.leader_epoch);
    assert!(partition(&image, "t", 0).partition_epoch > old.partition_epoch);
    let (answer, image) = alter_partition(&image, alteration(&image, &[(1, 1), (2, 2), (3, 3)]));
    assert_eq!((answer, partition(&image, "t", 0).isr.len()), (ErrorCode::None, 3));
}

#[test]
fn a_proposal_that_is_late_or_from_another_is_refused_and_told_the_state_in_force() {
    use ErrorCode::{
        FencedLeaderEpoch, IneligibleReplica, InvalidRequest, InvalidUpdateVersion, NotController,
        UnknownTopicId, UnknownTopicOrPartition,
    };
    let image = created(&three(), assigned("t", &[(0, &[1, 2]), (1, &[2, 1])]));
    // Twice a change, so that there is an epoch below the present one.
    let image = unfenced(&fenced(&fenced(&image, 2), 1), 1);
    let good = || alteration(&image, &[(1, 1)]);
    let epochs = (good().leader_epoch, good().partition_epoch);
    let cases = [
        (proto::PartitionAlteration { leader_epoch: epochs.0 - 1, ..good() }, FencedLeaderEpoch),
        (proto::PartitionAlteration { leader_epoch: epochs.0 + 1, ..good() }, NotController),
        (proto::PartitionAlteration { partition_epoch: epochs.1 - 1, ..good() }, InvalidUpdateVersion),
        (proto::PartitionAlteration { partition_epoch: epochs.1 + 1, ..good() }, NotController),
        (proto::PartitionAlteration { partition: 9, ..good() }, UnknownTopicOrPartition),
        (proto::PartitionAlteration { topic_id: vec![7; 16].into(), ..good() }, UnknownTopicId),
        (proto::PartitionAlteration { topic_id: vec![7; 3].into(), ..good() }, UnknownTopicId),
        (proto::PartitionAlteration { recovering: true, ..good() }, InvalidRequest),
        (alteration(&image, &[]), InvalidRequest),
        (alteration(&image, &[(2, 2)]), InvalidRequest),
        (alteration(&image, &[(1, 1), (1, 1)]), InvalidRequest),
        (alteration(&image, &[(1, 1), (3, 3)]), InvalidRequest),
    ];
    for (asked, expected) in cases {
        let (answer, same) = alter_partition(&image, asked.clone());
        assert_eq!((answer, &same), (expected, &image), "{asked:?}");
    }
    // Fenced (KIP-841). The leader takes the proposal back: no earlier copy of it may be accepted when the member is back.
    let early = alteration(&image, &[(1, 1), (2, 2)]);
    let (answer, image) = alter_partition(&image, early.clone());
    assert_eq!((answer, partition(&image, "t", 0).isr.clone()), (IneligibleReplica, ids(&[1])));
    let image = unfenced(&image, 2);
    let (answer, same) = alter_partition(&image, early);
    assert_eq!((answer, &same), (InvalidUpdateVersion, &image));
    // Another registration than the leader saw (KIP-903).
    assert_eq!(alter_partition(&image, alteration(&image, &[(1, 1), (2, 7)])).0, IneligibleReplica);
    assert_eq!(alter_partition(&image, alteration(&image, &[(1, 1), (2, 2)])).0, ErrorCode::None);
}

#[test]
fn only_the_leader_in_its_present_registration_may_propose() {
    let image = created(&three(), assigned("t", &[(0, &[2, 1])]));
    assert_eq!(alter_partition(&image, alteration(&image, &[(1, 1), (2, 2)])).0, ErrorCode::InvalidRequest);
    for (broker_id, broker_epoch) in [(1, 7), (9, 1)] {
        let command = proto::AlterPartitions { broker_id, broker_epoch, partitions: Vec::new() };
        let refusal = decide_with(&image, &BTreeMap::new(), Command::AlterPartitions(command)).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::StaleBrokerEpoch);
    }
}

#[test]
fn two_proposals_for_one_partition_in_a_command_are_decided_one_behind_the_other() {
    let image = created(&three(), assigned("t", &[(0, &[1, 2, 3])]));
    let asked = alteration(&image, &[(1, 1), (2, 2)]);
    let command =
        proto::AlterPartitions { broker_id: 1, broker_epoch: 1, partitions: vec![asked.clone(), asked] };
    let (Reply::AlterPartitions(reply), _) = run(&image, Command::AlterPartitions(command)) else { panic!() };
    let codes: Vec<_> = reply.partitions.iter().map(|answer| code(answer.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::InvalidUpdateVersion]);
    assert_eq!(reply.partitions[0].state, reply.partitions[1].state);
}

#[test]
fn a_leader_that_is_shutting_down_alone_goes_on_leading() {
    let image = created(&three(), assigned("t", &[(0, &[1, 2])]));
    let image = fenced(&image, 2);
    let properties = BTreeMap::new();
    let situation = Situation { image: &image, properties: &properties, seed: 1 };
    let image = after(&image, &set_controlled_shutdown(situation, BrokerId(1), BrokerEpoch(1)));
    assert_eq!(partition(&image, "t", 0).leader, Some(BrokerId(1)));
    let image = unfenced(&image, 2);
    let (answer, image) = alter_partition(&image, alteration(&image, &[(1, 1), (2, 2)]));
    assert_eq!((answer, partition(&image, "t", 0).leader), (ErrorCode::NewLeaderElected, Some(BrokerId(2))));
}

#[test]
fn producer_ids_come_in_blocks_that_never_overlap() {
    let ask = Command::AllocateProducerIds(proto::AllocateProducerIds { broker_id: 1, broker_epoch: 1 });
    let (Reply::AllocateProducerIds(first), image) = run(&three(), ask.clone()) else { panic!() };
    let (Reply::AllocateProducerIds(second), _) = run(&image, ask) else { panic!() };
    assert_eq!(second.first_producer_id, first.first_producer_id + i64::from(first.count));
    let refused = |broker_id, broker_epoch| {
        let ask = Command::AllocateProducerIds(proto::AllocateProducerIds { broker_id, broker_epoch });
        decide_with(&image, &BTreeMap::new(), ask).unwrap_err().code
    };
    assert_eq!(refused(9, 1), ErrorCode::BrokerIdNotRegistered);
    assert_eq!(refused(1, 5), ErrorCode::StaleBrokerEpoch);
}

fn elect(image: &MetadataImage, unclean: bool, asked: &[(&str, i32)]) -> (Vec<ErrorCode>, MetadataImage) {
    let partitions = asked
        .iter()
        .map(|(topic, partition)| proto::TopicPartition { topic: (*topic).to_owned(), partition: *partition })
        .collect();
    match run(image, Command::ElectLeaders(proto::ElectLeaders { unclean, partitions })) {
        (Reply::ElectLeaders(reply), image) => {
            (reply.partitions.iter().map(|answer| code(answer.error_code)).collect(), image)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn elections_that_are_asked_for_are_held_or_refused() {
    let image = created(&three(), assigned("t", &[(0, &[1, 2]), (1, &[2, 3])]));
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(elect(&image, false, &[("u", 0), ("t", 9), ("t", -1)]).0, [unknown; 3]);
    assert_eq!(elect(&image, false, &[("t", 0)]).0, [ErrorCode::ElectionNotNeeded]);
    assert_eq!(elect(&image, true, &[("t", 0)]).0, [ErrorCode::ElectionNotNeeded]);
    let away = fenced(&image, 1);
    assert_eq!(partition(&away, "t", 0).leader, Some(BrokerId(2)));
    assert_eq!(elect(&away, false, &[("t", 0)]).0, [ErrorCode::PreferredLeaderNotAvailable]);
    let nobody = fenced(&away, 2);
    assert_eq!(elect(&nobody, true, &[("t", 0)]).0, [ErrorCode::EligibleLeadersNotAvailable]);
    let (answers, unclean) = elect(&unfenced(&nobody, 1), true, &[]);
    assert_eq!(answers, [ErrorCode::None]);
    assert_eq!(
        (partition(&unclean, "t", 0).leader, partition(&unclean, "t", 0).recovering),
        (Some(BrokerId(1)), true)
    );
}

#[test]
fn leadership_returns_to_the_preferred_leader_when_it_is_back_in_sync() {
    let image = created(&three(), assigned("t", &[(0, &[2, 1])]));
    let image = unfenced(&fenced(&image, 2), 2);
    let properties = BTreeMap::new();
    let rebalance =
        |image: &MetadataImage| rebalance_preferred(Situation { image, properties: &properties, seed: 1 });
    assert!(rebalance(&image).is_empty(), "it is not in sync");
    let (_, image) = alter_partition(&image, alteration(&image, &[(1, 1), (2, 2)]));
    let image = after(&image, &rebalance(&image));
    assert_eq!(partition(&image, "t", 0).leader, Some(BrokerId(2)));
    let (answers, _) = elect(&image, false, &[("t", 0)]);
    assert_eq!(answers, [ErrorCode::ElectionNotNeeded]);
}

fn registration(id: i32, incarnation: u8, previous_broker_epoch: i64) -> proto::RegisterBrokerRequest {
    let endpoint = records::Endpoint {
        name: "PLAINTEXT".to_owned(),
        host: "h".to_owned(),
        port: 9092,
        ..Default::default()
    };
    let registration = records::RegisterBrokerRecord {
        broker_id: id,
        incarnation_id: vec![incarnation; 16].into(),
        endpoints: vec![endpoint],
        ..Default::default()
    };
    proto::RegisterBrokerRequest {
        cluster_id: String::new(),
        registration: Some(registration),
        previous_broker_epoch,
    }
}

fn register_in(
    image: &MetadataImage,
    request: &proto::RegisterBrokerRequest,
    is_held: bool,
) -> Result<RegistrationDecision, Refusal> {
    register(Situation { image, properties: &BTreeMap::new(), seed: 1 }, request, is_held)
}

fn registered(image: &MetadataImage, request: &proto::RegisterBrokerRequest) -> MetadataImage {
    match register_in(image, request, false).unwrap() {
        RegistrationDecision::Register(records) => after(image, &records),
        RegistrationDecision::Already(_) => panic!("it is registered"),
    }
}

#[test]
fn a_registration_gives_a_larger_epoch_and_begins_fenced() {
    let image = three();
    let new = registered(&image, &registration(1, 9, -1));
    let broker = new.broker(BrokerId(1)).unwrap();
    assert!(broker.epoch > image.broker(BrokerId(1)).unwrap().epoch);
    assert_eq!((broker.epoch.0, broker.fenced), (new.index().0, true));
    let again = register_in(&new, &registration(1, 9, -1), true);
    assert_eq!(again, Ok(RegistrationDecision::Already(broker.epoch)));
}

#[test]
fn a_registration_that_cannot_be_is_refused() {
    let image = three();
    let code_of =
        |request: &proto::RegisterBrokerRequest| register_in(&image, request, true).unwrap_err().code;
    assert_eq!(code_of(&registration(1, 9, -1)), ErrorCode::DuplicateBrokerRegistration);
    assert_eq!(code_of(&registration(-1, 9, -1)), ErrorCode::InvalidRegistration);
    let elsewhere = proto::RegisterBrokerRequest { cluster_id: "other".to_owned(), ..registration(4, 9, -1) };
    assert_eq!(code_of(&elsewhere), ErrorCode::InconsistentClusterId);
    let nothing = proto::RegisterBrokerRequest { registration: None, ..registration(4, 9, -1) };
    assert_eq!(code_of(&nothing), ErrorCode::InvalidRequest);
    let edited = |edit: fn(&mut records::RegisterBrokerRecord)| {
        let mut request = registration(4, 9, -1);
        edit(request.registration.as_mut().unwrap());
        code_of(&request)
    };
    assert_eq!(edited(|record| record.incarnation_id = Bytes::new()), ErrorCode::InvalidRequest);
    assert_eq!(edited(|record| record.endpoints.clear()), ErrorCode::InvalidRegistration);
    assert_eq!(edited(|record| record.endpoints[0].port = 65_536), ErrorCode::InvalidRegistration);
}

#[test]
fn who_comes_back_after_an_unclean_end_is_not_eligible_any_more() {
    let image = created(&three(), assigned("t", &[(0, &[1, 2, 3])]));
    let (_, image) =
        alter(&image, ResourceType::Topic, "t", false, &[(SET, "min.insync.replicas", Some("3"))]);
    let image = fenced(&fenced(&image, 2), 1);
    let now = partition(&image, "t", 0);
    assert_eq!((now.isr.clone(), now.eligible_leader_replicas.clone()), (ids(&[3]), ids(&[1, 2])));
    let epoch = image.broker(BrokerId(2)).unwrap().epoch.0;
    let clean = registered(&image, &registration(2, 9, epoch));
    assert_eq!(partition(&clean, "t", 0).eligible_leader_replicas, ids(&[1, 2]));
    let unclean = registered(&image, &registration(2, 9, epoch - 1));
    assert_eq!(partition(&unclean, "t", 0).eligible_leader_replicas, ids(&[1]));
    // The ISR's last member ended uncleanly, and one that did not is eligible: it takes the place.
    let dead = fenced(&fenced(&unclean, 3), 3);
    let dead = registered(&dead, &registration(3, 9, -1));
    assert_eq!((partition(&dead, "t", 0).isr.clone(), partition(&dead, "t", 0).leader), (ids(&[1]), None));
    assert_eq!(partition(&unfenced(&dead, 3), "t", 0).leader, None);
    assert_eq!(partition(&unfenced(&dead, 1), "t", 0).leader, Some(BrokerId(1)));
}

#[test]
fn an_unregistered_broker_is_gone_and_leads_nothing() {
    let image = created(&three(), assigned("t", &[(0, &[1, 2])]));
    let command = Command::UnregisterBroker(proto::UnregisterBroker { broker_id: 1 });
    let (_, image) = run(&image, command.clone());
    assert_eq!(image.broker(BrokerId(1)), None);
    assert_eq!(partition(&image, "t", 0).leader, Some(BrokerId(2)));
    let refusal = decide_with(&image, &BTreeMap::new(), command).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::BrokerIdNotRegistered);
}

#[test]
fn who_is_not_of_the_registration_that_is_meant_is_left_alone() {
    let image = three();
    let properties = BTreeMap::new();
    let situation = Situation { image: &image, properties: &properties, seed: 1 };
    assert!(super::fence(situation, BrokerId(1), BrokerEpoch(9)).is_empty());
    assert!(unfence(situation, BrokerId(1), BrokerEpoch(1)).is_empty(), "it is not fenced");
    assert!(set_controlled_shutdown(situation, BrokerId(9), BrokerEpoch(1)).is_empty());
    assert!(image.topic_by_id(TopicId(uuid::Uuid::nil())).is_none());
}
