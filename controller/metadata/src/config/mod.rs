//! Configuration: every property of Kafka 4.3 and ours, its type, default, range, and who overrides whom.
//!
//! The tables beside this file (`broker.tsv`, `topic.tsv`, `group.tsv`, `client_metrics.tsv`) are the only place where a
//! property is defined. A default of `null` is no value; `""` is the empty one.

mod describe;
mod node;
mod replaced;
mod sources;
mod topic_config;
mod validate;
mod without_effect;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use describe::{
    DescribedConfig, describe_broker, describe_client_metrics, describe_cluster_default, describe_group,
    describe_topic, list_config_resources,
};
pub use node::{get_bool, get_f64, get_i32, get_i64, get_list, get_string, node_value};
use ottla_proto::metadata::ResourceType;
pub use replaced::replacement_note;
pub use sources::{
    ConfigSource, broker_value, group_value, min_insync_replicas, topic_value, unclean_leader_election_enable,
};
pub use topic_config::{CleanupPolicy, TopicConfig};
pub use validate::{Rule, check_thread_count, validate, validate_group, validate_group_set, validate_topic};

/// What a property belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfigKind {
    /// A node: brokers and controllers.
    Broker,
    /// A topic.
    Topic,
    /// A consumer, share or streams group.
    Group,
    /// A subscription to the metrics of clients (KIP-714).
    ClientMetrics,
}

impl ConfigKind {
    /// The kind of a resource in the metadata log.
    pub fn from_resource_type(resource_type: ResourceType) -> Option<Self> {
        match resource_type {
            ResourceType::Topic => Some(Self::Topic),
            ResourceType::Broker => Some(Self::Broker),
            ResourceType::Group => Some(Self::Group),
            ResourceType::ClientMetrics => Some(Self::ClientMetrics),
            ResourceType::Unspecified => None,
        }
    }
}

/// Type of a value. The numbers are those of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits.
    Int = 3,
    /// 16 bits.
    Short = 4,
    /// 64 bits.
    Long = 5,
    /// A decimal fraction.
    Double = 6,
    /// Texts, parted by commas.
    List = 7,
    /// A Java class; of no effect here.
    Class = 8,
    /// Text that is never shown.
    Password = 9,
}

impl ConfigType {
    /// The number in DescribeConfigs.
    pub fn code(self) -> i8 {
        self as i8
    }

    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "boolean" => Self::Boolean,
            "string" => Self::String,
            "int" => Self::Int,
            "short" => Self::Short,
            "long" => Self::Long,
            "double" => Self::Double,
            "list" => Self::List,
            "class" => Self::Class,
            "password" => Self::Password,
            _ => return None,
        })
    }
}

/// When and for whom a property can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpdateMode {
    /// In the property file, at a start.
    ReadOnly,
    /// While a broker runs, for each by itself.
    PerBroker,
    /// While brokers run, for one or for all.
    ClusterWide,
}

impl UpdateMode {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "read-only" => Self::ReadOnly,
            "per-broker" => Self::PerBroker,
            "cluster-wide" => Self::ClusterWide,
            _ => return None,
        })
    }
}

/// A property.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigDefinition {
    /// Its name.
    pub name: &'static str,
    /// Whose it is.
    pub kind: ConfigKind,
    /// Type of the value.
    pub config_type: ConfigType,
    /// Value when nobody says otherwise.
    pub default: Option<&'static str>,
    /// The range as Kafka prints it; empty: anything of the type.
    pub valid: &'static str,
    /// The range as it is checked.
    pub rule: Rule,
    /// Whether it can change while a broker runs.
    pub mode: UpdateMode,
    /// One line.
    pub documentation: &'static str,
    /// The value is never shown.
    pub sensitive: bool,
    /// Shown only where it is set: not meant for users.
    pub internal: bool,
}

type Table = BTreeMap<&'static str, ConfigDefinition>;

