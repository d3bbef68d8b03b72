//! A leader whose process has ended is replaced before the election timeout.
//!
//! Followers of Raft wait because a silent leader may only be slow. One that is silent *and* whose own address refuses
//! connections is not slow: its process is gone. Then a voter stands at once, in the way of a leadership transfer: the others
//! vote although the lease of the dead leader runs still (Raft dissertation, 4.2.3). Safety does not rest on it; elections are
//! safe at any time. What could go wrong is that a leader that lives is unseated, so both signs are asked for: a leader
//! behind a firewall that refuses is heard of still, and one that is paused, or whose host is gone, refuses nothing. Those
//! are left to the timeout.
//!
//! Votes are not split: the voter with the lowest node id stands first, each other one a little later if nothing has come of
//! it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::TransferLeaderRequest;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{QuorumChanges, voters_of};
use crate::types::RaftId;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);
/// A dial that takes longer tells nothing.
const DIAL_MAX: Duration = Duration::from_millis(500);
/// The next voter stands so much later.
const STAGGER: Duration = Duration::from_millis(100);
/// After standing, the ordinary timeouts have so long to do better.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches over the leader's process.
pub(crate) struct Succession {
    pub(crate) changes: QuorumChanges,
    /// When the leader was last heard of.
    pub(crate) heard: Arc<Mutex<Instant>>,
    /// So long without a word: longer than a leader that lives is silent.
    pub(crate) silence: Duration,
}

impl Succession {
    /// Runs until the controller stops; does something only while it follows a leader.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let Some((leader, rank)) = self.silent_leader() else { continue };
            if stop.run_until_cancelled(self.succeed(leader, rank)).await.is_none() {
                return;
            }
        }
    }

    /// The leader that this voter has not heard of for too long, and how many voters come before this one.
    fn silent_leader(&self) -> Option<(RaftId, u32)> {
        if self.heard.lock().elapsed() < self.silence {
            return None;
        }
        let metrics = self.changes.metrics();
        let leader = metrics.current_leader.filter(|leader| *leader != metrics.id)?;
        let voters = voters_of(metrics.membership_config.membership());
        rank(voters, leader, metrics.id).map(|rank| (leader, rank))
    }

    async fn succeed(&self, leader: RaftId, rank: u32) {
        let metrics = self.changes.metrics();
        let Some(address) = self.changes.network.address(metrics.membership_config.membership(), leader)
        else {
            return;
        };
        let dialled = tokio::time::timeout(DIAL_MAX, TcpStream::connect(&address)).await;
        let is_gone = matches!(dialled, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused);
        if !is_gone {
            return;
        }
        tokio::time::sleep(STAGGER * rank).await;
        // Somebody else was elected, or the leader was heard of after all.
        if self.silent_leader().is_none_or(|(silent, _)| silent != leader) {
            return;
        }
        tracing::info!(controller = %leader, "the leader's process has ended: standing for election");
        let vote = self.changes.metrics().vote;
        let transfer = TransferLeaderRequest::new(vote, metrics.id, None);
        if let Err(error) = self.changes.raft.handle_transfer_leader(transfer).await {
            tracing::info!("this controller cannot stand: {error}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How many voters stand before this one when a leader is gone; `None`: it has no vote.
fn rank(voters: impl IntoIterator<Item = RaftId>, leader: RaftId, own: RaftId) -> Option<u32> {
    let heirs = voters.into_iter().filter(|voter| *voter != leader);
    heirs.zip(0..).find(|(voter, _)| *voter == own).map(|(_, rank)| rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_stand_in_the_order_of_their_ids_without_the_dead_leader() {
        let id = |node_id| RaftId { node_id, incarnation: 7 };
        let voters = [id(1), id(2), id(3)];
        let rank = |leader, own| rank(voters, id(leader), id(own));
        assert_eq!((rank(1, 2), rank(1, 3)), (Some(0), Some(1)));
        assert_eq!((rank(2, 1), rank(2, 3)), (Some(0), Some(1)));
        assert_eq!(rank(3, 3), None, "the leader does not succeed itself");
        assert_eq!(rank(3, 9), None, "an observer has no vote");
    }
}
