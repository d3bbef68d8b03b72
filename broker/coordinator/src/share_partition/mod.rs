//! One share-partition (KIP-932): what a share group has of one partition, held by the broker that leads the partition.
//!
//! Every offset from the start offset up to the end was given to some member once; what became of it is its state:
//!
//! | state        | what it says                                                        | follows                       |
//! |--------------|---------------------------------------------------------------------|-------------------------------|
//! | available    | to be given to the next member that fetches                         | acquired                      |
//! | acquired     | a member has it, until it says what became of it or its lock is over | any other                     |
//! | acknowledged | processed                                                           | nothing                       |
//! | archived     | rejected, delivered too often, or nothing for a consumer            | nothing                       |
//!
//! The start offset stands at the first offset that is neither acknowledged nor archived. Offsets lie in ranges of one
//! state, so memory follows the number of changes of state, which `group.share.partition.max.record.locks` bounds.
//!
//! What members say is written to the share coordinator before it counts. One write is on its way at a time; what comes
//! meanwhile goes with the next ([`SharePartition::begin_write`], [`SharePartition::write_done`]). A write tells where the
//! start offset will be once it counts, in the same record as the states, so that the two cannot part. Locks are not
//! written: a new leader gives what was acquired to somebody again.
//!
//! | module | holds |
//! |---|---|
//! | `acquire` | giving fetched records to a member |
//! | `acknowledge` | what members say, locks that are over, members that go |
//! | `write` | what is to be written, and what follows |
//! | [`session`] | share sessions: epochs and partitions of a member |

mod acknowledge;
mod acquire;
pub mod session;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;

use ottla_wire::text::Text;

pub use acknowledge::{AcknowledgeType, Acknowledgement};
pub use acquire::{AcquireMode, AcquiredRecords, FetchedBatch, Wanted};
pub use write::StateWrite;

use crate::share_state::StateBatch;

/// What became of an offset. The numbers are those of the records of `__share_group_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordState {
    /// To be given to the next member that fetches.
    Available = 0,
    /// A member has it.
    Acquired = 1,
    /// Processed.
    Acknowledged = 2,
    /// Never to be delivered again.
    Archived = 4,
}

impl RecordState {
    /// The state of a number; acquired is never written.
    pub fn from_persisted(state: i8) -> Option<Self> {
        match state {
            0 => Some(Self::Available),
            2 => Some(Self::Acknowledged),
            4 => Some(Self::Archived),
            _ => None,
        }
    }

    /// Its number.
    pub fn code(self) -> i8 {
        self as i8
    }

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Archived)
    }
}

/// What the group's configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLimits {
    /// `share.delivery.count.limit`: so often a record is delivered before it is archived.
    pub delivery_count: i16,
    /// `share.partition.max.record.locks`: offsets that may be neither acknowledged nor archived.
    pub record_locks: i64,
    /// `share.record.lock.duration.ms`.
    pub lock_duration_ms: u64,
}

impl Default for ShareLimits {
    fn default() -> Self {
        Self { delivery_count: 5, record_locks: 2_000, lock_duration_ms: 30_000 }
    }
}

/// Whether the share coordinator has what is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saved {
    /// It does, or need not.
    Clean,
    /// It goes with the next write.
    Open,
    /// It went with the write that is on its way.
    InFlight,
}

/// A member's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lock {
    member: Text,
    /// On the monotonic clock.
    until_ms: u64,
}

/// Offsets of one state, from the key they stand under up to `last`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    last: i64,
    state: RecordState,
    /// How often it was delivered, this time included.
    count: i16,
    /// Given while acquired.
    lock: Option<Lock>,
    /// What it becomes when the write that tells so counts.
    becomes: Option<RecordState>,
    saved: Saved,
}

impl Range {
    fn is_same_as(&self, other: &Self) -> bool {
        self.state == other.state
            && self.count == other.count
            && self.becomes == other.becomes
            && self.saved == other.saved
            && self.lock == other.lock
    }
}

/// Persisted state that contradicts itself.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the share state from {first} to {last} is of no use: {what}")]
pub struct BrokenState {
    /// Of the batch.
    pub first: i64,
    /// Of the batch.
    pub last: i64,
    /// What is wrong.
    pub what: &'static str,
}

/// See the module.
#[derive(Debug)]
pub struct SharePartition {
    limits: ShareLimits,
    /// The first offset that is neither acknowledged nor archived.
    start: i64,
    /// Behind the last offset that was ever given to somebody.
    end: i64,
    /// By first offset; without holes from `start` to `end`.
    ranges: BTreeMap<i64, Range>,
    is_writing: bool,
    /// The start offset moved over what the share coordinator was not told.
    is_start_unsaved: bool,
    /// The number of the last write.
    writes: u64,
    /// No lock is over before.
    first_expiry_ms: Option<u64>,
}

