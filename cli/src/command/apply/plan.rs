//! What has to be done so that a cluster becomes what is wanted: pure, so that every case is a test.

use std::collections::{BTreeMap, BTreeSet};

use ottla_metadata::config::{ConfigKind, definition};

use super::document::Scope;
use super::state::{Configs, Entity, Owner, Rule, State, Topic, User};
use crate::failure::Failure;

/// One step. Steps are in the order in which they are made: what is needed by others first, deletions last.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    SetUser { name: String, user: User, is_new: bool },
    CreateTopic { name: String, topic: Topic },
    AddPartitions { name: String, from: i32, to: i32 },
    AlterConfigs { of: Configured, change: BTreeMap<String, Setting> },
    AlterQuota { entity: Entity, is_new: bool, change: BTreeMap<String, (Option<f64>, Option<f64>)> },
    AddRule(Rule),
    RemoveRule(Rule),
    RemoveUser { name: String, mechanisms: Vec<String> },
    DeleteTopic { name: String },
}

/// Whose settings change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Configured {
    Topic(String),
    Other(Owner),
}

/// One setting: what it was (`None`: its default) and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
    pub(super) is_secret: bool,
}

/// What a step is, for the sums and for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Change,
    Delete,
}

impl Change {
    /// Which kind of step it is.
    pub(super) fn action(&self) -> Action {
        match self {
            Self::CreateTopic { .. } | Self::AddRule(_) => Action::Create,
            Self::SetUser { is_new, .. } | Self::AlterQuota { is_new, .. } => {
                if *is_new {
                    Action::Create
                } else {
                    Action::Change
                }
            }
            Self::AddPartitions { .. } | Self::AlterConfigs { .. } => Action::Change,
            Self::RemoveRule(_) | Self::RemoveUser { .. } | Self::DeleteTopic { .. } => Action::Delete,
        }
    }

    fn order(&self) -> u8 {
        match self {
            Self::SetUser { .. } => 0,
            Self::CreateTopic { .. } => 1,
            // Settings can be taken back, partitions cannot: so first what may still be refused.
            Self::AlterConfigs { .. } => 2,
            Self::AddPartitions { .. } => 3,
            Self::AlterQuota { .. } => 4,
            Self::AddRule(_) => 5,
            Self::RemoveRule(_) => 6,
            Self::RemoveUser { .. } => 7,
            Self::DeleteTopic { .. } => 8,
        }
    }
}

/// Compares. `delete`: in the sections that `wanted` has, what it does not name goes.
pub(super) fn plan(wanted: &State, current: &State, delete: bool) -> Result<Vec<Change>, Vec<Failure>> {
    let mut planner = Planner { delete, changes: Vec::new(), failures: Vec::new() };
    if let Some(topics) = &wanted.topics {
        planner.topics(topics, &current.topics.clone().unwrap_or_default());
    }
    if let Some(configs) = &wanted.configs {
        planner.owners(configs, &current.configs.clone().unwrap_or_default());
    }
    if let Some(users) = &wanted.users {
        planner.users(users, &current.users.clone().unwrap_or_default());
    }
    if let Some(quotas) = &wanted.quotas {
        planner.quotas(quotas, &current.quotas.clone().unwrap_or_default());
    }
    if let Some(rules) = &wanted.acls {
        planner.rules(rules, &current.acls.clone().unwrap_or_default());
    }
    let Planner { mut changes, failures, .. } = planner;
    changes.sort_by_key(Change::order);
    if failures.is_empty() { Ok(changes) } else { Err(failures) }
}

struct Planner {
    delete: bool,
    changes: Vec<Change>,
    failures: Vec<Failure>,
}

impl Planner {
    fn topics(&mut self, wanted: &BTreeMap<String, Topic>, current: &BTreeMap<String, Topic>) {
        for (name, topic) in wanted {
            match current.get(name) {
                None => {
                    let configs = topic.configs.iter().filter(|(_, value)| value.is_some());
                    let configs = configs.map(|(key, value)| (key.clone(), value.clone())).collect();
                    let topic = Topic { configs, ..topic.clone() };
                    self.changes.push(Change::CreateTopic { name: name.clone(), topic });
                }
                Some(there) => {
                    self.size(name, topic, there);
                    let of = Configured::Topic(name.clone());
                    self.configs(of, &topic.configs, &there.configs);
                }
            }
        }
        if self.delete {
            let gone = current.iter().filter(|(name, topic)| !topic.internal && !wanted.contains_key(*name));
            let delete = gone.map(|(name, _)| Change::DeleteTopic { name: name.clone() });
            self.changes.extend(delete);
        }
    }

    fn size(&mut self, name: &str, wanted: &Topic, there: &Topic) {
        let (from, to) = (there.partitions.unwrap_or(0), wanted.partitions.or(there.partitions).unwrap_or(0));
        if to > from {
            self.changes.push(Change::AddPartitions { name: name.to_owned(), from, to });
        } else if to < from {
            let failure = Failure::new(format!("topic {name} has {from} partitions, and {to} are wanted"));
            self.failures.push(failure.hint("partitions can be added, never taken away"));
        }
        if let (Some(wanted), Some(there)) = (wanted.replication_factor, there.replication_factor)
            && wanted != there
        {
            let failure = Failure::new(format!("topic {name} has {there} replicas, and {wanted} are wanted"));
            self.failures.push(failure.hint(format!("'ottla partition move {name} --to …' gives it others")));
        }
    }

