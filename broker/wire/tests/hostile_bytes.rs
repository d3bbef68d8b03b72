//! Bytes that no honest peer sends: nothing panics, what decodes encodes, and memory stays in proportion to the bytes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use ottla_wire::decode::{DecodeError, Decoder, MEMORY_FREE_BYTES};
use ottla_wire::header::RequestHeader;
use ottla_wire::{messages, persisted};
use proptest::prelude::*;

/// Name, version and bytes of every full line of the golden file.
fn lines() -> Vec<(&'static str, i16, Vec<u8>)> {
    let lines = include_str!("golden/messages.tsv").lines().filter(|line| line.contains("\tfull\t"));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let hex = fields[4];
            let bytes = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            (fields[0], fields[2].parse().unwrap(), bytes)
        })
        .collect()
}

/// Decodes; what decodes must encode to bytes that decode to the same values.
fn probe(name: &str, version: i16, bytes: Bytes) {
    let read = |bytes: Bytes| {
        messages::round_trip(name, version, bytes.clone())
            .or_else(|| persisted::round_trip(name, version, bytes))
    };
    if let Some(Ok((json, written))) = read(bytes) {
        let (again, _) = read(written).unwrap().unwrap();
        assert_eq!(json, again, "{name} v{version}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_messages_fail_or_survive_a_round_trip(
        line in 0..lines().len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        thread_local! {
            static LINES: Vec<(&'static str, i16, Vec<u8>)> = lines();
        }
        let (name, version, mut bytes) = LINES.with(|lines| lines[line].clone());
        for (at, byte, kind) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        probe(name, version, bytes.into());
    }

    #[test]
    fn random_bytes_never_panic(
        line in 0..lines().len(),
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2), Just(0xff), any::<u8>()], 0..200),
    ) {
        thread_local! {
            static LINES: Vec<(&'static str, i16, Vec<u8>)> = lines();
        }
        let (name, version) = LINES.with(|lines| (lines[line].0, lines[line].1));
        probe(name, version, bytes.clone().into());
        drop(RequestHeader::decode(&mut Decoder::new(bytes.into())));
    }
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_memory_is_taken() {
    let mut decoder = Decoder::new(Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
    assert_eq!(decoder.array(false, 1, Decoder::i8), Err(DecodeError::TooManyElements));
    let mut decoder = Decoder::new(Bytes::from_static(&[0, 0, 0, 2, 0, 0, 0, 0]));
    assert_eq!(decoder.array(false, 4, Decoder::i32), Err(DecodeError::TooManyElements));
}

#[test]
fn elements_far_larger_than_their_bytes_are_refused_at_the_limit() {
    let element = |decoder: &mut Decoder| decoder.i8().map(|_| [0_u8; 1024]);
    let few = MEMORY_FREE_BYTES / 1024;
    let bytes = |count: usize| {
        let mut bytes = u32::try_from(count).unwrap().to_be_bytes().to_vec();
        bytes.resize(bytes.len() + count, 0);
        Bytes::from(bytes)
    };
    assert!(Decoder::new(bytes(few)).array(false, 1, element).is_ok());
    assert_eq!(Decoder::new(bytes(2 * few)).array(false, 1, element), Err(DecodeError::TooMuchMemory));
}

#[test]
fn malformed_lengths_varints_and_tags_are_refused() {
    let decoder = |bytes: &'static [u8]| Decoder::new(Bytes::from_static(bytes));
    assert_eq!(decoder(&[0xff, 0xfe]).nullable_text(false), Err(DecodeError::NegativeLength));
    assert_eq!(decoder(&[0xff, 0xff]).text(false), Err(DecodeError::UnexpectedNull));
    assert_eq!(decoder(&[0, 2, 0xc3, 0x28]).text(false), Err(DecodeError::InvalidUtf8));
    assert_eq!(decoder(&[0x80, 0x00]).unsigned_varint(), Err(DecodeError::OverlongVarint));
    assert_eq!(decoder(&[0xff, 0xff, 0xff, 0xff, 0x1f]).unsigned_varint(), Err(DecodeError::OverlongVarint));
    assert_eq!(decoder(&[0xff, 0xff, 0xff, 0xff, 0x0f]).unsigned_varint(), Ok(u32::MAX));
    assert_eq!(decoder(&[2, 5, 0, 5, 0]).skip_tagged_fields(), Err(DecodeError::MalformedTags));
    assert_eq!(decoder(&[1, 5, 9, 0]).skip_tagged_fields(), Err(DecodeError::Truncated));
    assert_eq!(decoder(&[2, 5, 1, 7, 6, 0]).skip_tagged_fields(), Ok(()));
}

#[test]
fn a_version_outside_the_schema_is_refused() {
    let read = |version| messages::round_trip("ProduceRequest", version, Bytes::new()).unwrap();
    assert_eq!(read(2), Err(DecodeError::UnsupportedVersion(2)));
    assert_eq!(read(14), Err(DecodeError::UnsupportedVersion(14)));
    assert_eq!(read(13), Err(DecodeError::Truncated));
}
