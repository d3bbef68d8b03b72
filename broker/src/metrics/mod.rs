//! What the data plane counts, in the Prometheus text format. Names follow Kafka's beans by Prometheus's conventions.
//!
//! | module | holds |
//! |---|---|
//! | `replicas` | replicas, directories and topics, read when scraped |
//! | `process` | CPU, memory, open files, threads |
//! | `traffic` | rates of the last minutes, for the console |
//! | `scrape` | writing values that are read when scraped |

mod process;
mod replicas;
mod scrape;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use ottla_wire::api::ApiKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::api::Answer;
use crate::replica::ReplicaManager;

pub use replicas::PartitionTraffic;
pub use traffic::{STEP_MS, TrafficHistory};

/// Upper bounds of latency buckets, in seconds.
const LATENCY_SECONDS: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// In front of every name of ours.
const PREFIX: &str = "ottla";

/// API keys are below this.
const API_KEYS: usize = 128;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ApiLabel {
    api: &'static str,
}

struct ApiMetrics {
    requests: Counter,
    request_bytes: Counter,
    seconds: Histogram,
}

/// The counters of one broker. Those of the hot path are looked up once, at start.
pub struct Metrics {
    registry: parking_lot::Mutex<Registry>,
    by_api: Vec<Option<ApiMetrics>>,
    /// Bytes of record batches that producers sent and that were appended.
    pub produced_bytes: Counter,
    /// Record batches' records that producers sent and that were appended.
    pub produced_records: Counter,
    /// Bytes of record batches sent to consumers.
    pub fetched_bytes: Counter,
    /// Bytes of record batches sent to followers.
    pub replicated_out_bytes: Counter,
    /// Produce requests' partitions that were refused.
    pub failed_produces: Counter,
    /// Fetch requests' partitions that were refused.
    pub failed_fetches: Counter,
    /// 1 while the controller has this broker fenced.
    pub fenced: Gauge,
    /// Last metadata index applied.
    pub metadata_index: Gauge<i64>,
    /// Transactions open at the coordinators of this broker, set when scraped.
    pub transactions_open: Gauge,
    /// How long the oldest of them has been open, in milliseconds.
    pub transaction_age_ms_max: Gauge,
    /// Client connections open now.
    pub connections: Gauge,
    /// When the broker could first serve, seconds after the process started.
    pub start_seconds: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Registers every metric; `apis` are those whose requests are counted one by one.
    pub fn new(apis: &[ApiKey]) -> Self {
        let mut page = Registry::default();
        // Its names are the same for every program.
        page.register_collector(Box::new(process::Process));
        let registry = page.sub_registry_with_prefix(PREFIX);
        let requests = Family::<ApiLabel, Counter>::default();
        let request_bytes = Family::<ApiLabel, Counter>::default();
        let seconds = Family::<ApiLabel, Histogram>::new_with_constructor(|| Histogram::new(LATENCY_SECONDS));
        registry.register("requests", "Requests handled, by API", requests.clone());
        registry.register_with_unit(
            "request",
            "Bytes of requests, by API",
            Unit::Bytes,
            request_bytes.clone(),
        );
        registry.register_with_unit(
            "request_handling",
            "Time from a request's dispatch until its handler returned, by API (waiting is not counted)",
            Unit::Seconds,
            seconds.clone(),
        );
        let mut by_api: Vec<Option<ApiMetrics>> = (0..API_KEYS).map(|_| None).collect();
        for key in apis {
            let label = ApiLabel { api: key.name() };
            if let Some(slot) = usize::try_from(key.code()).ok().and_then(|index| by_api.get_mut(index)) {
                *slot = Some(ApiMetrics {
                    requests: requests.get_or_create(&label).clone(),
                    request_bytes: request_bytes.get_or_create(&label).clone(),
                    seconds: seconds.get_or_create(&label).clone(),
                });
            }
        }
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let produced_bytes = counter("produced_bytes", "Bytes of record batches appended for producers");
        let produced_records = counter("produced_records", "Records appended for producers");
        let fetched_bytes = counter("fetched_bytes", "Bytes of record batches sent to consumers");
        let replicated_out_bytes =
            counter("replicated_out_bytes", "Bytes of record batches sent to followers");
        let failed_produces = counter("failed_produces", "Partitions of Produce requests that were refused");
        let failed_fetches = counter("failed_fetches", "Partitions of Fetch requests that were refused");
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let fenced = gauge("broker_fenced", "1 while the controller has this broker fenced");
        let metadata_index = gauge("metadata_index", "Last index of the metadata log applied on this node");
        let transactions_open =
            gauge("transactions_open", "Transactions open at the coordinators of this node");
        let transaction_age_ms_max = gauge(
            "transaction_age_ms_max",
            "Milliseconds since the oldest transaction open at the coordinators of this node was begun",
        );
        let connections = gauge("connections", "Client connections open now");
        let start_seconds = Gauge::<f64, AtomicU64>::default();
        registry.register(
            "start_seconds",
            "From the process's start until it could serve",
            start_seconds.clone(),
        );
        Self {
            registry: parking_lot::Mutex::new(page),
            by_api,
            produced_bytes,
            produced_records,
            fetched_bytes,
            replicated_out_bytes,
            failed_produces,
            failed_fetches,
            fenced,
            metadata_index,
            transactions_open,
            transaction_age_ms_max,
            connections,
            start_seconds,
        }
    }

    /// Counts one handled request and passes its answer on.
    pub(crate) fn request(&self, key: ApiKey, bytes: usize, started: Instant, answer: Answer) -> Answer {
        let slot = usize::try_from(key.code()).ok().and_then(|index| self.by_api.get(index));
        if let Some(Some(metrics)) = slot {
            metrics.requests.inc();
            metrics.request_bytes.inc_by(bytes as u64);
            metrics.seconds.observe(started.elapsed().as_secs_f64());
        }
        answer
    }

    /// Counts for [`TrafficHistory`].
    fn totals(&self) -> traffic::Totals {
        traffic::Totals {
            produced_bytes: self.produced_bytes.get(),
            produced_records: self.produced_records.get(),
            fetched_bytes: self.fetched_bytes.get(),
            replicated_bytes: self.replicated_out_bytes.get(),
            requests: self.by_api.iter().flatten().map(|api| api.requests.get()).sum(),
        }
    }

    /// Everything, as Prometheus reads it.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry.lock()) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        text
    }

    /// Adds what is read when scraped.
    pub fn watch(&self, replicas: Arc<ReplicaManager>) {
        self.register(|registry| {
            registry.register_collector(Box::new(replicas::Replicas(replicas)));
        });
    }

    /// Adds metrics of other parts of the node to the page.
    pub fn register(&self, with: impl FnOnce(&mut Registry)) {
        with(self.registry.lock().sub_registry_with_prefix(PREFIX));
    }
}
