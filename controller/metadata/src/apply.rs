//! Records to image: the only mutator.

use std::sync::Arc;

use ottla_proto::metadata as proto;
use ottla_proto::metadata::metadata_record::Record;
use uuid::Uuid;

use crate::image::{
    BrokerEpoch, BrokerId, BrokerRegistration, ConfigResource, Endpoint, LeaderEpoch, LogIndex,
    MetadataDelta, MetadataImage, PartitionEpoch, PartitionImage, TopicId, TopicImage,
};

/// A record that does not fit the image that it is applied to: the log is broken, or from a newer version. Whoever
/// applies it must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A record of a kind that this software does not know.
    #[error("entry {0} holds a record that this version does not know; it was written by a newer one")]
    Unknown(LogIndex),
    /// An id that is not 16 bytes.
    #[error("entry {0}: an id of {1} bytes")]
    Id(LogIndex, usize),
    /// A topic, partition or broker that is not there.
    #[error("entry {0}: {1}")]
    Missing(LogIndex, String),
    /// A state that no controller may write: epochs that fall, a leader out of sync, a member without a replica.
    #[error("entry {0} breaks an invariant: {1}")]
    Invariant(LogIndex, String),
    /// Out of order.
    #[error("entry {0} comes behind entry {1}")]
    Order(LogIndex, LogIndex),
}

/// A topic's or incarnation's id.
pub(crate) fn uuid(index: LogIndex, bytes: &[u8]) -> Result<Uuid, ApplyError> {
    Uuid::from_slice(bytes).map_err(|_| ApplyError::Id(index, bytes.len()))
}

fn uuids(index: LogIndex, ids: &[bytes::Bytes]) -> Result<Vec<Uuid>, ApplyError> {
    ids.iter().map(|id| uuid(index, id)).collect()
}

impl MetadataImage {
    /// The image after one entry of the log, and what changed. All of the entry, or an error and nothing.
    pub fn apply(
        &self,
        index: LogIndex,
        records: &[proto::MetadataRecord],
    ) -> Result<(Self, MetadataDelta), ApplyError> {
        if index <= self.index {
            return Err(ApplyError::Order(index, self.index));
        }
        let mut next = self.clone();
        next.index = index;
        let mut delta = MetadataDelta::default();
        for record in records {
            let record = record.record.as_ref().ok_or(ApplyError::Unknown(index))?;
            next.apply_record(index, record, &mut delta)?;
        }
        Ok((next, delta))
    }

    pub(crate) fn apply_record(
        &mut self,
        index: LogIndex,
        record: &Record,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        match record {
            Record::Cluster(record) => {
                self.cluster_id = Arc::from(record.cluster_id.as_str());
                delta.cluster = true;
            }
            Record::Feature(record) => {
                let features = Arc::make_mut(&mut self.features);
                let level = i16::try_from(record.level).map_err(|_| {
                    ApplyError::Invariant(index, format!("level {} of feature {}", record.level, record.name))
                })?;
                match level {
                    0 => features.remove(&record.name),
                    level => features.insert(record.name.clone(), level),
                };
                delta.cluster = true;
            }
            Record::RegisterBroker(record) => {
                let broker = registration(index, record)?;
                delta.brokers.insert(broker.id);
                Arc::make_mut(&mut self.brokers).insert(broker.id, Arc::new(broker));
            }
            Record::UnregisterBroker(record) => {
                let id = BrokerId(record.broker_id);
                delta.brokers.insert(id);
                if self.broker(id).is_none_or(|broker| broker.epoch.0 != record.broker_epoch) {
                    let epoch = record.broker_epoch;
                    return Err(ApplyError::Missing(
                        index,
                        format!("no broker {id} of epoch {epoch} to unregister"),
                    ));
                }
                Arc::make_mut(&mut self.brokers).remove(&id);
            }
            Record::BrokerChange(record) => self.change_broker(index, record, delta)?,
            Record::Topic(record) => {
                let id = TopicId(uuid(index, &record.topic_id)?);
                let name = Arc::from(record.name.as_str());
                if self.topic_by_id(id).is_some() || self.topic_by_name(&name).is_some() {
                    return Err(ApplyError::Invariant(
                        index,
                        format!("topic {name} ({id}) is there already"),
                    ));
                }
                delta.topics.insert(id);
                self.put_topic(Arc::new(TopicImage { id, name, partitions: Vec::new() }));
            }
            Record::RemoveTopic(record) => {
                let id = TopicId(uuid(index, &record.topic_id)?);
                let topic = self
                    .remove_topic(id)
                    .ok_or_else(|| ApplyError::Missing(index, format!("no topic {id} to remove")))?;
                delta.topics.insert(id);
                delta.deleted_topics.push(Arc::clone(&topic.name));
                let resource = ConfigResource::new(proto::ResourceType::Topic, &*topic.name);
                self.configs.remove(&resource);
            }
            Record::Partition(record) => self.put_partition(index, record, delta)?,
            Record::Config(record) => self.set_config(record, delta),
            Record::ProducerIds(record) => {
                if record.next_producer_id < self.next_producer_id {
                    return Err(ApplyError::Invariant(index, "producer ids are handed out twice".to_owned()));
                }
                self.next_producer_id = record.next_producer_id;
            }
            Record::CompletedCommand(record) => self.complete_command(index, record),
            other => self.apply_access(index, other, delta)?,
        }
        Ok(())
    }

