//! The load of `tests/bench/groups` and `tests/bench/transactions`: raw requests, so that no client library is the bottleneck.
//!
//! `ottla-load VERB bootstrap=HOST:PORT,… NAME=VALUE…` prints its figures as one JSON object. One thread; errors end it.

mod commits;
mod connection;
mod heartbeats;
mod membership;
mod produce;
mod transactions;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The settings of a call, by name.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn text(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("{name}=… is missing"))
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<T> {
        self.text(name)?.parse().ok().with_context(|| format!("{name} is no number"))
    }

    fn duration(&self) -> Result<Duration> {
        Ok(Duration::from_secs(self.number("seconds")?))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().context("usage: ottla-load VERB NAME=VALUE…")?;
    let mut settings = BTreeMap::new();
    for argument in arguments {
        let (name, value) =
            argument.split_once('=').with_context(|| format!("{argument} is no NAME=VALUE"))?;
        settings.insert(name.to_owned(), value.to_owned());
    }
    let settings = Settings(settings);
    let figures = match verb.as_str() {
        "groups" => membership::groups(&settings).await?,
        "classic-rebalance" => membership::rebalance(&settings).await?,
        "consumer-rebalance" => heartbeats::rebalance(&settings).await?,
        "commits" => commits::run(&settings).await?,
        "transactions" => transactions::run(&settings).await?,
        "produce" => produce::run(&settings).await?,
        verb => bail!("no verb {verb}"),
    };
    println!("{figures}");
    Ok(())
}

/// Percentiles of samples, in milliseconds.
fn percentiles(prefix: &str, mut samples: Vec<Duration>) -> Value {
    samples.sort_unstable();
    let at = |percent: usize| {
        let index = (samples.len() * percent / 100).min(samples.len().saturating_sub(1));
        samples.get(index).map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
    };
    json!({ format!("{prefix}p50 ms"): at(50), format!("{prefix}p99 ms"): at(99) })
}

/// Two JSON objects as one.
fn merged(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}
