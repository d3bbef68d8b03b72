//! Which brokers live, as the controller that leads sees it: soft state.
//!
//! A failover loses all of it: the next leader gives every broker that is not fenced a fresh lease, so that nobody is
//! fenced for having talked to the one before. Times are milliseconds of one monotonic clock.

use std::collections::BTreeMap;

use crate::image::{BrokerEpoch, BrokerId, MetadataImage};

/// How leases are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseOptions {
    /// `broker.session.timeout.ms`: without a heartbeat for so long a broker is fenced.
    pub session_timeout_ms: u64,
    /// After its session broke (the process ended, or the network) a broker has this long to open another one; then it
    /// is fenced, even if its lease runs on. One that lives and cannot reach the controllers may act as a leader until then:
    /// what it acknowledges (acks=all) whoever leads next has all the same, since its followers were in the ISR.
    pub broken_session_grace_ms: u64,
}

/// One broker's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    epoch: BrokerEpoch,
    /// That it was heard of in last; 0: in none.
    session: u64,
    expires_ms: u64,
    /// The session broke at this time and no other was opened.
    broken_ms: Option<u64>,
    metadata_index: i64,
    wants_fence: bool,
    wants_shut_down: bool,
    /// This leadership has heard of it; until then the lease is only a courtesy to whoever talked to the leader before.
    is_heard: bool,
}

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Of which registration.
    pub epoch: BrokerEpoch,
    /// In which of the broker's sessions: the later ones have the larger numbers.
    pub session: u64,
    /// How much of the metadata log it has applied.
    pub metadata_index: i64,
    /// It cannot serve yet.
    pub wants_fence: bool,
    /// It wants to stop.
    pub wants_shut_down: bool,
}

/// The leases of all brokers.
#[derive(Debug, Clone)]
pub struct Leases {
    options: LeaseOptions,
    leases: BTreeMap<BrokerId, Lease>,
}

impl Leases {
    /// Nobody has a lease.
    pub fn new(options: LeaseOptions) -> Self {
        Self { options, leases: BTreeMap::new() }
    }

    /// Leadership begins: everybody who is not fenced gets a fresh lease.
    pub fn begin(&mut self, now_ms: u64, image: &MetadataImage) {
        self.leases.clear();
        self.resume(now_ms, now_ms, image);
    }

    /// A quorum answers again, after none did since `since_ms` and no heartbeat was taken. Leases run on for as long as they would
    /// have: who was told to go elsewhere has the time to come back, and who was silent before is not given more. (A leader that
    /// loses its quorum for a moment again and again would else never fence the dead.)
    pub fn resume(&mut self, now_ms: u64, since_ms: u64, image: &MetadataImage) {
        let before = std::mem::take(&mut self.leases);
        for broker in image.brokers().filter(|broker| !broker.fenced) {
            let known = before.get(&broker.id).filter(|lease| lease.epoch == broker.epoch);
            let expires_ms = known.map_or(now_ms + self.options.session_timeout_ms, |lease| {
                lease.expires_ms + now_ms.saturating_sub(since_ms)
            });
            self.leases.insert(
                broker.id,
                Lease {
                    epoch: broker.epoch,
                    session: known.map_or(0, |lease| lease.session),
                    expires_ms,
                    broken_ms: None,
                    metadata_index: -1,
                    wants_fence: false,
                    wants_shut_down: broker.in_controlled_shutdown,
                    is_heard: false,
                },
            );
        }
    }

    /// A heartbeat of a registered epoch renews the lease. One of a session that the broker has replaced says nothing: the network
    /// kept it back.
    pub fn heartbeat(&mut self, now_ms: u64, id: BrokerId, heartbeat: Heartbeat) {
        let is_newer = |lease: &Lease| lease.epoch == heartbeat.epoch && lease.session > heartbeat.session;
        if self.leases.get(&id).is_some_and(is_newer) {
            return;
        }
        self.leases.insert(
            id,
            Lease {
                epoch: heartbeat.epoch,
                session: heartbeat.session,
                expires_ms: now_ms + self.options.session_timeout_ms,
                broken_ms: None,
                metadata_index: heartbeat.metadata_index,
                wants_fence: heartbeat.wants_fence,
                wants_shut_down: heartbeat.wants_shut_down,
                is_heard: true,
            },
        );
    }

    /// A session of this epoch broke. If the broker has another one by now this is no news: after a partition of the network the end
    /// of the old session is often seen only when the new one stands.
    pub fn session_broken(&mut self, now_ms: u64, id: BrokerId, epoch: BrokerEpoch, session: u64) {
        let is_last = |lease: &&mut Lease| lease.epoch == epoch && lease.session <= session;
        if let Some(lease) = self.leases.get_mut(&id).filter(is_last) {
            lease.broken_ms.get_or_insert(now_ms);
        }
    }

