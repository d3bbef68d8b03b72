use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use uuid::Uuid;

use super::*;
use crate::consumer_group::{ConsumerHeartbeat, GroupOverrides, Partitions, TopicView, TopicsView};
use crate::group::{
    Command, Effects, GroupConfig, GroupCoordinator, GroupFilter, Join, Now, OffsetCommit, Protocol, Reply,
    RequestToken,
};

const TOPIC: Uuid = Uuid::from_u128(1);

fn partitions(topic: Uuid, numbers: impl IntoIterator<Item = i32>) -> Partitions {
    Partitions::from([(topic, numbers.into_iter().collect())])
}

/// A coordinator with its log: appends are committed at once, unless they are held.
struct World {
    machine: GroupCoordinator,
    log: Vec<crate::group::CoordinatorRecord>,
    now: Now,
    token: u64,
}

impl World {
    fn new() -> Self {
        let mut config = GroupConfig::default();
        config.share.assignment_interval_ms = 0;
        let mut world = Self {
            machine: GroupCoordinator::new(config),
            log: Vec::new(),
            now: Now { monotonic_ms: 0, wall_ms: 1_000 },
            token: 0,
        };
        world.machine.set_topics(Arc::new(topics(&[(TOPIC, "t", 2)])));
        world.machine.lead(world.now, &mut Effects::default());
        world
    }

    fn run(&mut self, command: Command) -> Reply {
        self.token += 1;
        let token = RequestToken(self.token);
        let mut effects = Effects::default();
        self.machine.step(self.now, token, command, &mut effects);
        self.settle(effects).into_iter().find(|(of, _)| *of == token).expect("an answer").1
    }

    fn settle(&mut self, mut effects: Effects) -> Vec<(RequestToken, Reply)> {
        let mut replies = std::mem::take(&mut effects.replies);
        for append in std::mem::take(&mut effects.appends) {
            for record in append.records {
                let offset = i64::try_from(self.log.len()).unwrap();
                self.machine.apply(offset, None, &record.key, record.value.as_ref()).unwrap();
                self.log.push(record);
            }
            let mut next = Effects::default();
            self.machine.committed(self.now, append.ticket, &mut next);
            replies.extend(self.settle(next));
        }
        replies
    }

