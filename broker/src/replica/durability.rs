//! One partition with `flush.messages=1`: what was appended counts when it is on disk, and one round of the disk serves all who
//! wait.
//!
//! With acks=-1 the machine sees to that: the high watermark does not pass what is not synced. With acks=1 a producer waits for the
//! leader's own disk alone, as it does with Kafka, where such an append syncs before it returns.

use std::sync::Arc;
use std::time::Instant;

use ottla_log::Log;
use ottla_replica::Input;
use ottla_wire::error_code::ErrorCode;

use super::appends::{AckState, AppendedRecords};
use super::partition::{Partition, State};
use super::waiter::{Waiter, Wakes};

/// A parked reply to acks=1.
#[derive(Debug)]
pub(super) struct SyncWait {
    last_offset: i64,
    pub(super) waiter: Arc<Waiter>,
}

impl Partition {
    /// Whether only what is on disk counts.
    pub fn is_synced_only(&self) -> bool {
        self.loaded_rules().is_synced_only()
    }

    /// Whether an append is on this replica's disk; if not yet, `waiter` is completed once when that changes.
    pub fn await_synced(&self, appended: &AppendedRecords, waiter: &Arc<Waiter>) -> AckState {
        let mut state = self.lock();
        let standing = Self::synced_state(&state, appended);
        if standing == AckState::Pending {
            let wait = SyncWait { last_offset: appended.last_offset, waiter: Arc::clone(waiter) };
            state.sync_waits.push(wait);
        }
        standing
    }

    /// Where an append stands: asked after the waiter was completed, or timed out (`Pending` then).
    pub fn synced_result(&self, appended: &AppendedRecords) -> AckState {
        Self::synced_state(&self.lock(), appended)
    }

    fn synced_state(state: &State, appended: &AppendedRecords) -> AckState {
        let Some(log) = &state.log else { return AckState::Failed(ErrorCode::KafkaStorageError) };
        if !state.machine.is_leader() || state.machine.leader_epoch() != appended.leader_epoch {
            return AckState::Failed(ErrorCode::NotLeaderOrFollower);
        }
        if log.recovery_point() > appended.last_offset { AckState::Done } else { AckState::Pending }
    }

    fn release_synced(state: &mut State, synced_end: i64, wakes: &mut Wakes) {
        for wait in state.sync_waits.extract_if(.., |wait| wait.last_offset < synced_end) {
            wakes.add_waiter(wait.waiter);
        }
    }

    /// Brings all that was appended to the disk. Blocks: only on a blocking thread. False: the disk is full, and it is to be tried
    /// again.
    pub(crate) fn sync(&self) -> bool {
        let begun = self.lock().log.as_deref_mut().map(Log::begin_flush);
        // Appends go on while the disk is at work.
        let synced = match begun {
            None => return true,
            Some(Ok(mut ticket)) if ticket.is_empty() => ticket.sync().map(|()| ticket),
            Some(Ok(mut ticket)) => {
                let begun = Instant::now();
                let synced = ticket.sync().map(|()| ticket);
                self.shared.counters.flush_times.observe(begun.elapsed());
                synced
            }
            Some(Err(error)) if error.is_no_space() => return false,
            Some(Err(error)) => Err(error),
        };
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        if let Some(log) = &mut state.log {
            match synced.and_then(|ticket| log.finish_flush(ticket)) {
                Ok(synced_end) => {
                    Self::release_synced(&mut state, synced_end, &mut wakes);
                    self.step(&mut state, Input::Synced { synced_end }, &mut wakes);
                }
                Err(error) => self.broken(&mut state, &error, &mut wakes),
            }
        }
        drop(state);
        wakes.run();
        true
    }
}
