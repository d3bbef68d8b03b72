//! What a node did a second over the last minutes, sampled here so that a page of the console has a history when it opens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ottla_proto::admin::TrafficSample;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::replica::Clock;

/// From one sample to the next, in milliseconds. Samples are taken at whole multiples of it since 1970, so that those of several
/// nodes can be added.
pub const STEP_MS: i64 = 2_000;
/// Samples that are kept: five minutes.
const SAMPLES_MAX: usize = 150;

/// The last samples, oldest first.
#[derive(Debug, Default)]
pub struct TrafficHistory {
    samples: Mutex<VecDeque<TrafficSample>>,
}

/// What was counted since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) produced_bytes: u64,
    pub(super) produced_records: u64,
    pub(super) fetched_bytes: u64,
    pub(super) replicated_bytes: u64,
    pub(super) requests: u64,
}

impl TrafficHistory {
    /// All samples, oldest first.
    pub fn samples(&self) -> Vec<TrafficSample> {
        self.samples.lock().iter().copied().collect()
    }

    /// Samples until told to stop; `connections` tells how many are open.
    pub async fn run(
        self: Arc<Self>,
        metrics: Arc<Metrics>,
        connections: impl Fn() -> usize,
        stopping: CancellationToken,
    ) {
        let mut last = (Clock::wall_ms(), metrics.totals());
        loop {
            let now_ms = Clock::wall_ms();
            let pause_ms = u64::try_from(STEP_MS - now_ms.rem_euclid(STEP_MS)).unwrap_or(1);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
                () = stopping.cancelled() => return,
            }
            let now = (Clock::wall_ms(), metrics.totals());
            if let Some(sample) = sample(last, now, super::scrape::whole(connections())) {
                self.push(sample);
                last = now;
            }
        }
    }

    fn push(&self, sample: TrafficSample) {
        let mut samples = self.samples.lock();
        while samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// The rates between two looks; `None`: the clock did not go on by at least half a step (a timer that fires early, or a clock that was set).
fn sample(from: (i64, Totals), to: (i64, Totals), connections: i64) -> Option<TrafficSample> {
    let elapsed_ms = to.0 - from.0;
    if elapsed_ms < STEP_MS / 2 {
        // After a step back of the clock `from` would stand in the future for ever: begin anew.
        return (elapsed_ms < 0).then(|| TrafficSample { at_ms: step(to.0), ..TrafficSample::default() });
    }
    let seconds = elapsed_ms as f64 / 1_000.0;
    let rate = |count: fn(&Totals) -> u64| count(&to.1).saturating_sub(count(&from.1)) as f64 / seconds;
    Some(TrafficSample {
        at_ms: step(to.0),
        produced_bytes: rate(|totals| totals.produced_bytes),
        produced_records: rate(|totals| totals.produced_records),
        fetched_bytes: rate(|totals| totals.fetched_bytes),
        replicated_bytes: rate(|totals| totals.replicated_bytes),
        requests: rate(|totals| totals.requests),
        connections,
    })
}

/// The whole step next to a time.
fn step(at_ms: i64) -> i64 {
    (at_ms + STEP_MS / 2).div_euclid(STEP_MS) * STEP_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_rate_at_a_whole_step() {
        let to = Totals { produced_bytes: 4_000, requests: 10, ..Totals::default() };
        let found = sample((10_001, Totals::default()), (12_001, to), 3).unwrap();
        assert_eq!((found.at_ms, found.connections), (12_000, 3));
        assert!((found.produced_bytes - 2_000.0).abs() < 1.0 && (found.requests - 5.0).abs() < 0.1);
        assert_eq!(sample((10_000, to), (10_001, to), 0), None);
        assert_eq!(sample((10_000, to), (5_000, to), 0).unwrap().at_ms, 6_000);
    }

    #[test]
    fn only_the_last_minutes_are_kept() {
        let history = TrafficHistory::default();
        for at_ms in 0..200 {
            history.push(TrafficSample { at_ms, ..TrafficSample::default() });
        }
        let samples = history.samples();
        assert_eq!((samples.len(), samples[0].at_ms, samples[SAMPLES_MAX - 1].at_ms), (SAMPLES_MAX, 50, 199));
    }
}
