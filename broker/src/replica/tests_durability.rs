//! What is on disk, what is not, and what a broker makes of it when it starts again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ottla_metadata::image::MetadataImage;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchBuilder, BatchOptions, EndTransaction, Marker, end_transaction_marker};

use super::test_images::{TOPIC, image};
use super::*;

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.add(Clock::wall_ms(), None, Some(b"value"), &[]).unwrap();
    builder.finish().unwrap()
}

/// Broker 1 on a directory, with leases without end. Dropped without `close` it has crashed.
fn start(directory: &Path, properties: &[(&str, &str)]) -> Arc<ReplicaManager> {
    let grant = Arc::new(Grant::new());
    grant.renew_lease(u64::MAX);
    let options = ReplicaOptions::new(1, vec![directory.to_owned()]);
    let properties = properties
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect::<BTreeMap<_, _>>();
    ReplicaManager::open(options, Arc::new(properties), grant).unwrap()
}

fn led(manager: &ReplicaManager, isr: &[i32], leader: i32, epoch: i32) -> Arc<Partition> {
    manager.apply_image(&image(1, 1, leader, (epoch, 0), isr), None);
    manager.by_name(TOPIC, 0).unwrap()
}

fn flip_first_value(directory: &Path) {
    let path = directory.join(format!("{TOPIC}-0/00000000000000000000.log"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

/// I25: with `flush.messages=1` an append with acks=1 counts when the leader has it on disk, and not before.
#[tokio::test]
async fn acks_1_waits_for_the_leaders_disk_when_every_record_is_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path(), &[("log.flush.interval.messages", "1")]);
    // Another replica is in sync and silent: the high watermark stays.
    let partition = led(&manager, &[1, 2], 1, 5);
    assert!(partition.is_synced_only());
    let appended = partition.append_as_leader(batch(), 1, Clock::wall_ms()).unwrap();
    let waiter = Waiter::new(1);
    assert_eq!(partition.await_synced(&appended, &waiter), AckState::Pending);
    let log_dir = partition.log_dir();
    assert_eq!(log_dir.sync_queue.take_now().len(), 1, "the group commit hears of it");
    assert!(partition.sync());
    waiter.wait().await;
    assert_eq!(partition.synced_result(&appended), AckState::Done);
    assert_eq!(partition.ack_result(&appended), AckState::Pending, "acks=-1 waits for the follower too");
    let appended = partition.append_as_leader(batch(), 1, Clock::wall_ms()).unwrap();
    let waiter = Waiter::new(1);
    assert_eq!(partition.await_synced(&appended, &waiter), AckState::Pending);
    led(&manager, &[1, 2], 2, 6);
    waiter.wait().await;
    assert_eq!(partition.synced_result(&appended), AckState::Failed(ErrorCode::NotLeaderOrFollower));
}

/// A topic of a name that another one had must not be cut to the old one's offsets after a crash.
#[test]
fn a_new_topic_of_an_old_name_has_its_own_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path(), &[]);
    let old = led(&manager, &[1], 1, 5);
    for _ in 0..20 {
        old.append_as_leader(batch(), 1, Clock::wall_ms()).unwrap();
    }
    old.sync();
    old.delete_records(15, &Waiter::new(1)).unwrap();
    manager.directories().checkpoint_recovery_points(&manager.partitions());
    manager.apply_image(&Arc::new(MetadataImage::default()), None);
    let new = led(&manager, &[1], 1, 5);
    for _ in 0..3 {
        new.append_as_leader(batch(), 1, Clock::wall_ms()).unwrap();
    }
    drop((old, new, manager));
    let manager = start(directory.path(), &[]);
    let partition = led(&manager, &[1], 1, 6);
    let state = partition.lock();
    let log = state.log.as_ref().expect("the partition is served");
    assert_eq!((log.log_start_offset(), log.end_offset()), (0, 3));
}

fn damaged_below_the_recovery_point(directory: &Path) {
    let manager = start(directory, &[]);
    let partition = led(&manager, &[1], 1, 5);
    for _ in 0..10 {
        partition.append_as_leader(batch(), 1, Clock::wall_ms()).unwrap();
    }
    partition.sync();
    manager.directories().checkpoint_recovery_points(&manager.partitions());
    drop((partition, manager));
    flip_first_value(directory);
}

/// I29: records that were on disk are not cut off silently when they may be the only copy.
#[test]
fn damage_below_the_recovery_point_takes_the_only_copy_offline_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    damaged_below_the_recovery_point(directory.path());
    let path = directory.path().join(format!("{TOPIC}-0/00000000000000000000.log"));
    let size = std::fs::metadata(&path).unwrap().len();
    for _ in 0..2 {
        let manager = start(directory.path(), &[]);
        let partition = led(&manager, &[1], 1, 6);
        let refusal = partition.append_as_leader(batch(), 1, Clock::wall_ms()).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::KafkaStorageError);
        assert!(!partition.log_dir().is_offline(), "alone");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    }
    // The way out that the log names.
    std::fs::remove_file(directory.path().join(ottla_log::directory::RECOVERY_POINTS)).unwrap();
    let manager = start(directory.path(), &[]);
    let partition = led(&manager, &[1], 1, 7);
    assert_eq!(partition.append_as_leader(batch(), 1, Clock::wall_ms()).unwrap().base_offset, 0);
}

