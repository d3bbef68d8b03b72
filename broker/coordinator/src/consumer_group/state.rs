//! A consumer group of KIP-848 as its records have it. Only [`ConsumerGroup::apply`] changes one: on the leader as soon
//! as records are decided, on replay and on a standby as they are read.
//!
//! The order of records in a compacted log is that of the last record of each key. So a record of a part that is not
//! known yet makes it, and ownership of partitions is kept by who took a partition last.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use ottla_wire::text::Text;
use uuid::Uuid;

/// Partitions of topics.
pub type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;
/// Partitions of topics, each with the member epoch in which it was given (KIP-1251).
pub type Assigned = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// The epoch of a request that joins.
pub const JOIN_EPOCH: i32 = 0;
/// The epoch of a request that leaves for good; also of a member without an assignment yet.
pub const LEAVE_EPOCH: i32 = -1;
/// The epoch of a static member that leaves and will be back, and of that member until it is.
pub const LEAVE_STATIC_EPOCH: i32 = -2;

/// Where a member is on its way to its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MemberState {
    /// It has what it shall have in its epoch.
    #[default]
    Stable,
    /// It has to let go of partitions and say so.
    UnrevokedPartitions,
    /// It shall have more, which others have not let go of yet.
    UnreleasedPartitions,
    /// A state of a newer version: the member has to join anew.
    Unknown,
}

/// What a member of the classic protocol told beside: it is served by JoinGroup and SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicMetadata {
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// The ways of assignment that it knows, with their subscription.
    pub protocols: Vec<(Text, Bytes)>,
}

/// What a member told of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberMetadata {
    /// Given by static members.
    pub instance_id: Option<Text>,
    /// The client's rack.
    pub rack_id: Option<Text>,
    /// The client's id.
    pub client_id: Text,
    /// As Kafka prints it.
    pub client_host: Text,
    /// Names it subscribes to.
    pub topics: BTreeSet<Text>,
    /// The pattern it subscribes to; empty is none.
    pub regex: Option<Text>,
    /// Milliseconds that it may take to let go of partitions.
    pub rebalance_timeout_ms: i32,
    /// The assignor that it asks for.
    pub server_assignor: Option<Text>,
    /// Of members of the classic protocol.
    pub classic: Option<ClassicMetadata>,
}

impl MemberMetadata {
    /// The pattern, where there is one.
    pub(crate) fn pattern(&self) -> Option<&Text> {
        self.regex.as_ref().filter(|regex| !regex.is_empty())
    }
}

/// What a member has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentAssignment {
    /// Its epoch.
    pub epoch: i32,
    /// The one before: the answer that told the new one may have been lost.
    pub previous_epoch: i32,
    /// See the type.
    pub state: MemberState,
    /// What it may use.
    pub assigned: Assigned,
    /// What it has to let go of, and nobody else may have until it has.
    pub revoking: Assigned,
}

impl Default for CurrentAssignment {
    fn default() -> Self {
        Self {
            epoch: JOIN_EPOCH,
            previous_epoch: LEAVE_EPOCH,
            state: MemberState::Stable,
            assigned: Assigned::new(),
            revoking: Assigned::new(),
        }
    }
}

/// A member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerMember {
    /// What it told of itself.
    pub metadata: MemberMetadata,
    /// What it has.
    pub current: CurrentAssignment,
}

impl ConsumerMember {
    /// Whether it is served by JoinGroup and SyncGroup.
    pub(crate) fn is_classic(&self) -> bool {
        self.metadata.classic.is_some()
    }
}

/// The topics that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRegex {
    /// Their names.
    pub topics: BTreeSet<Text>,
    /// Of the metadata that was looked at.
    pub version: i64,
    /// When, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// A change of a group: one record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerRecord {
    /// A new group epoch, with the hash of the subscribed topics. None: no group any more.
    Group(Option<(i32, i64)>),
    /// What a member told; None: no member any more.
    Member(Text, Option<MemberMetadata>),
    /// The epoch of the target assignment and when it was made, milliseconds since the Unix epoch.
    TargetEpoch(Option<(i32, i64)>),
    /// What a member shall have.
    Target(Text, Option<Partitions>),
    /// What a member has.
    Current(Text, Option<CurrentAssignment>),
    /// What a pattern matches.
    Regex(Text, Option<ResolvedRegex>),
}

