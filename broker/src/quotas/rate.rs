//! The two measures of Kafka's quotas: a rate over the last windows, and a bucket of tokens.
//!
//! Pure: times come from outside, in milliseconds of any clock that does not go back.

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
        limit * self.count.saturating_sub(1).max(1) as f64 * self.length_ms as f64 / 1_000.0
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    start_ms: u64,
    last_ms: u64,
    sum: f64,
}

/// How much there was a second, over the last windows. The oldest windows fall out one by one; a rate that has just begun is
/// spread over the full windows it could have had, so that a burst is allowed (KIP-13).
#[derive(Debug, Clone, Default)]
pub struct Rate {
    /// Oldest first.
    windows: Vec<Window>,
}

impl Rate {
    /// Counts an amount; a negative one takes back what was counted.
    pub fn record(&mut self, amount: f64, now_ms: u64, windows: Windows) {
        self.forget(now_ms, windows);
        match self.windows.last_mut() {
            Some(current) if now_ms.saturating_sub(current.start_ms) < windows.length_ms => {
                current.sum += amount;
                current.last_ms = now_ms;
            }
            _ => {
                if self.windows.len() >= windows.count {
                    self.windows.remove(0);
                }
                self.windows.push(Window { start_ms: now_ms, last_ms: now_ms, sum: amount });
            }
        }
    }

    /// The amount a second.
    pub fn measure(&mut self, now_ms: u64, windows: Windows) -> f64 {
        let span_ms = self.span_ms(now_ms, windows);
        self.windows.iter().map(|window| window.sum).sum::<f64>() * 1_000.0 / span_ms as f64
    }

    /// How long a client must be quiet until the rate is down to a limit, in milliseconds; 0: it is not above.
    pub fn throttle_time_ms(&mut self, limit: f64, now_ms: u64, windows: Windows) -> i32 {
        let rate = self.measure(now_ms, windows);
        if rate <= limit {
            return 0;
        }
        let span_ms = self.span_ms(now_ms, windows) as f64;
        to_ms((rate - limit) / limit.max(f64::MIN_POSITIVE) * span_ms)
    }

    /// When something was last counted.
    pub fn last_ms(&self) -> u64 {
        self.windows.last().map_or(0, |window| window.last_ms)
    }

    fn span_ms(&mut self, now_ms: u64, windows: Windows) -> u64 {
        self.forget(now_ms, windows);
        let elapsed_ms = self.windows.first().map_or(0, |oldest| now_ms.saturating_sub(oldest.start_ms));
        let full = elapsed_ms / windows.length_ms;
        let full_min = windows.count.saturating_sub(1) as u64;
        let missing_ms = full_min.saturating_sub(full).saturating_mul(windows.length_ms);
        let span_ms = elapsed_ms.saturating_add(missing_ms);
        span_ms.max(1)
    }

    fn forget(&mut self, now_ms: u64, windows: Windows) {
        let memory_ms = windows.memory_ms();
        self.windows.retain(|window| now_ms.saturating_sub(window.last_ms) < memory_ms);
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

/// Rounded, at least 1 and within the protocol's integer.
fn to_ms(ms: f64) -> i32 {
    let ms = ms.round().clamp(1.0, f64::from(i32::MAX));
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the range")]
    let ms = ms as i32;
    ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows { count: 11, length_ms: 1_000 };

    #[test]
    fn a_burst_of_ten_seconds_passes_and_more_is_spread() {
        let mut rate = Rate::default();
        rate.record(1_000.0, 0, WINDOWS);
        assert_eq!(rate.throttle_time_ms(20_000.0, 0, WINDOWS), 0);
        rate.record(300_000.0, 100, WINDOWS);
        // 301 kB over 10.1 s are 29.8 kB/s: half of the limit too much, so half of the time.
        let throttle = rate.throttle_time_ms(20_000.0, 100, WINDOWS);
        assert!((4_800..=5_200).contains(&throttle), "{throttle}");
    }

    #[test]
    fn after_the_throttle_time_the_rate_is_back_at_the_limit() {
        let mut rate = Rate::default();
        rate.record(150_000.0, 5_000, WINDOWS);
        let throttle = u64::try_from(rate.throttle_time_ms(10_000.0, 5_000, WINDOWS)).unwrap();
        assert_eq!(throttle, 5_000);
        let after = rate.measure(5_000 + throttle + 5_000, WINDOWS);
        assert!(after <= 15_000.0, "{after}");
        assert!(rate.measure(5_000 + 11_000, WINDOWS).abs() < 1e-9);
    }

    #[test]
    fn a_steady_stream_below_the_limit_is_never_throttled() {
        let mut rate = Rate::default();
        for tick in 0..1_000u64 {
            rate.record(90.0, tick * 100, WINDOWS);
            assert_eq!(rate.throttle_time_ms(1_000.0, tick * 100, WINDOWS), 0, "{tick}");
        }
        assert!(rate.windows.len() <= 11);
    }

    #[test]
    fn what_is_taken_back_does_not_count() {
        let mut rate = Rate::default();
        rate.record(100.0, 0, WINDOWS);
        rate.record(-100.0, 1, WINDOWS);
        assert!(rate.measure(1, WINDOWS).abs() < 1e-9);
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
        let mut rate = Rate::default();
        rate.record(1e300, 0, WINDOWS);
        assert_eq!(rate.throttle_time_ms(0.0, 0, WINDOWS), i32::MAX);
        assert_eq!(rate.throttle_time_ms(f64::MIN_POSITIVE, 0, WINDOWS), i32::MAX);
    }
}
