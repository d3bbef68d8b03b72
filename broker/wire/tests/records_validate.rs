//! What a produce request may hold: each broken rule, its Kafka error, and what is stored of a good batch.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::io::Write;

use bytes::Bytes;
use ottla_wire::compression::Codec;
use ottla_wire::records::validate::RECORD_ERRORS_MAX;
use ottla_wire::records::{
    Batch, BatchBuilder, BatchHeader, BatchOptions, ProduceRules, RefusalReason, TargetCompression,
    TimestampType, ValidatedBatch, validate_produce,
};

use RefusalReason::{Corrupt, InvalidRecord, InvalidTimestamp, TooLarge, UnsupportedCompression};

const NOW_MS: i64 = 1_800_000_000_000;
const BIG: i32 = i32::MAX;

fn rules() -> ProduceRules {
    ProduceRules { now_ms: NOW_MS, ..ProduceRules::default() }
}

fn varint(value: i32) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 31)).cast_unsigned();
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
    bytes
}

#[derive(Default)]
struct Fields {
    delta: i32,
    length: Option<i32>,
    key_length: Option<i32>,
    value_length: Option<i32>,
    headers: Option<Vec<u8>>,
}

fn record(fields: Fields) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(varint(fields.delta));
    body.extend(varint(fields.key_length.unwrap_or(-1)));
    body.extend(varint(fields.value_length.unwrap_or(1)));
    body.push(b'v');
    body.extend(fields.headers.unwrap_or(vec![0]));
    let mut record = varint(fields.length.unwrap_or(i32::try_from(body.len()).unwrap()));
    record.extend(body);
    record
}

fn one() -> Vec<u8> {
    record(Fields::default())
}

/// A batch of the given record bytes; `change` may break the header before the checksum is made.
fn batch(records: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut header = BatchHeader {
        base_offset: 0,
        batch_length: i32::try_from(49 + records.len()).unwrap(),
        partition_leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: 0,
        base_timestamp: NOW_MS,
        max_timestamp: NOW_MS,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 1,
    };
    change(&mut header);
    let mut bytes = [&header.to_bytes()[..], records].concat();
    let crc = crc_fast::crc32_iscsi(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
fn refused(bytes: &[u8], allowed: &[RefusalReason]) {
    let refusal = validate_produce(bytes, &rules()).unwrap_err();
    assert!(allowed.contains(&refusal.reason), "{refusal:?}");
}

#[test]
fn a_good_batch_passes_unchanged() {
    let bytes = batch(&one(), |_| {});
    let validated = validate_produce(&bytes, &rules()).unwrap();
    assert!(!validated.timestamps_change && validated.recompress.is_none());
    assert_eq!(validated.store(bytes.clone().into(), &rules()).unwrap(), bytes);
}

#[test]
fn every_flipped_bit_behind_the_leader_epoch_is_noticed() {
    let good = batch(&one(), |_| {});
    for at in 16..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(validate_produce(&bad, &rules()).is_err(), "byte {at} bit {bit}");
        }
    }
    let mut last = good.clone();
    *last.last_mut().unwrap() ^= 1;
    refused(&last, &[Corrupt]);
}

#[test]
fn magic_decides_the_error() {
    for (magic, reason) in
        [(0, InvalidRecord), (1, InvalidRecord), (3, Corrupt), (-1, Corrupt), (127, Corrupt)]
    {
        refused(&batch(&one(), |header| header.magic = magic), &[reason]);
    }
}

#[test]
fn counts_that_disagree_with_the_records_are_refused() {
    for count in [BIG, -1, 0, 2, i32::MIN] {
        refused(&batch(&one(), |header| header.record_count = count), &[InvalidRecord]);
    }
    for delta in [BIG, -1, 1, 5, i32::MIN] {
        refused(&batch(&one(), |header| header.last_offset_delta = delta), &[InvalidRecord]);
    }
    let counted = |count: i32| {
        move |header: &mut BatchHeader| {
            (header.record_count, header.last_offset_delta) = (count, count.wrapping_sub(1));
        }
    };
    for count in [2, BIG, 0, -1, i32::MIN] {
        refused(&batch(&one(), counted(count)), &[InvalidRecord]);
    }
    let two = [one(), record(Fields { delta: 1, ..Fields::default() })].concat();
    refused(&batch(&two, |_| {}), &[InvalidRecord]);
    assert!(validate_produce(&batch(&two, counted(2)), &rules()).is_ok());
    refused(&batch(&[], counted(0)), &[InvalidRecord]);
}

