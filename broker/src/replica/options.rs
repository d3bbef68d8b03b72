//! What the replica shell is configured with, and the little state that all its partitions share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ottla_replica::Now;

use super::cleaner::CleanerOptions;
use super::loading::Recovery;
use crate::security::PeerSecurity;

/// Settings of replicas and of replication. Names in Kafka's words where Kafka has the setting.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// `node.id`.
    pub broker_id: i32,
    /// `log.dirs`, at least one.
    pub log_dirs: Vec<PathBuf>,
    /// Name of the listener by which brokers reach each other. Default PLAINTEXT.
    pub inter_broker_listener: String,
    /// How brokers are reached by that listener; plain until it is configured.
    pub peer_security: PeerSecurity,
    /// `replica.lag.time.max.ms`: a follower that was not caught up for longer leaves the ISR. Default 30 s.
    pub replica_lag_time_ms_max: u64,
    /// `replica.fetch.wait.max.ms`: how long a leader may hold a follower's fetch that has no news. Default 500.
    pub replica_fetch_wait_ms_max: i32,
    /// `replica.fetch.min.bytes`. Default 1.
    pub replica_fetch_bytes_min: i32,
    /// `replica.fetch.max.bytes`: of one partition in an answer. Default 1 MiB.
    pub replica_fetch_partition_bytes_max: i32,
    /// `replica.fetch.response.max.bytes`. Default 10 MiB.
    pub replica_fetch_response_bytes_max: i32,
    /// `replica.fetch.backoff.ms`: pause of a partition that failed, and between connection attempts. Default 1 s.
    pub replica_fetch_backoff_ms: u64,
    /// `replica.socket.timeout.ms`: a leader that is silent for longer is taken for dead. Default 30 s.
    pub replica_socket_timeout_ms: u64,
    /// `num.recovery.threads.per.data.dir`. Default 2.
    pub recovery_threads: usize,
    /// `replica.high.watermark.checkpoint.interval.ms`. Default 5 s.
    pub high_watermark_checkpoint_ms: u64,
    /// `log.flush.offset.checkpoint.interval.ms`: recovery points and log starts. Default 60 s.
    pub recovery_point_checkpoint_ms: u64,
    /// `log.retention.check.interval.ms`. Default 5 min.
    pub retention_check_ms: u64,
    /// `log.segment.delete.delay.ms`: between the renaming of a deleted file and its removal. Default 60 s.
    pub delete_delay_ms: u64,
    /// `max.incremental.fetch.session.cache.slots`. Default 1,000.
    pub fetch_session_slots: usize,
    /// Compaction.
    pub cleaner: CleanerOptions,
    /// Where the start tells how far it is.
    pub recovery: Arc<Recovery>,
}

impl ReplicaOptions {
    /// Kafka's defaults.
    pub fn new(broker_id: i32, log_dirs: Vec<PathBuf>) -> Self {
        Self {
            broker_id,
            log_dirs,
            inter_broker_listener: "PLAINTEXT".to_owned(),
            peer_security: PeerSecurity::default(),
            replica_lag_time_ms_max: 30_000,
            replica_fetch_wait_ms_max: 500,
            replica_fetch_bytes_min: 1,
            replica_fetch_partition_bytes_max: 1 << 20,
            replica_fetch_response_bytes_max: 10 << 20,
            replica_fetch_backoff_ms: 1_000,
            replica_socket_timeout_ms: 30_000,
            recovery_threads: 2,
            high_watermark_checkpoint_ms: 5_000,
            recovery_point_checkpoint_ms: 60_000,
            retention_check_ms: 300_000,
            delete_delay_ms: 60_000,
            fetch_session_slots: 1_000,
            cleaner: CleanerOptions::default(),
            recovery: Arc::default(),
        }
    }
}

/// The two clocks of a broker: one for leases and lag, which never goes back, and the wall for time stamps.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock {
    /// Milliseconds since the broker started, plus one: 0 stands for "never".
    pub fn monotonic_ms(&self) -> u64 {
        millis(self.started.elapsed()).saturating_add(1)
    }

    /// Milliseconds since 1970.
    pub fn wall_ms() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the controller granted this broker: read by every partition, written by the link to the controller.
#[derive(Debug, Default)]
pub struct Grant {
    clock: Clock,
    lease_until_ms: AtomicU64,
    broker_epoch: AtomicI64,
}

impl Grant {
    /// Without a lease and without a broker epoch (0).
    pub fn new() -> Self {
        Self::default()
    }

    /// The clock that leases are measured by.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The broker may act as leader until this time of [`Clock::monotonic_ms`]. To be counted from the *sending* of the
    /// heartbeat that was answered. Says whether there was no valid lease before: partitions are then to be looked at
    /// again ([`super::manager::ReplicaManager::tick`]).
    pub fn renew_lease(&self, until_ms: u64) -> bool {
        let before = self.lease_until_ms.fetch_max(until_ms, Ordering::AcqRel);
        before <= self.clock.monotonic_ms()
    }

    /// The lease is void at once: the broker was fenced or replaced.
    pub fn lose_lease(&self) {
        self.lease_until_ms.store(0, Ordering::Release);
    }

    /// Time and lease of this moment.
    pub fn now(&self) -> Now {
        Now { ms: self.clock.monotonic_ms(), lease_until_ms: self.lease_until_ms.load(Ordering::Acquire) }
    }

    /// The broker epoch of this registration; 0: not registered yet.
    pub fn broker_epoch(&self) -> i64 {
        self.broker_epoch.load(Ordering::Acquire)
    }

    /// The controller registered this process under an epoch.
    pub fn set_broker_epoch(&self, epoch: i64) {
        self.broker_epoch.store(epoch, Ordering::Release);
    }
}
