//! Leaders whose connection broke a moment ago.
//!
//! A client whose leader died asks for metadata at once, before the controllers can know. A client that is then told of the
//! dead leader believes it: librdkafka asks again only after a second or two. A broker whose own fetches from that leader
//! broke at the same moment knows better, and says that there is no leader now: the client asks again after its short back-off.
//! The knowledge is good for a moment only: within it the controllers elect another leader, or the leader is well and only this
//! broker cannot reach it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long clients are not sent to a leader after its connection broke.
const DOUBT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Unreachable {
    /// Broker -> when its connection broke.
    since: Mutex<BTreeMap<i32, Instant>>,
}

impl Unreachable {
    /// A connection to a leader broke: the first failure of a row, not each attempt to connect again.
    pub fn broke(&self, broker: i32) {
        self.since.lock().insert(broker, Instant::now());
    }

    /// A leader has answered.
    pub fn answered(&self, broker: i32) {
        self.since.lock().remove(&broker);
    }

    /// Brokers that clients should not be sent to now. Mostly empty.
    pub fn now(&self) -> Vec<i32> {
        let since = self.since.lock();
        since.iter().filter(|(_, since)| since.elapsed() < DOUBT).map(|(broker, _)| *broker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_in_doubt_from_the_break_until_it_answers_or_a_moment_has_passed() {
        let unreachable = Unreachable::default();
        assert!(unreachable.now().is_empty());
        unreachable.broke(3);
        assert_eq!(unreachable.now(), [3]);
        unreachable.answered(3);
        assert!(unreachable.now().is_empty());
        unreachable.since.lock().insert(2, Instant::now().checked_sub(DOUBT).unwrap());
        assert!(unreachable.now().is_empty());
    }
}
