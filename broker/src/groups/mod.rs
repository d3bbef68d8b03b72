//! The shell of the group coordinator: one machine for each partition of `__consumer_offsets` that this broker leads.
//!
//! | module | holds |
//! |---|---|
//! | `shard` | one partition's machine: steps, appends, replies, timers |
//! | `counts` | how many groups there are, for Prometheus |
//! | `creations` | internal topics of streams groups on their way |
//! | `lag` | how far groups are behind, for Prometheus |
//! | `loading` | reading the partition's log into the machine before it answers |
//! | `topics` | what the machines are told of topics and of groups' configs |

mod counts;
mod creations;
mod lag;
mod loading;
mod shard;
#[cfg(test)]
mod tests;
mod topics;

pub(crate) use lag::ends as partition_ends;

use std::collections::HashMap;
use std::sync::Arc;

use ottla_coordinator::group::{Command, GroupConfig, GroupCoordinator, Reply};
use ottla_coordinator::partitioner::partition_for;
use ottla_metadata::image::{MetadataDelta, MetadataImage};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::internal_topics::CONSUMER_OFFSETS;
use crate::replica::{AppendedRecords, ReplicaManager};

use creations::TopicCreations;
use shard::Shard;
use topics::ClusterView;

/// What groups are configured with beside the machine's own settings.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// Of the machine.
    pub machine: GroupConfig,
    /// `offsets.commit.timeout.ms`: a commit that is not on every in-sync replica by then has failed.
    pub commit_timeout_ms: u64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_ms: u64,
    /// Whether `group.coordinator.rebalance.protocols` has `streams`.
    pub serves_streams: bool,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            machine: GroupConfig::default(),
            commit_timeout_ms: 5_000,
            retention_check_ms: 600_000,
            serves_streams: true,
        }
    }
}

/// The end of a transaction as a partition of the offsets topic has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WrittenMarker {
    /// Where it stands, and under which leader.
    pub(crate) appended: AppendedRecords,
    /// Whose transaction.
    pub(crate) producer_id: i64,
    /// Or it is aborted.
    pub(crate) commit: bool,
}

