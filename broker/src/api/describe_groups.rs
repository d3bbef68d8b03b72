//! DescribeGroups 0-6: groups as their coordinator sees them.

use ottla_wire::messages::describe_groups_response::Group;
use ottla_wire::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeGroupsRequest,
) -> Answer {
    let groups = request
        .groups
        .into_iter()
        .map(|group_id| {
            match dispatcher.context.groups.query(&group_id, |machine| machine.describe(&group_id)) {
                Ok(description) => description.into_response(group_id, call.version),
                Err(error) => Group { error_code: error.code(), group_id, ..Default::default() },
            }
        })
        .collect();
    call.ready(&DescribeGroupsResponse { groups, ..Default::default() })
}
