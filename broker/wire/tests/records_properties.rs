//! Properties of batches: what is built is read back, and no bytes whatever can panic or take memory they do not have.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use bytes::Bytes;
use ottla_wire::compression::{Codec, decompress};
use ottla_wire::records::{
    Batch, BatchBuilder, BatchOptions, BatchSlices, Batches, ProduceRules, validate_produce, verify_crc,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

type Header = (Vec<u8>, Option<Vec<u8>>);
type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let bytes = || vec(any::<u8>(), 0..200);
    vec((any::<i64>(), of(bytes()), of(bytes()), vec((vec(any::<u8>(), 0..9), of(bytes())), 0..4)), 1..20)
}

fn codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(&Codec::ALL[..])
}

fn built(codec: Codec, rows: &[Row]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
    for (timestamp, key, value, headers) in rows {
        let headers: Vec<_> = headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        builder.add(*timestamp, key.as_deref(), value.as_deref(), &headers).unwrap();
    }
    builder.finish().unwrap()
}

/// Reads everything there is to read; must end without a panic.
fn read_all(bytes: &Bytes) {
    for item in BatchSlices::new(bytes) {
        let Ok((_, batch)) = item else { break };
        let _ = verify_crc(batch);
    }
    for batch in Batches::new(bytes.clone()) {
        let Ok(batch) = batch else { break };
        if let Ok(records) = batch.records_limited(1 << 20) {
            for record in records {
                let _ = record;
            }
        }
    }
    let _ = validate_produce(bytes, &ProduceRules { decompressed_bytes_max: 1 << 20, ..Default::default() });
}

/// Makes the checksum right, so that the checks behind it are reached.
fn seal(batch: &mut [u8]) {
    if batch.len() > 21 {
        let crc = crc_fast::crc32_iscsi(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(rows in rows(), codec in codec()) {
        let bytes = built(codec, &rows);
        let batch = Batch::parse(&bytes).unwrap();
        batch.verify_crc().unwrap();
        let read: Vec<Row> = batch.records().unwrap().map(|record| {
            let record = record.unwrap();
            let headers = record.headers.iter().map(|h| (h.key.to_vec(), h.value.as_ref().map(|v| v.to_vec())));
            (record.timestamp, record.key.map(|k| k.to_vec()), record.value.map(|v| v.to_vec()), headers.collect())
        }).collect();
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn a_partial_batch_at_the_end_is_reported(rows in rows(), cut in 1usize..60) {
        let bytes = built(Codec::None, &rows);
        let two = Bytes::from([&bytes[..], &bytes[..bytes.len() - cut]].concat());
        let mut batches = BatchSlices::new(&two);
        prop_assert_eq!(batches.by_ref().count(), 1);
        prop_assert_eq!(batches.position(), bytes.len());
        prop_assert_eq!(batches.tail().len(), bytes.len() - cut);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_all(&bytes.into());
    }

    #[test]
    fn random_records_behind_a_good_header_never_panic(records in vec(any::<u8>(), 0..300), codec in 0u8..8, count in any::<i32>()) {
        let mut bytes = built(Codec::None, &[(0, None, None, vec![])])[..61].to_vec();
        bytes.extend_from_slice(&records);
        let length = i32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[22] = codec;
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        bytes[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
        seal(&mut bytes);
        read_all(&bytes.into());
    }

    #[test]
    fn changed_bytes_never_panic_and_the_checksum_notices(rows in rows(), codec in codec(), at in any::<prop::sample::Index>(), to in 1u8..) {
        let mut bytes = built(codec, &rows).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= to;
        if at >= 17 {
            prop_assert!(verify_crc(&bytes).is_err());
        }
        read_all(&bytes.clone().into());
        seal(&mut bytes);
        read_all(&bytes.into());
    }

    #[test]
    fn random_bytes_never_panic_a_codec(bytes in vec(any::<u8>(), 0..300), codec in codec()) {
        let _ = decompress(codec, &bytes, 1 << 20);
    }
}
