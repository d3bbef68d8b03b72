//! An image as records, and back: what a snapshot holds.

use std::sync::Arc;

use ottla_proto::controller::BrokerEpoch as BrokerState;
use ottla_proto::metadata as proto;
use ottla_proto::metadata::metadata_record::Record;

use crate::apply::ApplyError;
use crate::image::{BrokerEpoch, BrokerId, BrokerRegistration, LogIndex, MetadataDelta, MetadataImage};

impl MetadataImage {
    /// The records that make this image, and what a registration's record does not say of brokers.
    pub fn to_records(&self) -> (Vec<proto::MetadataRecord>, Vec<BrokerState>) {
        let mut records = Vec::new();
        let mut push = |record| records.push(proto::MetadataRecord { record: Some(record) });
        if !self.cluster_id().is_empty() {
            push(Record::Cluster(proto::ClusterRecord { cluster_id: self.cluster_id().to_owned() }));
        }
        for (name, level) in self.features() {
            push(Record::Feature(proto::FeatureRecord { name: name.to_owned(), level: level.into() }));
        }
        for broker in self.brokers() {
            push(Record::RegisterBroker(registration_record(broker)));
        }
        for topic in self.topics() {
            let topic_id = bytes::Bytes::copy_from_slice(topic.id.0.as_bytes());
            push(Record::Topic(proto::TopicRecord { topic_id, name: topic.name.to_string() }));
            for (index, partition) in (0..).zip(&topic.partitions) {
                push(Record::Partition(partition.to_record(topic.id, index)));
            }
        }
        for (resource, values) in self.configs.iter() {
            for (name, value) in values {
                push(Record::Config(proto::ConfigRecord {
                    resource_type: resource.kind,
                    resource_name: resource.name.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                }));
            }
        }
        if self.next_producer_id() > 0 {
            let next_producer_id = self.next_producer_id();
            push(Record::ProducerIds(proto::ProducerIdsRecord { next_producer_id, ..Default::default() }));
        }
        for record in self.client_quotas().to_records() {
            push(Record::ClientQuota(record));
        }
        for (id, acl) in self.acls().iter() {
            push(Record::Acl(acl.to_record(id)));
        }
        for (user, mechanism, credential) in self.scram_credentials() {
            push(Record::ScramCredential(credential.to_record(user, mechanism)));
        }
        for token in self.delegation_tokens() {
            push(Record::DelegationToken(token.to_record()));
        }
        for completed in self.completed.iter() {
            push(Record::CompletedCommand(proto::CompletedCommandRecord {
                command_id: completed.id.clone(),
                reply: completed.reply.clone(),
                index: completed.index.0,
            }));
        }
        let brokers = self
            .brokers()
            .map(|broker| BrokerState {
                broker_id: broker.id.0,
                broker_epoch: broker.epoch.0,
                fenced: broker.fenced,
                in_controlled_shutdown: broker.in_controlled_shutdown,
            })
            .collect();
        (records, brokers)
    }

    /// The image of a snapshot.
    pub fn from_records(
        index: LogIndex,
        records: &[proto::MetadataRecord],
        brokers: &[BrokerState],
    ) -> Result<Self, ApplyError> {
        let mut image = Self::default();
        image.index = index;
        let mut delta = MetadataDelta::default();
        for record in records {
            image.apply_record(
                index,
                record.record.as_ref().ok_or(ApplyError::Unknown(index))?,
                &mut delta,
            )?;
        }
        let registered = Arc::make_mut(&mut image.brokers);
        for state in brokers {
            let id = BrokerId(state.broker_id);
            let broker = registered
                .get_mut(&id)
                .ok_or_else(|| ApplyError::Missing(index, format!("no broker {id} to give an epoch")))?;
            let broker = Arc::make_mut(broker);
            broker.epoch = BrokerEpoch(state.broker_epoch);
            broker.fenced = state.fenced;
            broker.in_controlled_shutdown = state.in_controlled_shutdown;
        }
        Ok(image)
    }
}

fn registration_record(broker: &BrokerRegistration) -> proto::RegisterBrokerRecord {
    let id = |id: &uuid::Uuid| bytes::Bytes::copy_from_slice(id.as_bytes());
    proto::RegisterBrokerRecord {
        broker_id: broker.id.0,
        incarnation_id: id(&broker.incarnation),
        endpoints: broker
            .endpoints
            .iter()
            .map(|endpoint| proto::Endpoint {
                name: endpoint.name.clone(),
                host: endpoint.host.clone(),
                port: endpoint.port.into(),
                security_protocol: endpoint.security_protocol.clone(),
            })
            .collect(),
        rack: broker.rack.clone().unwrap_or_default(),
        log_directories: broker.log_directories.iter().map(id).collect(),
        cordoned_directories: broker.cordoned_directories.iter().map(id).collect(),
        version: broker.version.clone(),
        grpc_endpoint: broker.grpc_endpoint.clone(),
    }
}
