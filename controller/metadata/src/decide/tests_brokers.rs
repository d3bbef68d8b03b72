//! Registrations, in-sync replicas, elections and producer ids: what is answered, every refusal, and what the records make
//! of the image.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_proto::controller as proto;
use ottla_proto::controller::command::Command;
use ottla_proto::controller::command_reply::Reply;
use ottla_proto::metadata as records;
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;

use super::tests::{
    SET, after, alter, alter_partition, alteration, assigned, code, created, decide_with, fenced, ids,
    partition, run, three, unfenced,
};
use super::*;
use crate::image::{BrokerEpoch, BrokerId, MetadataImage, TopicId};

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
