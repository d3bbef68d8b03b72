//! A share group as its records have it. Only [`ShareGroup::apply`] changes one: on the leader as soon as records are
//! decided, on replay and on a standby as they are read. The records of a compacted log may come in any order of parts.

use std::collections::{BTreeMap, BTreeSet};

use ottla_wire::text::Text;
use uuid::Uuid;

use crate::consumer_group::Partitions;

/// What a member told of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShareMetadata {
    /// The client's rack.
    pub rack_id: Option<Text>,
    /// The client's id.
    pub client_id: Text,
    /// As Kafka prints it.
    pub client_host: Text,
    /// Names it subscribes to.
    pub topics: BTreeSet<Text>,
}

/// What a member has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShareCurrent {
    /// Its epoch.
    pub epoch: i32,
    /// The one before: the answer that told the new one may have been lost.
    pub previous_epoch: i32,
    /// What it reads.
    pub assigned: Partitions,
}

/// A member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShareMember {
    /// What it told of itself.
    pub metadata: ShareMetadata,
    /// What it has.
    pub current: ShareCurrent,
}

/// Which share-partitions the share coordinator keeps for a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatePartitions {
    /// It was told to, or is to be told.
    pub initializing: BTreeMap<Uuid, (Text, BTreeSet<i32>)>,
    /// It does.
    pub initialized: BTreeMap<Uuid, (Text, BTreeSet<i32>)>,
    /// It is to forget them.
    pub deleting: BTreeMap<Uuid, Text>,
}

impl StatePartitions {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.initializing.is_empty() && self.initialized.is_empty() && self.deleting.is_empty()
    }
}

/// A change of a group: one record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareRecord {
    /// A new group epoch, with the hash of the subscribed topics. None: no group any more.
    Group(Option<(i32, i64)>),
    /// What a member told; None: no member any more.
    Member(Text, Option<ShareMetadata>),
    /// The epoch of the target assignment and when it was made, milliseconds since the Unix epoch.
    TargetEpoch(Option<(i32, i64)>),
    /// What a member shall have.
    Target(Text, Option<Partitions>),
    /// What a member has.
    Current(Text, Option<ShareCurrent>),
    /// Which share-partitions are kept for the group.
    Partitions(Option<StatePartitions>),
}

impl ShareRecord {
    /// Whether it ends a part.
    pub fn is_tombstone(&self) -> bool {
        match self {
            Self::Group(value) | Self::TargetEpoch(value) => value.is_none(),
            Self::Member(_, value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
            Self::Partitions(value) => value.is_none(),
        }
    }
}

/// The states of a share group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareGroupState {
    /// No members.
    Empty,
    /// Members.
    Stable,
}

impl ShareGroupState {
    /// As Kafka prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Stable => "Stable",
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShareGroup {
    /// Grows whenever the target must be made anew.
    pub epoch: i32,
    /// Of the subscribed topics that the epoch goes by.
    pub metadata_hash: i64,
    /// The epoch that the target is of.
    pub target_epoch: i32,
    /// When it was made, milliseconds since the Unix epoch.
    pub target_timestamp_ms: i64,
    members: BTreeMap<Text, ShareMember>,
    targets: BTreeMap<Text, Partitions>,
    /// See the type.
    pub partitions: StatePartitions,
}

impl ShareGroup {
    /// By member id.
    pub fn members(&self) -> &BTreeMap<Text, ShareMember> {
        &self.members
    }

    /// What members shall have, by member id.
    pub fn targets(&self) -> &BTreeMap<Text, Partitions> {
        &self.targets
    }

    /// See the type.
    pub fn state(&self) -> ShareGroupState {
        if self.members.is_empty() { ShareGroupState::Empty } else { ShareGroupState::Stable }
    }

    /// The only mutator.
    pub fn apply(&mut self, record: ShareRecord) {
        match record {
            ShareRecord::Group(Some((epoch, metadata_hash))) => {
                self.epoch = epoch;
                self.metadata_hash = metadata_hash;
            }
            ShareRecord::Group(None) => *self = Self::default(),
            ShareRecord::Member(member_id, Some(metadata)) => {
                self.members.entry(member_id).or_default().metadata = metadata;
            }
            ShareRecord::Member(member_id, None) => {
                self.members.remove(&member_id);
            }
            ShareRecord::TargetEpoch(value) => {
                (self.target_epoch, self.target_timestamp_ms) = value.unwrap_or_default();
            }
            ShareRecord::Target(member_id, Some(partitions)) => {
                self.targets.insert(member_id, partitions);
            }
            ShareRecord::Target(member_id, None) => {
                self.targets.remove(&member_id);
            }
            ShareRecord::Current(member_id, Some(current)) => {
                self.members.entry(member_id).or_default().current = current;
            }
            ShareRecord::Current(member_id, None) => {
                if let Some(member) = self.members.get_mut(&member_id) {
                    member.current = ShareCurrent::default();
                }
            }
            ShareRecord::Partitions(partitions) => self.partitions = partitions.unwrap_or_default(),
        }
    }

    /// The records that take it out of the log.
    pub(crate) fn tombstones(&self) -> Vec<ShareRecord> {
        let mut records: Vec<ShareRecord> = Vec::new();
        for member_id in self.members.keys() {
            records.push(ShareRecord::Current(member_id.clone(), None));
        }
        for member_id in self.targets.keys() {
            records.push(ShareRecord::Target(member_id.clone(), None));
        }
        records.push(ShareRecord::TargetEpoch(None));
        for member_id in self.members.keys() {
            records.push(ShareRecord::Member(member_id.clone(), None));
        }
        if !self.partitions.is_empty() {
            records.push(ShareRecord::Partitions(None));
        }
        records.push(ShareRecord::Group(None));
        records
    }
}
