//! What time does: open transactions that ran out of it are aborted (I65), ids that nobody uses are forgotten.
//!
//! Both count on the wall clock, since the times stand in the log and the next coordinator must understand them.

use ottla_wire::text::Text;

use super::command::Effects;
use super::records;
use super::{Then, TransactionCoordinator};
use crate::group::Now;

/// Ids forgotten in one batch: their records must fit one batch of the log.
const TOMBSTONES_PER_APPEND_MAX: usize = 1_000;

impl TransactionCoordinator {
    /// Aborts transactions that are open for longer than their producer asked for, and fences the producer: it may be
    /// dead, or it may be writing still.
    pub fn abort_timed_out(&mut self, now: Now, effects: &mut Effects) {
        if self.leading.is_none() {
            return;
        }
        let ids: Vec<Text> = self.durable.timed_out(now.wall_ms).cloned().collect();
        for id in ids {
            let view = self.view(now, &id);
            let Some(current) = view.current.filter(|_| !view.is_changing) else { continue };
            let next = view.fence(current).next;
            // A record that cannot be made now cannot be made later either; there is nobody to tell.
            let _ = self.write(&id, &next, Then::TimedOut, effects);
        }
    }

    /// Forgets ids that are at rest and unused for `transactional.id.expiration.ms`. A producer that comes back later is
    /// a new one, with a new producer id.
    pub fn expire_ids(&mut self, now: Now, effects: &mut Effects) {
        if self.leading.is_none() {
            return;
        }
        let unused_since_ms = now.wall_ms.saturating_sub(self.config.id_expiration_ms);
        let is_changing = |id: &Text| self.live.get(id).is_some_and(|live| live.is_changing);
        let expired: Vec<Text> = self
            .durable
            .transactions()
            .filter(|(id, found)| {
                found.state.is_at_rest() && found.last_update_ms <= unused_since_ms && !is_changing(id)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for ids in expired.chunks(TOMBSTONES_PER_APPEND_MAX) {
            let tombstones: Result<Vec<_>, _> = ids.iter().map(records::tombstone).collect();
            if let Ok(tombstones) = tombstones {
                self.append(ids.to_vec(), tombstones, Then::Expired, effects);
            }
        }
    }
}
