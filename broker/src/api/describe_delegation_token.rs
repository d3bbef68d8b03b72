//! DescribeDelegationToken 1-3: tokens of some owners, or all: one's own, those that one may renew, and those that one may see.

use ottla_metadata::credentials::{DelegationToken, Principal as Owner};
use ottla_metadata::decide::describe_delegation_tokens;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_delegation_token_response::{Renewer, Token};
use ottla_wire::messages::{DescribeDelegationTokenRequest, DescribeDelegationTokenResponse};
use ottla_wire::text::Text;

use super::delegation_tokens::{check_offered, requester};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::security::TokenSecret;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeDelegationTokenRequest,
) -> Answer {
    let response = match describe(&dispatcher.context, &call, request) {
        Ok(tokens) => DescribeDelegationTokenResponse { tokens, ..Default::default() },
        Err(code) => DescribeDelegationTokenResponse { error_code: code.code(), ..Default::default() },
    };
    call.ready(&response)
}

fn describe(
    context: &BrokerContext,
    call: &Call,
    request: DescribeDelegationTokenRequest,
) -> Result<Vec<Token>, ErrorCode> {
    let secret = check_offered(context, call)?;
    let owners: Option<Vec<Owner>> = request.owners.map(|owners| {
        let owner = |owner: ottla_wire::messages::describe_delegation_token_request::Owner| Owner {
            kind: owner.principal_type.to_string(),
            name: owner.principal_name.to_string(),
        };
        owners.into_iter().map(owner).collect()
    });
    let (access, asker) = (context.access(call), requester(call));
    let is_shown = |token: &DelegationToken| {
        // Kafka counts the tokens that somebody may renew among those of that owner.
        let is_asked_for =
            owners.as_ref().is_none_or(|owners| owners.iter().any(|owner| token.may_be_managed_by(owner)));
        is_asked_for
            && (token.may_be_managed_by(&asker) || access.sees_token(&token.id, &token.owner.to_string()))
    };
    let image = context.image.current();
    let shown = describe_delegation_tokens(&image, None, BrokerContext::now_ms(), is_shown);
    Ok(shown.map(|token| to_answer(token, secret)).collect())
}

fn to_answer(token: &DelegationToken, secret: &TokenSecret) -> Token {
    let renewer = |renewer: &Owner| Renewer {
        principal_type: Text::from(renewer.kind.as_str()),
        principal_name: Text::from(renewer.name.as_str()),
    };
    Token {
        principal_type: Text::from(token.owner.kind.as_str()),
        principal_name: Text::from(token.owner.name.as_str()),
        token_requester_principal_type: Text::from(token.requester.kind.as_str()),
        token_requester_principal_name: Text::from(token.requester.name.as_str()),
        issue_timestamp: token.issue_ms,
        expiry_timestamp: token.expiry_ms,
        max_timestamp: token.max_ms,
        token_id: Text::from(token.id.as_str()),
        hmac: secret.hmac(&token.id),
        renewers: token.renewers.iter().map(renewer).collect(),
    }
}
