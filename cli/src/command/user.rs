//! `ottla user list|add|remove`: who signs in by SCRAM.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use ottla_broker::security::sasl::scram::{ITERATIONS_MIN, ScramMechanism};
use ottla_proto::admin::AlterUserRequest;
use serde::Serialize;

use super::topic::confirm;
use crate::admin::Admin;
use crate::failure::Failure;
use crate::output;
use crate::profile::Session;
use crate::scram;

/// What can be done with users.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Users with a password for SCRAM
    List(List),
    /// Give a user a password, or another one
    Add(Add),
    /// Take a user's passwords away
    Remove(Remove),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla user list")]
pub(crate) struct List {}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla user add alice < password.txt
  ottla user add alice --mechanism SCRAM-SHA-512 --password-file /run/secrets/alice")]
pub(crate) struct Add {
    /// Name of the user
    name: String,
    /// How the user signs in [default: SCRAM-SHA-256 and SCRAM-SHA-512]
    #[arg(long, value_name = "MECHANISM", value_parser = scram::mechanism)]
    mechanism: Vec<ScramMechanism>,
    /// File whose first line is the password [default: standard input]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Rounds of hashing, 4096 to 16384
    #[arg(long, value_name = "N", default_value_t = ITERATIONS_MIN)]
    iterations: u32,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla user remove alice --yes")]
pub(crate) struct Remove {
    /// Name of the user
    name: String,
    /// Only this mechanism's password [default: all that the user has]
    #[arg(long, value_name = "MECHANISM", value_parser = scram::mechanism)]
    mechanism: Vec<ScramMechanism>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    users: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    mechanisms: Vec<Mechanism>,
}

#[derive(Debug, Serialize)]
struct Mechanism {
    mechanism: String,
    iterations: i32,
}

#[derive(Debug, Serialize)]
struct Changed {
    name: String,
    mechanisms: Vec<String>,
}

impl User {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::List(_) => list(session).await,
            Self::Add(add) => add.run(session).await,
            Self::Remove(remove) => remove.run(session).await,
        }
    }
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let users = Admin::connect(session).await?.list_users().await?;
    let shown = |user: ottla_proto::admin::User| Shown {
        name: user.name,
        mechanisms: user
            .mechanisms
            .into_iter()
            .map(|one| Mechanism { mechanism: one.mechanism, iterations: one.iterations })
            .collect(),
    };
    let table = |document: &Document| {
        let row = |user: &Shown| {
            let names: Vec<_> = user.mechanisms.iter().map(|one| one.mechanism.as_str()).collect();
            vec![user.name.clone(), names.join(", ")]
        };
        output::table(&["NAME", "MECHANISMS"], document.users.iter().map(row))
    };
    session.output.show(&Document { users: users.into_iter().map(shown).collect() }, table)
}

impl Add {
    async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let password = self.password()?;
        let mechanisms = if self.mechanism.is_empty() {
            vec![ScramMechanism::Sha256, ScramMechanism::Sha512]
        } else {
            self.mechanism.clone()
        };
        let credential = |mechanism: &ScramMechanism| {
            scram::user_credential(*mechanism, &password, self.iterations)
                .ok_or_else(|| Failure::usage("--iterations must be 4096 to 16384"))
        };
        let set = mechanisms.iter().map(credential).collect::<Result<Vec<_>, Failure>>()?;
        let request = AlterUserRequest { name: self.name.clone(), set, remove: Vec::new() };
        Admin::connect(session).await?.alter_user(request).await?;
        let names = mechanisms.iter().map(|one| scram::name(*one).to_owned()).collect();
        let sentence =
            |changed: &Changed| format!("{} signs in by {}", changed.name, changed.mechanisms.join(", "));
        session.output.done(&Changed { name: self.name.clone(), mechanisms: names }, sentence)
    }

    /// The first line of the file or of standard input.
    fn password(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        if let Some(file) = &self.password_file {
            text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        } else if std::io::stdin().is_terminal() {
            write!(std::io::stderr(), "password of {} (shown as you type): ", self.name)?;
            std::io::stderr().flush()?;
            std::io::stdin().read_line(&mut text)?;
        } else {
            std::io::stdin().read_to_string(&mut text)?;
        }
        match text.lines().next() {
            Some(password) if !password.is_empty() => Ok(password.to_owned()),
            _ => Err(Failure::usage("the password is empty").hint("give it on standard input").into()),
        }
    }
}

impl Remove {
    async fn run(&self, session: &Session) -> anyhow::Result<()> {
        if !self.yes {
            confirm(&format!("take the passwords of {} away?", self.name))?;
        }
        let mut admin = Admin::connect(session).await?;
        let mut remove: Vec<String> =
            self.mechanism.iter().map(|mechanism| scram::name(*mechanism).to_owned()).collect();
        if remove.is_empty() {
            let known = admin.list_users().await?.into_iter().find(|user| user.name == self.name);
            let Some(known) = known else {
                return Err(Failure::new(format!("user \"{}\" does not exist", self.name))
                    .hint("'ottla user list' shows those that do")
                    .into());
            };
            remove = known.mechanisms.into_iter().map(|one| one.mechanism).collect();
        }
        let request = AlterUserRequest { name: self.name.clone(), set: Vec::new(), remove: remove.clone() };
        admin.alter_user(request).await?;
        let sentence = |changed: &Changed| {
            format!("{} signs in no more by {}", changed.name, changed.mechanisms.join(", "))
        };
        session.output.done(&Changed { name: self.name.clone(), mechanisms: remove }, sentence)
    }
}
