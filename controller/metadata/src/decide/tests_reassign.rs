//! Reassignments, directories and what else changes where replicas are.

use ottla_proto::controller as proto;
use ottla_proto::controller::command::Command;
use ottla_proto::controller::command_reply::Reply;
use ottla_proto::metadata as records;
use ottla_wire::error_code::ErrorCode;
use uuid::Uuid;

use super::testing::{cluster, next};
use super::tests::{after, alter, assigned, code, created, fenced, id_of, ids, partition, run, unfenced};
use super::*;
use crate::image::{BrokerEpoch, BrokerId, PartitionImage};

fn four() -> MetadataImage {
    cluster(&[(1, "a"), (2, "b"), (3, "c"), (4, "d")])
}

fn reassign_within(
    image: &MetadataImage,
    target: Option<&[i32]>,
    allow_replication_factor_change: bool,
) -> (ErrorCode, MetadataImage) {
    let one = proto::Reassignment {
        topic: "t".to_owned(),
        partition: 0,
        cancel: target.is_none(),
        replicas: target.unwrap_or_default().to_vec(),
    };
    let command = proto::AlterReassignments { allow_replication_factor_change, partitions: vec![one] };
    match run(image, Command::AlterReassignments(command)) {
        (Reply::AlterReassignments(reply), image) => (code(reply.partitions[0].error_code), image),
        other => panic!("{other:?}"),
    }
}

fn reassign(image: &MetadataImage, target: &[i32]) -> MetadataImage {
    let (answer, image) = reassign_within(image, Some(target), true);
    assert_eq!(answer, ErrorCode::None);
    image
}

/// The leader of partition 0 of `t` proposes an ISR.
fn in_sync(image: &MetadataImage, isr: &[i32]) -> (ErrorCode, MetadataImage) {
    let old = partition(image, "t", 0);
    let leader = image.broker(old.leader.unwrap()).unwrap();
    let asked = proto::PartitionAlteration {
        topic_id: id_of(image, "t"),
        partition: 0,
        leader_epoch: old.leader_epoch.0,
        partition_epoch: old.partition_epoch.0,
        isr: isr.iter().map(|id| proto::IsrMember { broker_id: *id, broker_epoch: -1 }).collect(),
        recovering: false,
    };
    let command = proto::AlterPartitions {
        broker_id: leader.id.0,
        broker_epoch: leader.epoch.0,
        partitions: vec![asked],
    };
    match run(image, Command::AlterPartitions(command)) {
        (Reply::AlterPartitions(reply), image) => (code(reply.partitions[0].error_code), image),
        other => panic!("{other:?}"),
    }
}

fn shape(partition: &PartitionImage) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
    let numbers = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    (numbers(&partition.replicas), numbers(&partition.adding_replicas), numbers(&partition.removing_replicas))
}

#[test]
fn a_reassignment_is_complete_when_the_whole_target_is_in_sync() {
    let image = reassign(&created(&four(), assigned("t", &[(0, &[1, 2])])), &[3, 1]);
    assert_eq!(shape(partition(&image, "t", 0)), (vec![3, 1, 2], vec![3], vec![2]));
    assert_eq!(image.reassignments().count(), 1);
    let before = partition(&image, "t", 0).leader_epoch;
    let (answer, image) = in_sync(&image, &[1, 2, 3]);
    assert_eq!(answer, ErrorCode::None);
    let done = partition(&image, "t", 0);
    assert_eq!(shape(done), (vec![3, 1], vec![], vec![]));
    assert_eq!((done.isr.clone(), done.leader), (ids(&[1, 3]), Some(BrokerId(1))));
    // The removed replica must not be heard under the old epoch.
    assert!(done.leader_epoch > before);
    assert_eq!(image.reassignments().count(), 0);
}

