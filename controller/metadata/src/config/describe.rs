//! What DescribeConfigs shows: every property with its value, where that comes from, and who else says something.

use std::collections::BTreeMap;

use ottla_proto::metadata::ResourceType;

use super::sources::{Layers, Synonym, broker_synonyms, group_synonym, topic_fallback, topic_synonyms};
use super::{ConfigDefinition, ConfigKind, ConfigSource, UpdateMode, definition, definitions};
use crate::image::MetadataImage;

/// One property as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConfig {
    /// Its name.
    pub name: String,
    /// Its value; `None`: none, or not shown.
    pub value: Option<String>,
    /// It cannot change while the broker runs.
    pub read_only: bool,
    /// Number of the [`ConfigSource`].
    pub source: i8,
    /// The value is not shown.
    pub sensitive: bool,
    /// Number of the type.
    pub config_type: i8,
    /// One line.
    pub documentation: &'static str,
    /// Everybody who says something, the strongest first: name, value, number of the source.
    pub synonyms: Vec<(String, Option<String>, i8)>,
}

/// Collects what is said of one property.
struct Description {
    found: &'static ConfigDefinition,
    synonyms: Vec<(String, Option<String>, i8)>,
}

impl Description {
    fn new(found: &'static ConfigDefinition) -> Self {
        Self { found, synonyms: Vec::new() }
    }

    fn say(&mut self, name: &str, value: &str, source: ConfigSource) {
        let value = (!self.found.sensitive).then(|| value.to_owned());
        self.synonyms.push((name.to_owned(), value, source.code()));
    }

    fn say_layers(&mut self, layers: Layers<'_>, synonyms: &[Synonym]) {
        for (synonym, value, source) in layers.all(synonyms) {
            self.say(synonym.name, value, source);
        }
    }

    fn finish(self, name: &str, value: Option<&str>, read_only: bool) -> DescribedConfig {
        let found = self.found;
        DescribedConfig {
            name: name.to_owned(),
            value: value.filter(|_| !found.sensitive).map(str::to_owned),
            read_only,
            source: self
                .synonyms
                .first()
                .map_or(ConfigSource::DefaultConfig.code(), |(_, _, source)| *source),
            sensitive: found.sensitive,
            config_type: found.config_type.code(),
            documentation: found.documentation,
            synonyms: self.synonyms,
        }
    }
}

/// Every property of a topic as it holds on a broker. Whether the topic exists is the caller's question.
pub fn describe_topic(
    image: &MetadataImage,
    properties: &BTreeMap<String, String>,
    broker_id: i32,
    topic: &str,
) -> Vec<DescribedConfig> {
    let layers = Layers::new(image, properties, Some(broker_id));
    let set = image.config(ResourceType::Topic, topic);
    let own = |found: &ConfigDefinition| set.and_then(|set| set.get(found.name)).map(String::as_str);
    definitions(ConfigKind::Topic)
        .filter(|found| !found.internal || own(found).is_some())
        .map(|found| {
            let mut description = Description::new(found);
            let fallback = topic_fallback(layers, found);
            if let Some(value) = own(found) {
                description.say(found.name, value, ConfigSource::DynamicTopicConfig);
            }
            description.say_layers(layers, topic_synonyms(found.name));
            description.finish(found.name, own(found).or(fallback.as_deref()), false)
        })
        .collect()
}

/// Every property of a broker, and those that its file gives a single listener.
pub fn describe_broker(
    image: &MetadataImage,
    properties: &BTreeMap<String, String>,
    broker_id: i32,
) -> Vec<DescribedConfig> {
    let layers = Layers::new(image, properties, Some(broker_id));
    let mut described: Vec<_> = definitions(ConfigKind::Broker)
        .filter_map(|found| {
            let synonyms = broker_synonyms(found.name);
            let own = [Synonym { name: found.name, factor: 1 }];
            let is_alias = matches!(found.name, "node.id" | "broker.id");
            let own = if is_alias { &synonyms[..] } else { &own[..] };
            let (value, source) = match layers.strongest(own) {
                Some((value, source)) => (Some(value.into_owned()), source),
                None => (None, ConfigSource::DefaultConfig),
            };
            if found.internal && source == ConfigSource::DefaultConfig {
                return None;
            }
            let mut description = Description::new(found);
            description.say_layers(layers, &synonyms);
            Some(description.finish(found.name, value.as_deref(), found.mode == UpdateMode::ReadOnly))
        })
        .collect();
    // What single listeners have for themselves has no default and no other names.
    let layers = [
        (image.config(ResourceType::Broker, &broker_id.to_string()), ConfigSource::DynamicBrokerConfig),
        (Some(properties), ConfigSource::StaticBrokerConfig),
    ];
    let mut single: BTreeMap<&str, Description> = BTreeMap::new();
    for (layer, source) in layers {
        for (name, value) in
            layer.into_iter().flatten().filter(|(name, _)| name.starts_with("listener.name."))
        {
            let Some(found) = definition(ConfigKind::Broker, name) else { continue };
            single.entry(name).or_insert_with(|| Description::new(found)).say(name, value, source);
        }
    }
    described.extend(single.into_iter().map(|(name, description)| {
        let value = description.synonyms.first().and_then(|(_, value, _)| value.clone());
        let read_only = description.found.mode == UpdateMode::ReadOnly;
        description.finish(name, value.as_deref(), read_only)
    }));
    described
}

