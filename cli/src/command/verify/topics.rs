//! The topics of a run, made over the Kafka protocol: any cluster can be verified.

use std::time::{Duration, Instant};

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, create_topics_request, delete_topics_request,
};
use ottla_wire::text::Text;

use crate::client::ClientError;
use crate::client::cluster::{Cluster, RETRY_PAUSE};

/// Newest version of both APIs that is asked: they name topics.
const CREATE_VERSION: i16 = 5;
const DELETE_VERSION: i16 = 5;

/// How a topic is made.
#[derive(Debug, Clone)]
pub(super) struct NewTopic<'a> {
    pub(super) name: &'a str,
    pub(super) partitions: i32,
    /// -1: the cluster's default.
    pub(super) replication_factor: i16,
    pub(super) configs: Vec<(&'static str, String)>,
}

/// Makes a topic and waits until all of its partitions have leaders. False: it was there already.
pub(super) async fn create(
    cluster: &mut Cluster,
    topic: &NewTopic<'_>,
    deadline: Instant,
) -> Result<bool, ClientError> {
    let configs = topic
        .configs
        .iter()
        .map(|(name, value)| create_topics_request::Config {
            name: Text::from(*name),
            value: Some(Text::from(value.as_str())),
        })
        .collect();
    let request = CreateTopicsRequest {
        topics: vec![create_topics_request::Topic {
            name: Text::from(topic.name),
            num_partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            configs,
            ..create_topics_request::Topic::default()
        }],
        timeout_ms: 10_000,
        validate_only: false,
    };
    let is_new = loop {
        let error = match cluster.ask_any(&request, CREATE_VERSION).await {
            Ok(answer) => {
                let one = answer.topics.into_iter().next().unwrap_or_default();
                match ErrorCode::from_code(one.error_code) {
                    ErrorCode::None => break true,
                    ErrorCode::TopicAlreadyExists => break false,
                    code => {
                        let message = one.error_message.map(|text| text.to_string());
                        ClientError::Refused { what: format!("topic \"{}\"", topic.name), code, message }
                    }
                }
            }
            Err(error) => error,
        };
        if !error.is_retriable() || Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    };
    await_leaders(cluster, topic.name, deadline).await?;
    Ok(is_new)
}

async fn await_leaders(cluster: &mut Cluster, name: &str, deadline: Instant) -> Result<(), ClientError> {
    loop {
        let known = cluster.refresh(&[name.to_owned()]).await;
        let led = |topic: &crate::client::cluster::Topic| {
            !topic.leaders.is_empty()
                && topic.leaders.keys().all(|partition| cluster.leader(name, *partition).is_some())
        };
        if known.is_ok() && cluster.topic(name).is_some_and(led) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            known?;
            let code = ErrorCode::LeaderNotAvailable.code();
            return Err(ClientError::refused(format!("topic \"{name}\""), code));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Deletes a topic; what cannot be deleted stays.
pub(super) async fn delete(cluster: &mut Cluster, name: &str) -> Result<(), ClientError> {
    let request = DeleteTopicsRequest {
        topics: vec![delete_topics_request::Topic {
            name: Some(Text::from(name)),
            ..delete_topics_request::Topic::default()
        }],
        topic_names: vec![Text::from(name)],
        timeout_ms: 10_000,
    };
    cluster.ask_any(&request, DELETE_VERSION).await.map(drop)
}
