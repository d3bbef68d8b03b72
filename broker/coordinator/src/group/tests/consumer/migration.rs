//! Groups with members of both protocols, and groups that change their protocol while they run.

use ottla_wire::persisted::{self, ConsumerProtocolAssignment, consumer_protocol_assignment};

use super::*;
use crate::consumer_group::MigrationPolicy;

fn assignment(numbers: &[i32]) -> Bytes {
    let partition =
        consumer_protocol_assignment::AssignedPartition { topic: text("t"), partitions: numbers.to_vec() };
    let assignment = ConsumerProtocolAssignment { assigned_partitions: vec![partition], user_data: None };
    persisted::encode_value(&assignment, 0).unwrap()
}

fn assigned(bytes: &Bytes) -> Vec<i32> {
    let assignment: ConsumerProtocolAssignment = persisted::decode_consumer_protocol(bytes).unwrap();
    assignment.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect()
}

/// A stable classic group of one consumer that has all of `t`; its id and generation.
fn classic(h: &mut Harness, partitions: i32) -> (String, i32) {
    let token = h.join("g", "");
    let reply = h.joined(token);
    let id = reply.member_id.to_string();
    let mut command = sync_command("g", &id, reply.generation_id);
    let all: Vec<i32> = (0..partitions).collect();
    command.assignments = vec![(text(&id), assignment(&all))];
    let token = h.send(Command::Sync(command));
    assert_eq!(h.synced(token).error, ErrorCode::None);
    (id, reply.generation_id)
}

fn with_policy(policy: MigrationPolicy) -> Harness {
    let mut config = consumer_config();
    config.consumer.migration_policy = policy;
    let mut h = Harness::new(config);
    h.machine.set_topics(topics(&[("t", 4)]));
    h
}

/// The classic member joins again as told, with nothing in its hands, and syncs.
fn rejoin(h: &mut Harness, id: &str) -> (i32, Vec<i32>) {
    let token = h.join("g", id);
    let reply = h.joined(token);
    assert_eq!((reply.error, &*reply.leader, reply.members.len()), (ErrorCode::None, "", 0));
    assert_eq!(reply.protocol_name, Some(text("range")));
    let token = h.sync("g", id, reply.generation_id, &[]);
    let synced = h.synced(token);
    assert_eq!(synced.error, ErrorCode::None);
    (reply.generation_id, assigned(&synced.assignment))
}

#[test]
fn a_classic_group_is_upgraded_while_it_runs_and_downgraded_when_the_last_consumer_member_leaves() {
    let mut h = harness(4);
    let (id, generation) = classic(&mut h, 4);
    assert_eq!(h.commit_as("g", &id, generation, 12), ErrorCode::None);
    let mut m = Peer::new("m", &["t"]);
    assert_eq!((m.join(&mut h), m.given.clone()), (ErrorCode::None, Partitions::new()));
    assert_eq!(h.listing(), Some(("consumer", "Reconciling")));
    let kinds: Vec<bool> = h.described().members.iter().map(ConsumerMemberDescription::is_classic).collect();
    assert_eq!(kinds, [false, true]);
    h.assert_replayed();
    assert_eq!(h.beat("g", &id, generation), ErrorCode::RebalanceInProgress);
    m.step(&mut h);
    assert_eq!(m.given, Partitions::new(), "the classic member still has everything");
    let token = h.sync("g", &id, generation, &[]);
    assert_eq!(h.synced(token).error, ErrorCode::RebalanceInProgress);
    let (newer, kept) = rejoin(&mut h, &id);
    assert!(newer > generation && kept.len() == 2);
    settle(&mut h, &mut [&mut m]);
    assert_eq!(m.owned, of_t((0..4).filter(|number| !kept.contains(number))));
    assert_eq!(h.beat("g", &id, newer), ErrorCode::None);
    assert_eq!(h.beat("g", &id, generation), ErrorCode::IllegalGeneration);
    assert_eq!(h.commit_as("g", &id, generation, 13), ErrorCode::IllegalGeneration);
    let mut command = commit_command("g", &[("t", 0, 13)]);
    (command.member_id, command.generation_id, command.takes_member_epoch) = (text(&id), newer, false);
    assert_eq!(h.commit_offsets(command), [ErrorCode::None], "classic members commit in every version");
    h.assert_replayed();
    assert_eq!(m.leave(&mut h, LEAVE_EPOCH), ErrorCode::None);
    assert_eq!(h.listing(), Some(("classic", "PreparingRebalance")));
    assert_eq!(h.beat("g", &id, newer), ErrorCode::RebalanceInProgress);
    let token = h.join("g", &id);
    let reply = h.joined(token);
    assert_eq!((reply.error, &*reply.leader, reply.members.len()), (ErrorCode::None, &*id, 1));
    let token = h.sync("g", &id, reply.generation_id, &[&id]);
    assert_eq!(h.synced(token).assignment, id.as_bytes());
    assert_eq!(h.fetched("g"), [("t".to_owned(), 0, 13)]);
    assert_eq!(h.listing(), Some(("classic", "Stable")));
    assert_eq!(h.replayed().durable(), h.machine.durable());
    assert!(h.machine.durable().group("g").unwrap().consumer.is_none());
}

