//! A classic group as the leader of its partition sees it now: soft state.
//!
//! What a failover loses: who is waiting for an answer, a rebalance in progress, member ids handed out but not used,
//! and how long each member has been silent. The next leader begins from the last generation in the log, with every
//! member's session starting anew.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_wire::decode::Decoder;
use ottla_wire::messages::Message;
use ottla_wire::persisted::ConsumerProtocolSubscription;
use ottla_wire::text::Text;

use super::command::{JoinedMember, Protocol, RequestToken};
use super::consumer::LiveConsumer;
use super::records::{own, own_bytes};
use super::share::LiveShare;
use super::state::{DurableGroup, GroupMetadata, StoredMember, TopicPartition};
use super::streams::LiveStreams;
use super::timers::{Deadline, TimerKey, TimerKind};
use ottla_wire::error_code::ErrorCode;

/// The protocol type of consumers, whose subscriptions the coordinator reads.
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// The states of a classic group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// A rebalance began: members are asked to join again.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
    /// Deleted.
    Dead,
}

impl GroupState {
    /// As Kafka prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// A member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) member_id: Text,
    pub(crate) group_instance_id: Option<Text>,
    pub(crate) client_id: Text,
    pub(crate) client_host: Text,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// A JoinGroup that waits for the others to join.
    pub(crate) awaiting_join: Option<RequestToken>,
    /// A SyncGroup that waits for the leader's assignment.
    pub(crate) awaiting_sync: Option<RequestToken>,
    /// It has not completed a join yet: it cannot send heartbeats, because it does not know its id.
    pub(crate) is_new: bool,
    pub(crate) session: Deadline,
}

impl Member {
    /// Its metadata of a protocol; empty if it does not know that.
    pub(crate) fn metadata(&self, protocol: Option<&Text>) -> Bytes {
        let found = self.protocols.iter().find(|known| Some(&known.name) == protocol);
        found.map(|known| known.metadata.clone()).unwrap_or_default()
    }

    pub(crate) fn is_static(&self) -> bool {
        self.group_instance_id.is_some()
    }

    fn from_stored(stored: &StoredMember, protocol: Option<&Text>) -> Self {
        let name = protocol.cloned().unwrap_or_default();
        Self {
            member_id: stored.member_id.clone(),
            group_instance_id: stored.group_instance_id.clone(),
            client_id: stored.client_id.clone(),
            client_host: stored.client_host.clone(),
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            session_timeout_ms: stored.session_timeout_ms,
            protocols: vec![Protocol { name, metadata: stored.subscription.clone() }],
            assignment: stored.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            session: Deadline::default(),
        }
    }
}

/// Protocols that do not keep a request's frame alive.
pub(crate) fn own_protocols(protocols: &[Protocol]) -> Vec<Protocol> {
    let one = |known: &Protocol| Protocol { name: own(&known.name), metadata: own_bytes(&known.metadata) };
    protocols.iter().map(one).collect()
}

/// What ends the join phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinPhase {
    /// The first rebalance of an empty group: waits `delay_ms` now, at most `remaining_ms` more if members keep coming
    /// (KIP-134).
    Initial { delay_ms: u64, remaining_ms: u64 },
    /// Waits until all have joined again, or the rebalance timeout.
    Rejoin,
}

