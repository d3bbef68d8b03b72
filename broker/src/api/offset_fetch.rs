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

use super::authorization::{Access, Operation};
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
    let asker = Asker { groups: &dispatcher.context.groups, access: dispatcher.context.access(&call) };
    if call.version < GROUPS_FROM {
        return call.ready(&single(&asker, call.version, request));
    }
    let image = dispatcher.context.image.current();
    let require_stable = request.require_stable;
    let groups = request
        .groups
        .into_iter()
        .map(|asked| one_of_many(&asker, &image, call.version, asked, require_stable))
        .collect();
    call.ready(&OffsetFetchResponse { groups, ..Default::default() })
}

fn single(asker: &Asker<'_>, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let mut asked: Option<Vec<(Text, Vec<i32>)>> = request
        .topics
        .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect());
    match asker.fetch(&request.group_id, &mut asked, None, request.require_stable) {
        Ok((found, hidden)) => {
            let hidden = hidden.into_iter().flat_map(|(topic, code)| refused(vec![topic], code));
            OffsetFetchResponse {
                topics: found.into_iter().map(Topic::from).chain(hidden).collect(),
                ..Default::default()
            }
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
    asker: &Asker<'_>,
    image: &MetadataImage,
    version: i16,
    asked: Asked,
    require_stable: bool,
) -> Group {
    let Asked { group_id, member_id, member_epoch, topics, .. } = asked;
    let mut unknown = Vec::new();
    let mut known: Option<Vec<(Text, Vec<i32>)>> = topics.map(|topics| {
        let mut known = Vec::with_capacity(topics.len());
        for topic in topics {
            if version < BY_ID_FROM {
                known.push((topic.name, topic.partition_indexes));
            } else if let Some(found) = image.topic_by_id(topic.topic_id.into()) {
                known.push((Text::from(&*found.name), topic.partition_indexes));
            } else {
                let code = ErrorCode::UnknownTopicId;
                unknown.push(no_offsets(Text::default(), topic.topic_id, topic.partition_indexes, code));
            }
        }
        known
    });
    let reader = (version >= MEMBERS_FROM).then_some((member_id.as_ref(), member_epoch));
    match asker.fetch(&group_id, &mut known, reader, require_stable) {
        Ok((found, hidden)) => {
            let hidden = hidden.into_iter().map(|((name, partitions), code)| {
                let id = image.topic_by_name(&name).map_or(Uuid::nil(), |topic| Uuid::from(topic.id));
                no_offsets(name, id, partitions, code)
            });
            let topics = found.into_iter().map(GroupTopic::from).filter_map(|mut topic| {
                if version >= BY_ID_FROM {
                    // Offsets of a topic that was deleted meanwhile have no id to be told by.
                    topic.topic_id = Uuid::from(image.topic_by_name(&topic.name)?.id);
                }
                Some(topic)
            });
            Group { group_id, topics: topics.chain(unknown).chain(hidden).collect(), ..Default::default() }
        }
        Err(error) => Group { group_id, error_code: error.code(), ..Default::default() },
    }
}

fn no_offsets(name: Text, topic_id: Uuid, partitions: Vec<i32>, error: ErrorCode) -> GroupTopic {
    let partition = |partition_index| Partition {
        partition_index,
        committed_offset: NO_OFFSET,
        metadata: Some(Text::default()),
        error_code: error.code(),
        ..Default::default()
    };
    GroupTopic { name, topic_id, partitions: partitions.into_iter().map(partition).collect() }
}

/// Who asks whom.
struct Asker<'a> {
    groups: &'a GroupService,
    access: Access,
}

/// The partitions asked for of a topic that the client may not see, and what it is told.
type Hidden = ((Text, Vec<i32>), ErrorCode);

/// Member id and epoch of a member that asks (KIP-848); without an id it is somebody outside of the group.
type Reader<'a> = (Option<&'a Text>, i32);

impl Asker<'_> {
    /// The offsets of a group as far as the client may see them: what it asks for by name and may not see is taken out and told,
    /// what it does not ask for by name is left out.
    fn fetch(
        &self,
        group_id: &Text,
        topics: &mut Option<Vec<(Text, Vec<i32>)>>,
        reader: Option<Reader<'_>>,
        require_stable: bool,
    ) -> Result<(Vec<FetchedTopic>, Vec<Hidden>), ErrorCode> {
        self.access.group(Operation::Describe, group_id)?;
        let hidden = topics.as_mut().map_or_else(Vec::new, |topics| {
            self.access.take_refused(topics, |access, (name, _)| access.topic(Operation::Describe, name))
        });
        let mut found = self.groups.query(group_id, |machine| {
            if let Some((member_id, member_epoch)) = reader {
                machine.may_fetch_offsets(group_id, member_id, member_epoch)?;
            }
            machine.fetch_offsets(group_id, topics.as_deref(), require_stable)
        })?;
        if topics.is_none() && self.access.is_bound() {
            found.retain(|topic| self.access.sees_topic(Operation::Describe, &topic.topic));
        }
        Ok((found, hidden))
    }
}
