//! Compaction: what stays, at which offset, and what a pass may not touch.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use common::{Keyed, abort, commit, compact_all, create, keyed, open, pairs, path, transactional};
use ottla_log::{CompactionError, LogConfig, LogError, OffsetMap, compact};
use ottla_wire::compression::Codec;
use ottla_wire::records::Batches;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2_000,
        index_interval_bytes: 200,
        compacts: true,
        deletes: false,
        min_cleanable_dirty_ratio: 0.01,
        ..LogConfig::default()
    }
}

fn headers(log: &ottla_log::Log) -> Vec<ottla_wire::records::BatchHeader> {
    let mut found = Vec::new();
    let mut next = 0;
    while next < log.end_offset() {
        let slice = log.read(next, 1_000_000, log.end_offset(), true).unwrap();
        for batch in Batches::new(slice.to_bytes().unwrap()) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            found.push(batch.header);
        }
        next = slice.next_offset_max.max(next + 1);
    }
    found
}

#[test]
fn the_last_value_of_each_key_stays_at_its_offset_and_batches_keep_their_range() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    for (codec, keys) in [(Codec::None, "abcab"), (Codec::Gzip, "cdefd"), (Codec::Zstd, "xxxxy")] {
        let records: Vec<Keyed> = keys.bytes().map(|key| (vec![key], Some(vec![key; 3]))).collect();
        log.append_as_leader(&mut keyed(&records, 5, codec), 3, 5).unwrap();
    }
    log.roll().unwrap();
    log.append_as_leader(&mut keyed(&[(b"end".to_vec(), Some(b"x".to_vec()))], 5, Codec::None), 3, 5)
        .unwrap();
    log.update_high_watermark(16);
    assert_eq!(compact_all(&mut log, None, 1_000, 1 << 20), 15);
    let offsets: Vec<i64> = pairs(&log).into_iter().map(|(offset, ..)| offset).collect();
    assert_eq!(offsets, [3, 4, 5, 7, 8, 9, 13, 14, 15]);
    let kept: Vec<_> = headers(&log)
        .iter()
        .map(|one| {
            (
                one.base_offset,
                one.last_offset(),
                one.attributes & 7,
                one.record_count,
                one.partition_leader_epoch,
            )
        })
        .collect();
    assert_eq!(kept, [(0, 4, 0, 2, 3), (5, 9, 1, 4, 3), (10, 14, 4, 2, 3), (15, 15, 0, 1, 3)]);
    let cleanable = log.cleanable(Some(15), 2_000).unwrap();
    assert!(!cleanable.is_due && cleanable.dirty_bytes == 0, "{cleanable:?}");
    let log = open(directory.path(), config(), false);
    assert_eq!(pairs(&log).len(), 9);
}

#[test]
fn tombstones_stay_for_their_time_and_then_go() {
    let directory = tempfile::tempdir().unwrap();
    let settings = LogConfig { delete_retention_ms: 1_000, ..config() };
    let mut log = create(directory.path(), settings);
    let a = |value: Option<&[u8]>| vec![(b"a".to_vec(), value.map(<[u8]>::to_vec))];
    log.append_as_leader(&mut keyed(&a(Some(b"1")), 5, Codec::None), 0, 5).unwrap();
    log.append_as_leader(&mut keyed(&a(None), 7, Codec::None), 0, 7).unwrap();
    let mut checkpoint = None;
    for (now_ms, left) in [(100, vec![1]), (1_099, vec![1]), (1_100, vec![])] {
        log.roll().unwrap();
        let mut end = keyed(&[(b"end".to_vec(), Some(b"x".to_vec()))], 5, Codec::None);
        log.append_as_leader(&mut end, 0, 5).unwrap();
        log.update_high_watermark(log.end_offset());
        checkpoint = Some(compact_all(&mut log, checkpoint, now_ms, 1 << 20));
        let found: Vec<i64> =
            pairs(&log).into_iter().filter(|(_, key, _)| key == b"a").map(|(offset, ..)| offset).collect();
        assert_eq!(found, left, "at {now_ms}");
        if let Some(header) = headers(&log).iter().find(|one| one.base_offset == 1 && one.record_count == 1) {
            assert_eq!(header.delete_horizon_ms(), Some(1_100));
            assert_eq!(header.max_timestamp, 7);
        }
    }
}

