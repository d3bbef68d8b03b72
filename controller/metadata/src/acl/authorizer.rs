//! Who may do what, decided as Kafka's StandardAuthorizer does: super users may everything; otherwise a rule that denies wins
//! over any that allows; without a matching rule nobody may, unless no rule speaks of the resource at all and
//! `allow.everyone.if.no.acl.found` is set.

use std::collections::{BTreeMap, BTreeSet};

use super::{AclOperation, AclResourceType, Acls};
use crate::config;

/// The name of the one cluster resource.
pub const CLUSTER_NAME: &str = "kafka-cluster";

/// A name that no rule is about, to ask whether everything is allowed.
const NO_NAME: &str = "hardcode";

/// The properties of the authorizer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthorizerOptions {
    /// Principals that no rule binds, `type:name`.
    pub super_users: BTreeSet<String>,
    /// Resources that no rule speaks of are open to everybody.
    pub allow_everyone_if_no_acl_found: bool,
}

impl AuthorizerOptions {
    /// From a node's properties; `None`: no authorizer is configured, so that everybody may everything.
    pub fn from_properties(properties: &BTreeMap<String, String>) -> Option<Self> {
        if config::get_string(properties, "authorizer.class.name").trim().is_empty() {
            return None;
        }
        let super_users = properties.get("super.users").map(String::as_str).unwrap_or_default();
        Some(Self {
            super_users: super_users
                .split(';')
                .map(str::trim)
                .filter(|user| !user.is_empty())
                .map(str::to_owned)
                .collect(),
            allow_everyone_if_no_acl_found: properties
                .get("allow.everyone.if.no.acl.found")
                .is_some_and(|value| value.trim().eq_ignore_ascii_case("true")),
        })
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action<'a> {
    /// Who, `type:name`.
    pub principal: &'a str,
    /// From which address.
    pub host: &'a str,
    /// What.
    pub operation: AclOperation,
    /// On what kind of resource.
    pub resource_type: AclResourceType,
    /// Of what name.
    pub resource_name: &'a str,
}

/// Decides, on the rules of one image.
#[derive(Debug, Clone, Copy)]
pub struct Authorizer<'a> {
    options: &'a AuthorizerOptions,
    acls: &'a Acls,
}

impl<'a> Authorizer<'a> {
    /// An authorizer of these rules.
    pub fn new(options: &'a AuthorizerOptions, acls: &'a Acls) -> Self {
        Self { options, acls }
    }

    /// Whether an action is allowed.
    pub fn is_allowed(self, action: Action<'_>) -> bool {
        let Action { principal, host, operation, resource_type, resource_name } = action;
        if self.options.super_users.contains(principal) {
            return true;
        }
        let index = self.acls.index();
        let verdict = index.verdict(principal, host, operation, resource_type, resource_name);
        if verdict.denied || verdict.allowed {
            return !verdict.denied;
        }
        self.options.allow_everyone_if_no_acl_found && !index.covers(resource_type, resource_name)
    }

    /// Whether there is any resource of a kind, named or not yet, on which an operation is allowed: an idempotent producer
    /// needs to write to some topic (KIP-679).
    pub fn is_allowed_somewhere(
        self,
        principal: &str,
        host: &str,
        operation: AclOperation,
        resource_type: AclResourceType,
    ) -> bool {
        let anything = Action { principal, host, operation, resource_type, resource_name: NO_NAME };
        self.is_allowed(anything)
            || self.acls.index().is_allowed_somewhere(principal, host, operation, resource_type)
    }

    /// The operations on a resource that are allowed, as the bits of an authorized-operations field.
    pub fn authorized_operations(
        self,
        principal: &str,
        host: &str,
        resource_type: AclResourceType,
        resource_name: &str,
        supported: &[AclOperation],
    ) -> i32 {
        supported
            .iter()
            .filter(|operation| {
                let operation = **operation;
                self.is_allowed(Action { principal, host, operation, resource_type, resource_name })
            })
            .fold(0, |bits, operation| bits | 1 << operation.code())
    }
}
