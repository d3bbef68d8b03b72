//! `ottla verify check HISTORY`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use ottla_verify::{Checker, LINE_BYTES_MAX, Report, parse_line};

use super::show;
use crate::output::Output;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla verify check run.history")]
pub(crate) struct Check {
    /// A history that 'ottla verify --history FILE' wrote; - is standard input
    #[arg(value_name = "HISTORY")]
    history: PathBuf,
    /// Write the report as JSON into this file too
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Check {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        let report = if self.history == Path::new("-") {
            read(std::io::stdin().lock())
        } else {
            let open = File::open(&self.history).map_err(anyhow::Error::from);
            open.and_then(|file| read(BufReader::new(file)))
        };
        let report = report.with_context(|| format!("cannot check {}", self.history.display()))?;
        show(&report, output, self.report.as_deref())
    }
}

/// Reads a history line by line. A last line without an end is what a killed run leaves: it is passed over.
fn read(mut input: impl BufRead) -> anyhow::Result<Report> {
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut checker: Option<Checker> = None;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        (&mut input).take(limit + 2).read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            if line.len() > LINE_BYTES_MAX {
                anyhow::bail!("line {number}: {}", ottla_verify::HistoryError::LongLine);
            }
            break;
        };
        let taken = parse_line(text).and_then(|event| match &mut checker {
            Some(checker) => checker.take(&event),
            None => Checker::new(&event).map(|new| checker = Some(new)),
        });
        taken.with_context(|| format!("line {number}"))?;
    }
    Ok(checker.context("it is empty")?.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"e":"history","version":1,"topics":[{"name":"t","partitions":1}],"idempotent":true,"transactions":false,"seed":1,"started_ms":0}"#;
    const SOUND: &str = r#"{"e":"reader","r":0,"committed":false}
{"e":"send","t":1,"op":0,"w":0,"p":0,"n":0,"c":2}
{"e":"sent","t":2,"op":0,"o":0}
{"e":"poll","s":3,"t":4,"r":0,"p":0,"from":0,"next":2,"hw":2,"epoch":0,"runs":[[0,0,0,2]]}
{"e":"final","t":5,"ends":[2]}
"#;

    fn check(text: &str) -> anyhow::Result<Report> {
        read(text.as_bytes())
    }

    #[test]
    fn a_history_is_checked_again_from_its_file() {
        assert!(check(&format!("{HEADER}\n{SOUND}")).unwrap().held);
        let torn = format!("{HEADER}\n{SOUND}{{\"e\":\"po");
        assert!(check(&torn).unwrap().held, "a line that a killed run did not end is no fault");
        let lost = SOUND.replace("[[0,0,0,2]]", "[[0,0,0,1]]");
        assert!(!check(&format!("{HEADER}\n{lost}")).unwrap().held);
    }

    #[test]
    fn what_is_no_history_is_told_with_its_line() {
        for (text, said) in [
            (String::new(), "empty"),
            (SOUND.to_owned(), "line 1"),
            (format!("{HEADER}\nnonsense\n"), "line 2"),
            (format!("{HEADER}\n{HEADER}\n"), "line 2"),
        ] {
            let error = format!("{:#}", check(&text).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
