//! The documents that `ottla apply` reads and writes: YAML, or JSON, which is YAML too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use ottla_proto::admin::ConfigScope;
use serde::{Deserialize, Serialize};

use super::state::{Entity, Owner, Password, Rule, State, Topic, User};
use crate::failure::Failure;

/// The name of the one cluster resource.
const CLUSTER_NAME: &str = "kafka-cluster";
/// A file that is longer is none that a person wrote.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One document. What a section does not name is only looked at with `--delete`; what has no section never.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<TopicEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configs: Option<Vec<ConfigsEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    users: Option<Vec<UserEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quotas: Option<Vec<QuotaEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acls: Option<Vec<RuleEntry>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TopicEntry {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitions: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replication_factor: Option<i32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    configs: BTreeMap<String, Option<Scalar>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ConfigsEntry {
    scope: Scope,
    /// Of the cluster: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Scalar>,
    configs: BTreeMap<String, Option<Scalar>>,
}

/// Whose settings; a topic's stand with the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scope {
    Cluster,
    Broker,
    Group,
    ClientMetrics,
}

impl Scope {
    /// As the admin plane has it.
    pub(super) fn of_admin(scope: ConfigScope) -> Option<Self> {
        match scope {
            ConfigScope::Cluster => Some(Self::Cluster),
            ConfigScope::Broker => Some(Self::Broker),
            ConfigScope::Group => Some(Self::Group),
            ConfigScope::ClientMetrics => Some(Self::ClientMetrics),
            ConfigScope::Topic | ConfigScope::Unspecified => None,
        }
    }

    /// For the admin plane.
    pub(super) fn to_admin(self) -> ConfigScope {
        match self {
            Self::Cluster => ConfigScope::Cluster,
            Self::Broker => ConfigScope::Broker,
            Self::Group => ConfigScope::Group,
            Self::ClientMetrics => ConfigScope::ClientMetrics,
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    name: String,
    /// Both, when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mechanisms: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iterations: Option<u32>,
    /// A file whose first line is the password; from the document's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_file: Option<PathBuf>,
    /// A variable of the environment that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_env: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct QuotaEntry {
    /// By type; null: the default of the type.
    entity: BTreeMap<String, Option<Scalar>>,
    limits: BTreeMap<String, Option<f64>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    principal: OneOrMore,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<OneOrMore>,
    resource_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource_name: Option<OneOrMore>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    operation: OneOrMore,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    permission: Option<String>,
}

/// A value, or several.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMore {
    More(Vec<Scalar>),
    One(Scalar),
}

impl OneOrMore {
    fn texts(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.text()],
            Self::More(more) => more.iter().map(Scalar::text).collect(),
        }
    }
}

/// A value as people write it: quoted or not.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Whole(i64),
    Number(f64),
    Text(String),
    /// Kafka's lists have commas.
    List(Vec<Scalar>),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Whole(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => value.clone(),
            Self::List(items) => items.iter().map(Self::text).collect::<Vec<_>>().join(","),
        }
    }
}

/// Reads files; all of them together say what there shall be.
pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<State> {
    let mut state = State::default();
    for file in files {
        let text = load(file)?;
        let documents: Vec<Document> = serde_saphyr::from_multiple(&text)
            .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        for document in documents {
            document.add_to(&mut state, &folder).with_context(|| file.display().to_string())?;
        }
    }
    Ok(state)
}

fn load(file: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let cannot = || format!("cannot read {}", file.display());
    if file == Path::new("-") {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(cannot)?;
    } else {
        let opened = std::fs::File::open(file).with_context(cannot)?;
        opened.take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(cannot)?;
    }
    Ok(text)
}

fn values(configs: BTreeMap<String, Option<Scalar>>) -> BTreeMap<String, Option<String>> {
    configs.into_iter().map(|(name, value)| (name, value.map(|value| value.text()))).collect()
}

fn twice(what: &str, name: &str) -> Failure {
    Failure::usage(format!("{what} {name} is named twice")).hint("name everything once in all files")
}

impl Document {
    fn add_to(self, state: &mut State, folder: &Path) -> Result<(), Failure> {
        if let Some(entries) = self.topics {
            let topics = state.topics.get_or_insert_default();
            for entry in entries {
                let topic = Topic {
                    partitions: entry.partitions,
                    replication_factor: entry.replication_factor,
                    configs: values(entry.configs),
                    internal: false,
                };
                if topics.insert(entry.name.clone(), topic).is_some() {
                    return Err(twice("topic", &entry.name));
                }
            }
        }
        if let Some(entries) = self.configs {
            let configs = state.configs.get_or_insert_default();
            for entry in entries {
                let owner = entry.owner()?;
                let shown = owner.to_string();
                if configs.insert(owner, values(entry.configs)).is_some() {
                    return Err(twice("the settings of", &shown));
                }
            }
        }
        if let Some(entries) = self.users {
            let users = state.users.get_or_insert_default();
            for entry in entries {
                let (name, user) = entry.user(folder)?;
                if users.insert(name.clone(), user).is_some() {
                    return Err(twice("user", &name));
                }
            }
        }
        if let Some(entries) = self.quotas {
            let quotas = state.quotas.get_or_insert_default();
            for entry in entries {
                let parts = values(entry.entity);
                let entity = Entity(parts.into_iter().collect());
                let shown = entity.to_string();
                if quotas.insert(entity, entry.limits).is_some() {
                    return Err(twice("the limits of", &shown));
                }
            }
        }
        if let Some(entries) = self.acls {
            let acls = state.acls.get_or_insert_default();
            for entry in entries {
                acls.extend(entry.rules()?);
            }
        }
        Ok(())
    }

