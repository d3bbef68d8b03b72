//! One broker's replicas: what producers and readers are told, what an image changes, what a fetch session does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_metadata::image::LogIndex;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{ConfigRecord, MetadataRecord, ResourceType};
use ottla_replica::fetch_session::{PartitionKey, PartitionRequest, TopicKey};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchBuilder, BatchOptions};

use super::read::FetchPartition;
use super::test_images::{TOPIC, image};
use super::*;

struct Node {
    manager: Arc<ReplicaManager>,
    sessions: FetchSessions,
    grant: Arc<Grant>,
    _dir: tempfile::TempDir,
}

/// Broker 1 with two partitions that it leads in epoch 5, alone in the ISR or with broker 2.
fn node(isr: &[i32]) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let grant = Arc::new(Grant::new());
    grant.renew_lease(u64::MAX);
    let options = ReplicaOptions::new(1, vec![dir.path().to_owned()]);
    let manager = ReplicaManager::open(options, Arc::new(BTreeMap::new()), Arc::clone(&grant)).unwrap();
    manager.apply_image(&image(1, 2, 1, (5, 0), isr), None);
    Node { manager, sessions: FetchSessions::new(10), grant, _dir: dir }
}

impl Node {
    fn partition(&self, index: i32) -> Arc<Partition> {
        self.manager.by_name(TOPIC, index).unwrap()
    }

    fn produce(&self, index: i32) -> AppendedRecords {
        self.partition(index).append_as_leader(batch(), 1, Clock::wall_ms()).unwrap()
    }

    async fn fetch(&self, session: (i32, i32), asked: &[(i32, i64)]) -> FetchAnswer {
        let request = FetchRequest {
            wait_ms_max: 0,
            bytes_min: 1,
            bytes_max: 1 << 20,
            isolation: Isolation::ReadUncommitted,
            replica: None,
            allow_follower: true,
            rack: String::new(),
            session_id: session.0,
            session_epoch: session.1,
            uses_topic_ids: false,
            permits: None,
            partitions: asked.iter().map(|&(index, offset)| (key(index), at(offset))).collect(),
            forgotten: Vec::new(),
        };
        self.sessions.fetch(&self.manager, request).await
    }
}

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.add(Clock::wall_ms(), None, Some(b"value"), &[]).unwrap();
    builder.finish().unwrap()
}

fn key(index: i32) -> PartitionKey {
    PartitionKey { topic: TopicKey::Name(Arc::from(TOPIC)), index }
}

fn at(fetch_offset: i64) -> PartitionRequest {
    PartitionRequest {
        fetch_offset,
        bytes_max: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        high_watermark: -1,
    }
}

fn read(offset: i64, current_leader_epoch: i32) -> FetchPartition {
    FetchPartition {
        offset,
        bytes_max: 1 << 20,
        current_leader_epoch,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        isolation: Isolation::ReadUncommitted,
        replica: None,
        is_eligible: false,
        allow_follower: false,
        preferred_read_replica: -1,
        at_least_one_batch: true,
    }
}

fn indexes(answer: &FetchAnswer) -> Vec<(i32, bool)> {
    answer.partitions.iter().map(|(key, result)| (key.index, result.slice.is_some())).collect()
}

#[test]
fn alone_in_the_isr_an_append_is_committed_and_read_at_once() {
    let node = node(&[1]);
    let appended = node.produce(0);
    assert_eq!((appended.base_offset, appended.last_offset, appended.leader_epoch), (0, 0, 5));
    assert_eq!(node.partition(0).await_ack(&appended, &Waiter::new(1)), AckState::Done);
    let result = node.partition(0).fetch(&read(0, 5));
    assert_eq!((result.error, result.high_watermark), (ErrorCode::None, 1));
    assert_eq!(result.slice.unwrap().length, batch().len());
}

/// KIP-951: a client that comes to a broker without a replica is told where to go, as one is that comes to a follower.
#[tokio::test]
async fn who_has_no_replica_names_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions::new(3, vec![dir.path().to_owned()]);
    let manager = ReplicaManager::open(options, Arc::new(BTreeMap::new()), Arc::new(Grant::new())).unwrap();
    manager.apply_image(&image(1, 2, 1, (5, 0), &[1, 2]), None);
    let node = Node { manager, sessions: FetchSessions::new(10), grant: Arc::new(Grant::new()), _dir: dir };
    let answer = node.fetch((0, -1), &[(1, 0), (7, 0)]).await;
    let told: Vec<_> =
        answer.partitions.iter().map(|(_, result)| (result.error, result.current_leader)).collect();
    assert_eq!(
        told,
        [(ErrorCode::NotLeaderOrFollower, Some((1, 5))), (ErrorCode::UnknownTopicOrPartition, None)]
    );
    let topic_id = uuid::Uuid::from_u128(7);
    assert_eq!(node.manager.leader_of(PartitionId { topic_id, index: 1 }), (1, 5));
    assert_eq!(node.manager.leader_of(PartitionId { topic_id, index: 2 }), (-1, -1));
}

