//! Who overrides whom: a topic or group, a broker while it runs, all brokers while they run, the property file, the default.
//!
//! A topic's property has a broker's property as its default, often under another name and sometimes under several with
//! other units; the first that says anything wins. The order is Kafka's (`ServerTopicConfigSynonyms`,
//! `DynamicBrokerConfig.brokerConfigSynonyms`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use ottla_proto::metadata::ResourceType;

use super::{ConfigDefinition, ConfigKind, definition};
use crate::image::MetadataImage;

/// Where a value comes from. The numbers are those of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set on the topic.
    DynamicTopicConfig = 1,
    /// Set on the broker while it runs.
    DynamicBrokerConfig = 2,
    /// Set for all brokers while they run.
    DynamicDefaultBrokerConfig = 3,
    /// In the node's property file.
    StaticBrokerConfig = 4,
    /// Nobody set it.
    DefaultConfig = 5,
    /// The level of a logger.
    DynamicBrokerLoggerConfig = 6,
    /// Set on a subscription to metrics.
    ClientMetricsConfig = 7,
    /// Set on the group.
    GroupConfig = 8,
}

impl ConfigSource {
    /// The number in DescribeConfigs.
    pub fn code(self) -> i8 {
        self as i8
    }
}

/// One broker property that can say a topic's value, and how many of the topic's units one of its is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Synonym {
    pub(super) name: &'static str,
    pub(super) factor: i64,
}

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

const fn same(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

const fn times(name: &'static str, factor: i64) -> Synonym {
    Synonym { name, factor }
}

/// A topic's property, and the broker's that say it, the strongest first. Those that are not here no broker says.
const TOPIC_SYNONYMS: [(&str, &[Synonym]); 28] = [
    ("cleanup.policy", &[same("log.cleanup.policy")]),
    ("compression.gzip.level", &[same("compression.gzip.level")]),
    ("compression.lz4.level", &[same("compression.lz4.level")]),
    ("compression.type", &[same("compression.type")]),
    ("compression.zstd.level", &[same("compression.zstd.level")]),
    ("delete.retention.ms", &[same("log.cleaner.delete.retention.ms")]),
    ("file.delete.delay.ms", &[same("log.segment.delete.delay.ms")]),
    ("flush.messages", &[same("log.flush.interval.messages")]),
    ("flush.ms", &[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")]),
    ("index.interval.bytes", &[same("log.index.interval.bytes")]),
    ("local.retention.bytes", &[same("log.local.retention.bytes")]),
    ("local.retention.ms", &[same("log.local.retention.ms")]),
    ("max.compaction.lag.ms", &[same("log.cleaner.max.compaction.lag.ms")]),
    ("max.message.bytes", &[same("message.max.bytes")]),
    ("message.timestamp.after.max.ms", &[same("log.message.timestamp.after.max.ms")]),
    ("message.timestamp.before.max.ms", &[same("log.message.timestamp.before.max.ms")]),
    ("message.timestamp.type", &[same("log.message.timestamp.type")]),
    ("min.cleanable.dirty.ratio", &[same("log.cleaner.min.cleanable.ratio")]),
    ("min.compaction.lag.ms", &[same("log.cleaner.min.compaction.lag.ms")]),
    ("min.insync.replicas", &[same("min.insync.replicas")]),
    ("preallocate", &[same("log.preallocate")]),
    ("retention.bytes", &[same("log.retention.bytes")]),
    (
        "retention.ms",
        &[
            same("log.retention.ms"),
            times("log.retention.minutes", MINUTE_MS),
            times("log.retention.hours", HOUR_MS),
        ],
    ),
    ("segment.bytes", &[same("log.segment.bytes")]),
    ("segment.index.bytes", &[same("log.index.size.max.bytes")]),
    ("segment.jitter.ms", &[same("log.roll.jitter.ms"), times("log.roll.jitter.hours", HOUR_MS)]),
    ("segment.ms", &[same("log.roll.ms"), times("log.roll.hours", HOUR_MS)]),
    ("unclean.leader.election.enable", &[same("unclean.leader.election.enable")]),
];

/// The broker's properties that say a topic's; none: the topic's own default is the only other word.
pub(super) fn topic_synonyms(name: &str) -> &'static [Synonym] {
    TOPIC_SYNONYMS.iter().find(|(topic_name, _)| *topic_name == name).map_or(&[], |(_, synonyms)| synonyms)
}

/// The broker's properties that say the same as one of them, the strongest first, itself among them.
pub(super) fn broker_synonyms(name: &'static str) -> Cow<'static, [Synonym]> {
    let families = ["retention.ms", "segment.ms", "segment.jitter.ms"];
    let family =
        families.map(topic_synonyms).into_iter().find(|synonyms| synonyms.iter().any(|one| one.name == name));
    match family {
        Some(synonyms) => Cow::Borrowed(synonyms),
        // Two names of one thing; the file may use either.
        None if name == "node.id" => {
            Cow::Borrowed(&[Synonym { name: "node.id", factor: 1 }, Synonym { name: "broker.id", factor: 1 }])
        }
        None if name == "broker.id" => {
            Cow::Borrowed(&[Synonym { name: "broker.id", factor: 1 }, Synonym { name: "node.id", factor: 1 }])
        }
        None if name == "log.flush.interval.ms" => Cow::Borrowed(topic_synonyms("flush.ms")),
        None => Cow::Owned(vec![same(name)]),
    }
}

/// The broker's property that says a group's: `consumer.x` is `group.consumer.x`.
pub(super) fn group_synonym(name: &str) -> Option<&'static str> {
    definition(ConfigKind::Broker, &format!("group.{name}")).map(|found| found.name)
}

/// The layers of broker properties, the strongest first.
#[derive(Clone, Copy)]
pub(super) struct Layers<'a> {
    broker: Option<&'a BTreeMap<String, String>>,
    cluster: Option<&'a BTreeMap<String, String>>,
    properties: &'a BTreeMap<String, String>,
}

impl<'a> Layers<'a> {
    /// `broker_id` of `None`: what holds for all brokers alike.
    pub(super) fn new(
        image: &'a MetadataImage,
        properties: &'a BTreeMap<String, String>,
        broker_id: Option<i32>,
    ) -> Self {
        let broker = broker_id.and_then(|id| image.config(ResourceType::Broker, &id.to_string()));
        Self { broker, cluster: image.config(ResourceType::Broker, ""), properties }
    }

    /// Everybody who says one of the synonyms, layer by layer, the strongest first.
    pub(super) fn all(
        self,
        synonyms: &'a [Synonym],
    ) -> impl Iterator<Item = (Synonym, &'a str, ConfigSource)> {
        let set = [
            (self.broker, ConfigSource::DynamicBrokerConfig),
            (self.cluster, ConfigSource::DynamicDefaultBrokerConfig),
            (Some(self.properties), ConfigSource::StaticBrokerConfig),
        ];
        let set = set.into_iter().filter_map(|(layer, source)| Some((layer?, source))).flat_map(
            move |(layer, source)| {
                synonyms.iter().filter_map(move |one| Some((*one, layer.get(one.name)?.trim(), source)))
            },
        );
        let defaults = synonyms.iter().filter_map(|one| {
            let default = definition(ConfigKind::Broker, one.name)?.default?;
            Some((*one, default, ConfigSource::DefaultConfig))
        });
        set.chain(defaults)
    }

    /// What the strongest says, in the units of the topic.
    pub(super) fn strongest(self, synonyms: &'a [Synonym]) -> Option<(Cow<'a, str>, ConfigSource)> {
        self.all(synonyms).next().map(|(synonym, value, source)| (converted(value, synonym.factor), source))
    }
}

/// A number in other units. What is not above zero has no unit: it means no limit.
fn converted(value: &str, factor: i64) -> Cow<'_, str> {
    match value.parse::<i64>() {
        Ok(number) if factor != 1 => {
            let number = if number < 0 { -1 } else { number.saturating_mul(factor) };
            Cow::Owned(number.to_string())
        }
        _ => Cow::Borrowed(value),
    }
}

