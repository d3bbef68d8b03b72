//! Topics: listing, describing with offsets from their leaders, creating, growing, deleting.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ottla_metadata::image::TopicImage;
use ottla_proto::admin as proto;
use ottla_proto::admin::admin_client::AdminClient;
use ottla_proto::controller;
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;
use tonic::{Code, Status};

use super::describe::grpc_endpoints;
use super::{AdminService, status};
use crate::internal_topics::is_internal;

/// A leader that does not tell its offsets within this time is left out of the answer.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(2);

type Offsets = HashMap<(String, i32), proto::Replica>;

impl AdminService {
    pub(super) fn list(&self, include_internal: bool) -> proto::ListTopicsReply {
        let image = self.image.current();
        let mut topics: Vec<proto::TopicSummary> = image
            .topics()
            .filter(|topic| include_internal || !is_internal(&topic.name))
            .map(|topic| proto::TopicSummary {
                name: topic.name.to_string(),
                id: topic.id.0.to_string(),
                internal: is_internal(&topic.name),
                partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
                replication_factor: topic
                    .partitions
                    .first()
                    .map_or(0, |partition| i32::try_from(partition.replicas.len()).unwrap_or(i32::MAX)),
            })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        proto::ListTopicsReply { topics }
    }

    pub(super) async fn describe(&self, names: Vec<String>) -> Result<proto::DescribeTopicsReply, Status> {
        let image = self.image.current();
        let mut names = names;
        if names.is_empty() {
            names = image.topics().map(|topic| topic.name.to_string()).collect();
            names.sort();
        }
        if let Some(unknown) = names.iter().find(|name| image.topic_by_name(name).is_none()) {
            return Err(status(
                Code::NotFound,
                ErrorCode::UnknownTopicOrPartition,
                &format!("topic \"{unknown}\" does not exist"),
                "'ottla topic list' shows the topics that do",
            ));
        }
        let offsets = self.offsets(&names).await;
        let topics = names
            .iter()
            .filter_map(|name| image.topic_by_name(name))
            .map(|topic| {
                let configs = image.config(ResourceType::Topic, &topic.name).cloned().unwrap_or_default();
                describe(topic, configs, &offsets)
            })
            .collect();
        Ok(proto::DescribeTopicsReply { topics })
    }

    /// What the leaders say of their partitions: every broker is asked for its own.
    async fn offsets(&self, names: &[String]) -> Offsets {
        let mut offsets = Offsets::new();
        let mut take = |reply: proto::DescribeReplicasReply| {
            for replica in reply.replicas.into_iter().filter(|replica| replica.is_leader) {
                offsets.insert((replica.topic.clone(), replica.partition), replica);
            }
        };
        take(self.own_replicas(names));
        let others = grpc_endpoints(&self.image.current()).into_iter().filter(|(id, _)| *id != self.node_id);
        let asked = others.map(|(_, endpoint)| async move {
            let ask = async {
                let mut client = AdminClient::new(self.controller.channel(&endpoint).ok()?);
                let request = proto::DescribeReplicasRequest { topics: names.to_vec() };
                client.describe_replicas(request).await.ok().map(tonic::Response::into_inner)
            };
            tokio::time::timeout(REPLICAS_TIMEOUT, ask).await.ok().flatten()
        });
        for reply in futures_util::future::join_all(asked).await.into_iter().flatten() {
            take(reply);
        }
        offsets
    }

    pub(super) async fn create(
        &self,
        request: proto::CreateTopicsRequest,
    ) -> Result<proto::CreateTopicsReply, Status> {
        let default = |count: i32| if count == 0 { -1 } else { count };
        let topics = request
            .topics
            .into_iter()
            .map(|topic| controller::NewTopic {
                name: topic.name,
                partitions: if topic.assignments.is_empty() { default(topic.partitions) } else { -1 },
                replication_factor: if topic.assignments.is_empty() {
                    default(topic.replication_factor)
                } else {
                    -1
                },
                assignments: assignments(topic.assignments),
                configs: topic
                    .configs
                    .into_iter()
                    .map(|(name, value)| controller::ConfigValue { name, value: Some(value) })
                    .collect(),
            })
            .collect();
        let command = controller::CreateTopics { validate_only: request.validate_only, topics };
        match self.submit(controller::command::Command::CreateTopics(command)).await? {
            controller::command_reply::Reply::CreateTopics(reply) => {
                Ok(proto::CreateTopicsReply { topics: reply.topics.into_iter().map(created).collect() })
            }
            _ => Err(Status::internal("the controller answered another question")),
        }
    }