#[test]
fn what_cannot_be_upgraded_stays_as_it_is() {
    for policy in [MigrationPolicy::Disabled, MigrationPolicy::Downgrade] {
        let mut h = with_policy(policy);
        let (id, generation) = classic(&mut h, 4);
        assert_eq!(Peer::new("m", &["t"]).join(&mut h), ErrorCode::GroupIdNotFound);
        assert_eq!(h.beat("g", &id, generation), ErrorCode::None);
    }
    let mut h = harness(4);
    let mut command = h.join_command("g", "");
    command.protocol_type = text("connect");
    let token = h.send(Command::Join(command));
    let reply = h.joined(token);
    assert_eq!(Peer::new("m", &["t"]).join(&mut h), ErrorCode::GroupIdNotFound);
    assert_eq!(h.beat("g", &reply.member_id, reply.generation_id), ErrorCode::None);
    let mut config = consumer_config();
    config.consumer.group_size_max = 1;
    let mut h = Harness::new(config);
    h.machine.set_topics(topics(&[("t", 4)]));
    h.form("g", 2);
    assert_eq!(Peer::new("m", &["t"]).join(&mut h), ErrorCode::GroupMaxSizeReached);
    // Its members' assignments are not the consumers'.
    let mut h = harness(4);
    let (ids, generation) = h.form("g", 1);
    assert_eq!(Peer::new("m", &["t"]).join(&mut h), ErrorCode::GroupIdNotFound);
    assert_eq!(h.beat("g", &ids[0], generation), ErrorCode::None);
}