/// What waits for its replicas when leadership moves is answered at once, and the next leader is known by then.
#[tokio::test]
async fn an_acknowledgement_under_way_when_leadership_moves_fails_with_the_next_leader_known() {
    let node = node(&[1, 2]);
    let appended = node.produce(0);
    let waiter = Waiter::new(1);
    assert_eq!(node.partition(0).await_ack(&appended, &waiter), AckState::Pending);
    node.manager.apply_image(&image(1, 2, 2, (6, 1), &[2]), None);
    assert!(waiter.is_complete());
    assert_eq!(node.partition(0).ack_result(&appended), AckState::Failed(ErrorCode::NotLeaderOrFollower));
    assert_eq!(node.manager.leader_of(node.partition(0).id()), (2, 6));
}

#[test]
fn without_a_lease_nothing_is_appended() {
    let node = node(&[1]);
    node.grant.lose_lease();
    let refusal = node.partition(0).append_as_leader(batch(), 1, Clock::wall_ms()).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NotLeaderOrFollower);
    assert!(node.grant.renew_lease(u64::MAX), "it had run out");
    assert!(!node.grant.renew_lease(u64::MAX), "it had not");
}

#[test]
fn a_follower_refuses_and_names_the_leader() {
    let node = node(&[1, 2]);
    node.manager.apply_image(&image(1, 2, 2, (6, 1), &[1, 2]), None);
    let refusal = node.partition(0).append_as_leader(batch(), 1, Clock::wall_ms()).unwrap_err();
    assert_eq!((refusal.code, refusal.current_leader), (ErrorCode::NotLeaderOrFollower, Some((2, 6))));
    let result = node.partition(0).fetch(&read(0, -1));
    assert_eq!((result.error, result.current_leader), (ErrorCode::NotLeaderOrFollower, Some((2, 6))));
    let nearby = FetchPartition { allow_follower: true, ..read(0, 6) };
    assert_eq!(
        node.partition(0).fetch(&nearby).error,
        ErrorCode::None,
        "a follower serves who may ask it (KIP-392)"
    );
}

#[tokio::test]
async fn a_waiting_ack_is_refused_when_leadership_goes() {
    let node = node(&[1, 2]);
    let partition = node.partition(0);
    let appended = partition.append_as_leader(batch(), -1, Clock::wall_ms()).unwrap();
    let waiter = Waiter::new(1);
    assert_eq!(partition.await_ack(&appended, &waiter), AckState::Pending);
    node.manager.apply_image(&image(1, 2, 2, (6, 1), &[1, 2]), None);
    assert!(waiter.wait_at_most(Duration::from_secs(5)).await);
    assert_eq!(partition.ack_result(&appended), AckState::Failed(ErrorCode::NotLeaderOrFollower));
    node.manager.apply_image(&image(1, 2, 1, (7, 2), &[1]), None);
    assert_eq!(
        partition.ack_result(&appended),
        AckState::Failed(ErrorCode::NotLeaderOrFollower),
        "leading again is another epoch: the record may have been cut in between"
    );
}

#[test]
fn a_coordinator_appends_only_in_its_own_epoch() {
    let node = node(&[1]);
    let append = |epoch| node.partition(0).append_as_coordinator(batch(), -1, epoch, Clock::wall_ms());
    assert_eq!(append(4).unwrap_err().code, ErrorCode::NotLeaderOrFollower);
    assert_eq!(append(5).unwrap().base_offset, 0);
}

#[test]
fn readers_of_another_epoch_are_fenced() {
    let node = node(&[1]);
    let errors = [4, 5, 6].map(|epoch| node.partition(0).fetch(&read(0, epoch)).error);
    assert_eq!(errors, [ErrorCode::FencedLeaderEpoch, ErrorCode::None, ErrorCode::UnknownLeaderEpoch]);
    let latest =
        |epoch| node.partition(0).list_offset(OffsetQuery::Latest, Some(Isolation::ReadUncommitted), epoch);
    assert_eq!(latest(6), Err(ErrorCode::UnknownLeaderEpoch));
}

