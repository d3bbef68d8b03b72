//! `ottla topic delete NAME…`.

use std::io::{IsTerminal, Write};

use clap::Args;
use serde::Serialize;

use super::refusal;
use crate::admin::Admin;
use crate::failure::{Failure, Failures};
use crate::output;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla topic delete orders --yes")]
pub(crate) struct Delete {
    /// Names of the topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    deleted: Vec<String>,
}

impl Delete {
    /// Before anything is asked of a cluster.
    pub(super) fn confirm(&self) -> anyhow::Result<()> {
        if self.yes { Ok(()) } else { confirm(&format!("delete {} and all records?", self.names.join(", "))) }
    }

    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        let results = admin.delete_topics(self.names.clone()).await?;
        let failures = results
            .iter()
            .filter(|result| result.error_code != 0)
            .map(|result| refusal(result, "deleted"))
            .collect();
        let deleted: Vec<_> =
            results.into_iter().filter(|result| result.error_code == 0).map(|result| result.name).collect();
        if !deleted.is_empty() {
            let sentence = |document: &Document| {
                output::lines(document.deleted.iter().map(|name| format!("deleted {name}")))
            };
            session.output.done(&Document { deleted }, sentence)?;
        }
        Failures::check(failures)
    }
}

/// Asks on a terminal whether to delete; elsewhere nobody could answer.
pub(crate) fn confirm(question: &str) -> anyhow::Result<()> {
    ask(question, "deleting needs --yes where nobody can be asked", "nothing was deleted")
}

/// Asks on a terminal; `nobody` is the failure elsewhere, `refused` the one after a no.
pub(crate) fn ask(question: &str, nobody: &str, refused: &str) -> anyhow::Result<()> {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(Failure::usage(nobody).into());
    }
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(refused).into()),
    }
}
