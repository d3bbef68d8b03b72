//! EndTxn: the epoch of each transaction (KIP-890 part 2), repetitions, epochs that run out.

use super::*;

/// A producer at the last epoch with an open transaction of version 2.
fn at_last_epoch() -> (Harness, ProducerReply) {
    let (mut harness, _) = super::states::in_state(TransactionState::Ongoing, V2);
    let last = PRODUCER_EPOCH_FOR_CLIENTS_MAX;
    let next = TransactionMetadata { producer_epoch: last, ..harness.known().clone() };
    let record = records::transaction(&Text::from(ID), &next, V2).unwrap();
    harness.machine.apply(&record.key, record.value.as_ref()).unwrap();
    harness.log.push(record);
    (harness.failover(), granted(1001, last))
}

#[test]
fn i66_every_end_raises_the_epoch_and_what_is_late_is_refused() {
    let mut harness = Harness::new(V2);
    let mut producer = harness.init();
    for (round, commit) in [(1, true), (2, false), (3, true)] {
        assert_eq!(harness.add(producer, &[partition("t", 0)], V2), ErrorCode::None);
        let next = harness.end(producer, commit, V2);
        assert_eq!(next, granted(1001, round));
        let sent = harness.markers.last().unwrap();
        assert_eq!((sent.producer_epoch, sent.commit, sent.transaction_version), (round, commit, V2));
        harness.written();
        assert_eq!(harness.add(producer, &[partition("t", 0)], V2), ErrorCode::ProducerFenced);
        let late = harness.machine.verify(ID, 1001, producer.producer_epoch, &[partition("t", 0)]);
        assert_eq!(late, Err(ErrorCode::ProducerFenced));
        producer = next;
    }
    harness.assert_replay_equals_live();
}

#[test]
fn i63_a_repeated_end_answers_the_same_epoch_also_after_a_failover() {
    for commit in [true, false] {
        let (mut harness, producer) = super::states::in_state(TransactionState::Ongoing, V2);
        let next = harness.end(producer, commit, V2);
        assert_eq!(harness.end(producer, commit, V2), refused(ErrorCode::ConcurrentTransactions));
        harness.written();
        for harness in [&mut harness.failover(), &mut harness] {
            assert_eq!(harness.end(producer, commit, V2), next);
            assert_eq!(harness.end(producer, !commit, V2), refused(ErrorCode::InvalidTxnState));
            assert_eq!(harness.known().producer_epoch, 1);
        }
    }
}

#[test]
fn a_delayed_end_of_one_transaction_does_not_end_the_next() {
    let (mut harness, first) = super::states::in_state(TransactionState::Ongoing, V2);
    let second = harness.end(first, true, V2);
    harness.written();
    assert_eq!(harness.add(second, &[partition("t", 0)], V2), ErrorCode::None);
    for commit in [true, false] {
        assert_eq!(harness.end(first, commit, V2), refused(ErrorCode::ProducerFenced));
    }
    assert_eq!(harness.state(), TransactionState::Ongoing);
}

#[test]
fn i67_an_end_at_the_last_epoch_goes_over_to_a_fresh_producer_id() {
    for commit in [true, false] {
        let (mut harness, producer) = at_last_epoch();
        let mut command = harness.end_command(producer, commit, V2);
        let Command::EndTxn(end) = &mut command else { panic!("not an end") };
        let fresh = end.fresh_producer_id.take().unwrap();
        assert_eq!(harness.call(&command), Reply::ProducerIdNeeded);
        assert_eq!(harness.state(), TransactionState::Ongoing, "nothing has changed");
        let Command::EndTxn(end) = &mut command else { panic!("not an end") };
        end.fresh_producer_id = Some(fresh);
        assert_eq!(harness.call(&command), Reply::EndTxn(granted(fresh, 0)));
        // The markers are still the old producer's.
        let sent = harness.markers.last().unwrap();
        assert_eq!((sent.producer_id, sent.producer_epoch), (1001, i16::MAX));
        assert_eq!(harness.known().next_producer_id, fresh);
        assert_eq!(harness.end(producer, commit, V2), refused(ErrorCode::ConcurrentTransactions));
        harness.written();
        let known = harness.known();
        assert_eq!((known.producer_id, known.producer_epoch, known.next_producer_id), (fresh, 0, -1));
        for harness in [&mut harness.failover(), &mut harness] {
            assert_eq!(harness.end(producer, commit, V2), granted(fresh, 0), "a repetition");
            assert_eq!(harness.end(producer, !commit, V2), refused(ErrorCode::InvalidTxnState));
        }
        assert_eq!(harness.add(granted(fresh, 0), &[partition("t", 0)], V2), ErrorCode::None);
        assert_eq!(harness.end(producer, commit, V2), refused(ErrorCode::InvalidProducerIdMapping));
        harness.assert_replay_equals_live();
    }
}

