//! What the members of a streams group run: subtopologies with the topics that they read, write and keep their state in
//! (KIP-1071). All names are in order, so that two clients that list them differently tell the same topology.

use std::collections::{BTreeMap, BTreeSet};

use ottla_wire::error_code::ErrorCode;
use ottla_wire::persisted::{StreamsGroupTopologyValue, streams_group_topology_value as record};
use ottla_wire::text::Text;

use super::{SUBTOPOLOGIES_MAX, TOPOLOGY_NAMES_MAX, TOPOLOGY_TEXTS_BYTES_MAX};
use crate::consumer_group::Refusal;

/// A topic that the group needs and that is created for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct InternalTopic {
    /// 0: as many as what it is made from has.
    pub partitions: i32,
    /// 0: the cluster's default.
    pub replication_factor: i16,
    /// Properties of the topic.
    pub configs: BTreeMap<Text, Text>,
}

/// Topics of one subtopology that need the same number of partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopartitionGroup {
    /// Of the subtopology's source topics.
    pub source_topics: BTreeSet<Text>,
    /// Of its repartition source topics.
    pub repartition_source_topics: BTreeSet<Text>,
}

/// A part of a topology that shares no state or topic in memory with others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subtopology {
    /// Topics of others that it reads.
    pub source_topics: BTreeSet<Text>,
    /// Repartition topics that it writes.
    pub repartition_sink_topics: BTreeSet<Text>,
    /// Where it keeps its state.
    pub state_changelog_topics: BTreeMap<Text, InternalTopic>,
    /// Repartition topics that it reads.
    pub repartition_source_topics: BTreeMap<Text, InternalTopic>,
    /// See the type.
    pub copartition_groups: BTreeSet<CopartitionGroup>,
}

impl Subtopology {
    /// What its tasks read.
    pub(crate) fn read_topics(&self) -> impl Iterator<Item = &Text> {
        self.source_topics.iter().chain(self.repartition_source_topics.keys())
    }
}

/// A topology.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Told by the application; a later one replaces earlier ones.
    pub epoch: i32,
    /// By id.
    pub subtopologies: BTreeMap<Text, Subtopology>,
}

impl Topology {
    /// The topics that must be there before tasks can run.
    pub(crate) fn required_topics(&self) -> BTreeSet<&Text> {
        let subtopologies = self.subtopologies.values();
        subtopologies.flat_map(|one| one.read_topics().chain(one.state_changelog_topics.keys())).collect()
    }

    /// Whether it is of a size that it can be worked with in one step.
    pub(crate) fn is_bounded(&self) -> bool {
        let (mut names, mut bytes) = (0, 0);
        for (id, subtopology) in &self.subtopologies {
            let grouped = subtopology.copartition_groups.iter();
            let grouped =
                grouped.flat_map(|group| group.source_topics.iter().chain(&group.repartition_source_topics));
            let internal =
                || subtopology.state_changelog_topics.iter().chain(&subtopology.repartition_source_topics);
            let plain = subtopology.source_topics.iter().chain(&subtopology.repartition_sink_topics);
            let configs = internal().flat_map(|(_, topic)| &topic.configs);
            bytes += id.len() + configs.map(|(key, value)| key.len() + value.len()).sum::<usize>();
            for name in plain.chain(grouped).chain(internal().map(|(name, _)| name)) {
                names += 1;
                bytes += name.len();
            }
        }
        self.subtopologies.len() <= SUBTOPOLOGIES_MAX
            && names <= TOPOLOGY_NAMES_MAX
            && bytes <= TOPOLOGY_TEXTS_BYTES_MAX
    }

    /// The subtopology that reads the topic.
    pub(crate) fn reader_of(&self, topic: &str) -> Option<&Text> {
        let reads = |subtopology: &Subtopology| {
            subtopology.source_topics.contains(topic)
                || subtopology.repartition_source_topics.contains_key(topic)
        };
        self.subtopologies.iter().find(|(_, subtopology)| reads(subtopology)).map(|(id, _)| id)
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::StreamsInvalidTopology, message)
}