#[test]
fn aborted_records_go_markers_stay_for_their_time_and_each_producers_last_batch_stays() {
    let directory = tempfile::tempdir().unwrap();
    let settings = LogConfig { delete_retention_ms: 1_000, ..config() };
    let mut log = create(directory.path(), settings);
    log.append_as_leader(&mut keyed(&[(b"k".to_vec(), Some(b"good".to_vec()))], 5, Codec::None), 0, 5)
        .unwrap();
    for sequence in 0..3 {
        log.append_as_leader(&mut transactional(9, sequence, b"k", b"bad"), 0, 5).unwrap();
    }
    log.append_as_leader(&mut abort(9), 0, 5).unwrap(); // offset 4
    log.append_as_leader(&mut transactional(8, 0, b"c", b"1"), 0, 5).unwrap();
    log.append_as_leader(&mut commit(8), 0, 5).unwrap(); // offset 6
    log.append_as_leader(&mut transactional(8, 1, b"c", b"2"), 0, 5).unwrap();
    log.append_as_leader(&mut commit(8), 0, 5).unwrap(); // offset 8
    let mut checkpoint = None;
    let mut seen = Vec::new();
    for now_ms in [100, 200, 1_500] {
        log.roll().unwrap();
        log.append_as_leader(&mut keyed(&[(b"end".to_vec(), Some(b"x".to_vec()))], 5, Codec::None), 0, 5)
            .unwrap();
        log.update_high_watermark(log.end_offset());
        checkpoint = Some(compact_all(&mut log, checkpoint, now_ms, 1 << 20));
        let offsets: Vec<_> = headers(&log)
            .iter()
            .filter(|one| one.base_offset < 9)
            .map(|one| (one.base_offset, one.record_count))
            .collect();
        seen.push(offsets);
    }
    // The aborted producer's last batch (3) is there without its record, and its marker until its data is known to be gone;
    // the first committed transaction leaves its marker for as long as somebody may need it.
    assert_eq!(seen[0], [(0, 1), (3, 0), (4, 1), (6, 1), (7, 1), (8, 1)]);
    assert_eq!(seen[1], seen[0]);
    assert!(!seen[2].contains(&(6, 1)), "{seen:?}");
    assert!(seen[2].contains(&(7, 1)) && seen[2].contains(&(3, 0)) && seen[2].contains(&(0, 1)), "{seen:?}");
    drop(log);
    let mut log = open(directory.path(), config(), false);
    log.update_high_watermark(log.end_offset());
    let again = log.append_as_leader(&mut transactional(8, 1, b"c", b"2"), 0, 5).unwrap();
    assert!(again.is_duplicate && again.first_offset == 7, "{again:?}");
    assert!(
        log.append_as_leader(&mut transactional(9, 7, b"c", b"2"), 0, 5).is_err(),
        "its sequence is known"
    );
}

#[test]
fn open_transactions_young_records_and_the_active_segment_are_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), LogConfig { min_compaction_lag_ms: 100, ..config() });
    let same = |timestamp| keyed(&[(b"a".to_vec(), Some(b"1".to_vec()))], timestamp, Codec::None);
    for timestamp in [0, 10, 500, 510] {
        log.append_as_leader(&mut same(timestamp), 0, timestamp).unwrap();
        log.roll().unwrap();
    }
    log.append_as_leader(&mut same(510), 0, 510).unwrap();
    log.update_high_watermark(5);
    assert_eq!(log.cleanable(None, 550).unwrap().end, 2, "younger than the lag");
    assert_eq!(log.cleanable(None, 700).unwrap().end, 4, "the active segment");
    log.update_high_watermark(3);
    assert_eq!(log.cleanable(None, 700).unwrap().end, 3, "the high watermark");
    log.append_as_leader(&mut transactional(9, 0, b"k", b"v"), 0, 5).unwrap();
    log.roll().unwrap();
    log.append_as_leader(&mut same(510), 0, 510).unwrap();
    log.update_high_watermark(7);
    assert_eq!(log.cleanable(None, 700).unwrap().end, 5, "an open transaction");
    log.set_config(LogConfig { max_compaction_lag_ms: 300, min_cleanable_dirty_ratio: 1.0, ..config() });
    assert!(!log.cleanable(None, 300).unwrap().is_due);
    assert!(log.cleanable(None, 301).unwrap().must);
}

/// Behind the high watermark an abort may be undone by the next leader.
#[test]
fn nothing_behind_the_high_watermark_is_touched_in_a_segment_that_reaches_beyond_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    let same = || keyed(&[(b"a".to_vec(), Some(b"1".to_vec()))], 5, Codec::None);
    log.append_as_leader(&mut same(), 0, 5).unwrap();
    log.append_as_leader(&mut same(), 0, 5).unwrap();
    log.append_as_leader(&mut transactional(9, 0, b"k", b"v"), 0, 5).unwrap();
    log.append_as_leader(&mut transactional(9, 1, b"k", b"v"), 0, 5).unwrap();
    log.append_as_leader(&mut abort(9), 0, 5).unwrap();
    log.append_as_leader(&mut keyed(&[(b"a".to_vec(), None)], 5, Codec::None), 0, 5).unwrap();
    log.roll().unwrap();
    log.append_as_leader(&mut same(), 0, 5).unwrap();
    log.update_high_watermark(2);
    let checkpoint = compact_all(&mut log, None, 1_000, 1 << 20);
    assert_eq!(checkpoint, 2);
    let kept: Vec<_> = headers(&log).iter().map(|one| (one.base_offset, one.record_count)).collect();
    assert_eq!(kept, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]);
    assert_eq!(log.aborted_transactions(0, 7).unwrap().len(), 1);
    assert!(headers(&log).iter().all(|one| !one.has_delete_horizon()));
}

