//! Rolling, retention, flushing, following, and moving a log: what happens to its files.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{create, pairs, path, plain};
use ottla_log::{Log, LogConfig, LogError, OpenOptions, PendingRemovals, directory, remove_files};
use ottla_wire::records::{set_base_offset, set_partition_leader_epoch};
use uuid::Uuid;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 2_000, index_interval_bytes: 200, ..LogConfig::default() }
}

fn bases(root: &std::path::Path) -> Vec<i64> {
    let mut found: Vec<i64> = std::fs::read_dir(path(root))
        .unwrap()
        .filter_map(|one| one.unwrap().file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

fn at(offset: i64, epoch: i32) -> BytesMut {
    let mut batch = plain(1, 5);
    set_base_offset(&mut batch, offset);
    set_partition_leader_epoch(&mut batch, epoch);
    batch
}

#[test]
fn segments_roll_by_the_time_of_their_records() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), LogConfig { segment_ms: 1_000, ..LogConfig::default() });
    for timestamp in [0, 1_000, 500, 1_001, 1_500, 2_002] {
        // The clock is far ahead of the records.
        log.append_as_leader(&mut plain(1, timestamp), 0, 900_000).unwrap();
    }
    assert_eq!(bases(directory.path()), [0, 3, 5]);
}

#[test]
fn jitter_lets_segments_of_different_logs_roll_at_different_times() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_ms: 1_000, segment_jitter_ms: 900, ..LogConfig::default() };
    let ages = (0..20).map(|partition| {
        let path = directory.path().join(format!("topic-{partition}"));
        let mut log = Log::create(&path, Uuid::nil(), config.clone(), 0).unwrap();
        log.append_as_leader(&mut plain(1, 0), 0, 0).unwrap();
        (1..=1_001)
            .find(|timestamp| {
                log.append_as_leader(&mut plain(1, *timestamp), 0, 0).unwrap();
                path.join(format!("{timestamp:020}.log")).exists()
            })
            .unwrap()
    });
    let ages: Vec<i64> = ages.collect();
    assert!(ages.iter().all(|age| (100..=1_001).contains(age)), "{ages:?}");
    assert!(ages.iter().collect::<std::collections::HashSet<_>>().len() > 5, "{ages:?}");
}

#[test]
fn a_time_stamp_in_the_future_does_not_hold_a_segment_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), LogConfig { retention_ms: 1_000, ..config() });
    let now_ms = i64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
    )
    .unwrap();
    for _ in 0..40 {
        log.append_as_leader(&mut plain(1, now_ms + 1_000_000_000), 0, now_ms).unwrap();
    }
    assert!(log.delete_old_segments(now_ms, 40).unwrap().is_empty());
    assert!(!log.delete_old_segments(now_ms + 60_000, 40).unwrap().is_empty());
    assert_eq!((log.log_start_offset(), log.end_offset()), (40, 40));
}

#[test]
fn deleted_files_are_renamed_and_removed_after_their_delay() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), LogConfig { retention_bytes: 1, ..config() });
    for _ in 0..40 {
        log.append_as_leader(&mut plain(1, 5), 0, 5).unwrap();
    }
    log.update_high_watermark(40);
    let slice = log.read(0, 1_000, 40, true).unwrap();
    let renamed = log.delete_old_segments(10, 40).unwrap();
    assert!(renamed.iter().all(|path| path.exists() && path.extension().unwrap() == "deleted"));
    assert_eq!(slice.to_bytes().unwrap().len(), slice.length, "who reads goes on reading");
    let (count, mut pending) = (renamed.len(), PendingRemovals::default());
    pending.add(renamed.clone(), 10, 60_000);
    assert!(pending.take_due(60_009).is_empty());
    assert_eq!(pending.len(), count);
    remove_files(&pending.take_due(60_010)).unwrap();
    assert!(pending.is_empty() && renamed.iter().all(|path| !path.exists()));
}

#[test]
fn segments_below_the_log_start_go_whatever_the_policy() {
    let directory = tempfile::tempdir().unwrap();
    let mut log =
        create(directory.path(), LogConfig { deletes: false, compacts: true, retention_ms: 1, ..config() });
    for _ in 0..60 {
        log.append_as_leader(&mut plain(1, 5), 0, 5).unwrap();
    }
    assert!(log.delete_old_segments(1 << 40, 60).unwrap().is_empty());
    log.increment_log_start_offset(40).unwrap();
    assert!(!log.delete_old_segments(1 << 40, 60).unwrap().is_empty());
    let bases = bases(directory.path());
    assert!(bases[0] <= 40 && bases[1] > 40, "{bases:?}");
}

