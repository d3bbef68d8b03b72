//! What the next coordinator knows, and what the old one says when it goes.

use super::*;

#[test]
fn a_stable_group_goes_on_in_its_generation_with_sessions_begun_anew() {
    let mut h = Harness::new(config());
    let (ids, generation) = h.form("g", 2);
    h.commit_as("g", &ids[0], generation, 5);
    h.pass(9_000);
    h.fail_over();
    h.pass(9_000);
    assert_eq!((h.beat("g", &ids[0], generation), h.state("g")), (ErrorCode::None, GroupState::Stable));
    let members = h.machine.describe("g").unwrap().members;
    assert!(members.iter().all(|member| member.assignment == member.member_id.as_bytes()));
    assert_eq!(h.commit_as("g", &ids[0], generation, 6), ErrorCode::None);
    let token = h.join("g", &ids[1]);
    assert_eq!(h.joined(token).generation_id, generation, "a follower with nothing new");
    assert_eq!(h.leave("g", &[(&ids[1], None)]), [ErrorCode::None]);
    let token = h.join("g", &ids[0]);
    assert_eq!(h.joined(token).generation_id, generation + 1);
    assert_eq!(h.fetched("g"), [("t".into(), 0, 6)]);
}

#[test]
fn deleted_groups_and_generations_without_members_stay_so() {
    let mut h = Harness::new(config());
    let (ids, _) = h.form("emptied", 1);
    h.leave("emptied", &[(&ids[0], None)]);
    h.commit_simple("deleted", &[("t", 0, 1)]);
    h.delete("deleted");
    h.fail_over();
    assert_eq!((h.state("emptied"), h.listed()), (GroupState::Empty, vec!["emptied".to_string()]));
    assert_eq!(h.form("emptied", 1).1, 3);
}

#[test]
fn staged_offsets_of_an_open_transaction_survive() {
    let mut h = Harness::new(config());
    let mut command = commit_command("g", &[("t", 0, 5)]);
    command.transaction = Some(Transaction { producer_id: 7, producer_epoch: 0 });
    h.commit_offsets(command);
    h.fail_over();
    assert_eq!(h.listed(), ["g"]);
    h.marker(7, true);
    assert_eq!(h.fetched("g"), [("t".into(), 0, 5)]);
}

#[test]
fn everyone_who_waits_is_sent_to_the_new_coordinator() {
    let mut h = Harness::new(config());
    let (ids, generation) = h.form("joining", 2);
    let join = h.join("joining", &ids[0]);
    let token = h.join("syncing", "");
    let id = h.joined(token).member_id.to_string();
    h.held = true;
    let sync = h.sync("syncing", &id, 1, &[&id]);
    let command = commit_command("simple", &[("t", 0, 1)]);
    let commit = h.send(Command::OffsetCommit(command));
    let delete = h.send(Command::DeleteGroup { group_id: text("simple") });
    h.fail_over();
    assert_eq!(h.joined(join).error, ErrorCode::NotCoordinator);
    assert_eq!(h.synced(sync).error, ErrorCode::NotCoordinator);
    assert_eq!(errors_of(h.answer(commit)), [ErrorCode::NotCoordinator]);
    assert_eq!(h.answer(delete), Reply::DeleteGroup(ErrorCode::NotCoordinator));
    assert_eq!(h.beat("joining", &ids[0], generation), ErrorCode::None);
}

#[test]
fn a_group_larger_than_the_limit_that_is_in_force_now_rebalances() {
    let mut h = Harness::new(config());
    h.form("g", 3);
    let mut machine = h.replayed();
    machine.set_config(GroupConfig { group_size_max: 2, ..config() });
    machine.lead(h.now, &mut Effects::default());
    assert_eq!(machine.describe("g").unwrap().state, GroupState::PreparingRebalance);
}

#[test]
fn records_of_other_kinds_are_skipped_and_damaged_ones_are_errors() {
    let mut machine = GroupCoordinator::new(config());
    let other = Bytes::from_static(&[0, 99, 0, 1, b'g']);
    assert_eq!(machine.apply(0, None, &other, None).unwrap(), Applied::Skipped);
    for key in [&[][..], &[0], &[0, 2], &[0, 2, 0, 9, b'g'], &[0, 1, 0, 1, b'g', 0, 1]] {
        assert!(machine.apply(0, None, &Bytes::copy_from_slice(key), None).is_err());
    }
    let key = Bytes::from_static(&[0, 2, 0, 1, b'g']);
    let value = Bytes::from_static(&[0, 99, 0, 0]);
    let version = machine.apply(0, None, &key, Some(&value));
    assert!(matches!(version, Err(RecordError::Version { key: 2, version: 99 })));
}

#[test]
fn records_are_byte_for_byte_kafkas() {
    let mut h = Harness::new(config());
    h.commit_simple("g", &[("t", 1, 5)]);
    let (_, record) = &h.log[0];
    assert_eq!(&record.key[..], [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 1]);
    let mut value = vec![0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 255, 255, 255, 255, 0, 0];
    value.extend(h.now.wall_ms.to_be_bytes());
    assert_eq!(record.value.as_deref(), Some(&value[..]));
    let mut command = commit_command("g", &[("t", 1, 5)]);
    command.retention_ms = Some(1_000);
    h.commit_offsets(command);
    let mut value = vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0];
    value.extend(h.now.wall_ms.to_be_bytes());
    value.extend((h.now.wall_ms + 1_000).to_be_bytes());
    assert_eq!(h.log[1].1.value.as_deref(), Some(&value[..]));
    h.form("c", 1);
    let (_, record) = h.log.last().unwrap();
    assert_eq!(&record.key[..], [0, 2, 0, 1, b'c']);
    assert_eq!(&record.value.as_ref().unwrap()[..4], [0, 3, 0, 8], "version 3, then the protocol type");
}
