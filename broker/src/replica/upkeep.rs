//! What is done to a partition by the clock: rest, retention, checkpoints of its offsets.

use std::path::PathBuf;
use std::sync::Arc;

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
    /// Lets a log that nobody appends to give its files and buffers back. Gives its end.
    pub(crate) fn rest_if_idle(&self, end_before: Option<i64>) -> Option<i64> {
        let mut state = self.lock();
        let log = state.log.as_mut()?;
        let end = log.end_offset();
        if end_before == Some(end)
            && let Err(error) = log.rest()
        {
            let mut wakes = Wakes::default();
            self.broken(&mut state, &error, &mut wakes);
            drop(state);
            wakes.run();
        }
        Some(end)
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
