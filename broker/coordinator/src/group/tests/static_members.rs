//! Static members (KIP-345, KIP-814): they come back without a rebalance, and their older selves are fenced.

use super::*;

/// A stable group of these instances, the first leading, each assigned its own name. Their ids and the generation.
fn form(h: &mut Harness, instances: &[&str]) -> (Vec<String>, i32) {
    let mut ids: Vec<String> = Vec::new();
    let mut generation = 0;
    for count in 1..=instances.len() {
        let token = join(h, "", instances[count - 1]);
        let again: Vec<RequestToken> =
            (0..count - 1).map(|i| join(h, &ids[i].clone(), instances[i])).collect();
        for token in again {
            h.joined(token);
        }
        let reply = h.joined(token);
        ids.push(reply.member_id.to_string());
        generation = reply.generation_id;
    }
    let mut command = sync_command("g", &ids[0], generation);
    command.assignments = ids
        .iter()
        .zip(instances)
        .map(|(id, name)| (text(id), Bytes::copy_from_slice(name.as_bytes())))
        .collect();
    let token = h.send(Command::Sync(command));
    assert_eq!(h.synced(token).error, ErrorCode::None);
    for id in &ids[1..] {
        let token = h.sync("g", id, generation, &[]);
        assert_eq!(h.synced(token).error, ErrorCode::None);
    }
    (ids, generation)
}

fn command(h: &mut Harness, member: &str, instance: &str) -> Join {
    let mut command = h.join_command("g", member);
    command.group_instance_id = Some(text(instance));
    command
}

fn join(h: &mut Harness, member: &str, instance: &str) -> RequestToken {
    let command = command(h, member, instance);
    h.send(Command::Join(command))
}

