//! Batches that Kafka's own code wrote (`golden/batches.tsv`: name, hex, what is in it as JSON).

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use bytes::{Bytes, BytesMut};
use ottla_wire::compression::Codec;
use ottla_wire::records::{
    Batch, BatchBuilder, BatchOptions, Batches, ControlRecord, EndTransaction, Marker, Record, TimestampType,
    end_transaction_marker, set_base_offset, set_max_timestamp, set_partition_leader_epoch,
};
use serde_json::Value;

const GOLDEN: &str = include_str!("golden/batches.tsv");

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn golden() -> impl Iterator<Item = (&'static str, Bytes, Value)> {
    GOLDEN.lines().map(|line| {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap();
        let (name, hex, json) = (next(), next(), next());
        (name, unhex(hex).into(), serde_json::from_str(json).unwrap())
    })
}

fn batch_of(bytes: &Bytes) -> Batch {
    let mut batches = Batches::new(bytes.clone());
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none() && batches.tail().is_empty());
    batch
}

fn optional_bytes(json: &Value) -> Option<Bytes> {
    json.as_str().map(|hex| unhex(hex).into())
}

fn assert_record(record: &Record, json: &Value) {
    assert_eq!(Some(record.offset), json["offset"].as_i64());
    assert_eq!(Some(record.timestamp), json["timestamp"].as_i64());
    assert_eq!(record.key, optional_bytes(&json["key"]));
    assert_eq!(record.value, optional_bytes(&json["value"]));
    let headers = json["headers"].as_array().unwrap();
    assert_eq!(record.headers.len(), headers.len());
    for (header, json) in record.headers.iter().zip(headers) {
        assert_eq!(header.key, json[0].as_str().unwrap().as_bytes());
        assert_eq!(header.value, optional_bytes(&json[1]));
    }
}

#[test]
fn kafkas_batches_hold_what_kafka_says() {
    let mut seen = 0;
    for (name, bytes, json) in golden() {
        println!("{name}");
        let batch = batch_of(&bytes);
        batch.verify_crc().unwrap();
        let (header, json) = (batch.header, &json[0]);
        assert_eq!(Some(header.base_offset), json["base_offset"].as_i64());
        assert_eq!(Some(header.last_offset()), json["last_offset"].as_i64());
        assert_eq!(Some(header.total_length() as u64), json["size"].as_u64());
        assert_eq!(Some(i64::from(header.partition_leader_epoch)), json["leader_epoch"].as_i64());
        assert_eq!(Some(u64::from(header.crc)), json["crc"].as_u64());
        assert_eq!(Some(header.codec().unwrap().name()), json["compression"].as_str());
        let append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        assert_eq!(append_time, json["timestamp_type"].as_str() == Some("LogAppendTime"));
        assert_eq!(Some(header.max_timestamp), json["max_timestamp"].as_i64());
        assert_eq!(Some(header.producer_id), json["producer_id"].as_i64());
        assert_eq!(Some(i64::from(header.producer_epoch)), json["producer_epoch"].as_i64());
        assert_eq!(Some(i64::from(header.base_sequence)), json["base_sequence"].as_i64());
        assert_eq!(Some(header.is_transactional()), json["transactional"].as_bool());
        assert_eq!(Some(header.is_control()), json["control"].as_bool());
        let records: Vec<_> = batch.records().unwrap().map(Result::unwrap).collect();
        let expected = json["records"].as_array().unwrap();
        assert_eq!(records.len(), expected.len());
        for (record, json) in records.iter().zip(expected) {
            assert_record(record, json);
        }
        seen += 1;
    }
    assert_eq!(seen, 18);
}

/// Builds a batch anew from its records; times are the producer's even where the log's cover them.
fn rebuilt(batch: &Batch) -> Bytes {
    let header = batch.header;
    let mut create_time = BytesMut::from(&batch.bytes()[..]);
    set_max_timestamp(&mut create_time, TimestampType::CreateTime, header.max_timestamp).unwrap();
    let append_time = header.timestamp_type() == TimestampType::LogAppendTime;
    let mut builder = BatchBuilder::new(BatchOptions {
        codec: header.codec().unwrap(),
        level: None,
        base_offset: header.base_offset,
        partition_leader_epoch: header.partition_leader_epoch,
        append_time_ms: append_time.then_some(header.max_timestamp),
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        transactional: header.is_transactional(),
        control: header.is_control(),
    });
    for record in Batch::parse(&create_time.freeze()).unwrap().records().unwrap() {
        let record = record.unwrap();
        let headers: Vec<_> = record.headers.iter().map(|h| (&h.key[..], h.value.as_deref())).collect();
        builder.add(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers).unwrap();
    }
    builder.finish().unwrap()
}

#[test]
fn plain_batches_are_built_byte_for_byte_and_compressed_ones_to_the_same_records() {
    for (name, bytes, _) in golden() {
        let batch = batch_of(&bytes);
        let built = rebuilt(&batch);
        if batch.header.codec().unwrap() == Codec::None {
            assert_eq!(built, bytes, "{name}");
        } else {
            let again = batch_of(&built);
            again.verify_crc().unwrap();
            let records = |batch: &Batch| batch.records().unwrap().map(Result::unwrap).collect::<Vec<_>>();
            assert_eq!(records(&again), records(&batch), "{name}");
            let shape = |batch: &Batch| (batch.header.attributes, batch.header.last_offset_delta);
            assert_eq!(shape(&again), shape(&batch), "{name}");
        }
    }
}

#[test]
fn markers_are_kafkas_byte_for_byte() {
    for (name, end, offset) in
        [("commit-marker", EndTransaction::Commit, 400), ("abort-marker", EndTransaction::Abort, 401)]
    {
        let (_, bytes, _) = golden().find(|(found, ..)| *found == name).unwrap();
        let marker = Marker {
            producer_id: 4001,
            producer_epoch: 0,
            coordinator_epoch: 12,
            timestamp_ms: 1_700_000_000_000,
        };
        let mut built = BytesMut::from(&end_transaction_marker(end, marker).unwrap()[..]);
        set_base_offset(&mut built, offset);
        set_partition_leader_epoch(&mut built, 9);
        assert_eq!(built, bytes, "{name}");
        let record = batch_of(&bytes).records().unwrap().next().unwrap().unwrap();
        let expected = ControlRecord::EndTransaction { end, coordinator_epoch: 12 };
        assert_eq!(ControlRecord::parse(&record), Ok(expected));
    }
}
