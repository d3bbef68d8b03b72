//! What readers were given of one partition.

use std::collections::HashMap;

use super::runs::{Piece, Put, Ranges, Runs};

/// Entries of a [`Rising`] after which the older half is forgotten: no poll is under way for so long.
const RISING_ENTRIES_MAX: usize = 65_536;

/// A partition.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// By offset: writer (tag) and number (value).
    pub(crate) records: Runs,
    /// Readers of all records, readers of committed ones.
    pub(crate) views: [View; 2],
    /// Where each reader is.
    pub(crate) positions: HashMap<u32, i64>,
    /// High watermarks by leader epoch.
    watermarks: HashMap<i32, Rising>,
    /// Behind what is acknowledged or read: no end may lie before.
    pub(crate) floor: Rising,
    /// The end when all writers had stopped.
    pub(crate) end: Option<i64>,
}

/// What the readers of one isolation were given.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Offsets that at least one has passed.
    pub(crate) passed: Ranges,
    /// Offsets at which they were given records.
    pub(crate) seen: Ranges,
}

impl View {
    /// A reader passed `from` to before `next` and was given records at `given`. Gives the first range in which it was given
    /// something else than a reader before.
    pub(crate) fn pass(&mut self, from: i64, next: i64, given: &Ranges) -> Option<(i64, i64)> {
        let differs = self
            .passed
            .within(from, next)
            .into_iter()
            .find(|(start, end)| self.seen.within(*start, *end) != given.within(*start, *end));
        self.passed.add(from, next);
        for (start, end) in given.within(from, next) {
            self.seen.add(start, end);
        }
        differs
    }
}

impl Log {
    /// Records at an offset.
    pub(crate) fn put(&mut self, offset: i64, writer: u32, number: i64, count: i64) -> Put {
        self.records.put(Piece { key: offset, length: count, tag: writer, value: number })
    }

    /// A leader of this epoch named a high watermark. Gives a higher one that it had named before it was asked for this.
    pub(crate) fn watermark(&mut self, epoch: i32, asked: u64, answered: u64, value: i64) -> Option<i64> {
        let rising = self.watermarks.entry(epoch).or_default();
        let before = rising.before(asked).filter(|before| *before > value);
        rising.raise(answered, value);
        before
    }
}

/// A value that only rises, with the times at which it did.
#[derive(Debug, Default)]
pub(crate) struct Rising {
    entries: Vec<(u64, i64)>,
}

impl Rising {
    /// From this time on it is at least this.
    pub(crate) fn raise(&mut self, at: u64, value: i64) {
        if self.entries.last().is_some_and(|(_, last)| *last >= value) {
            return;
        }
        if self.entries.len() >= RISING_ENTRIES_MAX {
            self.entries.drain(..RISING_ENTRIES_MAX / 2);
        }
        // Events come in the order of their times; one that does not must not make the value older than it is.
        let at = self.entries.last().map_or(at, |(last, _)| at.max(*last));
        self.entries.push((at, value));
    }

    /// What it had certainly risen to before this time.
    pub(crate) fn before(&self, time: u64) -> Option<i64> {
        let count = self.entries.partition_point(|(at, _)| *at < time);
        count.checked_sub(1).and_then(|last| self.entries.get(last)).map(|(_, value)| *value)
    }
}
