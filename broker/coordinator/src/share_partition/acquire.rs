//! Giving fetched records to a member.

use ottla_wire::text::Text;

use super::{Lock, Range, RecordState, Saved, SharePartition};

/// What was read of the log: one record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchedBatch {
    /// Its first offset.
    pub first: i64,
    /// Its last offset.
    pub last: i64,
    /// No consumer may have anything of it: a control batch, or of an aborted transaction with read_committed.
    pub is_void: bool,
}

/// How exactly the number of records is kept (ShareFetch 2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AcquireMode {
    /// Whole batches, until there are as many as asked for or more.
    #[default]
    BatchOptimized,
    /// Never more than asked for.
    RecordLimit,
}

/// What a member asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// At most so many records, in the sense of the mode.
    pub records_max: i64,
    /// The answer's ranges are cut, between record batches, when they have so many records.
    pub batch_size: i64,
    /// See the type.
    pub mode: AcquireMode,
}

/// Offsets that a member has from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcquiredRecords {
    /// The first.
    pub first: i64,
    /// The last.
    pub last: i64,
    /// How often they have been delivered, this time included.
    pub delivery_count: i16,
}

impl AcquiredRecords {
    fn len(&self) -> i64 {
        self.last - self.first + 1
    }
}

impl SharePartition {
    /// Gives what was read from `from` on, as far as it may be given, to a member. Offsets between batches are archived:
    /// compaction has taken them.
    pub fn acquire(
        &mut self,
        now_ms: u64,
        member: &Text,
        from: i64,
        batches: &[FetchedBatch],
        wanted: Wanted,
    ) -> Vec<AcquiredRecords> {
        let mut acquired: Vec<AcquiredRecords> = Vec::new();
        let mut taken = 0;
        // What lies behind the end may be taken only as it comes, offset after offset.
        let mut cursor = from.max(self.start);
        for batch in batches {
            if batch.last < cursor {
                continue;
            }
            if cursor > self.end {
                break;
            }
            if batch.first > cursor {
                self.void(cursor, batch.first - 1);
                cursor = batch.first;
            }
            if batch.is_void {
                self.void(cursor, batch.last);
                cursor = batch.last + 1;
                continue;
            }
            let left = wanted.records_max - taken;
            let room = self.limits.record_locks - self.unfinished();
            if left <= 0 {
                break;
            }
            let mut last = batch.last;
            if last >= self.end && room <= 0 {
                // What came back may be given, what is new may not.
                last = self.end - 1;
            }
            let most = match wanted.mode {
                AcquireMode::BatchOptimized => i64::MAX,
                AcquireMode::RecordLimit => left,
            };
            for part in self.acquire_range(now_ms, member, cursor, last, most) {
                taken += part.len();
                append(&mut acquired, part, wanted.batch_size);
            }
            if last < batch.last {
                break;
            }
            cursor = batch.last + 1;
        }
        self.advance();
        acquired
    }

    /// Takes what is available from `first` to `last`, and what is new, at most so many offsets.
    fn acquire_range(
        &mut self,
        now_ms: u64,
        member: &Text,
        first: i64,
        last: i64,
        mut most: i64,
    ) -> Vec<AcquiredRecords> {
        let mut acquired = Vec::new();
        if first > last {
            return acquired;
        }
        let until_ms = now_ms.saturating_add(self.limits.lock_duration_ms);
        let lock = Lock { member: member.clone(), until_ms };
        self.split_at(first);
        self.split_at(last.saturating_add(1));
        let available: Vec<(i64, i64)> = self
            .ranges
            .range(first..=last)
            .filter(|(_, range)| range.state == RecordState::Available)
            .map(|(first, range)| (*first, range.last))
            .collect();
        for (first, last) in available {
            if most <= 0 {
                break;
            }
            let last = last.min(first.saturating_add(most - 1));
            self.split_at(last + 1);
            if let Some(range) = self.ranges.get_mut(&first) {
                range.state = RecordState::Acquired;
                range.count = range.count.saturating_add(1).min(self.limits.delivery_count);
                range.lock = Some(lock.clone());
                let part = AcquiredRecords { first, last, delivery_count: range.count };
                most -= part.len();
                acquired.push(part);
            }
        }
        if last >= self.end && first <= self.end && most > 0 {
            let first = self.end;
            let last = last.min(first.saturating_add(most - 1));
            let range = Range {
                last,
                state: RecordState::Acquired,
                count: 1,
                lock: Some(lock),
                becomes: None,
                saved: Saved::Clean,
            };
            self.ranges.insert(first, range);
            self.end = last + 1;
            acquired.push(AcquiredRecords { first, last, delivery_count: 1 });
        }
        if !acquired.is_empty() {
            let earlier = self.first_expiry_ms.map_or(until_ms, |at_ms| at_ms.min(until_ms));
            self.first_expiry_ms = Some(earlier);
        }
        acquired
    }

    /// Archives what nobody has of these offsets: there is nothing in them for a consumer.
    fn void(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        self.split_at(first);
        self.split_at(last.saturating_add(1));
        for (_, range) in self.ranges.range_mut(first..=last) {
            if range.state == RecordState::Available {
                range.state = RecordState::Archived;
            }
        }
        if last >= self.end && first <= self.end {
            self.push(last, RecordState::Archived, 0);
        }
    }
}

/// Adds a part, in one with the last one if they belong together.
fn append(acquired: &mut Vec<AcquiredRecords>, part: AcquiredRecords, batch_size: i64) {
    if let Some(last) = acquired.last_mut()
        && last.last + 1 == part.first
        && last.delivery_count == part.delivery_count
        && (batch_size <= 0 || last.len() < batch_size)
    {
        last.last = part.last;
        return;
    }
    acquired.push(part);
}
