//! Moves of replicas between log directories, failed directories, and replication that is held back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchBuilder, BatchOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::read::FetchPartition;
use super::test_images::{TOPIC, image};
use super::*;

struct Node {
    manager: Arc<ReplicaManager>,
    paths: Vec<PathBuf>,
    dir: tempfile::TempDir,
}

fn open(dir: tempfile::TempDir) -> Node {
    let paths: Vec<PathBuf> = ["a", "b"].map(|name| dir.path().join(name)).into();
    for path in &paths {
        std::fs::create_dir_all(path).unwrap();
    }
    let grant = Arc::new(Grant::new());
    grant.renew_lease(u64::MAX);
    let options = ReplicaOptions::new(1, paths.clone());
    let manager = ReplicaManager::open(options, Arc::new(BTreeMap::new()), grant).unwrap();
    manager.apply_image(&image(1, 1, 1, (5, 0), &[1]), None);
    Node { manager, paths, dir }
}

impl Node {
    fn new() -> Self {
        open(tempfile::tempdir().unwrap())
    }

    fn partition(&self) -> Arc<Partition> {
        self.manager.by_name(TOPIC, 0).unwrap()
    }

    fn other(&self) -> &PathBuf {
        let own = self.partition().log_dir().path().to_owned();
        self.paths.iter().find(|path| **path != own).unwrap()
    }

    fn start(&self) -> (TaskTracker, CancellationToken) {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        moves::start(&self.manager, &tasks, &stop);
        (tasks, stop)
    }

