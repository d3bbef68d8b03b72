//! ListPartitionReassignments 0: which partitions are on their way to other brokers (KIP-455).

use std::collections::{BTreeMap, BTreeSet};

use ottla_metadata::image::BrokerId;
use ottla_wire::messages::list_partition_reassignments_response::{Partition, Topic};
use ottla_wire::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ListPartitionReassignmentsRequest,
) -> Answer {
    if let Err(code) = dispatcher.context.access(&call).cluster(Operation::Describe) {
        return call.ready(&ListPartitionReassignmentsResponse {
            error_code: code.code(),
            error_message: Some(REFUSED.into()),
            ..Default::default()
        });
    }
    let image = dispatcher.context.image.current();
    // No list asks for all, an empty one for none.
    let asked: Option<BTreeSet<(&str, i32)>> = request.topics.as_ref().map(|topics| {
        topics
            .iter()
            .flat_map(|topic| topic.partition_indexes.iter().map(|index| (&*topic.name, *index)))
            .collect()
    });
    let mut topics: BTreeMap<&str, Vec<Partition>> = BTreeMap::new();
    for (topic, index, partition) in image.reassignments() {
        if asked.as_ref().is_none_or(|asked| asked.contains(&(&*topic.name, index))) {
            topics.entry(&topic.name).or_default().push(Partition {
                partition_index: index,
                replicas: ids(&partition.replicas),
                adding_replicas: ids(&partition.adding_replicas),
                removing_replicas: ids(&partition.removing_replicas),
            });
        }
    }
    let topics =
        topics.into_iter().map(|(name, partitions)| Topic { name: Text::from(name), partitions }).collect();
    call.ready(&ListPartitionReassignmentsResponse { topics, ..Default::default() })
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}
