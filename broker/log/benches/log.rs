//! What a log costs: `cargo bench -p ottla-log`. Run it on a quiet machine; the files are in memory (`/dev/shm`) if there is
//! such a place, so it is the code that is measured, not the disk.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed benchmark")]

use bytes::BytesMut;
use divan::Bencher;
use divan::counter::BytesCount;
use ottla_log::{Log, LogConfig, OffsetMap, OpenOptions, compact};
use ottla_wire::records::{BatchBuilder, BatchOptions};
use tempfile::TempDir;
use uuid::Uuid;

const MIB: usize = 1 << 20;

fn main() {
    divan::main();
}

fn temporary() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn config(segment_bytes: usize) -> LogConfig {
    LogConfig { segment_bytes, compacts: true, deletes: false, ..LogConfig::default() }
}

fn create(directory: &TempDir, segment_bytes: usize) -> Log {
    Log::create(&directory.path().join("t-0"), Uuid::nil(), config(segment_bytes), 0).unwrap()
}

/// A batch of about so many bytes in records of 100; keys go round.
fn batch(bytes: usize, first_key: usize, keys: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for n in 0..bytes / 116 {
        let key = ((first_key + n) % keys).to_be_bytes();
        builder.add(1_000, Some(&key), Some(&[7; 100]), &[]).unwrap();
    }
    BytesMut::from(&builder.finish().unwrap()[..])
}

/// A log of so many bytes in batches of 16 KiB.
fn filled(directory: &TempDir, bytes: usize, segment_bytes: usize, keys: usize) -> Log {
    let mut log = create(directory, segment_bytes);
    let mut key = 0;
    while log.size_bytes() < bytes as u64 {
        log.append_as_leader(&mut batch(16 * 1024, key, keys), 0, 1_000).unwrap();
        key += 16 * 1024 / 116;
    }
    log.update_high_watermark(log.end_offset());
    log
}

/// Target: below 12 microseconds.
#[divan::bench]
fn append_16_kib(bencher: Bencher) {
    let directory = temporary();
    let mut log = create(&directory, 256 * MIB);
    let one = batch(16 * 1024, 0, 1_000);
    let mut appended = 0;
    bencher.counter(BytesCount::new(one.len())).with_inputs(|| one.clone()).bench_local_values(
        |mut batch| {
            appended += 1;
            if appended % 10_000 == 0 {
                let end = log.end_offset();
                log.truncate_fully_and_start_at(end).unwrap();
            }
            log.append_as_leader(&mut batch, 0, 1_000).unwrap()
        },
    );
}

#[divan::bench]
fn read_1_mib(bencher: Bencher) {
    let directory = temporary();
    let log = filled(&directory, 64 * MIB, 256 * MIB, 1_000);
    let end = log.end_offset();
    let mut offset = 0;
    bencher.counter(BytesCount::new(MIB)).bench_local(|| {
        offset = (offset + 7_919) % (end - 10_000);
        log.read(offset, MIB, end, true).unwrap().to_bytes().unwrap()
    });
}

#[divan::bench]
fn find_an_offset(bencher: Bencher) {
    let directory = temporary();
    let log = filled(&directory, 64 * MIB, 256 * MIB, 1_000);
    let end = log.end_offset();
    let mut offset = 0;
    bencher.bench_local(|| {
        offset = (offset + 7_919) % end;
        log.read(offset, MIB, end, true).unwrap().length
    });
}

/// Target: 1 GB/s.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn recover_256_mib(bencher: Bencher) {
    let directory = temporary();
    drop(filled(&directory, 256 * MIB, 64 * MIB, 1_000));
    bencher.counter(BytesCount::new(256 * MIB)).bench_local(|| {
        Log::open(&directory.path().join("t-0"), config(64 * MIB), OpenOptions::default()).unwrap().1
    });
}

/// Target: 150 MB/s of what is read and written. A tenth of the records stays.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn compact_128_mib(bencher: Bencher) {
    let inputs = || {
        let directory = temporary();
        let log = filled(&directory, 128 * MIB, 32 * MIB, 100_000);
        (directory, log)
    };
    bencher.counter(BytesCount::new(128 * MIB)).with_inputs(inputs).bench_local_values(
        |(directory, mut log)| {
            let plan = log.plan_compaction(None, 2_000).unwrap().unwrap();
            let mut map = OffsetMap::with_budget(128 * MIB);
            let report =
                compact(&plan, &mut map, &mut |_| true, &mut |group| log.swap_cleaned(group).map(drop))
                    .unwrap();
            (directory, report)
        },
    );
}
