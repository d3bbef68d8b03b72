//! What goes away: deleted groups and topics, offsets that expire.

use super::*;

const RETENTION_MS: u64 = 60_000;

fn harness() -> Harness {
    Harness::new(GroupConfig { offsets_retention_ms: 60_000, ..config() })
}

#[test]
fn groups_without_members_are_deleted_and_begin_anew() {
    let mut h = harness();
    assert_eq!(h.delete("g"), ErrorCode::GroupIdNotFound);
    let (ids, _) = h.form("g", 1);
    h.commit_simple("simple", &[("t", 0, 1)]);
    assert_eq!((h.delete("g"), h.delete("simple")), (ErrorCode::NonEmptyGroup, ErrorCode::None));
    h.leave("g", &[(&ids[0], None)]);
    assert_eq!(h.delete("g"), ErrorCode::None);
    assert_eq!(
        (h.state("g"), h.listed().len(), h.machine.durable().groups_count()),
        (GroupState::Dead, 0, 0)
    );
    assert_eq!(h.form("g", 1).1, 1, "a new group by that name");
}

#[test]
fn a_group_that_is_being_deleted_is_gone_and_back_if_the_log_does_not_take_it() {
    let mut h = harness();
    h.commit_simple("g", &[("t", 0, 1)]);
    h.held = true;
    let token = h.send(Command::DeleteGroup { group_id: text("g") });
    assert_eq!((h.state("g"), h.waits(token)), (GroupState::Dead, true));
    assert_eq!(h.delete("g"), ErrorCode::GroupIdNotFound);
    h.fail(ErrorCode::NotEnoughReplicas);
    h.fail(ErrorCode::NotEnoughReplicas);
    assert_eq!(h.answer(token), Reply::DeleteGroup(ErrorCode::CoordinatorNotAvailable));
    assert_eq!((h.state("g"), h.fetched("g").len()), (GroupState::Empty, 1));
}

#[test]
fn a_deletion_that_the_log_took_in_part_can_be_repeated() {
    let mut h = harness();
    h.commit_simple("g", &[("t", 0, 1)]);
    h.held = true;
    let token = h.send(Command::DeleteGroup { group_id: text("g") });
    h.fail(ErrorCode::NotEnoughReplicas);
    h.commit();
    assert_eq!((h.waits(token), h.state("g"), h.fetched("g").len()), (false, GroupState::Empty, 1));
    h.held = false;
    assert_eq!((h.delete("g"), h.listed().len()), (ErrorCode::None, 0));
}

#[test]
fn a_group_that_begins_while_the_old_one_is_deleted_is_a_new_one() {
    let mut h = harness();
    let (ids, _) = h.form("g", 1);
    h.leave("g", &[(&ids[0], None)]);
    h.held = true;
    h.send(Command::DeleteGroup { group_id: text("g") });
    let token = h.join("g", "");
    assert_eq!(h.joined(token).generation_id, 1);
    h.commit();
    assert_eq!(h.state("g"), GroupState::CompletingRebalance);
    let mut command = commit_command("g", &[("t", 0, 1)]);
    command.transaction = Some(Transaction { producer_id: 1, producer_epoch: 0 });
    h.send(Command::OffsetCommit(command));
    h.commit();
    assert_eq!(h.listed(), ["g"]);
}

#[test]
fn the_offsets_of_a_deleted_topic_are_forgotten_in_every_group() {
    let mut h = harness();
    h.commit_simple("a", &[("t", 0, 1), ("u", 0, 2)]);
    h.commit_simple("b", &[("t", 1, 1)]);
    h.held = true;
    let command = commit_command("c", &[("t", 2, 1)]);
    h.send(Command::OffsetCommit(command));
    h.topics_deleted(&["t"]);
    h.commit();
    assert_eq!((h.fetched("a"), h.fetched("b"), h.fetched("c")), (vec![("u".into(), 0, 2)], vec![], vec![]));
    assert_eq!(h.listed(), ["a"]);
}