    async fn moved_to(&self, path: &PathBuf) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.partition().log_dir().path() != path || self.partition().held().len() > 1 {
            assert!(Instant::now() < deadline, "{:?}", self.partition().held());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn batch(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.add(Clock::wall_ms(), None, Some(value), &[]).unwrap();
    builder.finish().unwrap()
}

fn read(offset: i64) -> FetchPartition {
    FetchPartition {
        offset,
        bytes_max: 64 << 20,
        current_leader_epoch: 5,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        isolation: Isolation::ReadUncommitted,
        replica: None,
        is_eligible: true,
        allow_follower: false,
        preferred_read_replica: -1,
        at_least_one_batch: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_while_it_is_written_to_and_keeps_every_record() {
    let node = Node::new();
    let (tasks, stop) = node.start();
    let partition = node.partition();
    let append = |count: usize| {
        for _ in 0..count {
            partition.append_as_leader(batch(&[7; 500]), 1, Clock::wall_ms()).unwrap();
        }
    };
    append(3_000);
    for _ in 0..4 {
        let target = node.other().clone();
        node.manager.move_replica(TOPIC, 0, target.to_str().unwrap()).unwrap();
        append(500);
        node.moved_to(&target).await;
    }
    let view = partition.view();
    assert_eq!((view.log_start_offset, view.log_end_offset, view.high_watermark), (0, 5_000, 5_000));
    let mut offset = 0;
    while offset < 5_000 {
        let slice = partition.fetch(&read(offset)).slice.unwrap();
        assert!(slice.length > 0 && slice.next_offset_max > offset);
        offset = slice.next_offset_max;
    }
    let names = |path: &std::path::Path| -> Vec<String> {
        std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
            .filter(|name| name.starts_with(TOPIC) && !name.ends_with("-delete"))
            .collect()
    };
    assert_eq!(names(partition.log_dir().path()), [format!("{TOPIC}-0")]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !names(node.other()).is_empty() {
        assert!(Instant::now() < deadline, "the old directory stays: {:?}", names(node.other()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    node.manager.close();
    drop(partition);
    let Node { manager, dir, .. } = node;
    drop(manager);
    assert_eq!(open(dir).partition().view().log_end_offset, 5_000, "and after a restart");
}

#[test]
fn moves_that_cannot_be_are_refused() {
    let node = Node::new();
    let own = node.partition().log_dir().path().to_owned();
    let moved = |topic: &str, index, path: &std::path::Path| {
        node.manager.move_replica(topic, index, path.to_str().unwrap())
    };
    assert_eq!(moved(TOPIC, 0, std::path::Path::new("/no/such")), Err(ErrorCode::LogDirNotFound));
    assert_eq!(moved(TOPIC, 1, node.other()), Err(ErrorCode::ReplicaNotAvailable));
    let preferred = node.other().clone();
    node.manager.apply_image(&image(1, 2, 1, (5, 1), &[1]), None);
    assert_eq!(
        node.manager.by_name(TOPIC, 1).unwrap().log_dir().path(),
        preferred,
        "it is made where it is to be"
    );
    assert_eq!(moved(TOPIC, 0, &own), Ok(()));
    assert_eq!(node.partition().held().len(), 1, "it is there already");
    assert_eq!(moved(TOPIC, 0, node.other()), Ok(()));
    assert!(node.partition().held()[1].is_future);
    assert_eq!(moved(TOPIC, 0, &own), Ok(()));
    assert_eq!(node.partition().held().len(), 1, "back to where it is ends the move");
}

#[test]
fn what_lies_in_two_directories_is_kept_once_and_the_longer_one() {
    let node = Node::new();
    let name = format!("{TOPIC}-0");
    let (own, other) = (node.partition().log_dir().path().to_owned(), node.other().clone());
    node.partition().append_as_leader(batch(b"x"), 1, Clock::wall_ms()).unwrap();
    node.manager.close();
    std::fs::create_dir(other.join(&name)).unwrap();
    for entry in std::fs::read_dir(own.join(&name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), other.join(&name).join(entry.file_name())).unwrap();
    }
    let node = open_again(node);
    node.partition().append_as_leader(batch(b"y"), 1, Clock::wall_ms()).unwrap();
    assert_eq!(node.partition().view().log_end_offset, 2);
    let held = [&own, &other].map(|path| path.join(&name).is_dir());
    assert_ne!(held[0], held[1], "only one is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_cut_short_goes_on_after_a_restart() {
    let node = Node::new();
    let partition = node.partition();
    for _ in 0..50 {
        partition.append_as_leader(batch(b"x"), 1, Clock::wall_ms()).unwrap();
    }
    let target = node.other().clone();
    let own = partition.log_dir().path().join(format!("{TOPIC}-0"));
    let copy = target.join(ottla_log::directory::future_directory_name(TOPIC, 0));
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(own.join("partition.metadata"), copy.join("partition.metadata")).unwrap();
    drop(partition);
    node.manager.close();
    let node = open_again(node);
    assert!(node.partition().held()[1].is_future);
    let (tasks, stop) = node.start();
    node.moved_to(&target).await;
    assert_eq!(node.partition().view().log_end_offset, 50);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

fn open_again(node: Node) -> Node {
    let Node { manager, dir, .. } = node;
    drop(manager);
    open(dir)
}

#[test]
fn what_lies_in_a_failed_directory_is_not_served() {
    let node = Node::new();
    let partition = node.partition();
    partition.append_as_leader(batch(b"x"), 1, Clock::wall_ms()).unwrap();
    node.manager.take_offline(&partition.log_dir());
    assert_eq!(partition.fetch(&read(0)).error, ErrorCode::KafkaStorageError);
    let refusal = partition.append_as_leader(batch(b"x"), 1, Clock::wall_ms()).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::KafkaStorageError);
    assert!(partition.held().is_empty());
}

#[test]
fn a_replica_of_a_directory_that_cannot_be_opened_is_not_made_anew() {
    let node = Node::new();
    let partition = node.partition();
    partition.append_as_leader(batch(b"x"), 1, Clock::wall_ms()).unwrap();
    let own = partition.log_dir().path().to_owned();
    let id = node.manager.directories().id_of(&partition.log_dir()).unwrap();
    drop(partition);
    node.manager.close();
    let Node { manager, paths, dir } = node;
    drop(manager);
    // A file in its place: it cannot be opened as a directory.
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::write(&own, b"").unwrap();
    let grant = Arc::new(Grant::new());
    grant.renew_lease(u64::MAX);
    let manager =
        ReplicaManager::open(ReplicaOptions::new(1, paths), Arc::new(BTreeMap::new()), grant).unwrap();
    assert!(manager.directories().is_missing(id) && !manager.directories().ids().contains(&id));
    assert!(
        !manager.directories().is_missing(uuid::Uuid::nil()),
        "not assigned yet: made where there is room"
    );
    drop(dir);
}

#[test]
fn a_follower_that_catches_up_is_held_back_and_one_in_sync_is_not() {
    let node = Node::new();
    let partition = node.partition();
    for _ in 0..20 {
        partition.append_as_leader(batch(&[1; 1_000]), 1, Clock::wall_ms()).unwrap();
    }
    let follower = FetchingReplica { broker_id: 2, broker_epoch: 20 };
    let fetch = |offset| partition.fetch(&FetchPartition { replica: Some(follower), ..read(offset) });
    let whole = fetch(0).slice.unwrap().length;
    partition.set_rules(&rules::Rules::default_throttled());
    partition.shared.throttles.leader.set_rate(1);
    let first = fetch(0);
    assert!(first.slice.unwrap().length < whole / 10, "no more than one batch at once");
    let second = fetch(1);
    assert!(second.is_throttled && second.slice.is_none());
    partition.shared.throttles.leader.set_rate(u64::MAX);
    assert!(fetch(1).slice.is_some());
    partition.shared.throttles.leader.set_rate(1);
    node.manager.apply_image(&image(1, 1, 1, (5, 1), &[1, 2]), None);
    partition.set_rules(&rules::Rules::default_throttled());
    assert!(fetch(1).slice.unwrap().length > whole / 2, "a member of the ISR is not held back");
}

#[test]
fn a_consumer_is_sent_to_the_follower_that_is_near_and_in_sync() {
    let node = Node::new();
    let partition = node.partition();
    node.manager.apply_image(&image(1, 1, 1, (5, 1), &[1, 2]), None);
    partition.append_as_leader(batch(b"x"), 1, Clock::wall_ms()).unwrap();
    assert_eq!(partition.nearest_follower(0, |_| true), -1, "nothing is known of the follower");
    let follower = FetchingReplica { broker_id: 2, broker_epoch: 20 };
    partition.fetch(&FetchPartition { replica: Some(follower), log_start_offset: 0, ..read(1) });
    assert_eq!(partition.nearest_follower(1, |broker| broker == 2), 2);
    assert_eq!(partition.nearest_follower(1, |broker| broker == 3), -1);
    assert_eq!(partition.nearest_follower(2, |_| true), -1, "it has not got so far");
    let sent = partition.fetch(&FetchPartition { preferred_read_replica: 2, ..read(0) });
    assert_eq!((sent.error, sent.preferred_read_replica, sent.slice.is_none()), (ErrorCode::None, 2, true));
}

#[test]
fn only_own_directories_are_cordoned_and_a_star_stands_alone() {
    let node = Node::new();
    let check = |cordoned: &str| node.manager.directories().check_cordons(cordoned);
    let (first, second) = (node.paths[0].display().to_string(), node.paths[1].display().to_string());
    for known in [String::new(), "*".to_owned(), first.clone(), format!("{second}, {first}/")] {
        assert_eq!(check(&known), Ok(()), "{known}");
    }
    let error = check(&format!("{first},/no/such")).unwrap_err();
    assert_eq!(error, format!("cordoned.log.dirs: /no/such is none of log.dirs, which are {first},{second}"));
    assert!(check(&format!("*,{first}")).unwrap_err().contains("stands alone"));
    // Nor at the start.
    drop(node.manager);
    let properties = BTreeMap::from([("cordoned.log.dirs".to_owned(), "/no/such".to_owned())]);
    let options = ReplicaOptions::new(1, node.paths.clone());
    let opened = ReplicaManager::open(options, Arc::new(properties), Arc::new(Grant::new()));
    assert!(matches!(opened, Err(directories::OpenError::Cordoned(_))));
}
