//! `ottla quota list|set|unset`: how fast clients may be.

use std::collections::{BTreeMap, HashMap};

use clap::{Args, Subcommand};
use ottla_proto::admin::{AlterQuotaRequest, Quota as Limit, QuotaPart};
use serde::Serialize;

use crate::admin::Admin;
use crate::failure::Failure;
use crate::output::{self, counted};
use crate::profile::Session;

/// What can be done with quotas.
#[derive(Debug, Subcommand)]
pub(crate) enum Quota {
    /// Every quota
    List(List),
    /// Set limits
    Set(Set),
    /// Take limits away
    Unset(Unset),
}

/// Whose limits.
#[derive(Debug, Args)]
#[command(next_help_heading = "Whose limits")]
pub(crate) struct Entity {
    /// A user's; without a name those of every user who has none
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    user: Option<String>,
    /// A client id's; without a name those of every client id that has none
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    client_id: Option<String>,
    /// An address's; without one those of every address that has none
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["user", "client_id"])]
    ip: Option<String>,
}

impl Entity {
    fn parts(&self) -> Result<Vec<QuotaPart>, Failure> {
        let parts: Vec<_> = [("user", &self.user), ("client-id", &self.client_id), ("ip", &self.ip)]
            .into_iter()
            .filter_map(|(kind, part)| {
                Some(QuotaPart {
                    r#type: kind.to_owned(),
                    name: Some(part.clone()?).filter(|name| !name.is_empty()),
                })
            })
            .collect();
        if parts.is_empty() {
            return Err(Failure::usage("whose limits?").hint("name --user, --client-id, both, or --ip"));
        }
        Ok(parts)
    }
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla quota list")]
pub(crate) struct List {}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla quota set producer_byte_rate=10485760 --user alice
  ottla quota set consumer_byte_rate=1048576 request_percentage=50 --client-id
  ottla quota set connection_creation_rate=10 --ip 10.0.0.7")]
pub(crate) struct Set {
    /// Limits a second: producer_byte_rate, consumer_byte_rate, controller_mutation_rate, connection_creation_rate; and
    /// request_percentage
    #[arg(required = true, value_name = "KEY=NUMBER", value_parser = limit)]
    limits: Vec<(String, f64)>,
    #[command(flatten)]
    entity: Entity,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla quota unset producer_byte_rate --user alice")]
pub(crate) struct Unset {
    /// Keys of limits
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    entity: Entity,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

/// `key=number`.
fn limit(text: &str) -> Result<(String, f64), String> {
    let (key, value) = crate::parse::name_value(text)?;
    let value = value.parse().map_err(|_| format!("'{value}' is not a number"))?;
    Ok((key, value))
}

#[derive(Debug, Serialize)]
struct Document {
    quotas: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    /// By type; null: the default of the type.
    entity: BTreeMap<String, Option<String>>,
    limits: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize)]
struct Changed {
    set: Vec<String>,
    unset: Vec<String>,
    dry_run: bool,
}

impl Quota {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::List(_) => list(session).await,
            Self::Set(set) => change(session, &set.entity, &set.limits, &[], set.dry_run).await,
            Self::Unset(unset) => change(session, &unset.entity, &[], &unset.keys, unset.dry_run).await,
        }
    }
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let shown = |quota: Limit| Shown {
        entity: quota.entity.into_iter().map(|part| (part.r#type, part.name)).collect(),
        limits: quota.limits.into_iter().collect(),
    };
    let quotas = Admin::connect(session).await?.list_quotas().await?.into_iter().map(shown).collect();
    session.output.show(&Document { quotas }, table)
}

fn table(document: &Document) -> String {
    let rows = document.quotas.iter().flat_map(|quota| {
        let part = |kind: &str| match quota.entity.get(kind) {
            Some(name) => name.clone().unwrap_or_else(|| "(default)".to_owned()),
            None => "-".to_owned(),
        };
        let entity = [part("user"), part("client-id"), part("ip")];
        quota.limits.iter().map(move |(key, value)| {
            let mut row = entity.to_vec();
            row.extend([key.clone(), value.to_string()]);
            row
        })
    });
    output::table(&["USER", "CLIENT ID", "IP", "LIMIT", "VALUE"], rows)
}

async fn change(
    session: &Session,
    entity: &Entity,
    set: &[(String, f64)],
    unset: &[String],
    dry_run: bool,
) -> anyhow::Result<()> {
    let request = AlterQuotaRequest {
        entity: entity.parts()?,
        set: set.iter().cloned().collect::<HashMap<_, _>>(),
        unset: unset.to_vec(),
        validate_only: dry_run,
    };
    Admin::connect(session).await?.alter_quota(request).await?;
    let changed =
        Changed { set: set.iter().map(|(key, _)| key.clone()).collect(), unset: unset.to_vec(), dry_run };
    session.output.done(&changed, |changed| {
        let count = counted(changed.set.len() + changed.unset.len(), "limit");
        format!("{count} {}", if changed.dry_run { "could be changed" } else { "changed" })
    })
}
