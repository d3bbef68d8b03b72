//! One shard on a log of its own: what its clients and its machine are told of appends that are late or fail.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_coordinator::group::{OffsetCommit, OffsetToCommit, TopicResult, Transaction};
use ottla_metadata::image::LogIndex;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{ConfigRecord, MetadataRecord, ResourceType};

use super::*;
use crate::replica::test_images::{TOPIC, image};
use crate::replica::{Clock, EndMarker, Grant, ReplicaOptions, Standing};

/// A wait for something that happens at once, unless the machine is busy.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    replicas: Arc<ReplicaManager>,
    shard: Arc<Shard>,
    grant: Arc<Grant>,
    _dir: tempfile::TempDir,
}

impl Node {
    /// Broker 1 leads in epoch 5, with broker 2, which never fetches, in the ISR.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let grant = Arc::new(Grant::new());
        grant.renew_lease(u64::MAX);
        // A follower that is not in the ISR any more holds nothing up.
        let options = ReplicaOptions {
            replica_lag_time_ms_max: 1,
            ..ReplicaOptions::new(1, vec![dir.path().to_owned()])
        };
        let replicas = ReplicaManager::open(options, Arc::new(BTreeMap::new()), Arc::clone(&grant)).unwrap();
        replicas.apply_image(&image(1, 1, 1, (5, 0), &[1, 2]), None);
        let options = GroupOptions { commit_timeout_ms: 50, ..GroupOptions::default() };
        let partition = replicas.by_name(TOPIC, 0).unwrap();
        let shard = Shard::new(partition, 5, &options, view());
        tokio::spawn(Arc::clone(&shard).run(CancellationToken::new()));
        let node = Self { replicas, shard, grant, _dir: dir };
        node.eventually(|machine| machine.fetch_offsets(&"g".into(), None, false).is_ok()).await;
        node
    }

    /// The same broker in the leadership of the image.
    fn lead_again(self, image: &Arc<MetadataImage>, leader_epoch: i32) -> Self {
        self.shard.resign();
        self.replicas.apply_image(image, None);
        let partition = self.replicas.by_name(TOPIC, 0).unwrap();
        let shard = Shard::new(partition, leader_epoch, &GroupOptions::default(), view());
        tokio::spawn(Arc::clone(&shard).run(CancellationToken::new()));
        Self { shard, ..self }
    }

    async fn eventually(&self, check: impl Fn(&GroupCoordinator) -> bool) {
        let holds = async {
            while !self.shard.query(|machine| Ok(check(machine))).unwrap_or(false) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, holds).await.unwrap();
    }

    async fn commit(&self, offset: i64) -> ErrorCode {
        self.commit_in(offset, None).await
    }

    async fn commit_in(&self, offset: i64, transaction: Option<Transaction>) -> ErrorCode {
        let one =
            OffsetToCommit { partition: 0, offset, leader_epoch: -1, metadata: None, error: ErrorCode::None };
        let command = OffsetCommit {
            group_id: "g".into(),
            generation_id: -1,
            member_id: Text::default(),
            group_instance_id: None,
            retention_ms: None,
            takes_member_epoch: false,
            transaction,
            topics: vec![(TOPIC.into(), vec![one])],
        };
        let Ok(reply) = self.shard.submit(Command::OffsetCommit(command)) else { panic!("refused at once") };
        let Ok(Ok(Reply::OffsetCommit(results))) = tokio::time::timeout(PATIENCE, reply).await else {
            panic!("no answer")
        };
        let [TopicResult { partitions, .. }] = &results[..] else { panic!("{results:?}") };
        partitions[0].1
    }
}

fn view() -> ClusterView {
    let mut view = ClusterView::default();
    view.follow(&image(1, 1, 1, (5, 0), &[1, 2]), None);
    view
}

fn committed(machine: &GroupCoordinator) -> Option<i64> {
    let topics = machine.fetch_offsets(&"g".into(), None, false).ok()?;
    Some(topics.first()?.partitions.first()?.offset)
}