    fn owners(&mut self, wanted: &BTreeMap<Owner, Configs>, current: &BTreeMap<Owner, Configs>) {
        let nothing = Configs::new();
        for (owner, configs) in wanted {
            let there = current.get(owner).unwrap_or(&nothing);
            self.configs(Configured::Other(owner.clone()), configs, there);
        }
        if self.delete {
            for (owner, there) in current.iter().filter(|(owner, _)| !wanted.contains_key(owner)) {
                self.configs(Configured::Other(owner.clone()), &nothing, there);
            }
        }
    }

    fn configs(&mut self, of: Configured, wanted: &Configs, there: &Configs) {
        let mut change = BTreeMap::new();
        for (name, after) in wanted {
            let is_secret = is_secret(&of, name);
            let before = there.get(name);
            let differs = match (before, after) {
                // What a secret is cannot be seen: that there is one is enough.
                (Some(None), Some(_)) => false,
                (Some(before), after) => before != after || after.is_none(),
                (None, after) => after.is_some(),
            };
            if differs {
                let before = before.cloned().flatten();
                change.insert(name.clone(), Setting { before, after: after.clone(), is_secret });
            }
        }
        if self.delete {
            for (name, before) in there.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
                let is_secret = before.is_none();
                change.insert(name.clone(), Setting { before: before.clone(), after: None, is_secret });
            }
        }
        if !change.is_empty() {
            self.changes.push(Change::AlterConfigs { of, change });
        }
    }

    fn users(&mut self, wanted: &BTreeMap<String, User>, current: &BTreeMap<String, User>) {
        for (name, user) in wanted {
            let there = current.get(name);
            let lacks = |mechanism: &String, iterations: &u32| {
                there.is_none_or(|there| there.mechanisms.get(mechanism) != Some(iterations))
            };
            let mut missing = user.clone();
            missing.mechanisms.retain(|mechanism, iterations| lacks(mechanism, iterations));
            if !missing.mechanisms.is_empty() {
                if user.password.is_none() {
                    let failure = Failure::usage(format!("user {name} needs a password"));
                    self.failures.push(failure.hint("add password_file or password_env"));
                }
                let is_new = there.is_none();
                self.changes.push(Change::SetUser { name: name.clone(), user: missing, is_new });
            }
            let beyond = there.into_iter().flat_map(|there| there.mechanisms.keys());
            let beyond: Vec<String> =
                beyond.filter(|mechanism| !user.mechanisms.contains_key(*mechanism)).cloned().collect();
            if self.delete && !beyond.is_empty() {
                self.changes.push(Change::RemoveUser { name: name.clone(), mechanisms: beyond });
            }
        }
        if self.delete {
            for (name, user) in current.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
                let mechanisms = user.mechanisms.keys().cloned().collect();
                self.changes.push(Change::RemoveUser { name: name.clone(), mechanisms });
            }
        }
    }

    fn quotas(
        &mut self,
        wanted: &BTreeMap<Entity, BTreeMap<String, Option<f64>>>,
        current: &BTreeMap<Entity, BTreeMap<String, Option<f64>>>,
    ) {
        let nothing = BTreeMap::new();
        let unnamed = current.keys().filter(|entity| self.delete && !wanted.contains_key(*entity));
        for entity in wanted.keys().chain(unnamed) {
            let there = current.get(entity).unwrap_or(&nothing);
            let limits = wanted.get(entity).unwrap_or(&nothing);
            let mut change = BTreeMap::new();
            for (key, after) in limits {
                let before = there.get(key).copied().flatten();
                if before != *after {
                    change.insert(key.clone(), (before, *after));
                }
            }
            if self.delete {
                for (key, before) in there.iter().filter(|(key, _)| !limits.contains_key(*key)) {
                    change.insert(key.clone(), (*before, None));
                }
            }
            if !change.is_empty() {
                let (entity, is_new) = (entity.clone(), there.is_empty());
                self.changes.push(Change::AlterQuota { entity, is_new, change });
            }
        }
    }

    fn rules(&mut self, wanted: &BTreeSet<Rule>, current: &BTreeSet<Rule>) {
        self.changes.extend(wanted.difference(current).cloned().map(Change::AddRule));
        if self.delete {
            self.changes.extend(current.difference(wanted).cloned().map(Change::RemoveRule));
        }
    }
}

fn is_secret(of: &Configured, name: &str) -> bool {
    let kind = match of {
        Configured::Topic(_) => ConfigKind::Topic,
        Configured::Other(owner) => match owner.scope {
            Scope::Cluster | Scope::Broker => ConfigKind::Broker,
            Scope::Group => ConfigKind::Group,
            Scope::ClientMetrics => ConfigKind::ClientMetrics,
        },
    };
    definition(kind, name).is_none_or(|found| found.sensitive)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
