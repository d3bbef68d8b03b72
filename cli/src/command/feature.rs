//! `ottla feature …`: what the cluster has agreed to do.

use clap::{Args, Subcommand};
use ottla_proto::admin::UpdateFeatureRequest;
use serde::Serialize;

use crate::admin::Admin;
use crate::output;
use crate::profile::Session;

/// What can be done with features.
#[derive(Debug, Subcommand)]
pub(crate) enum Feature {
    /// Features and their levels
    List(List),
    /// Raise a feature to a level
    Upgrade(Change),
    /// Lower a feature to a level; 0 switches it off
    Downgrade(Change),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla feature list")]
pub(crate) struct List {}

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ottla feature upgrade transaction.version 2\n  ottla feature downgrade transaction.version 1"
)]
pub(crate) struct Change {
    /// Name of the feature
    name: String,
    /// Its new level
    level: i32,
    /// Check it, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    features: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    level: i32,
    level_min: i32,
    level_max: i32,
}

#[derive(Debug, Serialize)]
struct Changed {
    name: String,
    level: i32,
    dry_run: bool,
}

impl Feature {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let mut admin = Admin::connect(session).await?;
        let (change, downgrade) = match self {
            Self::List(_) => return list(session, admin).await,
            Self::Upgrade(change) => (change, false),
            Self::Downgrade(change) => (change, true),
        };
        let request = UpdateFeatureRequest {
            name: change.name.clone(),
            level: change.level,
            downgrade,
            validate_only: change.dry_run,
        };
        admin.update_feature(request).await?;
        let changed = Changed { name: change.name.clone(), level: change.level, dry_run: change.dry_run };
        session.output.done(&changed, |changed| {
            let verb = if changed.dry_run { "could be" } else { "is" };
            format!("{} {verb} at level {}", changed.name, changed.level)
        })
    }
}

async fn list(session: &Session, mut admin: Admin) -> anyhow::Result<()> {
    let features = admin.describe_features().await?.into_iter().map(|feature| Row {
        name: feature.name,
        level: feature.level,
        level_min: feature.level_min,
        level_max: feature.level_max,
    });
    session.output.show(&Document { features: features.collect() }, |document| {
        let row = |row: &Row| {
            let range = format!("{} to {}", row.level_min, row.level_max);
            vec![row.name.clone(), row.level.to_string(), range]
        };
        output::table(&["FEATURE", "LEVEL", "SUPPORTED"], document.features.iter().map(row))
    })
}