#[test]
fn batch_lengths_that_lie_are_refused() {
    for length in [0, -1, i32::MIN, 4, 48, 49, 1000, BIG] {
        refused(&batch(&one(), |header| header.batch_length = length), &[Corrupt, InvalidRecord]);
    }
}

#[test]
fn lengths_inside_a_record_that_lie_are_refused() {
    let bad = |fields: Fields| refused(&batch(&record(fields), |_| {}), &[InvalidRecord]);
    for length in [-1, 0, 1, 5, 100, BIG, i32::MIN] {
        bad(Fields { length: Some(length), ..Fields::default() });
    }
    for length in [100, BIG, -2] {
        bad(Fields { key_length: Some(length), ..Fields::default() });
        bad(Fields { value_length: Some(length), ..Fields::default() });
    }
    let headers = [
        varint(1000),
        varint(BIG),
        varint(-1),
        [varint(1), varint(-1), varint(-1)].concat(),
        [varint(1), varint(50), b"a".to_vec(), varint(-1)].concat(),
    ];
    for headers in headers {
        bad(Fields { headers: Some(headers), ..Fields::default() });
    }
    refused(&batch(&[&[0xff; 12][..], &one()].concat(), |_| {}), &[InvalidRecord]);
}

#[test]
fn cut_and_doubled_batches_are_refused() {
    let good = batch(&one(), |_| {});
    for length in 0..good.len() {
        refused(&good[..length], &[InvalidRecord]);
    }
    refused(&[&good[..], &good[..]].concat(), &[InvalidRecord]);
    refused(&[&good[..], &[0; 20]].concat(), &[InvalidRecord]);
    refused(&[0; 100], &[Corrupt, InvalidRecord]);
    refused(&[0xff; 100], &[Corrupt, InvalidRecord]);
}

#[test]
fn headers_that_clients_may_not_write_are_refused() {
    refused(&batch(&one(), |header| header.base_offset = 77), &[InvalidRecord]);
    refused(&batch(&one(), |header| header.base_offset = -5), &[InvalidRecord]);
    refused(&batch(&one(), |header| header.attributes = 0x20), &[InvalidRecord]);
    refused(&batch(&one(), |header| header.attributes = 0x40), &[InvalidRecord]);
    refused(&batch(&one(), |header| header.attributes = 0x10), &[InvalidRecord]);
    refused(&batch(&one(), |header| header.attributes = 0x08), &[InvalidTimestamp]);
    let producer = |epoch, sequence| {
        batch(&one(), |header| {
            (header.producer_id, header.producer_epoch, header.base_sequence) = (5, epoch, sequence);
        })
    };
    refused(&producer(-1, 0), &[InvalidRecord]);
    refused(&producer(0, -1), &[InvalidRecord]);
    assert!(validate_produce(&producer(0, 0), &rules()).is_ok());
}

