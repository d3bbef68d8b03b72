//! InitProducerId: who gets which producer id and epoch (KIP-98, KIP-360, KIP-588).

use super::*;

/// Puts the id at this epoch by a record, as an earlier coordinator would have left it.
fn at_epoch(epoch: i16, state: TransactionState, version: TransactionVersion) -> Harness {
    let (mut harness, _) = super::states::in_state(state, version);
    let next = TransactionMetadata { producer_epoch: epoch, ..harness.known().clone() };
    let record = records::transaction(&Text::from(ID), &next, V2).unwrap();
    harness.machine.apply(&record.key, record.value.as_ref()).unwrap();
    harness.log.push(record);
    harness.failover()
}

#[test]
fn i59_each_instance_gets_the_next_epoch_of_the_same_producer_id() {
    let mut harness = Harness::new(V2);
    for epoch in 0..5 {
        assert_eq!(harness.init(), granted(1001, epoch));
        assert_eq!(harness.state(), TransactionState::Empty);
    }
    let mut after = harness.failover();
    assert_eq!(after.init(), granted(1001, 5));
}

#[test]
fn a_new_id_needs_a_fresh_producer_id_and_an_old_one_does_not() {
    let mut harness = Harness::new(V2);
    let without = |harness: &mut Harness| {
        let mut command = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
        if let Command::InitProducerId(command) = &mut command {
            command.fresh_producer_id = None;
        }
        harness.call(&command)
    };
    assert_eq!(without(&mut harness), Reply::ProducerIdNeeded);
    assert!(harness.log.is_empty());
    let first = harness.init();
    assert_eq!(without(&mut harness), Reply::InitProducerId(granted(first.producer_id, 1)));
}

#[test]
fn what_is_refused_before_anything_is_looked_up() {
    let mut harness = Harness::new(V2);
    let mut refusal = |change: &dyn Fn(&mut InitProducerId)| {
        let mut command = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
        if let Command::InitProducerId(command) = &mut command {
            change(command);
        }
        let Reply::InitProducerId(reply) = harness.call(&command) else { panic!("no reply of its kind") };
        assert_eq!((reply.producer_id, reply.producer_epoch), (-1, -1));
        assert!(harness.log.is_empty());
        reply.error
    };
    for timeout_ms in [0, -1, i32::MIN, 900_001, i32::MAX] {
        let error = refusal(&|command| command.timeout_ms = timeout_ms);
        assert_eq!(error, ErrorCode::InvalidTransactionTimeout, "{timeout_ms}");
    }
    assert_eq!(refusal(&|command| command.transactional_id = Text::default()), ErrorCode::InvalidRequest);
    assert_eq!(refusal(&|command| command.producer_id = 7), ErrorCode::InvalidRequest);
    assert_eq!(refusal(&|command| command.producer_epoch = 3), ErrorCode::InvalidRequest);
    let two_phase = refusal(&|command| command.enable_two_phase_commit = true);
    assert_eq!(two_phase, ErrorCode::TransactionalIdAuthorizationFailed);
    assert_eq!(refusal(&|command| command.keep_prepared = true), ErrorCode::UnsupportedVersion);
}

#[test]
fn the_timeout_of_the_last_init_counts() {
    let mut harness = Harness::new(V2);
    for timeout_ms in [1, 900_000] {
        let mut command = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
        if let Command::InitProducerId(command) = &mut command {
            command.timeout_ms = timeout_ms;
        }
        harness.call(&command);
        assert_eq!(harness.known().timeout_ms, timeout_ms);
    }
}

#[test]
fn a_producer_that_names_itself_gets_the_next_epoch_and_may_repeat_that_once() {
    let mut harness = Harness::new(V2);
    let first = harness.init();
    assert_eq!(harness.init_as(first.producer_id, 0), granted(1001, 1));
    assert_eq!(harness.init_as(first.producer_id, 0), granted(1001, 1), "the answer was lost");
    assert_eq!(harness.init_as(first.producer_id, 1), granted(1001, 2));
    assert_eq!(harness.init_as(first.producer_id, 0), refused(ErrorCode::ProducerFenced));
    assert_eq!(harness.init_as(first.producer_id, 1), granted(1001, 2));
    // A new instance ends that.
    assert_eq!(harness.init(), granted(1001, 3));
    assert_eq!(harness.init_as(first.producer_id, 2), refused(ErrorCode::ProducerFenced));
    harness.assert_replay_equals_live();
}

#[test]
fn a_repetition_that_crosses_a_failover_is_fenced_because_the_log_does_not_know_the_last_epoch() {
    let mut harness = Harness::new(V2);
    harness.init();
    assert_eq!(harness.init_as(1001, 0), granted(1001, 1));
    let mut after = harness.failover();
    assert_eq!(after.init_as(1001, 0), refused(ErrorCode::ProducerFenced));
    assert_eq!(after.init_as(1001, 1), granted(1001, 2));
}

#[test]
fn a_producer_that_nobody_knows_any_more_gets_a_fresh_id() {
    let mut harness = Harness::new(V2);
    assert_eq!(harness.init_as(5, 9), granted(1001, 0));
}

