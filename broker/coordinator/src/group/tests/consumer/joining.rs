//! Joining, leaving, being removed; what is refused.

use super::*;
use crate::consumer_group::GroupOverrides;

#[test]
fn the_first_member_is_given_everything_at_once() {
    let mut h = harness(3);
    let mut a = Peer::new("a", &["t"]);
    let reply = h.heartbeat(a.join_command());
    assert_eq!(
        (reply.error, reply.message.clone(), reply.member_id.clone()),
        (ErrorCode::None, None, Some(text("a")))
    );
    assert_eq!((reply.member_epoch, reply.heartbeat_interval_ms), (1, 5_000));
    assert_eq!(reply.assignment, Some(of_t(0..3)));
    a.learn(&reply);
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.beat(&mut h).assignment, None, "nothing new, nothing told");
    assert_eq!(h.listing(), Some(("consumer", "Stable")));
    let reply =
        h.heartbeat(ConsumerHeartbeat { member_epoch: 1, owned: Some(of_t(0..3)), ..a.join_command() });
    assert_eq!((reply.error, reply.assignment), (ErrorCode::None, Some(of_t(0..3))), "told all, told all");
    h.assert_replayed();
}

#[test]
fn before_version_1_the_coordinator_makes_the_member_id() {
    let mut h = harness(1);
    let command = Peer::new("", &["t"]).join_command();
    let reply = h.heartbeat(ConsumerHeartbeat { member_id_required: false, ..command });
    assert_eq!((reply.error, reply.member_id), (ErrorCode::None, Some(text("fresh"))));
}

#[test]
fn wrong_requests_are_refused_and_make_no_group() {
    let join = || Peer::new("a", &["t"]).join_command();
    let owned = Some(of_t([0]));
    let refused = [
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { group_id: text(""), ..join() }),
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { member_id: text(""), ..join() }),
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { topics: None, ..join() }),
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { rebalance_timeout_ms: None, ..join() }),
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { owned, ..join() }),
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { owned: None, ..join() }),
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { instance_id: Some(text("")), ..join() }),
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { rack_id: Some(text("")), ..join() }),
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { member_epoch: -3, ..join() }),
        (ErrorCode::InvalidRequest, ConsumerHeartbeat { member_epoch: LEAVE_STATIC_EPOCH, ..join() }),
        (ErrorCode::UnsupportedAssignor, ConsumerHeartbeat { server_assignor: Some(text("x")), ..join() }),
        (ErrorCode::InvalidRegularExpression, ConsumerHeartbeat { regex: Some(text("a(b")), ..join() }),
        (ErrorCode::GroupIdNotFound, ConsumerHeartbeat { member_epoch: 5, ..join() }),
        (ErrorCode::GroupIdNotFound, ConsumerHeartbeat { member_epoch: LEAVE_EPOCH, ..join() }),
    ];
    let mut h = harness(1);
    for (error, command) in refused {
        let reply = h.heartbeat(command.clone());
        assert_eq!(reply.error, error, "{command:?}");
        assert!(reply.message.is_some_and(|message| !message.is_empty()));
        assert_eq!((h.listing(), h.log.len()), (None, 0));
    }
}

#[test]
fn a_member_that_leaves_gives_its_partitions_to_the_others() {
    let mut h = harness(4);
    let (mut a, mut b) = (Peer::new("a", &["t"]), Peer::new("b", &["t"]));
    a.join(&mut h);
    b.join(&mut h);
    settle(&mut h, &mut [&mut a, &mut b]);
    let reply = h.heartbeat(ConsumerHeartbeat { member_epoch: LEAVE_EPOCH, ..b.command() });
    assert_eq!((reply.error, reply.member_id, reply.member_epoch), (ErrorCode::None, Some(text("b")), -1));
    assert_eq!(b.beat(&mut h).error, ErrorCode::UnknownMemberId);
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned, of_t(0..4));
    assert_eq!(a.leave(&mut h, LEAVE_EPOCH), ErrorCode::None);
    assert_eq!(h.listing(), Some(("consumer", "Empty")));
    assert!(h.described().members.is_empty());
    h.assert_replayed();
}

#[test]
fn a_silent_member_is_removed_at_its_session_timeout() {
    let mut h = harness(2);
    let (mut a, mut b) = (Peer::new("a", &["t"]), Peer::new("b", &["t"]));
    a.join(&mut h);
    b.join(&mut h);
    settle(&mut h, &mut [&mut a, &mut b]);
    h.pass(SESSION_TIMEOUT_MS - 1_000);
    a.step(&mut h);
    assert_eq!(h.described().members.len(), 2);
    h.pass(1_000);
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned, of_t(0..2));
    assert_eq!(b.beat(&mut h).error, ErrorCode::UnknownMemberId);
    h.assert_replayed();
}

