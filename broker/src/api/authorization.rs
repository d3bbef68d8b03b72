//! Who may do what, at the one place where every handler asks: [`Access`], made by `context.access(&call)`.
//!
//! How a handler asks, by the shape of its request:
//!
//! | shape | what to write |
//! |---|---|
//! | one right for all of it | `if let Err(code) = access.cluster(Operation::Alter) { return call.ready(&… error_code …) }` |
//! | a command of a group | `groups.begin_if(access.group(Operation::Read, &group_id), command)`: the command knows its refusal |
//! | a right for each item | `for (item, code) in access.take_refused(&mut items, \|access, item\| access.topic(…))` |
//! | topics by id | [`Access::topic_by_id`]: an id that is not known passes, and is answered by UNKNOWN_TOPIC_ID |
//! | configs | [`Access::config`] with DescribeConfigs or AlterConfigs and the request's resource type |
//! | lists without names asked for | `filter(\|topic\| access.sees_topic(Operation::Describe, name))`, [`Access::sees`]: left out without a word |
//! | authorized operations | [`Access::topic_operations`] and its like; [`OPERATIONS_OMITTED`] where they were not asked for |
//! | what only brokers do | `access.cluster(Operation::ClusterAction)` |
//!
//! Each gives Kafka's code for its kind of resource. What is left out of lists is not logged; every other refusal is, to the
//! target `ottla::audit`. Rights follow the rules in the image at the time of [`Context::access`](crate::context::BrokerContext):
//! make one for each request. Without an authorizer, and for super users, nothing is looked up and nothing allocated.
//!
//! Which API asks for which right is written down in [`crate::rights`], and goes through a test from there.

use std::sync::Arc;

use ottla_metadata::acl::{
    AclOperation, AclResourceType, Action, Authorizer, AuthorizerOptions, CLUSTER_NAME,
};
use ottla_metadata::decide::supported_operations;
use ottla_metadata::image::MetadataImage;
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;
use uuid::Uuid;

pub(crate) use ottla_metadata::acl::{AclOperation as Operation, AclResourceType as Resource};

use super::Call;
use crate::context::BrokerContext;

/// The field of authorized operations when they were not asked for.
pub(crate) const OPERATIONS_OMITTED: i32 = i32::MIN;

/// What a refusal says where there is room for words.
pub(crate) const REFUSED: &str = "Authorization failed.";

/// A right, or the code for its absence.
pub(crate) type Permitted = Result<(), ErrorCode>;

/// The rights of whoever sent one request.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// `None`: everything is allowed.
    bound: Option<Bound>,
}

/// Somebody whom rules bind.
#[derive(Debug, Clone)]
struct Bound {
    options: Arc<AuthorizerOptions>,
    image: Arc<MetadataImage>,
    /// `type:name`.
    principal: String,
    host: Arc<str>,
}

impl BrokerContext {
    /// The rights of whoever sent a request, by the rules of this moment.
    pub(crate) fn access(&self, call: &Call) -> Access {
        let Some(options) = &self.authorizer else { return Access { bound: None } };
        Access::new(options, self.image.current(), call.principal.to_string(), Arc::clone(&call.client_host))
    }
}

impl Access {
    /// The rights of a principal (`type:name`) at an address.
    pub(crate) fn new(
        options: &Arc<AuthorizerOptions>,
        image: Arc<MetadataImage>,
        principal: String,
        host: Arc<str>,
    ) -> Self {
        if options.super_users.contains(&principal) {
            return Self::everything();
        }
        Self { bound: Some(Bound { options: Arc::clone(options), image, principal, host }) }
    }

    /// The rights of somebody whom no rule binds.
    pub(crate) fn everything() -> Self {
        Self { bound: None }
    }

    /// Whether rules have to be asked at all.
    pub(crate) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    /// An operation on a topic.
    pub(crate) fn topic(&self, operation: Operation, name: &str) -> Permitted {
        self.check(operation, AclResourceType::Topic, name)
    }

    /// An operation on a topic that is named by id. An id that is not known passes: it tells nothing.
    pub(crate) fn topic_by_id(&self, operation: Operation, id: Uuid) -> Permitted {
        let Some(bound) = &self.bound else { return Ok(()) };
        match bound.image.topic_by_id(id.into()) {
            Some(topic) => self.topic(operation, &topic.name),
            None => Ok(()),
        }
    }

    /// An operation on a group of any kind.
    pub(crate) fn group(&self, operation: Operation, id: &str) -> Permitted {
        self.check(operation, AclResourceType::Group, id)
    }

    /// An operation on the cluster.
    pub(crate) fn cluster(&self, operation: Operation) -> Permitted {
        self.check(operation, AclResourceType::Cluster, CLUSTER_NAME)
    }

    /// An operation on a transactional id.
    pub(crate) fn transactional_id(&self, operation: Operation, id: &str) -> Permitted {
        self.check(operation, AclResourceType::TransactionalId, id)
    }

    /// An operation with tokens of a user, `type:name`.
    pub(crate) fn user(&self, operation: Operation, user: &str) -> Permitted {
        self.check(operation, AclResourceType::User, user)
    }

    /// To create a topic: on the cluster, or on that topic.
    pub(crate) fn create_topic(&self, name: &str) -> Permitted {
        if self.is_allowed(Operation::Create, AclResourceType::Cluster, CLUSTER_NAME) {
            return Ok(());
        }
        self.topic(Operation::Create, name)
    }

