//! Kafka's checkpoint files: a version, a count, then a line an entry.

use std::fmt::Write;
use std::path::Path;

use crate::error::LogError;
use crate::fs::write_atomically;

/// Entries that a checkpoint may claim; more is damage.
const ENTRIES_MAX: usize = 10_000_000;

/// Reads the lines of a checkpoint; one that is not there, or empty, as Kafka makes them, has none.
pub(crate) fn read_lines(path: &Path) -> Result<Vec<String>, LogError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LogError::io("cannot read", path)(error)),
    };
    let damaged = |reason: &str| LogError::corrupt(path, 0, reason);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some("0") {
        return Err(damaged("not a checkpoint of version 0"));
    }
    let count: usize = lines
        .next()
        .and_then(|count| count.trim().parse().ok())
        .filter(|count| *count <= ENTRIES_MAX)
        .ok_or_else(|| damaged("no count of entries"))?;
    let entries: Vec<String> = lines.filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if entries.len() != count {
        return Err(damaged("fewer or more entries than it says"));
    }
    Ok(entries)
}

/// Replaces a checkpoint.
pub(crate) fn write_lines(path: &Path, lines: &[String], durable: bool) -> Result<(), LogError> {
    let mut text = format!("0\n{}\n", lines.len());
    for line in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    write_atomically(path, text.as_bytes(), durable)
}
