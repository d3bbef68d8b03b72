//! ConsumerGroupHeartbeat 0-1: a member of a consumer group joins, lives, leaves, and is told what to read (KIP-848).

use ottla_coordinator::consumer_group::{ConsumerHeartbeat, ConsumerHeartbeatReply};
use ottla_coordinator::group::{Command, Reply};
use ottla_metadata::features::GROUP_VERSION;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::ConsumerGroupHeartbeatRequest;

use super::authorization::Operation;
use super::groups::client_of;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ConsumerGroupHeartbeatRequest,
) -> Answer {
    let context = &dispatcher.context;
    if context.image.current().feature_level(GROUP_VERSION) == 0 {
        return call.ready(&ConsumerHeartbeatReply::failed(ErrorCode::UnsupportedVersion).into_response());
    }
    let access = context.access(&call);
    let mut permitted = access.group(Operation::Read, &request.group_id);
    for topic in request.subscribed_topic_names.iter().flatten() {
        permitted = permitted.and_then(|()| access.topic(Operation::Describe, topic));
    }
    if let Err(code) = permitted {
        return call.ready(&ConsumerHeartbeatReply::failed(code).into_response());
    }
    let uuid = uuid::Uuid::new_v4();
    let heartbeat = ConsumerHeartbeat::from_request(request, call.version, client_of(&call), uuid);
    let reply = context.groups.begin(Command::ConsumerHeartbeat(Box::new(heartbeat)));
    call.waiting(async move {
        match reply.await {
            Reply::ConsumerHeartbeat(reply) => reply,
            _ => ConsumerHeartbeatReply::failed(ErrorCode::UnknownServerError),
        }
        .into_response()
    })
}