fn own(texts: &[Text]) -> BTreeSet<Text> {
    texts.iter().map(Text::detached).collect()
}

/// The names that indexes into a list stand for.
fn named(indexes: &[i16], names: &[Text]) -> Result<BTreeSet<Text>, Refusal> {
    let name = |index: &i16| usize::try_from(*index).ok().and_then(|index| names.get(index));
    let named = indexes.iter().map(|index| name(index).map(Text::detached));
    named
        .collect::<Option<_>>()
        .ok_or_else(|| invalid("A copartition group names a topic that is not there."))
}

fn internal<'a>(
    name: &Text,
    partitions: i32,
    replication_factor: i16,
    configs: impl Iterator<Item = (&'a Text, &'a Text)>,
) -> (Text, InternalTopic) {
    let configs = configs.map(|(key, value)| (key.detached(), value.detached())).collect();
    (name.detached(), InternalTopic { partitions, replication_factor, configs })
}

/// The request and the record have the same shape, but types of their own.
macro_rules! read_topology {
    ($function:ident, $message:ty, $types:path) => {
        impl Topology {
            /// In the group's own form, with texts that do not keep the frame or batch alive that they were cut from.
            pub fn $function(told: &$message) -> Result<Self, Refusal> {
                use $types as types;
                let changelog = |topic: &types::StateChangelogTopic| {
                    let configs = topic.topic_configs.iter().map(|one| (&one.key, &one.value));
                    internal(&topic.name, topic.partitions, topic.replication_factor, configs)
                };
                let repartition = |topic: &types::RepartitionSourceTopic| {
                    let configs = topic.topic_configs.iter().map(|one| (&one.key, &one.value));
                    internal(&topic.name, topic.partitions, topic.replication_factor, configs)
                };
                let mut subtopologies = BTreeMap::new();
                for one in &told.subtopologies {
                    let names: Vec<Text> =
                        one.repartition_source_topics.iter().map(|topic| topic.name.clone()).collect();
                    let group = |group: &types::CopartitionGroup| -> Result<CopartitionGroup, Refusal> {
                        Ok(CopartitionGroup {
                            source_topics: named(&group.source_topics, &one.source_topics)?,
                            repartition_source_topics: named(&group.repartition_source_topics, &names)?,
                        })
                    };
                    let subtopology = Subtopology {
                        source_topics: own(&one.source_topics),
                        repartition_sink_topics: own(&one.repartition_sink_topics),
                        state_changelog_topics: one.state_changelog_topics.iter().map(changelog).collect(),
                        repartition_source_topics: one
                            .repartition_source_topics
                            .iter()
                            .map(repartition)
                            .collect(),
                        copartition_groups: one
                            .copartition_groups
                            .iter()
                            .map(group)
                            .collect::<Result<_, _>>()?,
                    };
                    if subtopologies.insert(one.subtopology_id.detached(), subtopology).is_some() {
                        return Err(invalid(format!("Subtopology {} is there twice.", one.subtopology_id)));
                    }
                }
                Ok(Self { epoch: told.epoch, subtopologies })
            }
        }
    };
}

read_topology!(
    from_request,
    ottla_wire::messages::streams_group_heartbeat_request::Topology,
    ottla_wire::messages::streams_group_heartbeat_request
);
read_topology!(from_record, StreamsGroupTopologyValue, ottla_wire::persisted::streams_group_topology_value);

/// The places of some names in an ordered list.
fn indexes<'a>(names: &BTreeSet<Text>, all: impl Iterator<Item = &'a Text>) -> Vec<i16> {
    (0..).zip(all).filter(|(_, name)| names.contains(*name)).map(|(index, _)| index).collect()
}