#[test]
fn compressed_records_that_lie_are_refused() {
    let compressed = |codec: i16, records: &[u8]| batch(records, |header| header.attributes = codec);
    for codec in 1..=7 {
        refused(&compressed(codec, &[0x55; 40]), &[InvalidRecord]);
        refused(&compressed(codec, &[]), &[InvalidRecord]);
    }
    let whole = gzip(&one());
    assert!(validate_produce(&compressed(1, &whole), &rules()).is_ok());
    for length in 0..whole.len() {
        refused(&compressed(1, &whole[..length]), &[InvalidRecord]);
    }
    refused(&compressed(1, &gzip(b"")), &[InvalidRecord]);
    let two = [one(), record(Fields { delta: 1, ..Fields::default() })].concat();
    refused(&compressed(1, &gzip(&two)), &[InvalidRecord]);
    refused(&compressed(1, &gzip(&record(Fields { delta: 3, ..Fields::default() }))), &[InvalidRecord]);
    refused(
        &compressed(1, &gzip(&record(Fields { value_length: Some(BIG), ..Fields::default() }))),
        &[InvalidRecord],
    );
    refused(
        &batch(&whole, |header| {
            (header.attributes, header.record_count, header.last_offset_delta) = (1, BIG, BIG - 1);
        }),
        &[InvalidRecord],
    );
}

#[test]
fn a_bomb_is_cut_off_at_the_limit_without_being_held() {
    let bomb = zstd::encode_all(&vec![0; 10_000_000][..], 3).unwrap();
    let records = batch(&bomb, |header| header.attributes = 4);
    refused(&records, &[InvalidRecord]);
    let length = 9_000_000;
    let mut plain = varint(length);
    plain.extend([0, 0, 0]);
    plain.extend(varint(-1));
    let rest = length - 3 - 1 - 4 - 1;
    plain.extend(varint(rest));
    plain.resize(plain.len() + usize::try_from(rest).unwrap(), 0);
    plain.push(0);
    let honest = batch(&zstd::encode_all(&plain[..], 3).unwrap(), |header| header.attributes = 4);
    validate_produce(&honest, &rules()).unwrap();
    let limited = ProduceRules { decompressed_bytes_max: 1_000_000, ..rules() };
    assert_eq!(validate_produce(&honest, &limited).unwrap_err().reason, TooLarge);
}

#[test]
fn the_size_limit_is_exact_and_comes_before_the_checksum() {
    let mut bytes = batch(&one(), |_| {});
    let limited = |max_message_bytes| ProduceRules { max_message_bytes, ..rules() };
    assert!(validate_produce(&bytes, &limited(bytes.len())).is_ok());
    bytes[17] ^= 1;
    assert_eq!(validate_produce(&bytes, &limited(bytes.len() - 1)).unwrap_err().reason, TooLarge);
}

#[test]
fn zstd_needs_a_version_that_knows_it() {
    let records = zstd::encode_all(&one()[..], 3).unwrap();
    let bytes = batch(&records, |header| header.attributes = 4);
    let old = ProduceRules { zstd_allowed: false, ..rules() };
    assert_eq!(validate_produce(&bytes, &old).unwrap_err().reason, UnsupportedCompression);
    assert!(validate_produce(&bytes, &rules()).is_ok());
}

fn built(codec: Codec, records: &[(i64, Option<&str>)]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
    for (timestamp, key) in records {
        let header: (&[u8], Option<&[u8]>) = (b"h", None);
        let value = "value ".repeat(50);
        builder.add(*timestamp, key.map(str::as_bytes), Some(value.as_bytes()), &[header, header]).unwrap();
    }
    builder.finish().unwrap()
}

