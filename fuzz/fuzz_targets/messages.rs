//! A request or a response of any API in any version: what decodes must survive a round trip. The first two bytes choose.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla_wire::api;
use ottla_wire::messages;

fuzz_target!(|data: &[u8]| {
    let [choice, version, body @ ..] = data else { return };
    let table = api::table();
    let row = table[usize::from(*choice) % table.len()];
    let version_count = row.last - row.first + 1;
    // Of the second byte half is for requests.
    let (kind, version) =
        if *version < 128 { ("Request", *version) } else { ("Response", *version - 128) };
    let version = row.first + i16::from(version) % version_count;
    let name = format!("{}{kind}", row.name);
    let read = |bytes| messages::round_trip(&name, version, bytes).expect("every API has both");
    if let Ok((json, written)) = read(Bytes::copy_from_slice(body)) {
        let (again, _) = read(written).expect("what was written can be read");
        assert_eq!(json, again);
    }
});