#[test]
fn a_flush_speaks_for_what_was_there_when_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    for _ in 0..30 {
        log.append_as_leader(&mut plain(1, 5), 0, 5).unwrap();
    }
    let mut ticket = log.begin_flush().unwrap();
    log.append_as_leader(&mut plain(1, 5), 0, 5).unwrap();
    ticket.sync().unwrap();
    assert_eq!(log.finish_flush(ticket).unwrap(), 30);
    let mut ticket = log.begin_flush().unwrap();
    log.truncate_to(29).unwrap();
    log.append_as_leader(&mut plain(5, 5), 0, 5).unwrap();
    ticket.sync().unwrap();
    assert_eq!(log.finish_flush(ticket).unwrap(), 29, "what came behind the cut is not synced");
    let never_synced = log.begin_flush().unwrap();
    assert_eq!(log.finish_flush(never_synced).unwrap(), 29);
    assert_eq!(log.flush().unwrap(), 34);
}

#[test]
fn a_follower_takes_rising_epochs_up_to_its_leaders() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    let join = |batches: &[BytesMut]| Bytes::from(batches.concat());
    log.append_as_follower(&join(&[at(0, 1), at(1, 3)]), 4).unwrap();
    assert_eq!(log.end_offset(), 2);
    let refused = log.append_as_follower(&join(&[at(2, 2)]), 4);
    assert!(matches!(refused, Err(LogError::EpochWentBack { last: 3, found: 2 })), "{refused:?}");
    let refused = log.append_as_follower(&join(&[at(2, 4), at(3, 3)]), 4);
    assert!(matches!(refused, Err(LogError::EpochWentBack { .. })), "{refused:?}");
    let refused = log.append_as_follower(&join(&[at(1, 4)]), 4);
    assert!(matches!(refused, Err(LogError::NotContiguous { expected: 2, found: 1 })), "{refused:?}");
    assert_eq!(log.end_offset(), 2);
    log.append_as_follower(&join(&[at(2, 4), at(3, 5)]), 4).unwrap();
    assert_eq!(log.end_offset(), 3, "a batch of an epoch that the leader does not know is not its own");
}

/// KAFKA-10706: who led an epoch and wrote nothing in it must forget it when another epoch takes over.
#[test]
fn an_epoch_without_records_is_forgotten() {
    for by_truncation in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let mut log = create(directory.path(), config());
        log.append_as_follower(&Bytes::from(at(0, 1)), 1).unwrap();
        log.begin_leader_epoch(5, 1);
        assert_eq!(log.latest_epoch(), Some(5));
        if by_truncation {
            log.truncate_to(1).unwrap();
            assert_eq!(log.latest_epoch(), Some(1));
        }
        log.append_as_follower(&Bytes::from(at(1, 4)), 6).unwrap();
        assert_eq!((log.latest_epoch(), log.epoch_for_offset(1)), (Some(4), Some(4)));
    }
}

/// KIP-113: a copy in another directory catches up and takes the original's place.
#[test]
fn a_copy_takes_the_place_of_the_original() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut original = create(one.path(), config());
    for n in 0..60 {
        original.append_as_leader(&mut plain(1, n), i32::try_from(n / 20).unwrap(), n).unwrap();
    }
    original.increment_log_start_offset(7).unwrap();
    let name = directory::future_directory_name("t", 0);
    let mut copy = Log::create(&two.path().join(&name), Uuid::from_u128(7), config(), 0).unwrap();
    copy.truncate_fully_and_start_at(7).unwrap();
    let found = directory::scan(two.path()).unwrap();
    assert_eq!(
        (found[0].topic.as_str(), found[0].partition, found[0].kind),
        ("t", 0, directory::Kind::Future)
    );
    let mut next = 7;
    while copy.end_offset() < original.end_offset() {
        let slice = original.read(next, 300, original.end_offset(), true).unwrap();
        // The batch that holds the copy's end; here batches have one record each.
        copy.append_as_follower(&slice.to_bytes().unwrap(), 9).unwrap();
        next = copy.end_offset();
    }
    let slice = copy.read(50, 500, 60, true).unwrap();
    copy.rename_directory(&path(two.path())).unwrap();
    let gone = original.rename_for_deletion().unwrap();
    assert!(gone.exists() && !path(one.path()).exists());
    assert_eq!(slice.to_bytes().unwrap().len(), slice.length);
    copy.append_as_leader(&mut plain(1, 99), 3, 99).unwrap();
    copy.roll().unwrap();
    copy.append_as_leader(&mut plain(1, 99), 4, 99).unwrap();
    let (before, epochs) = (pairs(&copy), copy.end_offset_for_epoch(1));
    copy.close().unwrap();
    let options = OpenOptions { log_start_offset: 7, ..Default::default() };
    let (copy, _) = Log::open(&path(two.path()), config(), options).unwrap();
    assert_eq!((pairs(&copy), copy.end_offset_for_epoch(1)), (before, epochs));
    assert_eq!((copy.log_start_offset(), copy.end_offset()), (7, 62));
}