impl From<&Topology> for StreamsGroupTopologyValue {
    fn from(topology: &Topology) -> Self {
        let config =
            |(key, value): (&Text, &Text)| record::TopicConfig { key: key.clone(), value: value.clone() };
        let changelog = |(name, topic): (&Text, &InternalTopic)| record::StateChangelogTopic {
            name: name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            topic_configs: topic.configs.iter().map(config).collect(),
        };
        let repartition = |(name, topic): (&Text, &InternalTopic)| record::RepartitionSourceTopic {
            name: name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            topic_configs: topic
                .configs
                .iter()
                .map(|(key, value)| record::RepartitionSourceTopicTopicConfig {
                    key: key.clone(),
                    value: value.clone(),
                })
                .collect(),
        };
        let subtopology = |(id, one): (&Text, &Subtopology)| record::Subtopology {
            subtopology_id: id.clone(),
            source_topics: one.source_topics.iter().cloned().collect(),
            source_topic_regex: Vec::new(),
            state_changelog_topics: one.state_changelog_topics.iter().map(changelog).collect(),
            repartition_sink_topics: one.repartition_sink_topics.iter().cloned().collect(),
            repartition_source_topics: one.repartition_source_topics.iter().map(repartition).collect(),
            copartition_groups: one
                .copartition_groups
                .iter()
                .map(|group| record::CopartitionGroup {
                    source_topics: indexes(&group.source_topics, one.source_topics.iter()),
                    source_topic_regex: Vec::new(),
                    repartition_source_topics: indexes(
                        &group.repartition_source_topics,
                        one.repartition_source_topics.keys(),
                    ),
                })
                .collect(),
        };
        Self {
            epoch: topology.epoch,
            subtopologies: topology.subtopologies.iter().map(subtopology).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_wire::messages::streams_group_heartbeat_request as request;

    use super::*;

    fn texts(names: &[&str]) -> Vec<Text> {
        names.iter().copied().map(Text::from).collect()
    }

    fn told(sources: &[&str], copartitioned: &[i16]) -> request::Topology {
        let subtopology = request::Subtopology {
            subtopology_id: "0".into(),
            source_topics: texts(sources),
            repartition_source_topics: vec![request::RepartitionSourceTopic {
                name: "r".into(),
                topic_configs: vec![request::RepartitionSourceTopicTopicConfig {
                    key: "cleanup.policy".into(),
                    value: "delete".into(),
                }],
                ..Default::default()
            }],
            copartition_groups: vec![request::CopartitionGroup {
                source_topics: copartitioned.to_vec(),
                repartition_source_topics: vec![0],
                ..Default::default()
            }],
            ..Default::default()
        };
        request::Topology { epoch: 3, subtopologies: vec![subtopology] }
    }

    #[test]
    fn the_order_of_names_does_not_count_and_a_record_tells_the_same() {
        let one = Topology::from_request(&told(&["a", "b", "c"], &[0, 2])).unwrap();
        let other = Topology::from_request(&told(&["c", "b", "a"], &[2, 0])).unwrap();
        assert_eq!(one, other);
        assert_ne!(one, Topology::from_request(&told(&["a", "b", "c"], &[1])).unwrap());
        let record = StreamsGroupTopologyValue::from(&other);
        assert_eq!(record.subtopologies[0].copartition_groups[0].source_topics, [0, 2]);
        assert_eq!(Topology::from_record(&record).unwrap(), one);
        assert_eq!(
            one.required_topics().into_iter().map(|name| &**name).collect::<Vec<_>>(),
            ["a", "b", "c", "r"]
        );
        assert_eq!(one.reader_of("r").map(|id| &**id), Some("0"));
        assert_eq!(one.reader_of("x"), None);
    }

    #[test]
    fn what_points_at_nothing_or_is_there_twice_is_refused() {
        for index in [-1, 3, i16::MAX] {
            let refusal = Topology::from_request(&told(&["a", "b", "c"], &[index])).unwrap_err();
            assert_eq!(refusal.error, ErrorCode::StreamsInvalidTopology);
        }
        let mut twice = told(&["a"], &[0]);
        twice.subtopologies.push(twice.subtopologies[0].clone());
        assert!(Topology::from_request(&twice).is_err());
    }
}
