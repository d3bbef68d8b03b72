//! Group and transaction coordinators as log-backed machines. Pure: no clock, randomness, socket, file or thread; time
//! and fresh ids come in as arguments.
//!
//! * [`partitioner`]: which partition of a coordinator's topic holds a group or transactional id.
//! * [`group`]: the machine of one partition of `__consumer_offsets`: classic groups (KIP-62, KIP-345, KIP-394, KIP-814)
//!   and committed offsets, including those of transactions (KIP-98, KIP-447).
//! * [`transaction`]: the machine of one partition of `__transaction_state` (KIP-98, KIP-360, KIP-890), and what the
//!   leader of a partition must know to verify transactions.
//! * [`consumer_group`]: consumer groups of KIP-848, and [`streams_group`]: streams groups of KIP-1071, which the same
//!   machine holds.
//!
//! * [`share_group`]: share groups of KIP-932, which the same machine holds.
//! * [`share_partition`]: what a share group has of one partition, at the partition's leader.
//! * [`share_state`]: the machine of one partition of `__share_group_state`.

pub mod consumer_group;
pub mod group;
pub mod partitioner;
pub mod share_group;
pub mod share_partition;
pub mod share_state;
pub mod streams_group;
pub mod transaction;
