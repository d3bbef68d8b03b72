//! What is taken out of the log: deleted groups (DeleteGroups), offsets of deleted topics, and offsets that nobody has
//! used for `offsets.retention.minutes` (KIP-211).
//!
//! Offsets expire
//! * at the time that the client chose, if it did (OffsetCommit 2 to 4);
//! * else the retention time after the group lost its last member, if it ever had members;
//! * else the retention time after the commit.
//!
//! They do not expire while the group rebalances, while its members subscribe to the topic (or it cannot be told), in a
//! live group that is not one of consumers, and while a commit of the partition is on its way or in an open transaction.

use std::collections::BTreeSet;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{CoordinatorRecord, Effects, Now, Reply, RequestToken};
use super::member::{CONSUMER_PROTOCOL_TYPE, LiveGroup};
use super::records;
use super::state::{CommittedOffset, DurableGroup, TopicPartition};
use super::{GroupCoordinator, GroupState, Then, Turn};

/// Tombstones in one batch: what a group has may not fit one batch of the log.
const TOMBSTONES_PER_APPEND_MAX: usize = 1_000;

impl GroupCoordinator {
    pub(super) fn delete_group(
        &mut self,
        now: Now,
        token: RequestToken,
        group_id: &Text,
        effects: &mut Effects,
    ) {
        let covered = covered(self.durable.group(group_id), |_| true);
        let found = self.with_group(now, effects, group_id, |turn, group| {
            if group.is_empty() {
                turn.delete_group(group, covered, Some(token));
            } else {
                turn.reply(token, Reply::DeleteGroup(ErrorCode::NonEmptyGroup));
            }
        });
        if found.is_none() {
            effects.replies.push((token, Reply::DeleteGroup(ErrorCode::GroupIdNotFound)));
        }
    }

    /// These topics are deleted: their offsets are forgotten in every group.
    pub fn topics_deleted(&mut self, now: Now, topics: &[Text], effects: &mut Effects) {
        if !self.leading {
            return;
        }
        let topics: BTreeSet<&Text> = topics.iter().collect();
        let mut turn = Turn { now, config: &self.config, machinery: &mut self.machinery, effects };
        for (id, group) in self.groups.iter_mut().filter(|(_, group)| group.state != GroupState::Dead) {
            let deleted = |partition: &TopicPartition| topics.contains(&partition.topic);
            let mut partitions = covered(self.durable.group(id), deleted);
            partitions.extend(group.in_flight.keys().filter(|partition| deleted(partition)).cloned());
            turn.append_tombstones(group, partitions);
        }
    }

    /// Expires what has not been used for long, and groups of which nothing is left. To be called every
    /// `offsets.retention.check.interval.ms`.
    pub fn expire_offsets(&mut self, now: Now, effects: &mut Effects) {
        if !self.leading {
            return;
        }
        let retention_ms = self.config.offsets_retention_ms;
        let mut turn = Turn { now, config: &self.config, machinery: &mut self.machinery, effects };
        for (id, group) in self.groups.iter_mut().filter(|(_, group)| group.state != GroupState::Dead) {
            let nothing = DurableGroup::default();
            let durable = self.durable.group(id).unwrap_or(&nothing);
            let expires = |(partition, committed): (&TopicPartition, &CommittedOffset)| {
                let used = group.is_subscribed(&partition.topic)
                    || group.in_flight.contains_key(partition)
                    || durable.pending.contains_key(partition);
                let expired = !used && is_expired(group, committed, now.wall_ms, retention_ms);
                expired.then(|| partition.clone())
            };
            let expired: BTreeSet<TopicPartition> = durable.offsets.iter().filter_map(expires).collect();
            // What a share group has of partitions lies elsewhere; it goes when it is deleted.
            let nothing_left = group.share.is_none()
                && expired.len() == durable.offsets.len()
                && durable.pending.is_empty()
                && group.appends_in_flight == 0;
            if nothing_left && group.is_empty() && group.pending_members.is_empty() {
                turn.delete_group(group, expired, None);
            } else {
                turn.append_tombstones(group, expired);
            }
        }
    }
}

impl Turn<'_> {
    /// The group is gone from now on; if the log does not take it, it comes back.
    fn delete_group(
        &mut self,
        group: &mut LiveGroup,
        mut partitions: BTreeSet<TopicPartition>,
        token: Option<RequestToken>,
    ) {
        // Commits on their way come before the tombstones in the log.
        partitions.extend(group.in_flight.keys().cloned());
        let records = match (&group.consumer, &group.share, &group.streams) {
            (Some(consumer), ..) => consumer.tombstones(&group.id),
            (None, Some(share), _) => share.tombstones(&group.id),
            (None, None, Some(streams)) => streams.tombstones(&group.id),
            (None, None, None) => records::group_tombstone(&group.id).map(|record| vec![record]),
        };
        let Ok(records) = records else { return };
        for (member_id, mut deadline) in std::mem::take(&mut group.pending_members) {
            self.machinery.timers.cancel(&mut deadline, || group.session_key(&member_id));
        }
        // The group's own record goes last: a deletion cut short by a failure leaves a group that can be deleted again.
        self.append_tombstones(group, partitions);
        self.append(group, records, Vec::new(), None, Then::Deleted(token));
        group.transition(GroupState::Dead, self.now.wall_ms);
    }

    fn append_tombstones(&mut self, group: &mut LiveGroup, partitions: BTreeSet<TopicPartition>) {
        let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
        for chunk in partitions.chunks(TOMBSTONES_PER_APPEND_MAX) {
            let tombstone = |partition: &TopicPartition| records::offset_tombstone(&group.id, partition).ok();
            let tombstones: Vec<CoordinatorRecord> = chunk.iter().filter_map(tombstone).collect();
            self.append(group, tombstones, chunk.to_vec(), None, Then::Nothing);
        }
    }
}

/// The partitions that the log has something of, committed or in open transactions.
fn covered(
    durable: Option<&DurableGroup>,
    wanted: impl Fn(&TopicPartition) -> bool,
) -> BTreeSet<TopicPartition> {
    let all = durable.into_iter().flat_map(|group| group.offsets.keys().chain(group.pending.keys()));
    all.filter(|partition| wanted(partition)).cloned().collect()
}

fn is_expired(group: &LiveGroup, committed: &CommittedOffset, now_ms: i64, retention_ms: i64) -> bool {
    let consumers = group.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE);
    let since_ms = match (&group.protocol_type, group.state) {
        // Of a consumer or streams group: what is not subscribed to.
        _ if group.consumer.is_some() || group.streams.is_some() => committed.commit_timestamp_ms,
        // Only a store of offsets.
        (None, _) => committed.commit_timestamp_ms,
        (Some(_), GroupState::Empty) => group.state_timestamp_ms.unwrap_or(committed.commit_timestamp_ms),
        (Some(_), GroupState::Stable) if consumers && group.subscribed_topics.is_some() => {
            committed.commit_timestamp_ms
        }
        (Some(_), _) => return false,
    };
    match committed.expire_timestamp_ms {
        Some(expire_ms) => now_ms >= expire_ms,
        None => now_ms.saturating_sub(since_ms) >= retention_ms,
    }
}
