//! Levels of one broker's loggers: `ottla config get|set|unset --loggers ID`. They count until the broker's process ends.

use serde::Serialize;

use crate::client::{self, cluster::Cluster, loggers};
use crate::failure::Failure;
use crate::output;
use crate::profile::Session;

#[derive(Debug, Serialize)]
struct Document {
    loggers: Vec<Logger>,
}

#[derive(Debug, Serialize)]
struct Logger {
    name: String,
    level: String,
}

/// Shows levels.
pub(super) async fn get(session: &Session, broker: i32, names: &[String]) -> anyhow::Result<()> {
    let mut cluster = Cluster::new(client::bootstrap(session).await?, session.timeout);
    let levels = loggers::levels(&mut cluster, broker, names).await.map_err(Failure::from)?;
    let loggers = levels.into_iter().map(|(name, level)| Logger { name, level }).collect();
    session.output.show(&Document { loggers }, |document| {
        let row = |logger: &Logger| vec![logger.name.clone(), logger.level.clone()];
        output::table(&["LOGGER", "LEVEL"], document.loggers.iter().map(row))
    })
}

/// Changes levels, or only asks whether they could be.
pub(super) async fn change(
    session: &Session,
    broker: i32,
    set: &[(String, String)],
    unset: &[String],
    dry_run: bool,
) -> anyhow::Result<()> {
    let set = set.iter().map(|(name, level)| (name.clone(), Some(level.to_ascii_uppercase())));
    let levels: Vec<_> = set.chain(unset.iter().map(|name| (name.clone(), None))).collect();
    let mut cluster = Cluster::new(client::bootstrap(session).await?, session.timeout);
    loggers::change(&mut cluster, broker, &levels, dry_run).await.map_err(Failure::from)?;
    Ok(())
}
