//! `ottla config reference`: every property, out of the tables that the servers themselves use.

use clap::{Args, ValueEnum};
use ottla_metadata::config::{
    ConfigDefinition, ConfigKind, ConfigType, UpdateMode, definitions, replacement_note,
};
use serde::Serialize;

use crate::output::{self, Format, Output};

/// The version that brought all properties that are there today.
const SINCE: &str = "0.1.0";

const KINDS: [Kind; 4] = [Kind::Node, Kind::Topic, Kind::Group, Kind::ClientMetrics];

/// In front of the Markdown, which is also `docs/properties.md`.
const HEAD: &str = "# Properties

Every property of Apache Kafka 4.3, and those of Ottla's own, as `ottla config reference --output markdown` writes them. None is
unknown: a property works, or it is accepted with one warning that says what is so instead. Names of older and other servers
(`zookeeper.…`, `log.message.format.version`, …) are accepted in the same way; a name that nobody knows is refused, with the nearest
one that is known. Dynamic is `cluster` (for all brokers or one of them), `per_broker`, or `no`: only at a start.
";

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ottla config reference --of topic\n  ottla config reference --output markdown"
)]
pub(crate) struct Reference {
    /// Only properties of these
    #[arg(long, value_enum, value_name = "KIND")]
    of: Option<Kind>,
}

/// Whose properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Nodes: brokers and controllers
    Node,
    /// Topics
    Topic,
    /// Groups
    Group,
    /// Client metrics subscriptions
    ClientMetrics,
}

#[derive(Debug, Serialize)]
struct Document {
    properties: Vec<Property>,
}

#[derive(Debug, Serialize)]
struct Property {
    name: &'static str,
    of: Kind,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Null: none.
    default: Option<&'static str>,
    /// Empty: anything of the type.
    allowed: &'static str,
    since: &'static str,
    /// `no`, `per_broker` or `cluster`.
    dynamic: &'static str,
    documentation: &'static str,
    /// Null: it works. Otherwise it is accepted, has no effect, and this is so instead.
    without_effect: Option<&'static str>,
}

impl Reference {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        let document = match self.of {
            Some(kind) => of_kinds(&[kind]),
            None => of_kinds(&KINDS),
        };
        match output.format {
            Format::Markdown => output::print(&markdown(&document)),
            _ => output.show(&document, table),
        }
    }
}

fn of_kinds(kinds: &[Kind]) -> Document {
    let of = |kind: &Kind| {
        let kind = *kind;
        let shown = definitions(config_kind(kind)).filter(|one| !one.internal);
        shown.map(move |one| Property::new(kind, one))
    };
    Document { properties: kinds.iter().flat_map(of).collect() }
}

fn config_kind(kind: Kind) -> ConfigKind {
    match kind {
        Kind::Node => ConfigKind::Broker,
        Kind::Topic => ConfigKind::Topic,
        Kind::Group => ConfigKind::Group,
        Kind::ClientMetrics => ConfigKind::ClientMetrics,
    }
}

impl Property {
    fn new(of: Kind, definition: &'static ConfigDefinition) -> Self {
        Self {
            name: definition.name,
            of,
            kind: match definition.config_type {
                ConfigType::Boolean => "boolean",
                ConfigType::String => "string",
                ConfigType::Int => "int",
                ConfigType::Short => "short",
                ConfigType::Long => "long",
                ConfigType::Double => "double",
                ConfigType::List => "list",
                ConfigType::Class => "class",
                ConfigType::Password => "password",
            },
            default: definition.default,
            allowed: definition.valid,
            since: SINCE,
            dynamic: match (of, definition.mode) {
                // What belongs to no node is always changed while nodes run.
                (Kind::Topic | Kind::Group | Kind::ClientMetrics, _) | (_, UpdateMode::ClusterWide) => {
                    "cluster"
                }
                (_, UpdateMode::PerBroker) => "per_broker",
                (_, UpdateMode::ReadOnly) => "no",
            },
            documentation: definition.documentation,
            without_effect: replacement_note(definition.name),
        }
    }

    fn effect_shown(&self) -> String {
        self.without_effect.map_or_else(|| "works".to_owned(), |note| format!("no effect: {note}"))
    }

    fn default_shown(&self) -> String {
        match self.default {
            None => "none".to_owned(),
            Some("") => "\"\"".to_owned(),
            Some(value) => value.to_owned(),
        }
    }
}

fn table(document: &Document) -> String {
    let row = |property: &Property| {
        vec![
            property.name.to_owned(),
            property.kind.to_owned(),
            property.default_shown(),
            property.since.to_owned(),
            property.dynamic.to_owned(),
            property.effect_shown(),
            property.documentation.to_owned(),
        ]
    };
    output::table(
        &["NAME", "TYPE", "DEFAULT", "SINCE", "DYNAMIC", "EFFECT", "MEANING"],
        document.properties.iter().map(row),
    )
}