#[test]
fn a_pass_whose_log_is_cut_or_begins_later_counts_for_nothing() {
    for change in 0..2 {
        let directory = tempfile::tempdir().unwrap();
        let mut log = create(directory.path(), config());
        for n in 0..40 {
            log.append_as_leader(&mut keyed(&[(b"a".to_vec(), Some(vec![1; 100]))], n, Codec::None), 0, n)
                .unwrap();
        }
        log.update_high_watermark(40);
        let plan = log.plan_compaction(None, 1_000).unwrap().unwrap();
        assert!(log.plan_compaction(None, 1_000).unwrap().is_none(), "one at a time");
        if change == 0 {
            log.truncate_to(35).unwrap();
        } else {
            log.increment_log_start_offset(3).unwrap();
        }
        let before = pairs(&log);
        let result = compact(&plan, &mut OffsetMap::with_budget(1 << 20), &mut |_| true, &mut |group| {
            log.swap_cleaned(group).map(drop)
        });
        assert!(matches!(result, Err(CompactionError::Superseded)), "{result:?}");
        assert_eq!(pairs(&log), before);
        drop(plan);
        let left = std::fs::read_dir(path(directory.path())).unwrap();
        let left: Vec<_> = left.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        assert!(left.iter().all(|name| !name.contains("cleaned") && !name.contains("swap")), "{left:?}");
        assert!(log.plan_compaction(Some(38), 1_000).unwrap().is_some());
    }
}

#[test]
fn a_damaged_segment_is_named_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    for n in 0..40 {
        log.append_as_leader(&mut keyed(&[(b"a".to_vec(), Some(vec![1; 100]))], n, Codec::None), 0, n)
            .unwrap();
    }
    log.update_high_watermark(40);
    let mut files: Vec<_> = std::fs::read_dir(path(directory.path()))
        .unwrap()
        .map(|one| one.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    let mut bytes = std::fs::read(&files[1]).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&files[1], bytes).unwrap();
    let plan = log.plan_compaction(None, 1_000).unwrap().unwrap();
    let error = compact(&plan, &mut OffsetMap::with_budget(1 << 20), &mut |_| true, &mut |group| {
        log.swap_cleaned(group).map(drop)
    })
    .unwrap_err();
    let CompactionError::Log(LogError::Corrupt { path, .. }) = error else { panic!("{error}") };
    assert_eq!(path, files[1]);
}

#[test]
fn a_map_that_is_too_small_needs_more_passes_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    for n in 0..300u32 {
        let key = (n % 50).to_be_bytes().to_vec();
        log.append_as_leader(&mut keyed(&[(key, Some(n.to_be_bytes().to_vec()))], 5, Codec::None), 0, 5)
            .unwrap();
    }
    log.roll().unwrap();
    log.append_as_leader(&mut keyed(&[(b"end".to_vec(), Some(b"x".to_vec()))], 5, Codec::None), 0, 5)
        .unwrap();
    log.update_high_watermark(301);
    let mut checkpoint = None;
    let mut passes = 0;
    while log.cleanable(checkpoint, 1_000).unwrap().is_due {
        checkpoint = Some(compact_all(&mut log, checkpoint, 1_000, 20 * ottla_log::compaction::SLOT_BYTES));
        passes += 1;
        assert!(passes < 100);
    }
    assert!(passes > 10, "{passes}");
    let values: std::collections::BTreeMap<_, _> = pairs(&log).into_iter().map(|(_, k, v)| (k, v)).collect();
    for n in 250..300u32 {
        assert_eq!(values[&(n % 50).to_be_bytes().to_vec()], Some(n.to_be_bytes().to_vec()));
    }
}

#[test]
fn a_pass_that_is_stopped_or_whose_topic_is_deleted_leaves_nothing() {
    for delete in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut log = create(directory.path(), config());
        for n in 0..40 {
            log.append_as_leader(&mut keyed(&[(b"a".to_vec(), Some(vec![1; 100]))], n, Codec::None), 0, n)
                .unwrap();
        }
        log.update_high_watermark(40);
        let plan = log.plan_compaction(None, 1_000).unwrap().unwrap();
        let mut map = OffsetMap::with_budget(1 << 20);
        let never = &mut |_| panic!("nothing is ready");
        let (place, result) = if delete {
            let place = log.rename_for_deletion().unwrap();
            (place, compact(&plan, &mut map, &mut |_| true, never))
        } else {
            let mut bytes = 0;
            let mut throttle = |more| {
                bytes += more;
                bytes < 7_500
            };
            (path(directory.path()), compact(&plan, &mut map, &mut throttle, never))
        };
        let expected = if delete { CompactionError::Superseded } else { CompactionError::Stopped };
        assert_eq!(result.unwrap_err().to_string(), expected.to_string());
        let names: Vec<_> = std::fs::read_dir(place).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_str().unwrap().ends_with(".cleaned")), "{names:?}");
    }
}
