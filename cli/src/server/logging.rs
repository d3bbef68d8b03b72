//! Log events to stderr, as text or JSON. `OTTLA_LOG`, or else `RUST_LOG`, is a filter such as `info,ottla_broker=debug`.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use ottla_broker::loggers;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

use crate::node_config::LogFormat;

/// What is logged when the environment says nothing. What the libraries below us find worth a word is not: openraft
/// warns of each heartbeat that fails, and the controller says once that a peer went and once that it is back.
const LEVEL: &str = "info,openraft=error,sled=warn";

/// Set once log events are JSON objects.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether log events are JSON objects: then nothing else may be written between them.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// What of a filter can be read, and why not all of it. With nothing of it, it is as if nobody had said anything.
fn readable(filter: String) -> (String, Option<String>) {
    let Err(error) = EnvFilter::try_new(&filter) else { return (filter, None) };
    let is_good = |directive: &&str| EnvFilter::try_new(directive).is_ok();
    let good: Vec<&str> = filter.split(',').filter(is_good).collect();
    (if good.is_empty() { LEVEL.to_owned() } else { good.join(",") }, Some(error.to_string()))
}

/// A panic is one log event: in JSON its text may not stand between the objects.
fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(
            thread = std::thread::current().name().unwrap_or_default(),
            place,
            backtrace,
            "panic: {}",
            message.unwrap_or("no words")
        );
    }));
}

/// Starts logging, and with an endpoint sending spans there: then within a runtime.
pub(crate) fn start(format: LogFormat, otlp_endpoint: Option<&str>) {
    let base = ["OTTLA_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let base = base.filter(|filter| !filter.is_empty()).unwrap_or_else(|| LEVEL.to_owned());
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let asked = base.clone();
    let (base, unreadable) = readable(base);
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&base));
    #[cfg(not(feature = "otlp"))]
    // Without the feature the configuration has refused it.
    let _ = otlp_endpoint;
    let events = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let events = match format {
        LogFormat::Text => events.boxed(),
        LogFormat::Json => {
            IS_JSON.store(true, Ordering::Relaxed);
            events.json().flatten_event(true).boxed()
        }
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
    if is_json() {
        tell_panics();
    }
    if let Some(error) = unreadable {
        tracing::warn!("the log's filter '{asked}' cannot be read, what can be of it counts: {error}");
    }
    loggers::install(base, move |filter| {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_filter_counts_what_can_be_read() {
        let of = |filter: &str| {
            let (base, unreadable) = readable(filter.to_owned());
            (base, unreadable.is_some())
        };
        assert_eq!(of("info,ottla_broker=debug"), ("info,ottla_broker=debug".to_owned(), false));
        assert_eq!(of("warn,ottla=a=b"), ("warn".to_owned(), true));
        assert_eq!(of("ottla=a=b"), (LEVEL.to_owned(), true));
    }
}
