//! Request and response headers, and whole frames, against bytes from Apache Kafka 4.3.0's own serialisers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use ottla_wire::api::ApiKey;
use ottla_wire::decode::Decoder;
use ottla_wire::encode::{Records, Segment, encode_request_frame, encode_response_frame};
use ottla_wire::header::RequestHeader;
use ottla_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchResponse, HeartbeatResponse, Message, fetch_response,
};

fn golden(name: &str, version: &str, variant: &str) -> Vec<u8> {
    let line = include_str!("golden/messages.tsv").lines().find(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        (fields[0], fields[2], fields[3]) == (name, version, variant)
    });
    let hex = line.unwrap().split('\t').nth(4).unwrap();
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

#[test]
fn request_headers_of_both_versions_are_read_to_their_end() {
    for variant in ["default", "full", "null"] {
        for (header_version, key, version) in [("1", 18_i16, 2_i16), ("2", 18, 3)] {
            let mut bytes = golden("RequestHeaderData", header_version, variant);
            bytes[..2].copy_from_slice(&key.to_be_bytes());
            bytes[2..4].copy_from_slice(&version.to_be_bytes());
            let mut decoder = Decoder::new(bytes.into());
            let header = RequestHeader::decode(&mut decoder).unwrap();
            assert_eq!(decoder.remaining(), 0, "{header:?}");
            assert_eq!((header.api_key, header.api_version), (key, version));
            assert_eq!(header.client_id.is_none(), variant == "null");
        }
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_read_with_the_flexible_header() {
    let mut bytes = golden("RequestHeaderData", "2", "full");
    bytes[..4].copy_from_slice(&[0, 18, 0x7f, 0xff]);
    let mut decoder = Decoder::new(bytes.into());
    assert_eq!(RequestHeader::decode(&mut decoder).unwrap().api_version, 0x7fff);
    assert_eq!(decoder.remaining(), 0);
}

#[test]
fn frames_begin_with_their_length_and_the_right_header() {
    let request = ApiVersionsRequest { client_software_name: "x".into(), ..Default::default() };
    let frame = encode_request_frame(ApiKey::ApiVersions, 3, 7, Some("me"), &request).unwrap();
    assert_eq!(frame.into_bytes()[..], *b"\0\0\0\x11\0\x12\0\x03\0\0\0\x07\0\x02me\0\x02x\x01\0");
    let flexible = encode_response_frame(ApiKey::Heartbeat, 4, 7, &HeartbeatResponse::default()).unwrap();
    assert_eq!(flexible.into_bytes()[..], *b"\0\0\0\x0c\0\0\0\x07\0\0\0\0\0\0\0\0");
    let first = encode_response_frame(ApiKey::ApiVersions, 3, 7, &ApiVersionsResponse::default()).unwrap();
    // No tagged fields in the header: the error code follows the correlation id.
    assert_eq!(first.into_bytes()[..], *b"\0\0\0\x0c\0\0\0\x07\0\0\x01\0\0\0\0\0");
}

#[test]
fn large_records_are_segments_of_their_own_and_counted_in_the_length() {
    let large = Bytes::from(vec![7; 5000]);
    let partition = |records| fetch_response::Partition { records: Some(records), ..Default::default() };
    let response = FetchResponse {
        responses: vec![fetch_response::Response {
            partitions: vec![
                partition(Records::Bytes(large.clone())),
                partition(Records::External { token: 3, length: 9000 }),
                partition(Records::Bytes(Bytes::from_static(b"small"))),
            ],
            ..Default::default()
        }],
        ..Default::default()
    };
    let frame = encode_response_frame(ApiKey::Fetch, 12, 1, &response).unwrap();
    let length = frame.length();
    let segments: Vec<Segment> = frame.into_iter().collect();
    let Segment::Bytes(first) = &segments[0] else { panic!("the frame starts with bytes") };
    assert_eq!(usize::try_from(u32::from_be_bytes(first[..4].try_into().unwrap())).unwrap(), length - 4);
    assert!(matches!(&segments[1], Segment::Bytes(bytes) if bytes.as_ptr() == large.as_ptr()), "not copied");
    assert_eq!(segments[3], Segment::External { token: 3, length: 9000 });
    // With the external bytes put in, a client reads the same response.
    let mut whole = Vec::new();
    for segment in segments {
        match segment {
            Segment::Bytes(bytes) => whole.extend_from_slice(&bytes),
            Segment::External { length, .. } => whole.resize(whole.len() + length, 1),
        }
    }
    assert_eq!(whole.len(), length);
    let mut decoder = Decoder::new(Bytes::from(whole).slice(9..));
    let read = FetchResponse::decode(&mut decoder, 12).unwrap();
    decoder.finish().unwrap();
    assert_eq!(read.responses[0].partitions[1].records, Some(Records::Bytes(vec![1; 9000].into())));
}
