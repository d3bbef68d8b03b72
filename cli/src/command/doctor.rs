//! `ottla doctor`: see [`crate::doctor`].

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::doctor::{self, Finding, Level, reader};
use crate::failure::{Failure, Silent};
use crate::node_config::{self, NodeConfig};
use crate::output::{Output, counted};
use crate::parse;

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla doctor --config server.properties\n\nExit code 1: there are warnings or problems."
)]
pub(crate) struct Doctor {
    /// A node's property file: its directories, ports, certificates and controllers are looked at too
    #[arg(long, env = "OTTLA_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// A setting that wins over the file's and the environment's; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::name_value)]
    set: Vec<(String, String)>,
    /// Also show what is as it should be
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    /// Whether there is nothing worse than advice.
    healthy: bool,
    findings: Vec<Finding>,
}

impl Doctor {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        let findings = doctor::examine(&reader::read(self.load()?));
        let healthy = findings.iter().all(|finding| finding.level < Level::Warning);
        let document = Document { healthy, findings };
        output.show(&document, |document| text_of(document, self.all))?;
        if healthy { Ok(()) } else { Err(Silent.into()) }
    }

    /// A node that is told by its environment, as in a container, has no file.
    fn load(&self) -> anyhow::Result<Option<(Option<NodeConfig>, node_config::Findings)>> {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let text = match &self.config {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?,
            None if is_set("OTTLA_PROCESS_ROLES") => String::new(),
            None if self.set.is_empty() => return Ok(None),
            None => {
                return Err(Failure::usage("--set changes a configuration, and there is none")
                    .hint("name its file with --config")
                    .into());
            }
        };
        Ok(Some(NodeConfig::load(&text, node_config::environment(), &self.set)))
    }
}

fn text_of(document: &Document, all: bool) -> String {
    let mut text = String::new();
    for finding in document.findings.iter().filter(|finding| all || finding.level > Level::Ok) {
        let word = match finding.level {
            Level::Ok => "ok",
            Level::Advice => "advice",
            Level::Warning => "warning",
            Level::Problem => "problem",
        };
        text.extend([format!("{word:<8} {}: {}\n", finding.check, finding.finding)]);
        text.extend(finding.why.iter().map(|why| format!("         why:  {why}\n")));
        text.extend(finding.mend.iter().map(|mend| format!("         mend: {mend}\n")));
    }
    let count = |level: Level| document.findings.iter().filter(|finding| finding.level == level).count();
    let good = count(Level::Ok);
    text.extend([format!(
        "{} checks: {}, {}, {} of advice, {good} good\n",
        document.findings.len(),
        counted(count(Level::Problem), "problem"),
        counted(count(Level::Warning), "warning"),
        counted(count(Level::Advice), "piece"),
    )]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_is_only_counted_unless_asked_for() {
        let finding = |level, check: &str| Finding {
            check: check.into(),
            level,
            finding: "x".into(),
            why: (level > Level::Ok).then(|| "because".into()),
            mend: (level > Level::Ok).then(|| "do it".into()),
        };
        let findings = vec![finding(Level::Problem, "a"), finding(Level::Ok, "b")];
        let document = Document { healthy: false, findings };
        assert_eq!(
            text_of(&document, false),
            "problem  a: x\n         why:  because\n         mend: do it\n\
             2 checks: 1 problem, 0 warnings, 0 pieces of advice, 1 good\n"
        );
        assert!(text_of(&document, true).contains("ok       b: x\n"));
    }
}
