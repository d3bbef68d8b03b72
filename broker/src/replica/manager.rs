//! All partitions of this broker.
//!
//! Lookups are read-mostly: a request looks up each topic once. What a new metadata image makes of the partitions:
//! `image_changes`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ottla_metadata::config;
use ottla_metadata::image::MetadataImage;
use ottla_proto::metadata::ResourceType;
use ottla_replica::fetch_session::TopicKey;
use ottla_wire::error_code::ErrorCode;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use super::directories::{Directories, Loaded, OpenError};
use super::options::{Grant, ReplicaOptions};
use super::partition::Partition;
use super::read::FetchingReplica;
use super::shared::{LogDir, PartitionId, ReplicaShared};

/// End of the name of Kafka's class that sends consumers to replicas of their rack.
const RACK_AWARE_SELECTOR: &str = "RackAwareReplicaSelector";

/// The partitions of one topic that have a replica here.
#[derive(Debug)]
pub struct TopicReplicas {
    pub(super) id: Uuid,
    pub(super) name: Arc<str>,
    /// How many partitions the topic has in the cluster.
    pub(super) partition_count: usize,
    pub(super) partitions: HashMap<i32, Arc<Partition>>,
}

impl TopicReplicas {
    /// The topic's id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The topic's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The replica of a partition: `UNKNOWN_TOPIC_OR_PARTITION` when the topic has no such partition,
    /// `NOT_LEADER_OR_FOLLOWER` when other brokers have it.
    pub fn partition(&self, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        match self.partitions.get(&index) {
            Some(partition) => Ok(Arc::clone(partition)),
            None if usize::try_from(index).is_ok_and(|index| index < self.partition_count) => {
                Err(ErrorCode::NotLeaderOrFollower)
            }
            None => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }

    /// All replicas here.
    pub fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.values()
    }
}

#[derive(Debug, Default)]
pub(super) struct Topics {
    pub(super) by_id: HashMap<Uuid, Arc<TopicReplicas>>,
    pub(super) by_name: HashMap<Arc<str>, Uuid>,
}

/// All partitions of this broker.
#[derive(Debug)]
pub struct ReplicaManager {
    pub(super) shared: Arc<ReplicaShared>,
    pub(super) topics: RwLock<Topics>,
    pub(super) image: ArcSwap<MetadataImage>,
    pub(super) directories: Directories,
    /// Logs found at start that the image has not claimed yet. Emptied by the first image.
    pub(super) found: Mutex<HashMap<PartitionId, Loaded>>,
    /// Replicas that there was no room for.
    pub(super) unmade: Mutex<HashSet<PartitionId>>,
    /// Static properties of this node that topics take defaults from, by Kafka's names.
    pub(super) properties: Arc<BTreeMap<String, String>>,
    /// `replica.selector.class` is the one that sends consumers to replicas of their rack.
    selects_by_rack: bool,
    /// One change of the image at a time.
    pub(super) applying: Mutex<bool>,
}

impl ReplicaManager {
    /// Locks the log directories and loads every log in them, in parallel. Blocks: before the async part of a start.
    pub fn open(
        options: ReplicaOptions,
        properties: Arc<BTreeMap<String, String>>,
        grant: Arc<Grant>,
    ) -> Result<Arc<Self>, OpenError> {
        let shared = ReplicaShared::new(options, grant);
        let (directories, found) = Directories::open(&shared, &properties)?;
        let selector = config::get_string(&properties, "replica.selector.class");
        let selects_by_rack = selector.ends_with(RACK_AWARE_SELECTOR);
        Ok(Arc::new(Self {
            shared,
            topics: RwLock::default(),
            image: ArcSwap::default(),
            directories,
            found: Mutex::new(found),
            unmade: Mutex::default(),
            properties,
            selects_by_rack,
            applying: Mutex::new(false),
        }))
    }

    /// What all partitions share.
    pub fn shared(&self) -> &Arc<ReplicaShared> {
        &self.shared
    }

    /// The log directories.
    pub fn directories(&self) -> &Directories {
        &self.directories
    }

    /// The image that was applied last.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    // --- lookups ---

