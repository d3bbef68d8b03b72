//! Every effect of the partition machine, one behaviour a test. Time is in milliseconds; broker 1 is the one under test.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ottla_replica::{
    AckState, Assignment, Effect, Effects, Input, IsrAnswer, IsrMember, IsrState, MachineOptions, Now,
    PartitionMachine,
};

const OPTIONS: MachineOptions =
    MachineOptions { lag_ms_max: 1_000, min_insync_replicas: 2, synced_only: false };

fn at(ms: u64) -> Now {
    Now { ms, lease_until_ms: u64::MAX }
}

fn assignment(leader: i32, epochs: (i32, i32), isr: &[i32], log_end: i64) -> Assignment {
    Assignment {
        leader,
        leader_epoch: epochs.0,
        partition_epoch: epochs.1,
        replicas: vec![1, 2, 3],
        isr: isr.to_vec(),
        log_start: 0,
        log_end,
        synced_end: 0,
    }
}

fn step(machine: &mut PartitionMachine, now: Now, input: Input) -> Effects {
    let mut out = Effects::new();
    machine.step(now, input, &mut out);
    out
}

/// Leads in epoch 5, partition epoch 10, with 100 records that all of the ISR is not yet known to have.
fn leader(isr: &[i32]) -> PartitionMachine {
    let mut machine = PartitionMachine::new(1, OPTIONS, 90);
    let effects = step(&mut machine, at(1), Input::Assigned(assignment(1, (5, 10), isr, 100)));
    assert_eq!(effects[0], Effect::BecameLeader { leader_epoch: 5, start_offset: 100 });
    machine
}

fn fetched(broker: i32, fetch_offset: i64) -> Input {
    Input::FollowerFetched { broker, broker_epoch: 70, fetch_offset, log_start: 0, eligible: true }
}

fn answered(answer: IsrAnswer) -> Input {
    Input::IsrAnswered { leader_epoch: 5, partition_epoch: 10, answer }
}

fn state(partition_epoch: i32, isr: &[i32]) -> IsrState {
    IsrState { leader_epoch: 5, partition_epoch, isr: isr.to_vec() }
}

fn members(ids: &[(i32, i64)]) -> Vec<IsrMember> {
    ids.iter().map(|&(broker, broker_epoch)| IsrMember { broker, broker_epoch }).collect()
}

#[test]
fn the_watermark_is_the_least_log_end_of_the_isr() {
    let mut machine = leader(&[1, 2, 3]);
    assert_eq!(step(&mut machine, at(2), fetched(2, 100)), [], "broker 3 has not shown up");
    assert_eq!(step(&mut machine, at(2), fetched(3, 95)), [Effect::HighWatermarkAdvanced(95)]);
    assert_eq!(step(&mut machine, at(3), Input::Appended { log_end: 110 }), []);
    assert_eq!(step(&mut machine, at(4), fetched(3, 110)), [Effect::HighWatermarkAdvanced(100)]);
    assert_eq!(machine.ack_state(at(4), 5, 99), AckState::Done);
    assert_eq!(machine.ack_state(at(4), 5, 100), AckState::Pending);
    assert_eq!(machine.ack_state(at(4), 4, 99), AckState::NoLongerLeader);
}

#[test]
fn alone_in_the_isr_with_min_one_an_append_is_committed_at_once() {
    let mut machine = PartitionMachine::new(1, MachineOptions { min_insync_replicas: 1, ..OPTIONS }, 0);
    let effects = step(&mut machine, at(1), Input::Assigned(assignment(1, (0, 0), &[1], 5)));
    assert_eq!(effects[1], Effect::HighWatermarkAdvanced(5));
    assert_eq!(step(&mut machine, at(2), Input::Appended { log_end: 6 }), [Effect::HighWatermarkAdvanced(6)]);
}