/// What a topic's property is when the topic itself does not say.
pub(super) fn topic_fallback<'a>(
    layers: Layers<'a>,
    found: &'static ConfigDefinition,
) -> Option<Cow<'a, str>> {
    match layers.strongest(topic_synonyms(found.name)) {
        Some((value, _)) => Some(value),
        None => found.default.map(Cow::Borrowed),
    }
}

/// A topic's property as it holds on a broker; `None`: no such property, or it has no value.
pub fn topic_value<'a>(
    image: &'a MetadataImage,
    properties: &'a BTreeMap<String, String>,
    broker_id: Option<i32>,
    topic: &str,
    name: &str,
) -> Option<Cow<'a, str>> {
    if let Some(value) = image.config(ResourceType::Topic, topic).and_then(|set| set.get(name)) {
        return Some(Cow::Borrowed(value));
    }
    topic_fallback(Layers::new(image, properties, broker_id), definition(ConfigKind::Topic, name)?)
}

/// A broker's property as it holds now: dynamic values before the property file. `broker_id` of `None`: only what holds
/// for all brokers alike.
pub fn broker_value<'a>(
    image: &'a MetadataImage,
    properties: &'a BTreeMap<String, String>,
    broker_id: Option<i32>,
    name: &str,
) -> Option<&'a str> {
    let layers = Layers::new(image, properties, broker_id);
    let set = [layers.broker, layers.cluster].into_iter().flatten().find_map(|layer| layer.get(name));
    set.map(String::as_str).or_else(|| super::node_value(properties, name))
}

/// A group's property as it holds; `None`: no such property.
pub fn group_value<'a>(
    image: &'a MetadataImage,
    properties: &'a BTreeMap<String, String>,
    group: &str,
    name: &str,
) -> Option<&'a str> {
    if let Some(value) = image.config(ResourceType::Group, group).and_then(|set| set.get(name)) {
        return Some(value);
    }
    match group_synonym(name) {
        Some(broker_name) => broker_value(image, properties, None, broker_name),
        None => definition(ConfigKind::Group, name)?.default,
    }
}

/// `min.insync.replicas` of a topic, the same for all of its replicas: single brokers have no say (KIP-966).
pub fn min_insync_replicas(image: &MetadataImage, properties: &BTreeMap<String, String>, topic: &str) -> i32 {
    let value = topic_value(image, properties, None, topic, "min.insync.replicas");
    value.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Whether a replica outside the ISR may lead a topic's partition when no other lives.
pub fn unclean_leader_election_enable(
    image: &MetadataImage,
    properties: &BTreeMap<String, String>,
    topic: &str,
) -> bool {
    let value = topic_value(image, properties, None, topic, "unclean.leader.election.enable");
    value.is_some_and(|text| text.eq_ignore_ascii_case("true"))
}