#[test]
fn a_leader_that_is_taken_away_hands_over_and_is_told() {
    let image = reassign(&created(&four(), assigned("t", &[(0, &[1])])), &[2]);
    let (answer, image) = in_sync(&image, &[1, 2]);
    assert_eq!(answer, ErrorCode::NewLeaderElected);
    let done = partition(&image, "t", 0);
    assert_eq!((shape(done).0, done.isr.clone(), done.leader), (vec![2], ids(&[2]), Some(BrokerId(2))));
}

#[test]
fn a_new_order_or_fewer_replicas_are_done_at_once() {
    let image = created(&four(), assigned("t", &[(0, &[1, 2, 3])]));
    let reordered = reassign(&image, &[3, 2, 1]);
    assert_eq!(shape(partition(&reordered, "t", 0)), (vec![3, 2, 1], vec![], vec![]));
    assert_eq!(partition(&reordered, "t", 0).leader, Some(BrokerId(1)));
    let fewer = reassign(&image, &[2]);
    let partition = partition(&fewer, "t", 0);
    assert_eq!((shape(partition).0, partition.leader), (vec![2], Some(BrokerId(2))));
    assert!(partition.eligible_leader_replicas.is_empty());
}

#[test]
fn fewer_replicas_wait_for_those_that_stay_to_be_in_sync() {
    let image = fenced(&created(&four(), assigned("t", &[(0, &[1, 2, 3])])), 2);
    let image = reassign(&image, &[2, 3]);
    assert_eq!(shape(partition(&image, "t", 0)), (vec![2, 3, 1], vec![], vec![1]));
    let (_, image) = in_sync(&unfenced(&image, 2), &[1, 2, 3]);
    assert_eq!(shape(partition(&image, "t", 0)), (vec![2, 3], vec![], vec![]));
}

#[test]
fn a_running_reassignment_is_cancelled_or_replaced() {
    let image = created(&four(), assigned("t", &[(0, &[1, 2])]));
    assert_eq!(reassign_within(&image, None, true).0, ErrorCode::NoReassignmentInProgress);
    let running = reassign(&image, &[3, 1]);
    let (answer, back) = reassign_within(&running, None, true);
    assert_eq!((answer, shape(partition(&back, "t", 0))), (ErrorCode::None, (vec![1, 2], vec![], vec![])));
    let first = reassign(&image, &[3, 2]);
    let second = reassign(&first, &[1, 3]);
    assert_eq!(shape(partition(&second, "t", 0)), (vec![1, 3, 2], vec![3], vec![2]));
    // What was added and is not wanted any more goes at once, if it is not in sync.
    let third = reassign(&second, &[1, 4]);
    assert_eq!(shape(partition(&third, "t", 0)), (vec![1, 4, 2], vec![4], vec![2]));
}

#[test]
fn targets_that_cannot_be_are_refused() {
    let image = created(&four(), assigned("t", &[(0, &[1, 2])]));
    for bad in [&[][..], &[9], &[1, 1], &[-1]] {
        let (answer, same) = reassign_within(&image, Some(bad), true);
        assert_eq!((answer, &same), (ErrorCode::InvalidReplicaAssignment, &image), "{bad:?}");
    }
    for (topic, index) in [("t", 1), ("t", -1), ("no-such", 0)] {
        let one = proto::Reassignment {
            topic: topic.to_owned(),
            partition: index,
            cancel: false,
            replicas: vec![1],
        };
        let command =
            proto::AlterReassignments { allow_replication_factor_change: true, partitions: vec![one] };
        let (Reply::AlterReassignments(reply), _) = run(&image, Command::AlterReassignments(command)) else {
            panic!()
        };
        assert_eq!(code(reply.partitions[0].error_code), ErrorCode::UnknownTopicOrPartition);
    }
}

