//! What time does: open transactions that ran out of it, ids that nobody uses.

use super::*;

const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;

#[test]
fn i65_a_transaction_that_ran_out_of_time_is_aborted_and_its_producer_fenced() {
    for version in [V0, V2] {
        let (mut harness, producer) = super::states::in_state(TransactionState::Ongoing, version);
        harness.pass(u64::try_from(TIMEOUT_MS).unwrap());
        harness.abort_timed_out();
        assert_eq!(harness.state(), TransactionState::Ongoing, "its last millisecond");
        harness.pass(1);
        harness.abort_timed_out();
        let sent = harness.markers.last().unwrap();
        assert_eq!((sent.producer_epoch, sent.commit), (1, false));
        harness.abort_timed_out();
        assert_eq!(harness.markers.len(), 1, "once");
        harness.written();
        assert_eq!((harness.state(), harness.known().producer_epoch), (TransactionState::CompleteAbort, 1));
        for commit in [true, false] {
            assert_eq!(harness.end(producer, commit, version), refused(ErrorCode::ProducerFenced));
        }
        assert_eq!(harness.add(producer, &[partition("t", 0)], version), ErrorCode::ProducerFenced);
        assert_eq!(harness.init(), granted(1001, 2));
        harness.assert_replay_equals_live();
    }
}

#[test]
fn time_counts_from_the_first_partition_not_from_init_nor_from_later_partitions() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    harness.pass(10 * u64::try_from(TIMEOUT_MS).unwrap());
    let begun_ms = harness.now.wall_ms;
    assert_eq!(harness.add(producer, &[partition("t", 0)], V2), ErrorCode::None);
    harness.abort_timed_out();
    assert_eq!(harness.state(), TransactionState::Ongoing);
    harness.pass(u64::try_from(TIMEOUT_MS).unwrap());
    assert_eq!(harness.add(producer, &[partition("t", 1)], V2), ErrorCode::None);
    assert_eq!(harness.known().start_ms, begun_ms);
    harness.pass(1);
    harness.abort_timed_out();
    assert_eq!(harness.state(), TransactionState::PrepareAbort);
}

#[test]
fn a_successor_counts_the_time_from_where_it_began() {
    let (mut harness, _) = super::states::in_state(TransactionState::Ongoing, V2);
    harness.pass(u64::try_from(TIMEOUT_MS).unwrap() + 1);
    let mut next = harness.failover();
    next.abort_timed_out();
    assert_eq!(next.state(), TransactionState::PrepareAbort);
}

#[test]
fn the_time_of_an_earlier_transaction_does_not_end_a_later_one() {
    let (mut harness, producer) = super::states::in_state(TransactionState::Ongoing, V0);
    harness.end(producer, true, V0);
    harness.written();
    harness.pass(u64::try_from(TIMEOUT_MS).unwrap());
    assert_eq!(harness.add(producer, &[partition("t", 0)], V0), ErrorCode::None);
    harness.pass(1);
    harness.abort_timed_out();
    assert_eq!(harness.state(), TransactionState::Ongoing);
}

#[test]
fn a_timeout_and_a_commit_race_and_the_first_in_the_log_wins() {
    let (mut harness, producer) = super::states::in_state(TransactionState::Ongoing, V2);
    harness.pass(u64::try_from(TIMEOUT_MS).unwrap() + 1);
    harness.holds = true;
    let end = harness.end_command(producer, true, V2);
    let token = harness.submit(&end);
    harness.abort_timed_out();
    assert_eq!(harness.held.len(), 1, "the commit is on its way");
    harness.commit();
    assert_eq!(harness.replies[&token], Reply::EndTxn(granted(1001, 1)));
    harness.abort_timed_out();
    assert_eq!(harness.state(), TransactionState::PrepareCommit);

    let (mut harness, producer) = super::states::in_state(TransactionState::Ongoing, V2);
    harness.pass(u64::try_from(TIMEOUT_MS).unwrap() + 1);
    harness.holds = true;
    harness.abort_timed_out();
    assert_eq!(harness.end(producer, true, V2), refused(ErrorCode::ConcurrentTransactions));
    harness.commit();
    assert_eq!(harness.end(producer, true, V2), refused(ErrorCode::ProducerFenced));
}

#[test]
fn a_timeout_that_is_not_written_is_tried_at_the_next_round() {
    let (mut harness, _) = super::states::in_state(TransactionState::Ongoing, V2);
    harness.pass(u64::try_from(TIMEOUT_MS).unwrap() + 1);
    harness.holds = true;
    for _ in 0..2 {
        harness.abort_timed_out();
        harness.fail(ErrorCode::NotEnoughReplicas);
        assert_eq!(harness.state(), TransactionState::Ongoing);
    }
    harness.abort_timed_out();
    harness.commit();
    assert_eq!((harness.state(), harness.known().producer_epoch), (TransactionState::PrepareAbort, 1));
}

#[test]
fn an_id_that_is_used_does_not_expire_and_one_that_did_starts_afresh() {
    let mut harness = Harness::new(V2);
    let first = harness.init();
    harness.pass(WEEK_MS - 1);
    harness.expire_ids();
    assert_eq!(harness.init(), granted(first.producer_id, 1), "used");
    harness.pass(WEEK_MS - 1);
    harness.expire_ids();
    assert_eq!(harness.known().producer_epoch, 1);
    harness.pass(1);
    harness.expire_ids();
    assert_eq!(harness.machine.describe(ID), Err(ErrorCode::TransactionalIdNotFound));
    assert_eq!(harness.end(granted(1001, 1), true, V0), refused(ErrorCode::InvalidProducerIdMapping));
    let fresh = harness.init();
    assert_eq!((fresh.error, fresh.producer_epoch), (ErrorCode::None, 0));
    assert_ne!(fresh.producer_id, first.producer_id);
    harness.assert_replay_equals_live();
}

#[test]
fn requests_wait_while_an_id_is_being_forgotten_and_it_stays_if_that_fails() {
    let mut harness = Harness::new(V2);
    harness.init();
    harness.pass(WEEK_MS);
    harness.holds = true;
    harness.expire_ids();
    harness.expire_ids();
    assert_eq!(harness.held.len(), 1, "once");
    assert_eq!(harness.init(), refused(ErrorCode::ConcurrentTransactions));
    assert_eq!(harness.add(granted(1001, 0), &[partition("t", 0)], V0), ErrorCode::ConcurrentTransactions);
    harness.fail(ErrorCode::NotEnoughReplicas);
    harness.holds = false;
    assert_eq!(harness.init(), granted(1001, 1));
}

#[test]
fn many_ids_are_forgotten_in_several_batches() {
    let mut harness = Harness::new(V2);
    for n in 0..2_500 {
        let mut command = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
        if let Command::InitProducerId(command) = &mut command {
            command.transactional_id = Text::from(format!("id-{n}"));
        }
        harness.call(&command);
    }
    harness.pass(WEEK_MS);
    harness.holds = true;
    harness.expire_ids();
    assert_eq!(harness.held.iter().map(|append| append.records.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
    while !harness.held.is_empty() {
        harness.commit();
    }
    assert_eq!(harness.machine.durable(), &DurableState::default());
    assert!(harness.machine.live.is_empty());
}
