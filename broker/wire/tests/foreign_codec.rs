//! Ours against the crate `kafka-protocol`: what either writes the other reads as the same message.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};
use ottla_wire::messages;

fn unhex(text: &str) -> Bytes {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// The message read and written again by the other crate; `None` where it cannot.
fn foreign(name: &str, key: i16, version: i16, bytes: &Bytes) -> Option<Bytes> {
    let key = ApiKey::try_from(key).ok()?;
    let (mut read, mut written) = (bytes.clone(), BytesMut::new());
    if name.ends_with("Request") {
        RequestKind::decode(key, &mut read, version).ok()?.encode(&mut written, version).ok()?;
    } else {
        ResponseKind::decode(key, &mut read, version).ok()?.encode(&mut written, version).ok()?;
    }
    read.is_empty().then(|| written.freeze())
}

#[test]
fn both_codecs_agree_on_every_message_that_both_know() {
    let (mut compared, mut apis) = (0, BTreeSet::new());
    for line in include_str!("golden/messages.tsv").lines() {
        let [name, key, version, variant, hex, _] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not a line of the file: {line}")
        };
        let (key, version, bytes) = (key.parse().unwrap(), version.parse().unwrap(), unhex(hex));
        let Some(theirs) = foreign(name, key, version, &bytes) else { continue };
        let Some(Ok((json, _))) = messages::round_trip(name, version, bytes) else { continue };
        // What they wrote may differ in form (a default they spell out); as a message it is the same.
        let (again, ours) = messages::round_trip(name, version, theirs).unwrap().unwrap();
        assert_eq!(again, json, "{name} v{version} {variant}");
        assert!(
            foreign(name, key, version, &ours).is_some(),
            "{name} v{version} {variant}: they refuse ours"
        );
        compared += 1;
        apis.insert(key);
    }
    assert!(
        compared > 900 && apis.len() > 55,
        "only {compared} messages of {} APIs were compared",
        apis.len()
    );
}