/// A classic group, live.
#[derive(Debug)]
pub(crate) struct LiveGroup {
    pub(crate) id: Text,
    pub(crate) state: GroupState,
    /// Since when, milliseconds since the Unix epoch.
    pub(crate) state_timestamp_ms: Option<i64>,
    pub(crate) protocol_type: Option<Text>,
    pub(crate) protocol_name: Option<Text>,
    pub(crate) generation: i32,
    pub(crate) leader: Option<Text>,
    pub(crate) members: BTreeMap<Text, Member>,
    /// group.instance.id to member id.
    pub(crate) static_members: BTreeMap<Text, Text>,
    /// Member ids handed out and not used yet (KIP-394).
    pub(crate) pending_members: BTreeMap<Text, Deadline>,
    /// Members of this generation that have not synced yet.
    pub(crate) pending_sync: BTreeSet<Text>,
    /// How many members have a JoinGroup waiting.
    pub(crate) awaiting_join_count: usize,
    /// How many members know each protocol.
    pub(crate) protocol_counts: BTreeMap<Text, usize>,
    pub(crate) join_phase: JoinPhase,
    /// During the initial delay: somebody came, so it may be extended.
    pub(crate) new_member_added: bool,
    pub(crate) join_timer: Deadline,
    pub(crate) sync_timer: Deadline,
    /// The topics that the members of a consumer group read, if they can be told.
    pub(crate) subscribed_topics: Option<BTreeSet<Text>>,
    /// Partitions with commits on their way to the log. A deletion must cover them, because the log has them first; an
    /// expiry must leave them alone.
    pub(crate) in_flight: BTreeMap<TopicPartition, OnTheirWay>,
    /// Appends about this group on their way.
    pub(crate) appends_in_flight: u32,
    /// Given for consumer groups (KIP-848). Then what is above of members is as of an empty classic group.
    pub(crate) consumer: Option<Box<LiveConsumer>>,
    /// Given for share groups (KIP-932). Likewise.
    pub(crate) share: Option<Box<LiveShare>>,
    /// Given for streams groups (KIP-1071). Then what is above of members is as of an empty classic group.
    pub(crate) streams: Option<Box<LiveStreams>>,
}

/// How many commits and deletions of a partition's offset are on their way to the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OnTheirWay {
    /// All of them.
    pub(crate) all: u32,
    /// Of transactions.
    pub(crate) transactional: u32,
}

impl LiveGroup {
    pub(crate) fn new(id: Text) -> Self {
        Self {
            id,
            state: GroupState::Empty,
            state_timestamp_ms: None,
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            awaiting_join_count: 0,
            protocol_counts: BTreeMap::new(),
            join_phase: JoinPhase::Rejoin,
            new_member_added: false,
            join_timer: Deadline::default(),
            sync_timer: Deadline::default(),
            subscribed_topics: None,
            in_flight: BTreeMap::new(),
            appends_in_flight: 0,
            consumer: None,
            share: None,
            streams: None,
        }
    }

    /// As the log has it, when leadership begins.
    pub(crate) fn from_durable(id: Text, durable: &DurableGroup) -> Self {
        if let Some(consumer) = &durable.consumer {
            let consumer = Some(Box::new(LiveConsumer::new((**consumer).clone())));
            return Self { consumer, ..Self::new(id) };
        }
        if let Some(share) = &durable.share {
            let share = Some(Box::new(LiveShare::new((**share).clone())));
            return Self { share, ..Self::new(id) };
        }
        if let Some(streams) = &durable.streams {
            let streams = Some(Box::new(LiveStreams::new((**streams).clone())));
            return Self { streams, ..Self::new(id) };
        }
        match &durable.metadata {
            Some(metadata) => Self::from_metadata(id, metadata),
            None => Self::new(id),
        }
    }

