//! `ottla config get|set|unset`: settings of a running cluster.

use clap::Args;
use ottla_proto::admin::{self, AlterConfigsRequest, ConfigScope, DescribeConfigsRequest};
use serde::Serialize;

use super::loggers;
use crate::admin::Admin;
use crate::output::{self, counted};
use crate::parse;
use crate::profile::Session;

/// Whose settings.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
#[command(next_help_heading = "Whose settings")]
pub(crate) struct Scope {
    /// Those of a topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Those of one broker
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
    /// Those of all brokers
    #[arg(long)]
    cluster: bool,
    /// Those of a group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Those of a client metrics subscription
    #[arg(long, value_name = "NAME")]
    client_metrics: Option<String>,
    /// Levels of one broker's loggers, until its process ends: ottla_broker=DEBUG, root=WARN
    #[arg(long, value_name = "ID")]
    loggers: Option<i32>,
}

impl Scope {
    fn resource(&self) -> (ConfigScope, String) {
        if let Some(topic) = &self.topic {
            (ConfigScope::Topic, topic.clone())
        } else if let Some(broker) = self.broker {
            (ConfigScope::Broker, broker.to_string())
        } else if let Some(group) = &self.group {
            (ConfigScope::Group, group.clone())
        } else if let Some(name) = &self.client_metrics {
            (ConfigScope::ClientMetrics, name.clone())
        } else {
            (ConfigScope::Cluster, String::new())
        }
    }

    fn words(&self) -> String {
        if let Some(broker) = self.loggers {
            return format!("the loggers of broker {broker}");
        }
        match self.resource() {
            (ConfigScope::Topic, name) => format!("topic {name}"),
            (ConfigScope::Broker, name) => format!("broker {name}"),
            (ConfigScope::Group, name) => format!("group {name}"),
            (ConfigScope::ClientMetrics, name) => format!("client metrics {name}"),
            (ConfigScope::Cluster | ConfigScope::Unspecified, _) => "the cluster".to_owned(),
        }
    }
}

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ottla config get --topic orders\n  ottla config get --broker 1 log.retention.ms"
)]
pub(crate) struct Get {
    #[command(flatten)]
    scope: Scope,
    /// Names of settings [default: those that are not left at their default]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Also settings that are left at their default
    #[arg(long, short)]
    all: bool,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ottla config set --topic orders retention.ms=3600000 cleanup.policy=compact,delete\n  ottla config set --loggers 1 ottla_broker=DEBUG"
)]
pub(crate) struct Set {
    #[command(flatten)]
    scope: Scope,
    /// Settings to make
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = parse::name_value)]
    settings: Vec<(String, String)>,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla config unset --topic orders retention.ms")]
pub(crate) struct Unset {
    #[command(flatten)]
    scope: Scope,
    /// Names of settings
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct GetDocument {
    configs: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    /// Null: none, or a secret.
    value: Option<String>,
    source: String,
    read_only: bool,
    sensitive: bool,
    #[serde(rename = "type")]
    kind: String,
    documentation: String,
}

#[derive(Debug, Serialize)]
struct ChangeDocument {
    set: Vec<String>,
    unset: Vec<String>,
    dry_run: bool,
}

impl Get {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        if let Some(broker) = self.scope.loggers {
            return loggers::get(session, broker, &self.names).await;
        }
        let (scope, name) = self.scope.resource();
        let mut admin = Admin::connect(session).await?;
        let request = DescribeConfigsRequest { scope: scope.into(), name, keys: self.names.clone() };
        let show_defaults = self.all || !self.names.is_empty();
        let mut configs: Vec<_> = admin
            .describe_configs(request)
            .await?
            .into_iter()
            .filter(|config| show_defaults || config.source != "default")
            .map(Entry::from)
            .collect();
        configs.sort_by(|one, other| one.name.cmp(&other.name));
        session.output.show(&GetDocument { configs }, table)
    }
}

impl From<admin::Config> for Entry {
    fn from(config: admin::Config) -> Self {
        Self {
            name: config.name,
            value: config.value,
            source: config.source,
            read_only: config.read_only,
            sensitive: config.sensitive,
            kind: config.r#type,
            documentation: config.documentation,
        }
    }
}

fn table(document: &GetDocument) -> String {
    let row = |entry: &Entry| {
        let value = match (&entry.value, entry.sensitive) {
            (Some(value), _) => value.clone(),
            (None, true) => "(secret)".to_owned(),
            (None, false) => "-".to_owned(),
        };
        let change = if entry.read_only { "restart" } else { "running" };
        vec![entry.name.clone(), value, entry.source.clone(), change.to_owned()]
    };
    output::table(&["NAME", "VALUE", "SOURCE", "CHANGES"], document.configs.iter().map(row))
}

impl Set {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        change(session, &self.scope, &self.settings, &[], self.dry_run).await
    }
}

impl Unset {
    pub(super) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        change(session, &self.scope, &[], &self.names, self.dry_run).await
    }
}

async fn change(
    session: &Session,
    scope: &Scope,
    set: &[(String, String)],
    unset: &[String],
    dry_run: bool,
) -> anyhow::Result<()> {
    let (kind, name) = scope.resource();
    let request = AlterConfigsRequest {
        scope: kind.into(),
        name,
        set: set.iter().cloned().collect(),
        unset: unset.to_vec(),
        validate_only: dry_run,
    };
    match scope.loggers {
        Some(broker) => loggers::change(session, broker, set, unset, dry_run).await?,
        None => Admin::connect(session).await?.alter_configs(request).await?,
    }
    let document = ChangeDocument {
        set: set.iter().map(|(name, _)| name.clone()).collect(),
        unset: unset.to_vec(),
        dry_run,
    };
    session.output.done(&document, |document| {
        let count = counted(document.set.len() + document.unset.len(), "setting");
        let done = if document.dry_run { "could be changed" } else { "changed" };
        format!("{count} of {} {done}", scope.words())
    })
}
