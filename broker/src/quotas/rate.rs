//! The two measures of Kafka's quotas: a rate over the last windows, and a bucket of tokens.
//!
//! Pure: times come from outside, in milliseconds of any clock that does not go back.

use std::collections::VecDeque;

/// Windows that a rate keeps, as a multiple of those that a limit looks back on.
const KEPT_MAX: usize = 8;

/// The windows that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// `quota.window.num`: the current one and those before it.
    pub count: usize,
    /// `quota.window.size.seconds`, in milliseconds.
    pub length_ms: u64,
}

impl Default for Windows {
    fn default() -> Self {
        Self { count: 11, length_ms: 1_000 }
    }
}

impl Windows {
    /// At least one window of a second.
    pub fn new(count: i64, length_seconds: i64) -> Self {
        Self {
            count: usize::try_from(count).unwrap_or(1).max(1),
            length_ms: u64::try_from(length_seconds).unwrap_or(1).max(1).saturating_mul(1_000),
        }
    }

    /// After so long nothing of an event is left.
    pub fn memory_ms(&self) -> u64 {
        self.length_ms.saturating_mul(self.count as u64)
    }

    /// What a limit lets pass at once after a rest: as much as all full windows may hold.
    pub fn burst(&self, limit: f64) -> f64 {
        limit * self.full_ms() as f64 / 1_000.0
    }

    /// For how long all windows but the current one last.
    fn full_ms(&self) -> u64 {
        self.length_ms.saturating_mul(self.count.saturating_sub(1).max(1) as u64)
    }
}

/// What went through in about one window's length and still counts.
#[derive(Debug, Clone, Copy)]
struct Window {
    start_ms: u64,
    sum: f64,
}

/// How much went through lately, against a limit (KIP-13): within the time of all full windows as much as they may hold, all of
/// it at once after a rest.
///
/// What went through counts for that long. Then it is given back, the oldest first and no faster than the limit, so that nobody
/// who was held up comes back in a burst, and what was too much is paid for with time. Kafka lets a window fall out of the mean as
/// a whole, and has everybody wait for as long as the excess of the moment lasts: then the excess has to grow with the number of
/// clients that wait, or they would not wait for long enough.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    /// Oldest first.
    windows: VecDeque<Window>,
    /// Up to when has been given back, in milliseconds.
    given_back_ms: f64,
    last_ms: u64,
}

impl Rate {
    /// Counts an amount that has gone through; gives how long its sender must be quiet, in milliseconds; 0: it is not above the
    /// limit. Of more than `debt_max` times the burst nothing is remembered.
    pub fn charge(&mut self, amount: f64, limit: f64, now_ms: u64, windows: Windows, debt_max: f64) -> i32 {
        if limit <= 0.0 {
            return if amount > 0.0 { i32::MAX } else { 0 };
        }
        let burst = windows.burst(limit);
        self.give_back(limit, now_ms, windows);
        let was_over = self.sum() > burst;
        self.add(amount.min(burst * (1.0 + debt_max) - self.sum()), now_ms, windows);
        let over = self.sum() - burst;
        if over <= 0.0 {
            0
        } else if was_over {
            // Others wait already, and for the same: what is told is when the turn comes.
            self.wait_ms(over, limit, now_ms, windows)
        } else {
            // Kafka's formula: the time that the excess takes at the limit.
            to_ms(over * 1_000.0 / limit.max(f64::MIN_POSITIVE))
        }
    }

    /// As [`Self::charge`], of something that has not gone through yet: counts it only if that is not above the limit. What is
    /// larger than a burst passes when nothing else counts.
    pub fn try_charge(&mut self, amount: f64, limit: f64, now_ms: u64, windows: Windows) -> i32 {
        if limit <= 0.0 {
            return if amount > 0.0 { i32::MAX } else { 0 };
        }
        let burst = windows.burst(limit);
        self.give_back(limit, now_ms, windows);
        let over = self.sum() + amount.min(burst) - burst;
        if over <= 0.0 {
            self.add(amount, now_ms, windows);
            return 0;
        }
        self.wait_ms(over, limit, now_ms, windows)
    }

    /// When something was last counted.
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    fn sum(&self) -> f64 {
        self.windows.iter().map(|window| window.sum).sum()
    }

    fn add(&mut self, amount: f64, now_ms: u64, windows: Windows) {
        self.last_ms = now_ms;
        if amount <= 0.0 {
            return;
        }
        match self.windows.back_mut() {
            Some(current) if now_ms.saturating_sub(current.start_ms) < windows.length_ms => {
                current.sum += amount;
            }
            _ => self.windows.push_back(Window { start_ms: now_ms, sum: amount }),
        }
        // Only under a limit next to nothing there is so much that waits.
        if self.windows.len() > windows.count.saturating_mul(KEPT_MAX)
            && let Some(oldest) = self.windows.pop_front()
            && let Some(next) = self.windows.front_mut()
        {
            next.sum += oldest.sum;
        }
    }

