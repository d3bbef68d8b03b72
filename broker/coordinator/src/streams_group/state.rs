//! A streams group of KIP-1071 as its records have it. Only [`StreamsGroup::apply`] changes one: on the leader as soon as
//! records are decided, on replay and on a standby as they are read.
//!
//! The order of records in a compacted log is that of the last record of each key. So a record of a part that is not
//! known yet makes it, and ownership of active tasks is kept by who took a task last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_wire::text::Text;

use super::topology::Topology;
use crate::consumer_group::{LEAVE_EPOCH, MemberState};

/// Tasks: partitions of subtopologies, by the subtopology's id.
pub type Tasks = BTreeMap<Text, BTreeSet<i32>>;
/// Tasks, each with the member epoch in which it was given.
pub type TasksWithEpochs = BTreeMap<Text, BTreeMap<i32, i32>>;

/// The epoch of a group before its first change, and of its target assignment.
const FIRST_EPOCH: i32 = 1;
/// The epoch of a topology that stands for none.
pub(crate) const NO_TOPOLOGY_EPOCH: i32 = -1;

/// Tasks of every role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskSet {
    /// They process records.
    pub active: Tasks,
    /// They keep a copy of a task's state.
    pub standby: Tasks,
    /// They catch up with a task's state, to become active.
    pub warmup: Tasks,
}

impl TaskSet {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        [&self.active, &self.standby, &self.warmup].into_iter().all(BTreeMap::is_empty)
    }
}

/// Tasks that a member has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssignedTasks {
    /// They process records and commit offsets.
    pub active: TasksWithEpochs,
    /// See [`TaskSet`].
    pub standby: Tasks,
    /// See [`TaskSet`].
    pub warmup: Tasks,
}

impl AssignedTasks {
    /// Without the epochs.
    pub fn tasks(&self) -> TaskSet {
        let active = self.active.iter();
        TaskSet {
            active: active.map(|(id, numbers)| (id.clone(), numbers.keys().copied().collect())).collect(),
            standby: self.standby.clone(),
            warmup: self.warmup.clone(),
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }
}

/// Where a member answers interactive queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its host.
    pub host: Text,
    /// Its port.
    pub port: u16,
}

/// What a member told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsMemberMetadata {
    /// Static membership is not served; a record may have one all the same.
    pub instance_id: Option<Text>,
    /// The client's rack.
    pub rack_id: Option<Text>,
    /// The client's id.
    pub client_id: Text,
    /// As Kafka prints it.
    pub client_host: Text,
    /// Milliseconds that it may take to let go of tasks.
    pub rebalance_timeout_ms: i32,
    /// Of the topology that it runs.
    pub topology_epoch: i32,
    /// The process: its members share the state on its disk.
    pub process_id: Text,
    /// For interactive queries.
    pub user_endpoint: Option<Endpoint>,
    /// What the application says of where it runs.
    pub client_tags: BTreeMap<Text, Text>,
}

impl Default for StreamsMemberMetadata {
    fn default() -> Self {
        Self {
            instance_id: None,
            rack_id: None,
            client_id: Text::default(),
            client_host: Text::default(),
            rebalance_timeout_ms: -1,
            topology_epoch: NO_TOPOLOGY_EPOCH,
            process_id: Text::default(),
            user_endpoint: None,
            client_tags: BTreeMap::new(),
        }
    }
}

/// What a member has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentTasks {
    /// Its epoch.
    pub epoch: i32,
    /// The one before: the answer that told the new one may have been lost.
    pub previous_epoch: i32,
    /// Where it is on its way to its target. Partitions here are tasks.
    pub state: MemberState,
    /// What it may run.
    pub assigned: AssignedTasks,
    /// What it has to let go of.
    pub revoking: AssignedTasks,
}

impl Default for CurrentTasks {
    fn default() -> Self {
        Self {
            epoch: 0,
            previous_epoch: LEAVE_EPOCH,
            state: MemberState::Stable,
            assigned: AssignedTasks::default(),
            revoking: AssignedTasks::default(),
        }
    }
}

