//! The shell of the transaction coordinator (KIP-98, KIP-890): one machine for each partition of `__transaction_state` that
//! this broker leads, the markers that end transactions, and the questions of brokers to coordinators.
//!
//! | module | holds |
//! |---|---|
//! | `shard` | one partition's machine: steps, appends, replies, timers |
//! | `loading` | reading the partition's log into the machine before it answers |
//! | `markers` | markers to the leaders of a transaction's partitions, and their writing on this broker |
//! | `verification` | a partition's leader asks the coordinator before a transaction's first record |

mod loading;
pub(crate) mod markers;
mod shard;
pub(crate) mod verification;

use std::collections::HashMap;
use std::sync::Arc;

use ottla_coordinator::partitioner::partition_for;
use ottla_coordinator::transaction::{
    Command, Reply, TransactionConfig, TransactionCoordinator, TransactionVersion,
};
use ottla_metadata::features::TRANSACTION_VERSION;
use ottla_metadata::image::MetadataImage;
use ottla_wire::error_code::ErrorCode;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::groups::GroupService;
use crate::internal_topics::TRANSACTION_STATE;
use crate::producer_ids::ProducerIds;
use crate::replica::{Grant, ReplicaManager};

use markers::MarkerSender;
use shard::Shard;
use verification::Coordinators;

/// A command needs one fresh producer id; should the answer get lost with a leadership, another one.
const PRODUCER_IDS_PER_COMMAND_MAX: usize = 3;

/// What transactions are configured with beside the machine's own settings.
#[derive(Debug, Clone)]
pub struct TransactionOptions {
    /// Of the machine; the version is the cluster's.
    pub machine: TransactionConfig,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_check_ms: u64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiry_check_ms: u64,
    /// `request.timeout.ms` of brokers among each other: a record of the coordinator that is not on every in-sync replica by
    /// then has failed, a marker is tried again.
    pub commit_timeout_ms: u64,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            machine: TransactionConfig::default(),
            abort_check_ms: 10_000,
            expiry_check_ms: 3_600_000,
            commit_timeout_ms: 30_000,
        }
    }
}

/// What the service is built on.
pub(crate) struct Foundation {
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) groups: Arc<GroupService>,
    pub(crate) producer_ids: Arc<ProducerIds>,
    pub(crate) grant: Arc<Grant>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

/// All transaction coordinators of this broker.
pub(crate) struct TransactionService {
    options: TransactionOptions,
    foundation: Foundation,
    /// By partition of the topic of transactions.
    shards: RwLock<HashMap<i32, Arc<Shard>>>,
    /// Partitions of that topic in the last image; 0: it does not exist yet.
    partitions: Mutex<i32>,
    /// With the cluster's transaction.version.
    config: Mutex<TransactionConfig>,
    markers: Arc<MarkerSender>,
    coordinators: Coordinators,
}

impl TransactionService {
    /// Coordinates nothing until an image says so.
    pub(crate) fn new(options: TransactionOptions, foundation: Foundation) -> Arc<Self> {
        let markers = MarkerSender::start(&foundation, options.commit_timeout_ms);
        let config = Mutex::new(options.machine.clone());
        Arc::new(Self {
            options,
            coordinators: Coordinators::default(),
            shards: RwLock::default(),
            partitions: Mutex::new(0),
            config,
            markers,
            foundation,
        })
    }

    /// The partition that holds a transactional id, as far as the topic exists.
    pub(crate) fn partition_of(&self, transactional_id: &str) -> Option<i32> {
        let partitions = *self.partitions.lock();
        (partitions > 0).then(|| partition_for(transactional_id, partitions))
    }

