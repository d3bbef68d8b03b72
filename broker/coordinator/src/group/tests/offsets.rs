//! Committing, fetching and deleting offsets, also in transactions.

use super::*;

#[test]
fn committed_offsets_are_fetched_and_others_are_minus_one_without_error() {
    let mut h = Harness::new(config());
    let mut command = commit_command("g", &[("t", 0, 11), ("t", 2, 1 << 40)]);
    command.topics[0].1[0].metadata = Some(text("note ☃"));
    command.topics[0].1[0].leader_epoch = 3;
    assert_eq!(h.commit_offsets(command), [ErrorCode::None, ErrorCode::None]);
    let asked = [(text("t"), vec![0, 1, 2]), (text("nowhere"), vec![7])];
    let found = h.machine.fetch_offsets(&text("g"), Some(&asked), true).unwrap();
    let each = |topic: &FetchedTopic| {
        topic
            .partitions
            .iter()
            .map(|p| (p.partition, p.offset, p.leader_epoch, p.metadata.to_string()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        each(&found[0]),
        [(0, 11, 3, "note ☃".into()), (1, -1, -1, String::new()), (2, 1 << 40, -1, String::new())]
    );
    assert_eq!(each(&found[1]), [(7, -1, -1, String::new())]);
    assert_eq!(h.fetched("g"), [("t".into(), 0, 11), ("t".into(), 2, 1 << 40)]);
    assert_eq!((h.fetched("nobody"), h.listed()), (vec![], vec!["g".to_string()]));
    assert_eq!(h.commit_simple("g", &[("t", 0, 3)]), [ErrorCode::None]);
    assert_eq!(h.fetched("g")[0].2, 3, "a smaller offset replaces too");
}

#[test]
fn an_offset_is_not_seen_before_it_is_committed_in_the_log() {
    let mut h = Harness::new(config());
    h.held = true;
    let command = commit_command("g", &[("t", 0, 1)]);
    let token = h.send(Command::OffsetCommit(command));
    assert!(h.waits(token) && h.fetched("g").is_empty());
    h.commit();
    assert_eq!((errors_of(h.answer(token)), h.fetched("g").len()), (vec![ErrorCode::None], 1));
}

#[test]
fn a_commit_that_cannot_be_logged_is_refused_and_leaves_nothing() {
    for (append, told) in [
        (ErrorCode::NotEnoughReplicasAfterAppend, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::RecordListTooLarge, ErrorCode::InvalidCommitOffsetSize),
        (ErrorCode::KafkaStorageError, ErrorCode::NotCoordinator),
    ] {
        let mut h = Harness::new(config());
        h.held = true;
        let mut command = commit_command("g", &[("t", 0, 1), ("u", 0, 1)]);
        command.topics[1].1[0].error = ErrorCode::UnknownTopicOrPartition;
        let token = h.send(Command::OffsetCommit(command));
        h.fail(append);
        assert_eq!(errors_of(h.answer(token)), [told, ErrorCode::UnknownTopicOrPartition]);
        assert!(h.listed().is_empty());
    }
}

#[test]
fn a_commit_that_is_late_is_refused_and_counts_once_it_is_committed() {
    let mut h = Harness::new(config());
    h.held = true;
    let command = commit_command("g", &[("t", 0, 5)]);
    let commit = h.send(Command::OffsetCommit(command));
    h.time_out();
    assert_eq!(errors_of(h.answer(commit)), [ErrorCode::CoordinatorNotAvailable]);
    h.time_out();
    assert_eq!(h.fetched("g"), []);
    let delete = h.send(Command::DeleteGroup { group_id: text("g") });
    h.commit();
    assert_eq!(h.answer(delete), Reply::DeleteGroup(ErrorCode::None));
    assert_eq!((h.fetched("g"), h.listed()), (vec![], vec![]), "the deletion covers what was late");
}

#[test]
fn a_deletion_that_is_late_takes_place_when_it_is_committed() {
    let mut h = Harness::new(config());
    h.commit_simple("g", &[("t", 0, 5)]);
    h.held = true;
    let delete = h.send(Command::DeleteGroup { group_id: text("g") });
    h.time_out();
    assert_eq!(h.answer(delete), Reply::DeleteGroup(ErrorCode::CoordinatorNotAvailable));
    h.commit();
    assert_eq!((h.fetched("g"), h.listed()), (vec![], vec![]));
}

#[test]
fn faults_of_one_partition_are_its_own() {
    let mut h = Harness::new(GroupConfig { offset_metadata_length_max: 10, ..config() });
    let mut command = commit_command("g", &[("a", 0, 1), ("b", 0, 2), ("c", 0, 3)]);
    command.topics[0].1[0].metadata = Some(text(&"é".repeat(10)));
    command.topics[1].1[0].metadata = Some(text(&"x".repeat(11)));
    command.topics[2].1[0].error = ErrorCode::UnknownTopicOrPartition;
    let expected = [ErrorCode::None, ErrorCode::OffsetMetadataTooLarge, ErrorCode::UnknownTopicOrPartition];
    assert_eq!(h.commit_offsets(command), expected);
    assert_eq!(h.fetched("g"), [("a".into(), 0, 1)]);
    let mut command = commit_command("h", &[("c", 0, 3)]);
    command.topics[0].1[0].error = ErrorCode::UnknownTopicOrPartition;
    h.commit_offsets(command);
    assert_eq!(h.listed(), ["g"], "nothing committed, no group");
}

#[test]
fn who_may_commit_depends_on_group_and_generation() {
    let mut h = Harness::new(config());
    assert_eq!(h.commit_as("g", "nobody", 1, 1), ErrorCode::GroupIdNotFound);
    let mut command = commit_command("g", &[("t", 0, 1)]);
    (command.generation_id, command.takes_member_epoch) = (1, false);
    assert_eq!(h.commit_offsets(command), [ErrorCode::IllegalGeneration], "before version 9");
    let command = OffsetCommit { generation_id: 1, ..in_transaction(7, 5) };
    assert_eq!(h.commit_offsets(command), [ErrorCode::IllegalGeneration]);
    assert!(h.listed().is_empty());
    let (ids, generation) = h.form("g", 1);
    assert_eq!(h.commit_as("g", &ids[0], generation, 1), ErrorCode::None);
    assert_eq!(h.commit_as("g", &ids[0], generation - 1, 2), ErrorCode::IllegalGeneration);
    assert_eq!(h.commit_as("g", &ids[0], generation + 1, 2), ErrorCode::IllegalGeneration);
    assert_eq!(h.commit_as("g", "nobody", generation, 2), ErrorCode::UnknownMemberId);
    assert_eq!(h.commit_simple("g", &[("t", 0, 2)]), [ErrorCode::UnknownMemberId]);
    let newcomer = h.join("g", "");
    assert_eq!(h.commit_as("g", &ids[0], generation, 3), ErrorCode::None, "as in a revocation callback");
    let token = h.join("g", &ids[0]);
    let next = h.joined(token).generation_id;
    h.joined(newcomer);
    assert_eq!(h.commit_as("g", &ids[0], next, 4), ErrorCode::RebalanceInProgress);
    assert_eq!(h.commit_as("g", &ids[0], generation, 4), ErrorCode::IllegalGeneration);
    assert_eq!(h.fetched("g"), [("t".into(), 0, 3)]);
}

fn in_transaction(producer_id: i64, offset: i64) -> OffsetCommit {
    let transaction = Some(Transaction { producer_id, producer_epoch: 0 });
    OffsetCommit { transaction, ..commit_command("g", &[("t", 0, offset)]) }
}

fn stable(h: &Harness, require: bool) -> (i64, ErrorCode) {
    let asked = [(text("t"), vec![0])];
    let found = h.machine.fetch_offsets(&text("g"), Some(&asked), require).unwrap();
    (found[0].partitions[0].offset, found[0].partitions[0].error)
}

#[test]
fn offsets_of_a_transaction_count_when_it_commits_and_are_unstable_until_then() {
    for commit in [true, false] {
        let mut h = Harness::new(config());
        h.commit_simple("g", &[("t", 0, 1)]);
        let command = in_transaction(7, 5);
        assert_eq!(h.commit_offsets(command), [ErrorCode::None]);
        assert_eq!(stable(&h, false), (1, ErrorCode::None));
        assert_eq!(stable(&h, true), (-1, ErrorCode::UnstableOffsetCommit));
        h.marker(7, commit);
        assert_eq!(stable(&h, true), (if commit { 5 } else { 1 }, ErrorCode::None));
    }
}

/// Whoever takes the partition over would read what the transaction has read, should it commit.
#[test]
fn an_offset_of_a_transaction_is_unstable_from_the_moment_that_it_is_in_the_log() {
    let mut h = Harness::new(config());
    h.commit_simple("g", &[("t", 0, 1)]);
    h.held = true;
    let plain = h.send(Command::OffsetCommit(commit_command("g", &[("t", 0, 2)])));
    assert_eq!(stable(&h, true), (1, ErrorCode::None));
    let command = in_transaction(7, 5);
    let transactional = h.send(Command::OffsetCommit(command));
    assert!(h.waits(plain) && h.waits(transactional));
    assert_eq!(stable(&h, false), (1, ErrorCode::None));
    assert_eq!(stable(&h, true), (-1, ErrorCode::UnstableOffsetCommit));
    h.time_out();
    assert_eq!(stable(&h, true), (-1, ErrorCode::UnstableOffsetCommit), "it may be committed yet");
    h.commit();
    assert_eq!(stable(&h, true), (-1, ErrorCode::UnstableOffsetCommit));
    h.marker(7, true);
    assert_eq!(stable(&h, true), (5, ErrorCode::None));
    let command = in_transaction(8, 6);
    h.send(Command::OffsetCommit(command));
    h.fail(ErrorCode::NotEnoughReplicas);
    assert_eq!(stable(&h, true), (5, ErrorCode::None));
}

#[test]
fn a_marker_that_is_told_twice_does_not_end_the_next_transaction() {
    let mut h = Harness::new(config());
    let command = in_transaction(7, 5);
    h.commit_offsets(command);
    h.marker(7, true);
    let marker_offset = i64::try_from(h.log.len()).unwrap();
    let command = in_transaction(7, 9);
    h.commit_offsets(command);
    h.machine.apply_marker(marker_offset, 7, true);
    assert_eq!(stable(&h, false), (5, ErrorCode::None));
    assert_eq!(stable(&h, true), (-1, ErrorCode::UnstableOffsetCommit));
    h.marker(7, false);
    assert_eq!(stable(&h, true), (5, ErrorCode::None));
}

#[test]
fn of_a_transactional_and_a_plain_commit_the_later_in_the_log_counts() {
    let mut h = Harness::new(config());
    let command = in_transaction(7, 5);
    h.commit_offsets(command);
    h.commit_simple("g", &[("t", 0, 9)]);
    h.marker(7, true);
    assert_eq!(stable(&h, true), (9, ErrorCode::None));
}

#[test]
fn transactional_commits_are_checked_against_the_living_group() {
    let mut h = Harness::new(config());
    let mut command = in_transaction(7, 5);
    command.group_id = text("");
    assert_eq!(h.commit_offsets(command), [ErrorCode::InvalidGroupId]);
    let (ids, generation) = h.form("g", 1);
    let mut command = in_transaction(7, 5);
    assert_eq!(h.commit_offsets(command.clone()), [ErrorCode::None], "older versions name no member");
    (command.member_id, command.generation_id) = (text(&ids[0]), generation + 1);
    assert_eq!(h.commit_offsets(command.clone()), [ErrorCode::IllegalGeneration]);
    (command.member_id, command.generation_id) = (text("other"), generation);
    assert_eq!(h.commit_offsets(command), [ErrorCode::UnknownMemberId]);
}

fn delete(h: &mut Harness, group: &str, topics: &[(&str, i32)]) -> (ErrorCode, Vec<ErrorCode>) {
    let one = |(topic, partition): &(&str, i32)| {
        let error = if *topic == "nowhere" { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::None };
        TopicResult { topic: text(topic), partitions: vec![(*partition, error)] }
    };
    let command = OffsetDelete { group_id: text(group), topics: topics.iter().map(one).collect() };
    match h.call(Command::OffsetDelete(command)) {
        Reply::OffsetDelete(reply) => {
            let errors = reply.topics.iter().flat_map(|topic| &topic.partitions).map(|(_, error)| *error);
            (reply.error, errors.collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn offsets_are_deleted_unless_somebody_subscribes_to_the_topic() {
    let mut h = Harness::new(config());
    assert_eq!(delete(&mut h, "g", &[("t", 0)]), (ErrorCode::GroupIdNotFound, vec![]));
    let (ids, generation) = h.form("g", 1);
    let mut command = commit_command("g", &[("t", 0, 1), ("u", 0, 2), ("v", 0, 3)]);
    (command.member_id, command.generation_id) = (text(&ids[0]), generation);
    h.commit_offsets(command);
    let errors = [
        ErrorCode::GroupSubscribedToTopic,
        ErrorCode::None,
        ErrorCode::None,
        ErrorCode::UnknownTopicOrPartition,
    ];
    let deleted = delete(&mut h, "g", &[("t", 0), ("u", 0), ("u", 9), ("nowhere", 0)]);
    assert_eq!(deleted, (ErrorCode::None, errors.to_vec()));
    assert_eq!(h.fetched("g"), [("t".into(), 0, 1), ("v".into(), 0, 3)]);
    let mut command = h.join_command("other", "");
    command.protocol_type = text("connect");
    h.send(Command::Join(command));
    assert_eq!(delete(&mut h, "other", &[("t", 0)]).0, ErrorCode::NonEmptyGroup);
}

#[test]
fn a_deletion_covers_commits_on_their_way() {
    let mut h = Harness::new(config());
    h.held = true;
    let command = commit_command("g", &[("t", 0, 1)]);
    let commit = h.send(Command::OffsetCommit(command));
    let deletion = h.send(Command::DeleteGroup { group_id: text("g") });
    assert!(h.waits(commit) && h.waits(deletion));
    h.commit();
    assert_eq!(h.answer(deletion), Reply::DeleteGroup(ErrorCode::None));
    assert_eq!((h.fetched("g").len(), h.listed().len(), h.machine.durable().groups_count()), (0, 0, 0));
}

#[test]
fn a_deleted_group_takes_its_pending_transactional_offsets_along() {
    let mut h = Harness::new(config());
    let command = in_transaction(7, 5);
    h.commit_offsets(command);
    assert_eq!(h.delete("g"), ErrorCode::None);
    h.marker(7, true);
    assert_eq!((h.fetched("g").len(), h.machine.durable().groups_count()), (0, 0));
}