impl SharePartition {
    /// As the share coordinator has it: start offset and batches, which may leave out offsets that nobody had said
    /// anything of.
    pub fn restore(
        limits: ShareLimits,
        start_offset: i64,
        batches: &[StateBatch],
    ) -> Result<Self, BrokenState> {
        let start = start_offset.max(0);
        let mut partition = Self {
            limits,
            start,
            end: start,
            ranges: BTreeMap::new(),
            is_writing: false,
            is_start_unsaved: false,
            writes: 0,
            first_expiry_ms: None,
        };
        let mut sorted: Vec<&StateBatch> = batches.iter().collect();
        sorted.sort_by_key(|batch| batch.first_offset);
        for batch in sorted {
            let broken = |what| BrokenState { first: batch.first_offset, last: batch.last_offset, what };
            let state = RecordState::from_persisted(batch.delivery_state)
                .ok_or_else(|| broken("its state is not known"))?;
            if batch.first_offset > batch.last_offset || batch.last_offset == i64::MAX {
                return Err(broken("it ends before it begins"));
            }
            if batch.last_offset < start {
                continue;
            }
            let first = batch.first_offset.max(start);
            if first < partition.end {
                return Err(broken("it overlaps another"));
            }
            partition.fill_to(first, RecordState::Available);
            let count = batch.delivery_count.max(0);
            partition.push(batch.last_offset, state, count);
        }
        partition.advance();
        Ok(partition)
    }

    /// New limits; they count from the next delivery on.
    pub fn set_limits(&mut self, limits: ShareLimits) {
        self.limits = limits;
    }

    /// The limits.
    pub fn limits(&self) -> ShareLimits {
        self.limits
    }

    /// The first offset that is neither acknowledged nor archived.
    pub fn start_offset(&self) -> i64 {
        self.start
    }

    /// Behind the last offset that was ever given to somebody.
    pub fn end_offset(&self) -> i64 {
        self.end
    }

    /// Where to read what somebody may have now.
    pub fn next_fetch_offset(&self) -> i64 {
        let available = self.ranges.iter().find(|(_, range)| range.state == RecordState::Available);
        available.map_or(self.end, |(first, _)| *first)
    }

    /// Whether anything may be given to anybody now: what came back, or more while there is room for locks.
    pub fn may_acquire(&self) -> bool {
        self.next_fetch_offset() < self.end || self.unfinished() < self.limits.record_locks
    }

    /// Offsets that are neither acknowledged nor archived.
    pub fn unfinished(&self) -> i64 {
        self.lengths(|range| !range.state.is_final())
    }

    /// Offsets that somebody has now.
    pub fn acquired(&self) -> i64 {
        self.lengths(|range| range.state == RecordState::Acquired)
    }

    fn lengths(&self, counts: impl Fn(&Range) -> bool) -> i64 {
        let counted = self.ranges.iter().filter(|(_, range)| counts(range));
        counted.map(|(first, range)| range.last - first + 1).sum()
    }

    /// The log begins here now: what came before is gone, whoever has it.
    pub fn log_starts_at(&mut self, log_start: i64) {
        if log_start <= self.start {
            return;
        }
        self.split_at(log_start);
        self.ranges = self.ranges.split_off(&log_start);
        self.start = log_start;
        self.end = self.end.max(log_start);
        self.advance();
    }

    /// The log ends here: what is known of later offsets was of records that are lost, since a leader was elected that did
    /// not have them. To be called before anything is given to anybody.
    pub fn log_ends_at(&mut self, log_end: i64) {
        if log_end >= self.end {
            return;
        }
        self.split_at(log_end);
        drop(self.ranges.split_off(&log_end));
        self.end = log_end;
        self.start = self.start.min(log_end);
    }

    // --- ranges ---

    /// Makes a range end before `offset`, where one goes over it.
    fn split_at(&mut self, offset: i64) {
        let Some((_, range)) = self.ranges.range_mut(..offset).next_back() else { return };
        if range.last < offset {
            return;
        }
        let behind = range.clone();
        range.last = offset - 1;
        self.ranges.insert(offset, behind);
    }

    /// Adds offsets behind the end, up to `last`.
    fn push(&mut self, last: i64, state: RecordState, count: i16) {
        if last >= self.end {
            let range = Range { last, state, count, lock: None, becomes: None, saved: Saved::Clean };
            self.ranges.insert(self.end, range);
            self.end = last + 1;
        }
    }

    /// Adds offsets behind the end up to, and without, `offset`.
    fn fill_to(&mut self, offset: i64, state: RecordState) {
        if offset > self.end {
            self.push(offset - 1, state, 0);
        }
    }

    /// Moves the start offset over what is final.
    fn advance(&mut self) {
        while let Some(entry) = self.ranges.first_entry() {
            if !entry.get().state.is_final() {
                break;
            }
            let range = entry.remove();
            self.start = range.last + 1;
            self.is_start_unsaved |= range.saved == Saved::Open;
        }
        self.coalesce();
    }

    /// Joins neighbours that are the same.
    fn coalesce(&mut self) {
        let mut joined: Vec<(i64, i64)> = Vec::new();
        let mut previous: Option<(i64, &Range)> = None;
        for (first, range) in &self.ranges {
            match previous {
                Some((start, before)) if before.is_same_as(range) => joined.push((start, *first)),
                _ => previous = Some((*first, range)),
            }
        }
        for (start, first) in joined {
            if let Some(gone) = self.ranges.remove(&first)
                && let Some(range) = self.ranges.get_mut(&start)
            {
                range.last = gone.last;
            }
        }
    }

    /// Whether the ranges are what the module says. For tests.
    #[cfg(test)]
    fn check(&self) {
        let mut at = self.start;
        for (first, range) in &self.ranges {
            assert_eq!(*first, at, "a hole or an overlap");
            assert!(range.last >= *first);
            assert_eq!(range.lock.is_some(), range.state == RecordState::Acquired);
            assert!(range.becomes.is_none() || range.state == RecordState::Acquired);
            assert!(range.count <= self.limits.delivery_count);
            at = range.last + 1;
        }
        assert_eq!(at, self.end);
        assert!(self.ranges.values().next().is_none_or(|range| !range.state.is_final()));
    }
}
