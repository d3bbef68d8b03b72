//! The shell of share groups (KIP-932): share coordinators for the partitions of `__share_group_state` that this broker
//! leads, and share-partitions for the partitions of topics that it leads.
//!
//! | module | holds |
//! |---|---|
//! | `states` | one partition of the topic of share states: its machine, appends, upkeep |
//! | `persister` | asking the share coordinator of a share-partition, here or on another broker |
//! | `live` | one share-partition: its machine, writes, who waits for it |
//! | `reading` | ShareFetch over share-partitions: reading, acquiring, waiting |
//! | `sessions` | share sessions, and what follows when they end |
//! | `metrics` | what Prometheus is told |
//! | `settings` | what groups have set of their own |

mod live;
mod metrics;
mod persister;
mod reading;
mod sessions;
mod settings;
mod states;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use ottla_coordinator::partitioner::partition_for;
use ottla_coordinator::share_partition::ShareLimits;
use ottla_coordinator::share_partition::session::ShareSessions;
use ottla_coordinator::share_state::{Command, ReadState, ShareKey, ShareStateConfig};
use ottla_metadata::image::MetadataImage;
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::controller_link::ControllerClient;
use crate::internal_topics::SHARE_GROUP_STATE;
use crate::replica::{Clock, Counter, ReplicaManager};

use live::LivePartition;
use persister::Persister;
use states::StateShard;

pub(crate) use reading::{ShareFetch, SharePartitionAnswer};
pub(crate) use sessions::ShareConnection;

/// What share groups are configured with beside the group machine's own settings.
#[derive(Debug, Clone)]
pub struct ShareOptions {
    /// Of the machine of share states.
    pub states: ShareStateConfig,
    /// `share.coordinator.write.timeout.ms`.
    pub write_timeout_ms: u64,
    /// `share.coordinator.state.topic.prune.interval.ms`.
    pub prune_interval_ms: u64,
    /// `group.share.max.share.sessions`.
    pub sessions_max: usize,
    /// What holds for groups that have set nothing of their own.
    pub limits: ShareLimits,
}

impl Default for ShareOptions {
    fn default() -> Self {
        Self {
            states: ShareStateConfig::default(),
            write_timeout_ms: 5_000,
            prune_interval_ms: 300_000,
            sessions_max: 2_000,
            limits: ShareLimits::default(),
        }
    }
}

/// What the service is built on.
pub(crate) struct ShareFoundation {
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) controller: ControllerClient,
    /// The topic of share states, for its creation on first use.
    pub(crate) state_topic: proto::NewTopic,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

/// Why something could not be done.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) error: ErrorCode,
    pub(crate) message: Text,
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Self {
        Self { error, message: Text::from(error.message()) }
    }
}

/// Counted since the start, for Prometheus.
#[derive(Debug, Default)]
pub(crate) struct ShareCounters {
    pub(crate) fetches: Counter,
    pub(crate) failed_fetches: Counter,
    pub(crate) acknowledges: Counter,
    pub(crate) failed_acknowledges: Counter,
    /// By type of acknowledgement.
    pub(crate) acknowledged: [Counter; 5],
    pub(crate) acquired_records: Counter,
    pub(crate) expired_locks: Counter,
}

/// All share coordinators and share-partitions of this broker.
pub(crate) struct ShareService {
    options: ShareOptions,
    foundation: ShareFoundation,
    clock: Clock,
    /// By partition of the topic of share states.
    shards: RwLock<HashMap<i32, Arc<StateShard>>>,
    /// Partitions of that topic in the last image; 0: it does not exist yet.
    partitions: Mutex<i32>,
    persister: Persister,
    live: Mutex<HashMap<ShareKey, Arc<LivePartition>>>,
    sessions: Mutex<ShareSessions>,
    connections: std::sync::atomic::AtomicU64,
    /// A lock may be over earlier than the timer knows.
    lock_taken: Notify,
    pub(crate) counters: ShareCounters,
}

impl ShareService {
    /// Coordinates and leads nothing until an image says so.
    pub(crate) fn new(options: ShareOptions, foundation: ShareFoundation) -> Arc<Self> {
        let sessions = Mutex::new(ShareSessions::new(options.sessions_max));
        let service = Arc::new(Self {
            options,
            foundation,
            clock: Clock::default(),
            shards: RwLock::default(),
            partitions: Mutex::new(0),
            persister: Persister::default(),
            live: Mutex::default(),
            sessions,
            connections: std::sync::atomic::AtomicU64::new(1),
            lock_taken: Notify::new(),
            counters: ShareCounters::default(),
        });
        let (timer, stopping) = (Arc::clone(&service), service.foundation.stopping.clone());
        service.foundation.tasks.spawn(async move {
            tokio::select! {
                () = timer.expire_locks() => {}
                () = stopping.cancelled() => {}
            }
        });
        service
    }

