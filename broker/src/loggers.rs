//! The levels of this process's loggers, which Kafka's tools change by its id (KIP-412). A change lasts until the process
//! ends, and holds for all nodes of the process.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;

/// The logger that stands for all others.
pub const ROOT: &str = "root";

/// Loggers by the names that events carry: crates of ours, and those below us that have something to say.
const NAMES: [&str; 10] = [
    "ottla",
    "ottla_broker",
    "ottla_controller",
    "ottla_coordinator",
    "ottla_log",
    "ottla_metadata",
    "ottla_replica",
    "openraft",
    "sled",
    "tonic",
];

/// Kafka's levels and ours.
const LEVELS: [(&str, &str); 7] = [
    ("TRACE", "trace"),
    ("DEBUG", "debug"),
    ("INFO", "info"),
    ("WARN", "warn"),
    ("ERROR", "error"),
    ("FATAL", "error"),
    ("OFF", "off"),
];

/// Why a level was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggerError {
    /// The text names those that there are.
    #[error("Logger {0} does not exist! There are: {1}")]
    Unknown(String, String),
    /// Not a level.
    #[error("'{0}' is no level: TRACE, DEBUG, INFO, WARN, ERROR, FATAL and OFF are")]
    Level(String),
    /// The process began without a way to change levels.
    #[error("the levels of this process cannot be changed: {0}")]
    Fixed(String),
}

type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The loggers of this process.
pub struct Loggers {
    /// What the process began with, as a filter: `info,openraft=error`.
    base: String,
    /// Takes a filter.
    apply: Apply,
    /// By logger, our names of levels.
    changed: Mutex<BTreeMap<String, &'static str>>,
}

static LOGGERS: OnceLock<Loggers> = OnceLock::new();

/// Tells how the levels of this process change; the first word counts.
pub fn install(base: String, apply: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) {
    drop(LOGGERS.set(Loggers::new(base, Box::new(apply))));
}

/// The loggers of this process, if they can be changed.
pub fn current() -> Option<&'static Loggers> {
    LOGGERS.get()
}

impl Loggers {
    fn new(base: String, apply: Apply) -> Self {
        Self { base, apply, changed: Mutex::default() }
    }

    /// Every logger and Kafka's name of its level.
    pub fn levels(&self) -> Vec<(String, &'static str)> {
        let changed = self.changed.lock();
        let mut base: BTreeMap<&str, &str> = BTreeMap::new();
        for directive in self.base.split(',').map(str::trim) {
            match directive.split_once('=') {
                Some((name, level)) => base.insert(name.trim(), level.trim()),
                None => base.insert(ROOT, directive),
            };
        }
        let level_of = |name: &str| changed.get(name).copied().or_else(|| base.get(name).copied());
        let of_root = level_of(ROOT).unwrap_or("error");
        let mut names: Vec<&str> = NAMES.into_iter().chain([ROOT]).collect();
        names.sort_unstable();
        names
            .into_iter()
            .map(|name| (name.to_owned(), kafka_level(level_of(name).unwrap_or(of_root))))
            .collect()
    }

    /// Checks a change: the level is that of [`Self::change`].
    pub fn check(name: &str, level: Option<&str>) -> Result<(), LoggerError> {
        if name != ROOT && !NAMES.contains(&name) {
            return Err(LoggerError::Unknown(name.to_owned(), NAMES.join(", ")));
        }
        level.map_or(Ok(()), |level| own_level(level).map(drop))
    }

    /// Gives loggers levels by Kafka's names; none: what they began with.
    pub fn change(&self, levels: &[(&str, Option<&str>)]) -> Result<(), LoggerError> {
        let mut changed = self.changed.lock();
        let mut new = changed.clone();
        for (name, level) in levels {
            Self::check(name, *level)?;
            match level {
                Some(level) => new.insert((*name).to_owned(), own_level(level)?),
                None => new.remove(*name),
            };
        }
        let mut filter = self.base.clone();
        for (name, level) in &new {
            filter.push(',');
            if name != ROOT {
                filter.push_str(name);
                filter.push('=');
            }
            filter.push_str(level);
        }
        (self.apply)(&filter).map_err(LoggerError::Fixed)?;
        *changed = new;
        Ok(())
    }
}

fn own_level(level: &str) -> Result<&'static str, LoggerError> {
    let found = LEVELS.iter().find(|(kafka, _)| kafka.eq_ignore_ascii_case(level.trim()));
    found.map(|(_, own)| *own).ok_or_else(|| LoggerError::Level(level.to_owned()))
}

fn kafka_level(own: &str) -> &'static str {
    LEVELS.iter().find(|(_, level)| level.eq_ignore_ascii_case(own)).map_or("INFO", |(kafka, _)| *kafka)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn levels_change_and_go_back() {
        let filter = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&filter);
        let apply = move |text: &str| {
            text.clone_into(&mut seen.lock());
            Ok(())
        };
        let loggers = Loggers::new("info,sled=warn".into(), Box::new(apply));
        let level = |name: &str| loggers.levels().into_iter().find(|(found, _)| found == name).unwrap().1;
        assert_eq!((level("root"), level("sled"), level("ottla_log")), ("INFO", "WARN", "INFO"));
        loggers.change(&[("ottla_log", Some("trace")), ("root", Some("FATAL"))]).unwrap();
        assert_eq!(*filter.lock(), "info,sled=warn,ottla_log=trace,error");
        assert_eq!((level("root"), level("ottla_log"), level("tonic")), ("ERROR", "TRACE", "ERROR"));
        loggers.change(&[("ottla_log", None)]).unwrap();
        assert_eq!(level("ottla_log"), "ERROR");
        assert!(matches!(loggers.change(&[("x", Some("INFO"))]), Err(LoggerError::Unknown(..))));
        assert!(matches!(loggers.change(&[("sled", Some("LOUD"))]), Err(LoggerError::Level(_))));
    }
}
