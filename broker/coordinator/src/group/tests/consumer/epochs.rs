//! Epochs and fencing, static members, offsets by epoch, failures of appends, failover.

use super::*;

fn pair(h: &mut Harness, make: impl Fn(&str) -> Peer) -> (Peer, Peer) {
    let (mut a, mut b) = (make("a"), make("b"));
    assert_eq!((a.join(h), b.join(h)), (ErrorCode::None, ErrorCode::None));
    settle(h, &mut [&mut a, &mut b]);
    (a, b)
}

#[test]
fn a_wrong_epoch_is_fenced_and_the_member_may_join_again() {
    let mut h = harness(2);
    let mut a = Peer::new("a", &["t"]);
    a.join(&mut h);
    settle(&mut h, &mut [&mut a]);
    for epoch in [a.epoch + 1, a.epoch + 1_000] {
        let reply = h.heartbeat(ConsumerHeartbeat { member_epoch: epoch, ..a.command() });
        assert_eq!(reply.error, ErrorCode::FencedMemberEpoch);
    }
    assert_eq!(a.beat(&mut h).error, ErrorCode::None, "the fenced heartbeat changed nothing");
    let nobody = Peer { epoch: a.epoch, ..Peer::new("nobody", &["t"]) };
    assert_eq!(h.heartbeat(nobody.command()).error, ErrorCode::UnknownMemberId);
    assert_eq!(nobody.clone().leave(&mut h, LEAVE_EPOCH), ErrorCode::UnknownMemberId);
    assert_eq!((a.join(&mut h), a.given.clone()), (ErrorCode::None, of_t(0..2)));
}

#[test]
fn the_epoch_before_is_served_only_if_nothing_more_is_owned() {
    let mut h = harness(4);
    let mut a = Peer::new("a", &["t"]);
    a.join(&mut h);
    a.step(&mut h);
    let (old, all) = (a.epoch, a.owned.clone());
    let mut b = Peer::new("b", &["t"]);
    b.join(&mut h);
    settle(&mut h, &mut [&mut a, &mut b]);
    let late = |owned: &Partitions| ConsumerHeartbeat {
        member_epoch: old,
        owned: Some(owned.clone()),
        ..a.command()
    };
    assert_eq!(h.heartbeat(late(&all)).error, ErrorCode::FencedMemberEpoch);
    assert_eq!(
        h.heartbeat(ConsumerHeartbeat { owned: None, ..late(&all) }).error,
        ErrorCode::FencedMemberEpoch
    );
    let reply = h.heartbeat(late(&a.owned));
    assert_eq!((reply.error, reply.member_epoch), (ErrorCode::None, a.epoch));
}

#[test]
fn a_static_member_comes_back_to_its_partitions_and_its_former_self_is_fenced() {
    let mut h = harness(4);
    let (mut a, mut b) = pair(&mut h, |id| Peer::of_instance(id, id));
    let epoch = h.described().group_epoch;
    assert_eq!(Peer::of_instance("b2", "b").join(&mut h), ErrorCode::UnreleasedInstanceId);
    assert_eq!(b.leave(&mut h, LEAVE_STATIC_EPOCH), ErrorCode::None);
    a.step(&mut h);
    assert_eq!((a.owned.clone(), h.described().group_epoch), (of_t([0, 1]), epoch));
    let mut again = Peer::of_instance("b2", "b");
    assert_eq!(again.join(&mut h), ErrorCode::None);
    assert_eq!(again.given, b.owned, "at once");
    settle(&mut h, &mut [&mut a, &mut again]);
    assert_eq!(h.described().group_epoch, epoch);
    b.epoch = again.epoch;
    assert_eq!(b.beat(&mut h).error, ErrorCode::FencedInstanceId);
    assert_eq!(b.leave(&mut h, LEAVE_STATIC_EPOCH), ErrorCode::FencedInstanceId);
    let anonymous = Peer { instance: None, ..b.clone() };
    assert_eq!(h.heartbeat(anonymous.command()).error, ErrorCode::UnknownMemberId);
    let members = h.described().members;
    let instances: Vec<_> =
        members.iter().map(|member| member.metadata.instance_id.clone().unwrap()).collect();
    assert_eq!(instances, [text("a"), text("b")]);
    h.assert_replayed();
    h.pass(SESSION_TIMEOUT_MS - 1);
    a.step(&mut h);
    again.step(&mut h);
    assert_eq!(h.described().members.len(), 2, "the former member's session is over with it");
}

#[test]
fn a_static_member_that_stays_away_is_removed() {
    let mut h = harness(2);
    let (mut a, mut b) = pair(&mut h, |id| Peer::of_instance(id, id));
    b.leave(&mut h, LEAVE_STATIC_EPOCH);
    h.pass(SESSION_TIMEOUT_MS / 2);
    a.step(&mut h);
    h.pass(SESSION_TIMEOUT_MS / 2);
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned, of_t(0..2));
}

