//! A plan as people and scripts see it.

use serde::Serialize;

use super::plan::{Action, Change, Configured, Setting};
use crate::output;

/// What a setting is shown as that must not be.
const SECRET: &str = "(secret)";

/// A plan, and whether it was carried out.
#[derive(Debug, Serialize)]
pub(super) struct PlanDocument {
    create: usize,
    change: usize,
    delete: usize,
    changes: Vec<Step>,
    applied: bool,
}

#[derive(Debug, Serialize)]
struct Step {
    /// `create`, `change` or `delete`.
    action: &'static str,
    kind: &'static str,
    name: String,
    details: Vec<String>,
}

impl PlanDocument {
    pub(super) fn new(changes: &[Change], applied: bool) -> Self {
        let count = |action| changes.iter().filter(|change| change.action() == action).count();
        Self {
            create: count(Action::Create),
            change: count(Action::Change),
            delete: count(Action::Delete),
            changes: changes.iter().map(step).collect(),
            applied,
        }
    }

    /// The steps and their sum.
    pub(super) fn table(&self) -> String {
        if self.changes.is_empty() {
            return "nothing to do: the cluster is as the files say\n".to_owned();
        }
        let mut lines = Vec::new();
        for step in &self.changes {
            let sign = match step.action {
                "create" => '+',
                "delete" => '-',
                _ => '~',
            };
            lines.push(format!("{sign} {} {}", step.kind, step.name));
            lines.extend(step.details.iter().map(|detail| format!("    {detail}")));
        }
        output::lines(lines) + "\n" + &self.sum() + "\n"
    }

    /// `1 to create, 2 to change, 0 to delete`.
    pub(super) fn sum(&self) -> String {
        let Self { create, change, delete, .. } = self;
        if self.applied {
            format!("done: {create} created, {change} changed, {delete} deleted")
        } else {
            format!("plan: {create} to create, {change} to change, {delete} to delete")
        }
    }
}

fn step(change: &Change) -> Step {
    let action = match change.action() {
        Action::Create => "create",
        Action::Change => "change",
        Action::Delete => "delete",
    };
    let (kind, name, details) = parts(change);
    Step { action, kind, name, details }
}

fn parts(change: &Change) -> (&'static str, String, Vec<String>) {
    match change {
        Change::SetUser { name, user, .. } => {
            let mechanism = |(name, iterations): (&String, &u32)| format!("{name}, {iterations} iterations");
            ("user", name.clone(), user.mechanisms.iter().map(mechanism).collect())
        }
        Change::CreateTopic { name, topic } => {
            let given = [("partitions", topic.partitions), ("replication factor", topic.replication_factor)];
            let given = given.iter().filter_map(|(what, count)| Some(format!("{what}: {}", (*count)?)));
            let configs =
                topic.configs.iter().filter_map(|(key, value)| Some(format!("{key}: {}", value.as_ref()?)));
            ("topic", name.clone(), given.chain(configs).collect())
        }
        Change::AddPartitions { name, from, to } => {
            ("topic", name.clone(), vec![format!("partitions: {from} -> {to}")])
        }
        Change::AlterConfigs { of, change } => {
            let (kind, name) = match of {
                Configured::Topic(name) => ("topic", name.clone()),
                Configured::Other(owner) => ("settings of", owner.to_string()),
            };
            (kind, name, change.iter().map(|(key, setting)| detail(key, setting)).collect())
        }
        Change::AlterQuota { entity, change, .. } => {
            let shown =
                |limit: Option<f64>| limit.map_or_else(|| "(none)".to_owned(), |limit| limit.to_string());
            let line = |(key, (before, after)): (&String, &(Option<f64>, Option<f64>))| {
                format!("{key}: {} -> {}", shown(*before), shown(*after))
            };
            ("quota of", entity.to_string(), change.iter().map(line).collect())
        }
        Change::AddRule(rule) | Change::RemoveRule(rule) => ("rule:", rule.to_string(), Vec::new()),
        Change::RemoveUser { name, mechanisms } => ("user", name.clone(), mechanisms.clone()),
        Change::DeleteTopic { name } => ("topic", name.clone(), vec!["with all its records".to_owned()]),
    }
}

fn detail(key: &str, setting: &Setting) -> String {
    let is_secret = setting.is_secret;
    // That a secret was set is known, its value is not.
    let before =
        if is_secret && setting.after.is_none() { SECRET } else { shown(setting.before.as_ref(), is_secret) };
    format!("{key}: {before} -> {}", shown(setting.after.as_ref(), is_secret))
}

fn shown(value: Option<&String>, is_secret: bool) -> &str {
    match value {
        None => "(default)",
        Some(_) if is_secret => SECRET,
        Some(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn steps_have_a_sign_and_secrets_are_not_shown() {
        let secret = Setting { before: None, after: Some("hunter2".into()), is_secret: true };
        let open = Setting { before: Some("1".into()), after: None, is_secret: false };
        let change = BTreeMap::from([("ssl.key.password".to_owned(), secret), ("x".to_owned(), open)]);
        let changes = [
            Change::AlterConfigs { of: Configured::Topic("t".into()), change },
            Change::DeleteTopic { name: "old".into() },
        ];
        let shown = PlanDocument::new(&changes, false).table();
        assert_eq!(
            shown,
            "~ topic t\n    ssl.key.password: (default) -> (secret)\n    x: 1 -> (default)\n- topic old\n    with all \
             its records\n\nplan: 0 to create, 1 to change, 1 to delete\n"
        );
        assert!(PlanDocument::new(&[], false).table().starts_with("nothing to do"));
    }
}
