//! Every state and every command: what is accepted, or exactly how it is refused.

use super::*;
use ErrorCode::{
    ConcurrentTransactions as Concurrent, InvalidProducerIdMapping as Mapping, InvalidTxnState as State,
    None as Fine, ProducerFenced as Fenced,
};
use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};

/// A coordinator with the id in this state, by transactions of this version, and the producer of its last request.
pub(super) fn in_state(state: TransactionState, version: TransactionVersion) -> (Harness, ProducerReply) {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    assert_eq!(producer, granted(1001, 0));
    if state != Empty {
        assert_eq!(harness.add(producer, &[partition("t", 0)], version), Fine);
    }
    if state != Empty && state != Ongoing {
        let reply = harness.end(producer, matches!(state, PrepareCommit | CompleteCommit), version);
        assert_eq!(reply.error, Fine);
    }
    if matches!(state, CompleteCommit | CompleteAbort) {
        harness.written();
    }
    assert_eq!(harness.state(), state);
    (harness, producer)
}

const STATES: [TransactionState; 6] =
    [Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort];

#[test]
fn init_by_a_new_instance_in_every_state() {
    for version in [V0, V2] {
        for state in STATES {
            let (mut harness, _) = in_state(state, version);
            let before = harness.known().clone();
            let reply = harness.init();
            let expected = match state {
                Empty | CompleteCommit | CompleteAbort => granted(1001, before.producer_epoch + 1),
                _ => refused(Concurrent),
            };
            assert_eq!(reply, expected, "{state:?} {version:?}");
            let after = match state {
                Ongoing => PrepareAbort,
                PrepareCommit | PrepareAbort => state,
                _ => Empty,
            };
            assert_eq!(harness.state(), after, "{state:?} {version:?}");
            if matches!(state, PrepareCommit | PrepareAbort) {
                assert_eq!(*harness.known(), before, "what is decided stays");
            }
            harness.assert_replay_equals_live();
        }
    }
}

#[test]
fn add_partitions_in_every_state() {
    for version in [V0, V2] {
        for state in STATES {
            let (mut harness, _) = in_state(state, version);
            let current = granted(1001, harness.known().producer_epoch);
            let before = harness.known().clone();
            let expected = if matches!(state, PrepareCommit | PrepareAbort) { Concurrent } else { Fine };
            assert_eq!(harness.add(current, &[partition("t", 1)], version), expected, "{state:?}");
            if expected == Fine {
                let known = harness.known();
                assert_eq!(known.state, Ongoing);
                let partitions: Vec<_> = known.partitions.iter().cloned().collect();
                match state {
                    Ongoing => assert_eq!(partitions, [partition("t", 0), partition("t", 1)]),
                    _ => assert_eq!(partitions, [partition("t", 1)], "nothing of the transaction before"),
                }
                assert_eq!((known.producer_id, known.producer_epoch), (1001, before.producer_epoch));
            } else {
                assert_eq!(*harness.known(), before);
            }
            harness.assert_replay_equals_live();
        }
    }
}

#[test]
fn end_classic_in_every_state() {
    for state in STATES {
        for commit in [true, false] {
            let (mut harness, producer) = in_state(state, V0);
            let before = harness.known().clone();
            let expected = match (state, commit) {
                (Ongoing, _) | (CompleteCommit, true) | (CompleteAbort, false) => granted(1001, 0),
                (PrepareCommit, true) | (PrepareAbort, false) => refused(Concurrent),
                _ => refused(State),
            };
            assert_eq!(harness.end(producer, commit, V0), expected, "{state:?} {commit}");
            if state == Ongoing {
                assert_eq!(harness.state(), if commit { PrepareCommit } else { PrepareAbort });
                assert_eq!(harness.known().producer_epoch, 0);
            } else {
                assert_eq!(*harness.known(), before, "{state:?} {commit}: nothing changes");
            }
        }
    }
}

#[test]
fn end_with_a_new_epoch_in_every_state_by_the_current_epoch() {
    for state in STATES {
        for commit in [true, false] {
            let (mut harness, _) = in_state(state, V2);
            let before = harness.known().clone();
            let epoch = before.producer_epoch;
            let expected = match (state, commit) {
                (Ongoing, _) | (Empty | CompleteCommit | CompleteAbort, false) => granted(1001, epoch + 1),
                (PrepareCommit | PrepareAbort, _) => refused(Fenced),
                _ => refused(State),
            };
            assert_eq!(harness.end(granted(1001, epoch), commit, V2), expected, "{state:?} {commit}");
            match (state, commit) {
                (Ongoing, true) => assert_eq!(harness.state(), PrepareCommit),
                (Ongoing, false) => assert_eq!(harness.state(), PrepareAbort),
                (Empty | CompleteCommit | CompleteAbort, false) => {
                    assert_eq!(harness.state(), CompleteAbort, "no partition has to be told");
                }
                _ => assert_eq!(*harness.known(), before, "{state:?} {commit}: nothing changes"),
            }
            harness.assert_replay_equals_live();
        }
    }
}

#[test]
fn end_with_a_new_epoch_in_every_state_by_the_epoch_before() {
    for state in STATES {
        for commit in [true, false] {
            let (mut harness, producer) = in_state(state, V2);
            let before = harness.known().clone();
            let expected = match (state, commit) {
                // There the producer's epoch is the current one; one more before it was never handed out.
                (Empty | Ongoing, _) => refused(Fenced),
                (PrepareCommit, true) | (PrepareAbort, false) => refused(Concurrent),
                (CompleteCommit, true) | (CompleteAbort, false) => granted(1001, 1),
                _ => refused(State),
            };
            let epoch = if matches!(state, Empty | Ongoing) { -1 } else { producer.producer_epoch };
            assert_eq!(harness.end(granted(1001, epoch), commit, V2), expected, "{state:?} {commit}");
            assert_eq!(*harness.known(), before, "{state:?} {commit}: nothing changes");
        }
    }
}