#[test]
fn offsets_out_of_the_log_are_refused_and_uncommitted_ones_wait() {
    let node = node(&[1, 2]);
    node.produce(0);
    let result = node.partition(0).fetch(&read(1, -1));
    assert_eq!((result.error, result.high_watermark), (ErrorCode::None, 0), "written, not committed");
    assert!(
        node.partition(0).fetch(&read(0, -1)).slice.is_none(),
        "nothing above the watermark is seen (I41)"
    );
    let beyond = node.partition(0).fetch(&read(2, -1));
    assert_eq!(
        (beyond.error, beyond.high_watermark, beyond.log_start_offset),
        (ErrorCode::OffsetOutOfRange, -1, -1)
    );
}

#[test]
fn a_follower_that_parted_is_told_where() {
    let node = node(&[1, 2]);
    node.produce(0);
    let fetch = |offset, last_fetched_epoch| {
        let replica = Some(FetchingReplica { broker_id: 2, broker_epoch: 20 });
        node.partition(0).fetch(&FetchPartition { last_fetched_epoch, replica, ..read(offset, 5) })
    };
    assert_eq!(fetch(9, 5).diverging, Some((5, 1)), "longer than the leader in the same epoch");
    assert_eq!(fetch(1, 5).diverging, None);
    assert_eq!(fetch(1, 3).error, ErrorCode::OffsetOutOfRange, "no epoch in common: start over");
    let stranger = Some(FetchingReplica { broker_id: 9, broker_epoch: 20 });
    let result = node.partition(0).fetch(&FetchPartition { replica: stranger, ..read(0, 5) });
    assert_eq!(result.error, ErrorCode::UnknownLeaderEpoch);
}

#[test]
fn epochs_that_have_not_been_are_not_known() {
    let node = node(&[1]);
    node.produce(0);
    let ask = |epoch| node.partition(0).end_offset_for_leader_epoch(epoch, -1).unwrap();
    assert_eq!(ask(5).map(|end| (end.epoch, end.end_offset)), Some((5, 1)));
    assert_eq!((ask(6), ask(100), ask(-1)), (None, None, None));
    // Its records are gone: who has read up to where the next epoch begins reads on there.
    assert_eq!(ask(3).map(|end| (end.epoch, end.end_offset)), Some((3, 0)));
}

#[test]
fn records_of_a_compacted_topic_are_not_deleted() {
    let node = node(&[1]);
    node.produce(0);
    let policy = |value: &str| {
        let record = Record::Config(ConfigRecord {
            resource_type: ResourceType::Topic.into(),
            resource_name: TOPIC.to_owned(),
            name: "cleanup.policy".to_owned(),
            value: Some(value.to_owned()),
        });
        let records = [MetadataRecord { record: Some(record) }];
        let changed = image(1, 2, 1, (5, 0), &[1]).apply(LogIndex(100), &records).unwrap().0;
        node.manager.apply_image(&Arc::new(changed), None);
        node.partition(0).delete_records(-1, &Waiter::new(1))
    };
    assert_eq!(policy("compact"), Err(ErrorCode::PolicyViolation));
    assert!(policy("compact,delete").is_ok());
}

