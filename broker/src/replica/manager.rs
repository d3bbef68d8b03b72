//! All partitions of this broker, and what a new metadata image makes of them.
//!
//! Lookups are read-mostly: a request looks up each topic once. Changes come from one task, the one that follows the
//! metadata log, in the log's order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ottla_log::Log;
use ottla_metadata::config;
use ottla_metadata::image::{MetadataDelta, MetadataImage, PartitionImage, TopicImage};
use ottla_proto::metadata::ResourceType;
use ottla_replica::fetch_session::TopicKey;
use ottla_wire::error_code::ErrorCode;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use super::directories::{Damaged, Directories, Loaded, OpenError};
use super::loading::open_cut;
use super::options::{Grant, ReplicaOptions};
use super::partition::Partition;
use super::read::FetchingReplica;
use super::rules::Rules;
use super::shared::{LogDir, PartitionId, ReplicaShared};

/// End of the name of Kafka's class that sends consumers to replicas of their rack.
const RACK_AWARE_SELECTOR: &str = "RackAwareReplicaSelector";

/// The partitions of one topic that have a replica here.
#[derive(Debug)]
pub struct TopicReplicas {
    id: Uuid,
    name: Arc<str>,
    /// How many partitions the topic has in the cluster.
    partition_count: usize,
    partitions: HashMap<i32, Arc<Partition>>,
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
struct Topics {
    by_id: HashMap<Uuid, Arc<TopicReplicas>>,
    by_name: HashMap<Arc<str>, Uuid>,
}

/// All partitions of this broker.
#[derive(Debug)]
pub struct ReplicaManager {
    shared: Arc<ReplicaShared>,
    topics: RwLock<Topics>,
    image: ArcSwap<MetadataImage>,
    directories: Directories,
    /// Logs found at start that the image has not claimed yet. Emptied by the first image.
    found: Mutex<HashMap<PartitionId, Loaded>>,
    /// Static properties of this node that topics take defaults from, by Kafka's names.
    properties: Arc<BTreeMap<String, String>>,
    /// `replica.selector.class` is the one that sends consumers to replicas of their rack.
    selects_by_rack: bool,
    /// One change of the image at a time.
    applying: Mutex<bool>,
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

    /// Takes everything in a directory that has failed offline.
    pub(crate) fn take_offline(&self, log_dir: &Arc<LogDir>) {
        for partition in self.partitions() {
            partition.go_offline(log_dir);
        }
    }

    // --- the image ---

    /// Takes over a new image: creates, changes and removes replicas. In the order of the metadata log, each delta once;
    /// without a delta (a snapshot) everything is compared. Blocks on the disk: call it from a blocking thread.
    pub fn apply_image(&self, new: &Arc<MetadataImage>, delta: Option<&MetadataDelta>) {
        let mut has_applied = self.applying.lock();
        let old = self.image.swap(Arc::clone(new));
        let changes = Changes::between(&old, new, delta.filter(|_| *has_applied));
        for id in &changes.removed_topics {
            self.remove_topic(*id);
        }
        for id in &changes.changed_topics {
            if let Some(topic) = new.topic_by_id((*id).into()) {
                self.apply_topic(new, *id, topic, changes.configs.is_some());
            }
        }
        if let Some(configs) = &changes.configs {
            self.apply_configs(new, configs);
        }
        if !std::mem::replace(&mut *has_applied, true) {
            self.remove_strays();
            self.resume_moves();
        }
        drop(has_applied);
        if changes.brokers_changed {
            self.tick();
        }
    }

