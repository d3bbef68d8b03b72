//! AlterConfigs and IncrementalAlterConfigs: each resource by itself, all of its changes or none.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ottla_proto::controller as proto;
use ottla_proto::metadata as records;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{MetadataRecord, ResourceType};
use ottla_wire::error_code::ErrorCode;

use super::{Decision, Refusal, Situation, record};
use crate::config::{self, ConfigDefinition, ConfigKind, ConfigType, UpdateMode};
use crate::election::PartitionChange;
use crate::image::{BrokerId, LogIndex, TopicImage};

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::AlterConfigs,
) -> Decision<proto::AlterConfigsReply> {
    let mut records = Vec::new();
    let mut seen = BTreeSet::new();
    let repeated: BTreeSet<_> = command
        .resources
        .iter()
        .map(|resource| (resource.resource_type, resource.resource_name.as_str()))
        .filter(|key| !seen.insert(*key))
        .collect();
    let resources = command
        .resources
        .iter()
        .map(|resource| {
            let outcome = if repeated.contains(&(resource.resource_type, resource.resource_name.as_str())) {
                Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    "the resource stands in the request more than once",
                ))
            } else {
                alter(situation, resource, command.replace_all)
            };
            let (error_code, message) = match outcome {
                Ok(new) => {
                    if !command.validate_only {
                        records.extend(new);
                    }
                    (0, String::new())
                }
                Err(refusal) => (i32::from(refusal.code.code()), refusal.message),
            };
            proto::AlteredConfig {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                error_code,
                message,
            }
        })
        .collect();
    Decision { records, reply: proto::AlterConfigsReply { resources } }
}

/// What kind of properties a resource has, once it is known to exist.
fn check_resource(
    situation: Situation<'_>,
    resource: &proto::ConfigAlteration,
) -> Result<(ResourceType, ConfigKind), Refusal> {
    let name = resource.resource_name.as_str();
    let kind = ResourceType::try_from(resource.resource_type).unwrap_or(ResourceType::Unspecified);
    match kind {
        ResourceType::Topic if name.is_empty() => {
            Err(Refusal::new(ErrorCode::InvalidRequest, "the name of the topic is empty"))
        }
        ResourceType::Topic => {
            crate::topic_name::validate(name)
                .map_err(|error| Refusal::new(ErrorCode::InvalidTopicException, error.to_string()))?;
            if situation.image.topic_by_name(name).is_none() {
                return Err(Refusal::new(
                    ErrorCode::UnknownTopicOrPartition,
                    format!("no topic is named '{name}'"),
                ));
            }
            Ok((kind, ConfigKind::Topic))
        }
        ResourceType::Broker => {
            let known = name.is_empty()
                || name.parse().is_ok_and(|id| situation.image.broker(BrokerId(id)).is_some());
            if !known {
                return Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    format!("no broker has the id '{name}'"),
                ));
            }
            Ok((kind, ConfigKind::Broker))
        }
        ResourceType::Group | ResourceType::ClientMetrics if name.is_empty() => {
            Err(Refusal::new(ErrorCode::InvalidRequest, "the name of the resource is empty"))
        }
        ResourceType::Group => Ok((kind, ConfigKind::Group)),
        ResourceType::ClientMetrics => Ok((kind, ConfigKind::ClientMetrics)),
        ResourceType::Unspecified => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format!("resources of type {} have no configs", resource.resource_type),
        )),
    }
}