    fn give_back(&mut self, limit: f64, now_ms: u64, windows: Windows) {
        let now = now_ms as f64;
        while let Some(oldest) = self.windows.front_mut() {
            let from = self.given_back_ms.max(oldest.free_from_ms(windows));
            if from >= now {
                return;
            }
            let back = limit * (now - from) / 1_000.0;
            if back < oldest.sum {
                oldest.sum -= back;
                self.given_back_ms = now;
                return;
            }
            self.given_back_ms = from + oldest.sum * 1_000.0 / limit.max(f64::MIN_POSITIVE);
            self.windows.pop_front();
        }
    }

    /// How long it takes until an amount is given back.
    fn wait_ms(&self, amount: f64, limit: f64, now_ms: u64, windows: Windows) -> i32 {
        let (mut at, mut left) = (now_ms as f64, amount);
        for window in &self.windows {
            at = at.max(window.free_from_ms(windows));
            let part = left.min(window.sum);
            at += part * 1_000.0 / limit.max(f64::MIN_POSITIVE);
            left -= part;
            if left <= 0.0 {
                break;
            }
        }
        to_ms(at - now_ms as f64)
    }
}

impl Window {
    /// From when on it is given back.
    fn free_from_ms(&self, windows: Windows) -> f64 {
        self.start_ms.saturating_add(windows.full_ms()) as f64
    }
}

/// Tokens that come back at a rate up to a limit; taking more than there are is allowed once, the debt is then waited for
/// (KIP-599).
#[derive(Debug, Clone, Default)]
pub struct TokenBucket {
    /// `None`: full.
    state: Option<(f64, u64)>,
}

impl TokenBucket {
    fn tokens(&self, limit: f64, now_ms: u64, windows: Windows) -> f64 {
        let full = limit * windows.count as f64 * windows.length_ms as f64 / 1_000.0;
        match self.state {
            Some((tokens, at_ms)) => {
                (tokens + now_ms.saturating_sub(at_ms) as f64 / 1_000.0 * limit).min(full)
            }
            None => full,
        }
    }

    /// Takes tokens, or gives some back; there may be fewer than none afterwards.
    pub fn take(&mut self, count: f64, limit: f64, now_ms: u64, windows: Windows) {
        let full = limit * windows.count as f64 * windows.length_ms as f64 / 1_000.0;
        let tokens = (self.tokens(limit, now_ms, windows) - count).min(full);
        self.state = Some((tokens, now_ms));
    }

    /// How long until there is no debt, in milliseconds; 0: there is none.
    pub fn throttle_time_ms(&self, limit: f64, now_ms: u64, windows: Windows) -> i32 {
        let tokens = self.tokens(limit, now_ms, windows);
        if tokens >= 0.0 { 0 } else { to_ms(-tokens * 1_000.0 / limit.max(f64::MIN_POSITIVE)) }
    }

    /// When tokens were last taken.
    pub fn last_ms(&self) -> u64 {
        self.state.map_or(0, |(_, at_ms)| at_ms)
    }
}

