//! RenewDelegationToken 1-2: a token, named by its HMAC, is good for longer.

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{RenewDelegationTokenRequest, RenewDelegationTokenResponse};

use super::delegation_tokens::{carry_out, check_offered, requester_of, token_of};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: RenewDelegationTokenRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let at = call.clone();
    call.exclusive(async move {
        let renewed = renew(&context, &at, &request).await;
        RenewDelegationTokenResponse {
            error_code: renewed.err().map_or(0, ErrorCode::code),
            expiry_timestamp_ms: renewed.unwrap_or(-1),
            ..Default::default()
        }
    })
}

async fn renew(
    context: &BrokerContext,
    call: &Call,
    request: &RenewDelegationTokenRequest,
) -> Result<i64, ErrorCode> {
    let secret = check_offered(context, call)?;
    let command = proto::RenewDelegationToken {
        token_id: token_of(context, secret, &request.hmac),
        requester: Some(requester_of(call)),
        renew_period_ms: request.renew_period_ms,
        now_ms: BrokerContext::now_ms(),
    };
    let reply = carry_out(context, call, proto::command::Command::RenewDelegationToken(command)).await?;
    Ok(reply.expiry_ms)
}
