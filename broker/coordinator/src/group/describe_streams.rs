//! StreamsGroupDescribe (KIP-1071).

use std::sync::Arc;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::GroupCoordinator;
use crate::streams_group::{StreamsGroupState, StreamsMember, TaskSet, Topology};

/// A described streams group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsGroupDescription {
    /// Its state.
    pub state: StreamsGroupState,
    /// Its epoch.
    pub group_epoch: i32,
    /// Of the target.
    pub assignment_epoch: i32,
    /// What its members run. Where it fits the topics there are, every internal topic has the partitions that it has.
    pub topology: Option<Arc<Topology>>,
    /// By member id, with what each shall have.
    pub members: Vec<(Text, StreamsMember, TaskSet)>,
}

impl GroupCoordinator {
    /// A streams group as it is committed; GROUP_ID_NOT_FOUND if there is none, or one of another kind.
    pub fn describe_streams_group(&self, group_id: &str) -> Result<StreamsGroupDescription, ErrorCode> {
        if !self.leading {
            return Err(ErrorCode::NotCoordinator);
        }
        let found = self.durable.group(group_id).and_then(|group| group.streams.as_ref());
        let group = found.ok_or(ErrorCode::GroupIdNotFound)?;
        let describe = |member_id: &Text, member: &StreamsMember| {
            let target = group.targets().get(member_id).cloned().unwrap_or_default();
            (member_id.clone(), member.clone(), target)
        };
        Ok(StreamsGroupDescription {
            state: group.state(),
            group_epoch: group.head.epoch,
            assignment_epoch: group.target_epoch,
            topology: group.topology().map(|topology| self.with_partitions(topology)),
            members: group.members().iter().map(|(id, member)| describe(id, member)).collect(),
        })
    }

    fn with_partitions(&self, topology: &Arc<Topology>) -> Arc<Topology> {
        let topics = &self.machinery.topics;
        let count = |name: &Text| topics.by_name(name).map(|topic| topic.partitions);
        let fits = topology.required_topics().into_iter().all(|name| count(name).is_some());
        if !fits {
            return Arc::clone(topology);
        }
        let mut described = (**topology).clone();
        for subtopology in described.subtopologies.values_mut() {
            let changelogs = subtopology.state_changelog_topics.iter_mut();
            for (name, topic) in changelogs.chain(&mut subtopology.repartition_source_topics) {
                topic.partitions = count(name).unwrap_or(topic.partitions);
            }
        }
        Arc::new(described)
    }
}
