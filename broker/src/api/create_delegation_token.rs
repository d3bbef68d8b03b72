//! CreateDelegationToken 1-3: a password for a while, for oneself or, from version 3 on, for somebody else (KIP-48, KIP-373).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ottla_metadata::credentials::Principal as Owner;
use ottla_proto::controller as proto;
use ottla_proto::metadata as records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{CreateDelegationTokenRequest, CreateDelegationTokenResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::Operation;
use super::delegation_tokens::{carry_out, check_offered, requester, requester_of};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// The only type of principals that tokens are for.
const USER: &str = "User";

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: CreateDelegationTokenRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let owner = match &request.owner_principal_name {
        Some(name) if !name.is_empty() => Owner {
            kind: request.owner_principal_type.as_deref().unwrap_or_default().to_owned(),
            name: name.to_string(),
        },
        _ => requester(&call),
    };
    if let Err(code) = check(&context, &call, &request, &owner) {
        return call.ready(&answer(&call, &owner, Err(code)));
    }
    let at = call.clone();
    call.exclusive(async move {
        let created = create(&context, &at, &request, &owner).await;
        answer(&at, &owner, created)
    })
}

fn check(
    context: &BrokerContext,
    call: &Call,
    request: &CreateDelegationTokenRequest,
    owner: &Owner,
) -> Result<(), ErrorCode> {
    check_offered(context, call)?;
    if *owner != requester(call) {
        context.access(call).user(Operation::CreateTokens, &owner.to_string())?;
    }
    if request.renewers.iter().any(|renewer| *renewer.principal_type != *USER) {
        return Err(ErrorCode::InvalidPrincipalType);
    }
    Ok(())
}

/// A new token: its id, its HMAC and its times.
type Created = (String, bytes::Bytes, proto::DelegationTokenReply);

async fn create(
    context: &BrokerContext,
    call: &Call,
    request: &CreateDelegationTokenRequest,
    owner: &Owner,
) -> Result<Created, ErrorCode> {
    let secret = check_offered(context, call)?;
    let token_id = URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes());
    let command = proto::CreateDelegationToken {
        token_id: token_id.clone(),
        owner: Some(owner.to_proto()),
        requester: Some(requester_of(call)),
        renewers: request
            .renewers
            .iter()
            .map(|renewer| records::Principal {
                r#type: renewer.principal_type.to_string(),
                name: renewer.principal_name.to_string(),
            })
            .collect(),
        lifetime_ms: request.max_lifetime_ms,
        now_ms: BrokerContext::now_ms(),
    };
    let reply = carry_out(context, call, proto::command::Command::CreateDelegationToken(command)).await?;
    let hmac = secret.hmac(&token_id);
    Ok((token_id, hmac, reply))
}

fn answer(call: &Call, owner: &Owner, created: Result<Created, ErrorCode>) -> CreateDelegationTokenResponse {
    let requester = requester(call);
    let mut response = CreateDelegationTokenResponse {
        principal_type: Text::from(owner.kind.as_str()),
        principal_name: Text::from(owner.name.as_str()),
        token_requester_principal_type: Text::from(requester.kind),
        token_requester_principal_name: Text::from(requester.name),
        issue_timestamp_ms: -1,
        expiry_timestamp_ms: -1,
        max_timestamp_ms: -1,
        ..Default::default()
    };
    match created {
        Ok((token_id, hmac, reply)) => {
            response.issue_timestamp_ms = reply.issue_ms;
            response.expiry_timestamp_ms = reply.expiry_ms;
            response.max_timestamp_ms = reply.max_ms;
            response.token_id = Text::from(token_id);
            response.hmac = hmac;
        }
        Err(code) => response.error_code = code.code(),
    }
    response
}
