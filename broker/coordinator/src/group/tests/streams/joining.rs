//! Who gets in, with what, and what is refused.

use super::*;
use crate::consumer_group::GroupOverrides;
use crate::streams_group::{Endpoint, StreamsOverrides};

#[test]
fn first_members_wait_for_more_and_then_share() {
    let mut config = streams_config();
    config.streams.initial_rebalance_delay_ms = 3_000;
    let mut h = Harness::new(config);
    h.machine.set_topics(topics(&all_topics(2)));
    let (mut one, mut other) = (Worker::new("a", "p"), Worker::new("b", "q"));
    let reply = one.join(&mut h);
    assert_eq!(codes(&reply), [StatusCode::AssignmentDelayed]);
    assert_eq!((reply.tasks, reply.member_epoch), (Some(TaskSet::default()), 1));
    h.pass(2_000);
    assert_eq!(codes(&other.join(&mut h)), [StatusCode::AssignmentDelayed]);
    assert_eq!(h.streams().state.name(), "Assigning");
    h.pass(999);
    assert_eq!(one.beat(&mut h).tasks, None);
    h.pass(1);
    let reply = one.beat(&mut h);
    assert_eq!((codes(&reply), one.active_count()), (vec![], 2));
    settle(&mut h, &mut [&mut one, &mut other]);
    assert_eq!((one.active_count(), other.active_count()), (2, 2));
    h.assert_replayed();
    // The next members of an empty group wait again.
    assert_eq!((one.leave(&mut h), other.leave(&mut h)), (ErrorCode::None, ErrorCode::None));
    assert_eq!(h.streams().state.name(), "Empty");
    assert_eq!(codes(&Worker::new("c", "p").join(&mut h)), [StatusCode::AssignmentDelayed]);
}

#[test]
fn changes_within_the_interval_are_taken_together() {
    let mut config = streams_config();
    config.streams.assignment_interval_ms = 1_000;
    let mut h = Harness::new(config);
    h.machine.set_topics(topics(&all_topics(2)));
    let (mut one, mut other) = (Worker::new("a", "p"), Worker::new("b", "q"));
    one.join(&mut h);
    assert_eq!(one.active_count(), 4);
    let reply = other.join(&mut h);
    assert_eq!((codes(&reply), reply.tasks), (vec![StatusCode::AssignmentDelayed], Some(TaskSet::default())));
    h.pass(1_000);
    settle(&mut h, &mut [&mut one, &mut other]);
    assert_eq!((one.active_count(), other.active_count()), (2, 2));
}

#[test]
fn a_group_goes_by_its_own_settings() {
    let mut h = harness(&all_topics(2));
    let of = StreamsOverrides {
        heartbeat_interval_ms: Some(7_000),
        session_timeout_ms: Some(50_000),
        ..StreamsOverrides::default()
    };
    let set = |h: &mut Harness, streams: StreamsOverrides| {
        let overrides = GroupOverrides { streams, ..GroupOverrides::default() };
        h.machine.set_overrides(Arc::new(BTreeMap::from([(text("g"), overrides)])));
    };
    set(&mut h, of);
    let (mut one, mut other) = (Worker::new("a", "p"), Worker::new("b", "q"));
    assert_eq!(one.join(&mut h).heartbeat_interval_ms, 7_000);
    other.join(&mut h);
    settle(&mut h, &mut [&mut one, &mut other]);
    assert_eq!(one.given.standby.len() + other.given.standby.len(), 0);
    // Copies of the state, as soon as someone asks for them.
    set(&mut h, StreamsOverrides { standby_replicas: Some(1), ..of });
    settle(&mut h, &mut [&mut one, &mut other]);
    for worker in [&one, &other] {
        let active: BTreeSet<i32> =
            worker.given.active.get(&text("1")).into_iter().flatten().copied().collect();
        let standby: BTreeSet<i32> =
            worker.given.standby.get(&text("1")).into_iter().flatten().copied().collect();
        assert!(active.is_disjoint(&standby) && active.len() + standby.len() == 2, "{worker:?}");
        assert!(!worker.given.standby.contains_key(&text("0")), "it has no state");
    }
    h.assert_replayed();
    h.pass(49_999);
    one.beat(&mut h);
    h.pass(1);
    assert_eq!(other.beat(&mut h).error, ErrorCode::UnknownMemberId);
}

