//! StreamsGroupDescribe 0: streams groups as their coordinator sees them (KIP-1071).

use ottla_coordinator::group::StreamsGroupDescription;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{StreamsGroupDescribeRequest, StreamsGroupDescribeResponse};

use super::authorization::Operation;
use super::streams_group_heartbeat::is_served;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: StreamsGroupDescribeRequest,
) -> Answer {
    let context = &dispatcher.context;
    let is_served = is_served(context);
    let access = context.access(&call);
    let groups = request.group_ids.into_iter().map(|group_id| {
        if !is_served {
            return StreamsGroupDescription::refused(group_id, ErrorCode::UnsupportedVersion);
        }
        let described = access.group(Operation::Describe, &group_id).and_then(|()| {
            context.groups.query(&group_id, |machine| machine.describe_streams_group(&group_id))
        });
        let mut group = match described {
            Ok(description) => description.into_response(group_id),
            Err(error) => return StreamsGroupDescription::refused(group_id, error),
        };
        // Who may see a group may not see of which topics it reads.
        let subtopologies =
            group.topology.iter().flat_map(|topology| topology.subtopologies.iter().flatten());
        let mut topics = subtopologies.flat_map(|subtopology| {
            let internal = subtopology.repartition_source_topics.iter().map(|topic| &topic.name);
            let changelogs = subtopology.state_changelog_topics.iter().map(|topic| &topic.name);
            let plain = subtopology.source_topics.iter().chain(&subtopology.repartition_sink_topics);
            plain.chain(internal).chain(changelogs)
        });
        let seen = topics.all(|topic| access.sees_topic(Operation::Describe, topic));
        drop(topics);
        if !seen {
            group = StreamsGroupDescription::refused(group.group_id, ErrorCode::TopicAuthorizationFailed);
        } else if request.include_authorized_operations {
            group.authorized_operations = access.group_operations(&group.group_id);
        }
        group
    });
    call.ready(&StreamsGroupDescribeResponse { groups: groups.collect(), ..Default::default() })
}
