//! From the decision to the end: which answers of partitions finish, which repeat, which stop.

use super::*;

fn answered(error: ErrorCode) -> MarkerOutcome {
    MarkerOutcome::Answered(error)
}

/// A committed decision over three partitions.
fn prepared() -> (Harness, SendMarkers) {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    let partitions = [partition("t", 0), partition("t", 1), partition("u", 0)];
    assert_eq!(harness.add(producer, &partitions, V0), ErrorCode::None);
    assert_eq!(harness.end(producer, true, V0).error, ErrorCode::None);
    let sent = harness.markers.remove(0);
    assert!(harness.markers.is_empty());
    assert_eq!(sent.partitions, partitions);
    (harness, sent)
}

#[test]
fn markers_carry_all_that_a_partition_checks() {
    let (_, sent) = prepared();
    assert_eq!((sent.producer_id, sent.producer_epoch, sent.commit), (1001, 0, true));
    assert_eq!((sent.coordinator_epoch, sent.transaction_version), (COORDINATOR_EPOCH, V0));
    assert_eq!(sent.transactional_id, ID);
}

#[test]
fn the_transaction_is_over_when_the_last_partition_has_answered() {
    let (mut harness, sent) = prepared();
    let fine = answered(ErrorCode::None);
    harness.answer(sent.token, &[(partition("u", 0), fine)]);
    harness.answer(sent.token, &[(partition("t", 0), fine), (partition("t", 0), fine)]);
    assert_eq!(harness.state(), TransactionState::PrepareCommit);
    harness.answer(sent.token, &[(partition("t", 1), fine)]);
    assert_eq!(harness.state(), TransactionState::CompleteCommit);
    assert!(harness.known().partitions.is_empty());
    assert_eq!(harness.machine.next_deadline_ms(), None);
    harness.assert_replay_equals_live();
}

#[test]
fn answers_that_mean_that_nothing_is_left_to_do() {
    let outcomes = [
        answered(ErrorCode::None),
        answered(ErrorCode::InvalidProducerEpoch),
        answered(ErrorCode::ProducerFenced),
        answered(ErrorCode::UnsupportedForMessageFormat),
        MarkerOutcome::Gone,
    ];
    for outcome in outcomes {
        let (mut harness, sent) = prepared();
        harness.markers.push(sent);
        harness.answer_markers(outcome);
        assert_eq!(harness.state(), TransactionState::CompleteCommit, "{outcome:?}");
    }
}

#[test]
fn i62_answers_that_mean_that_the_marker_is_sent_again_until_it_is_written() {
    let outcomes = [
        MarkerOutcome::NoAnswer,
        answered(ErrorCode::UnknownTopicOrPartition),
        answered(ErrorCode::NotLeaderOrFollower),
        answered(ErrorCode::NotEnoughReplicas),
        answered(ErrorCode::NotEnoughReplicasAfterAppend),
        answered(ErrorCode::RequestTimedOut),
        answered(ErrorCode::KafkaStorageError),
        answered(ErrorCode::CoordinatorLoadInProgress),
        answered(ErrorCode::ClusterAuthorizationFailed),
        answered(ErrorCode::UnknownServerError),
    ];
    for outcome in outcomes {
        let (mut harness, sent) = prepared();
        let rest = [(partition("t", 1), answered(ErrorCode::None)), (partition("u", 0), outcome)];
        harness.answer(sent.token, &[(partition("t", 0), outcome)]);
        harness.answer(sent.token, &rest);
        assert!(harness.markers.is_empty(), "not at once");
        assert_eq!(
            harness.machine.next_deadline_ms(),
            Some(harness.now.monotonic_ms + MARKER_RETRY_PAUSE_MS)
        );
        harness.pass(MARKER_RETRY_PAUSE_MS - 1);
        assert!(harness.markers.is_empty());
        harness.pass(1);
        let again = harness.markers.last().unwrap().clone();
        let expected = SendMarkers { partitions: vec![partition("t", 0), partition("u", 0)], ..sent };
        assert_eq!(again, expected, "{outcome:?}");
        harness.answer(
            sent.token,
            &[(partition("u", 0), outcome), (partition("t", 0), answered(ErrorCode::None))],
        );
        harness.pass(MARKER_RETRY_PAUSE_MS);
        assert_eq!(harness.markers.last().unwrap().partitions, [partition("u", 0)]);
        assert_eq!(harness.state(), TransactionState::PrepareCommit);
        harness.written();
        assert_eq!(harness.state(), TransactionState::CompleteCommit, "{outcome:?}");
        assert_eq!(harness.machine.next_deadline_ms(), None);
    }
}

#[test]
fn a_failure_heard_of_after_the_marker_was_confirmed_does_not_send_it_again() {
    let (mut harness, sent) = prepared();
    harness.answer(sent.token, &[(partition("t", 0), answered(ErrorCode::None))]);
    harness.answer(sent.token, &[(partition("t", 0), MarkerOutcome::NoAnswer)]);
    assert_eq!(harness.machine.next_deadline_ms(), None);
}

#[test]
fn a_coordinator_that_a_partition_knows_to_be_superseded_sends_and_ends_nothing_more() {
    let (mut harness, sent) = prepared();
    harness.answer(sent.token, &[(partition("t", 0), MarkerOutcome::NoAnswer)]);
    harness.answer(sent.token, &[(partition("t", 1), answered(ErrorCode::TransactionCoordinatorFenced))]);
    harness.pass(10 * MARKER_RETRY_PAUSE_MS);
    assert!(harness.markers.is_empty());
    let fine = answered(ErrorCode::None);
    let all: Vec<_> = sent.partitions.iter().map(|partition| (partition.clone(), fine)).collect();
    harness.answer(sent.token, &all);
    assert_eq!(harness.state(), TransactionState::PrepareCommit, "its successor ends it");
}

#[test]
fn i66_answers_to_markers_of_an_earlier_transaction_do_not_end_a_later_one() {
    let (mut harness, first) = prepared();
    let fine = answered(ErrorCode::None);
    let all: Vec<_> = first.partitions.iter().map(|partition| (partition.clone(), fine)).collect();
    harness.answer(first.token, &all);
    let producer = granted(1001, 0);
    assert_eq!(harness.add(producer, &[partition("t", 0)], V0), ErrorCode::None);
    assert_eq!(harness.end(producer, false, V0).error, ErrorCode::None);
    harness.answer(first.token, &all);
    assert_eq!(harness.state(), TransactionState::PrepareAbort);
    harness.written();
    assert_eq!(harness.state(), TransactionState::CompleteAbort);
}

#[test]
fn the_record_that_ends_a_transaction_is_tried_until_it_is_committed() {
    let (mut harness, sent) = prepared();
    harness.holds = true;
    harness.markers.push(sent);
    harness.written();
    assert_eq!(harness.held.len(), 1);
    for _ in 0..3 {
        harness.fail(ErrorCode::NotEnoughReplicas);
        assert_eq!(harness.state(), TransactionState::PrepareCommit);
        assert!(harness.held.is_empty());
        harness.pass(MARKER_RETRY_PAUSE_MS);
        assert_eq!(harness.held.len(), 1);
        harness.pass(MARKER_RETRY_PAUSE_MS);
        assert_eq!(harness.held.len(), 1, "one is on its way already");
    }
    assert_eq!(harness.markers.len(), 1, "no marker is sent again");
    harness.commit();
    assert_eq!(
        (harness.state(), harness.machine.next_deadline_ms()),
        (TransactionState::CompleteCommit, None)
    );
}