fn markdown(document: &Document) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let mut text = HEAD.to_owned();
    for (kind, heading) in [
        (Kind::Node, "Nodes"),
        (Kind::Topic, "Topics"),
        (Kind::Group, "Groups"),
        (Kind::ClientMetrics, "Client metrics"),
    ] {
        let mut of_kind = document.properties.iter().filter(|property| property.of == kind).peekable();
        if of_kind.peek().is_none() {
            continue;
        }
        text.extend([format!("\n## {heading}\n\n")]);
        text.push_str("| Property | Type | Default | Allowed | Since | Dynamic | Effect | Meaning |\n");
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        for property in of_kind {
            text.extend([format!(
                "| `{}` | {} | {} | {} | {} | {} | {} | {} |\n",
                property.name,
                property.kind,
                cell(&property.default_shown()),
                cell(property.allowed),
                property.since,
                property.dynamic,
                cell(&property.effect_shown()),
                cell(property.documentation)
            )]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use ottla_metadata::config::definition;

    use super::*;

    #[test]
    fn every_property_has_a_row_and_bars_do_not_break_the_table() {
        let document = of_kinds(&[Kind::Node]);
        let shown = markdown(&document);
        for line in shown.lines().filter(|line| line.starts_with("| `")) {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 9, "{line}");
        }
        assert!(shown.contains("| `ottla.http.listener` | string | 0.0.0.0:9644 |"));
        assert!(table(&document).lines().count() > 300);
    }

    /// `node NAME`, `topic NAME`, `group NAME`.
    const KAFKA: &str = include_str!("kafka_names.txt");

    #[test]
    fn every_property_of_kafka_is_known() {
        let mut count = 0;
        for line in KAFKA.lines().filter(|line| !line.starts_with('#')) {
            let (kind, name) = line.split_once(' ').unwrap();
            let kind = match kind {
                "node" => ConfigKind::Broker,
                "topic" => ConfigKind::Topic,
                _ => ConfigKind::Group,
            };
            assert!(definition(kind, name).is_some(), "{line}");
            count += 1;
        }
        assert_eq!(count, 411);
    }

    #[test]
    fn the_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/properties.md");
        let shown = markdown(&of_kinds(&KINDS));
        if std::env::var_os("OTTLA_WRITE_DOCS").is_some() {
            std::fs::write(path, &shown).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(there == shown, "OTTLA_WRITE_DOCS=1 cargo test -p ottla --bin ottla reference");
    }

    /// All that is compiled into a node, without tests and without the tables of properties themselves.
    fn sources(folder: &std::path::Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                let skipped = matches!(name, "target" | "tests" | "benches" | "doctor" | "command");
                if !skipped {
                    sources(&path, all);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !name.contains("test")
                && !matches!(name, "replaced.rs" | "without_effect.rs" | "validate.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
            }
        }
    }

    /// What is said to work is at least read somewhere.
    #[test]
    fn what_works_is_named_in_the_sources() {
        /// Names that are put together: `{prefix}.window.num`, `{kind}.session.timeout.ms`.
        const COMPOSED: [&str; 2] = [".window.num", ".window.size.seconds"];
        let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let mut all = String::new();
        for folder in ["broker", "controller", "cli"] {
            sources(&root.join(folder), &mut all);
        }
        let of = [ConfigKind::Broker, ConfigKind::Topic, ConfigKind::Group, ConfigKind::ClientMetrics];
        let unread: Vec<&str> = of
            .into_iter()
            .flat_map(definitions)
            .map(|found| found.name)
            .filter(|name| replacement_note(name).is_none())
            .filter(|name| !COMPOSED.iter().any(|end| name.ends_with(end)))
            // The bounds of what groups may be set to hold where that is checked.
            .filter(|name| {
                !(name.starts_with("group.") && (name.contains(".min.") || name.contains(".max.")))
            })
            .filter(|name| !all.contains(&format!("\"{name}\"")))
            .collect();
        assert!(unread.is_empty(), "said to work, but nobody reads them: {unread:#?}");
    }

    /// What a node is made of is not said to have no effect.
    #[test]
    fn what_has_no_effect_makes_no_options() {
        // Of whose values one counts, as its note says.
        const HALF: &str = "group.coordinator.rebalance.protocols";
        let options = include_str!("../../server/options.rs").split("#[cfg(test)]").next().unwrap();
        let read: Vec<&str> = definitions(ConfigKind::Broker)
            .map(|found| found.name)
            .filter(|name| replacement_note(name).is_some() && *name != HALF)
            .filter(|name| options.contains(&format!("\"{name}\"")))
            .collect();
        assert!(read.is_empty(), "said to have no effect, but read: {read:#?}");
    }
}
