//! Shell of the data plane.
//!
//! | module | holds |
//! |---|---|
//! | [`broker`] | phases of start and stop |
//! | `registration` | what a broker tells the cluster of itself, and its epoch |
//! | `start_error` | why a broker could not start |
//! | `start` | what a broker that starts sets going |
//! | [`network`] | listeners, connections, frames |
//! | [`admin`] | the gRPC admin plane |
//! | `api` | one file a Kafka API, and the table that routes to them |
//! | [`replica`] | partitions, their logs, who waits for them |
//! | [`security`] | TLS, SASL, who clients are |
//! | [`quotas`] | how fast clients may be |
//! | [`replication`] | following other leaders, proposing ISRs |
//! | [`groups`] | coordinators of consumer groups |
//! | [`transactions`] | coordinators of transactions, their markers |
//! | `coordinator_log` | what these and share groups have alike: how a coordinator's partition is read and written |
//! | [`controller_link`] | registration, lease, metadata, commands |
//! | `departed` | brokers that left a moment ago, and who is still told of them |
//! | `telemetry` | metrics that clients push |
//! | `own_configs` | whether this broker could go on after a change of its properties |
//! | [`loggers`] | levels of what is logged |
//! | [`http`] | the HTTP port: metrics, probes, the console |
//! | [`console`] | the web console and its JSON API |
//! | [`rights`] | which right each API asks for |
//! | `readiness` | when a broker that has started is ready |

pub mod admin;
mod api;
pub mod broker;
pub mod console;
mod context;
pub mod controller_link;
mod coordinator_log;
mod departed;
pub mod groups;
pub mod http;
pub mod internal_topics;
pub mod loggers;
pub mod metrics;
pub mod network;
pub mod options;
mod own_configs;
mod producer_ids;
pub mod quotas;
mod readiness;
mod registration;
pub mod replica;
pub mod replication;
pub mod rights;
pub mod security;
pub mod share;
mod start;
mod start_error;
mod telemetry;
pub mod transactions;

pub use broker::{Broker, StartError};
pub use options::{AdvertisedListener, BrokerOptions};
