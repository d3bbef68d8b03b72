//! `ottla completion SHELL`.

use clap::Args;
use clap_complete::Shell;

use crate::output;

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla completion bash > ~/.local/share/bash-completion/completions/ottla"
)]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::arguments::tree(), "ottla", &mut script);
        output::print(&String::from_utf8(script)?)
    }
}
