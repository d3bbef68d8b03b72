//! A frame as a broker gets it: a request header, then the body of the API and version that it names.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla_wire::api::ApiKey;
use ottla_wire::decode::Decoder;
use ottla_wire::header::RequestHeader;
use ottla_wire::messages;

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    let mut decoder = Decoder::new(frame.clone());
    let Ok(header) = RequestHeader::decode(&mut decoder) else { return };
    let Some(key) = ApiKey::from_code(header.api_key) else { return };
    let body = frame.slice(frame.len() - decoder.remaining()..);
    drop(messages::round_trip(&format!("{}Request", key.name()), header.api_version, body));
});
