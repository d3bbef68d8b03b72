//! When a snapshot is written besides every so many entries: after so many bytes of records, or after so much time with any
//! (`metadata.log.max.record.bytes.between.snapshots`, `metadata.log.max.snapshot.interval.ms`; KIP-630, KIP-876).

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::state_machine::StateMachine;
use crate::types::Raft;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// The two limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SnapshotLimits {
    /// Bytes of entries.
    pub(crate) bytes_max: u64,
    /// `None`: time alone is no reason.
    pub(crate) interval: Option<Duration>,
}

/// Runs until the controller stops.
pub(crate) async fn write_in_time(
    raft: Raft,
    machine: StateMachine,
    limits: SnapshotLimits,
    stop: CancellationToken,
) {
    let mut written = (machine.snapshots(), Instant::now());
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        if written.0 != machine.snapshots() {
            written = (machine.snapshots(), Instant::now());
        }
        let bytes = machine.bytes_since_snapshot();
        let is_time = limits.interval.is_some_and(|interval| written.1.elapsed() >= interval);
        if bytes < limits.bytes_max && !(is_time && bytes > 0) {
            continue;
        }
        // A snapshot that is not written yet is asked for again.
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
