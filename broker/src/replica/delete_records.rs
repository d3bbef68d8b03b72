//! One partition's `DeleteRecords`: the log's start moves, here first, and whoever asked waits for the followers'.

use std::sync::Arc;

use ottla_replica::Input;
use ottla_wire::error_code::ErrorCode;

use super::partition::{Partition, State};
use super::waiter::{InterestKind, Waiter, Wakes};

/// A parked `DeleteRecords` reply.
#[derive(Debug)]
pub(super) struct LowWatermarkWait {
    offset: i64,
    pub(super) waiter: Arc<Waiter>,
}

impl Partition {
    /// Moves the log's start up to `before` (-1: the high watermark). Gives the low watermark of now; while that is below
    /// the offset that was moved to, `waiter` is completed once when it gets there.
    pub fn delete_records(&self, before: i64, waiter: &Arc<Waiter>) -> Result<(i64, i64), ErrorCode> {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        let result = self.delete_records_locked(&mut state, before, waiter, &mut wakes);
        drop(state);
        wakes.run();
        result
    }

    fn delete_records_locked(
        &self,
        state: &mut State,
        before: i64,
        waiter: &Arc<Waiter>,
        wakes: &mut Wakes,
    ) -> Result<(i64, i64), ErrorCode> {
        if state.log.is_none() {
            return Err(ErrorCode::KafkaStorageError);
        }
        if !state.machine.is_leader() || !self.shared.grant.now().has_lease() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if self.loaded_rules().is_only_compacted() {
            // Whoever reads a compacted topic counts on the last record of each key.
            return Err(ErrorCode::PolicyViolation);
        }
        let high_watermark = state.machine.high_watermark();
        let target = if before == -1 { high_watermark } else { before };
        if target < 0 || target > high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        self.move_log_start(state, target, wakes)?;
        let low_watermark = state.machine.low_watermark();
        if low_watermark < target {
            state.low_watermark_waits.push(LowWatermarkWait { offset: target, waiter: Arc::clone(waiter) });
        }
        Ok((low_watermark, target))
    }

    pub(crate) fn move_log_start(
        &self,
        state: &mut State,
        target: i64,
        wakes: &mut Wakes,
    ) -> Result<(), ErrorCode> {
        let Some(log) = &mut state.log else { return Err(ErrorCode::KafkaStorageError) };
        if target <= log.log_start_offset() {
            return Ok(());
        }
        if let Err(error) = log.increment_log_start_offset(target) {
            self.broken(state, &error, wakes);
            return Err(ErrorCode::KafkaStorageError);
        }
        self.step(state, Input::LogStartMoved { log_start: target }, wakes);
        for entry in &state.interests {
            entry.interest.mark(entry.slot);
            if entry.interest.kind() == InterestKind::Follower {
                // Followers delete too, and somebody waits for that.
                wakes.add_interest(&entry.interest);
            }
        }
        Ok(())
    }

    /// What became of a deletion when the wait for it is over: the low watermark, `REQUEST_TIMED_OUT` while that is lower, or
    /// `NOT_LEADER_OR_FOLLOWER` where nobody can say here any more.
    pub fn deleted_up_to(&self, target: i64) -> Result<i64, ErrorCode> {
        let state = self.lock();
        if !state.machine.is_leader() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Some(state.machine.low_watermark()).filter(|low| *low >= target).ok_or(ErrorCode::RequestTimedOut)
    }

    pub(crate) fn release_low_watermark(state: &mut State, wakes: &mut Wakes) {
        if state.low_watermark_waits.is_empty() {
            return;
        }
        let low_watermark = state.machine.low_watermark();
        let (done, waiting) = std::mem::take(&mut state.low_watermark_waits)
            .into_iter()
            .partition(|wait| wait.offset <= low_watermark);
        state.low_watermark_waits = waiting;
        let done: Vec<LowWatermarkWait> = done;
        for wait in done {
            wakes.add_waiter(wait.waiter);
        }
    }
}