#[test]
fn an_empty_transaction_is_aborted_with_a_new_epoch_and_without_markers() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    assert_eq!(harness.end(producer, false, V2), granted(1001, 1));
    assert_eq!((harness.state(), harness.markers.len()), (TransactionState::CompleteAbort, 0));
    assert_eq!(harness.known().start_ms, harness.now.wall_ms);
    assert_eq!(harness.end(producer, false, V2), granted(1001, 1), "a repetition");
    assert_eq!(harness.end(granted(1001, 1), false, V2), granted(1001, 2), "one more");
}

#[test]
fn a_cluster_of_an_older_version_ends_transactions_the_classic_way() {
    for version in [TransactionVersion::V0, TransactionVersion::V1] {
        let mut harness = Harness::new(version);
        let producer = harness.init();
        assert_eq!(harness.add(producer, &[partition("t", 0)], V2), ErrorCode::None);
        assert_eq!(harness.end(producer, true, V2), producer);
        harness.written();
        assert_eq!(harness.known().producer_epoch, 0);
        let value = harness.log.last().unwrap().value.as_ref().unwrap();
        assert_eq!(value[..2], [0, u8::try_from(version.0).unwrap()], "the version of the record's value");
        harness.assert_replay_equals_live();
    }
}

#[test]
fn i62_nobody_hears_of_a_decision_before_it_is_committed() {
    for version in [V0, V2] {
        let (mut harness, producer) = super::states::in_state(TransactionState::Ongoing, version);
        harness.holds = true;
        let end = harness.end_command(producer, true, version);
        let token = harness.submit(&end);
        assert!(!harness.replies.contains_key(&token) && harness.markers.is_empty());
        assert_eq!(harness.state(), TransactionState::Ongoing);
        harness.commit();
        assert!(harness.replies.contains_key(&token) && harness.markers.len() == 1);
    }
}

#[test]
fn an_end_that_is_not_written_changes_nothing_and_may_be_asked_for_again_or_otherwise() {
    let failures = [
        (ErrorCode::NotEnoughReplicas, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::NotEnoughReplicasAfterAppend, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::RequestTimedOut, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::UnknownTopicOrPartition, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::NotLeaderOrFollower, ErrorCode::NotCoordinator),
        (ErrorCode::KafkaStorageError, ErrorCode::NotCoordinator),
        (ErrorCode::MessageTooLarge, ErrorCode::UnknownServerError),
    ];
    for (failure, told) in failures {
        let (mut harness, producer) = super::states::in_state(TransactionState::Ongoing, V2);
        harness.holds = true;
        let end = harness.end_command(producer, true, V2);
        let token = harness.submit(&end);
        harness.fail(failure);
        assert_eq!(harness.replies[&token], Reply::EndTxn(refused(told)), "{failure}");
        assert!(harness.markers.is_empty());
        harness.holds = false;
        assert_eq!(harness.end(producer, false, V2), granted(1001, 1));
        assert!(!harness.markers.last().unwrap().commit);
        harness.assert_replay_equals_live();
    }
}