    /// Follows leadership; the replica manager has applied the image before.
    pub(crate) fn apply_image(self: &Arc<Self>, image: &MetadataImage, broker_id: i32) {
        self.drop_lost_partitions();
        let Some(topic) = image.topic_by_name(SHARE_GROUP_STATE) else {
            *self.partitions.lock() = 0;
            self.resign_except(&HashMap::new());
            return;
        };
        *self.partitions.lock() = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        let led: HashMap<i32, i32> = (0..)
            .zip(topic.partitions.iter())
            .filter(|(_, partition)| partition.leader.is_some_and(|leader| leader.0 == broker_id))
            .map(|(index, partition)| (index, partition.leader_epoch.0))
            .collect();
        self.resign_except(&led);
        for (index, leader_epoch) in led {
            if !self.shards.read().contains_key(&index)
                && let Some(partition) = self.foundation.replicas.by_name(SHARE_GROUP_STATE, index)
            {
                let shard = StateShard::new(partition, leader_epoch, &self.options);
                self.shards.write().insert(index, Arc::clone(&shard));
                let replicas = Arc::clone(&self.foundation.replicas);
                self.foundation.tasks.spawn(shard.run(replicas, self.foundation.stopping.child_token()));
            }
        }
    }

    /// Gives up every partition that is not led any more, or led in another epoch.
    fn resign_except(&self, led: &HashMap<i32, i32>) {
        let mut shards = self.shards.write();
        shards.retain(|index, shard| {
            let stays = led.get(index) == Some(&shard.leader_epoch());
            if !stays {
                shard.resign();
            }
            stays
        });
    }

    /// The partition of the topic of share states that holds a share-partition, as far as the topic exists.
    fn state_partition_of(&self, key: &ShareKey) -> Option<i32> {
        let partitions = *self.partitions.lock();
        (partitions > 0).then(|| partition_for(&key.coordinator_key(), partitions))
    }

    /// Asks the share coordinator of this very broker, as other brokers do by the share state APIs.
    pub(crate) async fn state_here(
        &self,
        key: &ShareKey,
        command: &Command,
    ) -> Result<Option<ReadState>, Refused> {
        let shard = self.shard_of(key)?;
        shard.submit(key, is_partition(&self.foundation.replicas.image(), key), command).await
    }

    /// What this very broker knows of a share-partition as its share coordinator.
    pub(crate) async fn summary_here(&self, key: &ShareKey) -> Result<ReadState, Refused> {
        if key.group_id.is_empty() || key.topic_id.is_nil() || key.partition < 0 {
            return Err(ErrorCode::InvalidRequest.into());
        }
        if !is_partition(&self.foundation.replicas.image(), key) {
            return Err(ErrorCode::UnknownTopicOrPartition.into());
        }
        self.shard_of(key)?.summary(key).await
    }

    fn shard_of(&self, key: &ShareKey) -> Result<Arc<StateShard>, ErrorCode> {
        let index = self.state_partition_of(key).ok_or(ErrorCode::NotCoordinator)?;
        self.shards.read().get(&index).cloned().ok_or(ErrorCode::NotCoordinator)
    }

    /// How long a member of a group has what it is given, in milliseconds, as answers tell it.
    pub(crate) fn lock_duration_ms(&self, group_id: &str) -> i32 {
        i32::try_from(self.settings(group_id).limits.lock_duration_ms).unwrap_or(i32::MAX)
    }

    /// Runs beside everything else, until the broker stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.foundation.stopping.clone();
        self.foundation.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    /// Sessions, their partitions, share-partitions, and offsets that members have now.
    pub(crate) fn counts(&self) -> (usize, usize, usize, i64) {
        let (sessions, partitions) = self.sessions.lock().counts();
        let live: Vec<Arc<LivePartition>> = self.live.lock().values().cloned().collect();
        let acquired = live.iter().map(|live| live.acquired()).sum();
        (sessions, partitions, live.len(), acquired)
    }
}

/// Whether there is such a partition.
fn is_partition(image: &MetadataImage, key: &ShareKey) -> bool {
    let topic = image.topic_by_id(key.topic_id.into());
    let index = usize::try_from(key.partition).ok();
    topic.zip(index).is_some_and(|(topic, index)| index < topic.partitions.len())
}
