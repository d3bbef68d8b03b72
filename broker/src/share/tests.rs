//! One partition of the topic of share states on a log of its own: who is told what while records are not committed.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_coordinator::share_state::StateBatch;

use super::*;
use crate::replica::test_images::{TOPIC, image};
use crate::replica::{Grant, Partition, ReplicaOptions};

/// A wait for something that happens at once, unless the machine is busy.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    replicas: Arc<ReplicaManager>,
    shard: Arc<StateShard>,
    _dir: tempfile::TempDir,
}

fn key() -> ShareKey {
    ShareKey { group_id: "g".into(), topic_id: uuid::Uuid::from_u128(7), partition: 0 }
}

fn initialize(start_offset: i64) -> Command {
    Command::Initialize { state_epoch: 1, start_offset }
}

impl Node {
    /// Broker 1 leads in epoch 5, with broker 2, which never fetches, in the ISR.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let grant = Arc::new(Grant::new());
        grant.renew_lease(u64::MAX);
        let options = ReplicaOptions {
            replica_lag_time_ms_max: 1,
            ..ReplicaOptions::new(1, vec![dir.path().to_owned()])
        };
        let replicas = ReplicaManager::open(options, Arc::new(BTreeMap::new()), grant).unwrap();
        replicas.apply_image(&image(1, 1, 1, (5, 0), &[1, 2]), None);
        let shard = Self::shard(&replicas, 5);
        Self { replicas, shard, _dir: dir }
    }

    fn shard(replicas: &Arc<ReplicaManager>, leader_epoch: i32) -> Arc<StateShard> {
        let options = ShareOptions { write_timeout_ms: 50, prune_interval_ms: 10, ..ShareOptions::default() };
        let shard = StateShard::new(replicas.by_name(TOPIC, 0).unwrap(), leader_epoch, &options);
        let replicas = Arc::clone(replicas);
        tokio::spawn(Arc::clone(&shard).run(replicas, CancellationToken::new()));
        shard
    }

    fn partition(&self) -> Arc<Partition> {
        self.replicas.by_name(TOPIC, 0).unwrap()
    }

    async fn told(&self) -> Result<i64, ErrorCode> {
        self.shard.summary(&key()).await.map(|told| told.start_offset).map_err(|refused| refused.error)
    }

    async fn submit(&self, command: &Command) -> Result<(), ErrorCode> {
        self.shard.submit(&key(), true, command).await.map(drop).map_err(|refused| refused.error)
    }

    /// Until it answers anything else.
    async fn loaded(&self) {
        let loads = async {
            while self.told().await == Err(ErrorCode::CoordinatorLoadInProgress) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, loads).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_is_told_what_is_not_committed() {
    let node = Node::start();
    node.loaded().await;
    assert_eq!(node.submit(&initialize(42)).await, Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(node.told().await, Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(
        node.submit(&Command::Read { leader_epoch: -1 }).await,
        Err(ErrorCode::CoordinatorNotAvailable)
    );
    node.shard.resign();
    node.replicas.apply_image(&image(1, 1, 1, (6, 1), &[1, 2]), None);
    let node = Node { shard: Node::shard(&node.replicas, 6), ..node };
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(node.told().await, Err(ErrorCode::CoordinatorLoadInProgress));
    }
    node.replicas.apply_image(&image(1, 1, 1, (6, 2), &[1]), None);
    node.loaded().await;
    assert_eq!(node.told().await, Ok(42));
}

/// A follower that comes to lead without the new snapshot needs the old one, and what followed it.
#[tokio::test]
async fn what_a_snapshot_replaces_goes_only_when_the_snapshot_is_committed() {
    let node = Node::start();
    node.loaded().await;
    node.replicas.apply_image(&image(1, 1, 1, (5, 1), &[1]), None);
    assert_eq!(node.submit(&initialize(1)).await, Ok(()));
    let write = Command::Write {
        state_epoch: 1,
        leader_epoch: 1,
        start_offset: 3,
        delivery_complete_count: 0,
        batches: vec![StateBatch { first_offset: 3, last_offset: 4, delivery_state: 0, delivery_count: 1 }],
    };
    assert_eq!(node.submit(&write).await, Ok(()));
    node.replicas.apply_image(&image(1, 1, 1, (5, 2), &[1, 2]), None);
    assert_eq!(node.submit(&initialize(9)).await, Err(ErrorCode::CoordinatorNotAvailable));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let view = node.partition().view();
    assert_eq!((view.log_start_offset, view.high_watermark, view.log_end_offset), (0, 2, 3));
    node.replicas.apply_image(&image(1, 1, 1, (5, 3), &[1]), None);
    let shortened = async {
        while node.partition().view().log_start_offset != 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shortened).await.unwrap();
    assert_eq!(node.told().await, Ok(9));
}