#[test]
fn a_classic_consumer_joins_a_consumer_group_whatever_the_policy_and_others_do_not() {
    let mut h = with_policy(MigrationPolicy::Disabled);
    let mut m = Peer::new("m", &["t"]);
    m.join(&mut h);
    m.step(&mut h);
    let join = h.join_command("g", "");
    let other_kind = Join { protocol_type: text("connect"), ..join.clone() };
    let no_protocols = Join { protocols: Vec::new(), ..join.clone() };
    let malformed = Join {
        protocols: vec![Protocol { name: text("range"), metadata: Bytes::from_static(b"x") }],
        ..join.clone()
    };
    for command in [other_kind, no_protocols, malformed] {
        let token = h.send(Command::Join(command));
        assert_eq!(h.joined(token).error, ErrorCode::InconsistentGroupProtocol);
    }
    let token = h.send(Command::Join(Join { require_known_member_id: true, ..join }));
    let reply = h.joined(token);
    assert_eq!(reply.error, ErrorCode::MemberIdRequired);
    let id = reply.member_id.to_string();
    let (generation, none) = rejoin(&mut h, &id);
    assert!(none.is_empty());
    let other = Join {
        protocols: vec![Protocol { name: text("x"), metadata: subscription(&["t"]) }],
        ..h.join_command("g", "")
    };
    let token = h.send(Command::Join(other));
    assert_eq!(
        h.joined(token).error,
        ErrorCode::InconsistentGroupProtocol,
        "none that the classic members know"
    );
    assert_eq!(h.beat("g", &id, generation), ErrorCode::None, "what it waits for is not free");
    m.step(&mut h);
    assert_eq!(h.beat("g", &id, generation), ErrorCode::RebalanceInProgress, "now it is");
    let (generation, two) = rejoin(&mut h, &id);
    assert_eq!(two.len(), 2);
    settle(&mut h, &mut [&mut m]);
    assert_eq!(m.leave(&mut h, LEAVE_EPOCH), ErrorCode::None);
    assert_eq!(h.listing().map(|(kind, _)| kind), Some("consumer"), "not downgraded");
    assert_eq!(h.beat("g", &id, generation), ErrorCode::RebalanceInProgress);
    assert_eq!(rejoin(&mut h, &id).1, [0, 1, 2, 3]);
    assert_eq!(h.leave("g", &[(&id, None), (&id, None)]), [ErrorCode::None, ErrorCode::UnknownMemberId]);
    assert_eq!(h.listing(), Some(("consumer", "Empty")));
    h.assert_replayed();
}

#[test]
fn classic_members_are_removed_when_they_are_silent_or_do_not_join_or_sync_as_told() {
    // The session; the time to join again, since the heartbeat that told so; the time to sync.
    for (beats, joins, limit) in [(false, false, 10), (true, false, 21), (true, true, 20)] {
        let mut h = harness(4);
        let (id, generation) = classic(&mut h, 4);
        let mut m = Peer::new("m", &["t"]);
        m.join(&mut h);
        let mut generation = generation;
        if joins {
            let token = h.join("g", &id);
            generation = h.joined(token).generation_id;
        }
        for second in 0..30 {
            h.pass(1_000);
            m.step(&mut h);
            let error = if beats { h.beat("g", &id, generation) } else { ErrorCode::None };
            let removed = h.described_if_consumer().is_some_and(|described| described.members.len() == 1);
            assert_eq!(removed, second + 1 >= limit, "{beats} {joins} after {second} s: {error:?}");
        }
        settle(&mut h, &mut [&mut m]);
        assert_eq!(m.owned, of_t(0..4));
    }
}

#[test]
fn a_static_classic_member_is_taken_over_by_a_consumer_of_its_instance_and_back() {
    let mut h = harness(4);
    let join = |h: &mut Harness| {
        let mut command = h.join_command("g", "");
        command.group_instance_id = Some(text("i"));
        let token = h.send(Command::Join(command));
        h.joined(token)
    };
    let reply = join(&mut h);
    let id = reply.member_id.to_string();
    let mut command = sync_command("g", &id, reply.generation_id);
    (command.group_instance_id, command.assignments) =
        (Some(text("i")), vec![(text(&id), assignment(&[0, 1, 2, 3]))]);
    let token = h.send(Command::Sync(command));
    assert_eq!(h.synced(token).error, ErrorCode::None);
    let mut m = Peer::of_instance("m", "i");
    assert_eq!((m.join(&mut h), m.given.clone()), (ErrorCode::None, of_t(0..4)), "a rolling bounce of one");
    assert_eq!((h.described().members.len(), h.listing()), (1, Some(("consumer", "Stable"))));
    h.assert_replayed();
    let reply = join(&mut h);
    assert_eq!(reply.error, ErrorCode::None);
    assert_eq!(m.beat(&mut h).error, ErrorCode::FencedInstanceId);
    h.assert_replayed();
}

