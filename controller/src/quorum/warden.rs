//! What the leader does for the membership of itself: it finishes a change that an earlier leader left half done,
//! hands over when it has no vote any more, and forgets observers that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Metrics, QuorumChanges};
use crate::types::RaftId;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);

impl QuorumChanges {
    /// Runs until the controller stops; does something only while it leads.
    pub(crate) async fn watch_over(self, stop: CancellationToken) {
        let mut silent: BTreeMap<RaftId, Instant> = BTreeMap::new();
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            if !self.raft.is_leader() {
                silent.clear();
                continue;
            }
            // Whoever makes a change now does this, too.
            let Ok(_turn) = Arc::clone(&self.one).try_lock_owned() else { continue };
            if stop.run_until_cancelled(self.look(&mut silent)).await.is_none() {
                return;
            }
        }
    }

    async fn look(&self, silent: &mut BTreeMap<RaftId, Instant>) {
        if let Err(refusal) = self.settle().await {
            tracing::info!("a change of the quorum is not finished yet: {}", refusal.message);
            return;
        }
        let metrics = self.metrics();
        if !metrics.membership_config.membership().voter_ids().any(|id| id == metrics.id) {
            // It was removed in a change that an earlier leader began.
            if let Err(refusal) = self.hand_over(None, Instant::now() + INTERVAL).await {
                tracing::info!("a voter has to lead instead of this observer: {}", refusal.message);
            }
            return;
        }
        let gone = self.gone(&metrics, silent);
        if gone.is_empty() {
            return;
        }
        let names: Vec<String> = gone.iter().map(ToString::to_string).collect();
        match self.raft.change_membership(ChangeMembers::RemoveNodes(gone), true).await {
            Ok(_) => {
                tracing::info!(controllers = names.join(", "), "observers that do not answer are forgotten");
            }
            Err(error) => tracing::info!("observers that do not answer are not forgotten yet: {error}"),
        }
    }

    /// Observers that have been silent for too long.
    fn gone(&self, metrics: &Metrics, silent: &mut BTreeMap<RaftId, Instant>) -> BTreeSet<RaftId> {
        let observers: BTreeSet<RaftId> = metrics.membership_config.membership().learner_ids().collect();
        silent.retain(|id, _| observers.contains(id));
        for id in &observers {
            if self.is_up(metrics, *id) {
                silent.remove(id);
            } else {
                silent.entry(*id).or_insert_with(Instant::now);
            }
        }
        let is_gone = |since: &Instant| since.elapsed() >= self.observer_silence_max;
        silent.iter().filter(|(_, since)| is_gone(since)).map(|(id, _)| *id).collect()
    }
}
