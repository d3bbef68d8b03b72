//! Delegation tokens: create, renew, expire, and the sweep of those that are over (KIP-48, KIP-900).
//!
//! A broker that is given an HMAC finds the token's id, and names it here. Times come in from its clock.

use std::collections::BTreeMap;

use ottla_proto::controller as proto;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{self, MetadataRecord, RemoveDelegationTokenRecord};
use ottla_wire::error_code::ErrorCode;

use super::{BACKGROUND_PARTITIONS_MAX, Decision, Refusal, Situation, record};
use crate::config;
use crate::credentials::{DelegationToken, Principal};
use crate::image::MetadataImage;

/// Tokens of a cluster at most.
pub const TOKENS_MAX: usize = 100_000;
/// Renewers of a token at most.
const RENEWERS_MAX: usize = 128;
/// The only type of principals that a token is for.
const USER: &str = "User";

/// Whether tokens are offered: the cluster has a secret key for their HMACs.
pub fn delegation_tokens_enabled(properties: &BTreeMap<String, String>) -> bool {
    properties.get("delegation.token.secret.key").is_some_and(|key| !key.is_empty())
}

fn check_enabled(situation: Situation<'_>) -> Result<(), Refusal> {
    if delegation_tokens_enabled(situation.properties) {
        return Ok(());
    }
    refuse(ErrorCode::DelegationTokenAuthDisabled, "Delegation Token feature is not enabled.")
}

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, message))
}

fn principal(principal: Option<&metadata::Principal>) -> Result<Principal, Refusal> {
    match principal.map(Principal::from_proto) {
        Some(principal) if principal.kind == USER && !principal.name.is_empty() => Ok(principal),
        _ => refuse(ErrorCode::InvalidPrincipalType, "a token is for principals of type User"),
    }
}

fn answer(token: &DelegationToken) -> Decision<proto::DelegationTokenReply> {
    let reply = proto::DelegationTokenReply {
        issue_ms: token.issue_ms,
        expiry_ms: token.expiry_ms,
        max_ms: token.max_ms,
    };
    Decision { records: vec![record(Record::DelegationToken(token.to_record()))], reply }
}

pub(super) fn create(
    situation: Situation<'_>,
    command: &proto::CreateDelegationToken,
) -> Result<Decision<proto::DelegationTokenReply>, Refusal> {
    check_enabled(situation)?;
    if command.token_id.is_empty() || situation.image.delegation_token(&command.token_id).is_some() {
        return refuse(ErrorCode::InvalidRequest, "the token's id is empty or taken");
    }
    if situation.image.tokens.len() >= TOKENS_MAX || command.renewers.len() > RENEWERS_MAX {
        return refuse(ErrorCode::PolicyViolation, "there would be too many tokens, or renewers of one");
    }
    let requester = principal(command.requester.as_ref())?;
    let owner = match &command.owner {
        Some(owner) => principal(Some(owner))?,
        None => requester.clone(),
    };
    let renewers =
        command.renewers.iter().map(|renewer| principal(Some(renewer))).collect::<Result<Vec<_>, _>>()?;
    let lifetime_max_ms = config::get_i64(situation.properties, "delegation.token.max.lifetime.ms");
    let lifetime_ms =
        if command.lifetime_ms > 0 { command.lifetime_ms.min(lifetime_max_ms) } else { lifetime_max_ms };
    let renewal_ms = config::get_i64(situation.properties, "delegation.token.expiry.time.ms");
    let max_ms = command.now_ms.saturating_add(lifetime_ms);
    Ok(answer(&DelegationToken {
        id: command.token_id.clone(),
        owner,
        requester,
        renewers,
        issue_ms: command.now_ms,
        expiry_ms: command.now_ms.saturating_add(renewal_ms).min(max_ms),
        max_ms,
    }))
}

/// The token of an id, that the requester may manage.
fn managed<'a>(
    situation: Situation<'a>,
    id: &str,
    requester: Option<&metadata::Principal>,
) -> Result<&'a DelegationToken, Refusal> {
    let Some(token) = situation.image.delegation_token(id) else {
        return refuse(ErrorCode::DelegationTokenNotFound, "there is no such token");
    };
    let requester = requester.map(Principal::from_proto);
    if !requester.is_some_and(|requester| token.may_be_managed_by(&requester)) {
        return refuse(
            ErrorCode::DelegationTokenOwnerMismatch,
            "only its owner and its renewers can renew or end a token",
        );
    }
    Ok(token)
}

pub(super) fn renew(
    situation: Situation<'_>,
    command: &proto::RenewDelegationToken,
) -> Result<Decision<proto::DelegationTokenReply>, Refusal> {
    check_enabled(situation)?;
    let token = managed(situation, &command.token_id, command.requester.as_ref())?;
    if token.is_expired(command.now_ms) {
        return refuse(ErrorCode::DelegationTokenExpired, "the token has expired");
    }
    let period_ms = if command.renew_period_ms < 0 {
        config::get_i64(situation.properties, "delegation.token.expiry.time.ms")
    } else {
        command.renew_period_ms
    };
    let expiry_ms = command.now_ms.saturating_add(period_ms).min(token.max_ms);
    Ok(answer(&DelegationToken { expiry_ms, ..token.clone() }))
}

pub(super) fn expire(
    situation: Situation<'_>,
    command: &proto::ExpireDelegationToken,
) -> Result<Decision<proto::DelegationTokenReply>, Refusal> {
    check_enabled(situation)?;
    let token = managed(situation, &command.token_id, command.requester.as_ref())?;
    if command.expiry_period_ms < 0 {
        let mut gone = answer(&DelegationToken { expiry_ms: command.now_ms, ..token.clone() });
        gone.records = vec![removal(token)];
        return Ok(gone);
    }
    if token.is_expired(command.now_ms) {
        return refuse(ErrorCode::DelegationTokenExpired, "the token has expired");
    }
    let expiry_ms = command.now_ms.saturating_add(command.expiry_period_ms).min(token.max_ms);
    Ok(answer(&DelegationToken { expiry_ms, ..token.clone() }))
}

fn removal(token: &DelegationToken) -> MetadataRecord {
    record(Record::RemoveDelegationToken(RemoveDelegationTokenRecord { token_id: token.id.clone() }))
}

/// Removes tokens that have expired; at most [`BACKGROUND_PARTITIONS_MAX`] at once.
pub fn sweep_delegation_tokens(situation: Situation<'_>, now_ms: i64) -> Vec<MetadataRecord> {
    let expired = situation.image.delegation_tokens().filter(|token| token.is_expired(now_ms));
    expired.take(BACKGROUND_PARTITIONS_MAX).map(removal).collect()
}

/// The tokens that DescribeDelegationToken shows: those of the given owners, or of anybody, that the filter lets through.
/// Who asks sees its own, those it may renew, and those that it is allowed to describe: the caller's `may_see` decides.
pub fn describe_delegation_tokens<'a>(
    image: &'a MetadataImage,
    owners: Option<&'a [Principal]>,
    now_ms: i64,
    may_see: impl Fn(&DelegationToken) -> bool + 'a,
) -> impl Iterator<Item = &'a DelegationToken> {
    image.delegation_tokens().filter(move |token| {
        !token.is_expired(now_ms)
            && owners.is_none_or(|owners| owners.contains(&token.owner))
            && may_see(token)
    })
}
