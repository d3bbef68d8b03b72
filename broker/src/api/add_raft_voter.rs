//! AddRaftVoter 0-1: a controller that follows the quorum gets a vote (KIP-853). With version 1 a client may wish to be
//! answered before the change is committed (KIP-1186); it is answered when it is, which says more.

use std::sync::Arc;

use ottla_metadata::config::get_list;
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::add_raft_voter_request::Listener;
use ottla_wire::messages::{AddRaftVoterRequest, AddRaftVoterResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::forward::{code_of, patience};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AddRaftVoterRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    if let Err(code) = context.access(&call).cluster(Operation::Alter) {
        return call.ready(&AddRaftVoterResponse {
            error_code: code.code(),
            error_message: Some(REFUSED.into()),
            ..Default::default()
        });
    }
    call.exclusive(async move {
        let mut response = AddRaftVoterResponse::default();
        if let Err((code, message)) = add(&context, request).await {
            response.error_code = code.code();
            response.error_message = Some(Text::from(message));
        }
        response
    })
}

async fn add(context: &BrokerContext, request: AddRaftVoterRequest) -> Result<(), (ErrorCode, String)> {
    check_cluster(context, request.cluster_id.as_deref())?;
    if request.voter_id < 0 {
        return Err((ErrorCode::InvalidRequest, format!("{} is no node id", request.voter_id)));
    }
    if request.voter_directory_id.is_nil() {
        let text = "the voter's directory id is missing: 'ottla quorum status' shows that of each observer";
        return Err((ErrorCode::InvalidRequest, text.to_owned()));
    }
    let endpoint = endpoint(context, &request.listeners)?;
    let change = proto::change_quorum_request::Change::Add(proto::AddVoter {
        node_id: request.voter_id,
        incarnation: bytes::Bytes::copy_from_slice(request.voter_directory_id.as_bytes()),
        endpoint,
    });
    change_quorum(context, change, request.timeout_ms).await
}

/// Where the new voter is: at the listener that has the name of this node's controllers' listener, or else the first.
fn endpoint(context: &BrokerContext, listeners: &[Listener]) -> Result<String, (ErrorCode, String)> {
    let names = get_list(&context.options.properties, "controller.listener.names");
    let named =
        listeners.iter().find(|listener| names.iter().any(|name| listener.name.eq_ignore_ascii_case(name)));
    let listener = named
        .or_else(|| listeners.first())
        .filter(|listener| listener.port != 0 && !listener.host.is_empty());
    let Some(listener) = listener else {
        let text = "the new voter's listener with host and port is missing".to_owned();
        return Err((ErrorCode::InvalidRequest, text));
    };
    let (host, port) = (&*listener.host, listener.port);
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Refuses a request that is meant for another cluster.
pub(super) fn check_cluster(
    context: &BrokerContext,
    cluster_id: Option<&str>,
) -> Result<(), (ErrorCode, String)> {
    let image = context.image.current();
    match cluster_id {
        Some(theirs) if theirs != image.cluster_id() => {
            let text = format!("this is cluster {}, not {theirs}", image.cluster_id());
            Err((ErrorCode::InconsistentClusterId, text))
        }
        _ => Ok(()),
    }
}

/// Has the controller that leads change the quorum.
pub(super) async fn change_quorum(
    context: &BrokerContext,
    change: proto::change_quorum_request::Change,
    timeout_ms: i32,
) -> Result<(), (ErrorCode, String)> {
    let patience = patience(timeout_ms);
    let request = proto::ChangeQuorumRequest {
        cluster_id: context.image.current().cluster_id().to_owned(),
        timeout_ms: i64::try_from(patience.as_millis()).unwrap_or(i64::MAX),
        change: Some(change),
    };
    let reply = context.controller.change_quorum(request, patience).await;
    let reply = reply.map_err(|error| (ErrorCode::RequestTimedOut, error.to_string()))?;
    match reply.failure {
        Some(failure) if failure.error_code != 0 => Err((code_of(failure.error_code), failure.message)),
        _ => Ok(()),
    }
}
