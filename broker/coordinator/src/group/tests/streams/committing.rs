//! Offsets of streams groups: who may commit and fetch them, and when they are forgotten.

use super::*;

fn commit(worker: &Worker, epoch: i32, topic: &str, partition: i32) -> OffsetCommit {
    OffsetCommit {
        member_id: text(&worker.id),
        generation_id: epoch,
        ..commit_command("g", &[(topic, partition, 7)])
    }
}

#[test]
fn members_commit_by_their_epoch_or_since_they_run_the_task() {
    let mut h = harness(&all_topics(2));
    let mut one = Worker::new("a", "p");
    one.join(&mut h);
    settle(&mut h, &mut [&mut one]);
    let first = one.epoch;
    assert_eq!(h.commit_offsets(commit(&one, first, "lines", 0)), [ErrorCode::None]);
    assert_eq!(h.commit_offsets(commit(&one, first + 1, "lines", 0)), [ErrorCode::StaleMemberEpoch]);
    let stranger = Worker::new("x", "p");
    assert_eq!(h.commit_offsets(commit(&stranger, first, "lines", 0)), [ErrorCode::UnknownMemberId]);
    assert_eq!(h.commit_simple("g", &[("lines", 0, 1)]), [ErrorCode::UnknownMemberId]);
    let old = OffsetCommit { takes_member_epoch: false, ..commit(&one, first, "lines", 0) };
    assert_eq!(h.commit_offsets(old), [ErrorCode::UnsupportedVersion]);

    let mut other = Worker::new("b", "q");
    other.join(&mut h);
    settle(&mut h, &mut [&mut one, &mut other]);
    let kept = *one.given.active.values().flatten().next().unwrap();
    let id = one.given.active.keys().next().unwrap().clone();
    let topic = if id == text("0") { "lines" } else { "g-counts-repartition" };
    let gone = 1 - kept;
    assert!(one.epoch > first);
    assert_eq!(h.commit_offsets(commit(&one, first, topic, kept)), [ErrorCode::None], "it has run it since");
    assert_eq!(h.commit_offsets(commit(&one, first, topic, gone)), [ErrorCode::StaleMemberEpoch]);
    assert_eq!(h.commit_offsets(commit(&one, first, "other", kept)), [ErrorCode::StaleMemberEpoch]);
    assert_eq!(h.commit_offsets(commit(&other, first, topic, gone)), [ErrorCode::StaleMemberEpoch]);
    let transaction = Some(Transaction { producer_id: 9, producer_epoch: 0 });
    let stale = OffsetCommit { transaction, ..commit(&other, first, topic, gone) };
    assert_eq!(h.commit_offsets(stale), [ErrorCode::IllegalGeneration]);
    let good = OffsetCommit { transaction, ..commit(&other, other.epoch, topic, gone) };
    assert_eq!(h.commit_offsets(good), [ErrorCode::None]);
}

#[test]
fn members_fetch_by_their_epoch_and_admins_without() {
    let mut h = harness(&all_topics(2));
    let mut one = Worker::new("a", "p");
    one.join(&mut h);
    let id = text("a");
    let fetch = |h: &Harness, member: Option<&Text>, epoch| h.machine.may_fetch_offsets("g", member, epoch);
    assert_eq!(fetch(&h, None, -1), Ok(()));
    assert_eq!(fetch(&h, Some(&id), one.epoch), Ok(()));
    assert_eq!(fetch(&h, Some(&id), one.epoch - 1), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(fetch(&h, Some(&text("x")), 1), Err(ErrorCode::UnknownMemberId));
}

#[test]
fn offsets_of_what_is_read_are_kept_and_an_empty_group_expires() {
    let mut h = harness(&all_topics(2));
    let mut one = Worker::new("a", "p");
    one.join(&mut h);
    assert_eq!(h.commit_offsets(commit(&one, one.epoch, "lines", 0)), [ErrorCode::None]);
    assert_eq!(h.commit_offsets(commit(&one, one.epoch, "past", 0)), [ErrorCode::None]);
    let delete = |h: &mut Harness, topic: &str| {
        let topics = vec![TopicResult { topic: text(topic), partitions: vec![(0, ErrorCode::None)] }];
        match h.call(Command::OffsetDelete(OffsetDelete { group_id: text("g"), topics })) {
            Reply::OffsetDelete(reply) => (reply.error, reply.topics[0].partitions[0].1),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delete(&mut h, "lines"), (ErrorCode::None, ErrorCode::GroupSubscribedToTopic));
    assert_eq!(delete(&mut h, "past"), (ErrorCode::None, ErrorCode::None));
    h.commit_offsets(commit(&one, one.epoch, "past", 0));
    let retention_ms = u64::try_from(GroupConfig::default().offsets_retention_ms).unwrap();
    h.now.wall_ms += i64::try_from(retention_ms).unwrap();
    h.expire();
    let left: Vec<Text> =
        h.machine.durable().group("g").unwrap().offsets.keys().map(|key| key.topic.clone()).collect();
    assert_eq!(left, [text("lines")]);
    one.leave(&mut h);
    h.expire();
    assert_eq!(h.machine.durable().groups_count(), 0);
    assert!(h.machine.groups.is_empty());
    h.assert_replayed();
}