#[test]
fn a_group_goes_back_when_its_last_consumer_member_is_replaced_by_a_classic_one() {
    let mut h = harness(4);
    let (id, _) = classic(&mut h, 4);
    let mut m = Peer::of_instance("m", "i");
    m.join(&mut h);
    let mut command = h.join_command("g", "");
    command.group_instance_id = Some(text("i"));
    let waiting = h.send(Command::Join(command));
    assert_eq!(h.listing(), Some(("classic", "PreparingRebalance")));
    let token = h.join("g", &id);
    let (first, second) = (h.joined(token), h.joined(waiting));
    assert_eq!((first.error, second.error), (ErrorCode::None, ErrorCode::None));
    assert_eq!((first.generation_id, first.members.len()), (second.generation_id, 2));
    assert_eq!(h.replayed().durable(), h.machine.durable());
}

#[test]
fn a_group_whose_last_consumer_member_falls_silent_goes_back() {
    let mut h = harness(4);
    let (id, _) = classic(&mut h, 4);
    let mut m = Peer::new("m", &["t"]);
    m.join(&mut h);
    let (generation, _) = rejoin(&mut h, &id);
    for _ in 0..9 {
        h.pass(5_000);
        assert_ne!(h.beat("g", &id, generation), ErrorCode::UnknownMemberId);
        if h.listing().is_some_and(|(kind, _)| kind == "classic") {
            break;
        }
        m.epoch = m.epoch.max(1);
    }
    assert_eq!(h.listing(), Some(("classic", "PreparingRebalance")));
}

#[test]
fn a_conversion_that_the_log_does_not_take_has_not_been() {
    let mut h = harness(4);
    let (id, generation) = classic(&mut h, 4);
    h.held = true;
    let join = Peer::new("m", &["t"]).join_command();
    let token = h.send(Command::ConsumerHeartbeat(Box::new(join)));
    assert_eq!((h.appends.len(), h.waits(token)), (1, true), "one batch");
    h.fail(ErrorCode::NotEnoughReplicas);
    let Reply::ConsumerHeartbeat(reply) = h.answer(token) else { panic!() };
    assert_eq!(reply.error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(h.listing(), Some(("classic", "Stable")));
    assert_eq!(h.beat("g", &id, generation), ErrorCode::None);
    h.held = false;
    let mut m = Peer::new("m", &["t"]);
    m.join(&mut h);
    let (generation, _) = rejoin(&mut h, &id);
    settle(&mut h, &mut [&mut m]);
    h.held = true;
    let leave = ConsumerHeartbeat { member_epoch: LEAVE_EPOCH, ..m.command() };
    let token = h.send(Command::ConsumerHeartbeat(Box::new(leave)));
    assert_eq!(h.listing().map(|(kind, _)| kind), Some("classic"));
    h.fail(ErrorCode::NotEnoughReplicas);
    let Reply::ConsumerHeartbeat(reply) = h.answer(token) else { panic!() };
    assert_eq!(reply.error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(h.listing(), Some(("consumer", "Stable")));
    h.held = false;
    assert_eq!((m.beat(&mut h).error, h.beat("g", &id, generation)), (ErrorCode::None, ErrorCode::None));
    h.assert_replayed();
}

#[test]
fn a_mixed_group_survives_a_failover() {
    let mut h = harness(4);
    let (id, _) = classic(&mut h, 4);
    let mut m = Peer::new("m", &["t"]);
    m.join(&mut h);
    let (generation, kept) = rejoin(&mut h, &id);
    settle(&mut h, &mut [&mut m]);
    h.fail_over();
    let mut view = (*topics(&[("t", 4)])).clone();
    view.put(TopicView { id: Uuid::from_u128(9), name: text("other"), partitions: 1 });
    h.machine.set_topics(Arc::new(view));
    assert_eq!(h.beat("g", &id, generation), ErrorCode::None);
    let token = h.sync("g", &id, generation, &[]);
    let bytes = h.synced(token).assignment;
    assert_eq!(assigned(&bytes), kept);
    settle(&mut h, &mut [&mut m]);
    h.pass(10_000);
    settle(&mut h, &mut [&mut m]);
    assert_eq!(m.owned, of_t(0..4), "the silent classic member is gone");
}
