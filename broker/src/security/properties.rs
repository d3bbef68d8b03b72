//! Properties as one listener sees them: `listener.name.<listener>.<mechanism>.<property>` before
//! `listener.name.<listener>.<property>` before `<property>`.
//!
//! What was set while the broker runs lies over the node's file, name by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ottla_metadata::config::{ConfigKind, definition};
use ottla_metadata::image::MetadataImage;
use ottla_proto::metadata::ResourceType;

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// All properties of a node: its file and, over it, what the cluster's metadata says.
pub type Properties = BTreeMap<String, String>;

/// The node's file with what was set for all brokers and for this one while they run.
pub fn merged(file: &Properties, image: &MetadataImage, node_id: i32) -> Properties {
    let mut all = file.clone();
    for name in [String::new(), node_id.to_string()] {
        if let Some(set) = image.config(ResourceType::Broker, &name) {
            all.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }
    all
}

/// One listener's view.
#[derive(Clone)]
pub struct ListenerProperties {
    all: Arc<Properties>,
    /// `listener.name.<listener>.`, lower case.
    prefix: String,
}

impl ListenerProperties {
    /// The view of a listener; its name in any case.
    pub fn new(all: Arc<Properties>, listener: &str) -> Self {
        Self { all, prefix: format!("listener.name.{}.", listener.to_ascii_lowercase()) }
    }

    /// What was set for this listener or for all; `None` when nobody set it or to nothing.
    pub fn set(&self, name: &str) -> Option<&str> {
        let own = format!("{}{name}", self.prefix);
        self.all
            .get(&own)
            .or_else(|| self.all.get(name))
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// What was set for this listener alone.
    pub fn own(&self, name: &str) -> Option<&str> {
        let own = format!("{}{name}", self.prefix);
        self.all.get(&own).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether somebody set it, and to nothing: for properties where that is a choice.
    pub fn is_empty(&self, name: &str) -> bool {
        let own = format!("{}{name}", self.prefix);
        self.all.get(&own).or_else(|| self.all.get(name)).is_some_and(String::is_empty)
    }

    /// What was set, or Kafka's default.
    pub fn get(&self, name: &str) -> &str {
        self.set(name)
            .or_else(|| definition(ConfigKind::Broker, name).and_then(|definition| definition.default))
            .unwrap_or_default()
    }

    /// A comma-separated list.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.get(name).split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
    }

    /// A whole number; 0 where there is none.
    pub fn number(&self, name: &str) -> i64 {
        self.get(name).trim().parse().unwrap_or_default()
    }

    /// A property of one SASL mechanism of this listener. The most general `sasl.jaas.config` counts too.
    pub fn of_mechanism(&self, mechanism: &str, name: &str) -> Option<&str> {
        let own = format!("{}{}.{name}", self.prefix, mechanism.to_ascii_lowercase());
        self.all.get(&own).map(String::as_str).filter(|value| !value.is_empty()).or_else(|| self.set(name))
    }

    /// Everything that begins with a prefix, as this listener sees it: what a reload compares.
    pub fn fingerprint(&self, prefixes: &[&str]) -> Properties {
        self.all
            .iter()
            .filter(|(name, _)| {
                let base = name.strip_prefix(&self.prefix).unwrap_or(name);
                prefixes.iter().any(|prefix| base.contains(prefix))
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(pairs: &[(&str, &str)]) -> ListenerProperties {
        let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ListenerProperties::new(Arc::new(all), "TLS")
    }

    #[test]
    fn a_listener_overrides_what_is_said_for_all() {
        let view = view(&[
            ("ssl.client.auth", "none"),
            ("listener.name.tls.ssl.client.auth", "required"),
            ("listener.name.other.ssl.keystore.type", "PEM"),
            ("sasl.jaas.config", "general"),
            ("listener.name.tls.plain.sasl.jaas.config", "own"),
        ]);
        assert_eq!(view.get("ssl.client.auth"), "required");
        assert_eq!(view.set("ssl.keystore.type"), None);
        assert_eq!(view.list("ssl.enabled.protocols"), ["TLSv1.2", "TLSv1.3"]);
        assert_eq!(view.of_mechanism("PLAIN", "sasl.jaas.config"), Some("own"));
        assert_eq!(view.of_mechanism("SCRAM-SHA-256", "sasl.jaas.config"), Some("general"));
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[hidden]");
    }
}
