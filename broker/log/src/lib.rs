//! One partition's log on disk, in Kafka's format, byte for byte. Synchronous; usable on its own.
//!
//! | module | holds |
//! |---|---|
//! | `log` | a partition's log: append, roll, truncate, flush |
//! | [`segment`] | one segment: a data file and its indexes; `segment_file` has their names |
//! | [`index`] | offset and time index files |
//! | `read` | where records lie, by offset and by time |
//! | `truncate` | cutting a log, moving it to another directory |
//! | `flush` | syncing it, without holding up those who append |
//! | `recovery` | opening a log: what a clean stop left, or what a crash did |
//! | `retention` | which segments go |
//! | [`compaction`] | the last value of each key |
//! | `batch_reader` | a walk over a data file that checks every batch |
//! | [`producer_state`] | sequences and open transactions, pure; [`snapshot`] is its file |
//! | [`transaction_index`] | aborted transactions |
//! | [`epoch_cache`] | where each leader epoch began |
//! | [`checkpoint`], [`directory`] | the files of a whole log directory |
//! | `held` | how many files are held open |
//! | `fs` | every file operation whose order matters to a crash |

mod batch_reader;
pub mod checkpoint;
pub mod compaction;
mod config;
#[cfg(test)]
mod crash_tests;
pub mod directory;
pub mod epoch_cache;
mod error;
mod flush;
mod fs;
mod held;
pub mod index;
mod log;
pub mod producer_state;
mod read;
mod recovery;
mod retention;
pub mod segment;
mod segment_file;
pub mod snapshot;
pub mod transaction_index;
mod truncate;

pub use compaction::{
    Cleanable, CleanedGroup, CompactionError, CompactionPlan, CompactionReport, OffsetMap, compact,
};
pub use config::LogConfig;
pub use error::LogError;
pub use flush::FlushTicket;
pub use log::{AppendInfo, Log};
pub use read::{Found, ReadSlice};
pub use recovery::{LoadProgress, LoadReport, OpenOptions};
pub use retention::{PendingRemovals, remove_files};
pub use transaction_index::Aborted;