#[tokio::test]
async fn delete_records_waits_for_the_followers() {
    let node = node(&[1, 2]);
    let partition = node.partition(0);
    node.produce(0);
    let follower = |offset, log_start_offset| FetchPartition {
        replica: Some(FetchingReplica { broker_id: 2, broker_epoch: 20 }),
        is_eligible: true,
        log_start_offset,
        ..read(offset, 5)
    };
    partition.fetch(&follower(1, 0));
    let waiter = Waiter::new(1);
    assert_eq!(partition.delete_records(2, &waiter), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(partition.delete_records(-1, &waiter), Ok((0, 1)));
    assert!(!waiter.is_complete());
    assert_eq!(partition.deleted_up_to(1), Err(ErrorCode::RequestTimedOut));
    partition.fetch(&follower(1, 1));
    assert!(waiter.wait_at_most(Duration::from_secs(5)).await);
    assert_eq!(partition.deleted_up_to(1), Ok(1));
    assert_eq!(partition.fetch(&read(0, -1)).error, ErrorCode::OffsetOutOfRange);
    // Another leads by the time that the wait is over.
    node.manager.apply_image(&image(1, 2, 2, (6, 1), &[1, 2]), None);
    assert_eq!(partition.deleted_up_to(1), Err(ErrorCode::NotLeaderOrFollower));
}

#[tokio::test]
async fn a_session_goes_on_with_changes_only() {
    let node = node(&[1]);
    node.produce(1);
    let first = node.fetch((0, 0), &[(0, 0), (1, 0)]).await;
    let id = first.session_id;
    assert!(id > 0);
    assert_eq!(indexes(&first), [(0, false), (1, true)]);
    assert_eq!(indexes(&node.fetch((id, 1), &[]).await), [(1, true)], "not moved on, so it comes again");
    assert_eq!(indexes(&node.fetch((id, 2), &[(1, 1)]).await), []);
    node.produce(0);
    assert_eq!(indexes(&node.fetch((id, 3), &[]).await), [(0, true)]);
    assert_eq!(node.fetch((id, 3), &[]).await.error, ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(node.fetch((id ^ 1, 4), &[]).await.error, ErrorCode::FetchSessionIdNotFound);
    assert_eq!(node.fetch((id, 4), &[(0, 1)]).await.error, ErrorCode::None, "a refusal costs no epoch");
    let last = node.fetch((id, -1), &[(0, 1)]).await;
    assert_eq!((last.session_id, indexes(&last)), (0, vec![(0, false)]));
    assert_eq!(node.fetch((id, 5), &[]).await.error, ErrorCode::FetchSessionIdNotFound);
    assert_eq!(node.sessions.counts(), (0, 0, 0));
}

#[tokio::test]
async fn a_session_repeats_an_error_until_it_is_gone() {
    let node = node(&[1]);
    let error =
        |answer: &FetchAnswer| answer.partitions.iter().map(|(_, result)| result.error).collect::<Vec<_>>();
    let first = node.fetch((0, 0), &[(0, 1), (7, 0)]).await;
    assert_eq!(error(&first), [ErrorCode::OffsetOutOfRange, ErrorCode::UnknownTopicOrPartition]);
    let id = first.session_id;
    assert_eq!(error(&node.fetch((id, 1), &[]).await).len(), 2);
    node.produce(0);
    assert_eq!(
        error(&node.fetch((id, 2), &[]).await),
        [ErrorCode::None, ErrorCode::UnknownTopicOrPartition],
        "the offset exists now"
    );
    assert_eq!(error(&node.fetch((id, 3), &[]).await), [ErrorCode::UnknownTopicOrPartition]);
}

#[tokio::test]
async fn a_deleted_topic_is_gone_also_in_a_session() {
    let node = node(&[1]);
    let id = node.fetch((0, 0), &[(0, 0)]).await.session_id;
    node.manager.apply_image(&Arc::default(), None);
    let answer = node.fetch((id, 1), &[]).await;
    assert_eq!(answer.partitions[0].1.error, ErrorCode::UnknownTopicOrPartition);
    assert!(node.manager.partitions().is_empty());
}

#[tokio::test]
async fn an_answer_has_room_for_all_in_turn() {
    let node = node(&[1]);
    node.produce(0);
    node.produce(1);
    let id = node.fetch((0, 0), &[(0, 0), (1, 0)]).await.session_id;
    let small = |epoch| FetchRequest {
        wait_ms_max: 0,
        bytes_min: 1,
        bytes_max: 1,
        isolation: Isolation::ReadUncommitted,
        replica: None,
        allow_follower: true,
        rack: String::new(),
        session_id: id,
        session_epoch: epoch,
        uses_topic_ids: false,
        permits: None,
        partitions: Vec::new(),
        forgotten: Vec::new(),
    };
    let mut served = Vec::new();
    for epoch in 1..5 {
        served.extend(indexes(&node.sessions.fetch(&node.manager, small(epoch)).await));
    }
    assert_eq!(
        served,
        [(0, true), (1, true), (0, true), (1, true)],
        "one batch each, however small the limit"
    );
}

#[test]
fn settings_come_from_the_node_and_the_topic() {
    let properties = BTreeMap::from([
        ("min.insync.replicas".to_owned(), "2".to_owned()),
        ("log.flush.interval.messages".to_owned(), "1".to_owned()),
        ("log.message.timestamp.type".to_owned(), "LogAppendTime".to_owned()),
    ]);
    let rules = super::rules::Rules::of(&image(1, 1, 1, (0, 0), &[1]), &properties, 1, TOPIC);
    let options = rules.machine_options(&ReplicaOptions::new(1, Vec::new()));
    assert_eq!((options.min_insync_replicas, options.synced_only), (2, true));
    assert_eq!(rules.check(batch(), 3, 77).unwrap().log_append_time_ms, 77);
    let small = BTreeMap::from([("message.max.bytes".to_owned(), "10".to_owned())]);
    let rules = super::rules::Rules::of(&image(1, 1, 1, (0, 0), &[1]), &small, 1, TOPIC);
    assert_eq!(rules.check(batch(), 3, 77).unwrap_err().code, ErrorCode::MessageTooLarge);
}
