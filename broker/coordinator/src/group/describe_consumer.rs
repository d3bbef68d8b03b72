//! ConsumerGroupDescribe (KIP-848).

use std::collections::BTreeSet;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use uuid::Uuid;

use super::GroupCoordinator;
use crate::consumer_group::update::most_wanted;
use crate::consumer_group::{ConsumerGroupState, ConsumerMember, MemberMetadata, TopicsView};

/// Partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedPartitions {
    /// Its id.
    pub topic_id: Uuid,
    /// Its name.
    pub topic_name: Text,
    /// By number.
    pub partitions: Vec<i32>,
}

/// A member of a described consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerMemberDescription {
    /// Its id.
    pub member_id: Text,
    /// Its epoch.
    pub member_epoch: i32,
    /// What it told of itself.
    pub metadata: MemberMetadata,
    /// What it has, with what it has not let go of yet. Topics that are gone are left out.
    pub assignment: Vec<DescribedPartitions>,
    /// What it shall have.
    pub target: Vec<DescribedPartitions>,
}

impl ConsumerMemberDescription {
    /// Whether it is served by JoinGroup and SyncGroup.
    pub fn is_classic(&self) -> bool {
        self.metadata.classic.is_some()
    }
}

/// A described consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupDescription {
    /// Its state.
    pub state: ConsumerGroupState,
    /// Its epoch.
    pub group_epoch: i32,
    /// Of the target.
    pub assignment_epoch: i32,
    /// The assignor that the next target is made by.
    pub assignor: Text,
    /// By member id.
    pub members: Vec<ConsumerMemberDescription>,
}

impl GroupCoordinator {
    /// A consumer group as it is committed; GROUP_ID_NOT_FOUND if there is none, or a classic one.
    pub fn describe_consumer_group(&self, group_id: &str) -> Result<ConsumerGroupDescription, ErrorCode> {
        if !self.leading {
            return Err(ErrorCode::NotCoordinator);
        }
        let found = self.durable.group(group_id).and_then(|group| group.consumer.as_ref());
        let group = found.ok_or(ErrorCode::GroupIdNotFound)?;
        let topics = &*self.machinery.topics;
        let votes = group.assignor_counts().iter().map(|(name, count)| (name, *count));
        let describe = |member_id: &Text, member: &ConsumerMember| ConsumerMemberDescription {
            member_id: member_id.clone(),
            member_epoch: member.current.epoch,
            metadata: member.metadata.clone(),
            assignment: has(member, topics),
            target: described(
                topics,
                group
                    .targets()
                    .get(member_id)
                    .into_iter()
                    .flatten()
                    .map(|(id, numbers)| (*id, numbers.clone())),
            ),
        };
        Ok(ConsumerGroupDescription {
            state: group.state(),
            group_epoch: group.epoch,
            assignment_epoch: group.target_epoch,
            assignor: most_wanted(votes, &self.config.consumer),
            members: group.members().iter().map(|(id, member)| describe(id, member)).collect(),
        })
    }
}

fn has(member: &ConsumerMember, topics: &TopicsView) -> Vec<DescribedPartitions> {
    let mut all = crate::consumer_group::Partitions::new();
    for (topic, numbers) in member.current.assigned.iter().chain(&member.current.revoking) {
        all.entry(*topic).or_default().extend(numbers.keys());
    }
    described(topics, all.into_iter())
}

fn described(
    topics: &TopicsView,
    partitions: impl Iterator<Item = (Uuid, BTreeSet<i32>)>,
) -> Vec<DescribedPartitions> {
    let one = |(topic_id, numbers): (Uuid, BTreeSet<i32>)| {
        let topic = topics.by_id(topic_id)?;
        let partitions = numbers.into_iter().collect();
        Some(DescribedPartitions { topic_id, topic_name: topic.name.clone(), partitions })
    };
    partitions.filter_map(one).collect()
}
