//! RemoveRaftVoter 0: a controller loses its vote (KIP-853). It follows on as an observer until it is stopped.

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};
use ottla_wire::text::Text;

use super::add_raft_voter::{change_quorum, check_cluster};
use super::authorization::{Operation, REFUSED};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// The request names no timeout; this is the broker's `request.timeout.ms`.
const TIMEOUT_MS: i32 = 30_000;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: RemoveRaftVoterRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    if let Err(code) = context.access(&call).cluster(Operation::Alter) {
        return call.ready(&RemoveRaftVoterResponse {
            error_code: code.code(),
            error_message: Some(REFUSED.into()),
            ..Default::default()
        });
    }
    call.exclusive(async move {
        let mut response = RemoveRaftVoterResponse::default();
        if let Err((code, message)) = remove(&context, request).await {
            response.error_code = code.code();
            response.error_message = Some(Text::from(message));
        }
        response
    })
}

async fn remove(context: &BrokerContext, request: RemoveRaftVoterRequest) -> Result<(), (ErrorCode, String)> {
    check_cluster(context, request.cluster_id.as_deref())?;
    if request.voter_id < 0 || request.voter_directory_id.is_nil() {
        let text = "the voter's node id and directory id are needed: 'ottla quorum status' shows both";
        return Err((ErrorCode::InvalidRequest, text.to_owned()));
    }
    let change = proto::change_quorum_request::Change::Remove(proto::RemoveVoter {
        node_id: request.voter_id,
        incarnation: bytes::Bytes::copy_from_slice(request.voter_directory_id.as_bytes()),
    });
    change_quorum(context, change, TIMEOUT_MS).await
}