    /// A classic group as the log has it.
    pub(crate) fn from_metadata(id: Text, metadata: &GroupMetadata) -> Self {
        let mut group = Self::new(id);
        group.state = if metadata.members.is_empty() { GroupState::Empty } else { GroupState::Stable };
        group.state_timestamp_ms = metadata.state_timestamp_ms;
        group.protocol_type.clone_from(&metadata.protocol_type);
        group.protocol_name.clone_from(&metadata.protocol_name);
        group.generation = metadata.generation;
        group.leader.clone_from(&metadata.leader);
        for stored in &metadata.members {
            group.insert(Member::from_stored(stored, metadata.protocol_name.as_ref()));
        }
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// As it is to be logged, with these assignments.
    pub(crate) fn to_metadata(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupMetadata {
        let stored = |member: &Member| StoredMember {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(self.protocol_name.as_ref()),
            assignment: assignment(member),
        };
        GroupMetadata {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone(),
            state_timestamp_ms: self.state_timestamp_ms,
            members: self.members.values().map(stored).collect(),
        }
    }

    pub(crate) fn transition(&mut self, to: GroupState, wall_ms: i64) {
        self.state = to;
        self.state_timestamp_ms = Some(wall_ms);
    }

    /// A new or loaded member. The first one gives the group its protocol type and is its leader.
    pub(crate) fn insert(&mut self, member: Member) {
        if self.leader.is_none() {
            self.leader = Some(member.member_id.clone());
        }
        if let Some(instance) = &member.group_instance_id {
            self.static_members.insert(instance.clone(), member.member_id.clone());
        }
        self.awaiting_join_count += usize::from(member.awaiting_join.is_some());
        self.count_protocols(&member.protocols, true);
        self.members.insert(member.member_id.clone(), member);
    }

    /// Takes a member out, without a word to whoever waits for its answers.
    pub(crate) fn take(&mut self, member_id: &Text) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        self.awaiting_join_count -= usize::from(member.awaiting_join.is_some());
        self.count_protocols(&member.protocols, false);
        self.pending_sync.remove(member_id);
        if let Some(instance) = &member.group_instance_id
            && self.static_members.get(instance) == Some(member_id)
        {
            self.static_members.remove(instance);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Parks a JoinGroup; gives back the one that the member had waiting before.
    pub(crate) fn park_join(&mut self, member_id: &Text, token: RequestToken) -> Option<RequestToken> {
        let member = self.members.get_mut(member_id)?;
        let before = member.awaiting_join.replace(token);
        self.awaiting_join_count += usize::from(before.is_none());
        before
    }

    /// The JoinGroup that the member has waiting, which is now to be answered.
    pub(crate) fn unpark_join(&mut self, member_id: &Text) -> Option<RequestToken> {
        let token = self.members.get_mut(member_id)?.awaiting_join.take();
        self.awaiting_join_count -= usize::from(token.is_some());
        token
    }

    /// Replaces what a member knows.
    pub(crate) fn set_protocols(&mut self, member_id: &Text, protocols: Vec<Protocol>) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        let before = std::mem::replace(&mut member.protocols, protocols.clone());
        self.count_protocols(&before, false);
        self.count_protocols(&protocols, true);
    }

    fn count_protocols(&mut self, protocols: &[Protocol], add: bool) {
        let names: BTreeSet<&Text> = protocols.iter().map(|protocol| &protocol.name).collect();
        for name in names {
            if add {
                *self.protocol_counts.entry(name.clone()).or_default() += 1;
            } else if let Some(count) = self.protocol_counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.protocol_counts.remove(name);
                }
            }
        }
    }

    pub(crate) fn is_leader(&self, member_id: &Text) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    /// Whether someone with these protocols can be a member beside those that are.
    pub(crate) fn supports(&self, protocol_type: &Text, protocols: &[Protocol]) -> bool {
        if self.state == GroupState::Empty || self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let by_all =
            |protocol: &Protocol| self.protocol_counts.get(&protocol.name) == Some(&self.members.len());
        self.protocol_type.as_ref() == Some(protocol_type) && protocols.iter().any(by_all)
    }

    /// The protocol that all members know and most prefer; of equal ones the one that its leader prefers.
    pub(crate) fn select_protocol(&self) -> Option<Text> {
        let everyone = self.members.len();
        let known_by_all = |name: &Text| self.protocol_counts.get(name) == Some(&everyone);
        let mut votes: BTreeMap<&Text, usize> = BTreeMap::new();
        for member in self.members.values() {
            let first = member.protocols.iter().find(|protocol| known_by_all(&protocol.name));
            if let Some(protocol) = first {
                *votes.entry(&protocol.name).or_default() += 1;
            }
        }
        let most = votes.values().max().copied()?;
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        let mut preferred =
            leader.into_iter().flat_map(|member| &member.protocols).map(|protocol| &protocol.name);
        let by_leader = preferred.find(|name| votes.get(name) == Some(&most)).cloned();
        by_leader.or_else(|| votes.iter().find(|(_, count)| **count == most).map(|(name, _)| (*name).clone()))
    }

