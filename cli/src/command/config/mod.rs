//! `ottla config …`: property files, and the settings of a running cluster.

mod check;
mod live;
mod loggers;
mod reference;

use clap::Subcommand;

use crate::profile::Session;

/// What can be done with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check a property file: all its problems at once, without starting anything
    Check(check::Check),
    /// Every property: type, default, since when, whether it changes while running
    Reference(reference::Reference),
    /// Settings of a topic, a broker, the cluster or a group
    Get(live::Get),
    /// Change settings while running
    Set(live::Set),
    /// Take settings back to their defaults
    Unset(live::Unset),
}

impl Config {
    /// The commands that talk to a cluster.
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Get(get) => get.run(session).await,
            Self::Set(set) => set.run(session).await,
            Self::Unset(unset) => unset.run(session).await,
            Self::Check(check) => check.run(session.output),
            Self::Reference(reference) => reference.run(session.output),
        }
    }
}
