//! Random histories of a cluster: what must hold after every entry (I18 to I23 of the project's invariants).

use std::collections::BTreeMap;

use ottla_proto::controller as proto;
use ottla_proto::controller::command::Command;
use ottla_proto::metadata as records;
use ottla_proto::metadata::{MetadataRecord, ResourceType};
use proptest::prelude::*;

use crate::config;
use crate::decide::{
    RegistrationDecision, Situation, decide, default_features, elect_leaderless, fail_directories, fence,
    rebalance_preferred, register, set_controlled_shutdown, unfence,
};
use crate::image::{BrokerId, LogIndex, MetadataDelta, MetadataImage};

#[derive(Debug, Clone)]
enum Step {
    Register { id: i32, clean: bool },
    Fence(i32),
    Unfence(i32),
    Stop(i32),
    Create { topic: u8, partitions: i32, factor: i32, min_isr: u8 },
    Grow { topic: u8, by: i32 },
    Delete(u8),
    Config { topic: Option<u8>, name: u8, value: u8 },
    Isr { topic: u8, partition: usize, members: u8 },
    ProducerIds(i32),
    Elect { unclean: bool },
    Rebalance,
    Unregister(i32),
    Reassign { topic: u8, partition: i32, target: Vec<i32>, cancel: bool },
    FailDirectory(i32),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 1..5i32;
    prop_oneof![
        4 => (id(), any::<bool>()).prop_map(|(id, clean)| Step::Register { id, clean }),
        4 => id().prop_map(Step::Fence),
        6 => id().prop_map(Step::Unfence),
        1 => id().prop_map(Step::Stop),
        4 => (0..4u8, 1..4i32, 1..5i32, 1..4u8)
            .prop_map(|(topic, partitions, factor, min_isr)| Step::Create { topic, partitions, factor, min_isr }),
        1 => (0..4u8, 1..3i32).prop_map(|(topic, by)| Step::Grow { topic, by }),
        1 => (0..4u8).prop_map(Step::Delete),
        3 => (proptest::option::of(0..4u8), 0..3u8, 0..3u8)
            .prop_map(|(topic, name, value)| Step::Config { topic, name, value }),
        8 => (0..4u8, 0..3usize, any::<u8>())
            .prop_map(|(topic, partition, members)| Step::Isr { topic, partition, members }),
        1 => id().prop_map(Step::ProducerIds),
        1 => any::<bool>().prop_map(|unclean| Step::Elect { unclean }),
        1 => Just(Step::Rebalance),
        1 => id().prop_map(Step::Unregister),
        4 => (0..4u8, 0..3i32, proptest::collection::vec(id(), 1..4), any::<bool>()).prop_map(
            |(topic, partition, target, cancel)| Step::Reassign { topic, partition, target, cancel }
        ),
        1 => id().prop_map(Step::FailDirectory),
    ]
}

fn topic_name(topic: u8) -> String {
    format!("topic-{topic}")
}

fn registration(image: &MetadataImage, id: i32, clean: bool, at: u64) -> proto::RegisterBrokerRequest {
    let endpoint = records::Endpoint {
        name: "PLAINTEXT".to_owned(),
        host: "h".to_owned(),
        port: 9092,
        ..Default::default()
    };
    let registration = records::RegisterBrokerRecord {
        broker_id: id,
        incarnation_id: u128::from(at + 1).to_be_bytes().to_vec().into(),
        endpoints: vec![endpoint],
        rack: format!("rack-{}", id % 2),
        log_directories: (1..3u128).map(|at| at.to_be_bytes().to_vec().into()).collect(),
        ..Default::default()
    };
    let old = image.broker(BrokerId(id)).map_or(-1, |broker| broker.epoch.0);
    let previous_broker_epoch = if clean { old } else { -1 };
    proto::RegisterBrokerRequest {
        cluster_id: String::new(),
        registration: Some(registration),
        previous_broker_epoch,
    }
}

