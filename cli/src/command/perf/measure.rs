//! Latencies in a histogram of constant size, rates, and the line that shows how far it is.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart (microseconds): an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Digits that a percentile is exact to.
const DIGITS: u8 = 3;
/// How often the progress is shown.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Latencies {
    pub(super) mean_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p99_9_ms: f64,
    pub(super) max_ms: f64,
}

impl Latencies {
    /// Lines for people.
    pub(super) fn rows(&self, what: &str) -> Vec<(String, String)> {
        [
            ("mean", self.mean_ms),
            ("p50", self.p50_ms),
            ("p95", self.p95_ms),
            ("p99", self.p99_ms),
            ("p99.9", self.p99_9_ms),
            ("max", self.max_ms),
        ]
        .into_iter()
        .map(|(name, ms)| (format!("{what} {name}"), format!("{ms:.3} ms")))
        .collect()
    }
}

/// What is measured of a run.
#[derive(Debug)]
pub(super) struct Meter {
    latencies: Histogram<u64>,
    pub(super) records: u64,
    pub(super) bytes: u64,
    began: Instant,
    shown: (Instant, u64),
    quiet: bool,
}

impl Meter {
    pub(super) fn new(quiet: bool) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            latencies: Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS)?,
            records: 0,
            bytes: 0,
            began: now,
            shown: (now, 0),
            quiet: quiet || !std::io::stderr().is_terminal(),
        })
    }

    /// Records that were done together, and how long each of them took.
    pub(super) fn add(&mut self, records: u64, bytes: u64, latency: Option<Duration>) {
        self.records += records;
        self.bytes += bytes;
        if let Some(latency) = latency {
            let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            // Longer ones count as the longest.
            self.latencies.saturating_record_n(us.max(1), records);
        }
        self.progress();
    }

    fn progress(&mut self) {
        let (at, before) = self.shown;
        if self.quiet || at.elapsed() < PROGRESS_PAUSE {
            return;
        }
        let rate = (self.records - before) as f64 / at.elapsed().as_secs_f64();
        eprint!("\r{} records, {rate:.0} a second  ", self.records);
        // A terminal that is gone is no reason to stop measuring.
        drop(std::io::stderr().flush());
        self.shown = (Instant::now(), self.records);
    }

    /// Seconds since the beginning, records and bytes a second.
    pub(super) fn rates(&self) -> Rates {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-9);
        if !self.quiet {
            eprintln!();
        }
        Rates {
            seconds,
            records: self.records,
            bytes: self.bytes,
            records_per_second: self.records as f64 / seconds,
            megabytes_per_second: self.bytes as f64 / seconds / 1_000_000.0,
        }
    }

    /// The percentiles.
    pub(super) fn latencies(&self) -> Latencies {
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        Latencies {
            mean_ms: self.latencies.mean() / 1_000.0,
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p99_9_ms: at(0.999),
            max_ms: self.latencies.max() as f64 / 1_000.0,
        }
    }
}

/// How fast it went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) seconds: f64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) records_per_second: f64,
    pub(super) megabytes_per_second: f64,
}

impl Rates {
    /// Lines for people.
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let row = |name: &str, value: String| (name.to_owned(), value);
        vec![
            row("records", self.records.to_string()),
            row("seconds", format!("{:.3}", self.seconds)),
            row("records a second", format!("{:.0}", self.records_per_second)),
            row("megabytes a second", format!("{:.2}", self.megabytes_per_second)),
        ]
    }
}

/// Names in front, values behind.
pub(super) fn text(rows: &[(String, String)]) -> String {
    let rows: Vec<(&str, String)> = rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    crate::output::fields(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_records() {
        let mut meter = Meter::new(true).unwrap();
        meter.add(99, 990, Some(Duration::from_millis(2)));
        meter.add(1, 10, Some(Duration::from_millis(50)));
        let latencies = meter.latencies();
        assert!((latencies.p50_ms - 2.0).abs() < 0.01, "{latencies:?}");
        assert!((latencies.p99_ms - 2.0).abs() < 0.01, "{latencies:?}");
        assert!((latencies.p99_9_ms - 50.0).abs() < 0.1, "{latencies:?}");
        assert!((latencies.max_ms - 50.0).abs() < 0.1, "{latencies:?}");
        let rates = meter.rates();
        assert_eq!((rates.records, rates.bytes), (100, 1_000));
    }

    #[test]
    fn a_latency_beyond_all_counts_as_the_longest() {
        let mut meter = Meter::new(true).unwrap();
        meter.add(1, 1, Some(Duration::from_secs(1_000_000)));
        assert!(meter.latencies().max_ms >= 3_599_000.0);
    }
}
