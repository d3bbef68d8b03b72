//! DeleteTopics: by name or by id, each by itself.

use std::collections::BTreeSet;

use bytes::Bytes;
use ottla_proto::controller as proto;
use ottla_proto::metadata as records;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;
use uuid::Uuid;

use super::{Decision, Refusal, Situation, record};
use crate::config;
use crate::image::{TopicId, TopicImage};

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::DeleteTopics,
) -> Decision<proto::DeleteTopicsReply> {
    let mut found: Vec<(&proto::TopicName, Result<&TopicImage, Refusal>)> = Vec::new();
    let (mut ids, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for asked in &command.topics {
        let outcome = find(situation, asked);
        match &outcome {
            // Answered once, and nothing is deleted.
            Ok(topic) if !ids.insert(topic.id) => {
                repeated.insert(topic.id);
            }
            _ => found.push((asked, outcome)),
        }
    }
    let is_enabled = config::get_bool(situation.properties, "delete.topic.enable");
    let mut new = Vec::new();
    let topics = found
        .into_iter()
        .map(|(asked, outcome)| {
            let refuse = |code, message: &str| Err(Refusal::new(code, message));
            let outcome = outcome.and_then(|topic| match () {
                () if repeated.contains(&topic.id) => {
                    refuse(ErrorCode::InvalidRequest, "the topic stands in the request more than once")
                }
                () if !is_enabled => refuse(ErrorCode::TopicDeletionDisabled, "delete.topic.enable is false"),
                () => Ok(topic),
            });
            match outcome {
                Ok(topic) => {
                    let topic_id = Bytes::copy_from_slice(topic.id.0.as_bytes());
                    new.push(record(Record::RemoveTopic(records::RemoveTopicRecord {
                        topic_id: topic_id.clone(),
                    })));
                    proto::DeletedTopic { name: topic.name.to_string(), topic_id, ..Default::default() }
                }
                Err(refusal) => proto::DeletedTopic {
                    name: asked.name.clone(),
                    topic_id: asked.topic_id.clone(),
                    error_code: i32::from(refusal.code.code()),
                    message: refusal.message,
                },
            }
        })
        .collect();
    Decision { records: new, reply: proto::DeleteTopicsReply { topics } }
}

fn find<'a>(situation: Situation<'a>, asked: &proto::TopicName) -> Result<&'a TopicImage, Refusal> {
    let by_id = !asked.topic_id.is_empty();
    match (by_id, asked.name.is_empty()) {
        (true, false) => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "a topic is named by its name or by its id, not by both",
        )),
        (true, true) => Uuid::from_slice(&asked.topic_id)
            .ok()
            .and_then(|id| situation.image.topic_by_id(TopicId(id)))
            .ok_or_else(|| Refusal::new(ErrorCode::UnknownTopicId, "no topic has this id")),
        (false, true) => Err(Refusal::new(ErrorCode::InvalidRequest, "neither a name nor an id was given")),
        (false, false) => situation.image.topic_by_name(&asked.name).ok_or_else(|| {
            Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("no topic is named '{}'", asked.name))
        }),
    }
}