#[test]
fn the_replication_factor_may_be_held() {
    let image = created(&four(), assigned("t", &[(0, &[1, 2])]));
    let (answer, _) = reassign_within(&image, Some(&[1, 2, 3]), false);
    assert_eq!(answer, ErrorCode::InvalidReplicationFactor);
    let (answer, running) = reassign_within(&image, Some(&[1, 3]), false);
    assert_eq!(answer, ErrorCode::None);
    // Three replicas for a while, but two are what it will have.
    assert_eq!(reassign_within(&running, Some(&[3, 4]), false).0, ErrorCode::None);
}

#[test]
fn going_back_to_replicas_that_are_not_in_sync_needs_unclean_elections() {
    let image = reassign(&created(&four(), assigned("t", &[(0, &[1])])), &[2, 3]);
    let (_, image) = in_sync(&image, &[1, 2]);
    let image = fenced(&image, 1);
    assert_eq!(partition(&image, "t", 0).isr, ids(&[2]));
    assert_eq!(reassign_within(&image, None, true).0, ErrorCode::InvalidReplicaAssignment);
    let set = [(0, "unclean.leader.election.enable", Some("true"))];
    let (_, image) = alter(&image, records::ResourceType::Topic, "t", false, &set);
    let (answer, image) = reassign_within(&image, None, true);
    let back = partition(&image, "t", 0);
    assert_eq!((answer, shape(back).0, back.leader), (ErrorCode::None, vec![1], None));
    assert_eq!((back.isr.clone(), back.recovering), (ids(&[1]), true));
}

fn directory(at: u128) -> Uuid {
    Uuid::from_u128(100 + at)
}

fn bytes_of(id: Uuid) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(id.as_bytes())
}

/// The image in which a broker has these directories.
fn with_directories(image: &MetadataImage, id: i32, directories: &[Uuid]) -> MetadataImage {
    let broker_epoch = image.broker(BrokerId(id)).unwrap().epoch.0;
    let list = records::DirectoryList { directories: directories.iter().copied().map(bytes_of).collect() };
    let change = records::BrokerChangeRecord {
        broker_id: id,
        broker_epoch,
        log_directories: Some(list),
        ..Default::default()
    };
    next(image, &[record(Record::BrokerChange(change))])
}

fn assign(image: &MetadataImage, id: i32, asked: &[(i32, Uuid)]) -> (Vec<ErrorCode>, MetadataImage) {
    let assignments = asked
        .iter()
        .map(|(partition, directory)| proto::DirectoryAssignment {
            directory: bytes_of(*directory),
            topic_id: id_of(image, "t"),
            partition: *partition,
        })
        .collect();
    let broker_epoch = image.broker(BrokerId(id)).unwrap().epoch.0;
    let command = proto::AssignReplicasToDirectories { broker_id: id, broker_epoch, assignments };
    match run(image, Command::AssignReplicasToDirectories(command)) {
        (Reply::AssignReplicasToDirectories(reply), image) => {
            (reply.assignments.iter().map(|one| code(one.error_code)).collect(), image)
        }
        other => panic!("{other:?}"),
    }
}

fn fail(image: &MetadataImage, id: i32, failed: &[Uuid]) -> MetadataImage {
    let properties = BTreeMap::new();
    let epoch = image.broker(BrokerId(id)).unwrap().epoch;
    let situation = Situation { image, properties: &properties, seed: 1 };
    after(image, &fail_directories(situation, BrokerId(id), epoch, failed))
}

