//! ConsumerGroupDescribe 0-1: consumer groups as their coordinator sees them (KIP-848).

use ottla_coordinator::group::ConsumerGroupDescription;
use ottla_metadata::features::GROUP_VERSION;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ConsumerGroupDescribeRequest,
) -> Answer {
    let context = &dispatcher.context;
    let is_served = context.image.current().feature_level(GROUP_VERSION) > 0;
    let access = context.access(&call);
    let groups = request.group_ids.into_iter().map(|group_id| {
        if !is_served {
            return ConsumerGroupDescription::refused(group_id, ErrorCode::UnsupportedVersion);
        }
        let described = access.group(Operation::Describe, &group_id).and_then(|()| {
            context.groups.query(&group_id, |machine| machine.describe_consumer_group(&group_id))
        });
        let mut group = match described {
            Ok(description) => description.into_response(group_id),
            Err(error) => return ConsumerGroupDescription::refused(group_id, error),
        };
        // Who may see a group may not see of which topics it reads.
        let mut topics = group.members.iter().flat_map(|member| {
            let current = member.assignment.topic_partitions.iter().map(|topic| &topic.topic_name);
            let target = member.target_assignment.topic_partitions.iter().map(|topic| &topic.topic_name);
            current.chain(target)
        });
        let seen = topics.all(|topic| access.sees_topic(Operation::Describe, topic));
        drop(topics);
        if !seen {
            group = ConsumerGroupDescription::refused(group.group_id, ErrorCode::TopicAuthorizationFailed);
        } else if request.include_authorized_operations {
            group.authorized_operations = access.group_operations(&group.group_id);
        }
        group
    });
    call.ready(&ConsumerGroupDescribeResponse { groups: groups.collect(), ..Default::default() })
}
