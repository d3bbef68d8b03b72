//! What comes in is bounded.

use super::*;

#[test]
fn partitions_of_one_transaction_are_limited() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    let count = i32::try_from(PARTITIONS_PER_TRANSACTION_MAX).unwrap();
    let all: Vec<_> = (0..count).map(|index| partition("t", index)).collect();
    assert_eq!(harness.add(producer, &all, V2), ErrorCode::None);
    assert_eq!(harness.add(producer, &[partition("t", count)], V2), ErrorCode::PolicyViolation);
    assert_eq!(harness.add(producer, &[partition("t", 5)], V2), ErrorCode::None, "one that is there");
    assert_eq!(harness.known().partitions.len(), PARTITIONS_PER_TRANSACTION_MAX);
}

#[test]
fn no_partitions_at_all_begin_no_transaction() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    assert_eq!(harness.add(producer, &[], V2), ErrorCode::None);
    assert_eq!(harness.state(), TransactionState::Empty);
}

#[test]
fn the_same_partition_twice_is_one() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    let twice = [partition("t", 0), partition("t", 0)];
    assert_eq!(harness.add(producer, &twice, V2), ErrorCode::None);
    assert_eq!(harness.known().partitions.len(), 1);
    let records = harness.log.len();
    assert_eq!(harness.add(producer, &twice, V2), ErrorCode::None);
    assert_eq!(harness.log.len(), records, "nothing is written twice");
}

#[test]
fn nothing_is_kept_of_refused_requests_or_of_ids_whose_first_record_failed() {
    let mut harness = Harness::new(V2);
    harness.holds = true;
    for n in 0..10 {
        let mut init = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
        let Command::InitProducerId(command) = &mut init else { panic!("not an init") };
        command.transactional_id = Text::from(format!("id-{n}"));
        harness.submit(&init);
        harness.fail(ErrorCode::NotEnoughReplicas);
        harness.add(granted(n, 0), &[partition("t", 0)], V2);
        harness.end(granted(n, 0), true, V2);
    }
    assert!(harness.machine.live.is_empty() && harness.machine.appends.is_empty());
    assert!(harness.machine.tokens.is_empty() && harness.machine.timers.is_empty());
}

#[test]
fn nothing_is_left_over_from_transactions_that_are_over() {
    let mut harness = Harness::new(V2);
    let mut producer = harness.init();
    for _ in 0..20 {
        harness.add(producer, &[partition("t", 0), partition("t", 1)], V2);
        producer = harness.end(producer, true, V2);
        harness.answer_markers(MarkerOutcome::NoAnswer);
        harness.pass(MARKER_RETRY_PAUSE_MS);
        harness.written();
    }
    assert!(harness.machine.appends.is_empty() && harness.machine.tokens.is_empty());
    assert!(harness.machine.timers.is_empty());
    assert_eq!(harness.machine.live.len(), 1, "the epoch before the last");
}