#[test]
fn offsets_of_a_simple_group_expire_after_their_commit_and_the_group_with_them() {
    let mut h = harness();
    h.commit_simple("g", &[("t", 0, 1)]);
    h.pass(RETENTION_MS / 2);
    h.commit_simple("g", &[("t", 1, 1)]);
    h.pass(RETENTION_MS / 2 - 1);
    h.expire();
    assert_eq!(h.fetched("g").len(), 2);
    h.pass(1);
    h.expire();
    assert_eq!(h.fetched("g"), [("t".into(), 1, 1)]);
    h.pass(RETENTION_MS / 2);
    h.expire();
    assert_eq!((h.fetched("g").len(), h.listed().len(), h.machine.durable().groups_count()), (0, 0, 0));
}

#[test]
fn offsets_of_a_group_with_members_expire_after_it_lost_the_last() {
    let mut h = harness();
    let (ids, generation) = h.form("g", 1);
    h.commit_as("g", &ids[0], generation, 1);
    for _ in 0..20 {
        h.pass(9_000);
        h.expire();
        assert_eq!(h.beat("g", &ids[0], generation), ErrorCode::None);
    }
    assert_eq!(h.fetched("g").len(), 1, "the topic is subscribed to");
    h.leave("g", &[(&ids[0], None)]);
    h.pass(RETENTION_MS - 1);
    h.expire();
    assert_eq!(h.fetched("g").len(), 1);
    h.pass(1);
    h.expire();
    assert_eq!((h.fetched("g").len(), h.listed().len()), (0, 0));
}

#[test]
fn offsets_that_nobody_subscribes_to_expire_in_a_live_group() {
    let mut h = harness();
    let (ids, generation) = h.form("g", 1);
    let mut command = commit_command("g", &[("t", 0, 1), ("u", 0, 1)]);
    (command.member_id, command.generation_id, command.retention_ms) = (text(&ids[0]), generation, Some(500));
    h.commit_offsets(command);
    h.pass(499);
    h.expire();
    assert_eq!(h.fetched("g").len(), 2);
    h.pass(1);
    h.expire();
    assert_eq!(h.fetched("g"), [("t".into(), 0, 1)]);
    h.leave("g", &[(&ids[0], None)]);
    h.expire();
    assert_eq!(h.fetched("g"), []);
}

#[test]
fn offsets_in_an_open_transaction_or_on_their_way_do_not_expire() {
    let mut h = harness();
    h.commit_simple("g", &[("t", 0, 1), ("t", 1, 1)]);
    let mut command = commit_command("g", &[("t", 0, 5)]);
    command.transaction = Some(Transaction { producer_id: 7, producer_epoch: 0 });
    h.commit_offsets(command);
    h.pass(RETENTION_MS);
    h.held = true;
    let command = commit_command("g", &[("t", 1, 6)]);
    h.send(Command::OffsetCommit(command));
    h.expire();
    h.commit();
    assert_eq!(h.fetched("g"), [("t".into(), 0, 1), ("t".into(), 1, 6)]);
    h.marker(7, true);
    assert_eq!(h.fetched("g")[0].2, 5);
}

#[test]
fn offsets_do_not_expire_while_the_group_rebalances_or_is_not_one_of_consumers() {
    let mut h = harness();
    let mut command = h.join_command("g", "");
    command.protocol_type = text("connect");
    command.session_timeout_ms = 1_800_000;
    command.rebalance_timeout_ms = 1_800_000;
    let token = h.send(Command::Join(command));
    let id = h.joined(token).member_id.to_string();
    let token = h.sync("g", &id, 1, &[]);
    h.synced(token);
    h.commit_as("g", &id, 1, 1);
    h.pass(10 * RETENTION_MS);
    h.expire();
    assert_eq!(h.fetched("g").len(), 1);
}
