//! Who may do what: rules, users of SCRAM and quotas of the admin plane, and the rights of whoever calls it.
//!
//! A caller is who its certificate says; without one it is `User:ANONYMOUS` at its address. Rules hold for it as for a client of
//! a Kafka listener.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_metadata::acl::{Acl, AclOperation, AclResourceType, AuthorizerOptions, PatternType, Permission};
use ottla_metadata::credentials::ScramMechanism;
use ottla_metadata::decide::{acl_filter, describe_client_quotas, describe_scram_users};
use ottla_proto::admin as proto;
use ottla_proto::controller;
use ottla_proto::controller::command::Command;
use ottla_proto::controller::command_reply::Reply;
use ottla_proto::metadata as records;
use ottla_proto::transport::Gate;
use ottla_wire::error_code::ErrorCode;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::{AdminService, grpc_code, status};
use crate::api::authorization::{Access, Operation, Permitted, REFUSED};
use crate::controller_link::ImageHandle;
use crate::security::{GrpcCaller, Principal};

/// The number of a filter's field that means any.
const ANY: i32 = 1;
/// The number of a pattern filter that means every rule that holds for the name.
const MATCH: i32 = 2;

const RESOURCES: [(&str, AclResourceType); 6] = [
    ("topic", AclResourceType::Topic),
    ("group", AclResourceType::Group),
    ("cluster", AclResourceType::Cluster),
    ("transactional-id", AclResourceType::TransactionalId),
    ("delegation-token", AclResourceType::DelegationToken),
    ("user", AclResourceType::User),
];
const PATTERNS: [(&str, PatternType); 2] =
    [("literal", PatternType::Literal), ("prefixed", PatternType::Prefixed)];
const OPERATIONS: [(&str, AclOperation); 14] = [
    ("all", AclOperation::All),
    ("read", AclOperation::Read),
    ("write", AclOperation::Write),
    ("create", AclOperation::Create),
    ("delete", AclOperation::Delete),
    ("alter", AclOperation::Alter),
    ("describe", AclOperation::Describe),
    ("cluster-action", AclOperation::ClusterAction),
    ("describe-configs", AclOperation::DescribeConfigs),
    ("alter-configs", AclOperation::AlterConfigs),
    ("idempotent-write", AclOperation::IdempotentWrite),
    ("create-tokens", AclOperation::CreateTokens),
    ("describe-tokens", AclOperation::DescribeTokens),
    ("two-phase-commit", AclOperation::TwoPhaseCommit),
];
const PERMISSIONS: [(&str, Permission); 2] = [("deny", Permission::Deny), ("allow", Permission::Allow)];

/// What a word stands for. The refusal names the words that there are.
fn meaning<T: Copy>(words: &[(&str, T)], what: &str, word: &str) -> Result<T, Status> {
    let found = words.iter().find(|(known, _)| known.eq_ignore_ascii_case(word));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let hint = format!("one of: {}", known.join(", "));
        status(Code::InvalidArgument, ErrorCode::InvalidRequest, &format!("'{word}' is no {what}"), &hint)
    })
}

fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> String {
    words.iter().find(|(_, known)| known == value).map(|(word, _)| (*word).to_owned()).unwrap_or_default()
}

fn mechanism(name: &str) -> Result<ScramMechanism, Status> {
    let words = [("SCRAM-SHA-256", ScramMechanism::Sha256), ("SCRAM-SHA-512", ScramMechanism::Sha512)];
    meaning(&words, "mechanism", name)
}

/// A refusal for want of a right.
pub(super) fn permit(permitted: Permitted) -> Result<(), Status> {
    permitted.map_err(|code| {
        let hint = "a super user can add a rule for it: 'ottla acl add'";
        status(Code::PermissionDenied, code, REFUSED, hint)
    })
}

/// The outcome of a part of a command.
fn outcome(error_code: i32, message: &str) -> Result<(), Status> {
    if error_code == 0 {
        return Ok(());
    }
    let code = i16::try_from(error_code).map_or(ErrorCode::UnknownServerError, ErrorCode::from_code);
    Err(status(grpc_code(code), code, message, ""))
}

fn wrong_reply() -> Status {
    Status::internal("the controller answered another question")
}

impl AdminService {
    /// Who calls.
    pub(super) fn caller<T>(request: &Request<T>) -> Principal {
        let caller = request.extensions().get::<GrpcCaller>();
        caller.map_or_else(Principal::anonymous, |caller| caller.principal.clone())
    }

    /// The rights of whoever calls.
    pub(super) fn access<T>(&self, request: &Request<T>) -> Access {
        let Some(options) = &self.authorizer else { return Access::everything() };
        let caller = request.extensions().get::<GrpcCaller>();
        let address = caller.map(|caller| caller.address).or_else(|| request.remote_addr());
        let host = address.map(|address| address.ip().to_canonical().to_string());
        let principal = Self::caller(request).to_string();
        Access::new(options, self.image.current(), principal, host.unwrap_or_default().into())
    }

