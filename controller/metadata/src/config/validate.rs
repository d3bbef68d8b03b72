//! Whether a value is allowed, and how it is written when it is. The texts are Kafka's, so that its tools show what they
//! always did.

use std::collections::BTreeMap;

use super::sources::{Layers, topic_fallback};
use super::{ConfigDefinition, ConfigKind, ConfigType, broker_value, definition, nearest, node};
use crate::image::MetadataImage;

/// Which values of its type a property takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// All.
    Any,
    /// Numbers from one to another, both allowed; and perhaps one more.
    Between {
        /// The smallest.
        min: f64,
        /// The largest.
        max: Option<f64>,
        /// One outside the range.
        or: Option<f64>,
    },
    /// These texts; of a list, every item.
    OneOf(Vec<&'static str>),
    /// These texts in upper or lower case.
    OneOfIgnoringCase(Vec<&'static str>),
    /// A list or text of at least one item or letter.
    NotEmpty,
    /// `*`, or `partition:broker` items.
    ThrottledReplicas,
    /// `latest`, `earliest` or `by_duration:` and an ISO 8601 duration.
    OffsetReset,
}

impl Rule {
    /// Reads a range as Kafka prints it.
    pub(super) fn read(valid: &'static str) -> Option<Self> {
        match valid {
            "" | "non-null string" => return Some(Self::Any),
            "non-empty string" | "non-empty list" => return Some(Self::NotEmpty),
            "[partitionId]:[brokerId],[partitionId]:[brokerId],..." => return Some(Self::ThrottledReplicas),
            "[latest, earliest, by_duration:PnDTnHnMn.nS]" => return Some(Self::OffsetReset),
            _ => {}
        }
        if let Some(names) = valid.strip_prefix("(case insensitive) ") {
            return Some(Self::OneOfIgnoringCase(names_of(names)?));
        }
        let (range, or) = match valid.split_once(" or ") {
            Some((range, or)) => (range, Some(or.parse().ok()?)),
            None => (valid, None),
        };
        let inner = range.strip_prefix('[')?.strip_suffix(']')?;
        let Some((min, max)) = inner.split_once(",...") else {
            return Some(Self::OneOf(names_of(range)?));
        };
        let max = match max.strip_prefix(',') {
            Some(max) => Some(max.parse().ok()?),
            None => None,
        };
        Some(Self::Between { min: min.parse().ok()?, max, or })
    }

    fn check_number(&self, value: f64) -> Result<(), String> {
        let Self::Between { min, max, or } = self else { return Ok(()) };
        let upper = max.unwrap_or(f64::INFINITY);
        if (*min <= value && value <= upper) || *or == Some(value) {
            return Ok(());
        }
        let also = or.map(|or| format!(", or be {or}")).unwrap_or_default();
        Err(match max {
            Some(max) => format!("Value must be between {min} and {max}{also}"),
            None => format!("Value must be at least {min}{also}"),
        })
    }

    fn check_text(&self, value: &str) -> Result<(), String> {
        match self {
            Self::OneOf(names) if !names.contains(&value) => {
                Err(format!("String must be one of: {}", names.join(", ")))
            }
            Self::OneOfIgnoringCase(names) if !names.iter().any(|name| name.eq_ignore_ascii_case(value)) => {
                Err(format!("String must be one of (case insensitive): {}", names.join(", ")))
            }
            Self::NotEmpty if value.is_empty() => Err("String must be non-empty".to_owned()),
            Self::OffsetReset => check_offset_reset(value),
            _ => Ok(()),
        }
    }

    fn check_list(&self, items: &[&str]) -> Result<(), String> {
        match self {
            Self::OneOf(names) => match items.iter().find(|item| !names.contains(item)) {
                Some(item) => {
                    Err(format!("'{item}' is not allowed, list items must be among: {}", names.join(", ")))
                }
                None => Ok(()),
            },
            Self::NotEmpty if items.is_empty() => Err("List must be non-empty".to_owned()),
            Self::ThrottledReplicas if items != ["*"] && !items.iter().all(|item| is_replica(item)) => Err(
                "The value must be the literal '*' or a list of replicas in the format [partitionId]:[brokerId],..."
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

fn names_of(text: &'static str) -> Option<Vec<&'static str>> {
    Some(text.strip_prefix('[')?.strip_suffix(']')?.split(',').map(str::trim).collect())
}

fn is_replica(item: &str) -> bool {
    let is_number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<i32>().is_ok();
    item.split_once(':').is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
}

fn check_offset_reset(value: &str) -> Result<(), String> {
    let allowed = match value.strip_prefix("by_duration:") {
        Some(duration) => is_duration(duration),
        None => value == "latest" || value == "earliest",
    };
    if allowed {
        return Ok(());
    }
    Err("Value must be earliest, latest or by_duration:<ISO 8601 duration PnDTnHnMn.nS that is not negative>"
        .to_owned())
}

/// `PnDTnHnMn.nS`, as `java.time.Duration` reads it, without signs.
fn is_duration(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let Some(text) = upper.strip_prefix('P') else { return false };
    let (days, time) = match text.split_once('T') {
        Some((days, time)) => (days, Some(time)),
        None => (text, None),
    };
    let is_number =
        |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    let days_fit = days.is_empty() || days.strip_suffix('D').is_some_and(is_number);
    let Some(mut time) = time else { return days_fit && !days.is_empty() };
    if !days_fit || time.is_empty() {
        return false;
    }
    for unit in ['H', 'M'] {
        if let Some((number, rest)) = time.split_once(unit) {
            if !is_number(number) {
                return false;
            }
            time = rest;
        }
    }
    if time.is_empty() {
        return true;
    }
    let Some(seconds) = time.strip_suffix('S') else { return false };
    match seconds.split_once('.') {
        Some((whole, part)) => {
            is_number(whole) && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit())
        }
        None => is_number(seconds),
    }
}

/// The value as it is stored: blanks around it gone, numbers and booleans in one form.
///
/// On a fault, says which property, which value and what is allowed.
pub fn validate(kind: ConfigKind, name: &str, value: &str) -> Result<String, String> {
    let Some(found) = definition(kind, name) else {
        let hint = nearest(kind, name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        return Err(format!("Unknown config name: {name}{hint}"));
    };
    let value = value.trim();
    check(found, value).map_err(|problem| {
        let shown = if found.sensitive { "[hidden]" } else { value };
        format!("Invalid value {shown} for configuration {name}: {problem}")
    })
}

fn check(found: &ConfigDefinition, value: &str) -> Result<String, String> {
    match found.config_type {
        ConfigType::Boolean => match value.to_ascii_lowercase() {
            lower if lower == "true" || lower == "false" => Ok(lower),
            _ => Err("Expected value to be either true or false".to_owned()),
        },
        ConfigType::Short => whole(found, value, i64::from(i16::MIN), i64::from(i16::MAX), "SHORT"),
        ConfigType::Int => whole(found, value, i64::from(i32::MIN), i64::from(i32::MAX), "INT"),
        ConfigType::Long => whole(found, value, i64::MIN, i64::MAX, "LONG"),
        ConfigType::Double => {
            let number: f64 = value
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .ok_or_else(|| "Not a number of type DOUBLE".to_owned())?;
            found.rule.check_number(number)?;
            Ok(double_text(number))
        }
        ConfigType::List => {
            let mut items: Vec<&str> = Vec::new();
            for item in value.split(',').map(str::trim).filter(|_| !value.is_empty()) {
                // An item that stands twice counts once where the items are a set (KIP-1161).
                if !matches!(found.rule, Rule::OneOf(_)) || !items.contains(&item) {
                    items.push(item);
                }
            }
            if items.contains(&"") {
                return Err("List must not have empty items".to_owned());
            }
            found.rule.check_list(&items)?;
            Ok(items.join(","))
        }
        ConfigType::String | ConfigType::Class | ConfigType::Password => {
            found.rule.check_text(value)?;
            Ok(value.to_owned())
        }
    }
}

fn whole(
    found: &ConfigDefinition,
    value: &str,
    min: i64,
    max: i64,
    type_name: &str,
) -> Result<String, String> {
    let number: i64 = value
        .parse()
        .ok()
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("Not a number of type {type_name}"))?;
    found.rule.check_number(number as f64)?;
    Ok(number.to_string())
}

/// As Java prints a double: always with a fraction, with an exponent below 0.001 and from ten million on.
fn double_text(number: f64) -> String {
    let size = number.abs();
    if number != 0.0 && !(1e-3..1e7).contains(&size) {
        let text = format!("{number:E}");
        return match text.split_once('E') {
            Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
            _ => text,
        };
    }
    format!("{number:?}")
}

/// Broker properties that bound a group's own value: name in the group, smallest and largest.
const GROUP_BOUNDS: [(&str, Option<&str>, Option<&str>); 13] = [
    bounds(
        "consumer.assignment.interval.ms",
        "group.consumer.min.assignment.interval.ms",
        "group.consumer.max.assignment.interval.ms",
    ),
    bounds(
        "consumer.heartbeat.interval.ms",
        "group.consumer.min.heartbeat.interval.ms",
        "group.consumer.max.heartbeat.interval.ms",
    ),
    bounds(
        "consumer.session.timeout.ms",
        "group.consumer.min.session.timeout.ms",
        "group.consumer.max.session.timeout.ms",
    ),
    bounds(
        "share.assignment.interval.ms",
        "group.share.min.assignment.interval.ms",
        "group.share.max.assignment.interval.ms",
    ),
    bounds(
        "share.delivery.count.limit",
        "group.share.min.delivery.count.limit",
        "group.share.max.delivery.count.limit",
    ),
    bounds(
        "share.heartbeat.interval.ms",
        "group.share.min.heartbeat.interval.ms",
        "group.share.max.heartbeat.interval.ms",
    ),
    bounds(
        "share.partition.max.record.locks",
        "group.share.min.partition.max.record.locks",
        "group.share.max.partition.max.record.locks",
    ),
    bounds(
        "share.record.lock.duration.ms",
        "group.share.min.record.lock.duration.ms",
        "group.share.max.record.lock.duration.ms",
    ),
    bounds(
        "share.session.timeout.ms",
        "group.share.min.session.timeout.ms",
        "group.share.max.session.timeout.ms",
    ),
    bounds(
        "streams.assignment.interval.ms",
        "group.streams.min.assignment.interval.ms",
        "group.streams.max.assignment.interval.ms",
    ),
    bounds(
        "streams.heartbeat.interval.ms",
        "group.streams.min.heartbeat.interval.ms",
        "group.streams.max.heartbeat.interval.ms",
    ),
    bounds(
        "streams.session.timeout.ms",
        "group.streams.min.session.timeout.ms",
        "group.streams.max.session.timeout.ms",
    ),
    ("streams.num.standby.replicas", None, Some("group.streams.max.standby.replicas")),
];

const fn bounds(
    name: &'static str,
    min: &'static str,
    max: &'static str,
) -> (&'static str, Option<&'static str>, Option<&'static str>) {
    (name, Some(min), Some(max))
}

/// As [`validate`] for a group, and within the bounds that the node's properties set.
pub fn validate_group(
    properties: &BTreeMap<String, String>,
    name: &str,
    value: &str,
) -> Result<String, String> {
    let normalised = validate(ConfigKind::Group, name, value)?;
    let (Some((_, min, max)), Ok(number)) =
        (GROUP_BOUNDS.iter().find(|(bounded, ..)| *bounded == name), normalised.parse::<i64>())
    else {
        return Ok(normalised);
    };
    for (bound, is_min) in [(min, true), (max, false)] {
        let Some(bound) = bound else { continue };
        let limit = node::get_i64(properties, bound);
        if (is_min && number < limit) || (!is_min && number > limit) {
            let relation = if is_min { "greater" } else { "less" };
            return Err(format!(
                "{name} must be {relation} than or equal to {bound} ({limit}), but it is {number}"
            ));
        }
    }
    Ok(normalised)
}

/// Kinds of groups of which a member is given up when it has not been heard of for a session.
const HEARTBEATING: [&str; 3] = ["consumer", "share", "streams"];

/// What the values set on a group must satisfy together with those it inherits; each by itself is valid.
pub fn validate_group_set(
    properties: &BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
) -> Result<(), String> {
    for kind in HEARTBEATING {
        let names = [format!("{kind}.session.timeout.ms"), format!("{kind}.heartbeat.interval.ms")];
        // Who sets neither is not to blame for what the brokers say.
        if !names.iter().any(|name| set.contains_key(name)) {
            continue;
        }
        let [session_ms, heartbeat_ms] = names.each_ref().map(|name| match set.get(name) {
            Some(value) => value.parse().unwrap_or(0),
            None => node::get_i64(properties, &format!("group.{name}")),
        });
        if session_ms <= heartbeat_ms {
            let [session, heartbeat] = names;
            return Err(format!(
                "{session} ({session_ms}) must be greater than {heartbeat} ({heartbeat_ms})"
            ));
        }
    }
    Ok(())
}

/// What the values set on a topic must satisfy together; each by itself is valid.
pub fn validate_topic(
    image: &MetadataImage,
    properties: &BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
) -> Result<(), String> {
    let layers = Layers::new(image, properties, None);
    let number = |name: &str| -> Option<i64> {
        if let Some(value) = set.get(name) {
            return value.parse().ok();
        }
        topic_fallback(layers, definition(ConfigKind::Topic, name)?)?.parse().ok()
    };
    let (min, max) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(format!("min.compaction.lag.ms ({min}) must not be above max.compaction.lag.ms ({max})"));
    }
    if set.get("remote.storage.enable").is_some_and(|value| value == "true") {
        return Err("remote.storage.enable cannot be true: tiered storage is not offered".to_owned());
    }
    Ok(())
}

/// Numbers of threads that change while a broker runs, by half or double at a time.
const THREADS: [&str; 6] = [
    "background.threads",
    "log.cleaner.threads",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
];

/// Whether a number of threads is within half and double of what it is now, as Kafka demands. Other properties pass.
pub fn check_thread_count(
    image: &MetadataImage,
    properties: &BTreeMap<String, String>,
    broker_id: Option<i32>,
    name: &str,
    value: &str,
) -> Result<(), String> {
    if !THREADS.contains(&name) {
        return Ok(());
    }
    let now = broker_value(image, properties, broker_id, name).and_then(|now| now.parse::<i64>().ok());
    let (Some(now), Ok(new)) = (now, value.parse::<i64>()) else { return Ok(()) };
    if new < now / 2 {
        return Err(format!(
            "Invalid value {new} for configuration {name}: at least half of {now}, the value now, is allowed"
        ));
    }
    if new > now.saturating_mul(2) {
        return Err(format!(
            "Invalid value {new} for configuration {name}: at most twice {now}, the value now, is allowed"
        ));
    }
    Ok(())
}
