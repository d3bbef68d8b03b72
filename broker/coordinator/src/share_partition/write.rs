//! What is to be written to the share coordinator, and what follows when it counts or does not.

use super::{RecordState, Saved, SharePartition};
use crate::share_state::StateBatch;

/// A write: one record of the share coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// Its number, from one on.
    pub number: u64,
    /// Where the start offset is once this counts.
    pub start_offset: i64,
    /// How many offsets behind it are final already.
    pub delivery_complete_count: i32,
    /// What became of offsets, by rising offset.
    pub batches: Vec<StateBatch>,
}

impl SharePartition {
    /// The number of the write that goes next.
    pub(super) fn next_write(&self) -> u64 {
        self.writes + 1
    }

    /// Whether there is something to write.
    pub fn has_unsaved(&self) -> bool {
        self.is_start_unsaved || self.ranges.values().any(|range| range.saved == Saved::Open)
    }

    /// Whether a write is on its way.
    pub fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// The next write, if there is something to write and none is on its way. Its fate is to be told by
    /// [`Self::write_done`].
    pub fn begin_write(&mut self) -> Option<StateWrite> {
        if self.is_writing || !self.has_unsaved() {
            return None;
        }
        self.is_writing = true;
        self.is_start_unsaved = false;
        self.writes += 1;
        let mut batches: Vec<StateBatch> = Vec::new();
        let mut start_offset = self.start;
        let mut is_leading = true;
        let mut complete = 0_i64;
        for (first, range) in &mut self.ranges {
            let state = range.becomes.unwrap_or(range.state);
            if range.saved == Saved::Open {
                // What expired and was given to somebody again is told with what becomes of it then.
                range.saved = if state == RecordState::Acquired { Saved::Clean } else { Saved::InFlight };
            }
            is_leading &= state.is_final();
            if is_leading {
                start_offset = range.last + 1;
                continue;
            }
            if state.is_final() {
                complete += range.last - first + 1;
            }
            if range.saved != Saved::InFlight {
                continue;
            }
            match batches.last_mut() {
                Some(last)
                    if last.last_offset + 1 == *first
                        && last.delivery_state == state.code()
                        && last.delivery_count == range.count =>
                {
                    last.last_offset = range.last;
                }
                _ => batches.push(StateBatch {
                    first_offset: *first,
                    last_offset: range.last,
                    delivery_state: state.code(),
                    delivery_count: range.count,
                }),
            }
        }
        Some(StateWrite {
            number: self.writes,
            start_offset,
            delivery_complete_count: i32::try_from(complete).unwrap_or(i32::MAX),
            batches,
        })
    }

    /// The write that was on its way counts, or it failed: then members have again what they had said something of, for as
    /// long as their locks go.
    pub fn write_done(&mut self, is_written: bool) {
        self.is_writing = false;
        self.is_start_unsaved |= !is_written;
        for range in self.ranges.values_mut().filter(|range| range.saved == Saved::InFlight) {
            range.saved = Saved::Clean;
            match range.becomes.take() {
                Some(state) if is_written => {
                    range.state = state;
                    range.lock = None;
                }
                Some(_) => {
                    let until_ms = range.lock.as_ref().map(|lock| lock.until_ms);
                    self.first_expiry_ms = self.first_expiry_ms.into_iter().chain(until_ms).min();
                }
                // Nobody waits for it: it goes with the next one.
                None if !is_written && range.state != RecordState::Acquired => range.saved = Saved::Open,
                None => {}
            }
        }
        self.advance();
    }
}
