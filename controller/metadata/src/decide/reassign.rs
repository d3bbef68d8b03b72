//! AlterPartitionReassignments and what ListPartitionReassignments shows (KIP-455, KIP-860).
//!
//! A reassignment adds the target's new replicas beside the old ones; `election` completes it when they are in sync. While one
//! is under way another target replaces it, and no target ends it.

use std::collections::{BTreeMap, BTreeSet};

use ottla_proto::controller as proto;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;

use super::{Decision, Refusal, Situation, record};
use crate::config;
use crate::election::{PartitionChange, may_lead};
use crate::image::{BrokerId, PartitionImage, TopicImage};

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::AlterReassignments,
) -> Decision<proto::AlterReassignmentsReply> {
    let mut seen = BTreeSet::new();
    let repeated: BTreeSet<_> = command
        .partitions
        .iter()
        .map(|asked| (asked.topic.as_str(), asked.partition))
        .filter(|key| !seen.insert(*key))
        .collect();
    let mut changed = BTreeMap::new();
    let partitions = command
        .partitions
        .iter()
        .map(|asked| {
            let outcome = if repeated.contains(&(asked.topic.as_str(), asked.partition)) {
                Err(refusal(ErrorCode::InvalidRequest, "the partition stands in the request more than once"))
            } else {
                reassign(situation, asked, command.allow_replication_factor_change)
            };
            let (code, message) = match outcome {
                Ok(new) => {
                    changed.extend(new);
                    (ErrorCode::None, String::new())
                }
                Err(refusal) => (refusal.code, refusal.message),
            };
            proto::ElectedLeader {
                topic: asked.topic.clone(),
                partition: asked.partition,
                error_code: i32::from(code.code()),
                message,
            }
        })
        .collect();
    let records = changed
        .into_iter()
        .map(|((topic, index), new): (_, PartitionImage)| {
            record(Record::Partition(new.to_record(topic, index)))
        })
        .collect();
    Decision { records, reply: proto::AlterReassignmentsReply { partitions } }
}

fn refusal(code: ErrorCode, message: impl Into<String>) -> Refusal {
    Refusal::new(code, message)
}

type Changed = Option<((crate::image::TopicId, i32), PartitionImage)>;

fn reassign(
    situation: Situation<'_>,
    asked: &proto::Reassignment,
    may_change_factor: bool,
) -> Result<Changed, Refusal> {
    let unknown = || refusal(ErrorCode::UnknownTopicOrPartition, "there is no such partition");
    let topic = situation.image.topic_by_name(&asked.topic).ok_or_else(unknown)?;
    let at = usize::try_from(asked.partition).map_err(|_| unknown())?;
    let old = topic.partitions.get(at).ok_or_else(unknown)?;
    let new = if asked.cancel {
        cancelled(situation, topic, old)?
    } else {
        let target: Vec<BrokerId> = asked.replicas.iter().copied().map(BrokerId).collect();
        towards(situation, topic, old, target, may_change_factor)?
    };
    Ok(new.map(|new| ((topic.id, asked.partition), new)))
}

fn without(ids: &[BrokerId], others: &[BrokerId]) -> Vec<BrokerId> {
    ids.iter().copied().filter(|id| !others.contains(id)).collect()
}

fn towards(
    situation: Situation<'_>,
    topic: &TopicImage,
    old: &PartitionImage,
    target: Vec<BrokerId>,
    may_change_factor: bool,
) -> Result<Option<PartitionImage>, Refusal> {
    let image = situation.image;
    let refuse = |message: String| Err(refusal(ErrorCode::InvalidReplicaAssignment, message));
    let distinct: BTreeSet<BrokerId> = target.iter().copied().collect();
    if target.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".to_owned());
    }
    if distinct.len() != target.len() {
        return refuse("The manual partition assignment includes a broker more than once.".to_owned());
    }
    for id in &target {
        let Some(broker) = image.broker(*id) else {
            return refuse(format!(
                "The manual partition assignment includes broker {id}, but no such broker is registered."
            ));
        };
        if !broker.takes_replicas() && !old.replicas.contains(id) {
            return refuse(format!("all log directories of broker {id} are cordoned"));
        }
    }
    // What the partition has when nothing is under way, or becomes when what is under way completes.
    let settled = old.replicas.len() - old.removing_replicas.len();
    if !may_change_factor && settled != target.len() {
        return Err(refusal(
            ErrorCode::InvalidReplicationFactor,
            format!("The replication factor is changed from {settled} to {}", target.len()),
        ));
    }
    let original = without(&old.replicas, &old.adding_replicas);
    let adding = sorted(without(&target, &original));
    // Who was being added and is not wanted any more holds nothing that anybody counts on, unless it is in sync.
    let mut removing = without(&old.replicas, &target);
    removing.retain(|id| original.contains(id) || old.isr.contains(id));
    let removing = sorted(removing);
    let replicas: Vec<BrokerId> = target.into_iter().chain(removing.iter().copied()).collect();
    let min_isr = config::min_insync_replicas(image, situation.properties, &topic.name);
    Ok(PartitionChange::new(image, old, min_isr).with_replicas(replicas, adding, removing).finish())
}

fn sorted(mut ids: Vec<BrokerId>) -> Vec<BrokerId> {
    ids.sort_unstable();
    ids
}

fn cancelled(
    situation: Situation<'_>,
    topic: &TopicImage,
    old: &PartitionImage,
) -> Result<Option<PartitionImage>, Refusal> {
    if !old.is_reassigning() {
        return Err(refusal(ErrorCode::NoReassignmentInProgress, "no reassignment is in progress"));
    }
    let image = situation.image;
    let min_isr = config::min_insync_replicas(image, situation.properties, &topic.name);
    let original = without(&old.replicas, &old.adding_replicas);
    let change = PartitionChange::new(image, old, min_isr);
    if old.isr.iter().any(|id| original.contains(id)) {
        return Ok(change.with_replicas(original, Vec::new(), Vec::new()).finish());
    }
    // Only the added replicas are in sync: going back loses what they alone have.
    if !config::unclean_leader_election_enable(image, situation.properties, &topic.name) {
        return Err(refusal(
            ErrorCode::InvalidReplicaAssignment,
            "the reassignment cannot be undone: none of the old replicas is in sync, and unclean elections are off",
        ));
    }
    let alive = original.iter().copied().find(|id| may_lead(image, *id));
    let Some(member) = alive.or_else(|| original.first().copied()) else {
        return Err(refusal(ErrorCode::InvalidReplicaAssignment, "there is no old replica to go back to"));
    };
    Ok(change.with_replicas(original, Vec::new(), Vec::new()).with_unclean_isr(member).finish())
}
