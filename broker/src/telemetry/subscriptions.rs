//! Which clients a subscription is for: all of its expressions match, each the whole of what it is about.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use ottla_metadata::image::MetadataImage;
use ottla_proto::metadata::ResourceType;
use regex::{Regex, RegexBuilder};
use uuid::Uuid;

/// How often clients push for which no subscription is, in milliseconds: they ask that often whether there is one.
const INTERVAL_MS_DEFAULT: i32 = 300_000;
/// Subscriptions that are looked at; more would make each client's request slow.
const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Bytes that a compiled expression may take.
const EXPRESSION_BYTES_MAX: usize = 64 << 10;
/// Prefixes that one client is asked for.
const METRICS_MAX: usize = 1_000;

/// What a client is known by.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientAttributes {
    pub(crate) client_id: String,
    pub(crate) software_name: String,
    pub(crate) software_version: String,
    pub(crate) source_address: String,
    pub(crate) source_port: u16,
}

impl ClientAttributes {
    fn get(&self, name: &str, instance: Uuid) -> Option<String> {
        Some(match name {
            "client_id" => self.client_id.clone(),
            "client_instance_id" => instance.to_string(),
            "client_software_name" => self.software_name.clone(),
            "client_software_version" => self.software_version.clone(),
            "client_source_address" => self.source_address.clone(),
            "client_source_port" => self.source_port.to_string(),
            _ => return None,
        })
    }
}

/// What one client is to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) id: i32,
    pub(super) interval_ms: i32,
    pub(super) metrics: Vec<String>,
}

#[derive(Debug)]
struct Compiled {
    /// Attribute and expression; none matches when one of them cannot be read.
    matches: Option<Vec<(String, Regex)>>,
    metrics: Vec<String>,
    interval_ms: i32,
}

type Source = BTreeMap<String, BTreeMap<String, String>>;

/// All subscriptions, as the image has them.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    source: Source,
    compiled: Vec<Compiled>,
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

impl Subscriptions {
    /// The subscriptions of an image, when they are not these.
    pub(super) fn changed(known: &Self, image: &MetadataImage) -> Option<Self> {
        let kind = ResourceType::ClientMetrics;
        let names: BTreeSet<&str> = image.config_resources(kind).take(SUBSCRIPTIONS_MAX).collect();
        let set = |name: &str| image.config(kind, name);
        let is_same = names.len() == known.source.len()
            && names.iter().all(|name| set(name).is_some() && set(name) == known.source.get(*name));
        if is_same {
            return None;
        }
        let source: Source =
            names.into_iter().filter_map(|name| Some((name.to_owned(), set(name)?.clone()))).collect();
        let compiled = source.values().map(Compiled::of).collect();
        Some(Self { source, compiled })
    }

    /// What a client is to push: all that the subscriptions that are for it say, as often as the most eager one.
    pub(super) fn of(&self, instance: Uuid, attributes: &ClientAttributes) -> Subscription {
        let mut metrics = BTreeSet::new();
        let mut interval_ms: Option<i32> = None;
        for one in self.compiled.iter().filter(|one| one.is_for(instance, attributes)) {
            metrics.extend(one.metrics.iter().cloned());
            interval_ms = Some(interval_ms.map_or(one.interval_ms, |least| least.min(one.interval_ms)));
        }
        // A star stands for all, which clients know as the empty prefix.
        let metrics: Vec<String> = if metrics.contains("*") {
            vec![String::new()]
        } else {
            metrics.into_iter().take(METRICS_MAX).collect()
        };
        let interval_ms = interval_ms.unwrap_or(INTERVAL_MS_DEFAULT);
        let mut hasher = DefaultHasher::new();
        (&metrics, interval_ms, instance).hash(&mut hasher);
        let bytes = hasher.finish().to_le_bytes();
        let id = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Subscription { id, interval_ms, metrics }
    }
}

impl Compiled {
    fn of(set: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| set.get(name).map(String::as_str).unwrap_or_default();
        let compile = |item: &str| {
            let (name, expression) = item.split_once('=')?;
            let whole = format!("^(?:{})$", expression.trim());
            let regex = RegexBuilder::new(&whole).size_limit(EXPRESSION_BYTES_MAX).build().ok()?;
            Some((name.trim().to_owned(), regex))
        };
        Self {
            matches: items(text("match")).map(compile).collect(),
            metrics: items(text("metrics")).map(str::to_owned).collect(),
            interval_ms: text("interval.ms").parse().unwrap_or(INTERVAL_MS_DEFAULT),
        }
    }

    fn is_for(&self, instance: Uuid, attributes: &ClientAttributes) -> bool {
        let matches = |(name, regex): &(String, Regex)| {
            attributes.get(name, instance).is_some_and(|value| regex.is_match(&value))
        };
        self.matches.as_ref().is_some_and(|all| all.iter().all(matches))
    }
}