/// A member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamsMember {
    /// What it told of itself.
    pub metadata: StreamsMemberMetadata,
    /// What it has.
    pub current: CurrentTasks,
}

/// What a group's own record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEpoch {
    /// Grows with every change of members, topology or topics.
    pub epoch: i32,
    /// Of the topics that the topology needs.
    pub metadata_hash: i64,
    /// The epoch of the topology that fits the topics; -1: it does not.
    pub validated_topology_epoch: i32,
    /// The settings that the assignor goes by.
    pub assignment_configs: BTreeMap<Text, Text>,
}

/// A change of a group: one record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamsRecord {
    /// A new group epoch. None: no group any more.
    Group(Option<GroupEpoch>),
    /// The topology. None: none any more.
    Topology(Option<Arc<Topology>>),
    /// What a member told; None: no member any more.
    Member(Text, Option<StreamsMemberMetadata>),
    /// The epoch of the target assignment and when it was made, milliseconds since the Unix epoch.
    TargetEpoch(Option<(i32, i64)>),
    /// What a member shall have.
    Target(Text, Option<TaskSet>),
    /// What a member has.
    Current(Text, Option<CurrentTasks>),
}

impl StreamsRecord {
    /// Whether it ends something.
    pub(crate) fn is_tombstone(&self) -> bool {
        match self {
            Self::Group(value) => value.is_none(),
            Self::Topology(value) => value.is_none(),
            Self::TargetEpoch(value) => value.is_none(),
            Self::Member(_, value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
        }
    }
}

/// The states of a streams group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamsGroupState {
    /// No members.
    Empty,
    /// The topology does not fit the topics there are.
    NotReady,
    /// A newer epoch has no target assignment yet.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// Every member has what it shall have.
    Stable,
}

impl StreamsGroupState {
    /// As Kafka prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::NotReady => "NotReady",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// The members that have a task, or have not let go of it yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TaskOwners {
    pub(crate) active: Option<Text>,
    /// As standby or warm-up task.
    pub(crate) copies: BTreeSet<Text>,
}

/// A streams group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsGroup {
    /// What its own record says.
    pub head: GroupEpoch,
    /// The group epoch that the target was made for.
    pub target_epoch: i32,
    /// When, milliseconds since the Unix epoch.
    pub target_timestamp_ms: i64,
    topology: Option<Arc<Topology>>,
    /// Boxed, as a map has room for eleven in its first node, and most groups have few members.
    members: BTreeMap<Text, Box<StreamsMember>>,
    targets: BTreeMap<Text, TaskSet>,
    /// Derived.
    owners: BTreeMap<Text, BTreeMap<i32, TaskOwners>>,
}

impl Default for StreamsGroup {
    fn default() -> Self {
        Self {
            head: GroupEpoch {
                epoch: FIRST_EPOCH,
                metadata_hash: 0,
                validated_topology_epoch: NO_TOPOLOGY_EPOCH,
                assignment_configs: BTreeMap::new(),
            },
            target_epoch: FIRST_EPOCH,
            target_timestamp_ms: 0,
            topology: None,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }
}

impl StreamsGroup {
    /// All members by id.
    pub fn members(&self) -> &BTreeMap<Text, Box<StreamsMember>> {
        &self.members
    }

    /// What each member shall have.
    pub fn targets(&self) -> &BTreeMap<Text, TaskSet> {
        &self.targets
    }

    /// What the members run.
    pub fn topology(&self) -> Option<&Arc<Topology>> {
        self.topology.as_ref()
    }

    /// Who has a task.
    pub(crate) fn owners(&self, subtopology: &str, partition: i32) -> Option<&TaskOwners> {
        self.owners.get(subtopology)?.get(&partition)
    }