    /// A producer id without a transaction: the right to it, or to write any topic (KIP-679).
    pub(crate) fn idempotent_write(&self) -> Permitted {
        let Some(bound) = &self.bound else { return Ok(()) };
        let (write, topic) = (Operation::Write, AclResourceType::Topic);
        if bound.authorizer().is_allowed_somewhere(&bound.principal, &bound.host, write, topic) {
            return Ok(());
        }
        self.cluster(Operation::IdempotentWrite)
    }

    /// To see (DescribeConfigs) or change (AlterConfigs) the configs of a resource, by the request's number of its type.
    pub(crate) fn config(&self, operation: Operation, resource_type: i8, name: &str) -> Permitted {
        match ResourceType::try_from(i32::from(resource_type)) {
            Ok(ResourceType::Topic) => self.topic(operation, name),
            Ok(ResourceType::Group) => self.group(operation, name),
            // Whatever else there is belongs to the cluster; what there is not is refused by the handler.
            _ => self.cluster(operation),
        }
    }

    /// Whether a list that was not asked for it by name shows a topic.
    pub(crate) fn sees_topic(&self, operation: Operation, name: &str) -> bool {
        self.is_allowed(operation, AclResourceType::Topic, name)
    }

    /// Whether a list that was not asked for it by name shows a group, a transactional id or what else there is.
    pub(crate) fn sees(&self, operation: Operation, resource: Resource, name: &str) -> bool {
        self.is_allowed(operation, resource, name)
    }

    /// As [`Self::cluster`], without a trace: where another right will do.
    pub(crate) fn has_cluster(&self, operation: Operation) -> bool {
        self.is_allowed(operation, AclResourceType::Cluster, CLUSTER_NAME)
    }

    /// Whether a list shows a delegation token of an owner, `type:name`, to somebody whose it is not.
    pub(crate) fn sees_token(&self, token_id: &str, owner: &str) -> bool {
        self.is_allowed(Operation::Describe, AclResourceType::DelegationToken, token_id)
            || self.is_allowed(Operation::DescribeTokens, AclResourceType::User, owner)
    }

    /// The field of a topic's authorized operations.
    pub(crate) fn topic_operations(&self, name: &str) -> i32 {
        self.operations(AclResourceType::Topic, name)
    }

    /// The field of a group's authorized operations.
    pub(crate) fn group_operations(&self, id: &str) -> i32 {
        self.operations(AclResourceType::Group, id)
    }

    /// The field of the cluster's authorized operations: none for those who may not even see it.
    pub(crate) fn cluster_operations(&self) -> i32 {
        if self.has_cluster(Operation::Describe) {
            self.operations(AclResourceType::Cluster, CLUSTER_NAME)
        } else {
            0
        }
    }

    /// Takes the items out of a request that are not permitted, with the code for each.
    pub(crate) fn take_refused<Item>(
        &self,
        items: &mut Vec<Item>,
        permitted: impl Fn(&Self, &Item) -> Permitted,
    ) -> Vec<(Item, ErrorCode)> {
        if self.bound.is_none() {
            return Vec::new();
        }
        let mut refused = Vec::new();
        let mut allowed = Vec::with_capacity(items.len());
        for item in std::mem::take(items) {
            match permitted(self, &item) {
                Ok(()) => allowed.push(item),
                Err(code) => refused.push((item, code)),
            }
        }
        *items = allowed;
        refused
    }

    fn check(&self, operation: Operation, resource_type: AclResourceType, name: &str) -> Permitted {
        let Some(bound) = &self.bound else { return Ok(()) };
        if self.is_allowed(operation, resource_type, name) {
            return Ok(());
        }
        tracing::info!(
            target: "ottla::audit",
            principal = bound.principal,
            host = &*bound.host,
            ?operation,
            ?resource_type,
            name,
            "refused"
        );
        Err(code_of(resource_type))
    }

    fn is_allowed(&self, operation: Operation, resource_type: AclResourceType, name: &str) -> bool {
        self.bound.as_ref().is_none_or(|bound| {
            let (principal, host) = (bound.principal.as_str(), &*bound.host);
            bound.authorizer().is_allowed(Action {
                principal,
                host,
                operation,
                resource_type,
                resource_name: name,
            })
        })
    }

    fn operations(&self, resource_type: AclResourceType, name: &str) -> i32 {
        let supported = supported_operations(resource_type);
        match &self.bound {
            None => supported.iter().fold(0, |bits, operation| bits | bit(*operation)),
            Some(bound) => bound.authorizer().authorized_operations(
                &bound.principal,
                &bound.host,
                resource_type,
                name,
                supported,
            ),
        }
    }
}

impl Bound {
    fn authorizer(&self) -> Authorizer<'_> {
        Authorizer::new(&self.options, self.image.acls())
    }
}

fn bit(operation: AclOperation) -> i32 {
    1 << operation.code()
}

/// What a client is told that has no right to a resource.
fn code_of(resource_type: AclResourceType) -> ErrorCode {
    match resource_type {
        AclResourceType::Topic => ErrorCode::TopicAuthorizationFailed,
        AclResourceType::Group => ErrorCode::GroupAuthorizationFailed,
        AclResourceType::Cluster => ErrorCode::ClusterAuthorizationFailed,
        AclResourceType::TransactionalId => ErrorCode::TransactionalIdAuthorizationFailed,
        AclResourceType::DelegationToken | AclResourceType::User => {
            ErrorCode::DelegationTokenAuthorizationFailed
        }
    }
}

#[cfg(test)]
#[path = "authorization_tests.rs"]
mod tests;
