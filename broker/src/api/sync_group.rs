//! SyncGroup 0-5: the leader hands out the assignment, every member receives its own.

use ottla_coordinator::group::{Command, Reply, Sync, SyncReply};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::SyncGroupRequest;

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: SyncGroupRequest,
) -> Answer {
    let permitted = dispatcher.context.access(&call).group(Operation::Read, &request.group_id);
    let command = Command::Sync(Sync::from_request(request, call.version));
    let reply = dispatcher.context.groups.begin_if(permitted, command);
    call.waiting(async move {
        match reply.await {
            Reply::Sync(reply) => reply,
            _ => SyncReply::refused(ErrorCode::UnknownServerError),
        }
        .into_response()
    })
}