#[test]
fn what_does_not_make_sense_is_refused() {
    let mut h = harness(&all_topics(2));
    let one = Worker::new("a", "p");
    let good = one.join_command();
    let some = || Some(TaskSet { active: tasks(&[("0", &[0])]), ..TaskSet::default() });
    let warm = || Some(TaskSet { warmup: tasks(&[("0", &[0])]), ..TaskSet::default() });
    let bad = [
        StreamsHeartbeat { group_id: text(""), ..good.clone() },
        StreamsHeartbeat { member_id: text(""), ..good.clone() },
        StreamsHeartbeat { instance_id: Some(text("i")), ..good.clone() },
        StreamsHeartbeat { rack_id: Some(text("")), ..good.clone() },
        StreamsHeartbeat { rebalance_timeout_ms: None, ..good.clone() },
        StreamsHeartbeat { topology: None, ..good.clone() },
        StreamsHeartbeat { owned: None, ..good.clone() },
        StreamsHeartbeat { owned: some(), ..good.clone() },
        StreamsHeartbeat { owns_in_part: true, ..good.clone() },
        StreamsHeartbeat { has_patterns: true, ..good.clone() },
        StreamsHeartbeat { has_offsets: true, ..good.clone() },
        StreamsHeartbeat { member_epoch: -3, ..one.command() },
        StreamsHeartbeat { member_epoch: -2, ..one.command() },
        StreamsHeartbeat { member_epoch: 1, topology: good.topology.clone(), ..one.command() },
        StreamsHeartbeat { member_epoch: 1, owned: warm(), ..one.command() },
        StreamsHeartbeat { process_id: Some(text(&"p".repeat(MEMBER_TEXTS_BYTES_MAX))), ..good.clone() },
    ];
    for command in bad {
        assert_eq!(h.streams_heartbeat(command.clone()).error, ErrorCode::InvalidRequest, "{command:?}");
    }
    assert!(h.machine.groups.is_empty());
    let unknown = StreamsHeartbeat { member_epoch: 1, ..one.command() };
    assert_eq!(h.streams_heartbeat(unknown.clone()).error, ErrorCode::GroupIdNotFound);
    let mut one = one;
    one.join(&mut h);
    assert_eq!(
        h.streams_heartbeat(StreamsHeartbeat { member_id: text("x"), ..unknown }).error,
        ErrorCode::UnknownMemberId
    );
    for (id, number) in [("0", 2), ("0", -1), ("9", 0)] {
        let owned = Some(TaskSet { active: tasks(&[(id, &[number])]), ..TaskSet::default() });
        // A change of the member has the group looked at.
        let command = StreamsHeartbeat { owned, rack_id: Some(text("r")), ..one.command() };
        assert_eq!(h.streams_heartbeat(command).error, ErrorCode::InvalidRequest);
    }
}