#[test]
fn a_static_member_may_leave_for_good() {
    let mut h = harness(2);
    let (mut a, mut b) = pair(&mut h, |id| Peer::of_instance(id, id));
    assert_eq!(b.leave(&mut h, LEAVE_EPOCH), ErrorCode::None);
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned, of_t(0..2));
}

#[test]
fn offsets_are_committed_and_fetched_with_the_member_epoch() {
    let mut h = harness(2);
    let mut a = Peer::new("a", &["t"]);
    a.join(&mut h);
    a.step(&mut h);
    let old = a.epoch;
    let mut b = Peer::new("b", &["t"]);
    b.join(&mut h);
    settle(&mut h, &mut [&mut a, &mut b]);
    assert_eq!(h.commit_as("g", "a", a.epoch, 5), ErrorCode::None);
    assert_eq!(h.commit_as("g", "a", old, 5), ErrorCode::None, "it has had the partition since then");
    let mut theirs = commit_command("g", &[("t", 0, 6), ("t", 1, 6)]);
    (theirs.member_id, theirs.generation_id) = (text("a"), old);
    assert_eq!(h.commit_offsets(theirs), [ErrorCode::StaleMemberEpoch; 2], "but not the other");
    assert_eq!(h.commit_as("g", "a", a.epoch + 1, 6), ErrorCode::StaleMemberEpoch);
    assert_eq!(h.commit_as("g", "nobody", a.epoch, 6), ErrorCode::UnknownMemberId);
    let transaction = Some(Transaction { producer_id: 1, producer_epoch: 0 });
    let mut transactional = OffsetCommit { transaction, ..commit_command("g", &[("t", 1, 6)]) };
    (transactional.member_id, transactional.generation_id) = (text("a"), a.epoch + 1);
    assert_eq!(h.commit_offsets(transactional), [ErrorCode::IllegalGeneration]);
    assert_eq!(h.commit_as("g", "", -1, 6), ErrorCode::UnknownMemberId);
    let mut command = commit_command("g", &[("t", 0, 6)]);
    (command.member_id, command.generation_id, command.takes_member_epoch) = (text("a"), old, false);
    assert_eq!(h.commit_offsets(command), [ErrorCode::UnsupportedVersion]);
    assert_eq!(h.fetched("g"), [("t".to_owned(), 0, 5)]);
    let fetch =
        |member: Option<&str>, epoch| h.machine.may_fetch_offsets("g", member.map(text).as_ref(), epoch);
    assert_eq!(fetch(Some("a"), a.epoch), Ok(()));
    assert_eq!(fetch(Some("a"), a.epoch + 1), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(fetch(Some("nobody"), a.epoch), Err(ErrorCode::UnknownMemberId));
    assert_eq!((fetch(None, -1), fetch(Some(""), -1)), (Ok(()), Ok(())));
    a.leave(&mut h, LEAVE_EPOCH);
    b.leave(&mut h, LEAVE_EPOCH);
    assert_eq!(h.commit_as("g", "", -1, 8), ErrorCode::None, "an administrator, once it is empty");
}

/// What is told of a group is never taken back.
#[test]
fn what_is_decided_is_described_once_it_is_committed() {
    let mut h = harness(2);
    let mut a = Peer::new("a", &["t"]);
    h.held = true;
    h.send(Command::ConsumerHeartbeat(Box::new(a.join_command())));
    assert_eq!(h.described_if_consumer(), None);
    h.held = false;
    h.fail_over();
    h.machine.set_topics(topics(&[("t", 2)]));
    a.join(&mut h);
    settle(&mut h, &mut [&mut a]);
    let before = h.described();
    h.held = true;
    h.send(Command::ConsumerHeartbeat(Box::new(Peer::new("b", &["t"]).join_command())));
    assert_eq!(h.described(), before);
    let fetch =
        |h: &Harness, member: &str, epoch| h.machine.may_fetch_offsets("g", Some(&text(member)), epoch);
    assert_eq!(fetch(&h, "a", a.epoch), Ok(()));
    assert_eq!(fetch(&h, "b", a.epoch + 1), Err(ErrorCode::UnknownMemberId));
    h.commit();
    assert_eq!(h.described().members.len(), 2);
}

#[test]
fn a_group_is_deleted_when_it_is_empty_and_offsets_unless_subscribed() {
    let mut h = harness(1);
    let mut a = Peer::new("a", &["t"]);
    a.join(&mut h);
    settle(&mut h, &mut [&mut a]);
    let mut command = commit_command("g", &[("t", 0, 1), ("u", 0, 2)]);
    (command.member_id, command.generation_id) = (text("a"), a.epoch);
    h.commit_offsets(command);
    assert_eq!(h.delete("g"), ErrorCode::NonEmptyGroup);
    let asked = |topic: &str| TopicResult { topic: text(topic), partitions: vec![(0, ErrorCode::None)] };
    let delete = OffsetDelete { group_id: text("g"), topics: vec![asked("t"), asked("u")] };
    let Reply::OffsetDelete(reply) = h.call(Command::OffsetDelete(delete)) else { panic!() };
    let codes: Vec<ErrorCode> = reply.topics.iter().map(|topic| topic.partitions[0].1).collect();
    assert_eq!(
        (reply.error, codes),
        (ErrorCode::None, vec![ErrorCode::GroupSubscribedToTopic, ErrorCode::None])
    );
    assert_eq!(h.fetched("g"), [("t".to_owned(), 0, 1)]);
    a.leave(&mut h, LEAVE_EPOCH);
    assert_eq!(h.delete("g"), ErrorCode::None);
    assert_eq!((h.listing(), h.machine.durable().groups_count()), (None, 0));
    assert_eq!(h.replayed().durable().groups_count(), 0);
    assert_eq!(h.machine.describe_consumer_group("g"), Err(ErrorCode::GroupIdNotFound));
}

#[test]
fn offsets_of_a_consumer_group_expire_when_nobody_subscribes_and_then_the_group() {
    let mut h = harness(1);
    let mut a = Peer::new("a", &["t"]);
    a.join(&mut h);
    h.commit_as("g", "a", a.epoch, 1);
    h.now.wall_ms += 8 * 24 * 60 * 60 * 1000;
    h.expire();
    assert_eq!(h.fetched("g").len(), 1);
    a.leave(&mut h, LEAVE_EPOCH);
    h.expire();
    assert_eq!((h.fetched("g").len(), h.listing()), (0, None));
}

#[test]
fn to_the_classic_apis_a_consumer_group_is_not_there() {
    let mut h = harness(1);
    Peer::new("a", &["t"]).join(&mut h);
    let described = h.machine.describe("g").unwrap();
    assert_eq!((described.error, described.state), (ErrorCode::GroupIdNotFound, GroupState::Dead));
    h.form("classic", 1);
    assert_eq!(h.machine.describe_consumer_group("classic"), Err(ErrorCode::GroupIdNotFound));
}

#[test]
fn answers_wait_for_what_they_tell_and_a_failed_append_takes_it_back() {
    let mut h = harness(2);
    let mut a = Peer::new("a", &["t"]);
    a.join(&mut h);
    settle(&mut h, &mut [&mut a]);
    h.held = true;
    let join = Peer::new("b", &["t"]).join_command();
    let first = h.send(Command::ConsumerHeartbeat(Box::new(join.clone())));
    let again = h.send(Command::ConsumerHeartbeat(Box::new(join.clone())));
    assert_eq!(h.appends.len(), 1, "the second changes nothing");
    assert!(h.waits(first) && h.waits(again), "and tells what the first made");
    h.fail(ErrorCode::NotEnoughReplicas);
    for token in [first, again] {
        let Reply::ConsumerHeartbeat(reply) = h.answer(token) else { panic!() };
        assert_eq!(reply.error, ErrorCode::CoordinatorNotAvailable);
    }
    h.assert_replayed();
    assert_eq!(h.described().members.len(), 1);
    let third = h.send(Command::ConsumerHeartbeat(Box::new(join)));
    h.commit();
    let Reply::ConsumerHeartbeat(reply) = h.answer(third) else { panic!() };
    assert_eq!(reply.error, ErrorCode::None);
    h.assert_replayed();
}

#[test]
fn an_append_that_is_only_late_is_counted_on() {
    let mut h = harness(2);
    h.held = true;
    let join = Peer::new("a", &["t"]).join_command();
    let token = h.send(Command::ConsumerHeartbeat(Box::new(join.clone())));
    let records = h.appends[0].records.clone();
    h.fail(ErrorCode::RequestTimedOut);
    let Reply::ConsumerHeartbeat(reply) = h.answer(token) else { panic!() };
    assert_eq!(reply.error, ErrorCode::CoordinatorNotAvailable);
    h.log.extend(records.into_iter().map(|record| (None, record)));
    h.assert_replayed();
    h.held = false;
    let reply = h.heartbeat(join);
    assert_eq!((reply.error, reply.member_epoch), (ErrorCode::None, 1));
    h.assert_replayed();
}

#[test]
fn members_epochs_and_targets_survive_a_failover() {
    let mut h = harness(4);
    let (mut a, mut b) = pair(&mut h, |id| Peer::of_instance(id, id));
    let before = h.described();
    let view = Arc::clone(&h.machine.machinery.topics);
    h.fail_over();
    assert_eq!(
        a.beat(&mut h).error,
        ErrorCode::CoordinatorLoadInProgress,
        "no topics known is not no topics"
    );
    h.machine.set_topics(view);
    assert_eq!(h.described(), before);
    for peer in [&mut a, &mut b] {
        let reply = peer.beat(&mut h);
        assert_eq!((reply.error, reply.assignment), (ErrorCode::None, None));
    }
    h.pass(SESSION_TIMEOUT_MS / 2);
    a.step(&mut h);
    h.pass(SESSION_TIMEOUT_MS / 2);
    settle(&mut h, &mut [&mut a]);
    assert_eq!(a.owned, of_t(0..4), "sessions go on at the next coordinator");
}
