//! Topics and configs, command by command: what is answered, every refusal, and what the records make of the image.
//! Here are the helpers of the other tests of decisions too.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_proto::controller as proto;
use ottla_proto::controller::command::Command;
use ottla_proto::controller::command_reply::Reply;
use ottla_proto::metadata::{MetadataRecord, ResourceType};
use ottla_wire::error_code::ErrorCode;

use super::testing::{cluster, fence, next};
use super::*;
use crate::image::{BrokerId, MetadataImage, PartitionImage};

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

pub(super) const SET: i32 = 0;
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
