//! CreateAcls, DeleteAcls and what DescribeAcls shows (KIP-140): each rule and each filter by itself.

use std::collections::BTreeSet;

use ottla_proto::controller as proto;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{AclRecord, MetadataRecord, RemoveAclRecord};
use ottla_wire::error_code::ErrorCode;
use uuid::Uuid;

use super::{Decision, Refusal, Situation, record};
use crate::acl::{Acl, AclFilter, AclOperation, AclResourceType, CLUSTER_NAME, PatternType, WILDCARD};

/// Rules of a cluster at most: they are held in memory by every broker.
pub const ACLS_MAX: usize = 100_000;
/// Rules that one request may add, or delete, at most: they become one entry of the log.
const ACLS_OF_REQUEST_MAX: usize = 10_000;

pub(super) fn create(
    situation: Situation<'_>,
    command: &proto::CreateAcls,
) -> Decision<proto::CreateAclsReply> {
    let mut new = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut records = Vec::new();
    let acls = command
        .acls
        .iter()
        .map(|asked| {
            let outcome = check(asked).and_then(|(id, acl)| {
                let is_there = situation.image.acls().contains(&acl) || new.contains(&acl);
                if is_there {
                    return Ok(());
                }
                if situation.image.acls().len() + new.len() >= ACLS_MAX || new.len() >= ACLS_OF_REQUEST_MAX {
                    return Err(Refusal::new(ErrorCode::PolicyViolation, "there would be too many rules"));
                }
                if situation.image.acls().contains_id(id) || !ids.insert(id) {
                    return invalid("the rule's id is taken");
                }
                records.push(record(Record::Acl(asked.clone())));
                new.insert(acl);
                Ok(())
            });
            match outcome {
                Ok(()) => proto::CreatedAcl::default(),
                Err(refusal) => {
                    proto::CreatedAcl { error_code: i32::from(refusal.code.code()), message: refusal.message }
                }
            }
        })
        .collect();
    Decision { records, reply: proto::CreateAclsReply { acls } }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

fn check(asked: &AclRecord) -> Result<(Uuid, Acl), Refusal> {
    let Ok(id) = Uuid::from_slice(&asked.id) else { return invalid("the rule's id is not 16 bytes") };
    let Some(acl) = Acl::from_record(asked) else {
        return invalid("a rule needs a kind of resource, pattern, operation and permission that are known");
    };
    if acl.resource_name.is_empty() {
        return invalid("Resource name should not be empty");
    }
    if acl.resource_type == AclResourceType::Cluster
        && (acl.resource_name != CLUSTER_NAME || acl.pattern_type == PatternType::Prefixed)
        && acl.resource_name != WILDCARD
    {
        return invalid(format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}"));
    }
    // A principal is a type, a colon, a name.
    match acl.principal.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {}
        _ => return invalid(format!("Could not parse principal from `{}`", acl.principal)),
    }
    if acl.host.is_empty() {
        return invalid("the host of a rule is * or an address");
    }
    let is_possible = acl.operation == AclOperation::All
        || supported_operations(acl.resource_type).contains(&acl.operation);
    if !is_possible {
        return invalid(format!(
            "operation {:?} does not apply to resources of type {:?}",
            acl.operation, acl.resource_type
        ));
    }
    Ok((id, acl))
}

/// The operations that exist on a kind of resource.
pub fn supported_operations(resource_type: AclResourceType) -> &'static [AclOperation] {
    use AclOperation as Do;
    match resource_type {
        AclResourceType::Topic => &[
            Do::Read,
            Do::Write,
            Do::Create,
            Do::Describe,
            Do::Delete,
            Do::Alter,
            Do::DescribeConfigs,
            Do::AlterConfigs,
        ],
        AclResourceType::Group => {
            &[Do::Read, Do::Describe, Do::Delete, Do::DescribeConfigs, Do::AlterConfigs]
        }
        AclResourceType::Cluster => &[
            Do::Create,
            Do::ClusterAction,
            Do::DescribeConfigs,
            Do::AlterConfigs,
            Do::IdempotentWrite,
            Do::Alter,
            Do::Describe,
        ],
        AclResourceType::TransactionalId => &[Do::Describe, Do::Write, Do::TwoPhaseCommit],
        AclResourceType::DelegationToken => &[Do::Describe],
        AclResourceType::User => &[Do::CreateTokens, Do::DescribeTokens],
    }
}

/// A filter from its wire form.
pub fn acl_filter(filter: &proto::AclFilter) -> Result<AclFilter, Refusal> {
    AclFilter::from_wire(filter).map_err(|field| {
        Refusal::new(ErrorCode::InvalidRequest, format!("The AclBindingFilter has an unknown {field}"))
    })
}

pub(super) fn delete(
    situation: Situation<'_>,
    command: &proto::DeleteAcls,
) -> Decision<proto::DeleteAclsReply> {
    let mut gone = BTreeSet::new();
    let mut records: Vec<MetadataRecord> = Vec::new();
    let filters = command
        .filters
        .iter()
        .map(|asked| {
            let found: Result<Vec<_>, _> = acl_filter(asked).and_then(|filter| {
                let found: Vec<_> = situation
                    .image
                    .acls()
                    .filtered(&filter)
                    .map(|(id, acl)| (id, acl.to_record(id)))
                    .collect();
                let more = found.iter().filter(|(id, _)| !gone.contains(id)).count();
                if gone.len() + more > ACLS_OF_REQUEST_MAX {
                    return Err(Refusal::new(
                        ErrorCode::PolicyViolation,
                        format!("at most {ACLS_OF_REQUEST_MAX} rules can be deleted at once"),
                    ));
                }
                Ok(found)
            });
            match found {
                Ok(found) => {
                    for (id, acl) in &found {
                        // Two filters may mean the same rule: both tell of it, one removes it.
                        if gone.insert(*id) {
                            records.push(record(Record::RemoveAcl(RemoveAclRecord { id: acl.id.clone() })));
                        }
                    }
                    let acls = found.into_iter().map(|(_, acl)| acl).collect();
                    proto::DeletedAcls { acls, ..Default::default() }
                }
                Err(refusal) => proto::DeletedAcls {
                    error_code: i32::from(refusal.code.code()),
                    message: refusal.message,
                    acls: Vec::new(),
                },
            }
        })
        .collect();
    Decision { records, reply: proto::DeleteAclsReply { filters } }
}
