//! Groups that change their protocol (KIP-848): a classic group of consumers becomes a consumer group when a member of
//! the new protocol joins it, and a classic one again when the last of those goes, while they have members. A group
//! without members is of the kind that whoever joins next asks for. Offsets stay.
//!
//! One batch takes the group of the one kind out of the log and puts the other in, so that no crash leaves both.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::persisted::{
    self, ConsumerProtocolAssignment, ConsumerProtocolSubscription, consumer_protocol_assignment,
};
use ottla_wire::text::Text;

use super::command::{CoordinatorRecord, Protocol, Reply, RequestToken};
use super::consumer::{LiveConsumer, encode, group_not_found, not_encoded};
use super::member::{CONSUMER_PROTOCOL_TYPE, LiveGroup, Member};
use super::records;
use super::timers::Deadline;
use super::{GroupState, Turn};
use crate::consumer_group::{
    Assigned, ClassicMetadata, ConsumerGroup, ConsumerMember, ConsumerRecord, CurrentAssignment,
    MemberMetadata, MemberState, Partitions, Refusal, TopicsView,
};

/// The newest version of the consumers' own protocol.
const CONSUMER_PROTOCOL_VERSION_MAX: i16 = 3;

/// What a classic consumer tells in its metadata of a way of assignment.
pub(super) fn subscription_of(metadata: &Bytes) -> Option<ConsumerProtocolSubscription> {
    persisted::decode_consumer_protocol(metadata).ok()
}

/// Names to ids; topics that are gone are left out.
pub(super) fn partitions_by_id<'a>(
    topics: &TopicsView,
    named: impl Iterator<Item = (&'a Text, &'a Vec<i32>)>,
) -> Partitions {
    let mut partitions = Partitions::new();
    for (name, numbers) in named {
        if let Some(topic) = topics.by_name(name) {
            partitions.entry(topic.id).or_default().extend(numbers);
        }
    }
    partitions
}

/// What a member may use, as a classic consumer understands it, in the version of its own metadata.
pub(super) fn classic_assignment(topics: &TopicsView, member: &ConsumerMember) -> Bytes {
    let classic = member.metadata.classic.as_ref();
    let metadata = classic.and_then(|classic| classic.protocols.first()).map(|(_, metadata)| metadata);
    let version = metadata.and_then(|metadata| persisted::prefix(metadata).ok()).unwrap_or(0);
    let partitions = member.current.assigned.iter().filter_map(|(topic, numbers)| {
        let topic = topics.by_id(*topic)?;
        Some(consumer_protocol_assignment::AssignedPartition {
            topic: topic.name.clone(),
            partitions: numbers.keys().copied().collect(),
        })
    });
    let assignment =
        ConsumerProtocolAssignment { assigned_partitions: partitions.collect(), user_data: None };
    let version = version.clamp(0, CONSUMER_PROTOCOL_VERSION_MAX);
    persisted::encode_value(&assignment, version).unwrap_or_default()
}

