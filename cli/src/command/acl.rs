//! `ottla acl list|add|remove`: the rules of who may do what.

use clap::{Args, Subcommand};
use ottla_proto::admin::{Acl as Rule, AclFilter};
use serde::Serialize;

use super::topic::confirm;
use crate::admin::Admin;
use crate::output::{self, counted};
use crate::profile::Session;

/// The name of the one cluster resource.
const CLUSTER_NAME: &str = "kafka-cluster";

/// What can be done with rules.
#[derive(Debug, Subcommand)]
pub(crate) enum Acl {
    /// Rules, all or some
    List(List),
    /// Allow or deny somebody something
    Add(Add),
    /// Take rules back
    Remove(Remove),
}

/// What a rule is about.
#[derive(Debug, Args)]
#[group(multiple = false)]
#[command(next_help_heading = "What it is about")]
pub(crate) struct Resource {
    /// A topic; * is every topic
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// A group of any kind; * is every group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// The cluster
    #[arg(long)]
    cluster: bool,
    /// A transactional id; * is every one
    #[arg(long, value_name = "ID")]
    transactional_id: Option<String>,
    /// A delegation token
    #[arg(long, value_name = "ID")]
    delegation_token: Option<String>,
    /// A user, whose tokens others ask for
    #[arg(long, value_name = "TYPE:NAME")]
    user: Option<String>,
}

impl Resource {
    fn resource(&self) -> Option<(&'static str, &str)> {
        let named = [
            ("topic", &self.topic),
            ("group", &self.group),
            ("transactional-id", &self.transactional_id),
            ("delegation-token", &self.delegation_token),
            ("user", &self.user),
        ];
        let named = named.into_iter().find_map(|(kind, name)| Some((kind, name.as_deref()?)));
        named.or_else(|| self.cluster.then_some(("cluster", CLUSTER_NAME)))
    }
}

/// Which rules.
#[derive(Debug, Args)]
pub(crate) struct Which {
    #[command(flatten)]
    resource: Resource,
    /// Only rules whose name is meant so: literal, prefixed, or match for all that hold for the name
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<String>,
    /// Only rules for somebody
    #[arg(long, value_name = "TYPE:NAME")]
    principal: Option<String>,
    /// Only rules for a host
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Only rules for an operation
    #[arg(long, value_name = "OPERATION")]
    operation: Option<String>,
    /// Only rules that deny
    #[arg(long)]
    deny: bool,
}

impl Which {
    fn filter(&self) -> AclFilter {
        let resource = self.resource.resource();
        AclFilter {
            resource_type: resource.map(|(kind, _)| kind.to_owned()),
            resource_name: resource.map(|(_, name)| name.to_owned()),
            pattern: self.pattern.clone(),
            principal: self.principal.clone(),
            host: self.host.clone(),
            operation: self.operation.clone(),
            permission: self.deny.then(|| "deny".to_owned()),
        }
    }
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ottla acl list\n  ottla acl list --topic orders --pattern match")]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla acl add --principal User:alice --topic orders --operation read,write
  ottla acl add --principal User:alice --group shop- --prefixed --operation read
  ottla acl add --principal 'User:*' --host 10.0.0.7 --deny --cluster --operation all")]
pub(crate) struct Add {
    #[command(flatten)]
    resource: Resource,
    /// Whom it is for; User:* is everybody
    #[arg(long, required = true, value_name = "TYPE:NAME")]
    principal: Vec<String>,
    /// From where; * is from everywhere
    #[arg(long, value_name = "ADDRESS", default_value = "*", hide_default_value = true)]
    host: Vec<String>,
    /// What: all, read, write, create, delete, alter, describe, alter-configs, describe-configs, …
    #[arg(long, required = true, value_delimiter = ',', value_name = "OPERATION[,…]")]
    operation: Vec<String>,
    /// The name is the beginning of names
    #[arg(long)]
    prefixed: bool,
    /// Deny it, whatever other rules allow
    #[arg(long)]
    deny: bool,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla acl remove --principal User:alice --topic orders --yes")]
pub(crate) struct Remove {
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    acls: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    resource_type: String,
    resource_name: String,
    pattern: String,
    principal: String,
    host: String,
    operation: String,
    permission: String,
}

impl From<Rule> for Shown {
    fn from(rule: Rule) -> Self {
        Self {
            resource_type: rule.resource_type,
            resource_name: rule.resource_name,
            pattern: rule.pattern,
            principal: rule.principal,
            host: rule.host,
            operation: rule.operation,
            permission: rule.permission,
        }
    }
}

fn document(rules: Vec<Rule>) -> Document {
    Document { acls: rules.into_iter().map(Shown::from).collect() }
}

fn table(document: &Document) -> String {
    let row = |acl: &Shown| {
        vec![
            acl.principal.clone(),
            acl.host.clone(),
            acl.permission.clone(),
            acl.operation.clone(),
            acl.resource_type.clone(),
            acl.resource_name.clone(),
            acl.pattern.clone(),
        ]
    };
    let headings = ["PRINCIPAL", "HOST", "RULE", "OPERATION", "RESOURCE", "NAME", "PATTERN"];
    output::table(&headings, document.acls.iter().map(row))
}

impl Acl {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::List(list) => {
                let rules = Admin::connect(session).await?.list_acls(list.which.filter()).await?;
                session.output.show(&document(rules), table)
            }
            Self::Add(add) => {
                let rules = add.rules()?;
                Admin::connect(session).await?.create_acls(rules.clone()).await?;
                let sentence =
                    |document: &Document| format!("{} added", counted(document.acls.len(), "rule"));
                session.output.done(&document(rules), sentence)
            }
            Self::Remove(remove) => {
                if !remove.yes {
                    confirm("remove these rules?")?;
                }
                let gone = Admin::connect(session).await?.delete_acls(remove.which.filter()).await?;
                let sentence =
                    |document: &Document| format!("{} removed", counted(document.acls.len(), "rule"));
                session.output.done(&document(gone), sentence)
            }
        }
    }
}

impl Add {
    /// One rule for each principal, host and operation.
    fn rules(&self) -> Result<Vec<Rule>, crate::failure::Failure> {
        let Some((kind, name)) = self.resource.resource() else {
            return Err(crate::failure::Failure::usage("what is the rule about?").hint(
                "name one of --topic, --group, --cluster, --transactional-id, --delegation-token, --user",
            ));
        };
        let mut rules = Vec::new();
        for principal in &self.principal {
            for host in &self.host {
                for operation in &self.operation {
                    rules.push(Rule {
                        resource_type: kind.to_owned(),
                        resource_name: name.to_owned(),
                        pattern: if self.prefixed { "prefixed" } else { "literal" }.to_owned(),
                        principal: principal.clone(),
                        host: host.clone(),
                        operation: operation.clone(),
                        permission: if self.deny { "deny" } else { "allow" }.to_owned(),
                    });
                }
            }
        }
        Ok(rules)
    }
}
