//! CreatePartitions 0-3: more partitions for a topic.

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::create_partitions_request::Topic as Asked;
use ottla_wire::messages::create_partitions_response::Result as Outcome;
use ottla_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::forward::{QUOTA_EXCEEDED, patience, refusal_of, wait_for_index};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// From this version on a client knows THROTTLING_QUOTA_EXCEEDED.
const STRICT_QUOTA_FROM: i16 = 3;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: CreatePartitionsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let mut request = request;
    let forbidden = context
        .access(&call)
        .take_refused(&mut request.topics, |access, topic| access.topic(Operation::Alter, &topic.name));
    let (mut refused, throttle_time_ms) = hold_to_quota(&context, &call, &mut request);
    refused.extend(forbidden.into_iter().map(|(topic, code)| Outcome {
        name: topic.name,
        error_code: code.code(),
        error_message: Some(REFUSED.into()),
    }));
    call.exclusive(async move {
        let mut response = create(&context, request).await;
        response.results.extend(refused);
        response.throttle_time_ms = throttle_time_ms;
        response
    })
    .muted(throttle_time_ms)
}

/// Takes the topics out of a request that are too much for its client (KIP-599).
fn hold_to_quota(
    context: &BrokerContext,
    call: &Call,
    request: &mut CreatePartitionsRequest,
) -> (Vec<Outcome>, i32) {
    let mut refused = Vec::new();
    if request.validate_only {
        return (refused, 0);
    }
    let image = context.image.current();
    let strict = call.version >= STRICT_QUOTA_FROM;
    let mut mutations = context.quotas.mutations(&call.principal, call.client_name(), strict);
    request.topics.retain(|topic| {
        let present = image.topic_by_name(&topic.name).map_or(0, |topic| topic.partitions.len());
        let wanted = u32::try_from(topic.count).unwrap_or(0);
        let admitted = mutations.try_take(wanted.saturating_sub(u32::try_from(present).unwrap_or(u32::MAX)));
        if !admitted {
            refused.push(Outcome {
                name: topic.name.clone(),
                error_code: ErrorCode::ThrottlingQuotaExceeded.code(),
                error_message: Some(QUOTA_EXCEEDED.into()),
            });
        }
        admitted
    });
    (refused, mutations.throttle_time_ms())
}

async fn create(context: &BrokerContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let refuse_all = |code: ErrorCode, message: &str| {
        request
            .topics
            .iter()
            .map(|topic| Outcome {
                name: topic.name.clone(),
                error_code: code.code(),
                error_message: Some(message.into()),
            })
            .collect()
    };
    let patience = patience(request.timeout_ms);
    let command = proto::CreatePartitions {
        validate_only: request.validate_only,
        topics: request.topics.iter().map(to_command).collect(),
    };
    let reply =
        context.controller.submit_within(proto::command::Command::CreatePartitions(command), patience).await;
    let results = match reply {
        Err(error) => refuse_all(ErrorCode::RequestTimedOut, &error.to_string()),
        Ok(reply) => match (refusal_of(&reply), reply.reply) {
            (Err((code, message)), _) => refuse_all(code, &message),
            (Ok(()), Some(proto::command_reply::Reply::CreatePartitions(created))) => {
                wait_for_index(context, reply.index, patience).await;
                created.topics.into_iter().map(to_answer).collect()
            }
            _ => refuse_all(ErrorCode::UnknownServerError, "the controller answered another question"),
        },
    };
    CreatePartitionsResponse { results, ..Default::default() }
}

fn to_command(topic: &Asked) -> proto::NewPartitions {
    proto::NewPartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: topic
            .assignments
            .iter()
            .flatten()
            .zip(0..)
            .map(|(assignment, partition)| proto::ReplicaAssignment {
                partition,
                replicas: assignment.broker_ids.clone(),
            })
            .collect(),
        assignments_given: topic.assignments.is_some(),
    }
}

fn to_answer(created: proto::CreatedTopic) -> Outcome {
    Outcome {
        name: Text::from(created.name),
        error_code: i16::try_from(created.error_code).unwrap_or(-1),
        error_message: (created.error_code != 0).then(|| Text::from(created.message)),
    }
}
