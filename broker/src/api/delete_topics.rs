//! DeleteTopics 1-6: by name, from version 6 on also by id.

use std::sync::Arc;

use bytes::Bytes;
use ottla_metadata::image::TopicId;
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::delete_topics_response::Response as Deleted;
use ottla_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::{Operation, REFUSED};
use super::forward::{QUOTA_EXCEEDED, patience, refusal_of, wait_for_index};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// From this version on a client knows THROTTLING_QUOTA_EXCEEDED.
const STRICT_QUOTA_FROM: i16 = 5;
/// From this version on a topic may be named by its id.
const BY_ID_FROM: i16 = 6;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DeleteTopicsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let mut asked = if call.version >= BY_ID_FROM {
        request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id)).collect()
    } else {
        request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::nil())).collect()
    };
    let forbidden = hold_to_rights(&context, &call, &mut asked);
    let (mut refused, throttle_time_ms) = hold_to_quota(&context, &call, &mut asked);
    refused.extend(forbidden);
    call.exclusive(async move {
        let mut response = delete(&context, asked, request.timeout_ms).await;
        response.responses.extend(refused);
        response.throttle_time_ms = throttle_time_ms;
        response
    })
    .muted(throttle_time_ms)
}

/// Takes the topics out of a request that its client may not delete. Who may not even see a topic that it names by id is not
/// told its name.
fn hold_to_rights(
    context: &BrokerContext,
    call: &Call,
    asked: &mut Vec<(Option<Text>, Uuid)>,
) -> Vec<Deleted> {
    let access = context.access(call);
    let refused = access.take_refused(asked, |access, (name, id)| match name {
        Some(name) => access.topic(Operation::Delete, name),
        None => access.topic_by_id(Operation::Delete, *id),
    });
    let image = context.image.current();
    refused
        .into_iter()
        .map(|((name, topic_id), code)| {
            let seen = || {
                let topic = image.topic_by_id(TopicId(topic_id))?;
                access.sees_topic(Operation::Describe, &topic.name).then(|| Text::from(&*topic.name))
            };
            Deleted {
                name: name.or_else(seen),
                topic_id,
                error_code: code.code(),
                error_message: Some(REFUSED.into()),
            }
        })
        .collect()
}

/// Takes the topics out of a request that are too much for its client (KIP-599).
fn hold_to_quota(
    context: &BrokerContext,
    call: &Call,
    asked: &mut Vec<(Option<Text>, Uuid)>,
) -> (Vec<Deleted>, i32) {
    let image = context.image.current();
    let strict = call.version >= STRICT_QUOTA_FROM;
    let mut mutations = context.quotas.mutations(&call.principal, call.client_name(), strict);
    let mut refused = Vec::new();
    asked.retain(|(name, topic_id)| {
        let topic = match name {
            Some(name) => image.topic_by_name(name),
            None => image.topic_by_id(TopicId(*topic_id)),
        };
        let partitions = topic.map_or(0, |topic| topic.partitions.len());
        let admitted = mutations.try_take(u32::try_from(partitions).unwrap_or(u32::MAX));
        if !admitted {
            refused.push(Deleted {
                name: name.clone(),
                topic_id: *topic_id,
                error_code: ErrorCode::ThrottlingQuotaExceeded.code(),
                error_message: Some(QUOTA_EXCEEDED.into()),
            });
        }
        admitted
    });
    (refused, mutations.throttle_time_ms())
}

async fn delete(
    context: &BrokerContext,
    asked: Vec<(Option<Text>, Uuid)>,
    timeout_ms: i32,
) -> DeleteTopicsResponse {
    let refuse_all = |code: ErrorCode, message: &str| {
        asked
            .iter()
            .map(|(name, topic_id)| Deleted {
                name: name.clone(),
                topic_id: *topic_id,
                error_code: code.code(),
                error_message: Some(message.into()),
            })
            .collect()
    };
    if !context.options.delete_topic_enable {
        let responses = refuse_all(ErrorCode::TopicDeletionDisabled, "delete.topic.enable is false");
        return DeleteTopicsResponse { responses, ..Default::default() };
    }
    let command = proto::DeleteTopics {
        topics: asked
            .iter()
            .map(|(name, topic_id)| proto::TopicName {
                name: name.as_ref().map(ToString::to_string).unwrap_or_default(),
                topic_id: if topic_id.is_nil() {
                    Bytes::new()
                } else {
                    Bytes::copy_from_slice(topic_id.as_bytes())
                },
            })
            .collect(),
    };
    let patience = patience(timeout_ms);
    let reply =
        context.controller.submit_within(proto::command::Command::DeleteTopics(command), patience).await;
    let responses = match reply {
        Err(error) => refuse_all(ErrorCode::RequestTimedOut, &error.to_string()),
        Ok(reply) => match (refusal_of(&reply), reply.reply) {
            (Err((code, message)), _) => refuse_all(code, &message),
            (Ok(()), Some(proto::command_reply::Reply::DeleteTopics(deleted))) => {
                wait_for_index(context, reply.index, patience).await;
                deleted.topics.into_iter().map(to_answer).collect()
            }
            _ => refuse_all(ErrorCode::UnknownServerError, "the controller answered another question"),
        },
    };
    DeleteTopicsResponse { responses, ..Default::default() }
}

fn to_answer(deleted: proto::DeletedTopic) -> Deleted {
    Deleted {
        name: (!deleted.name.is_empty()).then(|| Text::from(deleted.name)),
        topic_id: Uuid::from_slice(&deleted.topic_id).unwrap_or_default(),
        error_code: i16::try_from(deleted.error_code).unwrap_or(-1),
        error_message: (deleted.error_code != 0).then(|| Text::from(deleted.message)),
    }
}
