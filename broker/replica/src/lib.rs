//! Replication as pure machines: no clock, file, socket, thread or random source.
//!
//! | module | holds |
//! |---|---|
//! | [`partition`] | one partition's role, ISR and high watermark: inputs, effects, questions |
//! | `leader` | what a leader knows of its followers and of the ISR (KIP-497, KIP-841, KIP-903, KIP-966) |
//! | [`follower`] | where a follower truncates, and the high watermark that it may adopt (KIP-101, KIP-279, KIP-320) |
//! | [`fetch_session`] | incremental fetch sessions (KIP-227) and which of them to keep |
#![warn(missing_docs)]

pub mod fetch_session;
pub mod follower;
mod leader;
pub mod partition;

pub use leader::{FollowerView, IsrMember};
pub use partition::{
    AckState, Assignment, Effect, Effects, Input, IsrAnswer, IsrState, MachineOptions, Now, PartitionMachine,
};