    fn change_broker(
        &mut self,
        index: LogIndex,
        record: &proto::BrokerChangeRecord,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        let id = BrokerId(record.broker_id);
        let broker = Arc::make_mut(&mut self.brokers)
            .get_mut(&id)
            .filter(|broker| broker.epoch.0 == record.broker_epoch)
            .ok_or_else(|| {
                ApplyError::Missing(index, format!("no broker {id} of epoch {}", record.broker_epoch))
            })?;
        let broker = Arc::make_mut(broker);
        if let Some(list) = &record.log_directories {
            broker.log_directories = uuids(index, &list.directories)?;
        }
        if let Some(list) = &record.cordoned_directories {
            broker.cordoned_directories = uuids(index, &list.directories)?;
        }
        broker.fenced = record.fenced.unwrap_or(broker.fenced);
        broker.in_controlled_shutdown =
            record.in_controlled_shutdown.unwrap_or(broker.in_controlled_shutdown);
        delta.brokers.insert(id);
        Ok(())
    }

    fn put_partition(
        &mut self,
        index: LogIndex,
        record: &proto::PartitionRecord,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        let id = TopicId(uuid(index, &record.topic_id)?);
        let missing = |what: &str| {
            ApplyError::Missing(index, format!("{what} for partition {} of {id}", record.partition))
        };
        let topic = self.topic_mut(id).ok_or_else(|| missing("no topic"))?;
        let at = usize::try_from(record.partition).map_err(|_| missing("no place"))?;
        let partition = Arc::new(partition(index, record)?);
        check(topic.partitions.get(at).map(|old| &**old), &partition).map_err(|problem| {
            ApplyError::Invariant(index, format!("partition {} of {id}: {problem}", record.partition))
        })?;
        let count = topic.partitions.len();
        match topic.partitions.get_mut(at) {
            Some(place) => *place = partition,
            // Partitions come in the order of their numbers.
            None if at == count => topic.partitions.push(partition),
            None => return Err(missing("a gap")),
        }
        delta.topics.insert(id);
        Ok(())
    }

    fn set_config(&mut self, record: &proto::ConfigRecord, delta: &mut MetadataDelta) {
        let resource = ConfigResource { kind: record.resource_type, name: record.resource_name.clone() };
        self.configs.set(&resource, &record.name, record.value.as_deref());
        delta.configs.insert(resource);
    }
}

