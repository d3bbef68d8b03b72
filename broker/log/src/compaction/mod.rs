//! Compaction (`cleanup.policy=compact`): the last value of each key stays, at its offset; what it replaced goes.
//!
//! A pass has four steps, and holds the log's lock in none that reads or writes data:
//!
//! 1. [`crate::Log::plan_compaction`], under the lock: which segments, up to which offset.
//! 2. [`compact`], without it: reads the *dirty* part (what no pass has seen) into an [`OffsetMap`], then rewrites segments
//!    from the log's first on, a group at a time, into `.cleaned` files.
//! 3. [`crate::Log::swap_cleaned`], under the lock, for each group: the new segment takes the place of the old ones.
//! 4. [`crate::Log::finish_compaction`], under the lock: the new first dirty offset, for the checkpoint.
//!
//! If the log was cut, or its start moved, between 1 and 3, the pass ends ([`CompactionError::Superseded`]) and nothing of
//! the group counts.
//!
//! What stays, besides the last value of each key:
//!
//! * everything from the last stable offset on, in the active segment, and younger than `min.compaction.lag.ms`;
//! * tombstones and transaction markers, until `delete.retention.ms` after the first pass that had them: that pass writes
//!   the time at which they may go (the *delete horizon*) into the batch's header (KIP-534);
//! * the last batch of each producer, without records if need be, or its sequence would be forgotten (KIP-98), and the last
//!   batch of each group, which says how far the new segment reaches: a crash in the middle of a swap is undone by it.
//!
//! Records of aborted transactions go at once.
//!
//! What has replaced a record is synced before the record goes.

mod filter;
mod offset_map;
mod plan;
mod rewrite;
mod swap;
mod transactions;

pub use offset_map::{OffsetMap, SLOT_BYTES};
pub(crate) use plan::Running;
pub use plan::{Cleanable, CompactionPlan};
pub use rewrite::{CleanedGroup, CompactionReport, compact};
pub(crate) use swap::finish_swaps;

use crate::error::LogError;

/// Called with the bytes that were read or written since the last call; it may wait (`log.cleaner.io.max.bytes.per.second`).
/// `false` ends the pass: the broker stops, or the log is about to be deleted.
pub type Throttle<'a> = &'a mut dyn FnMut(u64) -> bool;

/// Why a pass ended early. What it had swapped before stays; the next one begins anew.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    /// A file could not be read or written, or is damaged: the error names it. With [`LogError::is_fatal`] false (no space)
    /// a later pass may succeed; otherwise this log should not be tried again until it is opened anew, others should.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log was cut, or its start moved.
    #[error("the log was changed while it was compacted")]
    Superseded,
    /// The throttle said so.
    #[error("compaction was stopped")]
    Stopped,
}