    fn beat(&mut self, member: &str, epoch: i32, names: Option<&[&str]>) -> ShareHeartbeatReply {
        let heartbeat = ShareHeartbeat {
            group_id: Text::from("g"),
            member_id: Text::from(member),
            member_epoch: epoch,
            rack_id: None,
            topics: names.map(|names| names.iter().copied().map(Text::from).collect()),
            client_id: Text::from("c"),
            client_host: Text::from("/h"),
        };
        match self.run(Command::ShareHeartbeat(Box::new(heartbeat))) {
            Reply::ShareHeartbeat(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn change(&mut self, must_be_empty: bool, change: ShareStateChange) -> ErrorCode {
        let command = ShareStateCommand { group_id: Text::from("g"), must_be_empty, change };
        match self.run(Command::ShareState(Box::new(command))) {
            Reply::ShareState(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn initialized(&mut self, partitions: Partitions) -> ErrorCode {
        self.change(false, ShareStateChange::Initialized { partitions, create: false })
    }

    /// A member that joined, with the partitions of the topic initialised.
    fn joined(&mut self, member: &str) -> i32 {
        let reply = self.beat(member, 0, Some(&["t"]));
        if let Some((_, partitions)) = reply.initialize {
            assert_eq!(self.initialized(partitions), ErrorCode::None);
        }
        reply.member_epoch
    }

    fn tick(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall_ms += i64::try_from(ms).unwrap();
        let mut effects = Effects::default();
        self.machine.tick(self.now, &mut effects);
        self.settle(effects);
    }

    /// Another leader that has read the log.
    fn fail_over(&mut self) {
        let mut next = Self::new();
        next.log = std::mem::take(&mut self.log);
        for (offset, record) in next.log.iter().enumerate() {
            let offset = i64::try_from(offset).unwrap();
            next.machine.apply(offset, None, &record.key, record.value.as_ref()).unwrap();
        }
        next.machine.lead(next.now, &mut Effects::default());
        assert_eq!(next.machine.durable(), self.machine.durable());
        *self = next;
    }
}

fn topics(all: &[(Uuid, &str, i32)]) -> TopicsView {
    let mut view = TopicsView::default();
    for (id, name, partitions) in all {
        view.put(TopicView { id: *id, name: Text::from(*name), partitions: *partitions });
    }
    view
}

#[test]
fn a_member_reads_what_is_initialised() {
    let mut world = World::new();
    let reply = world.beat("a", 0, Some(&["t"]));
    assert_eq!(
        (reply.error, reply.member_epoch, reply.assignment),
        (ErrorCode::None, 1, Some(Partitions::new()))
    );
    assert_eq!(reply.initialize, Some((1, partitions(TOPIC, 0..2))));
    assert_eq!(world.beat("a", 1, None).initialize, None, "it is on its way");
    assert_eq!(world.initialized(partitions(TOPIC, 0..2)), ErrorCode::None);
    let reply = world.beat("a", 1, None);
    assert_eq!((reply.member_epoch, reply.assignment), (2, Some(partitions(TOPIC, 0..2))));
    assert_eq!(world.beat("a", 2, None).assignment, None);
    // More members share, also one partition.
    for member in ["b", "c"] {
        let reply = world.beat(member, 0, Some(&["t"]));
        assert_eq!(reply.assignment.unwrap().values().map(BTreeSet::len).sum::<usize>(), 1);
    }
    world.fail_over();
    assert_eq!(world.beat("c", 4, None).error, ErrorCode::None);
    let described = world.machine.describe_share_group(&Text::from("g")).unwrap();
    assert_eq!((described.state.name(), described.group_epoch, described.members.len()), ("Stable", 4, 3));
}

#[test]
fn heartbeats_are_refused_for_what_they_say() {
    let mut world = World::new();
    let code = |world: &mut World, member: &str, epoch: i32, names: Option<&[&str]>| {
        world.beat(member, epoch, names).error
    };
    assert_eq!(code(&mut world, "", 0, Some(&["t"])), ErrorCode::InvalidRequest);
    assert_eq!(code(&mut world, "a", 0, None), ErrorCode::InvalidRequest);
    assert_eq!(code(&mut world, "a", 0, Some(&[])), ErrorCode::InvalidRequest);
    assert_eq!(code(&mut world, "a", -2, None), ErrorCode::InvalidRequest);
    assert_eq!(code(&mut world, "a", 1, None), ErrorCode::GroupIdNotFound);
    assert_eq!(code(&mut world, "a", -1, None), ErrorCode::GroupIdNotFound);
    world.joined("a");
    assert_eq!(code(&mut world, "b", 1, None), ErrorCode::UnknownMemberId);
    assert_eq!(code(&mut world, "b", -1, None), ErrorCode::UnknownMemberId);
    assert_eq!(code(&mut world, "a", 7, None), ErrorCode::FencedMemberEpoch);
    assert_eq!(code(&mut world, "a", 1, None), ErrorCode::None);
    assert_eq!(code(&mut world, "a", 1, None), ErrorCode::None, "the answer may have been lost");
    assert_eq!(code(&mut world, "a", 0, Some(&["t"])), ErrorCode::None, "it may join anew");
}

#[test]
fn a_group_has_so_many_members_at_most() {
    let mut world = World::new();
    let mut config = GroupConfig::default();
    config.share.group_size_max = 1;
    world.machine.set_config(config);
    world.joined("a");
    assert_eq!(world.beat("b", 0, Some(&["t"])).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.beat("a", 0, Some(&["t"])).error, ErrorCode::None);
}

#[test]
fn members_leave_or_fall_silent_and_the_others_take_over() {
    let mut world = World::new();
    world.joined("a");
    world.joined("b");
    let reply = world.beat("a", 1, None);
    assert_eq!(reply.assignment.unwrap(), partitions(TOPIC, 0..1));
    let left = world.beat("b", -1, None);
    assert_eq!((left.error, left.member_epoch), (ErrorCode::None, -1));
    let reply = world.beat("a", reply.member_epoch, None);
    assert_eq!(reply.assignment.unwrap(), partitions(TOPIC, 0..2));
    world.tick(44_000);
    assert_eq!(world.beat("a", reply.member_epoch, None).error, ErrorCode::None);
    world.tick(44_000);
    assert_eq!(world.beat("a", reply.member_epoch, None).error, ErrorCode::None);
    world.tick(46_000);
    assert_eq!(world.beat("a", reply.member_epoch, None).error, ErrorCode::UnknownMemberId);
    let listed = world.machine.list(&GroupFilter::default()).unwrap();
    assert_eq!(
        (listed[0].group_type, listed[0].state, &*listed[0].protocol_type),
        ("share", "Empty", "share")
    );
}

#[test]
fn a_group_sets_its_own_timeouts() {
    let mut world = World::new();
    let share = ShareOverrides {
        session_timeout_ms: Some(50_000),
        heartbeat_interval_ms: Some(7_000),
        assignment_interval_ms: None,
    };
    let overrides = GroupOverrides { share, ..GroupOverrides::default() };
    world.machine.set_overrides(Arc::new(BTreeMap::from([(Text::from("g"), overrides)])));
    assert_eq!(world.beat("a", 0, Some(&["t"])).heartbeat_interval_ms, 7_000);
    world.tick(49_000);
    assert_eq!(world.beat("a", 1, None).error, ErrorCode::None);
}

#[test]
fn topics_grow_come_and_go() {
    let mut world = World::new();
    let epoch = world.joined("a");
    let mut epoch = world.beat("a", epoch, None).member_epoch;
    world.machine.set_topics(Arc::new(topics(&[(TOPIC, "t", 3), (Uuid::from_u128(2), "u", 1)])));
    let reply = world.beat("a", epoch, None);
    assert_eq!(reply.initialize.unwrap().1, partitions(TOPIC, 2..3));
    epoch = reply.member_epoch;
    world.initialized(partitions(TOPIC, 2..3));
    let reply = world.beat("a", epoch, None);
    assert_eq!(reply.assignment.unwrap(), partitions(TOPIC, 0..3));
    world.machine.set_topics(Arc::new(topics(&[(Uuid::from_u128(9), "t", 1)])));
    let reply = world.beat("a", reply.member_epoch, None);
    assert_eq!(reply.assignment, Some(Partitions::new()));
    assert_eq!(reply.initialize.unwrap().1, partitions(Uuid::from_u128(9), 0..1));
    let (known, is_empty, _) = world.machine.share_partitions(&Text::from("g")).unwrap();
    assert_eq!((known.initialized.len(), known.initializing.len(), is_empty), (0, 1, false));
}

#[test]
fn an_initialisation_that_was_not_ended_is_tried_again() {
    let mut world = World::new();
    world.beat("a", 0, Some(&["t"]));
    world.tick(29_000);
    assert_eq!(world.beat("a", 1, None).initialize, None);
    world.tick(2_000);
    assert!(world.beat("a", 1, None).initialize.is_some());
    world.fail_over();
    let (_, again) = world.beat("a", 1, None).initialize.unwrap();
    assert_eq!(again, partitions(TOPIC, 0..2));
    assert_eq!(world.beat("a", 1, None).initialize, None);
}

#[test]
fn groups_of_one_id_are_of_one_type() {
    let mut world = World::new();
    world.joined("a");
    let consumer = ConsumerHeartbeat {
        group_id: Text::from("g"),
        member_id: Text::from("x"),
        member_epoch: 0,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: Some(1_000),
        topics: Some(vec![Text::from("t")]),
        regex: None,
        server_assignor: None,
        owned: Some(Partitions::new()),
        client_id: Text::default(),
        client_host: Text::default(),
        member_id_required: true,
        new_member_id: Text::from("n"),
    };
    let Reply::ConsumerHeartbeat(reply) = world.run(Command::ConsumerHeartbeat(Box::new(consumer.clone())))
    else {
        panic!()
    };
    assert_eq!(reply.error, ErrorCode::GroupIdNotFound);
    let join = Join {
        group_id: Text::from("g"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: Text::default(),
        group_instance_id: None,
        protocol_type: Text::from("consumer"),
        protocols: vec![Protocol { name: Text::from("range"), metadata: bytes::Bytes::new() }],
        client_id: Text::default(),
        client_host: Text::default(),
        require_known_member_id: false,
        supports_skip_assignment: true,
        new_member_id: Text::from("y"),
    };
    let Reply::Join(reply) = world.run(Command::Join(join)) else { panic!() };
    assert_eq!(reply.error, ErrorCode::InconsistentGroupProtocol);
    let commit = OffsetCommit {
        group_id: Text::from("g"),
        generation_id: -1,
        member_id: Text::default(),
        group_instance_id: None,
        retention_ms: None,
        takes_member_epoch: true,
        transaction: None,
        topics: vec![(
            Text::from("t"),
            vec![crate::group::OffsetToCommit {
                partition: 0,
                offset: 1,
                leader_epoch: -1,
                metadata: None,
                error: ErrorCode::None,
            }],
        )],
    };
    let Reply::OffsetCommit(topics) = world.run(Command::OffsetCommit(commit)) else { panic!() };
    assert_eq!(topics[0].partitions, [(0, ErrorCode::GroupIdNotFound)]);
    // And the other way round.
    let other = ConsumerHeartbeat { group_id: Text::from("h"), ..consumer };
    world.run(Command::ConsumerHeartbeat(Box::new(other)));
    let heartbeat = ShareHeartbeat {
        group_id: Text::from("h"),
        member_id: Text::from("a"),
        member_epoch: 0,
        rack_id: None,
        topics: Some(vec![Text::from("t")]),
        client_id: Text::default(),
        client_host: Text::default(),
    };
    let Reply::ShareHeartbeat(reply) = world.run(Command::ShareHeartbeat(Box::new(heartbeat))) else {
        panic!()
    };
    assert_eq!(reply.error, ErrorCode::GroupIdNotFound);
    let described = world.machine.describe_share_group(&Text::from("h")).unwrap_err();
    assert_eq!(described.error, ErrorCode::GroupIdNotFound);
}

#[test]
fn an_empty_group_is_changed_from_outside_and_deleted() {
    let mut world = World::new();
    let create = |create| ShareStateChange::Initialized { partitions: partitions(TOPIC, 0..1), create };
    assert_eq!(world.change(true, create(false)), ErrorCode::GroupIdNotFound);
    assert_eq!(world.change(true, create(true)), ErrorCode::None);
    assert_eq!(world.change(true, ShareStateChange::NextEpoch), ErrorCode::None);
    assert_eq!(world.machine.share_partitions(&Text::from("g")).unwrap().2, 1);
    world.joined("a");
    assert_eq!(world.change(true, ShareStateChange::NextEpoch), ErrorCode::NonEmptyGroup);
    let delete = || Command::DeleteGroup { group_id: Text::from("g") };
    assert_eq!(world.run(delete()), Reply::DeleteGroup(ErrorCode::NonEmptyGroup));
    world.beat("a", -1, None);
    assert_eq!(world.change(true, ShareStateChange::Forget(vec![TOPIC])), ErrorCode::None);
    let known = world.machine.share_partitions(&Text::from("g")).unwrap().0;
    assert_eq!((known.deleting.len(), known.initialized.len()), (1, 0));
    assert_eq!(world.change(true, ShareStateChange::Forgotten(vec![TOPIC])), ErrorCode::None);
    assert!(world.machine.share_partitions(&Text::from("g")).unwrap().0.is_empty());
    assert_eq!(world.run(delete()), Reply::DeleteGroup(ErrorCode::None));
    assert_eq!(world.machine.durable().groups_count(), 0);
    assert!(world.machine.list(&GroupFilter::default()).unwrap().is_empty());
}

#[test]
fn an_append_that_fails_leaves_the_group_as_it_was() {
    let mut world = World::new();
    let epoch = world.joined("a");
    let epoch = world.beat("a", epoch, None).member_epoch;
    let mut effects = Effects::default();
    let heartbeat = ShareHeartbeat {
        group_id: Text::from("g"),
        member_id: Text::from("b"),
        member_epoch: 0,
        rack_id: None,
        topics: Some(vec![Text::from("t")]),
        client_id: Text::default(),
        client_host: Text::default(),
    };
    world.machine.step(
        world.now,
        RequestToken(99),
        Command::ShareHeartbeat(Box::new(heartbeat)),
        &mut effects,
    );
    let ticket = effects.appends[0].ticket;
    let mut effects = Effects::default();
    world.machine.failed(world.now, ticket, ErrorCode::NotEnoughReplicas, &mut effects);
    let Reply::ShareHeartbeat(reply) = &effects.replies[0].1 else { panic!() };
    assert_eq!(reply.error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.beat("b", 1, None).error, ErrorCode::UnknownMemberId);
    assert_eq!(world.beat("a", epoch, None).member_epoch, epoch);
    world.tick(46_000);
    assert_eq!(world.beat("a", epoch, None).error, ErrorCode::UnknownMemberId, "its session goes on");
}

/// A client that got no answer tells everything again; one that asks with its epoch of before has missed the new one.
#[test]
fn an_assignment_whose_answer_was_lost_is_told_again() {
    let mut world = World::new();
    let epoch = world.joined("a");
    let told = world.beat("a", epoch, None);
    assert_eq!(told.assignment, Some(partitions(TOPIC, [0, 1])));
    assert!(told.member_epoch > epoch);
    let again = world.beat("a", epoch, None);
    assert_eq!((again.error, again.member_epoch), (ErrorCode::None, told.member_epoch));
    assert_eq!(again.assignment, told.assignment);
    assert_eq!(world.beat("a", told.member_epoch, None).assignment, None);
    assert_eq!(world.beat("a", told.member_epoch, Some(&["t"])).assignment, told.assignment);
}