    /// Whether members read the topic: nobody does while there are none.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        !self.members.is_empty()
            && self.topology.as_ref().is_some_and(|topology| topology.reader_of(topic).is_some())
    }

    /// The state that members, topology and epochs make.
    pub fn state(&self) -> StreamsGroupState {
        if self.members.is_empty() {
            return StreamsGroupState::Empty;
        }
        let valid = self.head.validated_topology_epoch;
        if self.topology.as_ref().is_none_or(|topology| topology.epoch != valid) {
            return StreamsGroupState::NotReady;
        }
        if self.head.epoch > self.target_epoch {
            return StreamsGroupState::Assigning;
        }
        let is_there = |member: &StreamsMember| {
            member.current.state == MemberState::Stable && member.current.epoch == self.target_epoch
        };
        if self.members.values().all(|member| is_there(member)) {
            StreamsGroupState::Stable
        } else {
            StreamsGroupState::Reconciling
        }
    }

    /// One record.
    pub fn apply(&mut self, record: StreamsRecord) {
        match record {
            StreamsRecord::Group(Some(head)) => self.head = head,
            StreamsRecord::Group(None) => *self = Self::default(),
            StreamsRecord::Topology(topology) => self.topology = topology,
            StreamsRecord::TargetEpoch(target) => {
                (self.target_epoch, self.target_timestamp_ms) = target.unwrap_or((FIRST_EPOCH, 0));
            }
            StreamsRecord::Target(member_id, Some(tasks)) => drop(self.targets.insert(member_id, tasks)),
            StreamsRecord::Target(member_id, None) => drop(self.targets.remove(&member_id)),
            StreamsRecord::Member(member_id, Some(metadata)) => {
                self.members.entry(member_id).or_default().metadata = metadata;
            }
            StreamsRecord::Member(member_id, None) => {
                self.disown(&member_id);
                self.members.remove(&member_id);
            }
            StreamsRecord::Current(member_id, Some(current)) => self.put_current(member_id, current),
            StreamsRecord::Current(member_id, None) => {
                if self.members.contains_key(&member_id) {
                    self.put_current(member_id, CurrentTasks::default());
                }
            }
        }
    }

    fn put_current(&mut self, member_id: Text, current: CurrentTasks) {
        self.disown(&member_id);
        for tasks in [&current.assigned, &current.revoking] {
            for (id, numbers) in &tasks.active {
                for number in numbers.keys() {
                    self.owners_mut(id, *number).active = Some(member_id.clone());
                }
            }
            for (id, numbers) in tasks.standby.iter().chain(&tasks.warmup) {
                for number in numbers {
                    self.owners_mut(id, *number).copies.insert(member_id.clone());
                }
            }
        }
        self.members.entry(member_id).or_default().current = current;
    }

    fn owners_mut(&mut self, subtopology: &Text, partition: i32) -> &mut TaskOwners {
        self.owners.entry(subtopology.clone()).or_default().entry(partition).or_default()
    }

    /// What the member has is free, unless another took it since.
    fn disown(&mut self, member_id: &Text) {
        let Some(member) = self.members.get(member_id) else { return };
        for tasks in [&member.current.assigned, &member.current.revoking] {
            let active = tasks.active.iter().flat_map(|(id, numbers)| numbers.keys().map(move |n| (id, *n)));
            let copies = tasks.standby.iter().chain(&tasks.warmup);
            let copies = copies.flat_map(|(id, numbers)| numbers.iter().map(move |n| (id, *n)));
            for (id, number) in active.chain(copies) {
                let Some(numbers) = self.owners.get_mut(id) else { continue };
                if let Some(owners) = numbers.get_mut(&number) {
                    if owners.active.as_ref() == Some(member_id) {
                        owners.active = None;
                    }
                    owners.copies.remove(member_id);
                    if *owners == TaskOwners::default() {
                        numbers.remove(&number);
                    }
                }
            }
        }
        self.owners.retain(|_, numbers| !numbers.is_empty());
    }
}
