//! What is done to a partition by the clock: rest, retention, checkpoints of its offsets.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ottla_log::Log;
use ottla_replica::Input;

use super::partition::Partition;
use super::shared::LogDir;
use super::waiter::Wakes;

/// A partition's offsets as checkpoints hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpointed {
    pub(crate) high_watermark: i64,
    pub(crate) recovery_point: i64,
    pub(crate) log_start: i64,
}

impl Partition {
    /// Lets a log that nobody has appended to since the last call give its files and buffers back.
    pub(crate) fn rest_if_idle(&self) {
        let mut state = self.lock();
        let Some(end) = state.log.as_deref().map(Log::end_offset) else { return };
        if std::mem::replace(&mut state.end_seen, end) != end {
            return;
        }
        Self::shrink_waits(&mut state);
        if let Some(Err(error)) = state.log.as_deref_mut().map(Log::rest) {
            let mut wakes = Wakes::default();
            self.broken(&mut state, &error, &mut wakes);
            drop(state);
            wakes.run();
        }
    }

    /// `flush.ms`: syncs a log that was not synced for so long.
    pub(crate) fn flush_if_due(&self, now_ms: i64) {
        let flushed_ms = self.flushed_ms.load(Ordering::Relaxed);
        let is_due = flushed_ms != i64::MIN && now_ms.saturating_sub(flushed_ms) >= self.rules().flush_ms();
        if is_due {
            self.sync();
        }
        if is_due || flushed_ms == i64::MIN {
            self.flushed_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Drops segments that are too old or too many. Gives the renamed files, which are removed later.
    pub(crate) fn enforce_retention(&self, now_ms: i64) -> Vec<PathBuf> {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        let high_watermark = state.machine.high_watermark();
        let mut removed = Vec::new();
        if let Some(log) = &mut state.log {
            match log.delete_old_segments(now_ms, high_watermark) {
                Ok(files) => {
                    removed = files;
                    let log_start = log.log_start_offset();
                    self.step(&mut state, Input::LogStartMoved { log_start }, &mut wakes);
                }
                Err(error) => self.broken(&mut state, &error, &mut wakes),
            }
        }
        drop(state);
        wakes.run();
        removed
    }

    /// For the checkpoints of a log directory; none: the partition is not there, or offline.
    pub(crate) fn checkpointed(&self, log_dir: &Arc<LogDir>) -> Option<Checkpointed> {
        let state = self.lock();
        let log = state.log.as_ref().filter(|_| Arc::ptr_eq(&state.log_dir, log_dir))?;
        Some(Checkpointed {
            high_watermark: state.machine.high_watermark(),
            recovery_point: log.recovery_point(),
            log_start: log.log_start_offset(),
        })
    }
}
