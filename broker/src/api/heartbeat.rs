//! Heartbeat 0-4: a member of a classic group lives, and hears of rebalances.

use ottla_coordinator::group::{Command, Heartbeat, Reply};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{HeartbeatRequest, HeartbeatResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: HeartbeatRequest,
) -> Answer {
    let permitted = dispatcher.context.access(&call).group(Operation::Read, &request.group_id);
    let command = Command::Heartbeat(Heartbeat::from_request(request));
    let reply = dispatcher.context.groups.begin_if(permitted, command);
    call.waiting(async move {
        let code = match reply.await {
            Reply::Heartbeat(code) => code,
            _ => ErrorCode::UnknownServerError,
        };
        HeartbeatResponse { error_code: code.code(), ..Default::default() }
    })
}
