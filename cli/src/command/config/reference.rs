//! `ottla config reference`: every property, out of the tables that the servers themselves use.

use clap::{Args, ValueEnum};
use ottla_metadata::config::{ConfigDefinition, ConfigKind, ConfigType, UpdateMode, definitions};
use serde::Serialize;

use crate::output::{self, Format, Output};

/// The version that brought all properties that are there today.
const SINCE: &str = "0.1.0";

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
}

impl Reference {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        let kinds = [Kind::Node, Kind::Topic, Kind::Group, Kind::ClientMetrics];
        let properties = kinds
            .into_iter()
            .filter(|kind| self.of.is_none_or(|wanted| wanted == *kind))
            .flat_map(|kind| {
                definitions(config_kind(kind)).filter(|one| !one.internal).map(move |one| (kind, one))
            })
            .map(|(kind, definition)| Property::new(kind, definition))
            .collect();
        let document = Document { properties };
        match output.format {
            Format::Markdown => output::print(&markdown(&document)),
            _ => output.show(&document, table),
        }
    }
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
        }
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
            property.documentation.to_owned(),
        ]
    };
    output::table(
        &["NAME", "TYPE", "DEFAULT", "SINCE", "DYNAMIC", "MEANING"],
        document.properties.iter().map(row),
    )
}

fn markdown(document: &Document) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let mut text = String::new();
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
        let rule = if text.is_empty() { "" } else { "\n" };
        text.extend([format!("{rule}## {heading}\n\n")]);
        text.push_str("| Property | Type | Default | Allowed | Since | Dynamic | Meaning |\n|---|---|---|---|---|---|---|\n");
        for property in of_kind {
            text.extend([format!(
                "| `{}` | {} | {} | {} | {} | {} | {} |\n",
                property.name,
                property.kind,
                cell(&property.default_shown()),
                cell(property.allowed),
                property.since,
                property.dynamic,
                cell(property.documentation)
            )]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_has_a_row_and_bars_do_not_break_the_table() {
        let properties = definitions(ConfigKind::Broker).map(|one| Property::new(Kind::Node, one)).collect();
        let document = Document { properties };
        let shown = markdown(&document);
        for line in shown.lines().filter(|line| line.starts_with("| `")) {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 8, "{line}");
        }
        assert!(shown.contains("| `ottla.http.listener` | string | 0.0.0.0:9644 |"));
        assert!(table(&document).lines().count() > 300);
    }
}
