//! CreateTopics 2-7: decided by the controller; answered when this broker has seen the topics too, so that the client's
//! next request finds them.

use std::sync::Arc;
use std::time::Duration;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::create_topics_request::Topic as Asked;
use ottla_wire::messages::create_topics_response::{Config, Topic};
use ottla_wire::messages::{CreateTopicsRequest, CreateTopicsResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::{Access, Operation, REFUSED};
use super::forward::{QUOTA_EXCEEDED, patience, refusal_of, wait_for_index};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// From this version on a client knows THROTTLING_QUOTA_EXCEEDED.
const STRICT_QUOTA_FROM: i16 = 6;
/// From this version on the answer carries the topic's configs and counts.
const DESCRIBES_FROM: i16 = 5;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: CreateTopicsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let version = call.version;
    let mut request = request;
    let access = context.access(&call);
    let forbidden =
        access.take_refused(&mut request.topics, |access, topic| access.create_topic(&topic.name));
    let (refused, throttle_time_ms) = hold_to_quota(&context, &call, &mut request);
    call.exclusive(async move {
        let mut response = create(&context, version, request).await;
        response.topics.iter_mut().for_each(|topic| hide_configs(&access, topic));
        response.topics.extend(refused);
        response.topics.extend(forbidden.into_iter().map(|(topic, code)| Topic {
            name: topic.name,
            error_code: code.code(),
            error_message: Some(REFUSED.into()),
            ..Default::default()
        }));
        response.throttle_time_ms = throttle_time_ms;
        response
    })
    .muted(throttle_time_ms)
}

/// Who may create a topic but not see configs is told so, and neither them nor the counts (KIP-525).
fn hide_configs(access: &Access, topic: &mut Topic) {
    if topic.error_code == 0 && !access.sees_topic(Operation::DescribeConfigs, &topic.name) {
        topic.topic_config_error_code = ErrorCode::TopicAuthorizationFailed.code();
        (topic.num_partitions, topic.replication_factor, topic.configs) = (-1, -1, Some(Vec::new()));
    }
}

/// Takes the topics out of a request that are too much for its client (KIP-599).
fn hold_to_quota(
    context: &BrokerContext,
    call: &Call,
    request: &mut CreateTopicsRequest,
) -> (Vec<Topic>, i32) {
    let mut refused = Vec::new();
    if request.validate_only {
        return (refused, 0);
    }
    let strict = call.version >= STRICT_QUOTA_FROM;
    let mut mutations = context.quotas.mutations(&call.principal, call.client_name(), strict);
    request.topics.retain(|topic| {
        let partitions = match topic.num_partitions {
            count if count > 0 => count.unsigned_abs(),
            _ => u32::try_from(topic.assignments.len()).unwrap_or(u32::MAX).max(1),
        };
        let admitted = mutations.try_take(partitions);
        if !admitted {
            refused.push(Topic {
                name: topic.name.clone(),
                error_code: ErrorCode::ThrottlingQuotaExceeded.code(),
                error_message: Some(QUOTA_EXCEEDED.into()),
                ..Default::default()
            });
        }
        admitted
    });
    (refused, mutations.throttle_time_ms())
}

async fn create(context: &BrokerContext, version: i16, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let patience = patience(request.timeout_ms);
    let command = proto::CreateTopics {
        validate_only: request.validate_only,
        topics: request.topics.iter().map(to_command).collect(),
    };
    let topics = match submit(context, command, patience).await {
        Ok(created) => created.into_iter().map(|topic| to_answer(context, version, topic)).collect(),
        Err((code, message)) => request
            .topics
            .iter()
            .map(|topic| Topic {
                name: topic.name.clone(),
                error_code: code.code(),
                error_message: Some(message.as_str().into()),
                ..Default::default()
            })
            .collect(),
    };
    CreateTopicsResponse { topics, ..Default::default() }
}

/// Creates topics and waits until this broker knows them.
pub(super) async fn submit(
    context: &BrokerContext,
    command: proto::CreateTopics,
    patience: Duration,
) -> Result<Vec<proto::CreatedTopic>, (ErrorCode, String)> {
    let reply = context
        .controller
        .submit_within(proto::command::Command::CreateTopics(command), patience)
        .await
        .map_err(|error| (ErrorCode::RequestTimedOut, error.to_string()))?;
    refusal_of(&reply)?;
    wait_for_index(context, reply.index, patience).await;
    match reply.reply {
        Some(proto::command_reply::Reply::CreateTopics(reply)) => Ok(reply.topics),
        _ => Err((ErrorCode::UnknownServerError, "the controller answered another question".into())),
    }
}

fn to_command(topic: &Asked) -> proto::NewTopic {
    proto::NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: i32::from(topic.replication_factor),
        assignments: topic
            .assignments
            .iter()
            .map(|assignment| proto::ReplicaAssignment {
                partition: assignment.partition_index,
                replicas: assignment.broker_ids.clone(),
            })
            .collect(),
        configs: topic
            .configs
            .iter()
            .map(|config| proto::ConfigValue {
                name: config.name.to_string(),
                value: config.value.as_ref().map(ToString::to_string),
            })
            .collect(),
    }
}

fn to_answer(context: &BrokerContext, version: i16, created: proto::CreatedTopic) -> Topic {
    let mut answer = Topic {
        name: Text::from(created.name),
        error_code: i16::try_from(created.error_code).unwrap_or(-1),
        error_message: (created.error_code != 0).then(|| Text::from(created.message)),
        ..Default::default()
    };
    if created.error_code == 0 {
        answer.topic_id = Uuid::from_slice(&created.topic_id).unwrap_or_default();
        answer.num_partitions = created.partitions;
        answer.replication_factor = i16::try_from(created.replication_factor).unwrap_or(-1);
        if version >= DESCRIBES_FROM {
            answer.configs = Some(
                context
                    .describe_topic_configs(&answer.name)
                    .into_iter()
                    .map(|config| Config {
                        name: config.name.into(),
                        value: config.value.map(Text::from),
                        read_only: config.read_only,
                        config_source: config.source,
                        is_sensitive: config.sensitive,
                    })
                    .collect(),
            );
        }
    }
    answer
}
