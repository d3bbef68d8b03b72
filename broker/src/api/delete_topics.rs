//! DeleteTopics 1-6: by name, from version 6 on also by id.

use std::sync::Arc;

use bytes::Bytes;
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::delete_topics_response::Response as Deleted;
use ottla_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::forward::{patience, refusal_of, wait_for_index};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// From this version on a topic may be named by its id.
const BY_ID_FROM: i16 = 6;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DeleteTopicsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let version = call.version;
    call.exclusive(async move {
        let asked = if version >= BY_ID_FROM {
            request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id)).collect()
        } else {
            request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::nil())).collect()
        };
        delete(&context, asked, request.timeout_ms).await
    })
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