#[test]
fn i67_when_the_epochs_run_out_a_fresh_producer_id_takes_over() {
    let last = PRODUCER_EPOCH_FOR_CLIENTS_MAX;
    let mut harness = at_epoch(last - 1, TransactionState::Empty, V0);
    assert_eq!(harness.init(), granted(1001, last), "the last epoch for clients");
    let mut command = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
    let Command::InitProducerId(init) = &mut command else { panic!("not an init") };
    let fresh = init.fresh_producer_id.take().unwrap();
    assert_eq!(harness.call(&command), Reply::ProducerIdNeeded);
    let Command::InitProducerId(init) = &mut command else { panic!("not an init") };
    init.fresh_producer_id = Some(fresh);
    assert_eq!(harness.call(&command), Reply::InitProducerId(granted(fresh, 0)));
    assert_eq!(harness.known().previous_producer_id, 1001);
    assert_eq!(
        harness.add(granted(1001, last), &[partition("t", 0)], V0),
        ErrorCode::InvalidProducerIdMapping
    );
    harness.assert_replay_equals_live();
}

#[test]
fn a_producer_that_ran_out_of_epochs_may_repeat_its_request_under_the_old_id() {
    let last = PRODUCER_EPOCH_FOR_CLIENTS_MAX;
    let mut harness = at_epoch(last, TransactionState::Empty, V0);
    let reply = harness.init_as(1001, last);
    assert_eq!((reply.error, reply.producer_epoch), (ErrorCode::None, 0));
    assert_ne!(reply.producer_id, 1001);
    assert_eq!(harness.init_as(1001, last), reply, "the answer was lost");
    assert_eq!(harness.init_as(1001, last - 1), refused(ErrorCode::ProducerFenced));
    // Another instance came in between.
    assert_eq!(harness.init(), granted(reply.producer_id, 1));
    assert_eq!(harness.init_as(1001, last), refused(ErrorCode::ProducerFenced));
}

#[test]
fn i59_an_open_transaction_is_aborted_first_with_an_epoch_that_nobody_has() {
    for version in [V0, V2] {
        let (mut harness, old) = super::states::in_state(TransactionState::Ongoing, version);
        assert_eq!(harness.init(), refused(ErrorCode::ConcurrentTransactions));
        let sent = harness.markers.last().unwrap().clone();
        assert_eq!((sent.producer_id, sent.producer_epoch, sent.commit), (1001, 1, false));
        assert_eq!(sent.partitions, [partition("t", 0)]);
        assert_eq!(
            harness.init(),
            refused(ErrorCode::ConcurrentTransactions),
            "until the markers are written"
        );
        harness.written();
        assert_eq!(harness.init(), granted(1001, 2));
        // The old one is out, whatever it does.
        assert_eq!(harness.add(old, &[partition("t", 0)], version), ErrorCode::ProducerFenced);
        assert_eq!(harness.end(old, true, version), refused(ErrorCode::ProducerFenced));
        assert_eq!(harness.init_as(1001, 0), refused(ErrorCode::ProducerFenced));
    }
}

#[test]
fn i59_a_fenced_producer_is_not_told_the_epoch_that_fenced_it_also_after_a_failover() {
    let (mut harness, old) = super::states::in_state(TransactionState::Ongoing, V2);
    harness.init();
    harness.written();
    assert_eq!(harness.state(), TransactionState::CompleteAbort);
    for harness in [&mut harness.failover(), &mut harness] {
        // An abort of its own would have raised the epoch just so; this one must not be taken for it.
        assert_eq!(harness.end(old, false, V2), refused(ErrorCode::ProducerFenced));
        assert_eq!(harness.init_as(1001, 0), refused(ErrorCode::ProducerFenced));
    }
}

#[test]
fn fencing_at_the_last_epoch_leaves_room_for_a_fresh_producer_id() {
    let last = PRODUCER_EPOCH_FOR_CLIENTS_MAX;
    let mut harness = at_epoch(last, TransactionState::Ongoing, V2);
    assert_eq!(harness.init(), refused(ErrorCode::ConcurrentTransactions));
    assert_eq!(harness.known().producer_epoch, i16::MAX);
    harness.written();
    let reply = harness.init();
    assert_eq!((reply.error, reply.producer_epoch), (ErrorCode::None, 0));
    assert_ne!(reply.producer_id, 1001);
}

#[test]
fn a_fence_that_is_not_written_fences_nobody_and_the_next_one_uses_the_same_epoch() {
    let (mut harness, old) = super::states::in_state(TransactionState::Ongoing, V2);
    harness.holds = true;
    for _ in 0..3 {
        let init = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
        let token = harness.submit(&init);
        harness.fail(ErrorCode::NotEnoughReplicas);
        let expected = refused(ErrorCode::CoordinatorNotAvailable);
        assert_eq!(harness.replies[&token], Reply::InitProducerId(expected));
        assert_eq!(harness.state(), TransactionState::Ongoing);
    }
    harness.holds = false;
    assert_eq!(harness.add(old, &[partition("t", 1)], V2), ErrorCode::None);
    assert_eq!(harness.init(), refused(ErrorCode::ConcurrentTransactions));
    assert_eq!(harness.known().producer_epoch, 1);
}

#[test]
fn older_clients_know_no_fenced_producers() {
    let fenced = ErrorCode::ProducerFenced;
    let told = |version| for_request_version(fenced, version, PRODUCER_FENCED_SINCE_END_TXN);
    assert_eq!((told(1), told(2)), (ErrorCode::InvalidProducerEpoch, fenced));
    let told = |version| for_request_version(fenced, version, PRODUCER_FENCED_SINCE_INIT_PRODUCER_ID);
    assert_eq!((told(3), told(4)), (ErrorCode::InvalidProducerEpoch, fenced));
    assert_eq!(for_request_version(ErrorCode::InvalidTxnState, 0, 2), ErrorCode::InvalidTxnState);
}