    /// The process of this epoch has ended for certain: there is nothing to wait for.
    pub fn process_ended(&mut self, now_ms: u64, id: BrokerId, epoch: BrokerEpoch) {
        if let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.epoch == epoch) {
            lease.expires_ms = lease.expires_ms.min(now_ms);
        }
    }

    /// Whether another incarnation of this broker would be told to wait: it was heard of under this leadership, its lease
    /// runs and its session stands. (All nodes killed and started at once would else wait for leases of the dead.)
    pub fn is_held(&self, now_ms: u64, id: BrokerId) -> bool {
        self.leases
            .get(&id)
            .is_some_and(|lease| lease.is_heard && lease.broken_ms.is_none() && now_ms < lease.expires_ms)
    }

    /// Whether a broker has applied everything up to an index, by its last heartbeat.
    pub fn is_caught_up(&self, id: BrokerId, index: i64) -> bool {
        self.leases.get(&id).is_some_and(|lease| lease.metadata_index >= index)
    }

    /// Whether a broker asked to stop.
    pub fn wants_shut_down(&self, id: BrokerId) -> bool {
        self.leases.get(&id).is_some_and(|lease| lease.wants_shut_down)
    }

    /// Whether a broker asked to stay fenced.
    pub fn wants_fence(&self, id: BrokerId) -> bool {
        self.leases.get(&id).is_some_and(|lease| lease.wants_fence)
    }

    /// Whether somebody who holds a lease has not been heard of for a third of it, or not at all under this leadership. It may be cut
    /// off and lead on: what can wait, waits until it is back or fenced.
    pub fn is_anyone_silent(&self, now_ms: u64) -> bool {
        let heard_within_ms = self.options.session_timeout_ms / 3;
        self.leases.values().any(|lease| {
            let left_ms = lease.expires_ms.saturating_sub(now_ms);
            !lease.is_heard
                || lease.broken_ms.is_some()
                || left_ms + heard_within_ms < self.options.session_timeout_ms
        })
    }

    /// A broker is gone from the metadata, or has registered anew.
    pub fn forget(&mut self, id: BrokerId) {
        self.leases.remove(&id);
    }

    /// Brokers whose time is over; they have no lease any more.
    pub fn expired(&mut self, now_ms: u64) -> Vec<(BrokerId, BrokerEpoch)> {
        let grace_ms = self.options.broken_session_grace_ms;
        let over = |lease: &Lease| {
            now_ms >= lease.expires_ms
                || lease.broken_ms.is_some_and(|broken_ms| now_ms >= broken_ms + grace_ms)
        };
        let expired: Vec<_> = self
            .leases
            .iter()
            .filter(|(_, lease)| over(lease))
            .map(|(id, lease)| (*id, lease.epoch))
            .collect();
        for (id, _) in &expired {
            self.leases.remove(id);
        }
        expired
    }

    /// When to look again; `None`: nobody has a lease.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let grace_ms = self.options.broken_session_grace_ms;
        self.leases
            .values()
            .map(|lease| {
                lease.broken_ms.map_or(lease.expires_ms, |broken| lease.expires_ms.min(broken + grace_ms))
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::cluster;

    const OPTIONS: LeaseOptions = LeaseOptions { session_timeout_ms: 9_000, broken_session_grace_ms: 300 };

    fn beat(epoch: i64) -> Heartbeat {
        beat_in(epoch, 1)
    }

    fn beat_in(epoch: i64, session: u64) -> Heartbeat {
        Heartbeat {
            epoch: BrokerEpoch(epoch),
            session,
            metadata_index: 7,
            wants_fence: false,
            wants_shut_down: false,
        }
    }

    #[test]
    fn a_broker_is_fenced_after_its_session_timeout_and_not_before() {
        let mut leases = Leases::new(OPTIONS);
        leases.heartbeat(1_000, BrokerId(1), beat(5));
        assert!(leases.expired(9_999).is_empty());
        assert_eq!(leases.next_deadline_ms(), Some(10_000));
        assert_eq!(leases.expired(10_000), [(BrokerId(1), BrokerEpoch(5))]);
        assert!(leases.expired(99_999).is_empty());
    }

    #[test]
    fn a_broken_session_leaves_a_short_grace_that_a_new_heartbeat_ends() {
        let mut leases = Leases::new(OPTIONS);
        leases.heartbeat(0, BrokerId(1), beat(5));
        leases.session_broken(1_000, BrokerId(1), BrokerEpoch(4), 1);
        assert_eq!(leases.next_deadline_ms(), Some(9_000), "another registration's session");
        leases.session_broken(1_000, BrokerId(1), BrokerEpoch(5), 1);
        assert!(!leases.is_held(1_000, BrokerId(1)));
        assert!(leases.expired(1_299).is_empty());
        leases.heartbeat(1_299, BrokerId(1), beat(5));
        assert!(leases.expired(1_300).is_empty());
    }

    /// S-R17: after a partition the system gives the end of the old connection, and what was kept back in it, when the broker has long
    /// come back.
    #[test]
    fn what_comes_late_of_a_session_that_was_replaced_is_no_news() {
        let mut leases = Leases::new(OPTIONS);
        leases.heartbeat(0, BrokerId(1), beat_in(5, 1));
        leases.heartbeat(4_000, BrokerId(1), beat_in(5, 2));
        leases.session_broken(4_500, BrokerId(1), BrokerEpoch(5), 1);
        assert_eq!(leases.next_deadline_ms(), Some(13_000), "the end of the session before");
        leases.heartbeat(5_000, BrokerId(1), Heartbeat { wants_fence: true, ..beat_in(5, 1) });
        assert_eq!(leases.next_deadline_ms(), Some(13_000), "a heartbeat of the session before");
        assert!(!leases.wants_fence(BrokerId(1)));
        leases.session_broken(6_000, BrokerId(1), BrokerEpoch(5), 2);
        assert_eq!(leases.next_deadline_ms(), Some(6_300));
        leases.heartbeat(6_100, BrokerId(1), beat_in(6, 1));
        assert_eq!(leases.next_deadline_ms(), Some(15_100), "of another registration all is news");
    }

    #[test]
    fn a_process_that_has_ended_is_fenced_at_once() {
        let mut leases = Leases::new(OPTIONS);
        leases.heartbeat(0, BrokerId(1), beat(5));
        leases.process_ended(1_000, BrokerId(1), BrokerEpoch(4));
        assert!(leases.expired(1_000).is_empty(), "another registration's process");
        leases.process_ended(1_000, BrokerId(1), BrokerEpoch(5));
        assert_eq!(leases.expired(1_000), [(BrokerId(1), BrokerEpoch(5))]);
    }

    #[test]
    fn a_new_leader_gives_everyone_a_fresh_lease() {
        let mut leases = Leases::new(OPTIONS);
        leases.begin(50_000, &cluster(&[(1, ""), (2, "")]));
        assert!(leases.expired(58_999).is_empty());
        assert_eq!(leases.expired(59_000).len(), 2);
        leases.begin(50_000, &cluster(&[(1, "")]));
        assert!(!leases.is_held(50_001, BrokerId(1)), "a process that was started anew need not wait");
        leases.heartbeat(50_002, BrokerId(1), beat(5));
        assert!(leases.is_held(50_003, BrokerId(1)));
    }

    /// S-R17: a leader with one follower left, which is late now and then, fences the broker that is cut off all the same.
    #[test]
    fn a_quorum_that_comes_and_goes_does_not_keep_the_dead_alive() {
        let mut leases = Leases::new(OPTIONS);
        let image = cluster(&[(1, ""), (2, ""), (3, "")]);
        leases.begin(0, &image);
        let epoch = |id| image.broker(BrokerId(id)).unwrap().epoch;
        for beat_ms in [1_000, 3_000] {
            for id in [1, 2] {
                leases.heartbeat(beat_ms, BrokerId(id), beat(epoch(id).0));
            }
        }
        // Those who live are sent away, and come back.
        leases.session_broken(4_100, BrokerId(1), epoch(1), 1);
        leases.resume(4_600, 4_000, &image);
        assert!(leases.expired(4_950).is_empty(), "the end of a session that this leader ended");
        leases.heartbeat(5_000, BrokerId(1), beat(epoch(1).0));
        leases.resume(8_000, 7_000, &image);
        assert!(leases.expired(10_599).is_empty(), "nobody could come for 1.6 s");
        assert_eq!(leases.expired(10_600), [(BrokerId(3), epoch(3))]);
        assert_eq!(leases.expired(13_600), [(BrokerId(2), epoch(2))]);
    }

    #[test]
    fn who_was_not_heard_of_for_a_third_of_a_lease_is_silent() {
        let mut leases = Leases::new(OPTIONS);
        leases.begin(0, &cluster(&[(1, "")]));
        assert!(leases.is_anyone_silent(1), "never heard of by this leader");
        leases.heartbeat(1_000, BrokerId(1), beat(5));
        assert!(!leases.is_anyone_silent(4_000));
        assert!(leases.is_anyone_silent(4_001));
        leases.heartbeat(5_000, BrokerId(1), beat(5));
        leases.session_broken(5_001, BrokerId(1), BrokerEpoch(5), 1);
        assert!(leases.is_anyone_silent(5_002));
        assert_eq!(leases.expired(5_301).len(), 1);
        assert!(!leases.is_anyone_silent(5_302), "who is fenced leads nothing");
    }

    #[test]
    fn who_is_caught_up_is_known_from_heartbeats() {
        let mut leases = Leases::new(OPTIONS);
        leases.heartbeat(0, BrokerId(1), beat(5));
        assert!(leases.is_caught_up(BrokerId(1), 7) && !leases.is_caught_up(BrokerId(1), 8));
        assert!(!leases.is_caught_up(BrokerId(2), 0));
    }
}
