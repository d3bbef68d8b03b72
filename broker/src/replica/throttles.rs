//! Replication held back while partitions are moved (KIP-73): how fast a leader sends, and a follower takes, records of
//! partitions that are named in `leader.replication.throttled.replicas` and `follower.replication.throttled.replicas`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ottla_metadata::config::broker_value;
use ottla_metadata::image::MetadataImage;
use parking_lot::Mutex;

/// Bytes may be sent ahead for so long: a rate is kept over a second, not over every moment.
const BURST_MS: u64 = 1_000;
const UNLIMITED: u64 = u64::MAX;

/// Which replicas of a topic are held back on this broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// None.
    #[default]
    None,
    /// `*`.
    All,
    /// These partitions.
    Partitions(Vec<i32>),
}

impl ThrottledReplicas {
    /// Reads `partition:broker,…` or `*`, as far as it is about this broker.
    pub fn parse(text: &str, broker_id: i32) -> Self {
        if text.trim() == "*" {
            return Self::All;
        }
        let of_this = |item: &str| {
            let (partition, broker) = item.trim().split_once(':')?;
            (broker.trim().parse::<i32>().ok()? == broker_id).then(|| partition.trim().parse().ok())?
        };
        let partitions: Vec<i32> = text.split(',').filter_map(of_this).collect();
        if partitions.is_empty() { Self::None } else { Self::Partitions(partitions) }
    }

    /// Whether a partition is among them.
    pub fn contains(&self, index: i32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Partitions(partitions) => partitions.contains(&index),
        }
    }
}

/// Bytes a second, with a debt: what was sent beyond the rate is waited for.
#[derive(Debug)]
pub struct ReplicationThrottle {
    bytes_per_second: AtomicU64,
    /// When all that was sent is paid for, in milliseconds of the monotonic clock.
    paid_ms: Mutex<u64>,
}

impl Default for ReplicationThrottle {
    fn default() -> Self {
        Self { bytes_per_second: AtomicU64::new(UNLIMITED), paid_ms: Mutex::new(0) }
    }
}

impl ReplicationThrottle {
    /// Changes the rate; what was owed at another one is forgiven.
    pub fn set_rate(&self, bytes_per_second: u64) {
        if self.bytes_per_second.swap(bytes_per_second, Ordering::Relaxed) != bytes_per_second {
            *self.paid_ms.lock() = 0;
        }
    }

    /// Whether nothing may be sent now.
    pub fn is_exceeded(&self, now_ms: u64) -> bool {
        self.bytes_per_second.load(Ordering::Relaxed) != UNLIMITED
            && *self.paid_ms.lock() > now_ms.saturating_add(BURST_MS)
    }

    /// When something may be sent again.
    pub fn due_ms(&self) -> u64 {
        self.paid_ms.lock().saturating_sub(BURST_MS)
    }

    /// The most that may be sent at once, but for a first batch that is larger.
    pub fn bytes_max(&self, now_ms: u64) -> usize {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == UNLIMITED {
            return usize::MAX;
        }
        let free_ms = now_ms.saturating_add(BURST_MS).saturating_sub((*self.paid_ms.lock()).max(now_ms));
        usize::try_from(rate.saturating_mul(free_ms) / 1_000).unwrap_or(usize::MAX)
    }

    /// Counts what was sent.
    pub fn count(&self, now_ms: u64, bytes: u64) {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == UNLIMITED || bytes == 0 {
            return;
        }
        let mut paid_ms = self.paid_ms.lock();
        // At least a millisecond: a first batch counts, however large the rate.
        let cost_ms = (bytes.saturating_mul(1_000) / rate.max(1)).max(1);
        *paid_ms = (*paid_ms).max(now_ms).saturating_add(cost_ms);
    }
}

/// The throttles of a broker.
#[derive(Debug, Default)]
pub struct Throttles {
    /// `leader.replication.throttled.rate`.
    pub leader: ReplicationThrottle,
    /// `follower.replication.throttled.rate`.
    pub follower: ReplicationThrottle,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`; 0: nobody has said anything.
    move_rate: AtomicU64,
}

impl Throttles {
    /// Takes the rates that hold on a broker now.
    pub fn apply(&self, image: &MetadataImage, properties: &BTreeMap<String, String>, broker_id: i32) {
        let rate = |name: &str| {
            let value = broker_value(image, properties, Some(broker_id), name);
            // The default is the largest number there is, and means no limit.
            let rate: Option<i64> = value.and_then(|text| text.parse().ok()).filter(|rate| *rate < i64::MAX);
            rate.and_then(|rate| u64::try_from(rate).ok()).unwrap_or(UNLIMITED)
        };
        self.leader.set_rate(rate("leader.replication.throttled.rate"));
        self.follower.set_rate(rate("follower.replication.throttled.rate"));
        let move_rate = rate("replica.alter.log.dirs.io.max.bytes.per.second");
        self.move_rate.store(move_rate, Ordering::Relaxed);
    }

    /// How fast replicas are copied between directories.
    pub fn move_bytes_per_second(&self) -> u64 {
        match self.move_rate.load(Ordering::Relaxed) {
            0 => UNLIMITED,
            rate => rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_named_by_partition_and_broker() {
        assert_eq!(ThrottledReplicas::parse("", 1), ThrottledReplicas::None);
        assert_eq!(ThrottledReplicas::parse("*", 1), ThrottledReplicas::All);
        let some = ThrottledReplicas::parse("0:1, 1:2,2:1", 1);
        assert_eq!([0, 1, 2, 3].map(|index| some.contains(index)), [true, false, true, false]);
        assert_eq!(ThrottledReplicas::parse("0:2,x:1,3", 1), ThrottledReplicas::None);
    }

    #[test]
    fn what_was_sent_beyond_the_rate_is_waited_for() {
        let throttle = ReplicationThrottle::default();
        throttle.count(0, 1 << 40);
        assert!(!throttle.is_exceeded(0), "without a rate nothing is counted");
        throttle.set_rate(1_000);
        assert_eq!(throttle.bytes_max(5_000), 1_000);
        throttle.count(5_000, 10_000);
        assert!(throttle.is_exceeded(5_000) && throttle.is_exceeded(13_999));
        assert!(!throttle.is_exceeded(14_000), "a second may be sent ahead");
        throttle.set_rate(2_000);
        assert!(!throttle.is_exceeded(5_000), "the debt was at another rate");
    }
}
