//! OffsetCommit 2-10: offsets of a group, or of nobody's group. From version 9 on members of consumer groups may commit. From version 10 on topics are named by id.

use ottla_coordinator::group::{Command, OffsetCommit, OffsetToCommit, Reply};
use ottla_metadata::image::MetadataImage;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::offset_commit_response::{Partition, Topic};
use ottla_wire::messages::{OffsetCommitRequest, OffsetCommitResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

/// From this version on topics are named by id.
const BY_ID_FROM: i16 = 10;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    mut request: OffsetCommitRequest,
) -> Answer {
    let image = dispatcher.context.image.current();
    let ids: Vec<Uuid> = request.topics.iter().map(|topic| topic.topic_id).collect();
    let unknown = if call.version >= BY_ID_FROM {
        for topic in &mut request.topics {
            topic.name = image
                .topic_by_id(topic.topic_id.into())
                .map(|known| Text::from(&*known.name))
                .unwrap_or_default();
        }
        ErrorCode::UnknownTopicId
    } else {
        ErrorCode::UnknownTopicOrPartition
    };
    let access = dispatcher.context.access(&call);
    let permitted = access.group(Operation::Read, &request.group_id);
    let mut commit = OffsetCommit::from_request(request).of_version(call.version);
    if permitted.is_ok() {
        for (topic, offsets) in &mut commit.topics {
            // An id that is not known has no name that rules could be about.
            let is_named = !topic.is_empty() || call.version < BY_ID_FROM;
            match access.topic(Operation::Read, topic) {
                Err(code) if is_named => offsets.iter_mut().for_each(|offset| offset.error = code),
                _ => mark_unknown(&image, topic, offsets, unknown),
            }
        }
    }
    let reply = dispatcher.context.groups.begin_if(permitted, Command::OffsetCommit(commit));
    call.waiting(async move {
        let Reply::OffsetCommit(results) = reply.await else { return OffsetCommitResponse::default() };
        // The results stand in the order of the request, so that the ids can be put beside them.
        let topics = results
            .into_iter()
            .zip(ids)
            .map(|(result, topic_id)| Topic {
                topic_id,
                name: result.topic,
                partitions: result
                    .partitions
                    .into_iter()
                    .map(|(partition_index, error)| Partition { partition_index, error_code: error.code() })
                    .collect(),
            })
            .collect();
        OffsetCommitResponse { topics, ..Default::default() }
    })
}

/// An offset of a partition that does not exist is refused before the coordinator sees it.
pub(super) fn mark_unknown(
    image: &MetadataImage,
    topic: &Text,
    offsets: &mut [OffsetToCommit],
    topic_unknown: ErrorCode,
) {
    let known = image.topic_by_name(topic);
    for offset in offsets {
        let exists = known.is_some_and(|known| {
            usize::try_from(offset.partition).is_ok_and(|partition| partition < known.partitions.len())
        });
        if !exists {
            offset.error = if known.is_none() { topic_unknown } else { ErrorCode::UnknownTopicOrPartition };
        }
    }
}