/// What the leader of a partition might propose; `members` picks replicas.
fn proposal(image: &MetadataImage, topic: u8, partition: usize, members: u8) -> Option<Command> {
    let topic = image.topic_by_name(&topic_name(topic))?;
    let old = topic.partitions.get(partition)?;
    let leader = image.broker(old.leader?)?;
    let isr = old
        .replicas
        .iter()
        .enumerate()
        .filter(|(at, id)| **id == leader.id || members & (1 << at) != 0)
        .map(|(_, id)| proto::IsrMember {
            broker_id: id.0,
            broker_epoch: image.broker(*id).map_or(-1, |broker| broker.epoch.0),
        })
        .collect();
    let asked = proto::PartitionAlteration {
        topic_id: bytes::Bytes::copy_from_slice(topic.id.0.as_bytes()),
        partition: i32::try_from(partition).unwrap(),
        leader_epoch: old.leader_epoch.0,
        partition_epoch: old.partition_epoch.0,
        isr,
        recovering: false,
    };
    Some(Command::AlterPartitions(proto::AlterPartitions {
        broker_id: leader.id.0,
        broker_epoch: leader.epoch.0,
        partitions: vec![asked],
    }))
}

fn config_change(topic: Option<u8>, name: u8, value: u8) -> Command {
    let (name, value) = match name {
        0 => ("min.insync.replicas", (value + 1).to_string()),
        1 => ("unclean.leader.election.enable", (value == 1).to_string()),
        _ if topic.is_some() => ("retention.ms", value.to_string()),
        _ => ("log.retention.ms", value.to_string()),
    };
    let change =
        proto::ConfigChange { name: name.to_owned(), operation: i32::from(value == "0"), value: Some(value) };
    let (kind, resource_name) = match topic {
        Some(topic) => (ResourceType::Topic, topic_name(topic)),
        None => (ResourceType::Broker, String::new()),
    };
    let resource =
        proto::ConfigAlteration { resource_type: kind.into(), resource_name, changes: vec![change] };
    Command::AlterConfigs(proto::AlterConfigs { resources: vec![resource], ..Default::default() })
}

fn command(image: &MetadataImage, step: &Step) -> Option<Command> {
    Some(match *step {
        Step::Create { topic, partitions, factor, min_isr } => {
            let min_isr = proto::ConfigValue {
                name: "min.insync.replicas".to_owned(),
                value: Some(min_isr.to_string()),
            };
            let new = proto::NewTopic {
                name: topic_name(topic),
                partitions,
                replication_factor: factor,
                configs: vec![min_isr],
                ..Default::default()
            };
            Command::CreateTopics(proto::CreateTopics { validate_only: false, topics: vec![new] })
        }
        Step::Grow { topic, by } => {
            let now = image.topic_by_name(&topic_name(topic))?.partitions.len();
            let count = i32::try_from(now).unwrap() + by;
            let more = proto::NewPartitions { name: topic_name(topic), count, ..Default::default() };
            Command::CreatePartitions(proto::CreatePartitions { validate_only: false, topics: vec![more] })
        }
        Step::Delete(topic) => {
            let name = proto::TopicName { name: topic_name(topic), ..Default::default() };
            Command::DeleteTopics(proto::DeleteTopics { topics: vec![name] })
        }
        Step::Config { topic, name, value } => config_change(topic, name, value),
        Step::Isr { topic, partition, members } => proposal(image, topic, partition, members)?,
        Step::ProducerIds(id) => {
            let broker_epoch = image.broker(BrokerId(id))?.epoch.0;
            Command::AllocateProducerIds(proto::AllocateProducerIds { broker_id: id, broker_epoch })
        }
        Step::Elect { unclean } => {
            Command::ElectLeaders(proto::ElectLeaders { unclean, partitions: Vec::new() })
        }
        Step::Reassign { topic, partition, ref target, cancel } => {
            let one = proto::Reassignment {
                topic: topic_name(topic),
                partition,
                // A third of them end what is under way.
                cancel: cancel && target.len() == 1,
                replicas: target.clone(),
            };
            Command::AlterReassignments(proto::AlterReassignments {
                allow_replication_factor_change: true,
                partitions: vec![one],
            })
        }
        Step::Unregister(broker_id) => Command::UnregisterBroker(proto::UnregisterBroker { broker_id }),
        _ => return None,
    })
}

