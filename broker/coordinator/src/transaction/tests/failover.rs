//! A coordinator dies in each state, and at each point between decision and end; its successor knows the log only.

use super::*;
use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};

#[test]
fn a_successor_goes_on_from_every_state() {
    for version in [V0, V2] {
        for state in [Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort] {
            let (harness, _) = super::states::in_state(state, version);
            let mut next = harness.failover();
            assert_eq!(next.machine.durable(), harness.machine.durable());
            let resent = usize::from(state.is_prepared());
            assert_eq!(next.markers.len(), resent, "{state:?}");
            if state.is_prepared() {
                let (before, now) = (harness.markers.last().unwrap(), &next.markers[0]);
                assert_eq!(
                    (&before.partitions, before.commit),
                    (&now.partitions, now.commit),
                    "I62: the same decision"
                );
                assert_eq!(
                    (before.producer_id, before.producer_epoch),
                    (now.producer_id, now.producer_epoch)
                );
                next.written();
                assert_eq!(next.state(), if state == PrepareCommit { CompleteCommit } else { CompleteAbort });
            }
            if state == Ongoing {
                assert_eq!(next.end(granted(1001, 0), true, version).error, ErrorCode::None);
                next.written();
            }
            let epoch = next.known().producer_epoch;
            assert_eq!(next.init(), granted(1001, epoch + 1), "{state:?}");
            next.assert_replay_equals_live();
        }
    }
}

#[test]
fn a_prepared_transaction_without_partitions_is_ended_by_the_successor() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    harness.holds = true;
    let end = harness.end_command(producer, false, V2);
    harness.submit(&end);
    harness.commit();
    assert_eq!((harness.state(), harness.held.len()), (PrepareAbort, 1));
    let next = harness.failover();
    assert_eq!((next.state(), next.markers.len()), (CompleteAbort, 0));
}

#[test]
fn whoever_waits_when_leadership_ends_is_sent_to_the_successor() {
    let (mut harness, producer) = super::states::in_state(Ongoing, V2);
    harness.holds = true;
    let end = harness.end_command(producer, true, V2);
    let token = harness.submit(&end);
    let mut effects = Effects::default();
    harness.machine.resign(&mut effects);
    harness.execute(effects);
    let not_here = ErrorCode::NotCoordinator;
    assert_eq!(harness.replies[&token], Reply::EndTxn(refused(not_here)));
    // The append is committed all the same: it comes through the log, and nobody is told twice.
    harness.commit();
    assert_eq!(harness.state(), PrepareCommit);
    assert!(harness.markers.is_empty(), "markers are the successor's");
    assert_eq!(harness.end(producer, true, V2), refused(not_here));
    assert_eq!(harness.init(), refused(not_here));
    assert_eq!(harness.add(producer, &[partition("t", 0)], V2), not_here);
    assert_eq!(harness.machine.verify(ID, 1001, 0, &[]), Err(not_here));
    assert_eq!(harness.machine.describe(ID), Err(not_here));
    assert_eq!(harness.machine.list(0, &TransactionFilter::default()), Err(not_here));
    // It comes to lead again.
    harness.holds = false;
    harness.lead();
    assert_eq!(harness.markers.len(), 1);
    harness.written();
    assert_eq!(harness.state(), CompleteCommit);
}

#[test]
fn i64_nothing_is_answered_before_the_log_is_read() {
    let mut harness = Harness::not_leading(TransactionConfig::default(), Vec::new());
    assert_eq!(harness.init(), refused(ErrorCode::NotCoordinator));
    let mut effects = Effects::default();
    harness.machine.abort_timed_out(harness.now, &mut effects);
    harness.machine.expire_ids(harness.now, &mut effects);
    harness.machine.tick(harness.now, &mut effects);
    assert_eq!(effects, Effects::default());
}

#[test]
fn an_append_that_was_given_up_but_took_place_is_overridden_by_what_comes_later() {
    let (mut harness, producer) = super::states::in_state(Ongoing, V2);
    harness.holds = true;
    let end = harness.end_command(producer, true, V2);
    harness.submit(&end);
    let lost = harness.held[0].clone();
    harness.fail(ErrorCode::RequestTimedOut);
    // It is in the leader's log, before whatever this leader appends next; the commit was not acknowledged.
    harness.log.extend(lost.records);
    harness.holds = false;
    assert_eq!(harness.end(producer, false, V2), granted(1001, 1));
    harness.written();
    assert!(harness.markers.iter().all(|sent| !sent.commit), "no commit marker was ever sent");
    assert_eq!(harness.failover().state(), CompleteAbort);
}

#[test]
fn records_of_other_kinds_are_skipped_and_nonsense_is_an_error() {
    let mut machine = TransactionCoordinator::new(TransactionConfig::default());
    let other = Bytes::from_static(&[0, 9, 1, 2]);
    assert_eq!(machine.apply(&other, None).unwrap(), Applied::Skipped);
    let (harness, _) = super::states::in_state(Ongoing, V2);
    let record = harness.log.last().unwrap();
    let value = record.value.clone().unwrap();
    for length in 0..value.len() {
        assert!(machine.apply(&record.key, Some(&value.slice(..length))).is_err(), "cut at {length}");
    }
    for length in 0..record.key.len() {
        assert!(machine.apply(&record.key.slice(..length), None).is_err(), "cut at {length}");
    }
    let changed = |at: usize, byte: u8| {
        let mut bytes = value.to_vec();
        bytes[at] = byte;
        Bytes::from(bytes)
    };
    let newer = machine.apply(&record.key, Some(&changed(1, 2)));
    assert!(matches!(newer, Err(RecordError::Version(2))), "{newer:?}");
    // Version, producer id, epoch, timeout, then the state.
    let state_at = 2 + 8 + 2 + 4;
    for state in [7, 8, 0xff] {
        let unknown = machine.apply(&record.key, Some(&changed(state_at, state)));
        assert!(matches!(unknown, Err(RecordError::State(_))), "{unknown:?}");
    }
    assert_eq!(machine.durable(), &DurableState::default(), "nothing of it was kept");
    machine.apply(&record.key, Some(&value)).unwrap();
    machine.apply(&record.key, Some(&changed(state_at, 6))).unwrap();
    assert_eq!(machine.durable(), &DurableState::default(), "a dead id is forgotten");
}
