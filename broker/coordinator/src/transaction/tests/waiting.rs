//! Additions of partitions that wait for an earlier change.

use super::*;

const WAIT_MS: u64 = 500;

fn patient(producer: ProducerReply, index: i32) -> Command {
    let Command::AddPartitions(command) = Harness::add_command(producer, &[partition("t", index)], V2) else {
        panic!("not an add")
    };
    Command::AddPartitions(AddPartitions { wait_ms_max: WAIT_MS, ..command })
}

fn reply(harness: &Harness, token: RequestToken) -> Option<ErrorCode> {
    harness.replies.get(&token).map(|reply| match reply {
        Reply::AddPartitions(error) => *error,
        other => panic!("{other:?}"),
    })
}

fn indexes(harness: &Harness) -> Vec<i32> {
    harness.known().partitions.iter().map(|partition| partition.partition).collect()
}

#[test]
fn additions_at_the_same_time_are_written_together() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    harness.holds = true;
    let tokens: Vec<_> = (0..5).map(|index| harness.submit(&patient(producer, index))).collect();
    assert_eq!(harness.held.len(), 1);
    harness.commit();
    assert_eq!(reply(&harness, tokens[0]), Some(ErrorCode::None));
    assert_eq!((reply(&harness, tokens[1]), harness.held.len()), (None, 1), "one append for the rest");
    harness.commit();
    assert!(tokens.iter().all(|token| reply(&harness, *token) == Some(ErrorCode::None)));
    assert_eq!((indexes(&harness), harness.held.len()), (vec![0, 1, 2, 3, 4], 0));
    assert_eq!(harness.machine.next_deadline_ms(), None);
    harness.assert_replay_equals_live();
}

#[test]
fn the_first_addition_of_the_next_transaction_waits_for_the_end_of_the_last() {
    let (mut harness, first) = super::states::in_state(TransactionState::Ongoing, V2);
    let second = harness.end(first, true, V2);
    let waits = harness.submit(&patient(second, 7));
    let late = harness.submit(&patient(first, 8));
    assert_eq!((reply(&harness, waits), reply(&harness, late)), (None, Some(ErrorCode::ProducerFenced)));
    harness.written();
    assert_eq!(reply(&harness, waits), Some(ErrorCode::None));
    assert_eq!((harness.state(), indexes(&harness)), (TransactionState::Ongoing, vec![7]));
}

#[test]
fn nobody_waits_longer_than_it_can_or_if_it_does_not_say_so() {
    let (mut harness, first) = super::states::in_state(TransactionState::Ongoing, V2);
    let second = harness.end(first, true, V2);
    assert_eq!(harness.add(second, &[partition("t", 7)], V2), ErrorCode::ConcurrentTransactions);
    let early = harness.submit(&patient(second, 7));
    harness.pass(1);
    let late = harness.submit(&patient(second, 8));
    harness.pass(WAIT_MS - 2);
    assert_eq!(reply(&harness, early), None);
    harness.pass(1);
    let told = Some(ErrorCode::ConcurrentTransactions);
    assert_eq!((reply(&harness, early), reply(&harness, late)), (told, None));
    assert_eq!(harness.machine.next_deadline_ms(), Some(harness.now.monotonic_ms + 1));
    harness.pass(1);
    assert_eq!((reply(&harness, late), harness.machine.next_deadline_ms()), (told, None));
    harness.written();
    assert_eq!(harness.state(), TransactionState::CompleteCommit, "nothing is added for those who left");
}

#[test]
fn a_failed_append_is_told_to_those_that_it_was_for_and_the_others_have_their_turn() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    harness.holds = true;
    let tokens: Vec<_> = (0..3).map(|index| harness.submit(&patient(producer, index))).collect();
    harness.fail(ErrorCode::NotEnoughReplicas);
    assert_eq!(reply(&harness, tokens[0]), Some(ErrorCode::CoordinatorNotAvailable));
    harness.commit();
    assert_eq!(reply(&harness, tokens[1]), Some(ErrorCode::None));
    assert_eq!(reply(&harness, tokens[2]), Some(ErrorCode::None));
    assert_eq!(indexes(&harness), [1, 2]);
}

#[test]
fn i59_those_who_wait_are_checked_again_when_their_turn_comes() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    harness.holds = true;
    let init = harness.init_command(NO_PRODUCER_ID, NO_PRODUCER_EPOCH);
    harness.submit(&init);
    let fenced = harness.submit(&patient(producer, 0));
    assert_eq!(reply(&harness, fenced), None);
    harness.commit();
    assert_eq!(reply(&harness, fenced), Some(ErrorCode::ProducerFenced));
    assert!(harness.held.is_empty());
}

#[test]
fn those_who_wait_are_sent_away_when_leadership_ends_and_are_limited() {
    let (mut harness, first) = super::states::in_state(TransactionState::Ongoing, V2);
    let second = harness.end(first, true, V2);
    let tokens: Vec<_> = (0..WAITING_ADDITIONS_MAX).map(|_| harness.submit(&patient(second, 0))).collect();
    let refused = harness.submit(&patient(second, 0));
    assert_eq!(reply(&harness, refused), Some(ErrorCode::ConcurrentTransactions));
    let mut effects = Effects::default();
    harness.machine.resign(&mut effects);
    harness.execute(effects);
    assert!(tokens.iter().all(|token| reply(&harness, *token) == Some(ErrorCode::NotCoordinator)));
    assert_eq!(harness.machine.next_deadline_ms(), None);
}

#[test]
fn an_id_that_is_forgotten_meanwhile_is_unknown_to_those_who_waited() {
    let mut harness = Harness::new(V2);
    let producer = harness.init();
    harness.pass(7 * 24 * 60 * 60 * 1000);
    harness.holds = true;
    harness.expire_ids();
    let waits = harness.submit(&patient(producer, 0));
    harness.commit();
    assert_eq!(reply(&harness, waits), Some(ErrorCode::InvalidProducerIdMapping));
    assert!(harness.machine.live.is_empty());
}
