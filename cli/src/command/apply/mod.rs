//! `ottla apply FILE…`: makes a cluster be what files say; and writes down what it is.

mod cluster;
mod document;
mod plan;
mod show;
mod state;

use std::path::PathBuf;

use clap::Args;

use self::document::Document;
use self::show::PlanDocument;
use super::topic::ask;
use crate::admin::Admin;
use crate::failure::{Drifted, Failure, Failures};
use crate::output;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla apply --export > cluster.yaml
  ottla apply cluster.yaml
  ottla apply topics.yaml access.yaml --yes
  ottla apply cluster.yaml --check              exit code 2 if the cluster is not so
  ottla apply cluster.yaml --delete             what the files do not name goes

A document; every section may be absent, and is then not looked at:
  topics:
    - name: orders
      partitions: 6
      replication_factor: 3
      configs: {retention.ms: 86400000}
  configs:
    - scope: cluster                            or broker, group, client-metrics, with a name
      configs: {log.retention.ms: 604800000}
  users:
    - name: alice
      password_file: alice.password             or password_env: ALICE_PASSWORD
  quotas:
    - entity: {user: alice}                     user, client-id, ip; null is the default
      limits: {producer_byte_rate: 1048576}
  acls:
    - principal: User:alice
      resource_type: topic
      resource_name: orders
      operation: [read, write]

The password of a user who exists is not compared: 'ottla user add' changes it.")]
#[command(group = clap::ArgGroup::new("source").required(true).args(["files", "export"]))]
pub(crate) struct Apply {
    /// YAML or JSON documents; - is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Change nothing; exit code 2 if the cluster is not as the files say
    #[arg(long, conflicts_with_all = ["yes", "export"])]
    check: bool,
    /// Do not ask
    #[arg(long, short, conflicts_with = "export")]
    yes: bool,
    /// Delete what the files' sections do not name: topics with their records, settings, users, limits, rules
    #[arg(long, conflicts_with = "export")]
    delete: bool,
    /// Write what there is as a document
    #[arg(long)]
    export: bool,
}

impl Apply {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        if self.export {
            return export(session).await;
        }
        let wanted = document::read(&self.files)?;
        let mut admin = Admin::connect(session).await?;
        let current = cluster::read(&mut admin, &wanted, self.delete).await?;
        let changes = plan::plan(&wanted, &current, self.delete).map_err(Failures)?;
        Failures::check(cluster::check(&mut admin, &changes).await)?;
        let shown = PlanDocument::new(&changes, false);
        if self.check || changes.is_empty() {
            let drifted = !changes.is_empty();
            // In quiet mode the exit code alone tells.
            session.output.done(&shown, PlanDocument::table)?;
            return if drifted { Err(Drifted.into()) } else { Ok(()) };
        }
        if !session.output.is_machine() && !session.output.quiet {
            output::print(&shown.table())?;
        }
        if !self.yes {
            ask("do this?", "changing needs --yes where nobody can be asked", "nothing was changed")?;
        }
        let mut done = 0;
        while let Some(left) = changes.get(done..).filter(|left| !left.is_empty()) {
            let count = cluster::together(left);
            let step = left.get(..count).unwrap_or(left);
            if let Err(failure) = cluster::carry_out_all(&mut admin, step).await {
                let made = format!("{done} of {} steps were made; the next was refused: ", changes.len());
                return Err(failure.prefixed(&made).into());
            }
            done += count;
        }
        session.output.done(&PlanDocument::new(&changes, true), PlanDocument::sum)
    }
}

async fn export(session: &Session) -> anyhow::Result<()> {
    let mut admin = Admin::connect(session).await?;
    let document = Document::of(cluster::read_all(&mut admin).await?);
    let yaml = |document: &Document| match serde_json::to_value(document) {
        Ok(value) => output::yaml(&value),
        Err(error) => Failure::new(error.to_string()).to_string(),
    };
    session.output.show(&document, yaml)
}