#[test]
fn a_wrong_epoch_or_producer_id_is_refused_in_every_state() {
    for version in [V0, V2] {
        for state in STATES {
            let (mut harness, _) = in_state(state, version);
            let before = harness.known().clone();
            let newer = granted(1001, before.producer_epoch + 1);
            let other = granted(77, before.producer_epoch);
            let partitions = [partition("t", 0)];
            for commit in [true, false] {
                assert_eq!(harness.end(newer, commit, version), refused(Fenced), "{state:?}");
                assert_eq!(harness.end(other, commit, version), refused(Mapping), "{state:?}");
            }
            assert_eq!(harness.add(newer, &partitions, version), Fenced);
            assert_eq!(harness.add(other, &partitions, version), Mapping);
            let verify = |producer: ProducerReply| {
                harness.machine.verify(ID, producer.producer_id, producer.producer_epoch, &partitions)
            };
            assert_eq!(verify(newer), Err(Fenced));
            assert_eq!(verify(other), Err(Mapping));
            assert_eq!(harness.init_as(77, before.producer_epoch), refused(Fenced), "{state:?}");
            assert_eq!(*harness.known(), before);
        }
    }
}

#[test]
fn verify_in_every_state() {
    for state in STATES {
        let (harness, _) = in_state(state, V0);
        let asked = [partition("t", 0), partition("t", 1)];
        let answer = harness.machine.verify(ID, 1001, 0, &asked);
        let abortable = ErrorCode::TransactionAbortable;
        let expected = match state {
            Ongoing => Ok(vec![Fine, abortable]),
            PrepareCommit | PrepareAbort => Err(Concurrent),
            _ => Ok(vec![abortable, abortable]),
        };
        assert_eq!(answer, expected, "{state:?}");
        harness.assert_replay_equals_live();
    }
}

#[test]
fn timeouts_and_expiry_in_every_state() {
    for state in STATES {
        let (mut harness, _) = in_state(state, V0);
        let before = harness.known().clone();
        harness.pass(u64::try_from(TIMEOUT_MS).unwrap() + 1);
        harness.abort_timed_out();
        if state == Ongoing {
            assert_eq!((harness.state(), harness.known().producer_epoch), (PrepareAbort, 1));
        } else {
            assert_eq!(*harness.known(), before, "{state:?}");
        }
        let (mut harness, _) = in_state(state, V0);
        harness.pass(7 * 24 * 60 * 60 * 1000);
        harness.expire_ids();
        let is_forgotten = harness.machine.durable().transaction(ID).is_none();
        assert_eq!(is_forgotten, state.is_at_rest(), "{state:?}");
        harness.assert_replay_equals_live();
    }
}

#[test]
fn an_unknown_id_and_an_empty_one() {
    let mut harness = Harness::new(V2);
    let producer = granted(5, 0);
    for version in [V0, V2] {
        assert_eq!(harness.add(producer, &[partition("t", 0)], version), Mapping);
        assert_eq!(harness.end(producer, true, version), refused(Mapping));
        let mut end = harness.end_command(producer, true, version);
        if let Command::EndTxn(end) = &mut end {
            end.transactional_id = Text::default();
        }
        assert_eq!(harness.call(&end), Reply::EndTxn(refused(ErrorCode::InvalidRequest)));
    }
    assert_eq!(harness.machine.verify(ID, 5, 0, &[partition("t", 0)]), Err(Mapping));
    assert_eq!(harness.machine.verify("", 5, 0, &[partition("t", 0)]), Err(ErrorCode::InvalidRequest));
    let mut add = Harness::add_command(producer, &[partition("t", 0)], V0);
    if let Command::AddPartitions(add) = &mut add {
        add.transactional_id = Text::default();
    }
    assert_eq!(harness.call(&add), Reply::AddPartitions(ErrorCode::InvalidRequest));
    assert_eq!(harness.machine.describe(ID), Err(ErrorCode::TransactionalIdNotFound));
    assert!(harness.log.is_empty());
}

#[test]
fn whoever_comes_while_a_change_is_on_its_way_comes_too_early() {
    for state in STATES {
        for version in [V0, V2] {
            let (mut harness, _) = in_state(state, version);
            harness.holds = true;
            let epoch = harness.known().producer_epoch;
            let current = granted(1001, epoch);
            // Something is on its way from every state.
            match state {
                PrepareCommit | PrepareAbort => harness.written(),
                Ongoing => {
                    harness.submit(&Harness::add_command(current, &[partition("t", 9)], version));
                }
                _ => {
                    let init = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
                    harness.submit(&init);
                }
            }
            assert_eq!(harness.held.len(), 1, "{state:?}");
            assert_eq!(harness.init(), refused(Concurrent), "{state:?}");
            assert_eq!(harness.add(current, &[partition("t", 1)], version), Concurrent, "{state:?}");
            let ender = match (state, version) {
                (PrepareCommit | PrepareAbort, V2) => granted(1001, epoch - 1),
                _ => current,
            };
            for commit in [true, false] {
                assert_eq!(harness.end(ender, commit, version), refused(Concurrent), "{state:?} {commit}");
            }
            assert_eq!(harness.held.len(), 1, "{state:?}");
            harness.commit();
            harness.assert_replay_equals_live();
        }
    }
}
