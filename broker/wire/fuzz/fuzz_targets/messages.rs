//! A response of any API in any version: what decodes must survive a round trip. The first two bytes choose.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla_wire::api;
use ottla_wire::messages;

fuzz_target!(|data: &[u8]| {
    let [choice, version, body @ ..] = data else { return };
    let table = api::table();
    let row = table[usize::from(*choice) % table.len()];
    let version = row.first + i16::from(*version) % (row.last - row.first + 1);
    let name = format!("{}Response", row.name);
    let read = |bytes| messages::round_trip(&name, version, bytes).expect("every API has a response");
    if let Ok((json, written)) = read(Bytes::copy_from_slice(body)) {
        let (again, _) = read(written).expect("what was written can be read");
        assert_eq!(json, again);
    }
});
