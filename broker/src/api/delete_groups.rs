//! DeleteGroups 0-2: groups without members, with their offsets.

use std::sync::Arc;

use ottla_coordinator::group::{Command, Reply};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::delete_groups_response::Result as Deleted;
use ottla_wire::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::authorization::Operation;
use super::delete_share_group_offsets;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DeleteGroupsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let access = context.access(&call);
    call.exclusive(async move {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for group_id in request.groups_names {
            let permitted = access.group(Operation::Delete, &group_id);
            let command = Command::DeleteGroup { group_id: group_id.clone() };
            // What a share group has of partitions goes first: a deletion cut short leaves a group that can be deleted again.
            let ready = match permitted {
                Ok(()) => delete_share_group_offsets::forget_group(&context, &group_id).await,
                refused => refused,
            };
            let reply = context.groups.begin_if(ready, command).await;
            let error = match reply {
                Reply::DeleteGroup(error) => error,
                _ => ErrorCode::UnknownServerError,
            };
            results.push(Deleted { group_id, error_code: error.code() });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    })
}