    fn check_authorizer(&self) -> Result<(), Status> {
        if self.authorizer.is_some() {
            return Ok(());
        }
        Err(status(
            Code::FailedPrecondition,
            ErrorCode::SecurityDisabled,
            "no authorizer is configured: everybody may do everything",
            "set authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer on every node",
        ))
    }

    pub(super) fn acls(&self, filter: proto::AclFilter) -> Result<Vec<proto::Acl>, Status> {
        self.check_authorizer()?;
        let filter = acl_filter(&wire_filter(filter)?)
            .map_err(|refusal| status(grpc_code(refusal.code), refusal.code, &refusal.message, ""))?;
        let image = self.image.current();
        let mut acls: Vec<&Acl> = image.acls().filtered(&filter).map(|(_, acl)| acl).collect();
        acls.sort_unstable();
        Ok(acls.into_iter().map(shown).collect())
    }

    pub(super) async fn add_acls(&self, acls: Vec<proto::Acl>) -> Result<(), Status> {
        self.check_authorizer()?;
        let acls = acls.into_iter().map(record).collect::<Result<Vec<_>, _>>()?;
        match self.submit(Command::CreateAcls(controller::CreateAcls { acls })).await? {
            Reply::CreateAcls(reply) => {
                reply.acls.iter().try_for_each(|created| outcome(created.error_code, &created.message))
            }
            _ => Err(wrong_reply()),
        }
    }

    pub(super) async fn remove_acls(&self, filter: proto::AclFilter) -> Result<Vec<proto::Acl>, Status> {
        self.check_authorizer()?;
        let filters = vec![wire_filter(filter)?];
        match self.submit(Command::DeleteAcls(controller::DeleteAcls { filters })).await? {
            Reply::DeleteAcls(reply) => {
                let mut gone = Vec::new();
                for found in reply.filters {
                    outcome(found.error_code, &found.message)?;
                    gone.extend(found.acls.iter().filter_map(Acl::from_record).map(|acl| shown(&acl)));
                }
                Ok(gone)
            }
            _ => Err(wrong_reply()),
        }
    }

    pub(super) fn users(&self) -> Vec<proto::User> {
        let user = |user: ottla_metadata::decide::DescribedScramUser| proto::User {
            name: user.user,
            mechanisms: user
                .credentials
                .into_iter()
                .map(|(mechanism, iterations)| proto::UserMechanism {
                    mechanism: mechanism.name().to_owned(),
                    iterations,
                })
                .collect(),
        };
        describe_scram_users(&self.image.current(), &[]).into_iter().map(user).collect()
    }

    pub(super) async fn change_user(&self, request: proto::AlterUserRequest) -> Result<(), Status> {
        let name = request.name;
        let upsertion = |given: proto::UserCredential| {
            Ok(controller::ScramUpsertion {
                user: name.clone(),
                mechanism: mechanism(&given.mechanism)?.code().into(),
                salt: given.salt,
                stored_key: given.stored_key,
                server_key: given.server_key,
                iterations: given.iterations,
            })
        };
        let deletion = |given: &String| {
            let mechanism = mechanism(given)?.code().into();
            Ok(records::RemoveScramCredentialRecord { user: name.clone(), mechanism })
        };
        let command = controller::AlterScramCredentials {
            deletions: request.remove.iter().map(deletion).collect::<Result<_, Status>>()?,
            upsertions: request.set.into_iter().map(upsertion).collect::<Result<_, Status>>()?,
        };
        match self.submit(Command::AlterScramCredentials(command)).await? {
            Reply::AlterScramCredentials(reply) => {
                reply.users.iter().try_for_each(|altered| outcome(altered.error_code, &altered.message))
            }
            _ => Err(wrong_reply()),
        }
    }

