//! How parked requests wait: [`Waiter`] for replies that several partitions release, [`FetchInterest`] for fetches that
//! wait until a log grows. Neither costs anything while nothing happens, and a batch of work wakes a request once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A reply that waits for a number of partitions: acks=all, `DeleteRecords`.
///
/// It says only that all have something to say; what that is the handler asks them afterwards. No task, no channel, no
/// allocation beside this one.
#[derive(Debug)]
pub struct Waiter {
    remaining: AtomicUsize,
    notify: Notify,
}

impl Waiter {
    /// Waits for so many completions.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { remaining: AtomicUsize::new(count), notify: Notify::new() })
    }

    /// One partition is done. More completions than were asked for change nothing.
    pub fn complete_one(&self) {
        let before =
            self.remaining.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        if before == Ok(1) {
            self.notify.notify_one();
        }
    }

    /// Whether all are done.
    pub fn is_complete(&self) -> bool {
        self.remaining.load(Ordering::Acquire) == 0
    }

    /// Returns when all are done. One task may wait.
    pub async fn wait(&self) {
        while !self.is_complete() {
            self.notify.notified().await;
        }
    }

    /// Returns when all are done or the time is over; says whether all are done.
    pub async fn wait_at_most(&self, timeout: Duration) -> bool {
        self.is_complete() || tokio::time::timeout(timeout, self.wait()).await.is_ok() || self.is_complete()
    }
}

/// Who is interested in what a partition has: it decides when growth is worth a wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterestKind {
    /// A follower reads up to the log's end. A moved high watermark travels with its next answer, it is not woken for it.
    Follower,
    /// A consumer reads up to the high watermark.
    Consumer,
}

/// One fetch session (or one waiting fetch): partitions that have news set its mark and wake it.
#[derive(Debug)]
pub struct FetchInterest {
    kind: InterestKind,
    ready: Mutex<Ready>,
    notify: Notify,
}

/// Slots with news, each once, so that a client that does not fetch keeps no more than a bit per partition.
#[derive(Debug, Default)]
struct Ready {
    slots: Vec<u32>,
    is_marked: Vec<u64>,
}

impl FetchInterest {
    /// Nothing is marked.
    pub fn new(kind: InterestKind) -> Arc<Self> {
        Arc::new(Self { kind, ready: Mutex::default(), notify: Notify::new() })
    }

    /// Who it is.
    pub fn kind(&self) -> InterestKind {
        self.kind
    }

    /// Notes that the partition of this slot has news.
    pub fn mark(&self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        let mut ready = self.ready.lock();
        if ready.is_marked.len() <= word {
            ready.is_marked.resize(word + 1, 0);
        }
        if let Some(marks) = ready.is_marked.get_mut(word)
            && *marks & bit == 0
        {
            *marks |= bit;
            ready.slots.push(slot);
        }
    }

    /// Wakes the waiting fetch; called without any lock held.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Moves the marked slots out.
    pub fn take_marked(&self, into: &mut Vec<u32>) {
        let mut ready = self.ready.lock();
        let Ready { slots, is_marked } = &mut *ready;
        for slot in slots.iter() {
            if let Some(marks) = is_marked.get_mut(*slot as usize / 64) {
                *marks = 0;
            }
        }
        into.append(slots);
    }

    /// Returns when it was woken, at once if that was since the last return.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// What to wake once the partition's lock is released: a woken task that finds the lock taken would go back to sleep.
#[derive(Debug, Default)]
#[must_use = "nothing wakes before run() is called, after the lock is released"]
pub struct Wakes {
    waiters: Vec<Arc<Waiter>>,
    interests: Vec<Arc<FetchInterest>>,
}

impl Wakes {
    /// A parked reply of which this partition's part is done.
    pub fn add_waiter(&mut self, waiter: Arc<Waiter>) {
        self.waiters.push(waiter);
    }

    /// A fetch that is to look at its marks.
    pub fn add_interest(&mut self, interest: &Arc<FetchInterest>) {
        self.interests.push(Arc::clone(interest));
    }

    /// Joins two lists.
    pub fn extend(&mut self, other: Self) {
        self.waiters.extend(other.waiters);
        self.interests.extend(other.interests);
    }

    /// Wakes all.
    pub fn run(self) {
        for waiter in self.waiters {
            waiter.complete_one();
        }
        for interest in self.interests {
            interest.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_ends_with_the_last_completion_or_the_timeout() {
        let waiter = Waiter::new(2);
        waiter.complete_one();
        assert!(!waiter.wait_at_most(Duration::from_millis(5)).await);
        waiter.complete_one();
        waiter.complete_one();
        assert!(waiter.wait_at_most(Duration::from_millis(5)).await);
        waiter.wait().await;
    }

    #[tokio::test]
    async fn a_waiter_is_woken_from_another_task() {
        let waiter = Waiter::new(1);
        let other = Arc::clone(&waiter);
        let task = tokio::spawn(async move { other.wait().await });
        tokio::task::yield_now().await;
        waiter.complete_one();
        task.await.unwrap();
    }

    #[test]
    fn marks_are_kept_once_and_taken_in_order() {
        let interest = FetchInterest::new(InterestKind::Consumer);
        for slot in [70, 3, 70, 3, 200] {
            interest.mark(slot);
        }
        let mut slots = Vec::new();
        interest.take_marked(&mut slots);
        assert_eq!(slots, [70, 3, 200]);
        interest.mark(3);
        slots.clear();
        interest.take_marked(&mut slots);
        assert_eq!(slots, [3]);
    }

    #[tokio::test]
    async fn a_wake_before_the_wait_is_not_lost() {
        let interest = FetchInterest::new(InterestKind::Follower);
        interest.wake();
        interest.woken().await;
    }
}
