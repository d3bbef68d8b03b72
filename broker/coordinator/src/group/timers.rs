//! The timers of one coordinator partition: one ordered index over all groups, so that the shell arms a single timer.
//!
//! A heartbeat only moves a deadline further away, and there may be tens of thousands a second. So the index holds a
//! time that is never later than the deadline; a deadline that moved away is found out when its entry comes up, and
//! indexed again. Only a deadline that comes nearer touches the index.

use std::collections::BTreeSet;

use ottla_wire::text::Text;

/// What a timer is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKind {
    /// A member (or a member id that was handed out and not used yet) has been silent for its session timeout.
    Session(Text),
    /// A member of a consumer group had its rebalance timeout to let go of partitions (KIP-848).
    Revocation(Text),
    /// A classic member of a consumer group had its rebalance timeout to join again.
    Rejoin(Text),
    /// A classic member of a consumer group had its rebalance timeout to sync.
    Resync(Text),
    /// The first members of a streams group have waited for more (KIP-1071).
    InitialRebalance,
    /// The join phase of a rebalance ends: the initial delay or the rebalance timeout.
    Join,
    /// Members that have not synced within the rebalance timeout are dropped (KAFKA-13435).
    Sync,
}

/// A timer of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey {
    pub(crate) group: Text,
    pub(crate) kind: TimerKind,
}

/// A deadline, kept where the thing is that it belongs to. Times are monotonic milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deadline {
    due_ms: Option<u64>,
    indexed_ms: Option<u64>,
}

/// The index over all deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    index: BTreeSet<(u64, TimerKey)>,
}

impl Timers {
    /// Sets the deadline to `due_ms`; the one it had is forgotten.
    pub(crate) fn arm(&mut self, deadline: &mut Deadline, key: impl FnOnce() -> TimerKey, due_ms: u64) {
        deadline.due_ms = Some(due_ms);
        match deadline.indexed_ms {
            Some(indexed_ms) if indexed_ms <= due_ms => {}
            Some(indexed_ms) => {
                let key = key();
                self.index.remove(&(indexed_ms, key.clone()));
                self.index.insert((due_ms, key));
                deadline.indexed_ms = Some(due_ms);
            }
            None => {
                self.index.insert((due_ms, key()));
                deadline.indexed_ms = Some(due_ms);
            }
        }
    }

    /// Forgets the deadline and its place in the index.
    pub(crate) fn cancel(&mut self, deadline: &mut Deadline, key: impl FnOnce() -> TimerKey) {
        deadline.due_ms = None;
        if let Some(indexed_ms) = deadline.indexed_ms.take() {
            self.index.remove(&(indexed_ms, key()));
        }
    }

    /// The next entry that came up; its deadline must then be asked with [`Timers::is_due`].
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<TimerKey> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.index.pop_first().map(|(_, key)| key)
    }

    /// Whether the deadline of an entry that came up has really passed; if it has, it is now unset, if it has moved
    /// away it is indexed again.
    pub(crate) fn is_due(&mut self, deadline: &mut Deadline, key: TimerKey, now_ms: u64) -> bool {
        deadline.indexed_ms = None;
        match deadline.due_ms {
            Some(due_ms) if due_ms <= now_ms => {
                deadline.due_ms = None;
                true
            }
            Some(due_ms) => {
                self.arm(deadline, || key, due_ms);
                false
            }
            None => false,
        }
    }

    /// When the first entry comes up: never later than the first deadline, possibly earlier.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.index.first().map(|(at_ms, _)| *at_ms)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.index.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TimerKey {
        TimerKey { group: Text::from("g"), kind: TimerKind::Join }
    }

    #[test]
    fn a_deadline_that_moves_away_is_indexed_again_when_its_entry_comes_up() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.arm(&mut deadline, key, 10);
        timers.arm(&mut deadline, key, 30);
        assert_eq!((timers.len(), timers.next_ms()), (1, Some(10)));
        let up = timers.pop(10).unwrap();
        assert!(!timers.is_due(&mut deadline, up, 10));
        assert_eq!(timers.next_ms(), Some(30));
        let up = timers.pop(30).unwrap();
        assert!(timers.is_due(&mut deadline, up, 30));
        assert_eq!((timers.next_ms(), deadline), (None, Deadline::default()));
    }

    #[test]
    fn a_deadline_that_comes_nearer_or_is_cancelled_leaves_nothing_behind() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.arm(&mut deadline, key, 30);
        timers.arm(&mut deadline, key, 10);
        assert_eq!((timers.len(), timers.next_ms(), timers.pop(9)), (1, Some(10), None));
        timers.cancel(&mut deadline, key);
        assert_eq!((timers.len(), deadline), (0, Deadline::default()));
    }
}