    /// Follows leadership of the topic of transactions; the replica manager has applied the image before.
    pub(crate) fn apply_image(&self, image: &MetadataImage, broker_id: i32) {
        self.take_version(TransactionVersion(image.feature_level(TRANSACTION_VERSION)));
        let Some(topic) = image.topic_by_name(TRANSACTION_STATE) else {
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
                && let Some(partition) = self.foundation.replicas.by_name(TRANSACTION_STATE, index)
            {
                let config = self.config.lock().clone();
                let markers = Arc::clone(&self.markers);
                let shard = Shard::new(partition, leader_epoch, config, &self.options, markers);
                self.shards.write().insert(index, Arc::clone(&shard));
                self.foundation.tasks.spawn(shard.run(self.foundation.stopping.child_token()));
            }
        }
    }

    fn take_version(&self, version: TransactionVersion) {
        let mut config = self.config.lock();
        if config.version != version {
            config.version = version;
            for shard in self.shards.read().values() {
                shard.set_config(config.clone());
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

    /// Carries a command out and gives its reply, when that is true.
    pub(crate) async fn submit(&self, mut command: Command) -> Reply {
        for _ in 0..PRODUCER_IDS_PER_COMMAND_MAX {
            let begun = self.shard_of(command.transactional_id()).and_then(|shard| shard.submit(&command));
            match begun {
                Err(error) => return command.refusal(error),
                Ok(reply) => match reply.await {
                    Ok(Reply::ProducerIdNeeded) => {}
                    Ok(reply) => return reply,
                    Err(_) => return command.refusal(ErrorCode::NotCoordinator),
                },
            }
            let broker_epoch = self.foundation.grant.broker_epoch();
            match self.foundation.producer_ids.next(broker_epoch).await {
                Ok(id) => give_producer_id(&mut command, id),
                Err(error) => {
                    tracing::warn!(%error, "no producer id");
                    return command.refusal(ErrorCode::CoordinatorNotAvailable);
                }
            }
        }
        command.refusal(ErrorCode::UnknownServerError)
    }

    /// Reads from the machine that coordinates a transactional id.
    pub(crate) fn query<T>(
        &self,
        transactional_id: &str,
        read: impl FnOnce(&TransactionCoordinator) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        self.shard_of(transactional_id)?.query(read)
    }

    /// Reads from every machine of this broker; one that is still loading is an error.
    pub(crate) fn query_all<T>(
        &self,
        read: impl Fn(&TransactionCoordinator) -> Result<T, ErrorCode>,
    ) -> Result<Vec<T>, ErrorCode> {
        self.shards.read().values().map(|shard| shard.query(&read)).collect()
    }

    /// How many transactions are open, and when the oldest was begun, milliseconds since the Unix epoch.
    pub(crate) fn open(&self) -> (usize, Option<i64>) {
        let shards: Vec<Arc<Shard>> = self.shards.read().values().cloned().collect();
        let of_shard = |shard: Arc<Shard>| {
            let begun = |machine: &TransactionCoordinator| {
                let starts = machine.durable().open().map(|open| open.start_ms);
                Ok(starts.fold((0, None), |(count, oldest): (usize, Option<i64>), start_ms| {
                    (count + 1, Some(oldest.map_or(start_ms, |oldest| oldest.min(start_ms))))
                }))
            };
            // A coordinator that is being loaded knows nothing yet.
            shard.query(begun).unwrap_or_default()
        };
        shards.into_iter().map(of_shard).fold((0, None), |(count, oldest), (more, begun)| {
            (count + more, oldest.into_iter().chain(begun).min())
        })
    }

    fn shard_of(&self, transactional_id: &str) -> Result<Arc<Shard>, ErrorCode> {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let index = self.partition_of(transactional_id).ok_or(ErrorCode::NotCoordinator)?;
        self.shards.read().get(&index).cloned().ok_or(ErrorCode::NotCoordinator)
    }
}

fn give_producer_id(command: &mut Command, id: i64) {
    match command {
        Command::InitProducerId(command) => command.fresh_producer_id = Some(id),
        Command::EndTxn(command) => command.fresh_producer_id = Some(id),
        Command::AddPartitions(_) => {}
    }
}