    /// A topic by id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<Arc<TopicReplicas>> {
        self.topics.read().by_id.get(&id).cloned()
    }

    /// A topic by name.
    pub fn topic_by_name(&self, name: &str) -> Option<Arc<TopicReplicas>> {
        let topics = self.topics.read();
        topics.by_name.get(name).and_then(|id| topics.by_id.get(id)).cloned()
    }

    /// A partition by its topic's id; none: there is no replica here.
    pub fn by_id(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.topics.read().by_id.get(&id.topic_id)?.partitions.get(&id.index).cloned()
    }

    /// A partition by its topic's name; none: there is no replica here.
    pub fn by_name(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        self.topic_by_name(topic)?.partitions.get(&index).cloned()
    }

    /// A partition as a fetch names it.
    pub fn find(&self, topic: &TopicKey, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        match topic {
            TopicKey::Id(id) => self.topic_by_id(Uuid::from_u128(*id)).ok_or(ErrorCode::UnknownTopicId),
            TopicKey::Name(name) => self.topic_by_name(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        }?
        .partition(index)
    }

    /// A partition's leader and its epoch by the newest image, which replicas see before anybody is told that one of them leads
    /// no more; -1: none, or there is no such partition.
    pub(crate) fn leader_of(&self, id: PartitionId) -> (i32, i32) {
        let image = self.image.load();
        image.partition(id.topic_id.into(), id.index).map_or((-1, -1), |partition| {
            (partition.leader.map_or(-1, |leader| leader.0), partition.leader_epoch.0)
        })
    }

    /// Every partition with a replica here.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.read().by_id.values().flat_map(|topic| topic.partitions.values().cloned()).collect()
    }

    /// Where a broker listens for other brokers.
    pub fn broker_endpoint(&self, broker: i32) -> Option<(String, u16)> {
        let image = self.image.load();
        let registration = image.broker(broker.into())?;
        let listener = &self.shared.options.inter_broker_listener;
        let endpoint = registration.endpoints.iter().find(|endpoint| endpoint.name == *listener)?;
        Some((endpoint.host.clone(), endpoint.port))
    }

    /// Whether the image has the follower registered with this epoch, not fenced and not shutting down (KIP-841, KIP-903).
    pub fn is_eligible(&self, replica: FetchingReplica) -> bool {
        standing(&self.image.load(), replica.broker_id).is_some_and(|(epoch, eligible)| {
            eligible && (replica.broker_epoch == -1 || replica.broker_epoch == epoch)
        })
    }

    /// A property of this broker that was set while it runs, for itself or for all.
    pub(crate) fn own_value<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let image = self.image.load();
        let own = self.shared.options.broker_id.to_string();
        let set = |resource: &str| image.config(ResourceType::Broker, resource)?.get(name);
        set(&own).or_else(|| set("")).and_then(|text| parse(text.trim()))
    }

    /// `num.replica.alter.log.dirs.threads`: one for each directory unless it is set.
    pub(crate) fn move_threads(&self) -> usize {
        let threads = config::get_i32(&self.properties, "num.replica.alter.log.dirs.threads");
        let threads = usize::try_from(threads).unwrap_or(0);
        if threads > 0 { threads } else { self.directories.all().len().max(1) }
    }

    /// Where a consumer of a rack had better read (KIP-392); -1: here, which it is also for leaders of the same rack.
    pub(crate) fn preferred_read_replica(&self, partition: &Partition, rack: &str, offset: i64) -> i32 {
        if rack.is_empty() || !self.selects_by_rack || !partition.is_leader() {
            return -1;
        }
        let image = self.image.load();
        let is_near = |broker: i32| {
            let registration = image.broker(broker.into()).filter(|registration| !registration.fenced);
            registration.is_some_and(|registration| registration.rack.as_deref() == Some(rack))
        };
        if is_near(self.shared.options.broker_id) { -1 } else { partition.nearest_follower(offset, is_near) }
    }

    /// Whether a switch of the broker is on, as it is set now.
    pub(crate) fn is_enabled(&self, name: &str) -> bool {
        let image = self.image();
        let value = config::broker_value(&image, &self.properties, Some(self.shared.options.broker_id), name);
        value.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }

    /// Takes everything in a directory that has failed offline.
    pub(crate) fn take_offline(&self, log_dir: &Arc<LogDir>) {
        for partition in self.partitions() {
            partition.go_offline(log_dir);
        }
    }

    // --- time ---

    /// Lag, unanswered proposals, acknowledgements that waited for a lease. To be called regularly, and when a lease was
    /// renewed after it had run out.
    pub fn tick(&self) {
        let image = self.image.load_full();
        for partition in self.partitions() {
            if partition.is_leader() {
                partition.tick(&|broker| standing(&image, broker));
            }
        }
    }

    /// Gives up leadership of nothing, but syncs and closes all logs and writes the clean-shutdown marker, so that the next
    /// start reads no segment. To be called last, when no request is served any more. Blocks.
    pub fn close(&self) {
        let mut open = HashMap::new();
        for partition in self.partitions() {
            let high_watermark = partition.high_watermark();
            if let Some((log, log_dir)) = partition.remove() {
                open.insert(
                    partition.id(),
                    Loaded {
                        topic: partition.topic().to_string(),
                        log: Some(log),
                        log_dir,
                        high_watermark,
                        damaged: None,
                    },
                );
            }
        }
        let threads = self.shared.options.recovery_threads;
        self.directories.close(open, self.shared.grant.broker_epoch(), threads);
    }

    /// Paths of removed replicas whose time has come.
    pub(crate) fn delete_due(&self) -> Vec<PathBuf> {
        self.directories.take_due(self.shared.grant.clock().monotonic_ms())
    }
}

/// A broker's epoch in the image, and whether it may join an ISR.
fn standing(image: &MetadataImage, broker: i32) -> Option<(i64, bool)> {
    let registration = image.broker(broker.into())?;
    Some((registration.epoch.0, !registration.fenced && !registration.in_controlled_shutdown))
}
