//! Where interactive queries of each partition are answered (KIP-1071): members that gave an endpoint tell others through
//! the coordinator.

use ottla_wire::text::Text;

use super::command::EndpointPartitions;
use super::state::{StreamsGroup, Tasks};
use super::topology::{Subtopology, Topology};
use crate::consumer_group::TopicsView;

/// All endpoints with the partitions of the topics that their tasks read.
pub(crate) fn endpoints(group: &StreamsGroup, topics: &TopicsView) -> Vec<EndpointPartitions> {
    let Some(topology) = group.topology() else { return Vec::new() };
    let one = |member: &super::StreamsMember| {
        let endpoint = member.metadata.user_endpoint.clone()?;
        let tasks = member.current.assigned.tasks();
        Some(EndpointPartitions {
            endpoint,
            active: partitions(topology, topics, &tasks.active),
            standby: partitions(topology, topics, &tasks.standby),
        })
    };
    group.members().values().filter_map(|member| one(member)).collect()
}

/// A topic that is narrower than the subtopology has partitions of the first tasks only.
fn partitions(topology: &Topology, topics: &TopicsView, tasks: &Tasks) -> Vec<(Text, Vec<i32>)> {
    let mut all = Vec::new();
    for (id, numbers) in tasks {
        for name in topology.subtopologies.get(id).into_iter().flat_map(Subtopology::read_topics) {
            let Some(topic) = topics.by_name(name) else { continue };
            let numbers: Vec<i32> =
                numbers.iter().copied().filter(|number| *number < topic.partitions).collect();
            if !numbers.is_empty() {
                all.push((name.clone(), numbers));
            }
        }
    }
    all
}
