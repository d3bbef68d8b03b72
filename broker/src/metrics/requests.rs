//! How long requests take and where: Kafka's `kafka.network:type=RequestMetrics`. By API:
//!
//! | time | from | to |
//! |---|---|---|
//! | queue | its bytes were read | it is dispatched (behind others of its connection) |
//! | handling (Kafka: local) | dispatched | its handler returned |
//! | remote | the handler returned | the answer is there: replicas, records, the controller were waited for |
//! | send | the answer is there | its last byte is with the kernel |
//! | all | its bytes were read | its last byte is with the kernel |
//!
//! A request adds to two words for each, without a lock. APIs that nobody uses cost a pointer.

use std::collections::HashMap;
use std::fmt::Error;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ottla_wire::api::ApiKey;
use ottla_wire::encode::ErrorCounts;
use ottla_wire::error_code::ErrorCode;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;

use super::scrape::{counters, gauges};

/// Upper bounds of buckets, in nanoseconds; what takes longer than the last has a bucket of its own.
const BOUNDS_NS: [u64; 12] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
];
/// API keys are below this.
const API_KEYS: usize = 128;
/// Pairs of API and error code that are told apart; further ones are counted under the API alone.
const ERRORS_MAX: usize = 1_000;
/// A kind of times: name, help, which.
type Kind = (&'static str, &'static str, fn(&ApiTimes) -> &Times);

const KINDS: [Kind; 5] = [
    ("request_queue_seconds", "Time that requests waited for others of their connection, by API", |api| {
        &api.queue
    }),
    (
        "request_handling_seconds",
        "Time from a request's dispatch until its handler returned, by API (waiting is not counted)",
        |api| &api.handling,
    ),
    (
        "request_remote_seconds",
        "Time that answers waited for replicas, records, the controller, by API",
        |api| &api.remote,
    ),
    ("response_send_seconds", "Time until the kernel had an answer whole, by API", |api| &api.send),
    ("request_seconds", "Time from a request's bytes to the last byte of its answer, by API", |api| &api.all),
];

/// A histogram of times.
#[derive(Debug, Default)]
pub struct Times {
    buckets: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl Times {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.iter().take_while(|bound| took_ns > **bound).count();
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if took_ns > 0 {
            self.sum_ns.fetch_add(took_ns, Ordering::Relaxed);
        }
    }

    /// Sum in seconds, count, and each bucket's bound in seconds with its own count.
    pub(super) fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = BOUNDS_NS.iter().map(|bound| *bound as f64 / 1e9).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(&self.buckets).map(|(bound, count)| (bound, count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9, count, buckets)
    }
}

#[derive(Debug, Default)]
struct ApiTimes {
    name: &'static str,
    requests: AtomicU64,
    request_bytes: AtomicU64,
    throttled: Times,
    /// Requests whose answer is not there yet.
    waiting: AtomicI64,
    queue: Times,
    handling: Times,
    remote: Times,
    send: Times,
    all: Times,
}

/// The times of all APIs. Clones share them.
#[derive(Debug, Clone)]
pub struct RequestTimes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    apis: Vec<OnceLock<Box<ApiTimes>>>,
    errors: Mutex<HashMap<(&'static str, &'static str), u64>>,
}

/// A request that was dispatched: when, and how long its handler took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handled {
    api: u8,
    name: &'static str,
    started: Instant,
    done: Instant,
}

/// A request whose answer is not sent yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    api: u8,
    read: Instant,
    /// When its handler returned; later, when its answer was there.
    since: Instant,
}

impl Default for RequestTimes {
    fn default() -> Self {
        let apis = (0..API_KEYS).map(|_| OnceLock::new()).collect();
        Self(Arc::new(Inner { apis, errors: Mutex::default() }))
    }
}

impl Handled {
    /// A request whose handler has just returned.
    pub(crate) fn new(key: ApiKey, started: Instant) -> Option<Self> {
        let api = u8::try_from(key.code()).ok()?;
        Some(Self { api, name: key.name(), started, done: Instant::now() })
    }
}

impl RequestTimes {
    fn api(&self, index: u8) -> Option<&ApiTimes> {
        self.0.apis.get(usize::from(index))?.get().map(|api| &**api)
    }

    /// Counts a request that was dispatched; `read`: when its bytes were. Without an answer to come it is done.
    pub(crate) fn dispatched(
        &self,
        handled: Handled,
        read: Instant,
        bytes: usize,
        is_answered: bool,
    ) -> Option<Pending> {
        let slot = self.0.apis.get(usize::from(handled.api))?;
        let api = slot.get_or_init(|| Box::new(ApiTimes { name: handled.name, ..ApiTimes::default() }));
        api.requests.fetch_add(1, Ordering::Relaxed);
        api.request_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        api.queue.observe(handled.started.saturating_duration_since(read));
        api.handling.observe(handled.done.saturating_duration_since(handled.started));
        if !is_answered {
            api.all.observe(handled.done.saturating_duration_since(read));
            return None;
        }
        api.waiting.fetch_add(1, Ordering::Relaxed);
        Some(Pending { api: handled.api, read, since: handled.done })
    }

    /// The answer is there. `now`: `None`, it was there at once.
    pub(crate) fn answered(
        &self,
        pending: Pending,
        now: Option<Instant>,
        errors: &ErrorCounts,
        throttle_ms: u32,
    ) -> Pending {
        let now = now.unwrap_or(pending.since);
        if let Some(api) = self.api(pending.api) {
            api.waiting.fetch_sub(1, Ordering::Relaxed);
            api.remote.observe(now.saturating_duration_since(pending.since));
            if throttle_ms > 0 {
                api.throttled.observe(Duration::from_millis(throttle_ms.into()));
            }
            if !errors.is_empty() {
                self.count_errors(api.name, errors);
            }
        }
        Pending { since: now, ..pending }
    }

