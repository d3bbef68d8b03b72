//! What a new metadata image makes of this broker's replicas: created, changed, removed, set aside.
//!
//! Changes come from one task, the one that follows the metadata log, in the log's order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ottla_log::Log;
use ottla_metadata::config;
use ottla_metadata::image::{MetadataDelta, MetadataImage, PartitionImage, TopicImage};
use ottla_proto::metadata::ResourceType;
use uuid::Uuid;

use super::directories::{CORDONED, Damaged, Directories, Loaded};
use super::loading::open_cut;
use super::manager::{ReplicaManager, TopicReplicas};
use super::partition::Partition;
use super::rules::Rules;
use super::shared::PartitionId;

impl ReplicaManager {
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
            replica.assign_as(partition);
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
                let created = self.directories.create(topic, id, rules);
                if created.is_full {
                    self.unmade.lock().insert(id);
                }
                (created.log.map(Box::new), created.log_dir, 0)
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

    fn apply_configs(&self, image: &MetadataImage, changed: &ChangedConfigs) {
        self.shared.throttles.apply(image, &self.properties, self.shared.options.broker_id);
        self.directories.apply_cordons(config::broker_value(
            image,
            &self.properties,
            Some(self.shared.options.broker_id),
            CORDONED,
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
