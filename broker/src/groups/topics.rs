//! What the machines are told of the cluster: its topics, and what single groups have set of their own. Both follow the
//! metadata image; a change copies what changed, and each machine gets a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_coordinator::consumer_group::{GroupOverrides, TopicView, TopicsView};
use ottla_coordinator::share_group::ShareOverrides;
use ottla_metadata::image::{MetadataDelta, MetadataImage, TopicImage};
use ottla_proto::metadata::ResourceType;
use ottla_wire::text::Text;

/// A snapshot of the cluster as groups see it.
#[derive(Debug, Clone, Default)]
pub(super) struct ClusterView {
    pub(super) topics: Arc<TopicsView>,
    pub(super) overrides: Arc<BTreeMap<Text, GroupOverrides>>,
}

impl ClusterView {
    /// Follows an image. `delta`: what changed since the last one, as far as that is known. Says whether anything that
    /// groups see did.
    pub(super) fn follow(&mut self, image: &MetadataImage, delta: Option<&MetadataDelta>) -> bool {
        let version = self.topics.version();
        let topics = Arc::make_mut(&mut self.topics);
        let group = i32::from(ResourceType::Group);
        let mut is_changed = false;
        if let Some(delta) = delta {
            for name in &delta.deleted_topics {
                topics.remove(name);
            }
            for topic in delta.topics.iter().filter_map(|id| image.topic_by_id(*id)) {
                topics.put(view_of(topic));
            }
        } else {
            let gone: Vec<Text> = topics
                .topics()
                .filter(|topic| image.topic_by_name(&topic.name).is_none())
                .map(|topic| topic.name.clone())
                .collect();
            for name in gone {
                topics.remove(&name);
            }
            for topic in image.topics() {
                topics.put(view_of(topic));
            }
        }
        if delta.is_none_or(|delta| delta.configs.iter().any(|resource| resource.kind == group)) {
            let overrides: BTreeMap<Text, GroupOverrides> = image
                .config_resources(ResourceType::Group)
                .filter_map(|name| {
                    let overrides = overrides_of(image.config(ResourceType::Group, name)?);
                    (overrides != GroupOverrides::default()).then(|| (Text::from(name), overrides))
                })
                .collect();
            is_changed = overrides != *self.overrides;
            if is_changed {
                self.overrides = Arc::new(overrides);
            }
        }
        is_changed || self.topics.version() != version
    }

    /// The topics among these that are not there.
    pub(super) fn missing(&self, names: BTreeSet<Text>) -> Vec<Text> {
        names.into_iter().filter(|name| self.topics.by_name(name).is_none()).collect()
    }
}

fn view_of(topic: &TopicImage) -> TopicView {
    TopicView {
        id: topic.id.into(),
        name: Text::from(&*topic.name),
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
    }
}

fn overrides_of(configs: &BTreeMap<String, String>) -> GroupOverrides {
    fn of<N: std::str::FromStr>(configs: &BTreeMap<String, String>, name: &str) -> Option<N> {
        configs.get(name)?.trim().parse().ok()
    }
    GroupOverrides {
        session_timeout_ms: of(configs, "consumer.session.timeout.ms"),
        heartbeat_interval_ms: of(configs, "consumer.heartbeat.interval.ms"),
        assignment_interval_ms: of(configs, "consumer.assignment.interval.ms"),
        share: ShareOverrides {
            session_timeout_ms: of(configs, "share.session.timeout.ms"),
            heartbeat_interval_ms: of(configs, "share.heartbeat.interval.ms"),
            assignment_interval_ms: of(configs, "share.assignment.interval.ms"),
        },
    }
}

#[cfg(test)]
mod tests {
    use ottla_metadata::image::LogIndex;
    use ottla_proto::metadata::metadata_record::Record;
    use ottla_proto::metadata::{
        ConfigRecord, MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord,
    };

    use super::*;

    struct Cluster {
        image: MetadataImage,
        view: ClusterView,
    }

    impl Cluster {
        /// Applies records and follows by what changed; says whether the view did.
        fn apply(&mut self, records: Vec<Record>) -> bool {
            let records: Vec<MetadataRecord> =
                records.into_iter().map(|record| MetadataRecord { record: Some(record) }).collect();
            let (image, delta) =
                self.image.apply(LogIndex(self.image.index().0.max(0) + 1), &records).unwrap();
            self.image = image;
            self.view.follow(&self.image, Some(&delta))
        }
    }

    fn topic(id: u8, name: &str, partitions: i32) -> Vec<Record> {
        let topic_id = bytes::Bytes::copy_from_slice(&[id; 16]);
        let mut records =
            vec![Record::Topic(TopicRecord { topic_id: topic_id.clone(), name: name.to_owned() })];
        records.extend((0..partitions).map(|partition| {
            Record::Partition(PartitionRecord {
                topic_id: topic_id.clone(),
                partition,
                replicas: vec![1],
                isr: vec![1],
                leader: 1,
                ..Default::default()
            })
        }));
        records
    }

    fn config(group: &str, name: &str, value: Option<&str>) -> Record {
        Record::Config(ConfigRecord {
            resource_type: ResourceType::Group.into(),
            resource_name: group.to_owned(),
            name: name.to_owned(),
            value: value.map(str::to_owned),
        })
    }

    #[test]
    fn topics_come_grow_and_go_and_a_jump_over_changes_ends_the_same() {
        let mut cluster = Cluster { image: MetadataImage::default(), view: ClusterView::default() };
        assert!(cluster.apply(topic(1, "a", 1)));
        assert!(cluster.apply(topic(2, "b", 3)));
        assert!(!cluster.apply(vec![config("g", "share.isolation.level", Some("read_committed"))]));
        let mut late = cluster.view.clone();
        assert!(cluster.apply(vec![Record::RemoveTopic(RemoveTopicRecord {
            topic_id: bytes::Bytes::copy_from_slice(&[1; 16])
        })]));
        assert!(cluster.apply(topic(3, "a", 2)));
        assert!(late.follow(&cluster.image, None));
        for view in [&cluster.view, &late] {
            let a = view.topics.by_name("a").unwrap();
            assert_eq!((a.id.as_bytes()[0], a.partitions), (3, 2));
            assert_eq!(view.topics.topics().count(), 2);
        }
        let names = BTreeSet::from([Text::from("a"), Text::from("c")]);
        assert_eq!(late.missing(names), [Text::from("c")]);
    }

    #[test]
    fn groups_have_what_they_set_until_they_unset_it() {
        let mut cluster = Cluster { image: MetadataImage::default(), view: ClusterView::default() };
        let name = "consumer.session.timeout.ms";
        assert!(cluster.apply(vec![config("g", name, Some("50000"))]));
        assert_eq!(cluster.view.overrides.get("g").unwrap().session_timeout_ms, Some(50_000));
        assert!(!cluster.apply(topic(1, "a", 0)) || cluster.view.topics.by_name("a").is_some());
        assert!(cluster.apply(vec![config("g", name, None)]));
        assert!(cluster.view.overrides.is_empty());
    }
}
