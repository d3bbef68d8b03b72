//! Changes of this broker's properties, looked at before the controller takes them: only here are the key stores and log
//! directories that they name.
//!
//! A change is judged by what the broker would have after it: its file, under the cluster's defaults, under its own settings.
//! The controller judges the rest, and the value's form.

use std::sync::Arc;

use ottla_metadata::image::MetadataImage;
use ottla_proto::controller::{ConfigAlteration, ConfigChange, ConfigOperation};
use ottla_proto::metadata::ResourceType;

use crate::controller_link::ImageHandle;
use crate::replica::ReplicaManager;
use crate::replica::directories::CORDONED;
use crate::security::NodeSecurity;
use crate::security::properties::Properties;

/// What changes are judged by.
#[derive(Clone)]
pub(crate) struct OwnConfigs {
    node_id: i32,
    /// The node's file.
    file: Arc<Properties>,
    image: ImageHandle,
    replicas: Arc<ReplicaManager>,
    security: Arc<NodeSecurity>,
}

impl OwnConfigs {
    /// Of a broker.
    pub(crate) fn new(
        node_id: i32,
        file: Arc<Properties>,
        image: ImageHandle,
        replicas: Arc<ReplicaManager>,
        security: Arc<NodeSecurity>,
    ) -> Self {
        Self { node_id, file, image, replicas, security }
    }

    /// Whether this broker could go on after a change; the text says what it could not use. What is not this broker's is not
    /// judged.
    pub(crate) async fn check(&self, alteration: ConfigAlteration, replace_all: bool) -> Result<(), String> {
        let is_broker = alteration.resource_type == i32::from(ResourceType::Broker);
        let name = alteration.resource_name.as_str();
        if !is_broker || !(name.is_empty() || name.parse() == Ok(self.node_id)) {
            return Ok(());
        }
        let this = self.clone();
        // It reads files.
        let checked = tokio::task::spawn_blocking(move || this.check_now(&alteration, replace_all)).await;
        checked.map_err(|error| error.to_string())?
    }

    fn check_now(&self, alteration: &ConfigAlteration, replace_all: bool) -> Result<(), String> {
        let image = self.image.current();
        let (names, after) = after(&self.file, &image, self.node_id, alteration, replace_all);
        if names.iter().any(|name| name == CORDONED) {
            let cordoned = after.get(CORDONED).map_or("", String::as_str);
            self.replicas.directories().check_cordons(cordoned)?;
        }
        if names.iter().any(|name| NodeSecurity::depends_on(name)) {
            self.security.check(&Arc::new(after)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// The names that a change touches, and all properties of a broker after it.
fn after(
    file: &Properties,
    image: &MetadataImage,
    node_id: i32,
    alteration: &ConfigAlteration,
    replace_all: bool,
) -> (Vec<String>, Properties) {
    let layer = |name: &str| image.config(ResourceType::Broker, name).cloned().unwrap_or_default();
    let (mut defaults, mut own) = (layer(""), layer(&node_id.to_string()));
    let mut names: Vec<String> = alteration.changes.iter().map(|change| change.name.clone()).collect();
    // Where a list begins that is appended to.
    let mut below = file.clone();
    let changed = if alteration.resource_name.is_empty() {
        &mut defaults
    } else {
        below.extend(defaults.clone());
        &mut own
    };
    if replace_all {
        names.extend(changed.keys().cloned());
        changed.clear();
    }
    for change in &alteration.changes {
        let now = changed.get(&change.name).or_else(|| below.get(&change.name)).cloned();
        match value_after(change, &now.unwrap_or_default()) {
            Some(value) => changed.insert(change.name.clone(), value),
            None => changed.remove(&change.name),
        };
    }
    let mut all = file.clone();
    all.extend(defaults);
    all.extend(own);
    (names, all)
}

/// A property after a change; `None`: it is not set here any more.
fn value_after(change: &ConfigChange, now: &str) -> Option<String> {
    let given = change.value.clone().unwrap_or_default();
    let items = |list: &str| -> Vec<String> {
        list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    match change.operation() {
        ConfigOperation::Set => Some(given),
        ConfigOperation::Delete => None,
        ConfigOperation::Append => {
            let mut all = items(now);
            all.extend(items(&given));
            Some(all.join(","))
        }
        ConfigOperation::Subtract => {
            let gone = items(&given);
            Some(items(now).into_iter().filter(|item| !gone.contains(item)).collect::<Vec<_>>().join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_metadata::image::LogIndex;
    use ottla_proto::metadata::metadata_record::Record;
    use ottla_proto::metadata::{ConfigRecord, MetadataRecord};

    use super::*;

    const STORE: &str = "listener.name.tls.ssl.keystore.location";

    fn image(settings: &[(&str, &str, &str)]) -> MetadataImage {
        let records: Vec<_> = settings
            .iter()
            .map(|(resource, name, value)| MetadataRecord {
                record: Some(Record::Config(ConfigRecord {
                    resource_type: ResourceType::Broker.into(),
                    resource_name: (*resource).to_owned(),
                    name: (*name).to_owned(),
                    value: Some((*value).to_owned()),
                })),
            })
            .collect();
        MetadataImage::default().apply(LogIndex(1), &records).unwrap().0
    }

    fn alteration(resource: &str, changes: &[(&str, ConfigOperation, &str)]) -> ConfigAlteration {
        ConfigAlteration {
            resource_type: ResourceType::Broker.into(),
            resource_name: resource.to_owned(),
            changes: changes
                .iter()
                .map(|(name, operation, value)| ConfigChange {
                    name: (*name).to_owned(),
                    operation: (*operation).into(),
                    value: Some((*value).to_owned()),
                })
                .collect(),
        }
    }

    #[test]
    fn what_is_taken_away_shows_what_lies_below() {
        let file = Properties::from([(STORE.to_owned(), "/file".to_owned())]);
        let image = image(&[("1", STORE, "/own")]);
        let of = |alteration: &ConfigAlteration, replace_all| {
            let (names, all) = after(&file, &image, 1, alteration, replace_all);
            (names.contains(&STORE.to_owned()), all[STORE].clone())
        };
        let deleted = alteration("1", &[(STORE, ConfigOperation::Delete, "")]);
        assert_eq!(of(&deleted, false), (true, "/file".to_owned()));
        assert_eq!(of(&alteration("1", &[]), false), (false, "/own".to_owned()));
        // A request that replaces everything takes away what it does not name.
        assert_eq!(of(&alteration("1", &[]), true), (true, "/file".to_owned()));
        let set = alteration("1", &[(STORE, ConfigOperation::Set, "/new")]);
        assert_eq!(of(&set, false), (true, "/new".to_owned()));
    }

    #[test]
    fn a_list_is_judged_as_it_will_be() {
        let file = Properties::from([(CORDONED.to_owned(), "/a".to_owned())]);
        let of = |image: &MetadataImage, operation, value| {
            let alteration = alteration("1", &[(CORDONED, operation, value)]);
            after(&file, image, 1, &alteration, false).1[CORDONED].clone()
        };
        assert_eq!(of(&image(&[]), ConfigOperation::Append, "/b, /c"), "/a,/b,/c");
        let own = image(&[("1", CORDONED, "/b,/c")]);
        assert_eq!(of(&own, ConfigOperation::Append, "/d"), "/b,/c,/d");
        assert_eq!(of(&own, ConfigOperation::Subtract, "/c"), "/b");
    }
}