#[test]
fn a_group_may_have_timeouts_of_its_own() {
    let mut h = harness(2);
    let own = |session_timeout_ms| GroupOverrides {
        session_timeout_ms: Some(session_timeout_ms),
        heartbeat_interval_ms: Some(7_000),
        ..GroupOverrides::default()
    };
    h.machine.set_overrides(Arc::new(BTreeMap::from([(text("g"), own(60_000))])));
    let (mut a, mut b) = (Peer::new("a", &["t"]), Peer::new("b", &["t"]));
    a.join(&mut h);
    b.join(&mut h);
    settle(&mut h, &mut [&mut a, &mut b]);
    assert_eq!(a.beat(&mut h).heartbeat_interval_ms, 7_000);
    h.pass(50_000);
    assert_eq!(b.beat(&mut h).error, ErrorCode::None);
    h.machine.set_overrides(Arc::new(BTreeMap::from([(text("g"), own(5_000))])));
    assert_eq!(b.beat(&mut h).error, ErrorCode::None);
    assert_eq!(a.beat(&mut h).error, ErrorCode::None);
    h.pass(5_000);
    assert!(h.described().members.is_empty());
}

#[test]
fn a_full_group_takes_nobody_in_until_somebody_leaves() {
    let mut config = consumer_config();
    config.consumer.group_size_max = 2;
    let mut h = Harness::new(config);
    h.machine.set_topics(topics(&[("t", 1)]));
    let (mut a, mut b, mut c) = (Peer::new("a", &["t"]), Peer::of_instance("b", "i"), Peer::new("c", &["t"]));
    assert_eq!((a.join(&mut h), b.join(&mut h)), (ErrorCode::None, ErrorCode::None));
    assert_eq!(c.join(&mut h), ErrorCode::GroupMaxSizeReached);
    assert_eq!(a.join(&mut h), ErrorCode::None, "it is one already");
    b.leave(&mut h, LEAVE_STATIC_EPOCH);
    assert_eq!(Peer::of_instance("b2", "i").join(&mut h), ErrorCode::None, "it takes its own place");
    a.leave(&mut h, LEAVE_EPOCH);
    assert_eq!(c.join(&mut h), ErrorCode::None);
}

#[test]
fn the_assignor_that_most_ask_for_is_taken() {
    let mut h = harness(3);
    let mut a = Peer::new("a", &["t"]);
    a.join(&mut h);
    assert_eq!(&*h.described().assignor, "uniform");
    let of_range = |id: &str| Peer { assignor: Some("range".to_owned()), ..Peer::new(id, &["t"]) };
    let (mut b, mut c) = (of_range("b"), of_range("c"));
    b.join(&mut h);
    c.join(&mut h);
    settle(&mut h, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(&*h.described().assignor, "range");
    assert_eq!([&a.owned, &b.owned, &c.owned], [&of_t([0]), &of_t([1]), &of_t([2])]);
}

#[test]
fn an_empty_classic_group_becomes_a_consumer_group_and_back_and_keeps_its_offsets() {
    let mut h = harness(1);
    h.commit_simple("g", &[("t", 0, 3)]);
    let (ids, _) = h.form("g", 1);
    h.leave("g", &[(&ids[0], None)]);
    let mut a = Peer::new("a", &["t"]);
    assert_eq!(a.join(&mut h), ErrorCode::None);
    assert_eq!((h.listing(), h.fetched("g")), (Some(("consumer", "Stable")), vec![("t".to_owned(), 0, 3)]));
    assert!(h.machine.durable().group("g").unwrap().metadata.is_none());
    a.leave(&mut h, LEAVE_EPOCH);
    h.form("g", 1);
    assert_eq!((h.listing(), h.fetched("g")), (Some(("classic", "Stable")), vec![("t".to_owned(), 0, 3)]));
    h.assert_replayed();
}

#[test]
fn what_a_member_tells_and_the_patterns_of_a_group_are_bounded() {
    let mut h = harness(1);
    let long = vec![text(&"x".repeat(1_000)); 1_100];
    let join = Peer::new("a", &["t"]).join_command();
    let reply = h.heartbeat(ConsumerHeartbeat { topics: Some(long), ..join.clone() });
    assert_eq!(reply.error, ErrorCode::InvalidRequest);
    for number in 0..=PATTERNS_PER_GROUP_MAX {
        let (member_id, regex) = (text(&format!("m{number}")), Some(text(&format!("p{number}"))));
        let reply = h.heartbeat(ConsumerHeartbeat { member_id, regex, topics: None, ..join.clone() });
        let full = number == PATTERNS_PER_GROUP_MAX;
        assert_eq!(reply.error, if full { ErrorCode::InvalidRequest } else { ErrorCode::None });
    }
}
