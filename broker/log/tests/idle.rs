//! What many partitions cost that nobody uses: memory and file handles.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use common::plain;
use ottla_log::{Log, LogConfig, OpenOptions};
use uuid::Uuid;

/// Partitions of the test; what 10,000 cost is this many times that of one.
const PARTITIONS: usize = 600;
/// Bytes of memory that an idle partition's log may take.
const IDLE_BYTES_MAX: usize = 4_096;

/// Bytes of this process that are in memory.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn an_idle_partition_takes_less_than_four_kilobytes_and_no_file_handle() {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = |n: usize| directory.path().join(format!("a-topic-of-a-usual-name-{n}"));
    let config = LogConfig { segment_bytes: 1_000, index_interval_bytes: 100, ..LogConfig::default() };
    for n in 0..PARTITIONS {
        let mut log = Log::create(&path(n), Uuid::from_u128(7), config.clone(), 0).unwrap();
        for timestamp in 0..12 {
            log.append_as_leader(&mut plain(1, timestamp), 0, timestamp).unwrap();
        }
        log.close().unwrap();
    }
    let (bytes_before, files_before) = (resident_bytes(), open_files());
    let mut logs = Vec::with_capacity(PARTITIONS);
    for n in 0..PARTITIONS {
        let options = OpenOptions { clean_shutdown: true, recovery_point: 12, ..Default::default() };
        let mut log = Log::open(&path(n), config.clone(), options).unwrap().0;
        log.rest().unwrap();
        logs.push(log);
    }
    let each = (resident_bytes() - bytes_before) / PARTITIONS;
    println!("{each} bytes a partition of two segments, {} files in all", open_files() - files_before);
    assert!(each < IDLE_BYTES_MAX, "{each}");
    assert!(open_files() <= files_before + 5);
    for log in &mut logs {
        assert_eq!(log.read(0, 500, 12, true).unwrap().position, 0);
        assert_eq!(log.append_as_leader(&mut plain(1, 12), 0, 12).unwrap().first_offset, 12);
        assert_eq!(log.offset_for_timestamp(12).unwrap().unwrap().offset, 12);
    }
    assert!(open_files() >= files_before + PARTITIONS, "those that are written to have theirs open");
    for log in &mut logs {
        log.rest().unwrap();
    }
    assert!(open_files() <= files_before + 5);
}
