//! CreatePartitions: a topic grows; it never shrinks.

use ottla_proto::controller as proto;
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;

use super::create_topics::{PARTITIONS_MAX, check_assignments, new_partition, placement_refusal, repeated};
use super::{Decision, Refusal, Situation, record};
use crate::placement::place;

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::CreatePartitions,
) -> Decision<proto::CreatePartitionsReply> {
    let mut records = Vec::new();
    let repeated = repeated(command.topics.iter().map(|topic| topic.name.as_str()));
    let topics = command
        .topics
        .iter()
        .map(|topic| {
            let outcome = if repeated.contains(topic.name.as_str()) {
                Err(Refusal::new(ErrorCode::InvalidRequest, "the topic stands in the request more than once"))
            } else {
                grow(situation, topic)
            };
            match outcome {
                Ok(new) => {
                    if !command.validate_only {
                        records.extend(new);
                    }
                    proto::CreatedTopic {
                        name: topic.name.clone(),
                        partitions: topic.count,
                        ..Default::default()
                    }
                }
                Err(refusal) => proto::CreatedTopic {
                    name: topic.name.clone(),
                    error_code: i32::from(refusal.code.code()),
                    message: refusal.message,
                    ..Default::default()
                },
            }
        })
        .collect();
    Decision { records, reply: proto::CreatePartitionsReply { topics } }
}

fn grow(situation: Situation<'_>, asked: &proto::NewPartitions) -> Result<Vec<MetadataRecord>, Refusal> {
    let topic = situation.image.topic_by_name(&asked.name).ok_or_else(|| {
        Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("no topic is named '{}'", asked.name))
    })?;
    let now = topic.partitions.len();
    let count = usize::try_from(asked.count).unwrap_or(0);
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    if count == now {
        return refuse(format!("Topic already has {now} partition(s)."));
    }
    if count < now {
        return refuse(format!(
            "The topic {} currently has {now} partition(s); {} would not be an increase.",
            asked.name, asked.count
        ));
    }
    if count - now > PARTITIONS_MAX {
        return refuse(format!("at most {PARTITIONS_MAX} partitions may be added at once"));
    }
    let replication_factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let replicas = if asked.assignments.is_empty() && !asked.assignments_given {
        place(situation.image, situation.seed, now, count - now, replication_factor)
            .map_err(|error| placement_refusal(&error))?
    } else {
        // They come in order; whatever numbers they carry.
        let assignments: Vec<_> = (0..)
            .zip(&asked.assignments)
            .map(|(partition, given)| proto::ReplicaAssignment {
                partition,
                replicas: given.replicas.clone(),
            })
            .collect();
        let replicas = check_assignments(situation.image, &assignments)?;
        if replicas.len() != count - now {
            return Err(Refusal::new(
                ErrorCode::InvalidReplicaAssignment,
                format!("{} partitions are added, but {} are assigned", count - now, replicas.len()),
            ));
        }
        if replicas.iter().any(|replicas| replicas.len() != replication_factor) {
            return Err(Refusal::new(
                ErrorCode::InvalidReplicaAssignment,
                format!("the topic's partitions have {replication_factor} replicas; the new ones must too"),
            ));
        }
        replicas
    };
    Ok((i32::try_from(now).unwrap_or(i32::MAX)..)
        .zip(replicas)
        .map(|(index, replicas)| {
            record(Record::Partition(new_partition(situation.image, replicas).to_record(topic.id, index)))
        })
        .collect())
}
