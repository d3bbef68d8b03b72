//! Streams groups (KIP-1071): joining, topologies and their topics, moving tasks, epochs, what is refused.

mod committing;
mod joining;
mod moving;
mod schedule;
mod topologies;

use std::collections::BTreeSet;
use std::sync::Arc;

use ottla_wire::messages::streams_group_heartbeat_request as request;
use uuid::Uuid;

use super::consumer::topics;
use super::*;
use crate::consumer_group::{JOIN_EPOCH, LEAVE_EPOCH};
use crate::streams_group::{
    StatusCode, StreamsGroupConfig, StreamsHeartbeat, StreamsHeartbeatReply, TaskSet, Tasks, Topology,
};

pub(super) const REBALANCE_TIMEOUT_MS: u64 = 20_000;
pub(super) const SESSION_TIMEOUT_MS: u64 = 45_000;

pub(super) fn streams_config() -> GroupConfig {
    let streams = StreamsGroupConfig {
        assignment_interval_ms: 0,
        initial_rebalance_delay_ms: 0,
        ..StreamsGroupConfig::default()
    };
    GroupConfig { streams, ..config() }
}

pub(super) fn harness(counts: &[(&str, i32)]) -> Harness {
    let mut h = Harness::new(streams_config());
    h.machine.set_topics(topics(counts));
    h
}

/// Words are read, sent round by `repartition` and counted in a state with a changelog.
pub(super) fn word_count() -> request::Topology {
    let repartition = || request::RepartitionSourceTopic {
        name: text("g-counts-repartition"),
        topic_configs: vec![request::RepartitionSourceTopicTopicConfig {
            key: text("cleanup.policy"),
            value: text("delete"),
        }],
        ..Default::default()
    };
    let reader = request::Subtopology {
        subtopology_id: text("0"),
        source_topics: vec![text("lines")],
        repartition_sink_topics: vec![text("g-counts-repartition")],
        ..Default::default()
    };
    let counter = request::Subtopology {
        subtopology_id: text("1"),
        repartition_source_topics: vec![repartition()],
        state_changelog_topics: vec![request::StateChangelogTopic {
            name: text("g-counts-changelog"),
            replication_factor: 2,
            topic_configs: vec![request::TopicConfig { key: text("cleanup.policy"), value: text("compact") }],
            ..Default::default()
        }],
        ..Default::default()
    };
    request::Topology { epoch: 0, subtopologies: vec![reader, counter] }
}

/// All topics of the word count, with so many partitions.
pub(super) fn all_topics(count: i32) -> Vec<(&'static str, i32)> {
    vec![("lines", count), ("g-counts-repartition", count), ("g-counts-changelog", count)]
}

pub(super) fn tasks(of: &[(&str, &[i32])]) -> Tasks {
    of.iter().map(|(id, numbers)| (text(id), numbers.iter().copied().collect::<BTreeSet<i32>>())).collect()
}

/// A member by heartbeats: it has what it last acknowledged and is told what to have.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) id: String,
    pub(super) process: String,
    pub(super) topology: request::Topology,
    pub(super) epoch: i32,
    pub(super) given: TaskSet,
    pub(super) owned: TaskSet,
}

impl Worker {
    pub(super) fn new(id: &str, process: &str) -> Self {
        Self {
            id: id.to_owned(),
            process: process.to_owned(),
            topology: word_count(),
            epoch: JOIN_EPOCH,
            given: TaskSet::default(),
            owned: TaskSet::default(),
        }
    }

    /// A heartbeat that tells nothing new.
    pub(super) fn command(&self) -> StreamsHeartbeat {
        StreamsHeartbeat {
            group_id: text("g"),
            member_id: text(&self.id),
            member_epoch: self.epoch,
            endpoint_epoch: 0,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: None,
            topology: None,
            has_patterns: false,
            owned: None,
            owns_in_part: false,
            process_id: None,
            user_endpoint: None,
            client_tags: None,
            has_offsets: false,
            shutdown_application: false,
            client_id: text("client"),
            client_host: text("/127.0.0.1"),
        }
    }