#[tokio::test]
async fn a_commit_that_is_late_counts_when_it_is_committed_after_all() {
    let node = Node::start().await;
    assert_eq!(node.commit(7).await, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(node.commit(8).await, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(node.shard.query(|machine| Ok(committed(machine))), Ok(None));
    node.replicas.apply_image(&image(1, 1, 1, (5, 1), &[1]), None);
    node.eventually(|machine| committed(machine) == Some(8)).await;
    assert_eq!(node.commit(9).await, ErrorCode::None);
    assert_eq!(node.shard.query(|machine| Ok(committed(machine))), Ok(Some(9)));
}

#[tokio::test]
async fn offsets_of_a_topic_that_is_gone_are_forgotten_even_if_nobody_heard_of_it() {
    let node = Node::start().await;
    node.replicas.apply_image(&image(1, 1, 1, (5, 1), &[1]), None);
    assert_eq!(node.commit(7).await, ErrorCode::None);
    let nothing = ClusterView::default();
    node.shard.set_view(&nothing, true);
    node.eventually(|machine| committed(machine).is_none()).await;
    node.shard.resign();
    let partition = node.replicas.by_name(TOPIC, 0).unwrap();
    let options = GroupOptions::default();
    let next = Shard::new(partition, 5, &options, nothing);
    tokio::spawn(Arc::clone(&next).run(CancellationToken::new()));
    let node = Node { shard: next, ..node };
    node.eventually(|machine| machine.list(&ottla_coordinator::group::GroupFilter::default()).is_ok()).await;
    assert_eq!(node.shard.query(|machine| Ok(committed(machine))), Ok(None));
}

/// What the log has beyond the high watermark may be lost when another leads next: nobody is to be told of it before.
#[tokio::test]
async fn what_was_loaded_is_not_told_before_it_is_committed() {
    let node = Node::start().await;
    assert_eq!(node.commit(7).await, ErrorCode::CoordinatorNotAvailable);
    let node = node.lead_again(&image(1, 1, 1, (6, 1), &[1, 2]), 6);
    let log = node.replicas.by_name(TOPIC, 0).unwrap().view();
    assert_eq!((log.log_end_offset, log.high_watermark), (1, 0));
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let told = node.shard.query(|machine| Ok(committed(machine)));
        assert_eq!(told, Err(ErrorCode::CoordinatorLoadInProgress));
    }
    let refused = node.shard.submit(Command::DeleteGroup { group_id: "g".into() }).err().unwrap();
    assert_eq!(*refused, Reply::DeleteGroup(ErrorCode::CoordinatorLoadInProgress));
    node.replicas.apply_image(&image(1, 1, 1, (6, 2), &[1]), None);
    node.eventually(|machine| committed(machine) == Some(7)).await;
}

/// The coordinator of the transaction may be gone while its marker is on its way, and the next one is told that the marker
/// is there.
#[tokio::test]
async fn a_marker_that_nobody_waits_for_any_more_counts_once_it_is_committed() {
    let node = Node::start().await;
    node.replicas.apply_image(&image(1, 1, 1, (5, 1), &[1]), None);
    let partition = node.replicas.by_name(TOPIC, 0).unwrap();
    let Ok(Standing::Ask(guard)) = partition.transaction_standing(9, 0, None, Clock::wall_ms()) else {
        panic!("an open transaction")
    };
    assert!(partition.confirm(9, 0, guard));
    let transaction = Some(Transaction { producer_id: 9, producer_epoch: 0 });
    assert_eq!(node.commit_in(7, transaction).await, ErrorCode::None);
    node.replicas.apply_image(&image(1, 1, 1, (5, 2), &[1, 2]), None);
    let marker = EndMarker {
        producer_id: 9,
        producer_epoch: 1,
        commit: true,
        coordinator_epoch: 0,
        raises_epoch: true,
    };
    let appended = partition.append_marker(marker, Clock::wall_ms()).unwrap();
    node.shard.marker_appended(WrittenMarker { appended, producer_id: 9, commit: true });
    assert_eq!(node.commit(8).await, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(node.shard.query(|machine| Ok(committed(machine))), Ok(None));
    node.replicas.apply_image(&image(1, 1, 1, (5, 3), &[1]), None);
    node.eventually(|machine| committed(machine) == Some(8)).await;
    let pending = |machine: &GroupCoordinator| machine.durable().group("g").unwrap().pending.len();
    assert_eq!(node.shard.query(|machine| Ok(pending(machine))), Ok(0));
    assert_eq!(
        partition.append_marker(marker, Clock::wall_ms()).unwrap_err().code,
        ErrorCode::InvalidProducerEpoch
    );
}

/// Controllers may be out of reach for a while and nobody else be elected: what is in the log is committed after all.
#[tokio::test]
async fn an_append_outlives_a_lease_that_is_over_for_a_while() {
    let node = Node::start().await;
    assert_eq!(node.commit(7).await, ErrorCode::CoordinatorNotAvailable);
    node.grant.lose_lease();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(node.commit(8).await, ErrorCode::NotCoordinator);
    node.grant.renew_lease(u64::MAX);
    node.replicas.apply_image(&image(1, 1, 1, (5, 1), &[1]), None);
    node.eventually(|machine| committed(machine) == Some(7)).await;
}

/// A record that every in-sync replica has is committed, also where these are too few for another one.
#[tokio::test]
async fn too_small_an_isr_does_not_keep_a_group_from_being_read() {
    let node = Node::start().await;
    node.replicas.apply_image(&image(1, 1, 1, (5, 1), &[1]), None);
    assert_eq!(node.commit(7).await, ErrorCode::None);
    let min_isr = Record::Config(ConfigRecord {
        resource_type: ResourceType::Topic.into(),
        resource_name: TOPIC.to_owned(),
        name: "min.insync.replicas".to_owned(),
        value: Some("2".to_owned()),
    });
    let (demanding, _) = image(1, 1, 1, (6, 2), &[1])
        .apply(LogIndex(90), &[MetadataRecord { record: Some(min_isr) }])
        .unwrap();
    let node = node.lead_again(&Arc::new(demanding), 6);
    node.eventually(|machine| committed(machine) == Some(7)).await;
}
