//! Tasks on their way from one member to another, epochs, silent and slow members.

use super::*;
use crate::consumer_group::MemberState;

fn pair() -> (Harness, Worker, Worker) {
    let mut h = harness(&all_topics(2));
    let mut one = Worker::new("a", "p");
    one.join(&mut h);
    settle(&mut h, &mut [&mut one]);
    (h, one, Worker::new("b", "q"))
}

#[test]
fn a_task_is_given_when_its_owner_has_let_go_of_it() {
    let (mut h, mut one, mut other) = pair();
    assert_eq!((one.active_count(), h.streams().group_epoch), (4, 2));
    let reply = other.join(&mut h);
    assert_eq!((reply.member_epoch, other.active_count()), (3, 0), "everything is still used");
    one.beat(&mut h);
    assert_eq!((one.epoch, one.active_count()), (2, 2), "it lets go in its old epoch");
    let described = h.streams();
    assert_eq!(described.members[0].1.current.state, MemberState::UnrevokedPartitions);
    other.beat(&mut h);
    assert_eq!(other.active_count(), 0);
    assert_eq!(one.acknowledge(&mut h).member_epoch, 3);
    other.beat(&mut h);
    assert_eq!(other.active_count(), 2);
    settle(&mut h, &mut [&mut one, &mut other]);
    h.assert_replayed();
    // Who leaves leaves its tasks at once.
    assert_eq!(one.leave(&mut h), ErrorCode::None);
    settle(&mut h, &mut [&mut other]);
    assert_eq!(other.active_count(), 4);
    assert_eq!(one.beat(&mut h).error, ErrorCode::UnknownMemberId);
}

#[test]
fn who_is_silent_or_slow_is_taken_out() {
    let (mut h, mut one, mut other) = pair();
    other.join(&mut h);
    one.beat(&mut h);
    // It was told to let go and does not say so.
    for _ in 0..4 {
        h.pass(REBALANCE_TIMEOUT_MS / 4);
        other.beat(&mut h);
        if one.beat(&mut h).error != ErrorCode::None {
            break;
        }
    }
    assert_eq!(one.beat(&mut h).error, ErrorCode::UnknownMemberId);
    settle(&mut h, &mut [&mut other]);
    assert_eq!(other.active_count(), 4);
    h.pass(SESSION_TIMEOUT_MS);
    assert_eq!(h.streams().state.name(), "Empty");
    assert_eq!(other.beat(&mut h).error, ErrorCode::UnknownMemberId);
    h.assert_replayed();
}

#[test]
fn an_answer_that_was_lost_is_told_again_and_a_wrong_epoch_is_fenced() {
    let (mut h, mut one, mut other) = pair();
    other.join(&mut h);
    one.beat(&mut h);
    one.owned = one.given.clone();
    let acknowledge = StreamsHeartbeat { owned: Some(one.owned.clone()), ..one.command() };
    let lost = h.streams_heartbeat(acknowledge.clone());
    assert_eq!(lost.member_epoch, 3);
    let again = h.streams_heartbeat(acknowledge.clone());
    assert_eq!((again.error, again.member_epoch), (ErrorCode::None, 3));
    assert_eq!(again.tasks, Some(one.given.clone()));
    let all = TaskSet { active: tasks(&[("0", &[0, 1])]), ..TaskSet::default() };
    for (epoch, owned) in [(1, None), (2, None), (2, Some(all)), (4, None)] {
        let command = StreamsHeartbeat { member_epoch: epoch, owned, ..acknowledge.clone() };
        assert_eq!(h.streams_heartbeat(command).error, ErrorCode::FencedMemberEpoch, "{epoch}");
    }
    assert_eq!(one.join(&mut h).error, ErrorCode::None);
    settle(&mut h, &mut [&mut one, &mut other]);
    assert_eq!(one.active_count(), 2);
}