/// I29: with another replica in sync the log is cut at the damage, and gets the rest from there.
#[test]
fn damage_below_the_recovery_point_is_replicated_again_when_others_have_it() {
    let directory = tempfile::tempdir().unwrap();
    damaged_below_the_recovery_point(directory.path());
    let manager = start(directory.path(), &[]);
    let partition = led(&manager, &[2], 2, 6);
    assert_eq!(partition.fetch_position(6).unwrap().offset, 0);
}

/// I28: a checkpoint that cannot be read costs time, and no directory.
#[test]
fn damaged_checkpoints_are_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path(), &[]);
    led(&manager, &[1], 1, 5).append_as_leader(batch(), 1, Clock::wall_ms()).unwrap();
    manager.close();
    drop(manager);
    for content in ["", "7\n", "0\n1\n", "0\n1\nno entry\n"] {
        use ottla_log::directory::{HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS};
        for file in [HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS] {
            std::fs::write(directory.path().join(file), content).unwrap();
        }
        let manager = start(directory.path(), &[]);
        let partition = led(&manager, &[1], 1, 6);
        assert_eq!(partition.lock().log.as_ref().unwrap().end_offset(), 1, "{content:?}");
    }
}

/// After a crash the transactions that had ended are stable, also when nothing new moves the high watermark.
#[test]
fn ended_transactions_are_stable_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path(), &[]);
    let partition = led(&manager, &[1], 1, 5);
    let options = BatchOptions {
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: 0,
        transactional: true,
        ..BatchOptions::default()
    };
    let mut data = BatchBuilder::new(options);
    data.add(Clock::wall_ms(), None, Some(b"value"), &[]).unwrap();
    let marker =
        Marker { producer_id: 9, producer_epoch: 0, coordinator_epoch: 0, timestamp_ms: Clock::wall_ms() };
    let marker = end_transaction_marker(EndTransaction::Commit, marker).unwrap();
    {
        let mut state = partition.lock();
        let log = state.log.as_mut().unwrap();
        for records in [data.finish().unwrap(), marker] {
            log.append_as_leader(&mut BytesMut::from(&records[..]), 5, Clock::wall_ms()).unwrap();
        }
    }
    partition.report(ottla_replica::Input::Appended { log_end: 2 });
    manager.directories().checkpoint_high_watermarks(&manager.partitions());
    drop((partition, manager));
    let manager = start(directory.path(), &[]);
    let partition = led(&manager, &[1], 1, 6);
    let state = partition.lock();
    assert_eq!(state.machine.high_watermark(), 2);
    assert_eq!(state.log.as_ref().unwrap().last_stable_offset(2), 2);
}

/// I36: what lies where a replica is to be made, and is not it, is neither served nor written over.
#[test]
fn files_of_nobody_are_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("{TOPIC}-0"));
    for metadata in ["", "version: 0\n"] {
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("partition.metadata"), metadata).unwrap();
        std::fs::write(path.join("00000000000000000000.log"), "precious").unwrap();
        if metadata.is_empty() {
            std::fs::remove_file(path.join("partition.metadata")).unwrap();
        }
        let manager = start(directory.path(), &[]);
        let partition = led(&manager, &[1], 1, 6);
        assert_eq!(partition.append_as_leader(batch(), 1, Clock::wall_ms()).unwrap().base_offset, 0);
        drop((partition, manager));
        std::fs::remove_dir_all(&path).unwrap();
    }
    let aside: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && path.to_str().unwrap().ends_with("-stray"))
        .map(|path| std::fs::read_to_string(path.join("00000000000000000000.log")).unwrap())
        .collect();
    assert_eq!(aside, ["precious", "precious"]);
}

/// I36: a replica of a topic that the cluster does not know is not served, and not removed either.
#[test]
fn a_replica_of_an_unknown_topic_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path(), &[]);
    led(&manager, &[1], 1, 5).append_as_leader(batch(), 1, Clock::wall_ms()).unwrap();
    manager.close();
    drop(manager);
    let manager = start(directory.path(), &[]);
    manager.apply_image(&Arc::new(MetadataImage::default()), None);
    assert!(manager.partitions().is_empty());
    let names: Vec<String> = std::fs::read_dir(directory.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with(TOPIC))
        .collect();
    assert!(names.len() == 1 && names[0].ends_with("-stray"), "{names:?}");
}

/// Of ten thousand partitions a checkpoint every five seconds is much to write: only what is new is written.
#[test]
fn a_checkpoint_is_written_when_it_says_something_new() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path(), &[]);
    let partition = led(&manager, &[1], 1, 5);
    let path = directory.path().join(ottla_log::directory::HIGH_WATERMARKS);
    manager.directories().checkpoint_high_watermarks(&manager.partitions());
    std::fs::remove_file(&path).unwrap();
    manager.directories().checkpoint_high_watermarks(&manager.partitions());
    assert!(!path.exists());
    partition.append_as_leader(batch(), 1, Clock::wall_ms()).unwrap();
    manager.directories().checkpoint_high_watermarks(&manager.partitions());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("0\n1\n{TOPIC} 0 1\n"));
}
