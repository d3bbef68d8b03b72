//! A partition's directory of which every file may hold anything: opening it keeps a right prefix or says what is wrong, and
//! what it keeps can be read, found by time, added to and opened again.
//!
//! The first byte says how the directory is opened, the next three how the bytes behind are shared among the files.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ottla_log::{Log, LogConfig, OpenOptions};
use ottla_wire::records::{BatchBuilder, BatchOptions, Batches, BatchSlices, checksum};
use uuid::Uuid;

/// What a batch's checksum covers begins here; it lies before.
const CRC_FROM: usize = 21;

fn batch(n: i64) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.add(n, None, Some(b"value"), &[]).expect("a small record");
    BytesMut::from(&builder.finish().expect("a small batch")[..])
}

/// Gives every batch a right checksum, which the fuzzer would never find.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let mut at = 0;
    loop {
        let mut slices = BatchSlices::new(&bytes[at..]);
        let Some(Ok((header, _))) = slices.next() else { return bytes };
        let end = at + header.total_length();
        let crc = checksum(&bytes[at + CRC_FROM..end]);
        bytes[at + CRC_FROM - 4..at + CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        at = end;
    }
}

/// Everything that the log serves is whole and in order. What lies before the recovery point, or was closed cleanly, is believed and
/// not read at the start: of a file that somebody put there nothing can be said.
fn check(log: &Log, is_checked: bool) {
    let (start, end) = (log.log_start_offset(), log.end_offset());
    assert!(start <= end && log.recovery_point() <= end, "{start}..{end}");
    let mut next = start;
    while next < end {
        let Ok(slice) = log.read(next, 1 << 20, end, true) else { return };
        let Ok(bytes) = slice.to_bytes() else { return };
        for batch in Batches::new(bytes) {
            // After a clean stop nothing was checked: a reader may meet damage, and says so.
            let Ok(batch) = batch else { return };
            assert!(!is_checked || batch.header.last_offset() < end);
        }
        if slice.next_offset_max <= next {
            return;
        }
        next = slice.next_offset_max;
    }
}

fuzz_target!(|data: &[u8]| {
    let [how, first, second, third, rest @ ..] = data else { return };
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let path = root.path().join("t-0");
    let config = LogConfig { segment_bytes: 1_000, index_interval_bytes: 60, ..LogConfig::default() };
    let created = Log::create(&path, Uuid::from_u128(7), config.clone(), 0).expect("an empty log");
    let mut log = created;
    for n in 0..i64::from(how >> 6) {
        log.append_as_leader(&mut batch(n), 0, n).expect("an empty disk");
    }
    drop(log);
    // The files' bytes: up to a quarter of what is left for each cache, the rest is data.
    let share = |byte: u8| rest.len() / 4 * usize::from(byte) / 255;
    let (index, rest) = rest.split_at(share(*first));
    let (times, rest) = rest.split_at(share(*second).min(rest.len()));
    let (others, data) = rest.split_at(share(*third).min(rest.len()));
    let write = |name: &str, bytes: &[u8]| std::fs::write(path.join(name), bytes).expect("a file");
    if how & 1 != 0 {
        let mut log = std::fs::read(path.join("00000000000000000000.log")).unwrap_or_default();
        log.extend_from_slice(&sealed(data));
        write("00000000000000000000.log", &log);
    }
    if how & 2 != 0 {
        write("00000000000000000000.index", index);
        write("00000000000000000000.timeindex", times);
    }
    if how & 4 != 0 {
        write("00000000000000000000.txnindex", others);
        write("leader-epoch-checkpoint", others);
    }
    if how & 8 != 0 {
        write("00000000000000000002.log", &sealed(others));
    }
    let options = OpenOptions {
        clean_shutdown: how & 16 != 0,
        recovery_point: i64::from(how & 32) / 16,
        keeps_damage: how & 32 != 0,
        ..OpenOptions::default()
    };
    let Ok((mut log, _)) = Log::open(&path, config.clone(), options) else { return };
    check(&log, how & (16 | 32) == 0);
    let end = log.end_offset();
    drop(log.offset_for_timestamp(1));
    drop(log.max_timestamp());
    drop(log.aborted_transactions(0, end));
    let _ = log.last_stable_offset(end);
    if let Ok(info) = log.append_as_leader(&mut batch(9), 9, 9) {
        assert_eq!(info.first_offset, end);
    }
    drop(log.roll());
    drop(log.append_as_leader(&mut batch(9), 9, 9));
    drop(log.delete_old_segments(1 << 50, log.end_offset()));
    drop(log.truncate_to(end));
    let end = log.end_offset();
    if log.close().is_ok() {
        let options = OpenOptions { clean_shutdown: true, recovery_point: end, ..OpenOptions::default() };
        if let Ok((again, _)) = Log::open(&path, config, options) {
            check(&again, how & (16 | 32) == 0);
        }
    }
});