#[test]
fn under_min_isr_the_watermark_stands_still() {
    let mut machine = leader(&[1]);
    assert!(!machine.can_accept_acks_all() && machine.is_under_min_isr());
    assert_eq!(step(&mut machine, at(2), Input::Appended { log_end: 120 }), []);
    assert_eq!(machine.high_watermark(), 90);
    assert_eq!(machine.ack_state(at(2), 5, 80), AckState::NotEnoughReplicasAfterAppend);
    let lower = MachineOptions { min_insync_replicas: 1, ..OPTIONS };
    assert_eq!(step(&mut machine, at(3), Input::Options(lower)), [Effect::HighWatermarkAdvanced(120)]);
}

#[test]
fn more_min_insync_replicas_than_replicas_means_all_of_them() {
    let mut machine = PartitionMachine::new(1, MachineOptions { min_insync_replicas: 7, ..OPTIONS }, 0);
    let alone = Assignment { replicas: vec![1], ..assignment(1, (0, 0), &[1], 3) };
    step(&mut machine, at(1), Input::Assigned(alone));
    assert!(machine.can_accept_acks_all());
}

#[test]
fn without_a_lease_nothing_is_acknowledged_and_nothing_moves() {
    let mut machine = leader(&[1, 2, 3]);
    let late = Now { ms: 50, lease_until_ms: 50 };
    step(&mut machine, late, fetched(2, 100));
    assert_eq!(step(&mut machine, late, fetched(3, 100)), []);
    assert_eq!(machine.ack_state(late, 5, 80), AckState::Pending);
    assert_eq!(step(&mut machine, at(51), Input::Tick), [Effect::HighWatermarkAdvanced(100)], "renewed");
}

#[test]
fn with_synced_only_the_leaders_own_part_is_what_is_on_disk() {
    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(1), Input::Options(MachineOptions { synced_only: true, ..OPTIONS }));
    assert_eq!(step(&mut machine, at(2), fetched(2, 100)), []);
    assert_eq!(
        step(&mut machine, at(3), Input::Synced { synced_end: 97 }),
        [Effect::HighWatermarkAdvanced(97)]
    );
    assert_eq!(
        step(&mut machine, at(4), Input::Synced { synced_end: 500 }),
        [Effect::HighWatermarkAdvanced(100)]
    );
}

#[test]
fn a_caught_up_follower_is_proposed_and_counts_at_once() {
    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(2), fetched(2, 100));
    assert_eq!(machine.high_watermark(), 100);
    let proposal = Effect::ProposeIsr {
        isr: members(&[(1, -1), (2, 70), (3, 70)]),
        leader_epoch: 5,
        partition_epoch: 10,
    };
    assert_eq!(step(&mut machine, at(3), fetched(3, 100)), [proposal]);
    assert_eq!(machine.maximal_isr(), [1, 2, 3]);
    assert_eq!(machine.isr(), [1, 2], "committed is what the controller said");
    step(&mut machine, at(4), Input::Appended { log_end: 110 });
    assert_eq!(
        step(&mut machine, at(5), fetched(2, 110)),
        [],
        "3 holds it back before the controller has answered"
    );
    assert_eq!(
        step(&mut machine, at(6), answered(IsrAnswer::Accepted(state(11, &[1, 2, 3])))),
        [Effect::IsrExpanded(1)]
    );
    assert_eq!(step(&mut machine, at(7), fetched(3, 110)), [Effect::HighWatermarkAdvanced(110)]);
}

#[test]
fn a_follower_below_the_epochs_start_or_the_watermark_may_not_join() {
    let mut machine = leader(&[1, 2]);
    assert_eq!(
        step(&mut machine, at(2), fetched(3, 99)),
        [],
        "above the watermark (90), below the epoch's start (100)"
    );
    step(&mut machine, at(2), Input::Appended { log_end: 200 });
    step(&mut machine, at(3), fetched(2, 200));
    assert_eq!(machine.high_watermark(), 200);
    assert_eq!(step(&mut machine, at(4), fetched(3, 150)), [], "below the watermark");
    assert!(!machine.has_pending_isr());
}

#[test]
fn who_is_caught_up_and_about_to_join_holds_the_watermark_for_the_lag_time() {
    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(2), fetched(2, 100));
    step(&mut machine, at(3), fetched(3, 100));
    step(&mut machine, at(4), answered(IsrAnswer::Ineligible));
    step(&mut machine, at(5), Input::Appended { log_end: 200 });
    assert_eq!(
        step(&mut machine, at(6), fetched(2, 200)),
        [],
        "else it could never reach a busy leader's watermark"
    );
    assert_eq!(
        step(&mut machine, at(1_006), fetched(2, 200)),
        [Effect::HighWatermarkAdvanced(200)],
        "not for ever"
    );
}

