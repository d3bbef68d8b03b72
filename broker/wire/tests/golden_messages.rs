//! Every message in every version against bytes and JSON from Apache Kafka 4.3.0's own serialisers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use ottla_wire::{messages, persisted};

/// Messages of the file that a broker's Kafka listener does not serve, and the headers, which have tests of their own below.
const NOT_OURS: &[&str] = &[
    "Vote",
    "BeginQuorumEpoch",
    "EndQuorumEpoch",
    "AlterPartition",
    "Envelope",
    "FetchSnapshot",
    "BrokerRegistration",
    "BrokerHeartbeat",
    "ControllerRegistration",
    "AssignReplicasToDirs",
    "UpdateRaftVoter",
    "AllocateProducerIds",
    "RequestHeader",
    "ResponseHeader",
];

fn unhex(text: &str) -> Bytes {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

#[test]
fn every_golden_line_decodes_to_its_values_and_encodes_to_its_bytes() {
    let mut checked = 0;
    let mut skipped = std::collections::BTreeSet::new();
    let mut failures = Vec::new();
    for line in include_str!("golden/messages.tsv").lines() {
        let [name, _key, version, variant, hex, json] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not a line of the file: {line}")
        };
        let version: i16 = version.parse().unwrap();
        let bytes = unhex(hex);
        let Some(outcome) = messages::round_trip(name, version, bytes.clone())
            .or_else(|| persisted::round_trip(name, version, bytes.clone()))
        else {
            skipped.insert(name.to_owned());
            continue;
        };
        checked += 1;
        let at = format!("{name} v{version} {variant}");
        match outcome {
            Err(error) => failures.push(format!("{at}: {error}")),
            Ok((ours, again)) => {
                let mut theirs: serde_json::Value = serde_json::from_str(json).unwrap();
                if name == "ProducerSnapshot" {
                    // The value that the file shows has more than the 32 bits that are on the wire.
                    theirs["crc"] = (theirs["crc"].as_u64().unwrap() & 0xffff_ffff).into();
                }
                // Kafka writes `kRaftVersion` for what the schema's own rule calls `kraftVersion`.
                let theirs: serde_json::Value =
                    serde_json::from_str(&theirs.to_string().replace("\"kRaft", "\"kraft")).unwrap();
                if ours != theirs {
                    failures.push(format!("{at}: values\n  ours   {ours}\n  theirs {theirs}"));
                }
                if again != bytes {
                    failures.push(format!("{at}: bytes\n  ours   {again:02x?}\n  theirs {bytes:02x?}"));
                }
            }
        }
    }
    let unexpected: Vec<&String> =
        skipped.iter().filter(|name| !NOT_OURS.iter().any(|ours| name.starts_with(ours))).collect();
    assert!(unexpected.is_empty(), "messages without a schema: {unexpected:?}");
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {checked} lines differ:\n{shown}", failures.len());
    assert!(checked > 1700, "only {checked} lines were checked");
}

#[test]
fn no_prefix_and_no_flipped_byte_of_a_golden_line_does_more_than_fail() {
    for line in include_str!("golden/messages.tsv").lines().filter(|line| line.contains("\tfull\t")) {
        let fields: Vec<&str> = line.split('\t').collect();
        let (name, version, bytes) = (fields[0], fields[2].parse().unwrap(), unhex(fields[4]));
        if messages::round_trip(name, version, bytes.clone()).is_none() {
            continue;
        }
        let step = bytes.len().div_ceil(40).max(1);
        for end in (0..bytes.len()).step_by(step) {
            let cut = messages::round_trip(name, version, bytes.slice(..end)).unwrap();
            assert!(cut.is_err(), "{name} v{version} cut to {end} of {} bytes", bytes.len());
        }
        for at in (0..bytes.len()).step_by(step) {
            for with in [0x00, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] = with;
                drop(messages::round_trip(name, version, changed.into()));
            }
        }
    }
}
