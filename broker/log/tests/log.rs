//! A log against a model in memory: appends, rolls, truncations, reopening after clean stops and after crashes.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::path::Path;

use bytes::{Bytes, BytesMut};
use ottla_log::{Log, LogConfig, LogError, OpenOptions};
use ottla_wire::records::{BatchBuilder, BatchOptions, Batches};
use proptest::prelude::*;
use uuid::Uuid;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 2_000, index_interval_bytes: 200, ..LogConfig::default() }
}

fn create(path: &Path) -> Log {
    Log::create(&path.join("t-0"), Uuid::from_u128(7), config(), 0).unwrap()
}

fn batch(values: &[&[u8]], timestamp: i64, producer: Option<(i64, i32)>) -> BytesMut {
    let (producer_id, base_sequence) = producer.unwrap_or((-1, -1));
    let producer_epoch = if producer.is_some() { 0 } else { -1 };
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id,
        producer_epoch,
        base_sequence,
        ..BatchOptions::default()
    });
    for value in values {
        builder.add(timestamp, None, Some(value), &[]).unwrap();
    }
    BytesMut::from(&builder.finish().unwrap()[..])
}

fn open(path: &Path, options: OpenOptions) -> Log {
    Log::open(&path.join("t-0"), config(), options).unwrap().0
}

/// I51: a replica that led and wrote nothing does not keep the epoch that it led in when its new leader does not know it.
#[test]
fn truncating_at_the_end_forgets_an_epoch_without_records() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path());
    log.append_as_leader(&mut batch(&[b"a", b"b"], 1, None), 0, 1).unwrap();
    log.begin_leader_epoch(3, 2);
    assert_eq!(log.latest_epoch(), Some(3));
    log.truncate_to(2).unwrap();
    assert_eq!((log.latest_epoch(), log.end_offset()), (Some(0), 2));
    drop(log);
    assert_eq!(open(directory.path(), OpenOptions::default()).latest_epoch(), Some(0), "on disk as well");
}

/// Every value from an offset on, read slice by slice.
fn values(log: &Log, from: i64, bytes_max: usize) -> Vec<(i64, Bytes)> {
    let mut out: Vec<(i64, Bytes)> = Vec::new();
    let mut next = from;
    while next < log.end_offset() {
        let slice = log.read(next, bytes_max, log.end_offset(), true).unwrap();
        assert!(slice.length > 0, "nothing at {next} of {}", log.end_offset());
        for batch in Batches::new(slice.to_bytes().unwrap()) {
            for record in batch.unwrap().records().unwrap() {
                let record = record.unwrap();
                if record.offset >= next {
                    out.push((record.offset, record.value.unwrap()));
                    next = record.offset + 1;
                }
            }
        }
        next = next.max(slice.next_offset_max);
    }
    out
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Vec<u8>>),
    Truncate(u8),
    Roll,
    ReopenClean,
    Crash { torn_bytes: u8 },
    NewEpoch,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = proptest::collection::vec(any::<u8>(), 0..120);
    let step = prop_oneof![
        6 => proptest::collection::vec(value, 1..5).prop_map(Step::Append),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => Just(Step::Roll),
        1 => Just(Step::ReopenClean),
        1 => (0u8..200).prop_map(|torn_bytes| Step::Crash { torn_bytes }),
        1 => Just(Step::NewEpoch),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// I26: what is there is a prefix of what was appended, and all of it unless the tail was torn off.
    #[test]
    fn a_log_is_what_the_model_says(steps in steps(), read_bytes in 100usize..5_000) {
        let directory = tempfile::tempdir().unwrap();
        let mut log = create(directory.path());
        // Batches: first offset and values.
        let mut model: Vec<(i64, Vec<Vec<u8>>)> = Vec::new();
        let mut epoch = 0;
        for step in steps {
            match step {
                Step::Append(records) => {
                    let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
                    let info = log.append_as_leader(&mut batch(&slices, 1_000, None), epoch, 1_000).unwrap();
                    model.push((info.first_offset, records));
                }
                Step::Truncate(share) => {
                    let target = log.end_offset() * i64::from(share) / 255;
                    log.truncate_to(target).unwrap();
                    // A batch that holds the offset goes whole.
                    model.retain(|(first, records)| first + records.len() as i64 <= target);
                }
                Step::Roll => log.roll().unwrap(),
                Step::ReopenClean => {
                    let end = log.end_offset();
                    log.close().unwrap();
                    log = open(directory.path(), OpenOptions { recovery_point: end, clean_shutdown: true, ..Default::default() });
                }
                Step::Crash { torn_bytes } => {
                    drop(log);
                    let mut files: Vec<_> = std::fs::read_dir(directory.path().join("t-0")).unwrap()
                        .map(|entry| entry.unwrap().path())
                        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
                        .collect();
                    files.sort();
                    let last = files.pop().unwrap();
                    let length = std::fs::metadata(&last).unwrap().len();
                    let file = std::fs::OpenOptions::new().write(true).open(&last).unwrap();
                    file.set_len(length.saturating_sub(u64::from(torn_bytes))).unwrap();
                    log = open(directory.path(), OpenOptions::default());
                    let end = log.end_offset();
                    model.retain(|(first, records)| first + records.len() as i64 <= end);
                    if torn_bytes == 0 {
                        prop_assert_eq!(end, model.last().map_or(0, |(first, records)| first + records.len() as i64));
                    }
                }
                Step::NewEpoch => epoch += 1,
            }
            let expected: Vec<(i64, Vec<u8>)> = model.iter()
                .flat_map(|(first, records)| (*first..).zip(records.iter().cloned()))
                .collect();
            let found: Vec<(i64, Vec<u8>)> = values(&log, 0, read_bytes).into_iter().map(|(o, v)| (o, v.to_vec())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn a_read_ends_between_batches_and_before_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path());
    for _ in 0..20 {
        log.append_as_leader(&mut batch(&[b"aaaa", b"bbbb"], 5, None), 0, 5).unwrap();
    }
    let one = log.read(0, 1, 40, true).unwrap();
    assert_eq!(one.next_offset_max, 2);
    assert_eq!(log.read(0, 1, 40, false).unwrap().length, 0);
    let limited = log.read(3, 1_000_000, 6, true).unwrap();
    assert_eq!(limited.length, 2 * one.length);
    assert_eq!(limited.next_offset_max, 6);
    assert_eq!(log.read(40, 1_000, 40, true).unwrap().length, 0);
    assert!(matches!(log.read(41, 1_000, 41, true), Err(LogError::OffsetOutOfRange { start: 0, end: 40 })));
}

/// I28: an index, a snapshot, the epochs: deleting any of them costs time only.
#[test]
fn caches_are_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path());
    for n in 0..60 {
        let mut records = batch(&[b"some value of some length"], n, Some((9, i32::try_from(n).unwrap())));
        log.append_as_leader(&mut records, i32::try_from(n / 20).unwrap(), n).unwrap();
    }
    let expected = values(&log, 0, 700);
    let epochs: Vec<_> = (0..4).map(|epoch| log.end_offset_for_epoch(epoch)).collect();
    log.close().unwrap();
    let path = directory.path().join("t-0");
    let is_cache =
        |name: &str| name.rsplit_once('.').is_none_or(|(_, kind)| kind != "log" && kind != "metadata");
    let caches: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| is_cache(name))
        .collect();
    assert!(caches.len() > 4, "{caches:?}");
    for cache in caches {
        std::fs::remove_file(path.join(&cache)).unwrap_or_default();
        for clean_shutdown in [true, false] {
            let mut log = open(
                directory.path(),
                OpenOptions { clean_shutdown, recovery_point: 60, ..Default::default() },
            );
            assert_eq!(values(&log, 0, 700), expected, "without {cache}");
            assert_eq!(
                (0..4).map(|epoch| log.end_offset_for_epoch(epoch)).collect::<Vec<_>>(),
                epochs,
                "without {cache}"
            );
            let again = log.append_as_leader(&mut batch(&[b"x"], 59, Some((9, 59))), 5, 59).unwrap();
            assert!(again.is_duplicate, "without {cache}");
            log.close().unwrap();
        }
    }
}

