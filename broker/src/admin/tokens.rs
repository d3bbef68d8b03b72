//! Delegation tokens of the admin plane (KIP-48): for callers who are known, by the same rules as in the Kafka protocol.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ottla_metadata::credentials::{DelegationToken, Principal as Owner};
use ottla_metadata::decide::describe_delegation_tokens;
use ottla_proto::admin as proto;
use ottla_proto::controller;
use ottla_proto::controller::command::Command;
use ottla_proto::controller::command_reply::Reply;
use ottla_wire::error_code::ErrorCode;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::access::permit;
use super::{AdminService, status};
use crate::api::authorization::Operation;
use crate::context::BrokerContext;
use crate::security::publish::token_secret;
use crate::security::{Principal, TokenSecret};

/// Somebody as it is typed.
fn principal(text: &str) -> Result<Owner, Status> {
    let named = Principal::parse(text).ok_or_else(|| {
        let message = format!("'{text}' is no principal");
        status(Code::InvalidArgument, ErrorCode::InvalidRequest, &message, "write User:NAME")
    })?;
    Ok(owner(&named))
}

fn owner(principal: &Principal) -> Owner {
    Owner { kind: principal.principal_type.to_string(), name: principal.name.to_string() }
}

impl AdminService {
    /// Who calls, and the secret: nobody who is not known gets tokens, and without a secret there are none.
    fn check_tokens<T>(&self, request: &Request<T>) -> Result<(Owner, TokenSecret), Status> {
        let caller = Self::caller(request);
        if caller.by_token {
            return Err(status(
                Code::PermissionDenied,
                ErrorCode::DelegationTokenRequestNotAllowed,
                "who came by a token gets no further ones",
                "sign in as yourself",
            ));
        }
        if caller == Principal::anonymous() {
            return Err(status(
                Code::PermissionDenied,
                ErrorCode::DelegationTokenRequestNotAllowed,
                "tokens are for callers who are known, and nobody is on this connection",
                "show a certificate or sign in: --tls-cert FILE --tls-key FILE, or --sasl-user NAME --sasl-password-file FILE",
            ));
        }
        let secret = token_secret(&self.properties).ok_or_else(|| {
            status(
                Code::FailedPrecondition,
                ErrorCode::DelegationTokenAuthDisabled,
                "delegation tokens are not offered",
                "set delegation.token.secret.key to the same secret on every node",
            )
        })?;
        Ok((owner(&caller), secret))
    }

    async fn submit_token(&self, command: Command) -> Result<controller::DelegationTokenReply, Status> {
        match self.submit(command).await? {
            Reply::DelegationToken(reply) => Ok(reply),
            _ => Err(Status::internal("the controller answered another question")),
        }
    }

    pub(super) async fn make_token(
        &self,
        request: Request<proto::CreateTokenRequest>,
    ) -> Result<proto::Token, Status> {
        let (caller, secret) = self.check_tokens(&request)?;
        let access = self.access(&request);
        let request = request.into_inner();
        let owner = if request.owner.is_empty() { caller.clone() } else { principal(&request.owner)? };
        if owner != caller {
            permit(access.user(Operation::CreateTokens, &owner.to_string()))?;
        }
        let renewers = request.renewers.iter().map(|text| principal(text)).collect::<Result<Vec<_>, _>>()?;
        let id = URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes());
        let command = controller::CreateDelegationToken {
            token_id: id.clone(),
            owner: Some(owner.to_proto()),
            requester: Some(caller.to_proto()),
            renewers: renewers.iter().map(Owner::to_proto).collect(),
            lifetime_ms: request.lifetime_ms,
            now_ms: BrokerContext::now_ms(),
        };
        let reply = self.submit_token(Command::CreateDelegationToken(command)).await?;
        Ok(proto::Token {
            hmac: secret.hmac(&id),
            id,
            owner: owner.to_string(),
            requester: caller.to_string(),
            renewers: renewers.iter().map(ToString::to_string).collect(),
            issue_ms: reply.issue_ms,
            expiry_ms: reply.expiry_ms,
            max_ms: reply.max_ms,
        })
    }

    pub(super) fn tokens(
        &self,
        request: &Request<proto::ListTokensRequest>,
    ) -> Result<Vec<proto::Token>, Status> {
        let (caller, secret) = self.check_tokens(request)?;
        let access = self.access(request);
        let owners =
            request.get_ref().owners.iter().map(|text| principal(text)).collect::<Result<Vec<_>, _>>()?;
        let is_shown = |token: &DelegationToken| {
            (owners.is_empty() || owners.iter().any(|owner| token.may_be_managed_by(owner)))
                && (token.may_be_managed_by(&caller)
                    || access.sees_token(&token.id, &token.owner.to_string()))
        };
        let image = self.image.current();
        let shown = describe_delegation_tokens(&image, None, BrokerContext::now_ms(), is_shown);
        Ok(shown.map(|token| to_answer(token, &secret)).collect())
    }

    pub(super) async fn end_token_later(
        &self,
        request: Request<proto::ChangeTokenRequest>,
    ) -> Result<proto::ChangeTokenReply, Status> {
        let (caller, secret) = self.check_tokens(&request)?;
        let request = request.into_inner();
        let image = self.image.current();
        let ids = image.delegation_tokens().map(|token| token.id.as_str());
        let token_id = secret.find(&request.hmac, ids).unwrap_or_default().to_owned();
        let (requester, now_ms) = (Some(caller.to_proto()), BrokerContext::now_ms());
        let command = if request.expire {
            let expiry_period_ms = request.period_ms;
            let expire = controller::ExpireDelegationToken { token_id, requester, expiry_period_ms, now_ms };
            Command::ExpireDelegationToken(expire)
        } else {
            let renew_period_ms = request.period_ms;
            let renew = controller::RenewDelegationToken { token_id, requester, renew_period_ms, now_ms };
            Command::RenewDelegationToken(renew)
        };
        let reply = self.submit_token(command).await?;
        Ok(proto::ChangeTokenReply { expiry_ms: reply.expiry_ms })
    }
}

fn to_answer(token: &DelegationToken, secret: &TokenSecret) -> proto::Token {
    proto::Token {
        id: token.id.clone(),
        hmac: secret.hmac(&token.id),
        owner: token.owner.to_string(),
        requester: token.requester.to_string(),
        renewers: token.renewers.iter().map(ToString::to_string).collect(),
        issue_ms: token.issue_ms,
        expiry_ms: token.expiry_ms,
        max_ms: token.max_ms,
    }
}
