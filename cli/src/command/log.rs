//! Temporary.
/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ottla log")]
pub(crate) struct Log {}
impl Log {
    pub(crate) fn run(&self, _o: crate::output::Output) -> anyhow::Result<()> {
        Ok(())
    }
}
