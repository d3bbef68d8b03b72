//! LeaveGroup 0-5: members leave a classic group, from version 3 on several at once.

use ottla_coordinator::group::{Command, Leave, LeaveReply, Reply};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::LeaveGroupRequest;

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: LeaveGroupRequest,
) -> Answer {
    let version = call.version;
    let permitted = dispatcher.context.access(&call).group(Operation::Read, &request.group_id);
    let command = Command::Leave(Leave::from_request(request, version));
    let reply = dispatcher.context.groups.begin_if(permitted, command);
    call.waiting(async move {
        match reply.await {
            Reply::Leave(reply) => reply,
            _ => LeaveReply { error: ErrorCode::UnknownServerError, members: Vec::new() },
        }
        .into_response(version)
    })
}