    pub(super) async fn delete(&self, names: Vec<String>) -> Result<proto::DeleteTopicsReply, Status> {
        let topics = names
            .into_iter()
            .map(|name| controller::TopicName { name, topic_id: bytes::Bytes::new() })
            .collect();
        let command = controller::DeleteTopics { topics };
        match self.submit(controller::command::Command::DeleteTopics(command)).await? {
            controller::command_reply::Reply::DeleteTopics(reply) => Ok(proto::DeleteTopicsReply {
                topics: reply
                    .topics
                    .into_iter()
                    .map(|topic| result(topic.name, &topic.topic_id, topic.error_code, topic.message))
                    .collect(),
            }),
            _ => Err(Status::internal("the controller answered another question")),
        }
    }

    pub(super) async fn add_partitions(
        &self,
        request: proto::CreatePartitionsRequest,
    ) -> Result<proto::CreatePartitionsReply, Status> {
        let topic = controller::NewPartitions {
            name: request.name,
            count: request.count,
            assignments: assignments(request.assignments),
            assignments_given: false,
        };
        let command =
            controller::CreatePartitions { validate_only: request.validate_only, topics: vec![topic] };
        match self.submit(controller::command::Command::CreatePartitions(command)).await? {
            controller::command_reply::Reply::CreatePartitions(reply) => {
                Ok(proto::CreatePartitionsReply { topic: reply.topics.into_iter().next().map(created) })
            }
            _ => Err(Status::internal("the controller answered another question")),
        }
    }
}

fn assignments(given: Vec<proto::Replicas>) -> Vec<controller::ReplicaAssignment> {
    (0..)
        .zip(given)
        .map(|(partition, replicas)| controller::ReplicaAssignment { partition, replicas: replicas.brokers })
        .collect()
}

fn created(topic: controller::CreatedTopic) -> proto::TopicResult {
    let (partitions, replication_factor) = (topic.partitions, topic.replication_factor);
    let result = result(topic.name, &topic.topic_id, topic.error_code, topic.message);
    proto::TopicResult { partitions, replication_factor, ..result }
}

fn result(name: String, topic_id: &[u8], error_code: i32, message: String) -> proto::TopicResult {
    let code = i16::try_from(error_code).map_or(ErrorCode::UnknownServerError, ErrorCode::from_code);
    proto::TopicResult {
        name,
        id: uuid::Uuid::from_slice(topic_id).map(|id| id.to_string()).unwrap_or_default(),
        error_code,
        error: if error_code == 0 { String::new() } else { code.name().to_owned() },
        message,
        ..Default::default()
    }
}

fn describe(topic: &TopicImage, configs: BTreeMap<String, String>, offsets: &Offsets) -> proto::Topic {
    let partitions = (0..)
        .zip(&topic.partitions)
        .map(|(index, partition)| {
            let ids = |ids: &[ottla_metadata::image::BrokerId]| ids.iter().map(|id| id.0).collect();
            let known = offsets.get(&(topic.name.to_string(), index));
            proto::Partition {
                partition: index,
                leader: partition.leader.map_or(-1, |leader| leader.0),
                leader_epoch: partition.leader_epoch.0,
                replicas: ids(&partition.replicas),
                isr: ids(&partition.isr),
                elr: ids(&partition.eligible_leader_replicas),
                adding_replicas: ids(&partition.adding_replicas),
                removing_replicas: ids(&partition.removing_replicas),
                start_offset: known.map(|known| known.start_offset),
                end_offset: known.map(|known| known.end_offset),
                high_watermark: known.map(|known| known.high_watermark),
                size_bytes: known.map(|known| known.size_bytes),
            }
        })
        .collect();
    proto::Topic {
        name: topic.name.to_string(),
        id: topic.id.0.to_string(),
        internal: is_internal(&topic.name),
        partitions,
        configs: configs.into_iter().collect(),
    }
}