    /// The answer is sent.
    pub(crate) fn sent(&self, pending: Pending, now: Instant) {
        if let Some(api) = self.api(pending.api) {
            api.send.observe(now.saturating_duration_since(pending.since));
            api.all.observe(now.saturating_duration_since(pending.read));
        }
    }

    /// The connection ended before the answer was there.
    pub(crate) fn dropped(&self, pending: Pending) {
        if let Some(api) = self.api(pending.api) {
            api.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn count_errors(&self, api: &'static str, errors: &ErrorCounts) {
        let mut counted = self.0.errors.lock();
        for (code, count) in errors {
            let key = (api, ErrorCode::from_code(*code).name());
            let is_new = counted.len() >= ERRORS_MAX && !counted.contains_key(&key);
            let key = if is_new { (api, "OTHER") } else { key };
            *counted.entry(key).or_default() += u64::from(*count);
        }
    }

    /// Requests of all APIs.
    pub(super) fn requests(&self) -> u64 {
        self.used().map(|api| api.requests.load(Ordering::Relaxed)).sum()
    }

    fn used(&self) -> impl Iterator<Item = &ApiTimes> {
        self.0.apis.iter().filter_map(|slot| slot.get().map(|api| &**api))
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ApiLabel {
    api: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabel {
    api: &'static str,
    error: &'static str,
}

impl Collector for RequestTimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let label = |api: &ApiTimes| ApiLabel { api: api.name };
        counters(
            &mut encoder,
            "requests",
            "Requests handled, by API",
            self.used().map(|api| (label(api), api.requests.load(Ordering::Relaxed))),
        )?;
        counters(
            &mut encoder,
            "request_bytes",
            "Bytes of requests, by API",
            self.used().map(|api| (label(api), api.request_bytes.load(Ordering::Relaxed))),
        )?;
        gauges(
            &mut encoder,
            "requests_waiting",
            "Requests whose answer is not there yet, by API",
            self.used().map(|api| (label(api), api.waiting.load(Ordering::Relaxed).max(0))),
        )?;
        for (name, help, which) in KINDS {
            histograms(&mut encoder, name, help, self.used().map(|api| (label(api), which(api))))?;
        }
        let throttled = self.used().filter(|api| api.throttled.read().1 > 0);
        histograms(
            &mut encoder,
            "request_throttle_seconds",
            "How long quotas kept clients quiet, by the API of the request that was one too many",
            throttled.map(|api| (label(api), &api.throttled)),
        )?;
        let errors: Vec<(ErrorLabel, u64)> = {
            let counted = self.0.errors.lock();
            counted.iter().map(|((api, error), count)| (ErrorLabel { api, error }, *count)).collect()
        };
        counters(&mut encoder, "request_errors", "Error codes in answers, by API and code", errors)
    }
}

fn histograms<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (ApiLabel, &'a Times)>,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (label, times) in values {
        let (sum, count, buckets) = times.read();
        family.encode_family(&label)?.encode_histogram::<ApiLabel>(sum, count, &buckets, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn page(times: &RequestTimes) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(times.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_request_is_followed_from_its_bytes_to_its_answer() {
        let times = RequestTimes::default();
        let at = Instant::now();
        let after = |ms| at + Duration::from_millis(ms);
        let handled = Handled { api: 1, name: "Fetch", started: after(2), done: after(3) };
        let pending = times.dispatched(handled, at, 100, true).unwrap();
        assert!(page(&times).contains("requests_waiting{api=\"Fetch\"} 1"));
        let pending = times.answered(pending, Some(after(43)), &vec![(6, 2), (3, 1)], 250);
        times.sent(pending, after(45));
        let page = page(&times);
        for line in [
            "requests_total{api=\"Fetch\"} 1",
            "request_bytes_total{api=\"Fetch\"} 100",
            "requests_waiting{api=\"Fetch\"} 0",
            "request_queue_seconds_sum{api=\"Fetch\"} 0.002",
            "request_handling_seconds_sum{api=\"Fetch\"} 0.001",
            "request_remote_seconds_sum{api=\"Fetch\"} 0.04",
            "response_send_seconds_sum{api=\"Fetch\"} 0.002",
            "request_seconds_sum{api=\"Fetch\"} 0.045",
            "request_seconds_bucket{le=\"0.01\",api=\"Fetch\"} 0",
            "request_seconds_bucket{le=\"0.05\",api=\"Fetch\"} 1",
            "request_seconds_bucket{le=\"+Inf\",api=\"Fetch\"} 1",
            "request_throttle_seconds_count{api=\"Fetch\"} 1",
            "request_errors_total{api=\"Fetch\",error=\"NOT_LEADER_OR_FOLLOWER\"} 2",
            "request_errors_total{api=\"Fetch\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("api=\"Produce\""), "nobody produced");
    }

    #[test]
    fn a_request_without_an_answer_is_done_and_a_lost_one_waits_no_longer() {
        let times = RequestTimes::default();
        let at = Instant::now();
        let handled = Handled { api: 0, name: "Produce", started: at, done: at };
        assert!(times.dispatched(handled, at, 1, false).is_none());
        let lost = times.dispatched(handled, at, 1, true).unwrap();
        times.dropped(lost);
        let page = page(&times);
        assert!(
            page.contains("requests_waiting{api=\"Produce\"} 0")
                && page.contains("request_seconds_count{api=\"Produce\"} 1")
        );
        assert!(page.contains("request_remote_seconds_count{api=\"Produce\"} 0"));
    }
}
