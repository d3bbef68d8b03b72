//! What a node's own properties say: the value in its file, or the default. No dynamic value counts here.

use std::collections::BTreeMap;

use super::{ConfigKind, definition};

/// Two names of one thing: what the first does not say the second may.
const ALIASES: [(&str, &str); 3] = [
    ("node.id", "broker.id"),
    ("log.dirs", "log.dir"),
    ("log.flush.interval.ms", "log.flush.scheduler.interval.ms"),
];

/// The value of a node's property, or its default. `None`: it has neither, or no such property exists.
pub fn node_value<'a>(properties: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    if let Some(value) = properties.get(name) {
        return Some(value.trim());
    }
    if let Some((_, other)) = ALIASES.iter().find(|(first, _)| *first == name) {
        return node_value(properties, other);
    }
    definition(ConfigKind::Broker, name)?.default
}

/// The parsed value; when it cannot be read, the parsed default: files are validated before a node starts.
fn parsed<T>(
    properties: &BTreeMap<String, String>,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let default = || definition(ConfigKind::Broker, name)?.default.and_then(&parse);
    node_value(properties, name).and_then(&parse).or_else(default)
}

/// A whole number; 0 when there is neither a value nor a default.
pub fn get_i64(properties: &BTreeMap<String, String>, name: &str) -> i64 {
    parsed(properties, name, |text| text.parse().ok()).unwrap_or(0)
}

/// A whole number of 32 bits; 0 when there is neither a value nor a default.
pub fn get_i32(properties: &BTreeMap<String, String>, name: &str) -> i32 {
    parsed(properties, name, |text| text.parse().ok()).unwrap_or(0)
}

/// A fraction; 0 when there is neither a value nor a default.
pub fn get_f64(properties: &BTreeMap<String, String>, name: &str) -> f64 {
    parsed(properties, name, |text| text.parse().ok()).unwrap_or(0.0)
}

/// Whether it is `true`; `false` when there is neither a value nor a default.
pub fn get_bool(properties: &BTreeMap<String, String>, name: &str) -> bool {
    parsed(properties, name, |text| text.to_ascii_lowercase().parse().ok()).unwrap_or(false)
}

/// A text; empty when there is neither a value nor a default.
pub fn get_string<'a>(properties: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    node_value(properties, name).unwrap_or_default()
}

/// The items of a list, without the blanks around them; none when there is neither a value nor a default.
pub fn get_list<'a>(properties: &'a BTreeMap<String, String>, name: &str) -> Vec<&'a str> {
    get_string(properties, name).split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
}