fn beat(h: &mut Harness, member: &str, instance: &str, generation: i32) -> ErrorCode {
    let command = Heartbeat {
        group_id: text("g"),
        generation_id: generation,
        member_id: text(member),
        group_instance_id: Some(text(instance)),
    };
    match h.call(Command::Heartbeat(command)) {
        Reply::Heartbeat(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_returning_follower_keeps_its_assignment_without_a_rebalance() {
    let mut h = Harness::new(config());
    let (ids, generation) = form(&mut h, &["a", "b"]);
    let token = join(&mut h, "", "b");
    let reply = h.joined(token);
    assert_eq!(
        (reply.error, reply.generation_id, &*reply.leader),
        (ErrorCode::None, generation, ids[0].as_str())
    );
    assert!(reply.members.is_empty() && !reply.skip_assignment && *reply.member_id != *ids[1]);
    let new = reply.member_id.to_string();
    let token = h.sync("g", &new, generation, &[]);
    assert_eq!((h.synced(token).assignment, h.state("g")), (Bytes::from("b"), GroupState::Stable));
    assert_eq!(beat(&mut h, &ids[0], "a", generation), ErrorCode::None);
    let stored = h.machine.durable().group("g").unwrap().metadata.clone().unwrap();
    assert!(stored.members.iter().any(|member| *member.member_id == *new && member.assignment == "b"));
}

#[test]
fn a_returning_leader_is_told_to_skip_the_assignment_if_its_version_can() {
    for skip in [true, false] {
        let mut h = Harness::new(config());
        let (ids, generation) = form(&mut h, &["a", "b"]);
        let mut command = command(&mut h, "", "a");
        command.supports_skip_assignment = skip;
        let token = h.send(Command::Join(command));
        let reply = h.joined(token);
        assert_eq!((reply.generation_id, reply.skip_assignment), (generation, skip));
        if skip {
            assert_eq!((&reply.leader, reply.members.len()), (&reply.member_id, 2));
        } else {
            assert_eq!((&*reply.leader, reply.members.len()), (ids[0].as_str(), 0));
        }
    }
}

#[test]
fn a_full_group_takes_its_static_member_back() {
    let mut h = Harness::new(GroupConfig { group_size_max: 2, ..config() });
    let (_, generation) = form(&mut h, &["a", "b"]);
    let token = join(&mut h, "", "b");
    assert_eq!(h.joined(token).generation_id, generation);
    let token = join(&mut h, "", "c");
    assert_eq!(h.joined(token).error, ErrorCode::GroupMaxSizeReached);
}

#[test]
fn the_older_self_is_fenced_everywhere() {
    let mut h = Harness::new(config());
    let (ids, generation) = form(&mut h, &["i"]);
    let token = join(&mut h, "", "i");
    let new = h.joined(token).member_id.to_string();
    let old = ids[0].clone();
    assert_eq!(beat(&mut h, &old, "i", generation), ErrorCode::FencedInstanceId);
    let mut command = sync_command("g", &old, generation);
    command.group_instance_id = Some(text("i"));
    let token = h.send(Command::Sync(command));
    assert_eq!(h.synced(token).error, ErrorCode::FencedInstanceId);
    let token = join(&mut h, &old, "i");
    assert_eq!(h.joined(token).error, ErrorCode::FencedInstanceId);
    let mut command = commit_command("g", &[("t", 0, 1)]);
    (command.member_id, command.generation_id) = (text(&old), generation);
    command.group_instance_id = Some(text("i"));
    assert_eq!(h.commit_offsets(command.clone()), [ErrorCode::FencedInstanceId]);
    assert_eq!(h.leave("g", &[(&old, Some("i"))]), [ErrorCode::FencedInstanceId]);
    command.member_id = text(&new);
    assert_eq!(h.commit_offsets(command), [ErrorCode::None]);
}

#[test]
fn the_older_self_that_still_waits_is_fenced() {
    let mut h = Harness::new(config());
    let (ids, _) = form(&mut h, &["a", "b"]);
    let old = join(&mut h, &ids[0].clone(), "a");
    assert!(h.waits(old));
    let new = join(&mut h, "", "a");
    assert_eq!(h.joined(old).error, ErrorCode::FencedInstanceId);
    let other = join(&mut h, &ids[1].clone(), "b");
    assert_eq!(h.joined(new).generation_id, h.joined(other).generation_id);
}

#[test]
fn a_return_that_changes_the_chosen_protocol_rebalances() {
    let mut h = Harness::new(config());
    let (ids, generation) = form(&mut h, &["a"]);
    let token = join(&mut h, "", "a");
    assert_eq!((h.joined(token).generation_id, ids.len()), (generation, 1), "this one does not change it");
    let mut h = Harness::new(config());
    let mut both = command(&mut h, "", "a");
    both.protocols.push(Protocol { name: text("roundrobin"), metadata: Bytes::new() });
    let token = h.send(Command::Join(both.clone()));
    let reply = h.joined(token);
    let token = h.sync("g", &reply.member_id, reply.generation_id, &[]);
    assert_eq!(h.synced(token).protocol_name, Some(text("range")));
    both.protocols.remove(0);
    both.new_member_id = text("another");
    let token = h.send(Command::Join(both));
    let again = h.joined(token);
    assert_eq!(
        (again.generation_id, again.protocol_name),
        (reply.generation_id + 1, Some(text("roundrobin")))
    );
}

#[test]
fn a_return_that_cannot_be_logged_is_undone() {
    let mut h = Harness::new(config());
    let (ids, generation) = form(&mut h, &["a", "b"]);
    h.held = true;
    let token = join(&mut h, "", "b");
    assert!(h.waits(token));
    h.fail(ErrorCode::RequestTimedOut);
    assert_eq!(h.joined(token).error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(beat(&mut h, &ids[1].clone(), "b", generation), ErrorCode::None);
}

#[test]
fn a_rebalance_that_begins_while_a_return_is_logged_answers_it() {
    let mut h = Harness::new(config());
    let (ids, generation) = form(&mut h, &["a", "b"]);
    h.held = true;
    let returned = join(&mut h, "", "b");
    let leader = join(&mut h, &ids[0].clone(), "a");
    assert_eq!(
        (h.joined(returned).generation_id, h.joined(leader).generation_id),
        (generation + 1, generation + 1)
    );
    h.commit();
    assert_eq!(h.state("g"), GroupState::CompletingRebalance);
}

#[test]
fn static_members_are_not_dropped_by_a_rebalance_but_by_their_session() {
    let mut h = Harness::new(config());
    let (ids, generation) = form(&mut h, &["a", "b"]);
    h.pass(5_000);
    // It joins with new metadata and waits for the other, whose session of ten seconds ends.
    let mut changed = command(&mut h, &ids[1], "b");
    changed.protocols[0].metadata = subscription(&["u"]);
    let token = h.send(Command::Join(changed));
    h.pass(4_999);
    assert!(h.waits(token));
    h.pass(1);
    let reply = h.joined(token);
    assert_eq!((reply.members.len(), reply.generation_id), (1, generation + 1));
}

#[test]
fn an_administrator_removes_by_instance_id() {
    let mut h = Harness::new(config());
    let (ids, _) = form(&mut h, &["a", "b", "c"]);
    let errors =
        h.leave("g", &[("", Some("b")), ("", Some("nobody")), ("wrong", Some("c")), (&ids[0], None)]);
    let expected =
        [ErrorCode::None, ErrorCode::UnknownMemberId, ErrorCode::FencedInstanceId, ErrorCode::None];
    assert_eq!(errors, expected);
    let members = h.machine.describe("g").unwrap().members;
    assert_eq!(members.iter().map(|member| &*member.member_id).collect::<Vec<_>>(), [ids[2].as_str()]);
}

#[test]
fn when_no_static_member_joins_the_rebalance_waits_for_one_or_their_sessions() {
    let mut h = Harness::new(config());
    let mut one = command(&mut h, "", "a");
    (one.session_timeout_ms, one.rebalance_timeout_ms) = (60_000, 10_000);
    let token = h.send(Command::Join(one));
    let id = h.joined(token).member_id.to_string();
    let newcomer = h.join("g", "");
    let dropped = h.machine.describe("g").unwrap().members;
    let other = dropped.iter().find(|member| *member.member_id != *id).unwrap().member_id.to_string();
    h.leave("g", &[(&other, None)]);
    assert_eq!(h.joined(newcomer).error, ErrorCode::UnknownMemberId);
    h.pass(30_000);
    assert_eq!(h.state("g"), GroupState::PreparingRebalance);
    h.pass(30_000);
    assert_eq!(h.state("g"), GroupState::Empty);
}