fn decided(image: &MetadataImage, step: &Step, seed: u64) -> Vec<MetadataRecord> {
    let properties = BTreeMap::new();
    let situation = Situation { image, properties: &properties, seed };
    let epoch = |id: i32| image.broker(BrokerId(id)).map(|broker| (broker.id, broker.epoch));
    match *step {
        Step::Register { id, clean } => {
            match register(situation, &registration(image, id, clean, seed), false) {
                Ok(RegistrationDecision::Register(records)) => records,
                other => panic!("{other:?}"),
            }
        }
        Step::Fence(id) => epoch(id).map_or_else(Vec::new, |(id, epoch)| fence(situation, id, epoch)),
        Step::Unfence(id) => epoch(id).map_or_else(Vec::new, |(id, epoch)| unfence(situation, id, epoch)),
        Step::Stop(id) => {
            epoch(id).map_or_else(Vec::new, |(id, epoch)| set_controlled_shutdown(situation, id, epoch))
        }
        Step::Rebalance => rebalance_preferred(situation),
        Step::FailDirectory(id) => epoch(id).map_or_else(Vec::new, |(id, epoch)| {
            let directories =
                image.broker(id).map(|broker| broker.log_directories.clone()).unwrap_or_default();
            fail_directories(situation, id, epoch, &directories[..directories.len().min(1)])
        }),
        _ => command(image, step)
            .and_then(|command| decide(situation, &command).ok())
            .map_or_else(Vec::new, |decision| decision.records),
    }
}

/// I20 for the state; I18, I19 and I21 for the way to it.
fn check(old: &MetadataImage, new: &MetadataImage, may_be_unclean: bool) {
    for broker in new.brokers() {
        if let Some(before) = old.broker(broker.id) {
            assert!(broker.epoch >= before.epoch);
            assert!(broker.epoch > before.epoch || broker.incarnation == before.incarnation);
        }
    }
    let properties = BTreeMap::new();
    for topic in new.topics() {
        let min_isr = config::min_insync_replicas(new, &properties, &topic.name);
        for (at, partition) in topic.partitions.iter().enumerate() {
            let context = format!("{} {at}: {partition:?}", topic.name);
            assert!(!partition.isr.is_empty(), "{context}");
            assert!(partition.isr.iter().all(|id| partition.replicas.contains(id)), "{context}");
            assert!(
                !partition.eligible_leader_replicas.iter().any(|id| partition.isr.contains(id)),
                "{context}"
            );
            let enough = usize::try_from(min_isr).unwrap().min(partition.replicas.len());
            assert!(
                partition.isr.len() < enough || partition.eligible_leader_replicas.is_empty(),
                "{min_isr} {context}"
            );
            let is_fenced = |id: &BrokerId| new.broker(*id).is_none_or(|broker| broker.fenced);
            assert!(partition.isr.len() == 1 || !partition.isr.iter().any(is_fenced), "{context}");
            if let Some(leader) = partition.leader {
                assert!(partition.isr.contains(&leader) && !is_fenced(&leader), "{context}");
            }
            let Some(before) = old.topic_by_id(topic.id).and_then(|topic| topic.partitions.get(at)) else {
                continue;
            };
            if before == partition {
                continue;
            }
            let context = format!("{before:?} to {context}");
            assert!(partition.partition_epoch > before.partition_epoch, "{context}");
            assert!(partition.leader_epoch >= before.leader_epoch, "{context}");
            if partition.leader != before.leader {
                assert!(partition.leader_epoch > before.leader_epoch, "{context}");
                let is_clean = partition.leader.is_none_or(|leader| {
                    before.isr.contains(&leader) || before.eligible_leader_replicas.contains(&leader)
                });
                // In one record the last of the target comes in sync, by the leader's word, and takes over.
                let completes = before.is_reassigning()
                    && !partition.is_reassigning()
                    && partition.leader.is_some_and(|leader| before.replicas.contains(&leader));
                let joined = partition.isr.len() > 1 || (completes && !partition.recovering);
                assert!(is_clean || joined || (may_be_unclean && partition.recovering), "{context}");
            }
        }
    }
}

