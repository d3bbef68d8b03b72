//! Faults that were found once, each by what must hold instead.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use common::{abort, create, path, plain, transactional};
use ottla_log::{Log, LogConfig, OpenOptions};
use uuid::Uuid;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 2_000, index_interval_bytes: 200, ..LogConfig::default() }
}

fn filled(root: &std::path::Path, batches: i64) -> Log {
    let mut log = create(root, config());
    for n in 0..batches {
        log.append_as_leader(&mut plain(1, n), 0, n).unwrap();
    }
    log
}

fn open(root: &std::path::Path, options: OpenOptions) -> Log {
    Log::open(&path(root), config(), options).unwrap().0
}

fn clean(recovery_point: i64) -> OpenOptions {
    OpenOptions { clean_shutdown: true, recovery_point, ..Default::default() }
}

fn files(root: &std::path::Path, extension: &str) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(path(root))
        .unwrap()
        .map(|one| one.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    found.sort();
    found
}

#[test]
fn aborted_transactions_survive_a_crash_behind_a_later_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    log.append_as_leader(&mut transactional(9, 0, b"k", b"v"), 0, 5).unwrap();
    log.append_as_leader(&mut abort(9), 0, 5).unwrap();
    log.roll().unwrap();
    log.append_as_leader(&mut plain(1, 6), 0, 6).unwrap();
    let before = log.aborted_transactions(0, 3).unwrap();
    assert_eq!(before.len(), 1);
    drop(log);
    let log = open(directory.path(), OpenOptions::default());
    assert_eq!(log.aborted_transactions(0, 3).unwrap(), before);
}

/// As Kafka has it: without another open transaction the last stable offset of an abort is the one behind its marker.
#[test]
fn an_abort_notes_the_last_stable_offset_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    log.append_as_leader(&mut transactional(9, 0, b"k", b"v"), 0, 5).unwrap();
    log.append_as_leader(&mut abort(9), 0, 5).unwrap();
    assert_eq!(log.aborted_transactions(0, 2).unwrap()[0].last_stable_offset, 2);
}

#[test]
fn a_stale_epoch_file_is_completed_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    let file = path(directory.path()).join("leader-epoch-checkpoint");
    log.append_as_leader(&mut plain(1, 1), 1, 1).unwrap();
    let old = std::fs::read(&file).unwrap();
    log.append_as_leader(&mut plain(1, 1), 2, 1).unwrap();
    let expected = log.end_offset_for_epoch(1);
    drop(log);
    std::fs::write(&file, old).unwrap();
    let log = open(directory.path(), OpenOptions::default());
    assert_eq!(log.latest_epoch(), Some(2));
    assert_eq!(log.end_offset_for_epoch(1), expected);
}

#[test]
fn times_are_found_without_time_indexes() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 60).close().unwrap();
    for file in files(directory.path(), "timeindex") {
        std::fs::remove_file(file).unwrap();
    }
    let log = open(directory.path(), clean(60));
    assert_eq!(log.offset_for_timestamp(3).unwrap().map(|found| found.offset), Some(3));
}

#[test]
fn truncation_below_the_log_start_takes_it_along() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = filled(directory.path(), 10);
    log.increment_log_start_offset(8).unwrap();
    log.truncate_to(5).unwrap();
    assert!(log.log_start_offset() <= log.end_offset());
}

#[test]
fn a_topic_of_the_longest_name_can_be_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("{}-0", "t".repeat(249)));
    let to = Log::create(&path, Uuid::from_u128(7), config(), 0).unwrap().rename_for_deletion().unwrap();
    assert!(to.file_name().unwrap().len() <= 255 && to.exists());
}

#[test]
fn a_damaged_swap_file_beside_the_old_segment_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 3).close().unwrap();
    let swap = path(directory.path()).join("00000000000000000000.log.swap");
    std::fs::write(&swap, b"x").unwrap();
    assert_eq!(open(directory.path(), OpenOptions::default()).end_offset(), 3);
    assert!(!swap.exists());
}

#[test]
fn a_wrong_index_of_an_old_segment_costs_time_only() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 60).close().unwrap();
    let index = files(directory.path(), "index").remove(0);
    let mut bytes = std::fs::read(&index).unwrap();
    assert!(!bytes.is_empty());
    for entry in bytes.chunks_exact_mut(8) {
        entry[7] ^= 0x15; // positions inside of batches
    }
    std::fs::write(&index, bytes).unwrap();
    let log = open(directory.path(), clean(60));
    let slice = log.read(10, 1_000, 60, true).unwrap();
    let first = ottla_wire::records::BatchHeader::parse(&slice.to_bytes().unwrap()).unwrap();
    assert_eq!(first.base_offset, 10);
}

#[test]
fn a_short_data_file_behind_the_marker_of_a_clean_stop_keeps_its_prefix() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 10).close().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&files(directory.path(), "log")[0]).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 10 * 3).unwrap();
    assert_eq!(open(directory.path(), clean(10)).end_offset(), 3);
}

