//! OffsetFetch 1-10: committed offsets, of some or all partitions; from version 8 on of several groups at once, from
//! version 10 on topics are named by id.

use ottla_coordinator::group::FetchedTopic;
use ottla_metadata::image::MetadataImage;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::offset_fetch_request::Group as Asked;
use ottla_wire::messages::offset_fetch_response::{Group, GroupTopic, Partition, Topic, TopicPartition};
use ottla_wire::messages::{OffsetFetchRequest, OffsetFetchResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::{Answer, Call, Client, Dispatcher};
use crate::groups::GroupService;

/// From this version on several groups are asked for at once.
const GROUPS_FROM: i16 = 8;
/// From this version on members of consumer groups tell who they are.
const MEMBERS_FROM: i16 = 9;
/// From this version on topics are named by id.
const BY_ID_FROM: i16 = 10;
/// Before this version there is no error for the group: each partition carries it.
const GROUP_ERROR_FROM: i16 = 2;
/// Kafka's offset of a partition without a commit.
const NO_OFFSET: i64 = -1;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: OffsetFetchRequest,
) -> Answer {
    let groups = &dispatcher.context.groups;
    if call.version < GROUPS_FROM {
        return call.ready(&single(groups, call.version, request));
    }
    let image = dispatcher.context.image.current();
    let require_stable = request.require_stable;
    let groups = request
        .groups
        .into_iter()
        .map(|asked| one_of_many(groups, &image, call.version, asked, require_stable))
        .collect();
    call.ready(&OffsetFetchResponse { groups, ..Default::default() })
}

fn single(groups: &GroupService, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let asked: Option<Vec<(Text, Vec<i32>)>> = request
        .topics
        .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect());
    match fetch(groups, &request.group_id, asked.as_deref(), request.require_stable) {
        Ok(found) => {
            OffsetFetchResponse { topics: found.into_iter().map(Topic::from).collect(), ..Default::default() }
        }
        Err(error) => OffsetFetchResponse {
            topics: if version < GROUP_ERROR_FROM {
                refused(asked.unwrap_or_default(), error)
            } else {
                Vec::new()
            },
            error_code: error.code(),
            ..Default::default()
        },
    }
}

fn refused(asked: Vec<(Text, Vec<i32>)>, error: ErrorCode) -> Vec<Topic> {
    let partition = |partition_index| TopicPartition {
        partition_index,
        committed_offset: NO_OFFSET,
        metadata: Some(Text::default()),
        error_code: error.code(),
        ..Default::default()
    };
    asked
        .into_iter()
        .map(|(name, partitions)| Topic { name, partitions: partitions.into_iter().map(partition).collect() })
        .collect()
}

fn one_of_many(
    groups: &GroupService,
    image: &MetadataImage,
    version: i16,
    asked: Asked,
    require_stable: bool,
) -> Group {
    let Asked { group_id, member_id, member_epoch, topics, .. } = asked;
    let mut unknown = Vec::new();
    let known: Option<Vec<(Text, Vec<i32>)>> = topics.map(|topics| {
        let mut known = Vec::with_capacity(topics.len());
        for topic in topics {
            if version < BY_ID_FROM {
                known.push((topic.name, topic.partition_indexes));
            } else if let Some(found) = image.topic_by_id(topic.topic_id.into()) {
                known.push((Text::from(&*found.name), topic.partition_indexes));
            } else {
                unknown.push(unknown_topic(topic.topic_id, topic.partition_indexes));
            }
        }
        known
    });
    let found = groups.query(&group_id, |machine| {
        if version >= MEMBERS_FROM {
            machine.may_fetch_offsets(&group_id, member_id.as_ref(), member_epoch)?;
        }
        machine.fetch_offsets(&group_id, known.as_deref(), require_stable)
    });
    match found {
        Ok(found) => {
            let topics = found.into_iter().map(GroupTopic::from).filter_map(|mut topic| {
                if version >= BY_ID_FROM {
                    // Offsets of a topic that was deleted meanwhile have no id to be told by.
                    topic.topic_id = Uuid::from(image.topic_by_name(&topic.name)?.id);
                }
                Some(topic)
            });
            Group { group_id, topics: topics.chain(unknown).collect(), ..Default::default() }
        }
        Err(error) => Group { group_id, error_code: error.code(), ..Default::default() },
    }
}

fn unknown_topic(topic_id: Uuid, partitions: Vec<i32>) -> GroupTopic {
    let partition = |partition_index| Partition {
        partition_index,
        committed_offset: NO_OFFSET,
        metadata: Some(Text::default()),
        error_code: ErrorCode::UnknownTopicId.code(),
        ..Default::default()
    };
    GroupTopic { topic_id, partitions: partitions.into_iter().map(partition).collect(), ..Default::default() }
}

fn fetch(
    groups: &GroupService,
    group_id: &Text,
    topics: Option<&[(Text, Vec<i32>)]>,
    require_stable: bool,
) -> Result<Vec<FetchedTopic>, ErrorCode> {
    groups.query(group_id, |machine| machine.fetch_offsets(group_id, topics, require_stable))
}
