//! Who guesses passwords waits longer and longer: authentications that failed lately, by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many failures of an address wait only `connection.failed.authentication.delay.ms`: people mistype, and many clients may share
/// an address.
const FREE_COUNT: u32 = 10;
/// No answer waits longer.
const DELAY_MAX: Duration = Duration::from_secs(2);
/// An address that has not failed for so long begins anew.
const MEMORY: Duration = Duration::from_secs(60);
/// Addresses that are remembered; when there are more, the one that failed longest ago is forgotten.
const ADDRESSES_MAX: usize = 4096;

/// Failures by address.
#[derive(Debug, Default)]
pub(crate) struct Failures(HashMap<IpAddr, (u32, Instant)>);

impl Failures {
    /// Counts a failure; gives how long its answer waits, from `base` up.
    pub(crate) fn count(&mut self, address: IpAddr, base: Duration, now: Instant) -> Duration {
        if !self.0.contains_key(&address) && self.0.len() >= ADDRESSES_MAX {
            let oldest = self.0.iter().min_by_key(|(_, (_, last))| *last).map(|(address, _)| *address);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        let (count, last) = self.0.entry(address).or_insert((0, now));
        if now.saturating_duration_since(*last) > MEMORY {
            *count = 0;
        }
        *count = count.saturating_add(1);
        *last = now;
        let doublings = count.saturating_sub(FREE_COUNT).min(16);
        if doublings == 0 {
            base
        } else {
            (base.max(Duration::from_millis(1)) * (1 << doublings)).clamp(base, DELAY_MAX.max(base))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_longer_and_longer_up_to_a_bound() {
        let mut failures = Failures::default();
        let (address, base, now) = (IpAddr::from([10, 0, 0, 1]), Duration::from_millis(100), Instant::now());
        for _ in 0..FREE_COUNT {
            assert_eq!(failures.count(address, base, now), base);
        }
        let later: Vec<u128> = (0..6).map(|_| failures.count(address, base, now).as_millis()).collect();
        assert_eq!(later, [200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(failures.count(IpAddr::from([10, 0, 0, 2]), base, now), base);
        assert_eq!(failures.count(address, base, now + MEMORY * 2), base);
        // A longer delay that was set stays.
        let long = Duration::from_secs(10);
        assert_eq!((0..20).map(|_| failures.count(address, long, now)).max(), Some(long));
    }

    #[test]
    fn addresses_are_bounded() {
        let mut failures = Failures::default();
        let now = Instant::now();
        for number in 0..10_000_u32 {
            failures.count(IpAddr::from(number.to_be_bytes()), Duration::ZERO, now);
        }
        assert_eq!(failures.0.len(), ADDRESSES_MAX);
    }
}