    /// The longest time that any member may take to join again.
    pub(crate) fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        milliseconds(longest.unwrap_or(0))
    }

    pub(crate) fn has_all_joined(&self) -> bool {
        self.members.len() == self.awaiting_join_count && self.pending_members.is_empty()
    }

    /// A rebalance can begin: it has not begun yet.
    pub(crate) fn can_rebalance(&self) -> bool {
        matches!(self.state, GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable)
    }

    /// Whether this is a member, by the rules of static membership (KIP-345).
    pub(crate) fn validate_member(&self, member_id: &Text, instance: Option<&Text>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(holder) if holder != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// The members as the leader is told them.
    pub(crate) fn joined_members(&self) -> Vec<JoinedMember> {
        let one = |member: &Member| JoinedMember {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(self.protocol_name.as_ref()),
        };
        self.members.values().map(one).collect()
    }

    /// The topics that consumers subscribe to. None: cannot be told (another protocol type, or metadata of a form that
    /// is not the consumers').
    pub(crate) fn compute_subscribed_topics(&self) -> Option<BTreeSet<Text>> {
        if self.protocol_type.as_deref() != Some(CONSUMER_PROTOCOL_TYPE) {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol_name.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(member.metadata(Some(protocol)))?);
        }
        Some(topics)
    }

    /// Whether offsets of the topic must be kept. A consumer group whose subscriptions cannot be read counts as
    /// subscribed to everything.
    pub(crate) fn is_subscribed(&self, topic: &Text) -> bool {
        if let Some(consumer) = &self.consumer {
            return consumer.group.is_subscribed(topic);
        }
        if let Some(streams) = &self.streams {
            return streams.group.is_subscribed(topic);
        }
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE),
        }
    }

    /// Nothing that anybody would miss: no members, nothing logged, nothing on its way.
    pub(crate) fn is_bare(&self) -> bool {
        self.members.is_empty()
            && self.consumer.is_none()
            && self.share.is_none()
            && self.streams.is_none()
            && self.pending_members.is_empty()
            && self.appends_in_flight == 0
            && self.state == GroupState::Empty
            && self.generation == 0
    }

    /// Nobody is in it, so it may be deleted.
    pub(crate) fn is_empty(&self) -> bool {
        self.state == GroupState::Empty
            && self.consumer.as_ref().is_none_or(|consumer| consumer.group.members().is_empty())
            && self.share.as_ref().is_none_or(|share| share.group.members().is_empty())
            && self.streams.as_ref().is_none_or(|streams| streams.group.members().is_empty())
    }

    pub(crate) fn session_key(&self, member_id: &Text) -> TimerKey {
        TimerKey { group: self.id.clone(), kind: TimerKind::Session(member_id.clone()) }
    }
}

/// A timeout as the wire has it; negative ones are none.
pub(crate) fn milliseconds(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The topics of a consumer's metadata: the version in front, then the subscription. A later version than the newest
/// known begins like that one.
fn subscribed_topics(metadata: Bytes) -> Option<BTreeSet<Text>> {
    let mut decoder = Decoder::new(metadata);
    let version = decoder.i16().ok()?;
    if version < 0 {
        return None;
    }
    // The topics come first in every version; what follows them is not needed, and clients differ in it.
    let subscription = ConsumerProtocolSubscription::decode(&mut decoder, 0).ok()?;
    Some(subscription.topics.iter().map(own).collect())
}
