//! What one writer sent to one partition, and where it was found.

use std::collections::BTreeMap;

use super::runs::{Piece, Put, Runs};

/// What became of a sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No word yet, or never.
    Open,
    /// Offset of the first record, -1: not known.
    Sent(i64),
    Refused,
    Unknown,
}

/// Records that were sent together, or several sendings that were acknowledged one behind the other.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) count: u32,
    pub(crate) began: u64,
    pub(crate) fate: Fate,
    pub(crate) transaction: Option<u64>,
    /// What they were made of.
    pub(crate) sources: Vec<(u32, u32, u64, u32)>,
}

/// A writer and a partition.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Behind the last number that was sent.
    pub(crate) next: u64,
    /// By first number.
    pub(crate) sendings: BTreeMap<u64, Sending>,
    /// By number: the offset at which it was first read.
    pub(crate) seen: Runs,
}

impl Lane {
    /// A sending is acknowledged: it is joined with the one before it where that tells nothing less.
    pub(crate) fn acknowledge(&mut self, number: u64, offset: i64) {
        let Some(sending) = self.sendings.get_mut(&number) else { return };
        sending.fate = Fate::Sent(offset);
        if offset < 0 || sending.transaction.is_some() || !sending.sources.is_empty() {
            return;
        }
        let count = sending.count;
        let Some((before, last)) = self.sendings.range_mut(..number).next_back() else { return };
        let joins = before + u64::from(last.count) == number
            && last.transaction.is_none()
            && last.fate == Fate::Sent(offset - i64::from(last.count))
            && offset >= i64::from(last.count)
            && last.count.checked_add(count).is_some();
        if joins {
            last.count += count;
            self.sendings.remove(&number);
        }
    }

    /// Sendings that hold some of these numbers.
    pub(crate) fn sendings_of(&self, number: u64, count: u32) -> impl Iterator<Item = (u64, &Sending)> {
        let end = number.saturating_add(u64::from(count));
        let first = self.sendings.range(..=number).next_back().map_or(number, |(first, _)| *first);
        self.sendings
            .range(first..end)
            .filter(move |(first, sending)| **first + u64::from(sending.count) > number)
            .map(|(first, sending)| (*first, sending))
    }

    /// Records were found.
    pub(crate) fn find(&mut self, number: i64, count: i64, offset: i64) -> Put {
        self.seen.put(Piece { key: number, length: count, tag: 0, value: offset })
    }
}