#[test]
fn a_process_has_a_task_once_and_a_copy_becomes_active_when_its_owner_dies() {
    let mut config = streams_config();
    config.streams.standby_replicas = 1;
    let mut h = Harness::new(config);
    h.machine.set_topics(topics(&all_topics(4)));
    let mut workers =
        [Worker::new("a", "p"), Worker::new("b", "p"), Worker::new("c", "q"), Worker::new("d", "q")];
    for worker in &mut workers {
        worker.join(&mut h);
    }
    let [first, second, third, fourth] = &mut workers;
    settle(&mut h, &mut [first, second, third, fourth]);
    let stateful = text("1");
    for process in ["p", "q"] {
        let of: Vec<&Worker> = workers.iter().filter(|worker| worker.process == process).collect();
        let active: Vec<i32> =
            of.iter().filter_map(|w| w.given.active.get(&stateful)).flatten().copied().collect();
        let standby: Vec<i32> =
            of.iter().filter_map(|w| w.given.standby.get(&stateful)).flatten().copied().collect();
        let all: BTreeSet<i32> = active.iter().chain(&standby).copied().collect();
        assert_eq!((active.len(), standby.len(), all.len()), (2, 2, 4));
    }
    let [first, second, third, fourth] = &mut workers;
    first.leave(&mut h);
    second.leave(&mut h);
    settle(&mut h, &mut [third, fourth]);
    assert_eq!(third.active_count() + fourth.active_count(), 8);
    assert!(third.given.standby.is_empty() && fourth.given.standby.is_empty());
    h.assert_replayed();
}

#[test]
fn a_topic_that_grows_makes_more_tasks() {
    let (mut h, mut one, mut other) = pair();
    other.join(&mut h);
    settle(&mut h, &mut [&mut one, &mut other]);
    set_topics(&mut h, &all_topics(5));
    settle(&mut h, &mut [&mut one, &mut other]);
    assert_eq!((one.active_count(), other.active_count()), (5, 5));
    // Only the source did: its tasks are more, what was made from it stays as it is and does not fit any more.
    set_topics(&mut h, &[("lines", 6), ("g-counts-repartition", 5), ("g-counts-changelog", 5)]);
    assert_eq!(codes(&one.beat(&mut h)), [StatusCode::IncorrectlyPartitionedTopics]);
}

#[test]
fn a_heartbeat_that_changes_nothing_writes_nothing() {
    let (mut h, mut one, _) = pair();
    let before = h.log.len();
    for _ in 0..5 {
        let reply = one.beat(&mut h);
        assert_eq!((reply.tasks, reply.status), (None, vec![]));
    }
    assert_eq!(h.log.len(), before);
    // Other topics do not matter.
    set_topics(&mut h, &[&all_topics(2)[..], &[("unrelated", 1)]].concat());
    one.beat(&mut h);
    assert_eq!(h.log.len(), before);
}

#[test]
fn the_next_coordinator_goes_on_where_the_last_one_was() {
    let (mut h, mut one, mut other) = pair();
    other.join(&mut h);
    one.beat(&mut h);
    let view = Arc::clone(&h.machine.machinery.topics);
    h.fail_over();
    assert_eq!(one.beat(&mut h).error, ErrorCode::CoordinatorLoadInProgress);
    h.machine.set_topics(view);
    settle(&mut h, &mut [&mut one, &mut other]);
    assert_eq!((one.active_count(), other.active_count()), (2, 2));
    h.assert_replayed();
}

#[test]
fn a_failed_append_takes_the_decision_back() {
    let (mut h, mut one, mut other) = pair();
    h.held = true;
    let token = h.send(Command::StreamsHeartbeat(Box::new(other.join_command())));
    assert!(h.waits(token));
    h.fail(ErrorCode::NotEnoughReplicas);
    let Reply::StreamsHeartbeat(reply) = h.answer(token) else { panic!() };
    assert_eq!(reply.error, ErrorCode::CoordinatorNotAvailable);
    h.held = false;
    assert_eq!(h.streams().members.len(), 1);
    assert_eq!(one.beat(&mut h).tasks, None);
    h.assert_replayed();
    assert_eq!(other.join(&mut h).error, ErrorCode::None);
    settle(&mut h, &mut [&mut one, &mut other]);
}
