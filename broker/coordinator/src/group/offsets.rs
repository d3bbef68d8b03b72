//! Committed offsets: OffsetCommit, TxnOffsetCommit (KIP-98, KIP-447), OffsetFetch, OffsetDelete (KIP-496).

use std::collections::BTreeSet;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{
    Effects, Now, OffsetCommit, OffsetDelete, OffsetDeleteReply, OffsetToCommit, Reply, RequestToken,
    TopicResult,
};
use super::member::{CONSUMER_PROTOCOL_TYPE, LiveGroup};
use super::records::{self, own};
use super::state::{CommittedOffset, TopicPartition};
use super::{GroupCoordinator, GroupState, Then, Turn};
use crate::consumer_group::TopicsView;

/// The offset that means that there is none.
const NO_OFFSET: i64 = -1;
/// The leader epoch that means that it is not known.
const NO_LEADER_EPOCH: i32 = -1;

/// A partition's answer to OffsetFetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: i32,
    /// -1: none is committed.
    pub offset: i64,
    /// -1: not known.
    pub leader_epoch: i32,
    /// The client's own note; empty if none.
    pub metadata: Text,
    /// UNSTABLE_OFFSET_COMMIT, if stable offsets are asked for and a transaction is open on this one.
    pub error: ErrorCode,
}

/// A topic's answer to OffsetFetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedTopic {
    /// The topic.
    pub topic: Text,
    /// In the order of the request; by number if all were asked for.
    pub partitions: Vec<FetchedOffset>,
}

impl GroupCoordinator {
    pub(super) fn commit_offsets(
        &mut self,
        now: Now,
        token: RequestToken,
        command: OffsetCommit,
        effects: &mut Effects,
    ) {
        if let Err(error) = self.group_to_commit_to(&command) {
            effects.replies.push((token, Reply::OffsetCommit(command.results(error))));
            return;
        }
        self.with_group(now, effects, &command.group_id, |turn, group| {
            if let Err(error) = turn.commit_offsets(group, token, &command) {
                turn.reply(token, Reply::OffsetCommit(command.results(error)));
            }
        });
    }

    /// A group that is not there is made for those who are nobody's member, that is its simple use as a store.
    fn group_to_commit_to(&mut self, command: &OffsetCommit) -> Result<(), ErrorCode> {
        // Plain commits are taken for the empty group id, as they always were.
        if command.group_id.is_empty() && command.transaction.is_some() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let there = self.groups.get(&command.group_id).is_some_and(|group| group.state != GroupState::Dead);
        if there {
            return Ok(());
        }
        if command.generation_id >= 0 {
            // Clients that may be of either protocol know the one code for both.
            let is_plain = command.transaction.is_none() && command.takes_member_epoch;
            return Err(if is_plain { ErrorCode::GroupIdNotFound } else { ErrorCode::IllegalGeneration });
        }
        self.ensure_group(&command.group_id)
    }

    /// Offsets of a group: of these partitions, or all that are committed. `require_stable`: an open transaction makes a
    /// partition unstable instead of showing what was before it (KIP-447), from the moment that its offset is in the log:
    /// whoever it was taken from was a member then.
    pub fn fetch_offsets(
        &self,
        group_id: &Text,
        topics: Option<&[(Text, Vec<i32>)]>,
        require_stable: bool,
    ) -> Result<Vec<FetchedTopic>, ErrorCode> {
        if !self.leading {
            return Err(ErrorCode::NotCoordinator);
        }
        let durable = self.durable.group(group_id);
        let in_flight = self.groups.get(group_id).map(|group| &group.in_flight);
        let is_pending = |key: &TopicPartition| {
            durable.is_some_and(|group| group.pending.contains_key(key))
                || in_flight
                    .and_then(|in_flight| in_flight.get(key))
                    .is_some_and(|ways| ways.transactional > 0)
        };
        let one = |topic: &Text, partition: i32| {
            let key = TopicPartition { topic: topic.clone(), partition };
            let unstable = require_stable && is_pending(&key);
            let committed = durable.and_then(|group| group.offsets.get(&key)).filter(|_| !unstable);
            FetchedOffset {
                partition,
                offset: committed.map_or(NO_OFFSET, |committed| committed.offset),
                leader_epoch: committed.map_or(NO_LEADER_EPOCH, |committed| committed.leader_epoch),
                metadata: committed.map(|committed| committed.metadata.clone()).unwrap_or_default(),
                error: if unstable { ErrorCode::UnstableOffsetCommit } else { ErrorCode::None },
            }
        };
        if let Some(topics) = topics {
            let fetched = |(topic, partitions): &(Text, Vec<i32>)| FetchedTopic {
                topic: topic.clone(),
                partitions: partitions.iter().map(|partition| one(topic, *partition)).collect(),
            };
            return Ok(topics.iter().map(fetched).collect());
        }
        let mut all: Vec<FetchedTopic> = Vec::new();
        for key in durable.iter().flat_map(|group| group.offsets.keys()) {
            let fetched = one(&key.topic, key.partition);
            match all.last_mut() {
                Some(last) if last.topic == key.topic => last.partitions.push(fetched),
                _ => all.push(FetchedTopic { topic: key.topic.clone(), partitions: vec![fetched] }),
            }
        }
        Ok(all)
    }