/// I26: whatever byte is wrong, what is read is a right prefix.
#[test]
fn every_flipped_byte_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path());
    for n in 0..4u8 {
        log.append_as_leader(&mut batch(&[&[n; 20]], 5, None), 0, 5).unwrap();
    }
    let expected = values(&log, 0, 10_000);
    drop(log);
    let path = directory.path().join("t-0/00000000000000000000.log");
    let good = std::fs::read(&path).unwrap();
    let one = good.len() / 4;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        std::fs::write(&path, &bad).unwrap();
        let log = open(directory.path(), OpenOptions::default());
        let found = values(&log, 0, 10_000);
        let within = at % one;
        // Base offset and leader epoch lie outside of the checksum, because brokers set them.
        if within < 8 || (12..16).contains(&within) {
            assert!(found.len() >= at / one, "byte {at}");
        } else {
            assert_eq!(found[..], expected[..at / one], "byte {at}");
        }
    }
}

#[test]
fn times_are_found_inside_batches() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path());
    for n in 0..50 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for k in 0..3 {
            builder.add(n * 100 + k * 10, None, Some(&[0; 50]), &[]).unwrap();
        }
        log.append_as_leader(&mut BytesMut::from(&builder.finish().unwrap()[..]), 0, n * 100).unwrap();
    }
    let at =
        |timestamp| log.offset_for_timestamp(timestamp).unwrap().map(|found| (found.offset, found.timestamp));
    assert_eq!(at(0), Some((0, 0)));
    assert_eq!(at(1), Some((1, 10)));
    assert_eq!(at(4_211), Some((128, 4_220)));
    assert_eq!(at(4_921), None);
    let last = log.max_timestamp().unwrap().unwrap();
    assert_eq!((last.offset, last.timestamp), (149, 4_920));
}

#[test]
fn retention_takes_whole_segments_oldest_first_and_below_the_high_watermark() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = create(directory.path());
    for n in 0..100 {
        log.append_as_leader(&mut batch(&[&[0; 100]], n, None), 0, n).unwrap();
    }
    log.set_config(LogConfig { retention_bytes: 5_000, retention_ms: -1, ..config() });
    assert!(log.delete_old_segments(1_000, 5).unwrap().is_empty());
    assert!(!log.delete_old_segments(1_000, 100).unwrap().is_empty());
    assert!((5_000..8_000).contains(&log.size_bytes()), "{}", log.size_bytes());
    let start = log.log_start_offset();
    assert!(start > 0);
    assert_eq!(values(&log, start, 900).len(), usize::try_from(100 - start).unwrap());
    assert!(matches!(log.read(start - 1, 10, 100, true), Err(LogError::OffsetOutOfRange { .. })));
    log.set_config(LogConfig { retention_ms: 10, ..config() });
    log.delete_old_segments(100_000, 100).unwrap();
    assert_eq!((log.log_start_offset(), log.end_offset()), (100, 100));
}
