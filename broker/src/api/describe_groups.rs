//! DescribeGroups 0-6: groups as their coordinator sees them.

use ottla_wire::messages::describe_groups_response::Group;
use ottla_wire::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::authorization::{OPERATIONS_OMITTED, Operation};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeGroupsRequest,
) -> Answer {
    let access = dispatcher.context.access(&call);
    let with_operations = request.include_authorized_operations;
    let groups = request
        .groups
        .into_iter()
        .map(|group_id| {
            let described = access.group(Operation::Describe, &group_id).and_then(|()| {
                dispatcher.context.groups.query(&group_id, |machine| machine.describe(&group_id))
            });
            match described {
                Ok(description) => Group {
                    authorized_operations: if with_operations {
                        access.group_operations(&group_id)
                    } else {
                        OPERATIONS_OMITTED
                    },
                    ..description.into_response(group_id, call.version)
                },
                Err(error) => Group { error_code: error.code(), group_id, ..Default::default() },
            }
        })
        .collect();
    call.ready(&DescribeGroupsResponse { groups, ..Default::default() })
}
