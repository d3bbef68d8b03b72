//! ShareGroupDescribe 1: share groups as their coordinator sees them (KIP-932).

use ottla_coordinator::consumer_group::Refusal;
use ottla_coordinator::group::ShareGroupDescription;
use ottla_metadata::features::SHARE_VERSION;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{ShareGroupDescribeRequest, ShareGroupDescribeResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ShareGroupDescribeRequest,
) -> Answer {
    let context = &dispatcher.context;
    let is_served = context.image.current().feature_level(SHARE_VERSION) > 0;
    let access = context.access(&call);
    let groups = request.group_ids.into_iter().map(|group_id| {
        let refused = |group_id, code| ShareGroupDescription::refused(group_id, &Refusal::from_code(code));
        if !is_served {
            return refused(group_id, ErrorCode::UnsupportedVersion);
        }
        if let Err(code) = access.group(Operation::Describe, &group_id) {
            return refused(group_id, code);
        }
        let described =
            context.groups.query(&group_id, |machine| Ok(machine.describe_share_group(&group_id)));
        let mut group = match described {
            Ok(Ok(description)) => description.into_response(group_id),
            Ok(Err(refusal)) => return ShareGroupDescription::refused(group_id, &refusal),
            Err(code) => return refused(group_id, code),
        };
        // Who may see a group may not see of which topics it reads.
        let mut topics = group.members.iter().flat_map(|member| &member.assignment.topic_partitions);
        let seen = topics.all(|topic| access.sees_topic(Operation::Describe, &topic.topic_name));
        if !seen {
            return refused(group.group_id, ErrorCode::TopicAuthorizationFailed);
        }
        if request.include_authorized_operations {
            group.authorized_operations = access.group_operations(&group.group_id);
        }
        group
    });
    call.ready(&ShareGroupDescribeResponse { groups: groups.collect(), ..Default::default() })
}
