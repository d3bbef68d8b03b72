//! JoinGroup 0-9: a member enters a classic group and waits for the others.

use ottla_coordinator::group::{Command, Join, JoinReply, Reply};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::JoinGroupRequest;

use super::authorization::Operation;
use super::groups::client_of;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: JoinGroupRequest,
) -> Answer {
    let permitted = dispatcher.context.access(&call).group(Operation::Read, &request.group_id);
    let join = Join::from_request(request, call.version, client_of(&call), uuid::Uuid::new_v4());
    let member_id = join.member_id.clone();
    let reply = dispatcher.context.groups.begin_if(permitted, Command::Join(join));
    let version = call.version;
    call.waiting(async move {
        match reply.await {
            Reply::Join(reply) => reply,
            _ => JoinReply::refused(ErrorCode::UnknownServerError, member_id),
        }
        .into_response(version)
    })
}
