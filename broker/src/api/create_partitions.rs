//! CreatePartitions 0-3: more partitions for a topic.

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::create_partitions_request::Topic as Asked;
use ottla_wire::messages::create_partitions_response::Result as Outcome;
use ottla_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use ottla_wire::text::Text;

use super::forward::{patience, refusal_of, wait_for_index};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: CreatePartitionsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    call.exclusive(async move { create(&context, request).await })
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