    fn apply_topic(&self, image: &MetadataImage, id: Uuid, topic: &TopicImage, configs_changed: bool) {
        let known = self.topic_by_id(id);
        let own = self.shared.options.broker_id;
        let mut partitions = known.as_ref().map_or_else(HashMap::new, |known| known.partitions.clone());
        let mut rules = None;
        let mut assigned = Vec::new();
        for (index, partition) in (0i32..).zip(&topic.partitions) {
            let is_here = partition.replicas.iter().any(|replica| replica.0 == own);
            if !is_here {
                if let Some(removed) = partitions.remove(&index) {
                    self.delete(&removed);
                }
                continue;
            }
            let replica = partitions.entry(index).or_insert_with(|| {
                let rules = rules
                    .get_or_insert_with(|| self.rules(image, &topic.name, known.as_deref(), configs_changed));
                self.create(id, &topic.name, index, rules, partition)
            });
            assigned.push((Arc::clone(replica), partition));
        }
        let topic_replicas = Arc::new(TopicReplicas {
            id,
            name: Arc::clone(&topic.name),
            partition_count: topic.partitions.len(),
            partitions,
        });
        // Findable before it has a role: the role's effects (fetchers, proposals) look it up.
        {
            let mut topics = self.topics.write();
            topics.by_name.insert(Arc::clone(&topic_replicas.name), id);
            topics.by_id.insert(id, topic_replicas);
        }
        for (replica, partition) in assigned {
            replica.assign(
                partition.leader.map_or(-1, |leader| leader.0),
                (partition.leader_epoch.0, partition.partition_epoch.0),
                partition.replicas.iter().map(|replica| replica.0).collect(),
                partition.isr.iter().map(|replica| replica.0).collect(),
            );
        }
    }

    fn rules(
        &self,
        image: &MetadataImage,
        topic: &str,
        known: Option<&TopicReplicas>,
        is_new: bool,
    ) -> Arc<Rules> {
        let existing = known.and_then(|known| known.partitions.values().next()).filter(|_| !is_new);
        existing.map_or_else(
            || Arc::new(Rules::of(image, &self.properties, self.shared.options.broker_id, topic)),
            |partition| partition.rules(),
        )
    }

    fn create(
        &self,
        topic_id: Uuid,
        topic: &Arc<str>,
        index: i32,
        rules: &Arc<Rules>,
        partition: &PartitionImage,
    ) -> Arc<Partition> {
        let id = PartitionId { topic_id, index };
        let loaded = self.found.lock().remove(&id);
        let (log, log_dir, high_watermark) = match loaded {
            Some(Loaded { damaged: Some(damaged), log_dir, .. }) => {
                let log = self.replace_damaged(&damaged, topic, index, rules, partition);
                (log.map(Box::new), log_dir, 0)
            }
            Some(loaded) => (loaded.log, loaded.log_dir, loaded.high_watermark),
            None if self
                .directories
                .is_missing(partition.directory(self.shared.options.broker_id.into())) =>
            {
                tracing::error!(
                    topic = &**topic,
                    partition = index,
                    "lies in a log directory that cannot be used, and is offline"
                );
                (None, Directories::without_directory(), 0)
            }
            None => {
                if self.directories.is_stale(topic, index) {
                    self.directories.forget_stale(&self.partitions());
                }
                let (log, log_dir) = self.directories.create(topic, id, rules);
                (log.map(Box::new), log_dir, 0)
            }
        };
        tracing::debug!(topic = &**topic, partition = index, replicas = ?partition.replicas, "has a replica here");
        let replica = Partition::new(
            Arc::clone(&self.shared),
            Arc::clone(topic),
            id,
            Arc::clone(rules),
            log,
            log_dir,
            high_watermark,
        );
        replica.set_rules(rules);
        Arc::new(replica)
    }

    /// A log of which records are damaged that were on disk once (I29). If another replica is in sync, the log is cut and gets
    /// them from there. If there is none, they may be the only copy: the partition is offline, and its files are as they were.
    fn replace_damaged(
        &self,
        damaged: &Damaged,
        topic: &str,
        index: i32,
        rules: &Rules,
        partition: &PartitionImage,
    ) -> Option<Log> {
        let own = self.shared.options.broker_id;
        if !partition.isr.iter().any(|replica| replica.0 != own) {
            tracing::error!(
                topic,
                partition = index,
                reason = damaged.reason,
                "records that were on disk are damaged, and no other replica is in sync: the partition is offline. \
                 `ottla log dump` shows the place. Restore the files; or, to give up everything behind the damage, \
                 stop the node, remove recovery-point-offset-checkpoint in the log directory, and start it again"
            );
            return None;
        }
        tracing::error!(
            topic,
            partition = index,
            reason = damaged.reason,
            "records that were on disk are damaged: the log is cut there and gets them from its leader"
        );
        match open_cut(damaged, rules, &damaged.path) {
            Ok(log) => Some(log),
            Err(error) => {
                tracing::error!(topic, partition = index, %error, "a damaged log cannot be opened; its partition is offline");
                None
            }
        }
    }

