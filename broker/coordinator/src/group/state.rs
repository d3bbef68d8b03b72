//! What is durable: exactly what the coordinator's log says. Only [`DurableState::apply`] and
//! [`DurableState::apply_marker`] change it, with the same code on the leader, on replay and on a standby.
//!
//! Pending offsets of transactions are kept by producer until its marker comes (KIP-98). Of two commits of one
//! partition the one later in the log counts, also when the earlier one is transactional and its marker comes last.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_wire::text::Text;

use super::records::{self, Applied, Record, RecordError};
use crate::consumer_group::{ConsumerGroup, ConsumerRecord};
use crate::share_group::{ShareGroup, ShareRecord};
use crate::streams_group::{StreamsGroup, StreamsRecord};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Text,
    /// The partition.
    pub partition: i32,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// -1: not known.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: Text,
    /// When it was committed, milliseconds since the Unix epoch.
    pub commit_timestamp_ms: i64,
    /// When it expires, if the client said so (OffsetCommit 2 to 4).
    pub expire_timestamp_ms: Option<i64>,
    /// Where in the coordinator's log it stands.
    pub record_offset: i64,
}

/// A member as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMember {
    /// Its id.
    pub member_id: Text,
    /// Given by static members.
    pub group_instance_id: Option<Text>,
    /// The client's id.
    pub client_id: Text,
    /// As Kafka prints it.
    pub client_host: Text,
    /// Milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// Its metadata of the group's protocol.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// A generation of a classic group as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadata {
    /// For example `consumer`; none for a group that never had members.
    pub protocol_type: Option<Text>,
    /// The generation.
    pub generation: i32,
    /// The chosen protocol; none without members.
    pub protocol_name: Option<Text>,
    /// The leader's member id.
    pub leader: Option<Text>,
    /// When it came to its state, milliseconds since the Unix epoch.
    pub state_timestamp_ms: Option<i64>,
    /// In the record's order.
    pub members: Vec<StoredMember>,
}

/// A group as the log has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DurableGroup {
    /// None: only offsets, or a group of another kind.
    pub metadata: Option<GroupMetadata>,
    /// Given for consumer groups (KIP-848).
    pub consumer: Option<Box<ConsumerGroup>>,
    /// Given for share groups (KIP-932).
    pub share: Option<Box<ShareGroup>>,
    /// Given for streams groups (KIP-1071).
    pub streams: Option<Box<StreamsGroup>>,
    /// What is committed.
    pub offsets: BTreeMap<TopicPartition, CommittedOffset>,
    /// The producers with an open transaction that commits an offset of the partition.
    pub pending: BTreeMap<TopicPartition, BTreeSet<i64>>,
}

/// Everything that the log of one coordinator partition says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DurableState {
    groups: BTreeMap<Text, DurableGroup>,
    /// Offsets of open transactions, by producer id.
    transactions: BTreeMap<i64, BTreeMap<(Text, TopicPartition), CommittedOffset>>,
}

impl DurableState {
    /// The group, if the log knows it.
    pub fn group(&self, group_id: &str) -> Option<&DurableGroup> {
        self.groups.get(group_id)
    }

    /// All groups by id.
    pub fn groups(&self) -> impl Iterator<Item = (&Text, &DurableGroup)> {
        self.groups.iter()
    }

    /// How many groups there are.
    pub fn groups_count(&self) -> usize {
        self.groups.len()
    }