fn registration(
    index: LogIndex,
    record: &proto::RegisterBrokerRecord,
) -> Result<BrokerRegistration, ApplyError> {
    Ok(BrokerRegistration {
        id: BrokerId(record.broker_id),
        epoch: BrokerEpoch(index.0),
        incarnation: uuid(index, &record.incarnation_id)?,
        endpoints: record
            .endpoints
            .iter()
            .map(|endpoint| Endpoint {
                name: endpoint.name.clone(),
                host: endpoint.host.clone(),
                // Checked when it registered.
                port: u16::try_from(endpoint.port).unwrap_or(0),
                security_protocol: endpoint.security_protocol.clone(),
            })
            .collect(),
        rack: (!record.rack.is_empty()).then(|| record.rack.clone()),
        log_directories: uuids(index, &record.log_directories)?,
        cordoned_directories: uuids(index, &record.cordoned_directories)?,
        version: record.version.clone(),
        grpc_endpoint: record.grpc_endpoint.clone(),
        fenced: true,
        in_controlled_shutdown: false,
    })
}

/// What holds of every state of a partition, and from one to the next.
fn check(old: Option<&PartitionImage>, new: &PartitionImage) -> Result<(), &'static str> {
    let in_replicas = |id: &BrokerId| new.replicas.contains(id);
    if !new.isr.iter().chain(&new.eligible_leader_replicas).all(in_replicas) {
        return Err("a member of the ISR, or an eligible replica, is no replica");
    }
    if new.leader.is_some_and(|leader| !new.isr.contains(&leader)) {
        return Err("the leader is not in the ISR");
    }
    if new.eligible_leader_replicas.iter().any(|id| new.isr.contains(id)) {
        return Err("an eligible replica is in the ISR");
    }
    if !new.directories.is_empty() && new.directories.len() != new.replicas.len() {
        return Err("it has not one directory for each replica");
    }
    if !new.adding_replicas.iter().chain(&new.removing_replicas).all(in_replicas) {
        return Err("a replica that is added or removed is no replica");
    }
    let Some(old) = old else { return Ok(()) };
    if new.partition_epoch <= old.partition_epoch {
        return Err("its epoch does not rise");
    }
    if new.leader_epoch < old.leader_epoch
        || (new.leader != old.leader && new.leader_epoch == old.leader_epoch)
    {
        return Err("its leader epoch does not rise");
    }
    Ok(())
}

fn partition(index: LogIndex, record: &proto::PartitionRecord) -> Result<PartitionImage, ApplyError> {
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
    Ok(PartitionImage {
        replicas: ids(&record.replicas),
        isr: ids(&record.isr),
        eligible_leader_replicas: ids(&record.eligible_leader_replicas),
        last_known_leader: ids(&record.last_known_leader),
        adding_replicas: ids(&record.adding_replicas),
        removing_replicas: ids(&record.removing_replicas),
        leader: (record.leader >= 0).then_some(BrokerId(record.leader)),
        leader_epoch: LeaderEpoch(record.leader_epoch),
        partition_epoch: PartitionEpoch(record.partition_epoch),
        recovering: record.recovering,
        directories: uuids(index, &record.directories)?,
    })
}

impl PartitionImage {
    /// The record that brings a partition into this state.
    pub fn to_record(&self, topic_id: TopicId, partition: i32) -> proto::PartitionRecord {
        let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
        proto::PartitionRecord {
            topic_id: bytes::Bytes::copy_from_slice(topic_id.0.as_bytes()),
            partition,
            replicas: ids(&self.replicas),
            isr: ids(&self.isr),
            eligible_leader_replicas: ids(&self.eligible_leader_replicas),
            last_known_leader: ids(&self.last_known_leader),
            adding_replicas: ids(&self.adding_replicas),
            removing_replicas: ids(&self.removing_replicas),
            leader: self.leader.map_or(-1, |leader| leader.0),
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch.0,
            recovering: self.recovering,
            directories: self
                .directories
                .iter()
                .map(|id| bytes::Bytes::copy_from_slice(id.as_bytes()))
                .collect(),
        }
    }
}