    /// What there is, as a document. Secrets and passwords are not known, and left out.
    pub(super) fn of(state: State) -> Self {
        let scalars = |configs: BTreeMap<String, Option<String>>| {
            let scalar = |(name, value): (String, Option<String>)| Some((name, Some(Scalar::Text(value?))));
            configs.into_iter().filter_map(scalar).collect::<BTreeMap<_, _>>()
        };
        let topics = state.topics.map(|topics| {
            let entry = |(name, topic): (String, Topic)| TopicEntry {
                name,
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                configs: scalars(topic.configs),
            };
            topics.into_iter().filter(|(_, topic)| !topic.internal).map(entry).collect()
        });
        let configs = state.configs.map(|configs| {
            let entry = |(owner, configs): (Owner, BTreeMap<_, _>)| ConfigsEntry {
                scope: owner.scope,
                name: Some(Scalar::Text(owner.name)).filter(|_| owner.scope != Scope::Cluster),
                configs: scalars(configs),
            };
            configs.into_iter().map(entry).filter(|entry| !entry.configs.is_empty()).collect()
        });
        let users = state.users.map(|users| {
            let entry = |(name, user): (String, User)| UserEntry {
                name,
                iterations: user.mechanisms.values().next().copied(),
                mechanisms: Some(user.mechanisms.into_keys().collect()),
                password_file: None,
                password_env: None,
            };
            users.into_iter().map(entry).collect()
        });
        let quotas = state.quotas.map(|quotas| {
            let part = |(kind, name): (String, Option<String>)| (kind, name.map(Scalar::Text));
            let entry = |(entity, limits): (Entity, BTreeMap<_, _>)| QuotaEntry {
                entity: entity.0.into_iter().map(part).collect(),
                limits,
            };
            quotas.into_iter().map(entry).collect()
        });
        let acls = state.acls.map(entries_of_rules);
        Self { topics, configs, users, quotas, acls }
    }
}

/// Rules that differ in their operation alone share an entry.
fn entries_of_rules(rules: BTreeSet<Rule>) -> Vec<RuleEntry> {
    let mut operations: BTreeMap<Rule, Vec<Scalar>> = BTreeMap::new();
    for rule in rules {
        let operation = Scalar::Text(rule.operation.clone());
        let shared = Rule { operation: String::new(), ..rule };
        operations.entry(shared).or_default().push(operation);
    }
    let one = |text: String| OneOrMore::One(Scalar::Text(text));
    let entry = |(rule, operations): (Rule, Vec<Scalar>)| RuleEntry {
        principal: one(rule.principal),
        host: Some(one(rule.host)),
        resource_type: rule.resource_type,
        resource_name: Some(one(rule.resource_name)),
        pattern: Some(rule.pattern),
        operation: OneOrMore::More(operations),
        permission: Some(rule.permission),
    };
    operations.into_iter().map(entry).collect()
}

impl ConfigsEntry {
    fn owner(&self) -> Result<Owner, Failure> {
        let name = self.name.as_ref().map(Scalar::text).unwrap_or_default();
        match (self.scope, name.is_empty()) {
            (Scope::Cluster, false) => {
                Err(Failure::usage("settings of the cluster have no name").hint("scope: broker has one"))
            }
            (Scope::Cluster, true) | (_, false) => Ok(Owner { scope: self.scope, name }),
            (_, true) => Err(Failure::usage("whose settings? a scope other than cluster needs a name")),
        }
    }
}

impl UserEntry {
    fn user(self, folder: &Path) -> Result<(String, User), Failure> {
        let password = match (self.password_file, self.password_env) {
            (Some(file), None) => Some(Password::File(folder.join(file))),
            (None, Some(variable)) => Some(Password::Variable(variable)),
            (None, None) => None,
            (Some(_), Some(_)) => {
                let name = self.name;
                return Err(Failure::usage(format!("user {name} has both password_file and password_env")));
            }
        };
        let names = self.mechanisms.unwrap_or_else(|| crate::scram::names().map(str::to_owned).to_vec());
        let iterations = self.iterations.unwrap_or(ottla_broker::security::sasl::scram::ITERATIONS_MIN);
        let mechanism = |name: String| {
            let known = crate::scram::mechanism(&name)
                .map_err(|known| Failure::usage(format!("'{name}' is no mechanism")).hint(known))?;
            Ok((crate::scram::name(known).to_owned(), iterations))
        };
        let mechanisms = names.into_iter().map(mechanism).collect::<Result<_, Failure>>()?;
        Ok((self.name, User { mechanisms, password }))
    }
}

impl RuleEntry {
    fn rules(&self) -> Result<Vec<Rule>, Failure> {
        let word = |text: &str| text.to_ascii_lowercase().replace('_', "-");
        let resource_type = word(&self.resource_type);
        let names = match &self.resource_name {
            Some(names) => names.texts(),
            None if resource_type == "cluster" => vec![CLUSTER_NAME.to_owned()],
            None => return Err(Failure::usage("a rule without resource_name").hint("'*' is every one")),
        };
        let hosts = self.host.as_ref().map_or_else(|| vec!["*".to_owned()], OneOrMore::texts);
        let mut rules = Vec::new();
        for principal in self.principal.texts() {
            for name in &names {
                for host in &hosts {
                    for operation in self.operation.texts() {
                        rules.push(Rule {
                            principal: principal.clone(),
                            resource_type: resource_type.clone(),
                            resource_name: name.clone(),
                            pattern: word(self.pattern.as_deref().unwrap_or("literal")),
                            host: host.clone(),
                            permission: word(self.permission.as_deref().unwrap_or("allow")),
                            operation: word(&operation),
                        });
                    }
                }
            }
        }
        Ok(rules)
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
