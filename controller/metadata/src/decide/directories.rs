//! Several log directories of one broker (KIP-112, KIP-858, KIP-1066): in which a replica lies, directories that fail, and
//! directories that take no new replica.

use std::collections::{BTreeMap, BTreeSet};

use ottla_proto::controller as proto;
use ottla_proto::metadata as records;
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;
use uuid::Uuid;

use super::{Decision, Refusal, Situation, record};
use crate::config;
use crate::election::{Election, PartitionChange};
use crate::image::{BrokerEpoch, BrokerId, BrokerRegistration, PartitionEpoch, PartitionImage, TopicId};

/// AssignReplicasToDirs: the broker says where replicas of its lie.
pub(super) fn assign(
    situation: Situation<'_>,
    command: &proto::AssignReplicasToDirectories,
) -> Result<Decision<proto::AssignReplicasToDirectoriesReply>, Refusal> {
    let id = BrokerId(command.broker_id);
    let broker = situation.image.broker(id).filter(|broker| broker.epoch.0 == command.broker_epoch);
    let Some(broker) = broker else {
        return Err(Refusal::new(
            ErrorCode::StaleBrokerEpoch,
            format!("broker {id} is not registered with epoch {}", command.broker_epoch),
        ));
    };
    let mut changed: BTreeMap<(TopicId, i32), PartitionImage> = BTreeMap::new();
    let assignments = command
        .assignments
        .iter()
        .map(|asked| {
            let code = assign_one(situation, broker, asked, &mut changed).err().unwrap_or(ErrorCode::None);
            proto::AssignedDirectory { error_code: i32::from(code.code()) }
        })
        .collect();
    let records = changed
        .into_iter()
        .map(|((topic, index), new)| record(Record::Partition(new.to_record(topic, index))))
        .collect();
    Ok(Decision { records, reply: proto::AssignReplicasToDirectoriesReply { assignments } })
}

fn assign_one(
    situation: Situation<'_>,
    broker: &BrokerRegistration,
    asked: &proto::DirectoryAssignment,
    changed: &mut BTreeMap<(TopicId, i32), PartitionImage>,
) -> Result<(), ErrorCode> {
    let directory = Uuid::from_slice(&asked.directory).map_err(|_| ErrorCode::InvalidRequest)?;
    let topic_id = Uuid::from_slice(&asked.topic_id).map(TopicId).map_err(|_| ErrorCode::UnknownTopicId)?;
    let topic = situation.image.topic_by_id(topic_id).ok_or(ErrorCode::UnknownTopicId)?;
    let key = (topic_id, asked.partition);
    let committed = situation.image.partition(topic_id, asked.partition);
    let old = committed.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let known = changed.get(&key).unwrap_or(old);
    let at = known.replicas.iter().position(|replica| *replica == broker.id);
    let at = at.ok_or(ErrorCode::NotLeaderOrFollower)?;
    if known.directory(broker.id) == directory {
        return Ok(());
    }
    let mut new = known.clone();
    new.directories.resize(new.replicas.len(), Uuid::nil());
    new.directories[at] = directory;
    new.partition_epoch = PartitionEpoch(old.partition_epoch.0 + 1);
    if !broker.has_directory(directory) {
        // It lies where nothing can be read: it is out of the ISR in the same record.
        let min_isr = config::min_insync_replicas(situation.image, situation.properties, &topic.name);
        new = offline(situation, &topic.name, &new, broker.id, min_isr).unwrap_or(new);
        new.partition_epoch = PartitionEpoch(old.partition_epoch.0 + 1);
    }
    changed.insert(key, new);
    Ok(())
}

fn offline(
    situation: Situation<'_>,
    topic: &str,
    partition: &PartitionImage,
    id: BrokerId,
    min_isr: i32,
) -> Option<PartitionImage> {
    let unclean = config::unclean_leader_election_enable(situation.image, situation.properties, topic);
    let election = if unclean { Election::Unclean } else { Election::Clean };
    PartitionChange::new(situation.image, partition, min_isr).election(election).without(&[id]).finish()
}

/// Directories of a broker have failed: what lies there is offline, leaves its ISR and leads nothing. A broker of one
/// directory that has not yet said where its replicas lie has them all there.
pub fn fail_directories(
    situation: Situation<'_>,
    id: BrokerId,
    epoch: BrokerEpoch,
    failed: &[Uuid],
) -> Vec<MetadataRecord> {
    let Some(broker) = situation.image.broker(id).filter(|broker| broker.epoch == epoch) else {
        return Vec::new();
    };
    let failed: BTreeSet<Uuid> =
        broker.log_directories.iter().copied().filter(|directory| failed.contains(directory)).collect();
    if failed.is_empty() {
        return Vec::new();
    }
    let left: Vec<Uuid> =
        broker.log_directories.iter().copied().filter(|directory| !failed.contains(directory)).collect();
    let was_only = left.is_empty();
    let mut new = vec![change(broker, Some(&left), None)];
    for topic in situation.image.topics() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let directory = partition.directory(id);
            let is_there = failed.contains(&directory) || was_only && partition.replicas.contains(&id);
            if !is_there || !(partition.leader == Some(id) || partition.isr.contains(&id)) {
                continue;
            }
            let min_isr = config::min_insync_replicas(situation.image, situation.properties, &topic.name);
            if let Some(changed) = offline(situation, &topic.name, partition, id, min_isr) {
                new.push(record(Record::Partition(changed.to_record(topic.id, index))));
            }
        }
    }
    new
}

/// A broker says which of its directories take no new replica.
pub fn cordon_directories(
    situation: Situation<'_>,
    id: BrokerId,
    epoch: BrokerEpoch,
    cordoned: &[Uuid],
) -> Vec<MetadataRecord> {
    match situation.image.broker(id) {
        Some(broker) if broker.epoch == epoch && broker.cordoned_directories != cordoned => {
            vec![change(broker, None, Some(cordoned))]
        }
        _ => Vec::new(),
    }
}

fn change(
    broker: &BrokerRegistration,
    working: Option<&[Uuid]>,
    cordoned: Option<&[Uuid]>,
) -> MetadataRecord {
    let list = |ids: &[Uuid]| records::DirectoryList {
        directories: ids.iter().map(|id| bytes::Bytes::copy_from_slice(id.as_bytes())).collect(),
    };
    record(Record::BrokerChange(records::BrokerChangeRecord {
        broker_id: broker.id.0,
        broker_epoch: broker.epoch.0,
        log_directories: working.map(list),
        cordoned_directories: cordoned.map(list),
        ..Default::default()
    }))
}
