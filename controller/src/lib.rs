//! The metadata quorum: Raft over gRPC with its log on disk, and the services that brokers use.
//!
//! What is decided and what an entry means is `ottla-metadata`'s; this crate agrees on the order, keeps it, and hands it out.
//!
//! | module | holds |
//! |---|---|
//! | [`controller`] | start, stop, and what the node sees of it |
//! | `identity` | who this disk is |
//! | `quorum` | who votes: how a controller becomes part of a cluster, and changes of the members |
//! | `store` | Raft log and vote on disk |
//! | `state_machine` | the applied image, its history, snapshot files |
//! | `network`, `codec`, `types` | Raft between controllers |
//! | `leadership`, `leader` | who leads; deciding commands and watching over brokers |
//! | [`dump`] | what a stopped controller has on its disk |
//! | `service` | the gRPC services |

mod codec;
pub mod controller;
pub mod dump;
mod files;
mod identity;
mod leader;
mod leadership;
mod metrics;
mod network;
mod quorum;
mod service;
mod snapshots;
mod state_machine;
mod store;
mod types;

pub use controller::{Controller, ControllerOptions, StartError};
pub use identity::IdentityError;
pub use leadership::Leader;
pub use network::MESSAGE_BYTES_MAX;
pub use store::StoreError;

/// Milliseconds since the epoch.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
