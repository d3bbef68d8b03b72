//! ExpireDelegationToken 1-2: a token, named by its HMAC, ends: at once, or at a time.

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{ExpireDelegationTokenRequest, ExpireDelegationTokenResponse};

use super::delegation_tokens::{carry_out, check_offered, requester_of, token_of};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ExpireDelegationTokenRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let at = call.clone();
    call.exclusive(async move {
        let expired = expire(&context, &at, &request).await;
        ExpireDelegationTokenResponse {
            error_code: expired.err().map_or(0, ErrorCode::code),
            expiry_timestamp_ms: expired.unwrap_or(-1),
            ..Default::default()
        }
    })
}

async fn expire(
    context: &BrokerContext,
    call: &Call,
    request: &ExpireDelegationTokenRequest,
) -> Result<i64, ErrorCode> {
    let secret = check_offered(context, call)?;
    let command = proto::ExpireDelegationToken {
        token_id: token_of(context, secret, &request.hmac),
        requester: Some(requester_of(call)),
        expiry_period_ms: request.expiry_time_period_ms,
        now_ms: BrokerContext::now_ms(),
    };
    let reply = carry_out(context, call, proto::command::Command::ExpireDelegationToken(command)).await?;
    Ok(reply.expiry_ms)
}