static BROKER: LazyLock<Table> = LazyLock::new(|| load(ConfigKind::Broker, include_str!("broker.tsv")));
static TOPIC: LazyLock<Table> = LazyLock::new(|| load(ConfigKind::Topic, include_str!("topic.tsv")));
static GROUP: LazyLock<Table> = LazyLock::new(|| load(ConfigKind::Group, include_str!("group.tsv")));
static CLIENT_METRICS: LazyLock<Table> =
    LazyLock::new(|| load(ConfigKind::ClientMetrics, include_str!("client_metrics.tsv")));

/// Lines that cannot be read are left out; a test counts them.
fn load(kind: ConfigKind, text: &'static str) -> Table {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| read(kind, line))
        .map(|definition| (definition.name, definition))
        .collect()
}

fn read(kind: ConfigKind, line: &'static str) -> Option<ConfigDefinition> {
    let mut fields = line.split('\t');
    let name = fields.next()?;
    let config_type = ConfigType::from_name(fields.next()?)?;
    let default = match fields.next()? {
        "null" => None,
        "\"\"" => Some(""),
        value => Some(value),
    };
    let valid = fields.next()?;
    let importance = fields.next()?;
    Some(ConfigDefinition {
        name,
        kind,
        config_type,
        default,
        valid,
        rule: Rule::read(valid)?,
        mode: UpdateMode::from_name(fields.next()?)?,
        documentation: fields.next()?,
        sensitive: config_type == ConfigType::Password,
        internal: importance.ends_with("internal"),
    })
}

fn table(kind: ConfigKind) -> &'static Table {
    match kind {
        ConfigKind::Broker => &BROKER,
        ConfigKind::Topic => &TOPIC,
        ConfigKind::Group => &GROUP,
        ConfigKind::ClientMetrics => &CLIENT_METRICS,
    }
}

/// All properties of a kind, by name.
pub fn definitions(kind: ConfigKind) -> impl Iterator<Item = &'static ConfigDefinition> {
    table(kind).values()
}

/// A property. `listener.name.<listener>.` and, for SASL, `listener.name.<listener>.<mechanism>.` before a property of a
/// listener give that property.
pub fn definition(kind: ConfigKind, name: &str) -> Option<&'static ConfigDefinition> {
    table(kind).get(name).or_else(|| match kind {
        ConfigKind::Broker => listener_definition(name),
        _ => None,
    })
}

/// Properties outside `ssl.` and `sasl.` that a listener may have for itself.
const LISTENER_PROPERTIES: [&str; 5] = [
    "connections.max.reauth.ms",
    "max.connection.creation.rate",
    "max.connections",
    "num.network.threads",
    "principal.builder.class",
];

fn listener_definition(name: &str) -> Option<&'static ConfigDefinition> {
    let (_, base) = name.strip_prefix("listener.name.")?.split_once('.')?;
    let found = BROKER.get(base).or_else(|| {
        let (_, base) = base.split_once('.')?;
        BROKER.get(base).filter(|definition| {
            definition.name.starts_with("sasl.") || definition.name == "connections.max.reauth.ms"
        })
    })?;
    let of_a_listener = found.name.starts_with("ssl.")
        || found.name.starts_with("sasl.")
        || LISTENER_PROPERTIES.contains(&found.name);
    of_a_listener.then_some(found)
}

/// No suggestion is made for a longer name: the work grows with its length.
const SUGGESTION_LENGTH_MAX: usize = 128;

/// The property whose name is most like a wrong one, when any is.
pub fn nearest(kind: ConfigKind, name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > SUGGESTION_LENGTH_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase().replace(['_', '-'], ".");
    // A third of the letters may be wrong; more is another name.
    let distance_max = (name.len() / 3).clamp(1, 6);
    definitions(kind)
        .filter(|definition| !definition.internal)
        .map(|definition| (distance(&name, definition.name), definition.name))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, name)| name)
}

/// Edits that make one text of the other (Levenshtein), by bytes.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_values;