/// Rounded up, at least 1 and within the protocol's integer.
fn to_ms(ms: f64) -> i32 {
    let ms = ms.ceil().clamp(1.0, f64::from(i32::MAX));
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the range")]
    let ms = ms as i32;
    ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows { count: 11, length_ms: 1_000 };

    const DEBT: f64 = 6.0;

    #[test]
    fn a_burst_of_ten_seconds_passes_and_more_is_spread() {
        let mut rate = Rate::default();
        assert_eq!(rate.charge(1_000.0, 20_000.0, 0, WINDOWS, DEBT), 0);
        // 301 kB are 15.05 s' worth, of which ten pass at once.
        assert_eq!(rate.charge(300_000.0, 20_000.0, 100, WINDOWS, DEBT), 5_050);
    }

    #[test]
    fn what_is_too_much_is_waited_for() {
        let mut rate = Rate::default();
        // Fifteen seconds' worth: as much as may pass in ten seconds once the first five are paid for.
        assert_eq!(rate.charge(150_000.0, 10_000.0, 0, WINDOWS, DEBT), 5_000);
        assert_eq!(rate.try_charge(1.0, 10_000.0, 14_999, WINDOWS), 2);
        assert_eq!(rate.try_charge(1.0, 10_000.0, 15_001, WINDOWS), 0);
        // After a rest there is nothing left of it.
        assert_eq!(rate.try_charge(100_000.0, 10_000.0, 60_000, WINDOWS), 0);
        assert_eq!(rate.try_charge(1.0, 10_000.0, 60_000, WINDOWS), 10_001);
    }

    #[test]
    fn a_steady_stream_below_the_limit_is_never_throttled() {
        let mut rate = Rate::default();
        for tick in 0..1_000u64 {
            assert_eq!(rate.charge(90.0, 1_000.0, tick * 100, WINDOWS, DEBT), 0, "{tick}");
        }
        assert!(rate.windows.len() <= 12, "{}", rate.windows.len());
    }

    /// Clients that send again as soon as they may; gives what went through in each second.
    fn flood(clients: usize, amount: f64, limit: f64, seconds: usize, ask: bool) -> Vec<f64> {
        let mut rate = Rate::default();
        let mut next_ms = vec![0; clients];
        let mut through = vec![0.0; seconds];
        for now_ms in 0..seconds as u64 * 1_000 {
            let second = usize::try_from(now_ms / 1_000).unwrap();
            for next in &mut next_ms {
                // An answer takes a millisecond at least, as on a fast network.
                if *next > now_ms {
                    continue;
                }
                let wait_ms = if ask {
                    rate.try_charge(amount, limit, now_ms, WINDOWS)
                } else {
                    rate.charge(amount, limit, now_ms, WINDOWS, DEBT)
                };
                if !ask || wait_ms == 0 {
                    through[second] += amount;
                }
                *next = now_ms + u64::try_from(wait_ms).unwrap().max(1);
            }
        }
        through
    }

    #[test]
    fn one_client_and_fifty_get_what_the_limit_says() {
        for ask in [false, true] {
            for clients in [1, 50] {
                for amount in [5_000.0, 16_000.0] {
                    let limit = 1_000_000.0;
                    let through = flood(clients, amount, limit, 60, ask);
                    // The first ten seconds begin with their whole worth; later ones are even.
                    for (from, off_max) in [(0, 0.09), (20, 0.02), (33, 0.02), (50, 0.02)] {
                        let mean = through[from..from + 10].iter().sum::<f64>() / 10.0;
                        let off = mean / limit - 1.0;
                        assert!(off.abs() < off_max, "{clients} of {amount}, {ask}, from {from}: {off:+.4}");
                    }
                    let even = through[20..].iter().all(|second| (second / limit - 1.0).abs() < 0.25);
                    assert!(even, "{clients} of {amount}, {ask}: {through:?}");
                }
            }
        }
    }

    #[test]
    fn debts_have_an_end() {
        let mut rate = Rate::default();
        // One request of a thousand seconds' worth keeps nobody out for that long.
        assert_eq!(rate.charge(1_000_000.0, 1_000.0, 0, WINDOWS, DEBT), 60_000);
        assert_eq!(rate.charge(1_000_000.0, 1_000.0, 0, WINDOWS, DEBT), 70_000);
        assert_eq!(rate.try_charge(1.0, 1_000.0, 70_001, WINDOWS), 0);
    }

    #[test]
    fn what_is_larger_than_a_burst_passes_when_nothing_else_counts() {
        let mut rate = Rate::default();
        assert_eq!(rate.try_charge(500.0, 10.0, 0, WINDOWS), 0);
        assert!(rate.try_charge(500.0, 10.0, 59_000, WINDOWS) > 0);
        assert_eq!(rate.try_charge(500.0, 10.0, 60_000, WINDOWS), 0);
    }

    #[test]
    fn a_limit_of_nothing_keeps_nothing_growing() {
        let mut rate = Rate::default();
        for at in 0..1_000 {
            assert_eq!(rate.charge(1.0, 0.0, at * 1_000, WINDOWS, DEBT), i32::MAX);
            rate.charge(1.0, 1e-9, at * 1_000, WINDOWS, f64::MAX);
        }
        assert!(rate.windows.len() <= 11 * KEPT_MAX, "{}", rate.windows.len());
    }

    #[test]
    fn the_request_that_overdraws_passes_and_the_debt_is_waited_for() {
        let mut bucket = TokenBucket::default();
        assert_eq!(bucket.throttle_time_ms(1.0, 0, WINDOWS), 0);
        bucket.take(30.0, 1.0, 0, WINDOWS);
        assert_eq!(bucket.throttle_time_ms(1.0, 0, WINDOWS), 19_000);
        assert_eq!(bucket.throttle_time_ms(1.0, 18_000, WINDOWS), 1_000);
        assert_eq!(bucket.throttle_time_ms(1.0, 19_000, WINDOWS), 0);
        // It never holds more than a burst.
        bucket.take(11.0, 1.0, 1_000_000, WINDOWS);
        assert_eq!(bucket.throttle_time_ms(1.0, 1_000_000, WINDOWS), 0);
        bucket.take(1.0, 1.0, 1_000_000, WINDOWS);
        assert_eq!(bucket.throttle_time_ms(1.0, 1_000_000, WINDOWS), 1_000);
    }

    #[test]
    fn no_limit_makes_a_number_that_does_not_fit() {
        for limit in [0.0, f64::MIN_POSITIVE, 1.0, 1e300, f64::INFINITY] {
            let mut rate = Rate::default();
            for now_ms in [0, 1, u64::MAX] {
                assert!(rate.charge(1e300, limit, now_ms, WINDOWS, DEBT) >= 0);
                assert!(rate.try_charge(1e300, limit, now_ms, WINDOWS) >= 0);
            }
        }
    }
}