impl ConsumerRecord {
    /// Whether it ends something.
    pub(crate) fn is_tombstone(&self) -> bool {
        match self {
            Self::Group(value) => value.is_none(),
            Self::TargetEpoch(value) => value.is_none(),
            Self::Member(_, value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
            Self::Regex(_, value) => value.is_none(),
        }
    }
}

/// The states of a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerGroupState {
    /// No members.
    Empty,
    /// A newer epoch has no target assignment yet.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// Every member has what it shall have.
    Stable,
}

impl ConsumerGroupState {
    /// As Kafka prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// A consumer group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerGroup {
    /// Grows with every change of members, subscriptions or their topics.
    pub epoch: i32,
    /// Of the subscribed topics, when the epoch began.
    pub metadata_hash: i64,
    /// The group epoch that the target was made for.
    pub target_epoch: i32,
    /// When, milliseconds since the Unix epoch.
    pub target_timestamp_ms: i64,
    /// Boxed, as a map has room for eleven in its first node, and most groups have few members.
    members: BTreeMap<Text, Box<ConsumerMember>>,
    targets: BTreeMap<Text, Partitions>,
    regexes: BTreeMap<Text, ResolvedRegex>,
    // What follows is derived.
    owners: HashMap<(Uuid, i32), Text>,
    instances: BTreeMap<Text, Text>,
    topic_counts: BTreeMap<Text, usize>,
    regex_counts: BTreeMap<Text, usize>,
    assignor_counts: BTreeMap<Text, usize>,
    classic_count: usize,
    classic_protocol_counts: BTreeMap<Text, usize>,
}

impl ConsumerGroup {
    /// All members by id.
    pub fn members(&self) -> &BTreeMap<Text, Box<ConsumerMember>> {
        &self.members
    }

    /// What each member shall have.
    pub fn targets(&self) -> &BTreeMap<Text, Partitions> {
        &self.targets
    }

    /// What the patterns of members match.
    pub fn regexes(&self) -> &BTreeMap<Text, ResolvedRegex> {
        &self.regexes
    }

    /// The member that has a partition, or has not let go of it yet.
    pub fn owner(&self, topic: Uuid, partition: i32) -> Option<&Text> {
        self.owners.get(&(topic, partition))
    }

    /// The member of an instance id.
    pub(crate) fn static_member(&self, instance: &str) -> Option<&Text> {
        self.instances.get(instance)
    }

    /// Names that members subscribe to, and how many do.
    pub(crate) fn topic_counts(&self) -> &BTreeMap<Text, usize> {
        &self.topic_counts
    }

    /// Patterns that members subscribe to, and how many do.
    pub(crate) fn regex_counts(&self) -> &BTreeMap<Text, usize> {
        &self.regex_counts
    }

    /// Assignors that members ask for, and how many do.
    pub(crate) fn assignor_counts(&self) -> &BTreeMap<Text, usize> {
        &self.assignor_counts
    }

    /// Members of the classic protocol.
    pub(crate) fn classic_count(&self) -> usize {
        self.classic_count
    }

    /// How many members of the classic protocol know a way of assignment.
    pub(crate) fn classic_protocol_count(&self, protocol: &str) -> usize {
        self.classic_protocol_counts.get(protocol).copied().unwrap_or(0)
    }