#[test]
fn a_full_group_lets_nobody_else_in() {
    let mut config = streams_config();
    config.streams.group_size_max = 1;
    let mut h = Harness::new(config);
    h.machine.set_topics(topics(&all_topics(2)));
    let mut one = Worker::new("a", "p");
    assert_eq!(one.join(&mut h).error, ErrorCode::None);
    assert_eq!(Worker::new("b", "p").join(&mut h).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(one.join(&mut h).error, ErrorCode::None, "who is in may join again");
}

#[test]
fn a_shutdown_reaches_everyone_until_the_group_is_empty() {
    let mut h = harness(&all_topics(2));
    let (mut one, mut other) = (Worker::new("a", "p"), Worker::new("b", "q"));
    one.join(&mut h);
    other.join(&mut h);
    let reply = h.streams_heartbeat(StreamsHeartbeat { shutdown_application: true, ..one.command() });
    assert_eq!(codes(&reply), [StatusCode::ShutdownApplication]);
    assert!(codes(&other.beat(&mut h)).contains(&StatusCode::ShutdownApplication));
    let leave = StreamsHeartbeat { member_epoch: LEAVE_EPOCH, shutdown_application: true, ..one.command() };
    assert_eq!(h.streams_heartbeat(leave).error, ErrorCode::None);
    assert!(codes(&other.beat(&mut h)).contains(&StatusCode::ShutdownApplication));
    other.leave(&mut h);
    assert_eq!(codes(&one.join(&mut h)), []);
}

#[test]
fn endpoints_are_told_to_who_does_not_know_them() {
    let mut h = harness(&all_topics(2));
    let mut one = Worker::new("a", "p");
    let endpoint = Endpoint { host: text("host"), port: 40_000 };
    let reply = h.streams_heartbeat(StreamsHeartbeat {
        user_endpoint: Some(endpoint.clone()),
        endpoint_epoch: -1,
        ..one.join_command()
    });
    one.learn(&reply);
    let told = reply.endpoints.unwrap();
    assert_eq!((told.len(), &told[0].endpoint), (1, &endpoint));
    let lines: Vec<i32> = told[0].active.iter().find(|(topic, _)| *topic == text("lines")).unwrap().1.clone();
    assert_eq!(lines, [0, 1]);
    let known = StreamsHeartbeat { endpoint_epoch: reply.endpoint_epoch, ..one.command() };
    assert_eq!(h.streams_heartbeat(known.clone()).endpoints, None);
    let mut other = Worker::new("b", "q");
    other.join(&mut h);
    settle(&mut h, &mut [&mut one, &mut other]);
    let reply = h.streams_heartbeat(StreamsHeartbeat { member_epoch: one.epoch, ..known });
    let told = reply.endpoints.unwrap();
    assert_eq!((told.len(), told[0].active.iter().map(|(_, numbers)| numbers.len()).sum::<usize>()), (1, 2));
}

#[test]
fn a_name_belongs_to_one_kind_of_group_while_it_has_members() {
    let mut h = harness(&all_topics(2));
    let mut one = Worker::new("a", "p");
    one.join(&mut h);
    let consumer = crate::group::tests::consumer::Peer::new("c", &["lines"]);
    assert_eq!(h.heartbeat(consumer.join_command()).error, ErrorCode::GroupIdNotFound);
    let classic = h.join("g", "");
    assert_eq!(h.joined(classic).error, ErrorCode::InconsistentGroupProtocol);
    assert_eq!(h.beat("g", "a", 1), ErrorCode::UnknownMemberId);
    assert_eq!(h.leave("g", &[("a", None)]), [ErrorCode::UnknownMemberId]);
    assert_eq!(h.machine.describe("g").unwrap().error, ErrorCode::GroupIdNotFound);
    assert!(h.machine.describe_consumer_group("g").is_err());
    let listed = h.machine.list(&GroupFilter { types: vec![text("Streams")], states: vec![] }).unwrap();
    assert_eq!(
        (listed[0].group_type, &*listed[0].protocol_type, listed[0].state),
        ("streams", "streams", "Stable")
    );
    assert_eq!(
        h.call(Command::DeleteGroup { group_id: text("g") }),
        Reply::DeleteGroup(ErrorCode::NonEmptyGroup)
    );
    one.leave(&mut h);
    // Without members it is what the next member asks for, and back.
    let (ids, _) = h.form("g", 1);
    assert!(h.machine.describe_streams_group("g").is_err());
    h.assert_replayed();
    assert_eq!(one.join(&mut h).error, ErrorCode::GroupIdNotFound);
    assert_eq!(h.leave("g", &[(&ids[0], None)]), [ErrorCode::None]);
    assert_eq!(one.join(&mut h).error, ErrorCode::None);
    h.assert_replayed();
    one.leave(&mut h);
    assert_eq!(h.call(Command::DeleteGroup { group_id: text("g") }), Reply::DeleteGroup(ErrorCode::None));
    h.assert_replayed();
    assert_eq!(h.machine.durable().groups_count(), 0);
}
