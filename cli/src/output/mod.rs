//! The one place where results become text: a table for people, one JSON or YAML document for scripts.

mod yaml;

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// `--output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One document with stable snake_case keys.
    Json,
    /// The same document as YAML.
    Yaml,
    /// Only of `config reference`.
    #[value(hide = true)]
    Markdown,
}

/// Where the results of a command go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// How they are shown.
    pub(crate) format: Format,
    /// No word about what went well.
    pub(crate) quiet: bool,
}

impl Output {
    /// A result that was asked for.
    pub(crate) fn show<T: Serialize>(
        self,
        document: &T,
        table: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Table | Format::Markdown => table(document),
            Format::Json => serde_json::to_string_pretty(document)?,
            Format::Yaml => yaml::emit(&serde_json::to_value(document)?),
        };
        print(&text)
    }

    /// Word of a change that was made: in a table nothing but a sentence, and nothing at all when quiet.
    pub(crate) fn done<T: Serialize>(
        self,
        document: &T,
        sentence: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.quiet && matches!(self.format, Format::Table | Format::Markdown) {
            return Ok(());
        }
        self.show(document, sentence)
    }

    /// Whether scripts read along.
    pub(crate) fn is_machine(self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }
}

/// Writes text and the line's end that it may lack to stdout.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.is_empty() && !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// A document as YAML.
pub(crate) fn yaml(value: &serde_json::Value) -> String {
    yaml::emit(value)
}

/// Columns under headings, no lines drawn, nothing behind the last word of a line.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    lines(table.lines().map(|line| line.trim_end().to_owned()))
}

/// Each with its end.
pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Names in front, values behind, for one thing.
pub(crate) fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    rows.iter()
        .map(|(name, value)| format!("{:width$}{value}", format!("{name}:")).trim_end().to_owned() + "\n")
        .collect()
}

/// `1,2,3`, or `-` when there is none.
pub(crate) fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A value that may be absent.
pub(crate) fn optional<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Bytes as people read them.
pub(crate) fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `1 record`, `2 records`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_headings_and_no_trailing_blanks() {
        let text = table(&["NAME", "N"], [vec!["orders".into(), "1".into()], vec!["x".into(), "12".into()]]);
        assert_eq!(text, "NAME    N\norders  1\nx       12\n");
    }

    #[test]
    fn fields_are_aligned() {
        assert_eq!(fields(&[("id", "1".into()), ("rack", String::new())]), "id:   1\nrack:\n");
    }

    #[test]
    fn bytes_have_a_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }

    #[test]
    fn an_empty_list_is_a_dash() {
        assert_eq!(list::<i32>(&[]), "-");
        assert_eq!(list(&[1, 2]), "1,2");
        assert_eq!(optional::<i32>(None), "-");
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(0, "record"), "0 records");
    }
}