fn alter(
    situation: Situation<'_>,
    resource: &proto::ConfigAlteration,
    replace_all: bool,
) -> Result<Vec<MetadataRecord>, Refusal> {
    let (resource_type, kind) = check_resource(situation, resource)?;
    let target = Target { situation, resource_type, kind, name: &resource.resource_name };
    let nothing = BTreeMap::new();
    let old = situation.image.config(resource_type, &resource.resource_name).unwrap_or(&nothing);
    let mut new = if replace_all { BTreeMap::new() } else { old.clone() };
    let mut names = BTreeSet::new();
    for change in &resource.changes {
        if !names.insert(change.name.as_str()) {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("'{}' stands in the request more than once", change.name),
            ));
        }
        target.change(change, &mut new)?;
    }
    if kind == ConfigKind::Topic {
        config::validate_topic(situation.image, situation.properties, &new)
            .map_err(|problem| Refusal::new(ErrorCode::InvalidConfig, problem))?;
    }
    if kind == ConfigKind::Group {
        config::validate_group_set(situation.properties, &new)
            .map_err(|problem| Refusal::new(ErrorCode::InvalidConfig, problem))?;
    }
    let set = |name: &String, value: Option<&String>| {
        record(Record::Config(records::ConfigRecord {
            resource_type: resource_type.into(),
            resource_name: resource.resource_name.clone(),
            name: name.clone(),
            value: value.cloned(),
        }))
    };
    let removed = old.keys().filter(|name| !new.contains_key(*name)).map(|name| set(name, None));
    let changed = new
        .iter()
        .filter(|(name, value)| old.get(*name) != Some(*value))
        .map(|(name, value)| set(name, Some(value)));
    let mut records: Vec<MetadataRecord> = removed.chain(changed).collect();
    if old.get(MIN_ISR) != new.get(MIN_ISR) {
        let affected = changed_minimum(situation, resource_type, &resource.resource_name, &records);
        records.extend(affected);
    }
    Ok(records)
}

const MIN_ISR: &str = "min.insync.replicas";

/// Partitions whose ISR is large enough under a new `min.insync.replicas`: in the same entry their eligible replicas go,
/// before a high watermark moves that those have not seen.
fn changed_minimum(
    situation: Situation<'_>,
    resource_type: ResourceType,
    name: &str,
    changes: &[MetadataRecord],
) -> Vec<MetadataRecord> {
    let index = LogIndex(situation.image.index().0.saturating_add(1));
    let Ok((image, _)) = situation.image.apply(index, changes) else { return Vec::new() };
    let is_affected = |topic: &&TopicImage| match resource_type {
        ResourceType::Topic => &*topic.name == name,
        _ => name.is_empty(),
    };
    let mut records = Vec::new();
    for topic in image.topics().filter(is_affected) {
        let min_isr = config::min_insync_replicas(&image, situation.properties, &topic.name);
        for (index, partition) in (0..).zip(&topic.partitions) {
            if partition.eligible_leader_replicas.is_empty() {
                continue;
            }
            if let Some(new) =
                PartitionChange::new(&image, partition, min_isr).with_changed_minimum().finish()
            {
                records.push(record(Record::Partition(new.to_record(topic.id, index))));
            }
        }
    }
    records
}

/// The resource that is altered.
#[derive(Clone, Copy)]
struct Target<'a> {
    situation: Situation<'a>,
    resource_type: ResourceType,
    kind: ConfigKind,
    name: &'a str,
}

