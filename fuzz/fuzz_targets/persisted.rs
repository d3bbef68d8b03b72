//! What coordinators keep in their topics, and what clients send in fields that brokers pass on: keys and values behind a
//! version. The first byte chooses the kind.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla_wire::persisted;

const NAMES: &[&str] = &[
    "ConsumerProtocolAssignment",
    "ConsumerProtocolSubscription",
    "GroupMetadataKey",
    "GroupMetadataValue",
    "OffsetCommitKey",
    "OffsetCommitValue",
    "ProducerSnapshot",
    "TransactionLogKey",
    "TransactionLogValue",
];

fuzz_target!(|data: &[u8]| {
    let [choice, version, body @ ..] = data else { return };
    let name = NAMES[usize::from(*choice) % NAMES.len()];
    let version = i16::from(*version % 8);
    let read = |bytes| persisted::round_trip(name, version, bytes);
    if let Some(Ok((json, written))) = read(Bytes::copy_from_slice(body)) {
        let (again, _) = read(written).expect("a known name").expect("what was written can be read");
        assert_eq!(json, again);
    }
    drop(persisted::prefix(&Bytes::copy_from_slice(body)));
});