#[test]
fn an_ineligible_follower_is_not_proposed_until_the_image_clears_it() {
    let mut machine = leader(&[1, 2]);
    let fenced = Input::FollowerFetched {
        broker: 3,
        broker_epoch: 70,
        fetch_offset: 100,
        log_start: 0,
        eligible: false,
    };
    assert_eq!(step(&mut machine, at(2), fenced), []);
    let other = Input::BrokerChanged { broker: 3, broker_epoch: 71, eligible: true };
    assert_eq!(step(&mut machine, at(3), other), [], "what is known was said by its earlier incarnation");
    let same = Input::BrokerChanged { broker: 3, broker_epoch: 70, eligible: true };
    assert!(matches!(step(&mut machine, at(4), same)[..], [Effect::ProposeIsr { .. }]));
}

#[test]
fn a_fetch_of_an_earlier_incarnation_is_not_believed() {
    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(2), fetched(2, 95));
    let zombie = Input::FollowerFetched {
        broker: 2,
        broker_epoch: 69,
        fetch_offset: 100,
        log_start: 0,
        eligible: true,
    };
    assert_eq!(step(&mut machine, at(3), zombie), []);
    assert_eq!(machine.high_watermark(), 95);
}

#[test]
fn ineligible_reverts_to_the_committed_isr_and_is_not_retried_at_every_fetch() {
    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(2), fetched(3, 100));
    step(&mut machine, at(2), fetched(2, 100));
    step(&mut machine, at(3), answered(IsrAnswer::Ineligible));
    assert_eq!(machine.maximal_isr(), [1, 2]);
    assert_eq!(step(&mut machine, at(4), fetched(3, 100)), []);
    assert!(matches!(step(&mut machine, at(600), fetched(3, 100))[..], [Effect::ProposeIsr { .. }]));
}

/// The controller raises the partition epoch when it refuses a member, and the image may overtake its answer.
#[test]
fn an_image_that_voids_a_proposal_is_taken_for_a_refusal() {
    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(2), fetched(3, 100));
    step(&mut machine, at(2), fetched(2, 100));
    step(&mut machine, at(3), Input::Assigned(assignment(1, (5, 11), &[1, 2], 100)));
    assert_eq!((machine.maximal_isr(), machine.has_pending_isr()), (vec![1, 2], false));
    assert_eq!(step(&mut machine, at(4), answered(IsrAnswer::Ineligible)), [], "of an epoch that is over");
    assert_eq!(step(&mut machine, at(5), fetched(3, 100)), [], "not at every fetch");
    let effects = step(&mut machine, at(600), fetched(3, 100));
    assert!(matches!(effects[..], [Effect::ProposeIsr { partition_epoch: 11, .. }]), "{effects:?}");
}

#[test]
fn a_lagging_follower_leaves_only_when_the_controller_says_so() {
    let mut machine = leader(&[1, 2, 3]);
    step(&mut machine, at(2), fetched(2, 100));
    step(&mut machine, at(2), fetched(3, 100));
    step(&mut machine, at(10), Input::Appended { log_end: 110 });
    step(&mut machine, at(900), fetched(2, 110));
    assert_eq!(step(&mut machine, at(1_010), Input::Tick), [], "in time: it was caught up when the log grew");
    let proposal =
        Effect::ProposeIsr { isr: members(&[(1, -1), (2, 70)]), leader_epoch: 5, partition_epoch: 10 };
    assert_eq!(step(&mut machine, at(1_011), Input::Tick), [proposal]);
    assert_eq!(machine.high_watermark(), 100, "it still counts");
    assert_eq!(
        step(&mut machine, at(1_020), answered(IsrAnswer::Accepted(state(11, &[1, 2])))),
        [Effect::IsrShrunk(1), Effect::HighWatermarkAdvanced(110)]
    );
}

