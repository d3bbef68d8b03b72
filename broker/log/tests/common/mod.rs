//! What the tests of logs share.

#![allow(dead_code, reason = "not every test file needs everything")]
#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use ottla_log::{Log, LogConfig, OffsetMap, OpenOptions, compact};
use ottla_wire::compression::Codec;
use ottla_wire::records::{
    BatchBuilder, BatchOptions, Batches, EndTransaction, Marker, end_transaction_marker,
};
use uuid::Uuid;

/// A key and a value, none being a tombstone.
pub(crate) type Keyed = (Vec<u8>, Option<Vec<u8>>);

pub(crate) fn path(root: &Path) -> PathBuf {
    root.join("t-0")
}

pub(crate) fn create(root: &Path, config: LogConfig) -> Log {
    Log::create(&path(root), Uuid::from_u128(7), config, 0).unwrap()
}

pub(crate) fn open(root: &Path, config: LogConfig, clean_shutdown: bool) -> Log {
    let recovery_point = if clean_shutdown { i64::MAX } else { 0 };
    let options = OpenOptions { clean_shutdown, recovery_point, ..Default::default() };
    Log::open(&path(root), config, options).unwrap().0
}

/// A batch of records of one time.
pub(crate) fn keyed(records: &[Keyed], timestamp: i64, codec: Codec) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..Default::default() });
    for (key, value) in records {
        builder.add(timestamp, Some(key), value.as_deref(), &[(b"h", None)]).unwrap();
    }
    BytesMut::from(&builder.finish().unwrap()[..])
}

/// A batch of records without keys.
pub(crate) fn plain(count: usize, timestamp: i64) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..count {
        builder.add(timestamp, None, Some(&[0; 50]), &[]).unwrap();
    }
    BytesMut::from(&builder.finish().unwrap()[..])
}

/// A batch of one record of an idempotent producer, in a transaction.
pub(crate) fn transactional(producer_id: i64, sequence: i32, key: &[u8], value: &[u8]) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id,
        producer_epoch: 0,
        base_sequence: sequence,
        transactional: true,
        ..Default::default()
    });
    builder.add(5, Some(key), Some(value), &[]).unwrap();
    BytesMut::from(&builder.finish().unwrap()[..])
}

/// A batch of one record of an idempotent producer.
pub(crate) fn idempotent(producer_id: i64, sequence: i32) -> BytesMut {
    let options =
        BatchOptions { producer_id, producer_epoch: 0, base_sequence: sequence, ..Default::default() };
    let mut builder = BatchBuilder::new(options);
    builder.add(5, None, Some(b"value"), &[]).unwrap();
    BytesMut::from(&builder.finish().unwrap()[..])
}

fn end(producer_id: i64, end: EndTransaction) -> BytesMut {
    let marker = Marker { producer_id, producer_epoch: 0, coordinator_epoch: 0, timestamp_ms: 5 };
    BytesMut::from(&end_transaction_marker(end, marker).unwrap()[..])
}

pub(crate) fn abort(producer_id: i64) -> BytesMut {
    end(producer_id, EndTransaction::Abort)
}

pub(crate) fn commit(producer_id: i64) -> BytesMut {
    end(producer_id, EndTransaction::Commit)
}

/// One whole pass; gives the first dirty offset.
pub(crate) fn compact_all(log: &mut Log, first_dirty: Option<i64>, now_ms: i64, map_bytes: usize) -> i64 {
    let plan = log.plan_compaction(first_dirty, now_ms).unwrap().expect("nothing to compact");
    let mut map = OffsetMap::with_budget(map_bytes);
    let report =
        compact(&plan, &mut map, &mut |_| true, &mut |group| log.swap_cleaned(group).map(drop)).unwrap();
    log.finish_compaction(plan, &report).unwrap()
}

/// Every data record: offset, key, value.
pub(crate) fn pairs(log: &Log) -> Vec<(i64, Vec<u8>, Option<Vec<u8>>)> {
    let mut out = Vec::new();
    let mut next = log.log_start_offset();
    while next < log.end_offset() {
        let slice = log.read(next, 3_000, log.end_offset(), true).unwrap();
        for batch in Batches::new(slice.to_bytes().unwrap()) {
            let batch = batch.unwrap();
            if batch.header.is_control() {
                continue;
            }
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                if record.offset >= next {
                    let key = record.key.map(|key| key.to_vec()).unwrap_or_default();
                    out.push((record.offset, key, record.value.map(|value| value.to_vec())));
                }
            }
        }
        assert!(slice.next_offset_max > next || slice.length == 0, "no progress at {next}");
        next = slice.next_offset_max.max(next + 1);
    }
    out
}
