//! The replicas of this broker: partitions with their logs, who waits for them, and what the metadata image makes of them.
//!
//! | module | holds |
//! |---|---|
//! | [`manager`] | all partitions |
//! | `image_changes` | what a new metadata image makes of them |
//! | [`partition`] | one partition: its lock, log and machine, what the image says of it, who waits |
//! | [`appends`] | one partition: produce and acknowledgement |
//! | [`read`] | one partition: fetch, list offsets, leader epochs, views |
//! | `delete_records` | one partition: the log start moves |
//! | [`follow`] | one partition as a follower |
//! | [`transactions`] | one partition: verification of transactions, their markers, its producers |
//! | [`sessions`] | Fetch requests over fetch sessions |
//! | [`waiter`] | how parked requests wait |
//! | [`rules`] | a topic's settings as partitions need them |
//! | `durability` | one partition with `flush.messages=1` |
//! | `unmade` | replicas that there was no room for |
//! | [`directories`] | log directories: whose they are, placement, removal |
//! | `loading` | opening all logs at the start, and how far that is |
//! | `checkpoints` | the checkpoint files, closing all logs |
//! | [`background`] | timers: lag, checkpoints, retention, deletion, group commit |
//! | `cleaner` | compaction: which log, when, how fast |
//! | [`shared`] | queues, counters, directories that all partitions share |
//! | [`options`] | settings, lease, clock |

pub mod appends;
pub mod background;
mod checkpoints;
mod cleaner;
mod delete_records;
pub mod directories;
mod durability;
pub mod follow;
mod image_changes;
mod loading;
pub mod manager;
pub mod moves;
pub mod options;
pub mod partition;
pub mod read;
pub mod rules;
pub mod sessions;
pub mod shared;
pub mod throttles;
pub mod transactions;
mod unmade;
pub mod unreachable;
mod upkeep;
pub mod waiter;

pub use appends::{AckState, AppendedRecords, ProduceRefusal};
pub use cleaner::CleanerOptions;
pub use loading::Recovery;
pub use manager::{ReplicaManager, TopicReplicas};
pub use moves::HeldReplica;
pub use options::{Clock, Grant, ReplicaOptions};
pub use partition::Partition;
pub use read::{FetchResult, FetchingReplica, FoundOffset, Isolation, OffsetQuery, PartitionView};
pub use sessions::{FetchAnswer, FetchRequest, FetchSessions, Permits};
pub use shared::{Counter, LogDir, PartitionId, ReplicaCounters, ReplicaShared};
pub use transactions::{ActiveProducer, EndMarker, RefusedMarker, Standing};
pub use waiter::Waiter;

#[cfg(test)]
pub(crate) mod test_images;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_durability;
#[cfg(test)]
mod tests_moves;
#[cfg(test)]
mod transaction_tests;