#[test]
fn a_failed_directory_takes_only_its_own_replicas_away() {
    let (one, two) = (directory(1), directory(2));
    let image = with_directories(&four(), 1, &[one, two]);
    let image = created(&image, assigned("t", &[(0, &[1, 2]), (1, &[1, 2])]));
    let (answers, image) = assign(&image, 1, &[(0, one), (1, two), (0, one)]);
    assert_eq!(answers, [ErrorCode::None; 3]);
    assert_eq!(partition(&image, "t", 0).directory(BrokerId(1)), one);
    assert_eq!(partition(&image, "t", 0).directory(BrokerId(2)), Uuid::nil());
    let image = fail(&image, 1, &[one]);
    let (gone, kept) = (partition(&image, "t", 0), partition(&image, "t", 1));
    assert_eq!((gone.leader, gone.isr.clone()), (Some(BrokerId(2)), ids(&[2])));
    assert_eq!((kept.leader, kept.isr.clone()), (Some(BrokerId(1)), ids(&[1, 2])));
    assert!(!image.is_replica_online(gone, BrokerId(1)));
    // Neither an ISR nor an election takes what lies there.
    assert_eq!(in_sync(&image, &[2, 1]).0, ErrorCode::IneligibleReplica);
    let stuck = fenced(&image, 2);
    assert_eq!(partition(&stuck, "t", 0).leader, None);
    assert_eq!(partition(&stuck, "t", 1).leader, Some(BrokerId(1)));
}

#[test]
fn the_only_directory_takes_everything_away_even_what_is_not_assigned() {
    let image = with_directories(&four(), 1, &[directory(1)]);
    let image = fail(&created(&image, assigned("t", &[(0, &[1, 2])])), 1, &[directory(1)]);
    assert_eq!(partition(&image, "t", 0).leader, Some(BrokerId(2)));
}

#[test]
fn directories_of_replicas_follow_a_reassignment() {
    let image = with_directories(&four(), 2, &[directory(1)]);
    let image = created(&image, assigned("t", &[(0, &[1, 2])]));
    let (_, image) = assign(&image, 2, &[(0, directory(1))]);
    let (_, image) = in_sync(&reassign(&image, &[3, 2]), &[1, 2, 3]);
    let done = partition(&image, "t", 0);
    assert_eq!(done.directories, [Uuid::nil(), directory(1)]);
}

#[test]
fn an_assignment_to_a_directory_that_cannot_be_is_refused() {
    let image = created(&four(), assigned("t", &[(0, &[1, 2])]));
    assert_eq!(assign(&image, 3, &[(0, directory(1))]).0, [ErrorCode::NotLeaderOrFollower]);
    assert_eq!(assign(&image, 1, &[(7, directory(1))]).0, [ErrorCode::UnknownTopicOrPartition]);
    let command = proto::AssignReplicasToDirectories { broker_id: 1, broker_epoch: 77, assignments: vec![] };
    let properties = BTreeMap::new();
    let situation = Situation { image: &image, properties: &properties, seed: 1 };
    let refused = decide(situation, &Command::AssignReplicasToDirectories(command)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::StaleBrokerEpoch);
    // Into one that does not work: the replica is offline at once.
    let image = with_directories(&image, 1, &[directory(1)]);
    let (answers, image) = assign(&image, 1, &[(0, directory(9))]);
    assert_eq!((answers, partition(&image, "t", 0).leader), (vec![ErrorCode::None], Some(BrokerId(2))));
}

#[test]
fn brokers_whose_directories_are_all_cordoned_get_no_replica() {
    let image = with_directories(&four(), 1, &[directory(1), directory(2)]);
    let properties = BTreeMap::new();
    let cordon = |image: &MetadataImage, directories: &[Uuid]| {
        let situation = Situation { image, properties: &properties, seed: 1 };
        after(image, &cordon_directories(situation, BrokerId(1), BrokerEpoch(1), directories))
    };
    let half = cordon(&image, &[directory(1)]);
    assert!(half.broker(BrokerId(1)).unwrap().takes_replicas());
    let image = cordon(&half, &[directory(1), directory(2)]);
    let topic = super::tests::topic("t", 6, 3);
    let image = created(&image, topic);
    let all = &image.topic_by_name("t").unwrap().partitions;
    assert!(all.iter().all(|partition| !partition.replicas.contains(&BrokerId(1))));
    assert_eq!(reassign_within(&image, Some(&[1, 2]), true).0, ErrorCode::InvalidReplicaAssignment);
}
