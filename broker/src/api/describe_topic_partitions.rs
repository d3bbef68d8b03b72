//! DescribeTopicPartitions 0: topics in the order of their names, partition by partition, a page at a time, with the
//! eligible leader replicas (KIP-966).

use ottla_metadata::image::{MetadataImage, PartitionImage, TopicImage};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_topic_partitions_response::{NextCursor, Partition, Topic};
use ottla_wire::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};
use crate::internal_topics;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeTopicPartitionsRequest,
) -> Answer {
    let context = &dispatcher.context;
    let image = context.image.current();
    let limit = usize::try_from(request.response_partition_limit)
        .unwrap_or(0)
        .clamp(1, context.options.describe_partitions_max.max(1));
    let access = context.access(&call);
    let mut names: Vec<Text> = if request.topics.is_empty() {
        image
            .topics()
            .filter(|topic| access.sees_topic(Operation::Describe, &topic.name))
            .map(|topic| Text::from(&*topic.name))
            .collect()
    } else {
        request.topics.iter().map(|topic| topic.name.clone()).collect()
    };
    names.sort_unstable();
    names.dedup();
    let (first_name, first_partition) = match &request.cursor {
        Some(cursor) if cursor.partition_index < 0 => return call.ready(&invalid_cursor(&names)),
        Some(cursor) => (cursor.topic_name.clone(), usize::try_from(cursor.partition_index).unwrap_or(0)),
        None => (Text::default(), 0),
    };
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut room = limit;
    for name in names.iter().filter(|name| **name >= first_name) {
        let from = if *name == first_name { first_partition } else { 0 };
        if room == 0 {
            response.next_cursor = Some(cursor(name, from));
            break;
        }
        if let Err(code) = access.topic(Operation::Describe, name) {
            response.topics.push(refused(name, code));
            continue;
        }
        let Some(topic) = image.topic_by_name(name) else {
            response.topics.push(unknown(name));
            continue;
        };
        let end = topic.partitions.len().min(from.saturating_add(room));
        let topic_authorized_operations = access.topic_operations(name);
        response.topics.push(Topic { topic_authorized_operations, ..describe(&image, topic, from, end) });
        room -= end.saturating_sub(from);
        if end < topic.partitions.len() {
            response.next_cursor = Some(cursor(name, end));
            break;
        }
    }
    call.ready(&response)
}

/// The answer to a cursor below partition 0.
fn invalid_cursor(names: &[Text]) -> DescribeTopicPartitionsResponse {
    let topics = names.iter().map(|name| refused(name, ErrorCode::InvalidRequest));
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

fn cursor(name: &Text, partition: usize) -> NextCursor {
    NextCursor { topic_name: name.clone(), partition_index: i32::try_from(partition).unwrap_or(i32::MAX) }
}

fn unknown(name: &Text) -> Topic {
    let code = if ottla_metadata::topic_name::validate(name).is_ok() {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::InvalidTopicException
    };
    refused(name, code)
}

fn refused(name: &Text, code: ErrorCode) -> Topic {
    Topic { error_code: code.code(), name: Some(name.clone()), ..Default::default() }
}

fn describe(image: &MetadataImage, topic: &TopicImage, from: usize, end: usize) -> Topic {
    Topic {
        name: Some(Text::from(&*topic.name)),
        topic_id: Uuid::from(topic.id),
        is_internal: internal_topics::is_internal(&topic.name),
        partitions: (0..)
            .zip(topic.partitions.iter())
            .take(end)
            .skip(from)
            .map(|(index, partition)| describe_partition(image, index, partition))
            .collect(),
        ..Default::default()
    }
}

fn describe_partition(image: &MetadataImage, partition_index: i32, partition: &PartitionImage) -> Partition {
    let leader_id = partition.leader.map_or(-1, |leader| leader.0);
    let code = if leader_id < 0 { ErrorCode::LeaderNotAvailable } else { ErrorCode::None };
    Partition {
        error_code: code.code(),
        partition_index,
        leader_id,
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: partition.replicas.iter().map(|broker| broker.0).collect(),
        isr_nodes: partition.isr.iter().map(|broker| broker.0).collect(),
        eligible_leader_replicas: Some(
            partition.eligible_leader_replicas.iter().map(|broker| broker.0).collect(),
        ),
        last_known_elr: Some(partition.last_known_leader.iter().map(|broker| broker.0).collect()),
        offline_replicas: partition
            .replicas
            .iter()
            .filter(|replica| {
                image.broker(**replica).is_none_or(|broker| broker.fenced)
                    || !image.is_replica_online(partition, **replica)
            })
            .map(|broker| broker.0)
            .collect(),
    }
}