    pub(super) fn delete_offsets(
        &mut self,
        now: Now,
        token: RequestToken,
        command: OffsetDelete,
        effects: &mut Effects,
    ) {
        let refuse = |error| Reply::OffsetDelete(OffsetDeleteReply { error, topics: Vec::new() });
        let covered = |id: &Text| {
            self.durable.group(id).map(|group| {
                group
                    .offsets
                    .keys()
                    .chain(group.pending.keys())
                    .cloned()
                    .collect::<BTreeSet<TopicPartition>>()
            })
        };
        let durable = covered(&command.group_id).unwrap_or_default();
        let found = self.with_group(now, effects, &command.group_id, |turn, group| {
            if let Err(error) = turn.delete_offsets(group, token, &command, &durable) {
                turn.reply(token, refuse(error));
            }
        });
        if found.is_none() {
            effects.replies.push((token, refuse(ErrorCode::GroupIdNotFound)));
        }
    }
}

impl Turn<'_> {
    fn commit_offsets(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &OffsetCommit,
    ) -> Result<(), ErrorCode> {
        may_commit(group, command, &self.machinery.topics)?;
        if matches!(group.state, GroupState::Stable | GroupState::PreparingRebalance) {
            self.reschedule_session(group, &command.member_id);
        }
        let mut results = Vec::with_capacity(command.topics.len());
        let (mut records, mut partitions) = (Vec::new(), Vec::new());
        for (topic, offsets) in &command.topics {
            let owned_topic = own(topic);
            let mut codes = Vec::with_capacity(offsets.len());
            for offset in offsets {
                let error = self.offset_error(offset);
                codes.push((offset.partition, error));
                if error == ErrorCode::None {
                    let key = TopicPartition { topic: owned_topic.clone(), partition: offset.partition };
                    let committed = self.to_commit(command, offset);
                    let record = records::offset(&group.id, &key, &committed);
                    records.push(record.map_err(|_| ErrorCode::InvalidCommitOffsetSize)?);
                    partitions.push(key);
                }
            }
            results.push(TopicResult { topic: topic.clone(), partitions: codes });
        }
        let reply = Reply::OffsetCommit(results);
        if records.is_empty() {
            self.reply(token, reply);
        } else {
            self.append(group, records, partitions, command.transaction, Then::Reply(token, reply));
        }
        Ok(())
    }

    /// What is wrong with one offset alone.
    fn offset_error(&self, offset: &OffsetToCommit) -> ErrorCode {
        if offset.error != ErrorCode::None {
            return offset.error;
        }
        let length = offset.metadata.as_ref().map_or(0, |metadata| metadata.encode_utf16().count());
        if length > self.config.offset_metadata_length_max {
            return ErrorCode::OffsetMetadataTooLarge;
        }
        ErrorCode::None
    }

    fn to_commit(&self, command: &OffsetCommit, offset: &OffsetToCommit) -> CommittedOffset {
        CommittedOffset {
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata.clone().unwrap_or_default(),
            commit_timestamp_ms: self.now.wall_ms,
            expire_timestamp_ms: command.retention_ms.map(|kept_ms| self.now.wall_ms.saturating_add(kept_ms)),
            record_offset: 0,
        }
    }

    fn delete_offsets(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &OffsetDelete,
        durable: &BTreeSet<TopicPartition>,
    ) -> Result<(), ErrorCode> {
        if group.share.is_some() {
            return Err(ErrorCode::GroupIdNotFound);
        }
        let consumers = group.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE);
        if group.state != GroupState::Empty && !consumers {
            return Err(ErrorCode::NonEmptyGroup);
        }
        let mut results = Vec::with_capacity(command.topics.len());
        let (mut records, mut partitions) = (Vec::new(), Vec::new());
        for TopicResult { topic, partitions: asked } in &command.topics {
            let subscribed = group.is_subscribed(topic);
            let mut codes = Vec::with_capacity(asked.len());
            for (partition, error) in asked {
                let error = match error {
                    ErrorCode::None if subscribed => ErrorCode::GroupSubscribedToTopic,
                    other => *other,
                };
                codes.push((*partition, error));
                let key = TopicPartition { topic: topic.clone(), partition: *partition };
                let there = durable.contains(&key) || group.in_flight.contains_key(&key);
                if error == ErrorCode::None && there {
                    let record = records::offset_tombstone(&group.id, &key);
                    records.push(record.map_err(|_| ErrorCode::UnknownServerError)?);
                    partitions.push(TopicPartition { topic: own(topic), partition: *partition });
                }
            }
            results.push(TopicResult { topic: topic.clone(), partitions: codes });
        }
        let reply = Reply::OffsetDelete(OffsetDeleteReply { error: ErrorCode::None, topics: results });
        if records.is_empty() {
            self.reply(token, reply);
        } else {
            self.append(group, records, partitions, None, Then::Reply(token, reply));
        }
        Ok(())
    }
}

/// Who may commit: members of this generation; and those who are nobody's member while the group has none.
fn may_commit(group: &LiveGroup, command: &OffsetCommit, topics: &TopicsView) -> Result<(), ErrorCode> {
    if group.share.is_some() {
        return Err(ErrorCode::GroupIdNotFound);
    }
    if let Some(consumer) = &group.consumer {
        return consumer.may_commit(command, topics);
    }
    if let Some(streams) = &group.streams {
        return streams.may_commit(command);
    }
    let transactional = command.transaction.is_some();
    if command.generation_id < 0 && group.state == GroupState::Empty {
        return Ok(());
    }
    let instance = command.group_instance_id.as_ref();
    if command.generation_id >= 0 || !command.member_id.is_empty() || instance.is_some() {
        group.validate_member(&command.member_id, instance)?;
        if command.generation_id != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
    } else if !transactional && group.state != GroupState::Empty {
        // Transactions may: older versions of TxnOffsetCommit do not name the member.
        return Err(ErrorCode::UnknownMemberId);
    }
    // The member knows the generation, but not yet what it is assigned in it.
    if !transactional && group.state == GroupState::CompletingRebalance {
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}