    pub(super) fn quotas(&self) -> Result<Vec<proto::Quota>, Status> {
        let all = describe_client_quotas(&self.image.current(), &[], false)
            .map_err(|refusal| Status::internal(refusal.message))?;
        let quota = |(entity, limits): ottla_metadata::decide::DescribedQuota| proto::Quota {
            entity: entity
                .parts()
                .into_iter()
                .map(|part| proto::QuotaPart { r#type: part.r#type, name: part.name })
                .collect(),
            limits: limits.into_iter().collect(),
        };
        Ok(all.into_iter().map(quota).collect())
    }

    pub(super) async fn change_quota(&self, request: proto::AlterQuotaRequest) -> Result<(), Status> {
        let part = |part: proto::QuotaPart| records::QuotaEntityPart { r#type: part.r#type, name: part.name };
        let set =
            request.set.into_iter().map(|(key, value)| controller::QuotaChange { key, value: Some(value) });
        let unset = request.unset.into_iter().map(|key| controller::QuotaChange { key, value: None });
        let entry = controller::QuotaAlteration {
            entity: request.entity.into_iter().map(part).collect(),
            changes: set.chain(unset).collect(),
        };
        let command =
            controller::AlterClientQuotas { validate_only: request.validate_only, entries: vec![entry] };
        match self.submit(Command::AlterClientQuotas(command)).await? {
            Reply::AlterClientQuotas(reply) => {
                reply.entries.iter().try_for_each(|altered| outcome(altered.error_code, &altered.message))
            }
            _ => Err(wrong_reply()),
        }
    }

    /// To see what is not for everybody.
    pub(super) fn check_describe<T>(&self, request: &Request<T>) -> Result<(), Status> {
        permit(self.access(request).cluster(Operation::Describe))
    }
}

fn shown(acl: &Acl) -> proto::Acl {
    proto::Acl {
        resource_type: word(&RESOURCES, &acl.resource_type),
        resource_name: acl.resource_name.clone(),
        pattern: word(&PATTERNS, &acl.pattern_type),
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: word(&OPERATIONS, &acl.operation),
        permission: word(&PERMISSIONS, &acl.permission),
    }
}

fn record(acl: proto::Acl) -> Result<records::AclRecord, Status> {
    Ok(records::AclRecord {
        id: Bytes::copy_from_slice(Uuid::new_v4().as_bytes()),
        resource_type: meaning(&RESOURCES, "kind of resource", &acl.resource_type)?.code().into(),
        resource_name: acl.resource_name,
        pattern_type: meaning(&PATTERNS, "pattern", &acl.pattern)?.code().into(),
        principal: acl.principal,
        host: acl.host,
        operation: meaning(&OPERATIONS, "operation", &acl.operation)?.code().into(),
        permission: meaning(&PERMISSIONS, "permission", &acl.permission)?.code().into(),
    })
}

fn wire_filter(filter: proto::AclFilter) -> Result<controller::AclFilter, Status> {
    fn number<T: Copy>(
        words: &[(&str, T)],
        what: &str,
        word: Option<&String>,
        code: impl Fn(T) -> i8,
    ) -> Result<i32, Status> {
        word.map_or(Ok(ANY), |word| Ok(i32::from(code(meaning(words, what, word)?))))
    }
    let pattern_type = match filter.pattern.as_deref() {
        Some("match") => MATCH,
        _ => number(&PATTERNS, "pattern", filter.pattern.as_ref(), PatternType::code)?,
    };
    let kind = filter.resource_type.as_ref();
    Ok(controller::AclFilter {
        resource_type: number(&RESOURCES, "kind of resource", kind, AclResourceType::code)?,
        resource_name: filter.resource_name,
        pattern_type,
        principal: filter.principal,
        host: filter.host,
        operation: number(&OPERATIONS, "operation", filter.operation.as_ref(), AclOperation::code)?,
        permission: number(&PERMISSIONS, "permission", filter.permission.as_ref(), Permission::code)?,
    })
}

/// The gate of what nodes do among themselves, for a listener whose callers are known: those with ClusterAction pass. Rules are
/// looked for in this node's image, which a node that has just started has yet to get: super users need none.
pub fn node_gate(properties: &BTreeMap<String, String>, image: ImageHandle) -> Gate {
    let Some(options) = AuthorizerOptions::from_properties(properties).map(Arc::new) else {
        return Gate::default();
    };
    Gate::new(move |extensions| {
        let Some(caller) = extensions.get::<GrpcCaller>() else { return false };
        let host = caller.address.ip().to_canonical().to_string();
        let access = Access::new(&options, image.current(), caller.principal.to_string(), host.into());
        access.cluster(Operation::ClusterAction).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_stands_for_what_it_shows() {
        assert!(
            AclOperation::ALL
                .iter()
                .all(|one| meaning(&OPERATIONS, "x", &word(&OPERATIONS, one)).unwrap() == *one)
        );
        assert!(
            AclResourceType::ALL
                .iter()
                .all(|one| meaning(&RESOURCES, "x", &word(&RESOURCES, one)).unwrap() == *one)
        );
        let refused = meaning(&PATTERNS, "pattern", "regex").unwrap_err();
        assert_eq!(refused.message(), "'regex' is no pattern");
    }

    #[test]
    fn what_a_filter_leaves_out_does_not_matter() {
        let filter = wire_filter(proto::AclFilter::default()).unwrap();
        assert_eq!(
            (filter.resource_type, filter.pattern_type, filter.operation, filter.permission),
            (1, 1, 1, 1)
        );
        let filter = proto::AclFilter { pattern: Some("match".to_owned()), ..Default::default() };
        assert_eq!(wire_filter(filter).unwrap().pattern_type, 2);
        let filter = proto::AclFilter { operation: Some("fly".to_owned()), ..Default::default() };
        assert!(wire_filter(filter).is_err());
    }
}