    /// A heartbeat that joins.
    pub(super) fn join_command(&self) -> StreamsHeartbeat {
        StreamsHeartbeat {
            member_epoch: JOIN_EPOCH,
            rebalance_timeout_ms: Some(i32::try_from(REBALANCE_TIMEOUT_MS).unwrap()),
            topology: Some(Topology::from_request(&self.topology)),
            process_id: Some(text(&self.process)),
            owned: Some(TaskSet::default()),
            ..self.command()
        }
    }

    pub(super) fn learn(&mut self, reply: &StreamsHeartbeatReply) {
        if reply.error == ErrorCode::None {
            self.epoch = reply.member_epoch;
            if let Some(tasks) = &reply.tasks {
                self.given = tasks.clone();
            }
        }
    }

    pub(super) fn join(&mut self, h: &mut Harness) -> StreamsHeartbeatReply {
        (self.owned, self.given) = (TaskSet::default(), TaskSet::default());
        let reply = h.streams_heartbeat(self.join_command());
        self.learn(&reply);
        reply
    }

    pub(super) fn beat(&mut self, h: &mut Harness) -> StreamsHeartbeatReply {
        let reply = h.streams_heartbeat(self.command());
        self.learn(&reply);
        reply
    }

    /// Tells that it has just what it was given.
    pub(super) fn acknowledge(&mut self, h: &mut Harness) -> StreamsHeartbeatReply {
        self.owned = self.given.clone();
        let reply =
            h.streams_heartbeat(StreamsHeartbeat { owned: Some(self.owned.clone()), ..self.command() });
        self.learn(&reply);
        reply
    }

    pub(super) fn step(&mut self, h: &mut Harness) {
        assert_eq!(self.beat(h).error, ErrorCode::None, "{}", self.id);
        if self.given != self.owned {
            assert_eq!(self.acknowledge(h).error, ErrorCode::None);
        }
    }

    pub(super) fn leave(&mut self, h: &mut Harness) -> ErrorCode {
        h.streams_heartbeat(StreamsHeartbeat { member_epoch: LEAVE_EPOCH, ..self.command() }).error
    }

    pub(super) fn active_count(&self) -> usize {
        self.given.active.values().map(BTreeSet::len).sum()
    }
}

/// Heartbeats of all until nothing moves.
pub(super) fn settle(h: &mut Harness, workers: &mut [&mut Worker]) {
    for _ in 0..12 {
        for worker in &mut *workers {
            worker.step(h);
        }
    }
    assert_eq!(h.streams().state.name(), "Stable");
}

impl Harness {
    pub(super) fn streams_heartbeat(&mut self, command: StreamsHeartbeat) -> StreamsHeartbeatReply {
        match self.call(Command::StreamsHeartbeat(Box::new(command))) {
            Reply::StreamsHeartbeat(reply) => *reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn streams(&self) -> StreamsGroupDescription {
        self.machine.describe_streams_group("g").unwrap()
    }
}

pub(super) fn codes(reply: &StreamsHeartbeatReply) -> Vec<StatusCode> {
    reply.status.iter().map(|status| status.code).collect()
}

/// The view of other topics, numbered so that the machine sees that it is new.
pub(super) fn set_topics(h: &mut Harness, counts: &[(&str, i32)]) {
    let mut view = (*topics(counts)).clone();
    let version = h.machine.machinery.topics.version();
    let mut number = 0_u128;
    while view.version() <= version {
        number += 1;
        let other = crate::consumer_group::TopicView {
            id: Uuid::from_u128(1_000 + number),
            name: text("other"),
            partitions: 1,
        };
        view.put(other);
    }
    h.machine.set_topics(Arc::new(view));
}
