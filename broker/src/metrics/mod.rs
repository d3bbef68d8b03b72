//! What the data plane counts, in the Prometheus text format. Names follow Kafka's beans by Prometheus's conventions.
//!
//! | module | holds |
//! |---|---|
//! | `replicas` | replicas, directories and topics, read when scraped |
//! | `process` | CPU, memory, open files, threads |
//! | `traffic` | rates of the last minutes, for the console |
//! | `requests` | times and errors of requests, by API |
//! | `node` | connections, sessions, groups: read when scraped |
//! | `topics` | sums by topic that do not fall when a replica leaves |
//! | `scrape` | writing values that are read when scraped |

mod node;
mod process;
mod replicas;
mod requests;
mod scrape;
mod topics;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::context::BrokerContext;

pub use replicas::PartitionTraffic;
pub(crate) use requests::{Handled, Pending};
pub use requests::{RequestTimes, Times};
pub use traffic::{STEP_MS, TrafficHistory};

/// In front of every name of ours.
const PREFIX: &str = "ottla";
/// All crates have the binary's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The counters of one broker. Those of the hot path are looked up once, at start.
pub struct Metrics {
    registry: parking_lot::Mutex<Registry>,
    /// Times and errors of requests.
    pub requests: RequestTimes,
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
    /// How long the oldest of them has been open.
    pub transaction_age_seconds_max: Gauge<f64, AtomicU64>,
    /// Client connections open now.
    pub connections: Gauge,
    /// When the broker could first serve, seconds after the process started.
    pub start_seconds: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Self {
        let mut page = Registry::default();
        // Its names are the same for every program.
        page.register_collector(Box::new(process::Process));
        let registry = page.sub_registry_with_prefix(PREFIX);
        let requests = RequestTimes::default();
        registry.register_collector(Box::new(requests.clone()));
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
        let connections = gauge("connections", "Client connections open now");
        let mut seconds = |name: &str, help: &str| {
            let gauge = Gauge::<f64, AtomicU64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let transaction_age_seconds_max = seconds(
            "transaction_age_seconds_max",
            "Time since the oldest transaction open at the coordinators of this node was begun",
        );
        let start_seconds =
            seconds("start_seconds", "From the process's start until it could serve; 0: it could not yet");
        registry.register("build", "The version that runs", Info::new([("version", VERSION)]));
        Self {
            registry: parking_lot::Mutex::new(page),
            requests,
            produced_bytes,
            produced_records,
            fetched_bytes,
            replicated_out_bytes,
            failed_produces,
            failed_fetches,
            fenced,
            metadata_index,
            transactions_open,
            transaction_age_seconds_max,
            connections,
            start_seconds,
        }
    }

    /// The node can serve: told once how long that took.
    pub(crate) fn ready(&self) {
        if self.start_seconds.get() == 0.0
            && let Some(age_s) = process::age_seconds()
        {
            // Hundredths are what the kernel tells.
            self.start_seconds.set((age_s * 100.0).round() / 100.0);
        }
    }

    /// Counts for [`TrafficHistory`].
    fn totals(&self) -> traffic::Totals {
        traffic::Totals {
            produced_bytes: self.produced_bytes.get(),
            produced_records: self.produced_records.get(),
            fetched_bytes: self.fetched_bytes.get(),
            replicated_bytes: self.replicated_out_bytes.get(),
            requests: self.requests.requests(),
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
    pub(crate) fn watch(&self, context: &Arc<BrokerContext>) {
        self.register(|registry| {
            registry.register_collector(Box::new(replicas::Replicas::new(Arc::clone(&context.replicas))));
            registry.register_collector(Box::new(node::Node(Arc::downgrade(context))));
        });
    }

    /// Adds metrics of other parts of the node to the page.
    pub fn register(&self, with: impl FnOnce(&mut Registry)) {
        with(self.registry.lock().sub_registry_with_prefix(PREFIX));
    }
}
