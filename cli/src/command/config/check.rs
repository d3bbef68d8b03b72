//! `ottla config check FILE`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::failure::Silent;
use crate::node_config::{self, NodeConfig, Origin, Problem};
use crate::output::{Output, counted};
use crate::parse;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla config check server.properties")]
pub(crate) struct Check {
    /// The property file
    file: PathBuf,
    /// A setting that shall win over the file's; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::name_value)]
    set: Vec<(String, String)>,
    /// With the environment's OTTLA_ variables over the file, as a server that is started here has them
    #[arg(long)]
    environment: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    file: String,
    valid: bool,
    problems: Vec<Entry>,
    warnings: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    /// Null: it is not a line of the file.
    line: Option<usize>,
    /// The variable that made the setting, if one did.
    variable: Option<String>,
    name: String,
    message: String,
}

impl Check {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        let file = self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file).with_context(|| format!("cannot read {file}"))?;
        // The environment of whoever checks is mostly not the node's: unless asked, the file is looked at by itself.
        let environment = self.environment.then(node_config::environment).into_iter().flatten();
        let (_, findings) = NodeConfig::load(&text, environment, &self.set);
        let document = Document {
            file,
            valid: findings.problems.is_empty(),
            problems: findings.problems.into_iter().map(Entry::from).collect(),
            warnings: findings.warnings.into_iter().map(Entry::from).collect(),
        };
        let valid = document.valid;
        output.show(&document, text_of)?;
        if valid { Ok(()) } else { Err(Silent.into()) }
    }
}

impl From<Problem> for Entry {
    fn from(problem: Problem) -> Self {
        let (line, variable) = match problem.origin {
            Some(Origin::Line(line)) => (Some(line), None),
            Some(Origin::Variable(name)) => (None, Some(name)),
            _ => (None, None),
        };
        Self { line, variable, name: problem.name, message: problem.message }
    }
}

fn text_of(document: &Document) -> String {
    let file = &document.file;
    let entry = |kind: &str, entry: &Entry| {
        let line = entry.line.map(|line| format!(":{line}")).unwrap_or_default();
        let place = entry.variable.clone().unwrap_or_else(|| format!("{file}{line}"));
        format!("{place}: {kind}{}: {}\n", entry.name, entry.message)
    };
    let mut text: String = document.problems.iter().map(|one| entry("", one)).collect();
    text.extend(document.warnings.iter().map(|one| entry("warning: ", one)));
    if document.valid {
        text.extend([format!("{file} is valid\n")]);
    } else {
        text.extend([format!("{}\n", counted(document.problems.len(), "problem"))]);
    }
    text
}
