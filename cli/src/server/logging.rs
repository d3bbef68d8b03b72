//! Log events to stderr, as text or JSON. `OTTLA_LOG`, or else `RUST_LOG`, is a filter such as `info,ottla_broker=debug`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::node_config::LogFormat;

/// What is logged when the environment says nothing. What the libraries below us find worth a word at "info" is not.
const LEVEL: &str = "info,openraft=warn,sled=warn";

/// Starts logging.
pub(crate) fn start(format: LogFormat) {
    let filter = ["OTTLA_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let filter =
        EnvFilter::new(filter.filter(|filter| !filter.is_empty()).unwrap_or_else(|| LEVEL.to_owned()));
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // Fails only where a test has started logging before.
    drop(match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    });
}
