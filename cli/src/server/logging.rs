//! Log events to stderr, as text or JSON. `OTTLA_LOG`, or else `RUST_LOG`, is a filter such as `info,ottla_broker=debug`.

use std::io::IsTerminal;

use ottla_broker::loggers;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

use crate::node_config::LogFormat;

/// What is logged when the environment says nothing. What the libraries below us find worth a word is not: openraft
/// warns of each heartbeat that fails, and the controller says once that a peer went and once that it is back.
const LEVEL: &str = "info,openraft=error,sled=warn";

/// Starts logging, and with an endpoint sending spans there: then within a runtime.
pub(crate) fn start(format: LogFormat, otlp_endpoint: Option<&str>) {
    let base = ["OTTLA_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let base = base.filter(|filter| !filter.is_empty()).unwrap_or_else(|| LEVEL.to_owned());
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&base));
    #[cfg(not(feature = "otlp"))]
    // Without the feature the configuration has refused it.
    let _ = otlp_endpoint;
    let events = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let events = match format {
        LogFormat::Text => events.boxed(),
        LogFormat::Json => events.json().flatten_event(true).boxed(),
    };
    // Fails only where a test has started logging before. Levels are those of log events: spans have a filter of their own.
    #[cfg(feature = "otlp")]
    drop(
        tracing_subscriber::registry()
            .with(events.with_filter(filter))
            .with(otlp_endpoint.and_then(super::traces::layer))
            .try_init(),
    );
    #[cfg(not(feature = "otlp"))]
    drop(tracing_subscriber::registry().with(filter).with(events).try_init());
    loggers::install(base, move |filter| {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    });
}