    /// Whether a switch of the broker is on, as it is set now.
    pub(crate) fn is_enabled(&self, name: &str) -> bool {
        let image = self.image();
        let value = config::broker_value(&image, &self.properties, Some(self.shared.options.broker_id), name);
        value.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }

    fn apply_configs(&self, image: &MetadataImage, changed: &ChangedConfigs) {
        self.shared.throttles.apply(image, &self.properties, self.shared.options.broker_id);
        self.directories.apply_cordons(config::broker_value(
            image,
            &self.properties,
            Some(self.shared.options.broker_id),
            "cordoned.log.dirs",
        ));
        let topics: Vec<Arc<TopicReplicas>> = {
            let known = self.topics.read();
            match changed {
                ChangedConfigs::All => known.by_id.values().cloned().collect(),
                ChangedConfigs::Topics(names) => {
                    let ids = names.iter().filter_map(|name| known.by_name.get(name.as_str()));
                    ids.filter_map(|id| known.by_id.get(id)).cloned().collect()
                }
            }
        };
        for topic in topics {
            let rules =
                Arc::new(Rules::of(image, &self.properties, self.shared.options.broker_id, &topic.name));
            for partition in topic.partitions.values() {
                if *partition.rules() != *rules {
                    partition.set_rules(&rules);
                }
            }
        }
    }

    fn remove_topic(&self, id: Uuid) {
        let removed = {
            let mut topics = self.topics.write();
            let removed = topics.by_id.remove(&id);
            if let Some(topic) = &removed
                && topics.by_name.get(&topic.name) == Some(&id)
            {
                topics.by_name.remove(&topic.name);
            }
            removed
        };
        for partition in removed.iter().flat_map(|topic| topic.partitions.values()) {
            self.delete(partition);
        }
    }

    /// The replica goes: its directory is renamed at once and removed after `file.delete.delay.ms`.
    fn delete(&self, partition: &Partition) {
        if let Some((log, log_dir)) = partition.remove() {
            self.directories.delete(&self.shared, partition.topic(), partition.id(), *log, &log_dir);
        }
    }

    /// After the first image: what nobody claimed belongs to topics that were deleted, or moved, while this broker was
    /// away. It is never served, and, as with Kafka, never removed: who deleted the topic may have meant another cluster's.
    fn remove_strays(&self) {
        let strays = std::mem::take(&mut *self.found.lock());
        for (id, stray) in strays {
            tracing::warn!(topic = stray.topic, partition = id.index, topic_id = %id.topic_id, "is a replica of no topic of the cluster and is set aside");
            if let Some(log) = stray.log {
                Directories::set_aside(&stray.topic, id, &log, &stray.log_dir);
            }
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

/// What an image changes for replicas.
struct Changes {
    removed_topics: Vec<Uuid>,
    changed_topics: Vec<Uuid>,
    configs: Option<ChangedConfigs>,
    brokers_changed: bool,
}

/// Whose rules may be others now. One topic's config does not make a broker look at all others.
enum ChangedConfigs {
    All,
    Topics(Vec<String>),
}

impl ChangedConfigs {
    fn of(delta: &MetadataDelta) -> Option<Self> {
        if delta.configs.is_empty() {
            return None;
        }
        let topic = i32::from(ResourceType::Topic);
        let names =
            delta.configs.iter().map(|resource| (resource.kind == topic).then(|| resource.name.clone()));
        Some(names.collect::<Option<_>>().map_or(Self::All, Self::Topics))
    }
}

impl Changes {
    fn between(old: &MetadataImage, new: &MetadataImage, delta: Option<&MetadataDelta>) -> Self {
        if let Some(delta) = delta {
            let (changed_topics, removed_topics) =
                delta.topics.iter().map(|id| id.0).partition(|id| new.topic_by_id((*id).into()).is_some());
            return Self {
                removed_topics,
                changed_topics,
                configs: ChangedConfigs::of(delta),
                brokers_changed: !delta.brokers.is_empty(),
            };
        }
        let now: HashSet<Uuid> = new.topics().map(|topic| topic.id.0).collect();
        let removed_topics = old.topics().map(|topic| topic.id.0).filter(|id| !now.contains(id)).collect();
        Self {
            removed_topics,
            changed_topics: now.into_iter().collect(),
            configs: Some(ChangedConfigs::All),
            brokers_changed: true,
        }
    }
}
