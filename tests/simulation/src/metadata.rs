//! The controller's decisions over an image, as the controller that leads makes and commits them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_metadata::decide::{
    self, RegistrationDecision, Situation, default_features, elect_leaderless, rebalance_preferred,
};
use ottla_metadata::image::{BrokerEpoch, BrokerId, LogIndex, MetadataImage, PartitionImage, TopicId};
use ottla_proto::controller as proto;
use ottla_proto::controller::command::Command;
use ottla_proto::controller::command_reply::Reply;
use ottla_proto::metadata as records;
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use ottla_replica::{IsrAnswer, IsrMember, IsrState};
use ottla_wire::error_code::ErrorCode;
use uuid::Uuid;

use crate::replica::Role;

/// The topic of all simulations.
pub const TOPIC: &str = "simulated";

/// The cluster's id.
const CLUSTER: &str = "simulation";

/// What a controller decides with.
#[derive(Debug, Clone, Default)]
pub struct Controller {
    properties: BTreeMap<String, String>,
}

/// A leader's proposal as it is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The leader.
    pub broker: i32,
    /// Its broker epoch.
    pub broker_epoch: i64,
    /// Partition of the topic.
    pub partition: i32,
    /// All members, with the broker epochs that the leader saw.
    pub isr: Vec<IsrMember>,
    /// Of the state that it changes.
    pub leader_epoch: i32,
    /// Of the state that it changes.
    pub partition_epoch: i32,
}

impl Controller {
    /// Decides with these properties of the controller.
    pub fn new(min_insync_replicas: usize, unclean: bool) -> Self {
        let mut properties = BTreeMap::new();
        properties.insert("min.insync.replicas".to_owned(), min_insync_replicas.to_string());
        properties.insert("unclean.leader.election.enable".to_owned(), unclean.to_string());
        Self { properties }
    }

    fn situation<'a>(&'a self, image: &'a MetadataImage) -> Situation<'a> {
        Situation { image, properties: &self.properties, seed: 1 }
    }

    /// A cluster with these brokers unfenced and one topic: each partition's replicas, the leader first.
    pub fn first_image(&self, brokers: &[i32], partitions: &[Vec<i32>]) -> Arc<MetadataImage> {
        let mut first = default_features();
        first.push(record(Record::Cluster(records::ClusterRecord { cluster_id: CLUSTER.to_owned() })));
        let mut image = Arc::new(MetadataImage::default());
        image = commit(&image, &first);
        for broker in brokers {
            let decision = self.register(&image, *broker, 0, -1, false);
            image = commit(&image, &decision.unwrap_or_default());
            let epoch = broker_epoch(&image, *broker);
            image = commit(&image, &self.unfence(&image, *broker, epoch));
        }
        let assignments = (0..)
            .zip(partitions)
            .map(|(partition, replicas)| proto::ReplicaAssignment { partition, replicas: replicas.clone() });
        let topic = proto::NewTopic {
            name: TOPIC.to_owned(),
            partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            configs: Vec::new(),
        };
        let command =
            Command::CreateTopics(proto::CreateTopics { validate_only: false, topics: vec![topic] });
        let records = decide::decide(self.situation(&image), &command).map(|decision| decision.records);
        let image = commit(&image, &records.unwrap_or_default());
        assert!(topic_id(&image).is_some(), "the simulated topic was not created");
        image
    }

    /// A broker's process registers. None: an earlier one still holds the id.
    pub fn register(
        &self,
        image: &MetadataImage,
        broker: i32,
        incarnation: u64,
        previous_epoch: i64,
        is_held: bool,
    ) -> Option<Vec<MetadataRecord>> {
        let endpoint = records::Endpoint {
            name: "PLAINTEXT".to_owned(),
            host: "localhost".to_owned(),
            port: 9092,
            security_protocol: "PLAINTEXT".to_owned(),
        };
        let incarnation = Uuid::from_u64_pair(u64::from(broker.unsigned_abs()), incarnation);
        let registration = records::RegisterBrokerRecord {
            broker_id: broker,
            incarnation_id: Bytes::copy_from_slice(incarnation.as_bytes()),
            endpoints: vec![endpoint],
            ..Default::default()
        };
        let request = proto::RegisterBrokerRequest {
            cluster_id: String::new(),
            registration: Some(registration),
            previous_broker_epoch: previous_epoch,
        };
        match decide::register(self.situation(image), &request, is_held) {
            Ok(RegistrationDecision::Register(records)) => Some(records),
            Ok(RegistrationDecision::Already(_)) => Some(Vec::new()),
            Err(_) => None,
        }
    }

    /// A broker's lease is over.
    pub fn fence(&self, image: &MetadataImage, broker: i32, epoch: i64) -> Vec<MetadataRecord> {
        decide::fence(self.situation(image), BrokerId(broker), BrokerEpoch(epoch))
    }

    /// A broker may serve.
    pub fn unfence(&self, image: &MetadataImage, broker: i32, epoch: i64) -> Vec<MetadataRecord> {
        decide::unfence(self.situation(image), BrokerId(broker), BrokerEpoch(epoch))
    }

    /// A broker wants to stop.
    pub fn shut_down(&self, image: &MetadataImage, broker: i32, epoch: i64) -> Vec<MetadataRecord> {
        decide::set_controlled_shutdown(self.situation(image), BrokerId(broker), BrokerEpoch(epoch))
    }

