//! Access control lists: the rules, filters of them, and who may do what (KIP-11, KIP-50, KIP-290).
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | a rule, a filter, the set of all rules |
//! | `index.rs` | the rules arranged for decisions: by principal, then by name |
//! | `authorizer.rs` | decisions: super users, deny before allow, the default |

mod authorizer;
mod index;

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_proto::metadata as proto;
use uuid::Uuid;

pub use authorizer::{Action, Authorizer, AuthorizerOptions, CLUSTER_NAME};
pub(crate) use index::AclIndex;

macro_rules! numbers {
    ($(#[$doc:meta] $type:ident { $(#[$item_doc:meta] $item:ident = $number:literal),* $(,)? })*) => {$(
        #[$doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i8)]
        pub enum $type {
            $(#[$item_doc] $item = $number,)*
        }

        impl $type {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$item),*];

            /// The one of a number.
            pub fn from_code(code: i32) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| i32::from(*one as i8) == code)
            }

            /// Its number.
            pub fn code(self) -> i8 {
                self as i8
            }
        }
    )*};
}

numbers! {
    /// What a rule protects. The numbers are Kafka's.
    AclResourceType {
        /// A topic.
        Topic = 2,
        /// A group of any kind.
        Group = 3,
        /// The cluster.
        Cluster = 4,
        /// A transactional id.
        TransactionalId = 5,
        /// A delegation token.
        DelegationToken = 6,
        /// A user, for tokens that others ask for.
        User = 7,
    }
    /// How a rule's name is meant. The numbers are Kafka's.
    PatternType {
        /// The whole name, or `*`.
        Literal = 3,
        /// The beginning of the name.
        Prefixed = 4,
    }
    /// What may be done. The numbers are Kafka's.
    AclOperation {
        /// Everything.
        All = 2,
        /// Read.
        Read = 3,
        /// Write.
        Write = 4,
        /// Create.
        Create = 5,
        /// Delete.
        Delete = 6,
        /// Alter.
        Alter = 7,
        /// Describe.
        Describe = 8,
        /// What brokers do among themselves.
        ClusterAction = 9,
        /// See configs.
        DescribeConfigs = 10,
        /// Change configs.
        AlterConfigs = 11,
        /// Produce with an idempotent producer.
        IdempotentWrite = 12,
        /// Create delegation tokens for somebody.
        CreateTokens = 13,
        /// See delegation tokens of somebody.
        DescribeTokens = 14,
        /// Commit or abort with two phases (KIP-939).
        TwoPhaseCommit = 15,
    }
    /// What a rule says. The numbers are Kafka's.
    Permission {
        /// No, whatever other rules say.
        Deny = 2,
        /// Yes.
        Allow = 3,
    }
}

/// The name that means every resource, and the host that means every host.
pub const WILDCARD: &str = "*";
/// The principal that means everybody.
pub const EVERYBODY: &str = "User:*";
/// The number of a filter that means any.
const ANY: i32 = 1;
/// The pattern type of a filter that means all rules that would hold for the name.
const MATCH: i32 = 2;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// What it protects.
    pub resource_type: AclResourceType,
    /// Of that name.
    pub resource_name: String,
    /// How the name is meant.
    pub pattern_type: PatternType,
    /// Whom it is about, `type:name`.
    pub principal: String,
    /// From where, `*` or an address.
    pub host: String,
    /// What is done.
    pub operation: AclOperation,
    /// What it says.
    pub permission: Permission,
}

impl Acl {
    /// A rule from its record; `None`: a number is not known.
    pub fn from_record(record: &proto::AclRecord) -> Option<Self> {
        Some(Self {
            resource_type: AclResourceType::from_code(record.resource_type)?,
            resource_name: record.resource_name.clone(),
            pattern_type: PatternType::from_code(record.pattern_type)?,
            principal: record.principal.clone(),
            host: record.host.clone(),
            operation: AclOperation::from_code(record.operation)?,
            permission: Permission::from_code(record.permission)?,
        })
    }

    /// Its record.
    pub fn to_record(&self, id: Uuid) -> proto::AclRecord {
        proto::AclRecord {
            id: bytes::Bytes::copy_from_slice(id.as_bytes()),
            resource_type: self.resource_type.code().into(),
            resource_name: self.resource_name.clone(),
            pattern_type: self.pattern_type.code().into(),
            principal: self.principal.clone(),
            host: self.host.clone(),
            operation: self.operation.code().into(),
            permission: self.permission.code().into(),
        }
    }

