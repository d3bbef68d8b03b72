//! Compaction against an oracle: whatever is appended, rolled, compacted with however small a map, and reopened, a reader
//! of the whole log ends with the same value for each key as one that read everything, and no record moves or changes.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::{abort, commit, compact_all, create, keyed, open, pairs, transactional};
use ottla_log::LogConfig;
use ottla_wire::compression::Codec;
use proptest::prelude::*;

/// Keys and values of a transaction.
type Written = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug, Clone)]
enum Step {
    Append { keys: Vec<(u8, bool)>, codec: u8 },
    Transaction { producer: u8, keys: Vec<u8>, aborted: bool, marker_later: bool },
    EndOpen,
    Roll,
    Compact { slots: u8, wait_ms: u16 },
    Reopen { clean: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = proptest::collection::vec((0u8..12, proptest::bool::weighted(0.7)), 1..6);
    let step = prop_oneof![
        8 => (keys, 0u8..5).prop_map(|(keys, codec)| Step::Append { keys, codec }),
        4 => (0u8..3, proptest::collection::vec(0u8..12, 1..4), any::<bool>(), proptest::bool::weighted(0.3))
            .prop_map(|(producer, keys, aborted, marker_later)| Step::Transaction { producer, keys, aborted, marker_later }),
        2 => Just(Step::EndOpen),
        3 => Just(Step::Roll),
        4 => (1u8..60, 0u16..400).prop_map(|(slots, wait_ms)| Step::Compact { slots, wait_ms }),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ];
    proptest::collection::vec(step, 1..80)
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1_200,
        index_interval_bytes: 150,
        compacts: true,
        deletes: false,
        delete_retention_ms: 300,
        ..LogConfig::default()
    }
}

/// What a read_committed reader of the whole log knows in the end.
fn state(log: &ottla_log::Log) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let aborted = log.aborted_transactions(0, i64::MAX).unwrap();
    let mut state = BTreeMap::new();
    for (offset, key, value) in pairs(log) {
        // A transactional record's value begins with its producer.
        let producer =
            value.as_ref().and_then(|value| value.strip_prefix(b"t")).map(|rest| i64::from(rest[0]));
        let is_aborted = producer.is_some_and(|producer| {
            aborted.iter().any(|one| {
                one.producer_id == producer && (one.first_offset..=one.last_offset).contains(&offset)
            })
        });
        if is_aborted {
            continue;
        }
        match value {
            Some(value) => drop(state.insert(key, value)),
            None => drop(state.remove(&key)),
        }
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// I77 to I80, I83, and I57 of what is left.
    #[test]
    fn a_reader_of_a_compacted_log_learns_what_a_reader_of_all_learns(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let mut log = create(directory.path(), config());
        let mut all: HashMap<i64, (Vec<u8>, Option<Vec<u8>>)> = HashMap::new();
        let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut sequences = [0i32; 3];
        let mut open_transactions: BTreeMap<u8, (bool, Written)> = BTreeMap::new();
        let (mut checkpoint, mut now_ms, mut counter) = (None, 1_000i64, 0u32);
        for step in steps {
            let mut ended = Vec::new();
            match step {
                Step::Append { keys, codec } => {
                    let records: Vec<common::Keyed> = keys.iter().map(|(key, has_value)| {
                        counter += 1;
                        (vec![b'k', *key], has_value.then(|| format!("v{counter}").into_bytes()))
                    }).collect();
                    // Plain keys and those of transactions are different: their order at a reader is by marker, not by offset.
                    let codec = Codec::from_attributes(i16::from(codec)).unwrap();
                    let info = log.append_as_leader(&mut keyed(&records, now_ms, codec), 0, now_ms).unwrap();
                    for (offset, (key, value)) in (info.first_offset..).zip(records) {
                        match &value {
                            Some(value) => drop(expected.insert(key.clone(), value.clone())),
                            None => drop(expected.remove(&key)),
                        }
                        all.insert(offset, (key, value));
                    }
                }
                Step::Transaction { producer, keys, aborted, marker_later } => {
                    if open_transactions.contains_key(&producer) {
                        continue;
                    }
                    let mut written = Vec::new();
                    for key in keys {
                        counter += 1;
                        let (key, mut value) = (vec![b't', producer, key], vec![b't', producer]);
                        value.extend(format!("{counter}").into_bytes());
                        let sequence = &mut sequences[usize::from(producer)];
                        let mut batch = transactional(i64::from(producer), *sequence, &key, &value);
                        *sequence += 1;
                        let info = log.append_as_leader(&mut batch, 0, now_ms).unwrap();
                        all.insert(info.first_offset, (key.clone(), Some(value.clone())));
                        written.push((key, value));
                    }
                    open_transactions.insert(producer, (aborted, written));
                    if !marker_later {
                        ended.push(producer);
                    }
                }
                Step::EndOpen => ended.extend(open_transactions.keys().next().copied()),
                Step::Roll => log.roll().unwrap(),
                Step::Compact { slots, wait_ms } => {
                    now_ms += i64::from(wait_ms);
                    if log.cleanable(checkpoint, now_ms).unwrap().dirty_bytes > 0 {
                        let budget = usize::from(slots) * ottla_log::compaction::SLOT_BYTES;
                        checkpoint = Some(compact_all(&mut log, checkpoint, now_ms, budget));
                    }
                }
                Step::Reopen { clean } => {
                    if clean { log.close().unwrap() } else { drop(log) }
                    log = open(directory.path(), config(), clean);
                }
            }
            for producer in ended {
                let Some((aborted, written)) = open_transactions.remove(&producer) else { continue };
                let id = i64::from(producer);
                let mut marker = if aborted { abort(id) } else { commit(id) };
                log.append_as_leader(&mut marker, 0, now_ms).unwrap();
                if !aborted {
                    expected.extend(written);
                }
            }
            log.update_high_watermark(log.end_offset());

            let found = pairs(&log);
            prop_assert!(found.windows(2).all(|two| two[0].0 < two[1].0), "offsets rise");
            for (offset, key, value) in &found {
                prop_assert_eq!(all.get(offset), Some(&(key.clone(), value.clone())));
            }
            let mut seen = state(&log);
            for (key, value) in open_transactions.values().flat_map(|(_, written)| written) {
                if seen.get(key) == Some(value) {
                    // Not ended: a reader would not see it yet, and the value before it may be hidden by this one.
                    seen.remove(key);
                }
            }
            let unsure: BTreeSet<_> = open_transactions.values().flat_map(|(_, written)| written).map(|(key, _)| key.clone()).collect();
            let mut wanted = expected.clone();
            wanted.retain(|key, _| !unsure.contains(key));
            seen.retain(|key, _| !unsure.contains(key));
            prop_assert_eq!(seen, wanted);
        }
        // I55: the next sequence of each producer is still known.
        for (producer, sequence) in sequences.iter().enumerate().filter(|(_, sequence)| **sequence > 0) {
            let mut again = transactional(i64::try_from(producer).unwrap(), sequence - 1, b"x", b"y");
            prop_assert!(log.append_as_leader(&mut again, 0, now_ms).unwrap().is_duplicate);
        }
    }
}