    /// One record of the log. `producer_id` is given for records of transactional batches.
    pub fn apply(
        &mut self,
        offset: i64,
        producer_id: Option<i64>,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<Applied, RecordError> {
        match records::decode(key, value)? {
            Record::Other => return Ok(Applied::Skipped),
            Record::Offset { group, partition, value: Some(mut committed) } => {
                committed.record_offset = offset;
                match producer_id {
                    None => self.put(group, partition, committed),
                    Some(producer_id) => self.stage(producer_id, group, partition, committed),
                }
            }
            Record::Offset { group, partition, value: None } => self.remove_offset(&group, &partition),
            Record::Group { group, metadata: Some(metadata) } => {
                self.groups.entry(group).or_default().metadata = Some(metadata);
            }
            Record::Group { group, metadata: None } => {
                if let Some(found) = self.groups.get_mut(&group) {
                    found.metadata = None;
                }
                self.drop_if_bare(&group);
            }
            Record::Consumer { group, record } => self.apply_consumer(group, record),
            Record::Share { group, record } => self.apply_share(group, record),
            Record::Streams { group, record } => self.apply_streams(group, record),
        }
        Ok(Applied::Changed)
    }

    /// The end of a producer's transaction: what it staged before this offset of the log counts, or never was. A marker that
    /// is told late, or a second time, does not end the producer's next transaction.
    pub fn apply_marker(&mut self, offset: i64, producer_id: i64, commit: bool) {
        let staged = self.transactions.remove(&producer_id).unwrap_or_default();
        let (ended, later): (BTreeMap<_, _>, BTreeMap<_, _>) =
            staged.into_iter().partition(|(_, committed)| committed.record_offset < offset);
        if !later.is_empty() {
            self.transactions.insert(producer_id, later);
        }
        for ((group, partition), committed) in ended {
            if let Some(found) = self.groups.get_mut(&group) {
                if let Some(producers) = found.pending.get_mut(&partition) {
                    producers.remove(&producer_id);
                    if producers.is_empty() {
                        found.pending.remove(&partition);
                    }
                }
                let newer = |existing: &CommittedOffset| existing.record_offset < committed.record_offset;
                if commit && found.offsets.get(&partition).is_none_or(newer) {
                    found.offsets.insert(partition, committed);
                }
            }
            self.drop_if_bare(&group);
        }
    }

    /// A part of a consumer group. What ends a part that is not there changes nothing: a compacted log may have
    /// tombstones of groups that are long gone.
    fn apply_consumer(&mut self, group: Text, record: ConsumerRecord) {
        if record.is_tombstone() {
            let Some(found) = self.groups.get_mut(&group) else { return };
            match &mut found.consumer {
                consumer @ Some(_) if matches!(record, ConsumerRecord::Group(None)) => *consumer = None,
                Some(consumer) => consumer.apply(record),
                None => {}
            }
            self.drop_if_bare(&group);
        } else {
            self.groups.entry(group).or_default().consumer.get_or_insert_default().apply(record);
        }
    }

    /// Likewise of a share group.
    fn apply_share(&mut self, group: Text, record: ShareRecord) {
        if record.is_tombstone() {
            let Some(found) = self.groups.get_mut(&group) else { return };
            match &mut found.share {
                share @ Some(_) if matches!(record, ShareRecord::Group(None)) => *share = None,
                Some(share) => share.apply(record),
                None => {}
            }
            self.drop_if_bare(&group);
        } else {
            self.groups.entry(group).or_default().share.get_or_insert_default().apply(record);
        }
    }

    /// Likewise of a streams group.
    fn apply_streams(&mut self, group: Text, record: StreamsRecord) {
        if record.is_tombstone() {
            let Some(found) = self.groups.get_mut(&group) else { return };
            match &mut found.streams {
                streams @ Some(_) if matches!(record, StreamsRecord::Group(None)) => *streams = None,
                Some(streams) => streams.apply(record),
                None => {}
            }
            self.drop_if_bare(&group);
        } else {
            self.groups.entry(group).or_default().streams.get_or_insert_default().apply(record);
        }
    }

    fn put(&mut self, group: Text, partition: TopicPartition, committed: CommittedOffset) {
        self.groups.entry(group).or_default().offsets.insert(partition, committed);
    }

    fn stage(
        &mut self,
        producer_id: i64,
        group: Text,
        partition: TopicPartition,
        committed: CommittedOffset,
    ) {
        let pending = &mut self.groups.entry(group.clone()).or_default().pending;
        pending.entry(partition.clone()).or_default().insert(producer_id);
        self.transactions.entry(producer_id).or_default().insert((group, partition), committed);
    }

    /// A tombstone takes the staged offsets of the partition along: else the marker would bring back an offset of a
    /// group or topic that was deleted in the meantime.
    fn remove_offset(&mut self, group: &Text, partition: &TopicPartition) {
        let Some(found) = self.groups.get_mut(group) else { return };
        found.offsets.remove(partition);
        for producer_id in found.pending.remove(partition).unwrap_or_default() {
            if let Some(staged) = self.transactions.get_mut(&producer_id) {
                staged.remove(&(group.clone(), partition.clone()));
                if staged.is_empty() {
                    self.transactions.remove(&producer_id);
                }
            }
        }
        self.drop_if_bare(group);
    }

    fn drop_if_bare(&mut self, group: &Text) {
        let bare = |found: &DurableGroup| {
            found.metadata.is_none()
                && found.consumer.is_none()
                && found.share.is_none()
                && found.streams.is_none()
                && found.offsets.is_empty()
                && found.pending.is_empty()
        };
        if self.groups.get(group).is_some_and(bare) {
            self.groups.remove(group);
        }
    }
}