impl Turn<'_> {
    /// The consumer group that a classic one becomes for a member that joins it, with the records of that.
    pub(super) fn to_consumer_group(
        &self,
        group: &LiveGroup,
    ) -> Result<(LiveConsumer, Vec<CoordinatorRecord>), Refusal> {
        let mut converted = classic_tombstone(group)?;
        let mut consumer = ConsumerGroup::default();
        if group.state != GroupState::Empty {
            let upgraded = self.upgraded(group)?;
            converted.extend(encode(&group.id, &upgraded).map_err(|_| not_encoded())?);
            for record in upgraded {
                consumer.apply(record);
            }
        }
        Ok((LiveConsumer::new(consumer), converted))
    }

    /// A classic group with members as the records of a consumer group.
    fn upgraded(&self, group: &LiveGroup) -> Result<Vec<ConsumerRecord>, Refusal> {
        let may_upgrade = self.config.consumer.migration_policy.upgrades()
            && group.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE);
        if !may_upgrade {
            return Err(group_not_found(&group.id));
        }
        if group.members.len() > self.config.consumer.group_size_max {
            let message = "The classic group has more members than a consumer group may have.";
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        let mut records = vec![ConsumerRecord::Group(Some((group.generation, 0)))];
        // Members that never completed a join do not know their id: they come anew.
        for member in group.members.values().filter(|member| !member.is_new) {
            let (metadata, assigned) =
                self.upgraded_member(group, member).ok_or_else(|| group_not_found(&group.id))?;
            let epochs = |numbers: &BTreeSet<i32>| -> BTreeMap<i32, i32> {
                numbers.iter().map(|number| (*number, group.generation)).collect()
            };
            let current = CurrentAssignment {
                epoch: group.generation,
                previous_epoch: group.generation,
                state: MemberState::Stable,
                assigned: assigned.iter().map(|(topic, numbers)| (*topic, epochs(numbers))).collect(),
                revoking: Assigned::new(),
            };
            let id = &member.member_id;
            records.push(ConsumerRecord::Member(id.clone(), Some(metadata)));
            records.push(ConsumerRecord::Target(id.clone(), Some(assigned)));
            records.push(ConsumerRecord::Current(id.clone(), Some(current)));
        }
        records.push(ConsumerRecord::TargetEpoch(Some((group.generation, 0))));
        Ok(records)
    }

    fn upgraded_member(&self, group: &LiveGroup, member: &Member) -> Option<(MemberMetadata, Partitions)> {
        let chosen = member.protocols.iter().find(|known| Some(&known.name) == group.protocol_name.as_ref());
        let subscription = subscription_of(&chosen.or(member.protocols.first())?.metadata)?;
        let assigned = if member.assignment.is_empty() {
            Partitions::new()
        } else {
            let assignment: ConsumerProtocolAssignment =
                persisted::decode_consumer_protocol(&member.assignment).ok()?;
            let named = assignment.assigned_partitions.iter().map(|one| (&one.topic, &one.partitions));
            partitions_by_id(&self.machinery.topics, named)
        };
        let protocols = member.protocols.iter().map(|known| (known.name.clone(), known.metadata.clone()));
        let metadata = MemberMetadata {
            instance_id: member.group_instance_id.clone(),
            rack_id: subscription.rack_id.as_ref().map(Text::detached),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: subscription.topics.iter().map(Text::detached).collect(),
            regex: None,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            server_assignor: None,
            classic: Some(ClassicMetadata {
                session_timeout_ms: member.session_timeout_ms,
                protocols: protocols.collect(),
            }),
        };
        Some((metadata, assigned))
    }

    /// Whether the group is one of the classic protocol again once these are gone.
    pub(super) fn downgrades(&self, group: &LiveGroup, gone: &BTreeSet<Text>) -> bool {
        let Some(consumer) = &group.consumer else { return false };
        let members = consumer.group.members();
        let left = members.keys().filter(|member_id| !gone.contains(*member_id)).count();
        let classic_gone = gone.iter().filter_map(|member_id| members.get(member_id));
        let classic_gone = classic_gone.filter(|member| member.is_classic()).count();
        self.config.consumer.migration_policy.downgrades()
            && left > 0
            && left <= self.config.group_size_max
            && consumer.group.classic_count().saturating_sub(classic_gone) == left
    }

    /// The group is a classic one with the members that are left. They have what they had; the caller has them join
    /// again.
    pub(super) fn downgrade(
        &mut self,
        group: &mut LiveGroup,
        gone: &BTreeSet<Text>,
        answer: Option<(RequestToken, Reply)>,
    ) -> Result<(), Refusal> {
        let Some(consumer) = &group.consumer else { return Ok(()) };
        let mut converted = consumer.tombstones(&group.id).map_err(|_| not_encoded())?;
        let mut classic = LiveGroup::new(group.id.clone());
        classic.protocol_type = Some(Text::from_static(CONSUMER_PROTOCOL_TYPE));
        classic.generation = consumer.group.epoch;
        let left = consumer.group.members().iter().filter(|(member_id, _)| !gone.contains(*member_id));
        for (member_id, member) in left {
            let assignment = classic_assignment(&self.machinery.topics, member);
            classic.insert(downgraded_member(member_id, member, assignment));
        }
        classic.protocol_name = classic.select_protocol();
        classic.subscribed_topics = classic.compute_subscribed_topics();
        classic.transition(GroupState::Stable, self.now.wall_ms);
        let metadata = classic.to_metadata(|member| member.assignment.clone());
        converted.push(records::group(&group.id, &metadata).map_err(|_| not_encoded())?);
        self.become_classic_group(group, classic);
        self.append_ahead(group, converted, answer);
        self.reschedule_all_sessions(group);
        Ok(())
    }

    /// A consumer or streams group without members is a classic one for whoever joins it as that.
    pub(super) fn empty_to_classic(&mut self, group: &mut LiveGroup) -> Result<(), ErrorCode> {
        let converted = match (&group.consumer, &group.streams) {
            (Some(consumer), _) => consumer.tombstones(&group.id),
            (None, Some(streams)) => streams.tombstones(&group.id),
            (None, None) => return Ok(()),
        };
        let converted = converted.map_err(|_| ErrorCode::UnknownServerError)?;
        self.become_classic_group(group, LiveGroup::new(group.id.clone()));
        self.append_ahead(group, converted, None);
        Ok(())
    }

    fn become_classic_group(&mut self, group: &mut LiveGroup, mut classic: LiveGroup) {
        self.drop_soft_state(group, ErrorCode::RebalanceInProgress);
        classic.in_flight = std::mem::take(&mut group.in_flight);
        classic.appends_in_flight = group.appends_in_flight;
        *group = classic;
    }
}

/// What takes a classic group out of the log, if it may be in it.
pub(super) fn classic_tombstone(group: &LiveGroup) -> Result<Vec<CoordinatorRecord>, Refusal> {
    // Generations are logged; a group that has none may still have one on its way.
    let logged = group.generation > 0 || group.protocol_type.is_some() || group.appends_in_flight > 0;
    let tombstone = logged.then(|| records::group_tombstone(&group.id)).transpose();
    Ok(tombstone.map_err(|_| not_encoded())?.into_iter().collect())
}

fn downgraded_member(member_id: &Text, member: &ConsumerMember, assignment: Bytes) -> Member {
    let classic = member.metadata.classic.as_ref();
    let protocol =
        |(name, metadata): &(Text, Bytes)| Protocol { name: name.clone(), metadata: metadata.clone() };
    Member {
        member_id: member_id.clone(),
        group_instance_id: member.metadata.instance_id.clone(),
        client_id: member.metadata.client_id.clone(),
        client_host: member.metadata.client_host.clone(),
        rebalance_timeout_ms: member.metadata.rebalance_timeout_ms,
        session_timeout_ms: classic.map_or(0, |classic| classic.session_timeout_ms),
        protocols: classic.into_iter().flat_map(|classic| &classic.protocols).map(protocol).collect(),
        assignment,
        awaiting_join: None,
        awaiting_sync: None,
        is_new: false,
        session: Deadline::default(),
    }
}
