//! `ottla man`: the manual page of all commands, out of the same definitions as the help.

use clap::Args;

use crate::output;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla man | man -l -")]
pub(crate) struct Man {}

impl Man {
    #[allow(clippy::unused_self, reason = "as every command")]
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut page = Vec::new();
        let mut tree = crate::arguments::tree();
        tree.build();
        render(&tree, &mut page)?;
        output::print(&String::from_utf8(page)?)
    }
}

/// The page of the binary, then a section for each command that can be run.
fn render(tree: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(tree.clone()).render(page)?;
    let mut open: Vec<&clap::Command> = tree.get_subcommands().collect();
    open.reverse();
    while let Some(command) = open.pop() {
        let mut inner: Vec<_> = command.get_subcommands().collect();
        if inner.is_empty() {
            let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_uppercase();
            page.extend_from_slice(format!(".SH \"{name}\"\n").as_bytes());
            let man = clap_mangen::Man::new(command.clone());
            man.render_description_section(page)?;
            man.render_synopsis_section(page)?;
            man.render_options_section(page)?;
        }
        inner.reverse();
        open.append(&mut inner);
    }
    Ok(())
}
