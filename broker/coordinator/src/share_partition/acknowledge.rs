//! What members say of what they have; locks that are over; members that go.

use ottla_wire::error_code::ErrorCode;

use super::{Range, RecordState, Saved, SharePartition};

/// What a member says of an offset. The numbers are those of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgeType {
    /// There is no record.
    Gap = 0,
    /// It is processed.
    Accept = 1,
    /// Somebody is to try again.
    Release = 2,
    /// Nobody is to try again.
    Reject = 3,
    /// The member goes on with it: its lock begins anew (KIP-1222).
    Renew = 4,
}

impl AcknowledgeType {
    /// The type of a number.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Gap),
            1 => Some(Self::Accept),
            2 => Some(Self::Release),
            3 => Some(Self::Reject),
            4 => Some(Self::Renew),
            _ => None,
        }
    }
}

/// What a member says of a range of offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The first offset.
    pub first: i64,
    /// The last offset.
    pub last: i64,
    /// One for all offsets, or one for each.
    pub types: Vec<AcknowledgeType>,
}

impl Acknowledgement {
    /// Runs of offsets of one type.
    fn runs(&self) -> Vec<(i64, i64, AcknowledgeType)> {
        if let [all] = self.types[..] {
            return vec![(self.first, self.last, all)];
        }
        let mut runs: Vec<(i64, i64, AcknowledgeType)> = Vec::new();
        for (offset, kind) in (self.first..=self.last).zip(&self.types) {
            match runs.last_mut() {
                Some((_, last, same)) if same == kind => *last = offset,
                _ => runs.push((offset, offset, *kind)),
            }
        }
        runs
    }
}

impl SharePartition {
    /// Takes what a member says: all of it or, if it does not have some of these offsets (any more), nothing. The number
    /// is of the write that it goes with; None: there is nothing to write.
    pub fn acknowledge(
        &mut self,
        now_ms: u64,
        member: &str,
        said: &[Acknowledgement],
    ) -> Result<Option<u64>, ErrorCode> {
        self.expire_locks(now_ms);
        let runs: Vec<_> = said.iter().flat_map(Acknowledgement::runs).collect();
        for (first, last, _) in &runs {
            self.check_held(member, *first, *last)?;
        }
        let mut is_written = false;
        for (first, last, kind) in runs {
            is_written |= self.acknowledge_run(now_ms, first.max(self.start), last, kind);
        }
        self.coalesce();
        Ok(is_written.then_some(self.next_write()))
    }

    /// Offsets before the start offset are settled, by whomever; of the others the member must have each.
    fn check_held(&self, member: &str, first: i64, last: i64) -> Result<(), ErrorCode> {
        let mut at = first.max(self.start);
        while at <= last {
            let found = self.ranges.range(..=at).next_back().map(|(_, range)| range);
            let range = found.filter(|range| range.last >= at).ok_or(ErrorCode::InvalidRecordState)?;
            let is_held =
                range.becomes.is_none() && range.lock.as_ref().is_some_and(|lock| *lock.member == *member);
            if !is_held {
                return Err(ErrorCode::InvalidRecordState);
            }
            at = range.last + 1;
        }
        Ok(())
    }

    fn acknowledge_run(&mut self, now_ms: u64, first: i64, last: i64, kind: AcknowledgeType) -> bool {
        if first > last {
            return false;
        }
        self.split_at(first);
        self.split_at(last.saturating_add(1));
        let limits = self.limits;
        for (_, range) in self.ranges.range_mut(first..=last) {
            let becomes = match kind {
                AcknowledgeType::Accept => RecordState::Acknowledged,
                AcknowledgeType::Gap | AcknowledgeType::Reject => RecordState::Archived,
                AcknowledgeType::Release => given_back(range, limits.delivery_count),
                AcknowledgeType::Renew => {
                    if let Some(lock) = &mut range.lock {
                        lock.until_ms = now_ms.saturating_add(limits.lock_duration_ms);
                    }
                    continue;
                }
            };
            range.becomes = Some(becomes);
            range.saved = Saved::Open;
        }
        kind != AcknowledgeType::Renew
    }

    /// Locks that are over: what they held is available again, or archived if it was delivered too often. Says whether
    /// there was any.
    pub fn expire_locks(&mut self, now_ms: u64) -> bool {
        if self.first_expiry_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return false;
        }
        let limit = self.limits.delivery_count;
        let mut is_changed = false;
        self.first_expiry_ms = None;
        for range in self.ranges.values_mut().filter(|range| range.becomes.is_none()) {
            let Some(lock) = &range.lock else { continue };
            if lock.until_ms > now_ms {
                let at_ms = self.first_expiry_ms.map_or(lock.until_ms, |at_ms| at_ms.min(lock.until_ms));
                self.first_expiry_ms = Some(at_ms);
                continue;
            }
            range.state = given_back(range, limit);
            range.lock = None;
            range.saved = Saved::Open;
            is_changed = true;
        }
        if is_changed {
            self.advance();
        }
        is_changed
    }

    /// No lock is over before that; None: there is none.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.first_expiry_ms
    }

    /// A member's session is over: what it has is available again. It did not come to process it, so this delivery does
    /// not count. Says whether it had anything.
    pub fn release_member(&mut self, member: &str) -> bool {
        let mut is_changed = false;
        for range in self.ranges.values_mut().filter(|range| range.becomes.is_none()) {
            if range.lock.as_ref().is_some_and(|lock| *lock.member == *member) {
                range.state = RecordState::Available;
                range.count = (range.count - 1).max(0);
                range.lock = None;
                range.saved = Saved::Open;
                is_changed = true;
            }
        }
        if is_changed {
            self.coalesce();
        }
        is_changed
    }
}

/// What becomes of a record that was delivered in vain.
fn given_back(range: &Range, delivery_count_limit: i16) -> RecordState {
    if range.count >= delivery_count_limit { RecordState::Archived } else { RecordState::Available }
}