#[test]
fn a_wrong_index_of_the_active_segment_costs_no_data() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 10).close().unwrap();
    let index = files(directory.path(), "index").remove(0);
    let mut bytes = std::fs::read(&index).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x15;
    std::fs::write(&index, bytes).unwrap();
    assert_eq!(open(directory.path(), clean(10)).end_offset(), 10);
}

#[test]
fn idle_producers_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    for id in 0..100 {
        log.append_as_leader(&mut transactional(id, 0, b"k", b"v"), 0, 5).unwrap();
        log.append_as_leader(&mut abort(id), 0, 5).unwrap();
    }
    assert_eq!(log.producers().producers().count(), 100);
    log.delete_old_segments(10 * 24 * 3_600_000, 0).unwrap();
    assert_eq!(log.producers().producers().count(), 0);
}

/// Without producers there is nothing to learn from the batches. Seen by damage in an old segment: nobody notices.
#[test]
fn opening_after_a_clean_stop_walks_no_old_segment() {
    let directory = tempfile::tempdir().unwrap();
    let log = filled(directory.path(), 200);
    log.close().unwrap();
    let old = files(directory.path(), "log");
    assert!(old.len() > 3);
    for file in &old[..old.len() - 1] {
        let length = usize::try_from(std::fs::metadata(file).unwrap().len()).unwrap();
        std::fs::write(file, vec![0xff; length]).unwrap();
    }
    assert_eq!(open(directory.path(), clean(200)).end_offset(), 200);
}

/// The tail of a closed segment was not synced and is lost, but the segment behind it has its name. The log would end behind
/// records that it does not have, and nobody would ever send them again.
#[test]
fn a_lost_tail_of_a_closed_segment_leaves_no_hole() {
    let directory = tempfile::tempdir().unwrap();
    let log = filled(directory.path(), 60);
    drop(log);
    let data = files(directory.path(), "log");
    assert!(data.len() > 2);
    let file = std::fs::OpenOptions::new().write(true).open(&data[1]).unwrap();
    let one = plain(1, 0).len() as u64;
    file.set_len(file.metadata().unwrap().len() - one).unwrap();
    let next: i64 = data[2].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let (log, report) = Log::open(&path(directory.path()), config(), OpenOptions::default()).unwrap();
    assert_eq!((log.end_offset(), report.cut_at), (next - 1, Some(next - 1)));
    assert_eq!(files(directory.path(), "log").len(), 2);
}

/// A follower of a compacted log gets gaps, also larger ones than a segment can span.
#[test]
fn gaps_that_compaction_left_on_the_leader_are_no_holes() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    let mut expected = Vec::new();
    for n in 0..60i64 {
        let offset = n * 10 + if n > 30 { 3_000_000_000 } else { 0 };
        let mut batch = plain(1, 5);
        ottla_wire::records::set_base_offset(&mut batch, offset + 5);
        log.append_as_follower(&batch.freeze(), 0).unwrap();
        expected.push(offset + 5);
    }
    let offsets = |log: &Log| common::pairs(log).into_iter().map(|(offset, ..)| offset).collect::<Vec<_>>();
    assert_eq!(offsets(&log), expected);
    drop(log);
    let mut log = open(directory.path(), OpenOptions::default());
    assert_eq!(offsets(&log), expected);
    log.truncate_to(3_000_000_400).unwrap();
    log.append_as_leader(&mut plain(1, 5), 1, 5).unwrap();
    let left = offsets(&log);
    drop(log);
    assert_eq!(offsets(&open(directory.path(), OpenOptions::default())), left);
}

/// After a crash every cache of what is read again is made anew, whatever is in it.
#[test]
fn a_flipped_byte_in_any_cache_changes_nothing_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path(), config());
    for n in 0..30 {
        log.append_as_leader(&mut transactional(9, n, b"k", b"v"), n / 10, 5).unwrap();
    }
    log.append_as_leader(&mut abort(9), 3, 5).unwrap();
    log.append_as_leader(&mut plain(1, 9), 3, 9).unwrap();
    log.roll().unwrap();
    log.append_as_leader(&mut plain(1, 11), 3, 11).unwrap();
    let observe = |log: &Log| {
        let aborted = log.aborted_transactions(0, 40).unwrap();
        let times: Vec<_> = (0..12).map(|time| log.offset_for_timestamp(time).unwrap()).collect();
        (
            common::pairs(log),
            aborted,
            times.into_iter().map(|found| found.map(|one| one.offset)).collect::<Vec<_>>(),
        )
    };
    let expected = observe(&log);
    log.close().unwrap();
    let mut tried = 0;
    for extension in ["index", "timeindex", "txnindex", "snapshot"] {
        for file in files(directory.path(), extension) {
            let Ok(good) = std::fs::read(&file) else { continue };
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x55;
                std::fs::write(&file, &bad).unwrap();
                let log = open(directory.path(), OpenOptions::default());
                assert_eq!(observe(&log), expected, "byte {at} of {}", file.display());
                tried += 1;
            }
        }
    }
    println!("{tried} bytes flipped");
    assert!(tried > 100, "{tried}");
}