impl Target<'_> {
    /// Kafka's code for a property or value that is not allowed: it depends on the resource.
    fn invalid(self, message: String) -> Refusal {
        let code = match self.kind {
            ConfigKind::Topic | ConfigKind::Group => ErrorCode::InvalidConfig,
            ConfigKind::Broker | ConfigKind::ClientMetrics => ErrorCode::InvalidRequest,
        };
        Refusal::new(code, message)
    }

    fn change(
        self,
        change: &proto::ConfigChange,
        values: &mut BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        use proto::ConfigOperation::{Append, Delete, Set, Subtract};
        let operation = proto::ConfigOperation::try_from(change.operation).map_err(|_| {
            Refusal::new(
                ErrorCode::UnknownServerError,
                format!("operation {} is not known", change.operation),
            )
        })?;
        let Some(definition) = config::definition(self.kind, &change.name) else {
            if operation == Delete {
                // What an older or newer version left can be taken away.
                values.remove(&change.name);
                return Ok(());
            }
            let hint = config::nearest(self.kind, &change.name);
            let hint = hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            return Err(self.invalid(format!("Unknown config name: {}{hint}", change.name)));
        };
        if self.kind == ConfigKind::Broker {
            self.check_mode(definition, &change.name, operation)?;
        }
        if operation == Delete {
            values.remove(&change.name);
            return Ok(());
        }
        let given = change.value.as_deref().ok_or_else(|| {
            Refusal::new(ErrorCode::InvalidRequest, format!("no value was given for '{}'", change.name))
        })?;
        let joined;
        let value = match operation {
            Append | Subtract if definition.config_type != ConfigType::List => {
                return Err(
                    self.invalid(format!("'{}' is not a list: it can be set, not appended to", change.name))
                );
            }
            Append | Subtract => {
                let now =
                    values.get(&change.name).cloned().unwrap_or_else(|| self.value_in_force(definition));
                let mut items: Vec<&str> = split(&now).collect();
                for item in split(given) {
                    items.retain(|other| operation == Append || *other != item);
                    if operation == Append && !items.contains(&item) {
                        items.push(item);
                    }
                }
                joined = items.join(",");
                joined.as_str()
            }
            Set | Delete => given,
        };
        values.insert(change.name.clone(), self.validated(&change.name, value)?);
        Ok(())
    }

    /// Where appending to a list begins when the resource itself does not say anything.
    fn value_in_force(self, definition: &'static ConfigDefinition) -> String {
        let Situation { image, properties, .. } = self.situation;
        let value = match self.kind {
            ConfigKind::Topic => {
                config::topic_value(image, properties, None, self.name, definition.name).map(Cow::into_owned)
            }
            ConfigKind::Broker => {
                config::broker_value(image, properties, self.broker_id(), definition.name).map(str::to_owned)
            }
            ConfigKind::Group | ConfigKind::ClientMetrics => definition.default.map(str::to_owned),
        };
        value.unwrap_or_default()
    }

    fn broker_id(self) -> Option<i32> {
        self.name.parse().ok()
    }

    fn check_mode(
        self,
        definition: &ConfigDefinition,
        name: &str,
        operation: proto::ConfigOperation,
    ) -> Result<(), Refusal> {
        let refuse = |code, message: String| Err(Refusal::new(code, message));
        let is_default = self.name.is_empty();
        let is_removal = operation == proto::ConfigOperation::Delete;
        if definition.mode == UpdateMode::ReadOnly {
            return refuse(
                ErrorCode::InvalidRequest,
                format!(
                    "'{name}' cannot change while a broker runs: set it in the property file and restart"
                ),
            );
        }
        if is_default && (definition.mode == UpdateMode::PerBroker || name.starts_with("listener.name.")) {
            return refuse(
                ErrorCode::InvalidRequest,
                format!("'{name}' can only be set for single brokers, not for the whole cluster"),
            );
        }
        if definition.sensitive && !is_removal {
            return refuse(
                ErrorCode::InvalidRequest,
                format!(
                    "'{name}' is a secret, and secrets are not kept in metadata: set it in the property file"
                ),
            );
        }
        if definition.name == MIN_ISR && !is_default && !is_removal {
            return refuse(
                ErrorCode::InvalidConfig,
                format!("'{name}' holds for the whole cluster or a topic, not for single brokers (KIP-966)"),
            );
        }
        Ok(())
    }

    fn validated(self, name: &str, value: &str) -> Result<String, Refusal> {
        let Situation { image, properties, .. } = self.situation;
        let value = match self.kind {
            ConfigKind::Group => config::validate_group(properties, name, value),
            _ => config::validate(self.kind, name, value),
        };
        let value = value.map_err(|problem| self.invalid(problem))?;
        if self.kind == ConfigKind::Broker {
            config::check_thread_count(image, properties, self.broker_id(), name, &value)
                .map_err(|problem| self.invalid(problem))?;
        }
        if self.resource_type == ResourceType::ClientMetrics && name == "match" {
            check_match(&value).map_err(|problem| Refusal::new(ErrorCode::InvalidConfig, problem))?;
        }
        Ok(value)
    }
}

/// What a subscription to metrics can select clients by (KIP-714).
const MATCH_KEYS: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

fn check_match(value: &str) -> Result<(), String> {
    for item in split(value) {
        let Some((key, pattern)) = item.split_once('=') else {
            return Err(format!("'{item}' does not select clients: name=pattern does"));
        };
        if !MATCH_KEYS.contains(&key.trim()) {
            return Err(format!("clients are selected by one of {}, not by '{key}'", MATCH_KEYS.join(", ")));
        }
        if pattern.trim().is_empty() {
            return Err(format!("no pattern was given for '{key}'"));
        }
    }
    Ok(())
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}