/// All coordinators of this broker.
pub struct GroupService {
    options: GroupOptions,
    replicas: Arc<ReplicaManager>,
    /// By partition of the offsets topic.
    shards: RwLock<HashMap<i32, Arc<Shard>>>,
    /// Partitions of the offsets topic in the last image; 0: it does not exist yet.
    partitions: Mutex<i32>,
    view: Mutex<ClusterView>,
    lag: lag::Lag,
    creations: TopicCreations,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl GroupService {
    /// Coordinates nothing until an image says so.
    pub fn new(
        options: GroupOptions,
        replicas: Arc<ReplicaManager>,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            replicas,
            shards: RwLock::default(),
            partitions: Mutex::new(0),
            view: Mutex::default(),
            lag: lag::Lag::default(),
            creations: TopicCreations::default(),
            tasks,
            stopping,
        })
    }

    /// Whether this node serves streams groups.
    pub fn serves_streams(&self) -> bool {
        self.options.serves_streams
    }

    /// Internal topics of streams groups on their way.
    pub(crate) fn creations(&self) -> &TopicCreations {
        &self.creations
    }

    /// Does something on its own, until it is done or the node stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.child_token();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    /// The partition of the offsets topic that holds a group, as far as the topic exists.
    pub fn partition_of(&self, group_id: &str) -> Option<i32> {
        let partitions = *self.partitions.lock();
        (partitions > 0).then(|| partition_for(group_id, partitions))
    }

    /// Follows topics, configs of groups, and leadership of the offsets topic; the replica manager has applied the image
    /// before. `delta`: what changed since the last one, as far as that is known.
    pub fn apply_image(&self, image: &MetadataImage, delta: Option<&MetadataDelta>, broker_id: i32) {
        let (is_changed, view) = {
            let mut view = self.view.lock();
            (view.follow(image, delta), view.clone())
        };
        if is_changed {
            for shard in self.shards.read().values() {
                shard.set_view(&view, delta.is_none());
            }
        }
        // A name may be gone and there again: only the change tells.
        let deleted: Vec<Text> = delta
            .into_iter()
            .flat_map(|delta| &delta.deleted_topics)
            .map(|name| Text::from(&**name))
            .collect();
        if !deleted.is_empty() {
            self.topics_deleted(&deleted);
        }
        self.follow_leadership(image, broker_id, &view);
    }

    fn follow_leadership(&self, image: &MetadataImage, broker_id: i32, view: &ClusterView) {
        let Some(topic) = image.topic_by_name(CONSUMER_OFFSETS) else {
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
                && let Some(partition) = self.replicas.by_name(CONSUMER_OFFSETS, index)
            {
                let shard = Shard::new(partition, leader_epoch, &self.options, view.clone());
                self.shards.write().insert(index, Arc::clone(&shard));
                self.tasks.spawn(shard.run(self.stopping.child_token()));
            }
        }
    }

    /// Gives up every partition that is not led any more, or led in another epoch.
    fn resign_except(&self, led: &HashMap<i32, i32>) {
        let lost: Vec<Arc<Shard>> = {
            let mut shards = self.shards.write();
            let lost: Vec<i32> = shards
                .iter()
                .filter(|(index, shard)| led.get(index) != Some(&shard.leader_epoch()))
                .map(|(index, _)| *index)
                .collect();
            lost.iter().filter_map(|index| shards.remove(index)).collect()
        };
        for shard in lost {
            shard.resign();
        }
    }

    /// A marker is in the log of a partition of the offsets topic: once it is committed, the offsets of the transaction
    /// count, or are forgotten, whoever still waits for it then.
    pub(crate) fn marker_appended(&self, partition: i32, marker: WrittenMarker) {
        let shard = self.shards.read().get(&partition).cloned();
        // A shard that is not there yet will read it in the log.
        if let Some(shard) = shard.filter(|shard| shard.leader_epoch() == marker.appended.leader_epoch) {
            shard.marker_appended(marker);
        }
    }

    /// Whatever is committed in a partition of the offsets topic counts from now on.
    pub(crate) fn settle(&self, partition: i32) {
        let shard = self.shards.read().get(&partition).cloned();
        if let Some(shard) = shard {
            shard.settle_now();
        }
    }

    /// Offsets of deleted topics are forgotten.
    pub fn topics_deleted(&self, names: &[Text]) {
        for shard in self.shards.read().values() {
            shard.topics_deleted(names);
        }
    }

    /// Carries a command out and gives its reply, when that is true.
    pub async fn submit(&self, command: Command) -> Reply {
        let shard = match self.shard_of(command.group_id()) {
            Ok(shard) => shard,
            Err(error) => return command.refusal(error),
        };
        match shard.submit(command) {
            Ok(reply) => reply.await.unwrap_or_else(shard::Closed::into_refusal),
            Err(reply) => *reply,
        }
    }

    /// Begins a command now, in the order of the caller, and gives its reply later.
    pub fn begin(&self, command: Command) -> impl Future<Output = Reply> + Send + use<> {
        self.begin_if(Ok(()), command)
    }

    /// As [`Self::begin`], if that is permitted; otherwise the reply says why not.
    pub fn begin_if(
        &self,
        permitted: Result<(), ErrorCode>,
        command: Command,
    ) -> impl Future<Output = Reply> + Send + use<> {
        let begun = match permitted.and_then(|()| self.shard_of(command.group_id())) {
            Ok(shard) => shard.submit(command),
            Err(error) => Err(Box::new(command.refusal(error))),
        };
        async move {
            match begun {
                Ok(reply) => reply.await.unwrap_or_else(shard::Closed::into_refusal),
                Err(reply) => *reply,
            }
        }
    }

    /// Reads from the machine that coordinates a group.
    pub fn query<T>(
        &self,
        group_id: &str,
        read: impl FnOnce(&GroupCoordinator) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        self.shard_of(group_id)?.query(read)
    }

    /// Reads from every machine of this broker; one that is still loading is an error.
    pub fn query_all<T>(
        &self,
        read: impl Fn(&GroupCoordinator) -> Result<T, ErrorCode>,
    ) -> Result<Vec<T>, ErrorCode> {
        self.shards.read().values().map(|shard| shard.query(&read)).collect()
    }

    fn shard_of(&self, group_id: &str) -> Result<Arc<Shard>, ErrorCode> {
        let index = self.partition_of(group_id).ok_or(ErrorCode::NotCoordinator)?;
        self.shards.read().get(&index).cloned().ok_or(ErrorCode::NotCoordinator)
    }
}