#[test]
fn a_follower_of_an_idle_partition_stays_without_fetching_it() {
    let mut machine = leader(&[1, 2, 3]);
    step(&mut machine, at(2), fetched(2, 100));
    step(&mut machine, at(2), fetched(3, 100));
    assert_eq!(step(&mut machine, at(1_000_000), Input::Tick), []);
    step(&mut machine, at(1_000_001), Input::Appended { log_end: 101 });
    assert_eq!(step(&mut machine, at(1_000_002), Input::Tick), [], "the lag begins with the append");
}

#[test]
fn a_follower_that_is_always_a_fetch_behind_is_in_sync() {
    let mut machine = leader(&[1, 2]);
    for round in 1..50 {
        step(&mut machine, at(round * 500), Input::Appended { log_end: 100 + i64::try_from(round).unwrap() });
        step(&mut machine, at(round * 500), fetched(2, 99 + i64::try_from(round).unwrap()));
        assert_eq!(step(&mut machine, at(round * 500 + 1), Input::Tick), []);
    }
}

#[test]
fn a_member_that_never_shows_up_gets_the_lag_time() {
    let mut machine = leader(&[1, 2]);
    assert_eq!(step(&mut machine, at(1_001), Input::Tick), []);
    assert!(matches!(step(&mut machine, at(1_002), Input::Tick)[..], [Effect::ProposeIsr { .. }]));
    assert_eq!(step(&mut machine, at(1_003), Input::Tick), [], "one proposal at a time");
}

#[test]
fn a_proposal_without_an_answer_is_sent_again_and_counts_meanwhile() {
    let mut machine = leader(&[1, 2]);
    let first = step(&mut machine, at(2), fetched(3, 100));
    assert_eq!(step(&mut machine, at(3), Input::Tick), []);
    step(&mut machine, at(4), answered(IsrAnswer::Unknown));
    assert_eq!(machine.maximal_isr(), [1, 2, 3]);
    assert_eq!(step(&mut machine, at(5), Input::Tick), first);
    assert_eq!(step(&mut machine, at(6), Input::Tick), []);
}

#[test]
fn an_outdated_proposal_waits_for_the_image_or_takes_the_state_of_the_answer() {
    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(2), fetched(3, 100));
    step(&mut machine, at(3), answered(IsrAnswer::Outdated(None)));
    assert_eq!(step(&mut machine, at(4), Input::Tick), []);
    assert!(machine.has_pending_isr());
    let image = Input::Assigned(assignment(1, (5, 12), &[1, 2, 3], 100));
    assert_eq!(step(&mut machine, at(5), image), [Effect::IsrExpanded(1)]);
    assert!(!machine.has_pending_isr());

    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(2), fetched(3, 100));
    let answer = answered(IsrAnswer::Outdated(Some(state(12, &[1]))));
    assert_eq!(step(&mut machine, at(3), answer), [Effect::IsrShrunk(1)]);
    assert_eq!((machine.partition_epoch(), machine.isr()), (Some(12), &[1][..]));
}

#[test]
fn an_answer_to_an_older_proposal_and_an_older_image_change_nothing() {
    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(2), fetched(3, 100));
    step(&mut machine, at(3), Input::Assigned(assignment(1, (5, 13), &[1], 100)));
    assert_eq!(step(&mut machine, at(4), answered(IsrAnswer::Accepted(state(11, &[1, 2, 3])))), []);
    assert_eq!(step(&mut machine, at(5), Input::Assigned(assignment(1, (5, 12), &[1, 2], 100))), []);
    assert_eq!(machine.isr(), [1]);
}

#[test]
fn a_new_leader_is_followed_and_waiting_acks_are_refused() {
    let mut machine = leader(&[1, 2]);
    let effects = step(&mut machine, at(2), Input::Assigned(assignment(2, (6, 11), &[2, 1], 100)));
    assert_eq!(effects, [Effect::LeadershipLost, Effect::Follow { leader: 2, leader_epoch: 6 }]);
    assert_eq!(machine.ack_state(at(3), 5, 10), AckState::NoLongerLeader);
    assert_eq!(step(&mut machine, at(4), fetched(2, 100)), []);
    let same_leader = Input::Assigned(assignment(2, (6, 12), &[2], 100));
    assert_eq!(step(&mut machine, at(5), same_leader), [], "the fetch goes on");
}

