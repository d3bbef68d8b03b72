//! Consumer groups (KIP-848): joining, moving partitions, epochs, static members, patterns.

mod epochs;
mod joining;
mod migration;
mod mixed;
mod moving;
mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::consumer_group::{
    ConsumerHeartbeat, ConsumerHeartbeatReply, JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Partitions,
    TopicView,
};

pub(super) const REBALANCE_TIMEOUT_MS: u64 = 20_000;
pub(super) const SESSION_TIMEOUT_MS: u64 = 45_000;

/// Topics by name with their number of partitions; the id of the n-th is n + 1.
pub(super) fn topics(counts: &[(&str, i32)]) -> Arc<TopicsView> {
    let mut view = TopicsView::default();
    for (number, (name, partitions)) in (1_u128..).zip(counts) {
        view.put(TopicView { id: Uuid::from_u128(number), name: text(name), partitions: *partitions });
    }
    Arc::new(view)
}

pub(super) fn consumer_config() -> GroupConfig {
    let consumer = ConsumerGroupConfig { assignment_interval_ms: 0, ..ConsumerGroupConfig::default() };
    GroupConfig { consumer, ..config() }
}

/// A machine with a topic `t` of so many partitions.
pub(super) fn harness(partitions: i32) -> Harness {
    let mut h = Harness::new(consumer_config());
    h.machine.set_topics(topics(&[("t", partitions)]));
    h
}

pub(super) fn of_t(numbers: impl IntoIterator<Item = i32>) -> Partitions {
    let numbers: BTreeSet<i32> = numbers.into_iter().collect();
    if numbers.is_empty() { Partitions::new() } else { Partitions::from([(Uuid::from_u128(1), numbers)]) }
}

/// A member by heartbeats: it has what it last acknowledged and is told what to have.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) topics: Vec<String>,
    pub(super) regex: Option<String>,
    pub(super) assignor: Option<String>,
    pub(super) epoch: i32,
    pub(super) given: Partitions,
    pub(super) owned: Partitions,
}

impl Peer {
    pub(super) fn new(id: &str, topics: &[&str]) -> Self {
        Self {
            id: id.to_owned(),
            instance: None,
            topics: topics.iter().map(|name| (*name).to_owned()).collect(),
            regex: None,
            assignor: None,
            epoch: JOIN_EPOCH,
            given: Partitions::new(),
            owned: Partitions::new(),
        }
    }

    pub(super) fn of_instance(id: &str, instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..Self::new(id, &["t"]) }
    }

    /// A heartbeat that tells nothing new.
    pub(super) fn command(&self) -> ConsumerHeartbeat {
        ConsumerHeartbeat {
            group_id: text("g"),
            member_id: text(&self.id),
            member_epoch: self.epoch,
            instance_id: self.instance.as_deref().map(text),
            rack_id: None,
            rebalance_timeout_ms: None,
            topics: None,
            regex: None,
            server_assignor: None,
            owned: None,
            client_id: text("client"),
            client_host: text("/127.0.0.1"),
            member_id_required: true,
            new_member_id: text("fresh"),
        }
    }

    /// A heartbeat that joins.
    pub(super) fn join_command(&self) -> ConsumerHeartbeat {
        ConsumerHeartbeat {
            member_epoch: JOIN_EPOCH,
            rebalance_timeout_ms: Some(i32::try_from(REBALANCE_TIMEOUT_MS).unwrap()),
            topics: Some(self.topics.iter().map(|name| text(name)).collect()),
            regex: self.regex.as_deref().map(text),
            server_assignor: self.assignor.as_deref().map(text),
            owned: Some(Partitions::new()),
            ..self.command()
        }
    }

    pub(super) fn learn(&mut self, reply: &ConsumerHeartbeatReply) {
        if reply.error == ErrorCode::None {
            self.epoch = reply.member_epoch;
            if let Some(assignment) = &reply.assignment {
                self.given = assignment.clone();
            }
        }
    }

    pub(super) fn join(&mut self, h: &mut Harness) -> ErrorCode {
        (self.owned, self.given) = (Partitions::new(), Partitions::new());
        let reply = h.heartbeat(self.join_command());
        self.learn(&reply);
        reply.error
    }

    pub(super) fn beat(&mut self, h: &mut Harness) -> ConsumerHeartbeatReply {
        let reply = h.heartbeat(self.command());
        self.learn(&reply);
        reply
    }

    /// Tells that it has just what it was given.
    pub(super) fn acknowledge(&mut self, h: &mut Harness) -> ErrorCode {
        self.owned = self.given.clone();
        let reply = h.heartbeat(ConsumerHeartbeat { owned: Some(self.owned.clone()), ..self.command() });
        self.learn(&reply);
        reply.error
    }

    pub(super) fn step(&mut self, h: &mut Harness) {
        assert_eq!(self.beat(h).error, ErrorCode::None, "{}", self.id);
        if self.given != self.owned {
            assert_eq!(self.acknowledge(h), ErrorCode::None);
        }
    }

    pub(super) fn leave(&mut self, h: &mut Harness, epoch: i32) -> ErrorCode {
        h.heartbeat(ConsumerHeartbeat { member_epoch: epoch, ..self.command() }).error
    }
}

/// Heartbeats of all until nothing moves.
pub(super) fn settle(h: &mut Harness, peers: &mut [&mut Peer]) {
    for _ in 0..20 {
        for peer in &mut *peers {
            peer.step(h);
        }
    }
    assert_eq!(h.described().state.name(), "Stable");
}

impl Harness {
    pub(super) fn heartbeat(&mut self, command: ConsumerHeartbeat) -> ConsumerHeartbeatReply {
        match self.call(Command::ConsumerHeartbeat(Box::new(command))) {
            Reply::ConsumerHeartbeat(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn described(&self) -> ConsumerGroupDescription {
        self.machine.describe_consumer_group("g").unwrap()
    }

    pub(super) fn described_if_consumer(&self) -> Option<ConsumerGroupDescription> {
        self.machine.describe_consumer_group("g").ok()
    }

    /// The group's type and state as listed.
    pub(super) fn listing(&self) -> Option<(&'static str, &'static str)> {
        let groups = self.machine.list(&GroupFilter::default()).unwrap();
        groups.into_iter().find(|group| &*group.group_id == "g").map(|group| (group.group_type, group.state))
    }

    /// What is live is what the log says.
    pub(super) fn assert_replayed(&self) {
        assert_eq!(self.replayed().durable(), self.machine.durable());
        let live = self.machine.groups.get("g").and_then(|group| group.consumer.as_ref());
        let logged = self.machine.durable().group("g").and_then(|group| group.consumer.as_ref());
        assert_eq!(live.map(|live| &live.group), logged.map(|logged| &**logged));
        let live = self.machine.groups.get("g").and_then(|group| group.streams.as_ref());
        let logged = self.machine.durable().group("g").and_then(|group| group.streams.as_ref());
        assert_eq!(live.map(|live| &live.group), logged.map(|logged| &**logged));
    }
}