/// What is set for all brokers while they run, and nothing else.
pub fn describe_cluster_default(image: &MetadataImage) -> Vec<DescribedConfig> {
    described_as_set(
        image,
        ResourceType::Broker,
        "",
        ConfigKind::Broker,
        ConfigSource::DynamicDefaultBrokerConfig,
    )
}

fn described_as_set(
    image: &MetadataImage,
    resource_type: ResourceType,
    resource_name: &str,
    kind: ConfigKind,
    source: ConfigSource,
) -> Vec<DescribedConfig> {
    let set = image.config(resource_type, resource_name).into_iter().flatten();
    set.filter_map(|(name, value)| {
        let mut description = Description::new(definition(kind, name)?);
        description.say(name, value, source);
        Some(description.finish(name, Some(value), false))
    })
    .collect()
}

/// Every property of a group; what it does not set itself the brokers say.
pub fn describe_group(
    image: &MetadataImage,
    properties: &BTreeMap<String, String>,
    group: &str,
) -> Vec<DescribedConfig> {
    let layers = Layers::new(image, properties, None);
    let set = image.config(ResourceType::Group, group);
    definitions(ConfigKind::Group)
        .map(|found| {
            let mut description = Description::new(found);
            let own = set.and_then(|set| set.get(found.name));
            if let Some(value) = own {
                description.say(found.name, value, ConfigSource::GroupConfig);
            }
            let synonyms: Vec<_> =
                group_synonym(found.name).map(|name| Synonym { name, factor: 1 }).into_iter().collect();
            description.say_layers(layers, &synonyms);
            let fallback = super::group_value(image, properties, group, found.name);
            description.finish(found.name, own.map(String::as_str).or(fallback), false)
        })
        .collect()
}

/// Every property of a subscription to the metrics of clients.
pub fn describe_client_metrics(image: &MetadataImage, subscription: &str) -> Vec<DescribedConfig> {
    let set = image.config(ResourceType::ClientMetrics, subscription);
    definitions(ConfigKind::ClientMetrics)
        .map(|found| {
            let mut description = Description::new(found);
            let own = set.and_then(|set| set.get(found.name)).map(String::as_str);
            if let Some(value) = own {
                description.say(found.name, value, ConfigSource::ClientMetricsConfig);
            }
            description.finish(found.name, own.or(found.default), false)
        })
        .collect()
}

/// Kafka's number of the resource type of a broker's loggers, which no record has.
const BROKER_LOGGER: i8 = 8;

/// What ListConfigResources names (KIP-1142), of the asked types; none: of all. Topics and brokers stand there whether
/// anything is set on them or not, groups and subscriptions to metrics only when something is. `None`: a type that has no
/// resources.
pub fn list_config_resources(image: &MetadataImage, types: &[i8]) -> Option<Vec<(i8, String)>> {
    const ALL: [i8; 5] = [2, 4, BROKER_LOGGER, 16, 32];
    if types.iter().any(|kind| !ALL.contains(kind)) {
        return None;
    }
    let mut found = Vec::new();
    for kind in ALL.into_iter().filter(|kind| types.is_empty() || types.contains(kind)) {
        let mut names: Vec<String> = match ResourceType::try_from(i32::from(kind)) {
            Ok(ResourceType::Topic) => image.topics().map(|topic| topic.name.to_string()).collect(),
            Ok(kind @ (ResourceType::Group | ResourceType::ClientMetrics)) => {
                image.config_resources(kind).map(str::to_owned).collect()
            }
            _ => image.brokers().map(|broker| broker.id.to_string()).collect(),
        };
        names.sort_unstable();
        found.extend(names.into_iter().map(|name| (kind, name)));
    }
    Some(found)
}