type Log = Vec<(i64, Vec<MetadataRecord>)>;

fn play(steps: &[Step]) -> (MetadataImage, Log) {
    let (mut image, mut log): (_, Log) = (MetadataImage::default(), Vec::new());
    let mut append = |image: &MetadataImage, records: Vec<MetadataRecord>, may_be_unclean: bool| {
        if records.is_empty() {
            return image.clone();
        }
        // Not every index is an entry of ours.
        let index = image.index().0 + 1 + i64::try_from(records.len() % 3).unwrap();
        let (new, delta) = image.apply(LogIndex(index), &records).unwrap();
        check(image, &new, may_be_unclean);
        check_delta(image, &new, &delta);
        log.push((index, records));
        new
    };
    image = append(&image, default_features(), false);
    // Without brokers and topics most steps do nothing.
    let brokers = (1..5).flat_map(|id| [Step::Register { id, clean: true }, Step::Unfence(id)]);
    let topics = (0..2).map(|topic| Step::Create { topic, partitions: 2, factor: 3, min_isr: 3 });
    let beginning: Vec<Step> = brokers.chain(topics).collect();
    for (step, seed) in beginning.iter().chain(steps).zip(1u64..) {
        image = append(&image, decided(&image, step, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), true);
        let properties = BTreeMap::new();
        let leaderless = elect_leaderless(Situation { image: &image, properties: &properties, seed });
        image = append(&image, leaderless, true);
    }
    (image, log)
}

fn check_delta(old: &MetadataImage, new: &MetadataImage, delta: &MetadataDelta) {
    for topic in new.topics().chain(old.topics()) {
        if old.topic_by_id(topic.id) != new.topic_by_id(topic.id) {
            assert!(delta.topics.contains(&topic.id), "{}", topic.name);
        }
    }
    for broker in new.brokers().chain(old.brokers()) {
        if old.broker(broker.id) != new.broker(broker.id) {
            assert!(delta.brokers.contains(&broker.id), "{}", broker.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold_and_a_snapshot_with_its_tail_is_the_replay(
        steps in proptest::collection::vec(step(), 1..90),
        at in any::<prop::sample::Index>(),
    ) {
        let (image, log) = play(&steps);
        let cut = at.index(log.len() + 1);
        let mut replayed = MetadataImage::default();
        for (index, records) in &log[..cut] {
            replayed = replayed.apply(LogIndex(*index), records).unwrap().0;
        }
        let (records, brokers) = replayed.to_records();
        let mut restored = MetadataImage::from_records(replayed.index(), &records, &brokers).unwrap();
        prop_assert_eq!(&restored, &replayed);
        for (index, records) in &log[cut..] {
            replayed = replayed.apply(LogIndex(*index), records).unwrap().0;
            restored = restored.apply(LogIndex(*index), records).unwrap().0;
        }
        prop_assert_eq!(&replayed, &image);
        prop_assert_eq!(&restored, &image);
    }

    #[test]
    fn records_of_any_bytes_are_refused_or_applied_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(batch) = <records::MetadataBatch as prost::Message>::decode(bytes.as_slice()) {
            let _ = MetadataImage::default().apply(LogIndex(1), &batch.records);
        }
    }
}