#[test]
fn records_without_key_are_named_where_keys_are_required() {
    let compacted = ProduceRules { keys_required: true, ..rules() };
    for codec in Codec::ALL {
        let bytes = built(codec, &[(NOW_MS, Some("k")), (NOW_MS, None), (NOW_MS, Some(""))]);
        let refusal = validate_produce(&bytes, &compacted).unwrap_err();
        assert_eq!(refusal.reason, InvalidRecord);
        assert_eq!(refusal.record_errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
        assert!(validate_produce(&bytes, &rules()).is_ok());
    }
    let many = built(Codec::None, &[(NOW_MS, None); 500]);
    let refusal = validate_produce(&many, &compacted).unwrap_err();
    assert_eq!(refusal.record_errors.len(), RECORD_ERRORS_MAX);
}

#[test]
fn times_too_far_from_the_clock_are_refused_by_record() {
    let hour = 3_600_000;
    let with = |before, after| ProduceRules {
        timestamp_before_max_ms: before,
        timestamp_after_max_ms: after,
        ..rules()
    };
    let cases = [
        (rules(), hour, true),
        (rules(), hour + 1, false),
        (rules(), -1_000_000_000_000, true),
        (with(60_000, hour), -60_000, true),
        (with(60_000, hour), -60_001, false),
        (with(60_000, hour), i64::MIN / 2, false),
        (rules(), i64::MAX / 2, false),
    ];
    for (rules, shift, accepted) in cases {
        let bytes = built(Codec::None, &[(NOW_MS, None), (NOW_MS.saturating_add(shift), None)]);
        match validate_produce(&bytes, &rules) {
            Ok(_) => assert!(accepted, "{shift}"),
            Err(refusal) => {
                assert!(!accepted, "{shift}");
                assert_eq!((refusal.reason, refusal.record_errors[0].0), (InvalidTimestamp, 1));
            }
        }
    }
    let none = built(Codec::None, &[(-1, None)]);
    assert!(validate_produce(&none, &with(1000, 1000)).is_ok(), "no timestamp is no wrong timestamp");
}

#[test]
fn a_wrong_largest_timestamp_is_put_right() {
    let records = [one(), record(Fields { delta: 1, ..Fields::default() })].concat();
    let bytes = batch(&records, |header| {
        (header.record_count, header.last_offset_delta, header.max_timestamp) = (2, 1, NOW_MS + 9);
    });
    let validated = validate_produce(&bytes, &rules()).unwrap();
    assert_eq!((validated.max_timestamp, validated.offset_delta_of_max_timestamp), (NOW_MS, 0));
    let stored = validated.store(bytes.into(), &rules()).unwrap().freeze();
    let stored = Batch::parse(&stored).unwrap();
    stored.verify_crc().unwrap();
    assert_eq!(stored.header.max_timestamp, NOW_MS);
}

#[test]
fn log_append_time_covers_every_timestamp() {
    let append =
        ProduceRules { timestamp_type: TimestampType::LogAppendTime, timestamp_before_max_ms: 1, ..rules() };
    for codec in Codec::ALL {
        let bytes = built(codec, &[(5, None), (NOW_MS + 1_000_000_000, None)]);
        let validated = validate_produce(&bytes, &append).unwrap();
        let stored = Batch::parse(&validated.store(bytes, &append).unwrap().freeze()).unwrap();
        stored.verify_crc().unwrap();
        assert_eq!(stored.header.attributes, 8 | codec.id());
        assert!(stored.records().unwrap().all(|record| record.unwrap().timestamp == NOW_MS));
    }
}

#[test]
fn recompression_changes_no_record() {
    for from in Codec::ALL {
        for to in Codec::ALL {
            let bytes = built(from, &[(NOW_MS, Some("a")), (NOW_MS + 4, None), (NOW_MS - 7, Some(""))]);
            let rules = ProduceRules { compression: TargetCompression::Codec(to, None), ..rules() };
            let validated: ValidatedBatch = validate_produce(&bytes, &rules).unwrap();
            assert_eq!(validated.recompress.is_some(), from != to);
            let stored = Batch::parse(&validated.store(bytes.clone(), &rules).unwrap().freeze()).unwrap();
            stored.verify_crc().unwrap();
            assert_eq!(stored.header.codec(), Ok(to));
            let records = |batch: &Batch| batch.records().unwrap().map(Result::unwrap).collect::<Vec<_>>();
            assert_eq!(records(&stored), records(&Batch::parse(&bytes).unwrap()));
        }
    }
}

#[test]
fn what_is_stored_keeps_the_size_limit_too() {
    let bytes = built(Codec::Gzip, &[(NOW_MS, None); 50]);
    let rules = ProduceRules {
        max_message_bytes: 1000,
        compression: TargetCompression::Codec(Codec::None, None),
        ..rules()
    };
    let validated = validate_produce(&bytes, &rules).unwrap();
    assert_eq!(validated.store(bytes, &rules).unwrap_err().reason, TooLarge);
}