#[test]
fn the_same_broker_in_a_new_epoch_starts_the_epoch_anew() {
    let mut machine = leader(&[1, 2]);
    step(&mut machine, at(2), Input::Appended { log_end: 130 });
    let effects = step(&mut machine, at(3), Input::Assigned(assignment(1, (6, 11), &[1, 2], 130)));
    assert_eq!(
        effects,
        [Effect::LeadershipLost, Effect::BecameLeader { leader_epoch: 6, start_offset: 130 }]
    );
    assert_eq!(machine.leader_epoch_start_offset(), Some(130));
}

#[test]
fn a_follower_adopts_the_watermark_within_its_log_and_only_of_its_leaders_epoch() {
    let mut machine = PartitionMachine::new(1, OPTIONS, 90);
    step(&mut machine, at(1), Input::Assigned(assignment(2, (5, 10), &[1, 2], 100)));
    let from = |leader_epoch, high_watermark, log_end| Input::LeaderAnswered {
        leader_epoch,
        high_watermark,
        log_end,
    };
    assert_eq!(step(&mut machine, at(2), from(5, 150, 110)), [Effect::HighWatermarkAdvanced(110)]);
    assert_eq!(step(&mut machine, at(3), from(4, 150, 120)), []);
    assert_eq!(step(&mut machine, at(3), from(5, 50, 110)), [], "never back");
    step(&mut machine, at(4), Input::Truncated { log_start: 0, log_end: 105 });
    assert_eq!(machine.high_watermark(), 105, "never above the log");
    step(&mut machine, at(5), Input::Truncated { log_start: 300, log_end: 300 });
    assert_eq!(machine.high_watermark(), 300, "a log that begins later (KAFKA-9491)");
}

#[test]
fn a_replica_that_is_removed_or_broken_stops() {
    let mut machine = leader(&[1, 2]);
    let removed = Assignment { replicas: vec![2, 3], ..assignment(2, (6, 11), &[2], 100) };
    assert_eq!(step(&mut machine, at(2), Input::Assigned(removed)), [Effect::LeadershipLost]);
    assert_eq!(step(&mut machine, at(3), Input::Offline), []);
    let mut follower = PartitionMachine::new(1, OPTIONS, 0);
    step(&mut follower, at(1), Input::Assigned(assignment(2, (5, 10), &[1, 2], 0)));
    assert_eq!(step(&mut follower, at(2), Input::Offline), [Effect::StopFollowing]);
}

#[test]
fn the_low_watermark_is_the_least_log_start() {
    let mut machine = leader(&[1, 2, 3]);
    step(&mut machine, at(2), Input::LogStartMoved { log_start: 40 });
    assert_eq!(machine.low_watermark(), -1, "not known of all");
    for (broker, log_start) in [(2, 40), (3, 20)] {
        let input =
            Input::FollowerFetched { broker, broker_epoch: 70, fetch_offset: 100, log_start, eligible: true };
        step(&mut machine, at(3), input);
    }
    assert_eq!(machine.low_watermark(), 20);
}

#[test]
fn all_caught_up_followers_are_proposed_together() {
    let mut machine = leader(&[1]);
    step(
        &mut machine,
        at(2),
        Input::FollowerFetched {
            broker: 2,
            broker_epoch: 70,
            fetch_offset: 100,
            log_start: 0,
            eligible: false,
        },
    );
    step(
        &mut machine,
        at(2),
        Input::FollowerFetched {
            broker: 3,
            broker_epoch: 70,
            fetch_offset: 100,
            log_start: 0,
            eligible: false,
        },
    );
    let lift = |broker| Input::BrokerChanged { broker, broker_epoch: 70, eligible: true };
    step(&mut machine, Now { ms: 3, lease_until_ms: 0 }, lift(2));
    let effects = step(&mut machine, at(4), lift(3));
    assert!(matches!(&effects[..], [Effect::ProposeIsr { isr, .. }] if isr.len() == 3));
}
