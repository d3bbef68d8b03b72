//! AlterPartition: a leader proposes an ISR; the controller alone decides it, by compare-and-set on the partition epoch.
//!
//! Members must be alive and in the very registration that the leader saw (KIP-841, KIP-903): a broker that came back with
//! an empty disk has another epoch and does not slip in by an old proposal. Where a member may not join, the partition epoch
//! rises all the same, so that no late copy of the refused proposal is accepted.

use std::collections::BTreeMap;

use ottla_proto::controller as proto;
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;
use uuid::Uuid;

use super::{Decision, Refusal, Situation, record};
use crate::config;
use crate::election::PartitionChange;
use crate::image::{BrokerEpoch, BrokerId, PartitionEpoch, PartitionImage, TopicId};

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::AlterPartitions,
) -> Result<Decision<proto::AlterPartitionsReply>, Refusal> {
    let leader = BrokerId(command.broker_id);
    let is_current =
        situation.image.broker(leader).is_some_and(|broker| broker.epoch.0 == command.broker_epoch);
    if !is_current {
        return Err(Refusal::new(
            ErrorCode::StaleBrokerEpoch,
            format!("broker {leader} is not registered with epoch {}", command.broker_epoch),
        ));
    }
    let mut records = Vec::new();
    let mut changed = BTreeMap::new();
    let partitions = command
        .partitions
        .iter()
        .map(|asked| alter(situation, leader, asked, &mut changed, &mut records))
        .collect();
    Ok(Decision { records, reply: proto::AlterPartitionsReply { partitions } })
}

fn alter(
    situation: Situation<'_>,
    leader: BrokerId,
    asked: &proto::PartitionAlteration,
    changed: &mut BTreeMap<(TopicId, i32), PartitionImage>,
    records: &mut Vec<MetadataRecord>,
) -> proto::AlteredPartition {
    let mut answer = proto::AlteredPartition {
        topic_id: asked.topic_id.clone(),
        partition: asked.partition,
        ..Default::default()
    };
    let Ok(id) = Uuid::from_slice(&asked.topic_id).map(TopicId) else {
        answer.error_code = i32::from(ErrorCode::UnknownTopicId.code());
        return answer;
    };
    let key = (id, asked.partition);
    let Some(old) = changed.get(&key).or_else(|| situation.image.partition(id, asked.partition)).cloned()
    else {
        let code = match situation.image.topic_by_id(id) {
            Some(_) => ErrorCode::UnknownTopicOrPartition,
            None => ErrorCode::UnknownTopicId,
        };
        answer.error_code = i32::from(code.code());
        return answer;
    };
    match check(situation, leader, &old, asked) {
        Ok(isr) => {
            let name = situation.image.topic_by_id(id).map(|topic| &*topic.name).unwrap_or_default();
            let min_isr = config::min_insync_replicas(situation.image, situation.properties, name);
            let change = PartitionChange::new(situation.image, &old, min_isr).with_isr(isr, asked.recovering);
            let new = change.finish();
            if let Some(new) = &new {
                records.push(record(Record::Partition(new.to_record(id, asked.partition))));
                changed.insert(key, new.clone());
            }
            let new = new.unwrap_or(old);
            if new.leader != Some(leader) {
                // The change completed a reassignment that takes the leader away.
                answer.error_code = i32::from(ErrorCode::NewLeaderElected.code());
            }
            answer.state = Some(new.to_record(id, asked.partition));
        }
        Err(code) => {
            answer.error_code = i32::from(code.code());
            let mut state = old;
            if code == ErrorCode::IneligibleReplica {
                // The leader takes back what it asked for and counts without that member. An earlier copy of the same
                // proposal may still be on its way: it must not be accepted when the member is eligible again.
                state.partition_epoch = PartitionEpoch(state.partition_epoch.0 + 1);
                records.push(record(Record::Partition(state.to_record(id, asked.partition))));
                changed.insert(key, state.clone());
            }
            answer.state = Some(state.to_record(id, asked.partition));
        }
    }
    answer
}

fn check(
    situation: Situation<'_>,
    leader: BrokerId,
    old: &PartitionImage,
    asked: &proto::PartitionAlteration,
) -> Result<Vec<BrokerId>, ErrorCode> {
    if old.leader != Some(leader) {
        return Err(ErrorCode::InvalidRequest);
    }
    match asked.leader_epoch.cmp(&old.leader_epoch.0) {
        std::cmp::Ordering::Less => return Err(ErrorCode::FencedLeaderEpoch),
        // The broker is ahead of this controller: it must ask the one that leads now.
        std::cmp::Ordering::Greater => return Err(ErrorCode::NotController),
        std::cmp::Ordering::Equal => {}
    }
    match asked.partition_epoch.cmp(&old.partition_epoch.0) {
        std::cmp::Ordering::Less => return Err(ErrorCode::InvalidUpdateVersion),
        std::cmp::Ordering::Greater => return Err(ErrorCode::NotController),
        std::cmp::Ordering::Equal => {}
    }
    let isr: Vec<BrokerId> = asked.isr.iter().map(|member| BrokerId(member.broker_id)).collect();
    let distinct: std::collections::BTreeSet<_> = isr.iter().collect();
    let is_possible = !isr.is_empty()
        && distinct.len() == isr.len()
        && isr.contains(&leader)
        && isr.iter().all(|id| old.replicas.contains(id));
    if !is_possible || (asked.recovering && (!old.recovering || isr.len() > 1)) {
        return Err(ErrorCode::InvalidRequest);
    }
    for member in &asked.isr {
        let registered = situation.image.broker(BrokerId(member.broker_id));
        let is_eligible = registered.is_some_and(|broker| {
            // A leader on its way out may still shrink its own ISR.
            let may_join = broker.is_eligible() || old.isr.contains(&broker.id) && !broker.fenced;
            let is_online = broker.has_directory(old.directory(broker.id));
            may_join
                && is_online
                && (member.broker_epoch == -1 || broker.epoch == BrokerEpoch(member.broker_epoch))
        });
        if !is_eligible {
            return Err(ErrorCode::IneligibleReplica);
        }
    }
    Ok(isr)
}
