//! Group coordinator as a log-backed machine over `__consumer_offsets`. Pure: no clock, randomness, socket, file or
//! thread; time and fresh ids come in as arguments.
//!
//! * [`partitioner`]: which partition of the offsets topic holds a group.
//! * [`group`]: the machine of one such partition: classic groups (KIP-62, KIP-345, KIP-394, KIP-814) and committed
//!   offsets, including those of transactions (KIP-98, KIP-447).
//!
//! * [`consumer_group`]: consumer groups of KIP-848, which the same machine holds.
//!
//! What is not here: share and streams groups. Their records are skipped on replay, and nothing here answers their
//! requests.

pub mod consumer_group;
pub mod group;
pub mod partitioner;