    /// Partitions without a leader may have one.
    pub fn elect(&self, image: &MetadataImage) -> Vec<MetadataRecord> {
        elect_leaderless(self.situation(image))
    }

    /// Leadership goes home.
    pub fn rebalance(&self, image: &MetadataImage) -> Vec<MetadataRecord> {
        rebalance_preferred(self.situation(image))
    }

    /// A leader asks for an ISR: the records, and the answer that they make true.
    pub fn alter(&self, image: &MetadataImage, proposal: &Proposal) -> (Vec<MetadataRecord>, IsrAnswer) {
        let Some(topic) = topic_id(image) else { return (Vec::new(), IsrAnswer::Unknown) };
        let isr = proposal.isr.iter().map(|member| proto::IsrMember {
            broker_id: member.broker,
            broker_epoch: if member.broker == proposal.broker {
                proposal.broker_epoch
            } else {
                member.broker_epoch
            },
        });
        let partition = proto::PartitionAlteration {
            topic_id: Bytes::copy_from_slice(topic.0.as_bytes()),
            partition: proposal.partition,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: isr.collect(),
            recovering: false,
        };
        let command = Command::AlterPartitions(proto::AlterPartitions {
            broker_id: proposal.broker,
            broker_epoch: proposal.broker_epoch,
            partitions: vec![partition],
        });
        let Ok(decision) = decide::decide(self.situation(image), &command) else {
            return (Vec::new(), IsrAnswer::Unknown);
        };
        let Reply::AlterPartitions(reply) = decision.reply else {
            return (decision.records, IsrAnswer::Unknown);
        };
        let answer = reply.partitions.first().map_or(IsrAnswer::Unknown, answer_of);
        (decision.records, answer)
    }

    /// A block of producer ids for a broker: the first of them.
    pub fn producer_ids(
        &self,
        image: &MetadataImage,
        broker: i32,
        epoch: i64,
    ) -> Option<(Vec<MetadataRecord>, i64, i32)> {
        let command = Command::AllocateProducerIds(proto::AllocateProducerIds {
            broker_id: broker,
            broker_epoch: epoch,
        });
        let decision = decide::decide(self.situation(image), &command).ok()?;
        let Reply::AllocateProducerIds(reply) = decision.reply else { return None };
        Some((decision.records, reply.first_producer_id, reply.count))
    }
}

/// As `broker/src/replication/isr_updates.rs` reads it.
fn answer_of(altered: &proto::AlteredPartition) -> IsrAnswer {
    let state = altered.state.as_ref().map(|state| IsrState {
        leader_epoch: state.leader_epoch,
        partition_epoch: state.partition_epoch,
        isr: state.isr.clone(),
    });
    let code = ErrorCode::from_code(i16::try_from(altered.error_code).unwrap_or(-1));
    match (code, state) {
        (ErrorCode::None, Some(state)) => IsrAnswer::Accepted(state),
        (ErrorCode::None, None) => IsrAnswer::Outdated(None),
        (ErrorCode::IneligibleReplica | ErrorCode::OperationNotAttempted, _) => IsrAnswer::Ineligible,
        (
            ErrorCode::InvalidUpdateVersion
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::NewLeaderElected
            | ErrorCode::InvalidRequest,
            state,
        ) => IsrAnswer::Outdated(state),
        _ => IsrAnswer::Unknown,
    }
}

fn record(record: Record) -> MetadataRecord {
    MetadataRecord { record: Some(record) }
}

/// The image after one more entry; the same image if there is nothing to write.
pub fn commit(image: &Arc<MetadataImage>, records: &[MetadataRecord]) -> Arc<MetadataImage> {
    if records.is_empty() {
        return Arc::clone(image);
    }
    match image.apply(LogIndex(image.index().0 + 1), records) {
        Ok((next, _)) => Arc::new(next),
        Err(error) => panic!("the controller decided what cannot be applied: {error}"),
    }
}

/// The simulated topic's id.
pub fn topic_id(image: &MetadataImage) -> Option<TopicId> {
    image.topic_by_name(TOPIC).map(|topic| topic.id)
}

/// A partition of the simulated topic.
pub fn partition(image: &MetadataImage, index: i32) -> Option<&PartitionImage> {
    image.partition(topic_id(image)?, index)
}

/// The epoch of a broker; -1: not registered.
pub fn broker_epoch(image: &MetadataImage, broker: i32) -> i64 {
    image.broker(BrokerId(broker)).map_or(-1, |broker| broker.epoch.0)
}

/// Whether a broker may not serve.
pub fn is_fenced(image: &MetadataImage, broker: i32) -> bool {
    image.broker(BrokerId(broker)).is_none_or(|broker| broker.fenced)
}

/// Whether it may join an ISR, if its epoch is this one.
pub fn is_eligible(image: &MetadataImage, broker: i32, epoch: i64) -> bool {
    image
        .broker(BrokerId(broker))
        .is_some_and(|broker| broker.is_eligible() && (epoch == -1 || broker.epoch.0 == epoch))
}

/// What the image makes of a partition's replicas.
pub fn role(image: &MetadataImage, index: i32) -> Option<Role> {
    let partition = partition(image, index)?;
    Some(Role {
        leader: partition.leader.map_or(-1, |leader| leader.0),
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch.0,
        replicas: partition.replicas.iter().map(|id| id.0).collect(),
        isr: partition.isr.iter().map(|id| id.0).collect(),
    })
}