    /// Whether a member subscribes to the topic, by name or pattern.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.topic_counts.contains_key(topic)
            || self.regexes.iter().any(|(regex, resolved)| {
                self.regex_counts.contains_key(regex) && resolved.topics.contains(topic)
            })
    }

    /// The state that members and epochs make.
    pub fn state(&self) -> ConsumerGroupState {
        if self.members.is_empty() {
            return ConsumerGroupState::Empty;
        }
        if self.epoch > self.target_epoch {
            return ConsumerGroupState::Assigning;
        }
        let is_there = |member: &ConsumerMember| {
            member.current.state == MemberState::Stable && member.current.epoch == self.target_epoch
        };
        if self.members.values().all(|member| is_there(member)) {
            ConsumerGroupState::Stable
        } else {
            ConsumerGroupState::Reconciling
        }
    }

    /// One record.
    pub fn apply(&mut self, record: ConsumerRecord) {
        match record {
            ConsumerRecord::Group(Some((epoch, hash))) => (self.epoch, self.metadata_hash) = (epoch, hash),
            ConsumerRecord::Group(None) => *self = Self::default(),
            ConsumerRecord::TargetEpoch(target) => {
                (self.target_epoch, self.target_timestamp_ms) = target.unwrap_or_default();
            }
            ConsumerRecord::Target(member_id, Some(partitions)) => {
                self.targets.insert(member_id, partitions);
            }
            ConsumerRecord::Target(member_id, None) => drop(self.targets.remove(&member_id)),
            ConsumerRecord::Member(member_id, Some(metadata)) => self.put_metadata(member_id, metadata),
            ConsumerRecord::Member(member_id, None) => self.remove_member(&member_id),
            ConsumerRecord::Current(member_id, Some(current)) => self.put_current(member_id, current),
            ConsumerRecord::Current(member_id, None) => {
                if self.members.contains_key(&member_id) {
                    self.put_current(member_id, CurrentAssignment::default());
                }
            }
            ConsumerRecord::Regex(regex, Some(resolved)) => drop(self.regexes.insert(regex, resolved)),
            ConsumerRecord::Regex(regex, None) => drop(self.regexes.remove(&regex)),
        }
    }

    fn put_metadata(&mut self, member_id: Text, metadata: MemberMetadata) {
        let old = self.members.get(&member_id).map(|member| member.metadata.clone());
        if let Some(old) = &old {
            self.count(&member_id, old, false);
        }
        self.count(&member_id, &metadata, true);
        self.members.entry(member_id).or_default().metadata = metadata;
    }

    fn put_current(&mut self, member_id: Text, current: CurrentAssignment) {
        self.disown(&member_id);
        for (topic, partitions) in current.assigned.iter().chain(&current.revoking) {
            for partition in partitions.keys() {
                self.owners.insert((*topic, *partition), member_id.clone());
            }
        }
        self.members.entry(member_id).or_default().current = current;
    }

    fn remove_member(&mut self, member_id: &Text) {
        self.disown(member_id);
        if let Some(member) = self.members.remove(member_id) {
            self.count(member_id, &member.metadata, false);
        }
    }

    /// What the member has is free, unless another took it since.
    fn disown(&mut self, member_id: &Text) {
        let Some(member) = self.members.get(member_id) else { return };
        for (topic, partitions) in member.current.assigned.iter().chain(&member.current.revoking) {
            for partition in partitions.keys() {
                let key = (*topic, *partition);
                if self.owners.get(&key) == Some(member_id) {
                    self.owners.remove(&key);
                }
            }
        }
    }

    fn count(&mut self, member_id: &Text, metadata: &MemberMetadata, add: bool) {
        for topic in &metadata.topics {
            count_one(&mut self.topic_counts, topic, add);
        }
        if let Some(regex) = metadata.pattern() {
            count_one(&mut self.regex_counts, regex, add);
        }
        if let Some(assignor) = &metadata.server_assignor {
            count_one(&mut self.assignor_counts, assignor, add);
        }
        if let Some(classic) = &metadata.classic {
            if add {
                self.classic_count += 1;
            } else {
                self.classic_count -= 1;
            }
            let names: BTreeSet<&Text> = classic.protocols.iter().map(|(name, _)| name).collect();
            for name in names {
                count_one(&mut self.classic_protocol_counts, name, add);
            }
        }
        if let Some(instance) = &metadata.instance_id {
            if add {
                self.instances.insert(instance.clone(), member_id.clone());
            } else if self.instances.get(instance) == Some(member_id) {
                self.instances.remove(instance);
            }
        }
    }
}

fn count_one(counts: &mut BTreeMap<Text, usize>, name: &Text, add: bool) {
    if add {
        *counts.entry(name.clone()).or_default() += 1;
    } else if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

/// Without the epochs.
pub(crate) fn partitions_of(assigned: &Assigned) -> Partitions {
    assigned.iter().map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
}
