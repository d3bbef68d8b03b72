//! What there is, or shall be, in a cluster: the two sides that `ottla apply` compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use anyhow::Context;

use super::document::Scope;
use crate::failure::Failure;

/// Settings by name. On the side that is wanted, `None` takes one back; on the side that is, `None` is a secret.
pub(super) type Configs = BTreeMap<String, Option<String>>;

/// Everything. `None`: not spoken of, or not looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    pub(super) topics: Option<BTreeMap<String, Topic>>,
    pub(super) configs: Option<BTreeMap<Owner, Configs>>,
    pub(super) users: Option<BTreeMap<String, User>>,
    pub(super) quotas: Option<BTreeMap<Entity, BTreeMap<String, Option<f64>>>>,
    pub(super) acls: Option<BTreeSet<Rule>>,
}

/// A topic; what is absent is left to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) partitions: Option<i32>,
    pub(super) replication_factor: Option<i32>,
    pub(super) configs: Configs,
    /// The cluster's own: never deleted.
    pub(super) internal: bool,
}

/// Whose settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) scope: Scope,
    pub(super) name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            Scope::Cluster => f.write_str("the cluster"),
            Scope::Broker => write!(f, "broker {}", self.name),
            Scope::Group => write!(f, "group {}", self.name),
            Scope::ClientMetrics => write!(f, "client metrics {}", self.name),
        }
    }
}

/// Who signs in by SCRAM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct User {
    /// Iterations by mechanism.
    pub(super) mechanisms: BTreeMap<String, u32>,
    /// Only wanted: no cluster tells it.
    pub(super) password: Option<Password>,
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Password {
    File(PathBuf),
    Variable(String),
}

impl Password {
    /// The first line.
    pub(super) fn read(&self) -> anyhow::Result<String> {
        let text = match self {
            Self::File(file) => {
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
            }
            Self::Variable(name) => std::env::var(name)
                .map_err(|_| Failure::usage(format!("{name} is not set in the environment")))?,
        };
        match text.lines().next() {
            Some(password) if !password.is_empty() => Ok(password.to_owned()),
            _ => Err(Failure::usage("a password is empty").into()),
        }
    }
}

/// Whom limits are for: names by type, `None` the default of the type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entity(pub(super) Vec<(String, Option<String>)>);

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, name)) in self.0.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            write!(f, "{space}{kind} {}", name.as_deref().unwrap_or("(default)"))?;
        }
        Ok(())
    }
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) principal: String,
    pub(super) resource_type: String,
    pub(super) resource_name: String,
    pub(super) pattern: String,
    pub(super) host: String,
    pub(super) permission: String,
    pub(super) operation: String,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, resource_type, resource_name, pattern, host, permission, operation } = self;
        let verb = if permission == "deny" { "may not" } else { "may" };
        write!(f, "{principal} {verb} {operation} {resource_type} {resource_name}")?;
        if pattern != "literal" {
            write!(f, " ({pattern})")?;
        }
        if host != "*" {
            write!(f, " from {host}")?;
        }
        Ok(())
    }
}
