//! What the four APIs of delegation tokens share (KIP-48): who may ask at all, and who principals are on the wire.

use ottla_metadata::credentials::Principal as Owner;
use ottla_proto::controller as proto;
use ottla_proto::metadata as records;
use ottla_wire::error_code::ErrorCode;

use super::Call;
use super::forward::{REQUEST_TIMEOUT, submit};
use crate::context::BrokerContext;
use crate::security::{Principal, TokenSecret};

/// Who came by a token gets no further ones, and nobody does who has not said who it is; without a secret there are none.
pub(super) fn check_offered<'a>(
    context: &'a BrokerContext,
    call: &Call,
) -> Result<&'a TokenSecret, ErrorCode> {
    if call.principal.by_token || *call.principal == Principal::anonymous() {
        return Err(ErrorCode::DelegationTokenRequestNotAllowed);
    }
    context.token_secret.as_ref().ok_or(ErrorCode::DelegationTokenAuthDisabled)
}

/// Whoever sent a request, as the metadata names principals.
pub(super) fn requester(call: &Call) -> Owner {
    Owner { kind: call.principal.principal_type.to_string(), name: call.principal.name.to_string() }
}

/// As [`requester`], for a command.
pub(super) fn requester_of(call: &Call) -> records::Principal {
    requester(call).to_proto()
}

/// The id of the token with an HMAC; empty: there is none, as the controller will say.
pub(super) fn token_of(context: &BrokerContext, secret: &TokenSecret, hmac: &[u8]) -> String {
    let image = context.image.current();
    let ids = image.delegation_tokens().map(|token| token.id.as_str());
    secret.find(hmac, ids).unwrap_or_default().to_owned()
}

/// Has a command carried out; its reply, or the code of its refusal.
pub(super) async fn carry_out(
    context: &BrokerContext,
    call: &Call,
    command: proto::command::Command,
) -> Result<proto::DelegationTokenReply, ErrorCode> {
    match submit(context, command, REQUEST_TIMEOUT).await {
        Ok(proto::command_reply::Reply::DelegationToken(reply)) => {
            tracing::info!(target: "ottla::audit", by = %call.principal, api = ?call.api_key, "delegation token changed");
            Ok(reply)
        }
        Ok(_) => Err(ErrorCode::UnknownServerError),
        Err((code, message)) => {
            tracing::info!(api = ?call.api_key, ?code, message, "refused");
            Err(code)
        }
    }
}