    /// Whether it speaks of a resource of this name, type aside.
    fn covers(&self, name: &str) -> bool {
        match self.pattern_type {
            PatternType::Literal => self.resource_name == name || self.resource_name == WILDCARD,
            PatternType::Prefixed => name.starts_with(&self.resource_name),
        }
    }
}

/// Which rules are meant: by DescribeAcls and DeleteAcls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AclFilter {
    resource_type: Option<AclResourceType>,
    resource_name: Option<String>,
    pattern: PatternFilter,
    principal: Option<String>,
    host: Option<String>,
    operation: Option<AclOperation>,
    permission: Option<Permission>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum PatternFilter {
    #[default]
    Any,
    Match,
    Is(PatternType),
}

impl AclFilter {
    /// A filter from its wire form, in which 1 means any. `Err` names the field with a number that is not known.
    pub fn from_wire(filter: &ottla_proto::controller::AclFilter) -> Result<Self, &'static str> {
        fn one_of<T>(
            code: i32,
            read: impl Fn(i32) -> Option<T>,
            field: &'static str,
        ) -> Result<Option<T>, &'static str> {
            if code == ANY { Ok(None) } else { read(code).map(Some).ok_or(field) }
        }
        let pattern = match filter.pattern_type {
            ANY => PatternFilter::Any,
            MATCH => PatternFilter::Match,
            code => PatternFilter::Is(PatternType::from_code(code).ok_or("pattern type")?),
        };
        Ok(Self {
            resource_type: one_of(filter.resource_type, AclResourceType::from_code, "resource type")?,
            resource_name: filter.resource_name.clone(),
            pattern,
            principal: filter.principal.clone(),
            host: filter.host.clone(),
            operation: one_of(filter.operation, AclOperation::from_code, "operation")?,
            permission: one_of(filter.permission, Permission::from_code, "permission type")?,
        })
    }

    /// Whether it means a rule.
    pub fn matches(&self, acl: &Acl) -> bool {
        let name = self.resource_name.as_deref();
        let is_pattern = match self.pattern {
            PatternFilter::Any => name.is_none_or(|name| acl.resource_name == name),
            PatternFilter::Is(kind) => {
                acl.pattern_type == kind && name.is_none_or(|name| acl.resource_name == name)
            }
            PatternFilter::Match => name.is_none_or(|name| acl.covers(name)),
        };
        is_pattern
            && self.resource_type.is_none_or(|wanted| acl.resource_type == wanted)
            && self.principal.as_ref().is_none_or(|wanted| acl.principal == *wanted)
            && self.host.as_ref().is_none_or(|wanted| acl.host == *wanted)
            && self.operation.is_none_or(|wanted| acl.operation == wanted)
            && self.permission.is_none_or(|wanted| acl.permission == wanted)
    }
}

/// All rules, by id, and arranged for decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acls {
    by_id: BTreeMap<Uuid, Arc<Acl>>,
    ids: BTreeMap<Arc<Acl>, Uuid>,
    index: AclIndex,
}

impl Acls {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Every rule with its id.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, &Acl)> {
        self.by_id.iter().map(|(id, acl)| (*id, &**acl))
    }

    /// The rules that a filter means.
    pub fn filtered(&self, filter: &AclFilter) -> impl Iterator<Item = (Uuid, &Acl)> {
        self.iter().filter(move |(_, acl)| filter.matches(acl))
    }

    /// Whether this very rule is there.
    pub fn contains(&self, acl: &Acl) -> bool {
        self.ids.contains_key(acl)
    }

    /// Whether an id is taken.
    pub fn contains_id(&self, id: Uuid) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(crate) fn index(&self) -> &AclIndex {
        &self.index
    }

    /// False: the rule or its id is there already.
    pub(crate) fn insert(&mut self, id: Uuid, acl: Acl) -> bool {
        if self.contains(&acl) || self.contains_id(id) {
            return false;
        }
        let acl = Arc::new(acl);
        self.index.insert(&acl);
        self.ids.insert(Arc::clone(&acl), id);
        self.by_id.insert(id, acl);
        true
    }

    /// False: no rule has this id.
    pub(crate) fn remove(&mut self, id: Uuid) -> bool {
        let Some(acl) = self.by_id.remove(&id) else { return false };
        self.ids.remove(&acl);
        self.index.remove(&acl);
        true
    }
}

#[cfg(test)]
mod tests;
