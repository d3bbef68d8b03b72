//! How a command fails: one line that says what was refused, by whom and why, a hint, and the exit code.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

/// Exit code of a command that was refused or failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code of a command that was called wrongly, or of a server whose configuration is wrong.
pub(crate) const USAGE: u8 = 2;

/// One refusal, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// Refused or failed: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: FAILED }
    }

    /// Called wrongly: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(message) }
    }

    /// Adds what to do about it; an empty hint is none.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self
    }
}

impl Failure {
    /// The same, with something in front of it.
    pub(crate) fn prefixed(mut self, text: &str) -> Self {
        self.message.insert_str(0, text);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Several refusals of one command, each with its own line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failures(pub(crate) Vec<Failure>);

impl Failures {
    /// Nothing when there is nothing to report.
    pub(crate) fn check(failures: Vec<Failure>) -> anyhow::Result<()> {
        if failures.is_empty() { Ok(()) } else { Err(Self(failures).into()) }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, failure) in self.0.iter().enumerate() {
            write!(f, "{}{failure}", if at > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Failures {}

/// A command whose result is bad news but which has said everything: only the exit code is left to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silent;

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not healthy")
    }
}

impl std::error::Error for Silent {}

/// What was looked at is not what it should be, and everything was said: exit code 2, which scripts tell from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drifted;

impl fmt::Display for Drifted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not as it should be")
    }
}

impl std::error::Error for Drifted {}

/// A failure that was told where the log goes: only the exit code is left to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told(pub(crate) u8);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("told in the log")
    }
}

impl std::error::Error for Told {}

/// The exit code of an error that has something to say.
pub(crate) fn code(error: &anyhow::Error) -> Option<u8> {
    let (text, code) = explain(error);
    (!text.is_empty()).then_some(code)
}

/// What an error says, a line each, without the words in front.
pub(crate) fn messages(error: &anyhow::Error) -> Vec<String> {
    let (text, _) = explain(error);
    text.lines().map(|line| line.strip_prefix("error: ").unwrap_or(line).to_owned()).collect()
}

/// Writes a failure to stderr and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let (text, code) = explain(error);
    eprint!("{text}");
    ExitCode::from(code)
}

fn explain(error: &anyhow::Error) -> (String, u8) {
    if error.is::<Silent>() {
        return (String::new(), FAILED);
    }
    if let Some(Told(code)) = error.downcast_ref::<Told>() {
        return (String::new(), *code);
    }
    if error.is::<Drifted>() {
        return (String::new(), USAGE);
    }
    // The reader of our output has gone (`| head`): that is its choice, not a failure.
    if error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
    }) {
        return (String::new(), 0);
    }
    if let Some(Failures(all)) = error.downcast_ref::<Failures>() {
        let text = all.iter().map(|failure| lines(&failure.message, failure.hint.as_deref())).collect();
        return (text, all.iter().map(|failure| failure.code).max().unwrap_or(FAILED));
    }
    let failure = error.downcast_ref::<Failure>();
    let hint = failure.and_then(|failure| failure.hint.as_deref());
    (lines(&in_full(error), hint), failure.map_or(FAILED, |failure| failure.code))
}

/// An error and its causes; those that say again what stands there already are left out.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| {
        if text.is_empty() {
            cause
        } else if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

fn lines(message: &str, hint: Option<&str>) -> String {
    // One line a failure: a server's message may hold line breaks.
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = format!("error: {}\n", flat(message));
    if let Some(hint) = hint {
        text.extend([format!("hint: {}\n", flat(hint))]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_a_hint() {
        let error = Failure::new("topic \"a\"\nalready exists").hint("choose another name").into();
        assert_eq!(
            explain(&error),
            ("error: topic \"a\" already exists\nhint: choose another name\n".into(), 1)
        );
    }

    #[test]
    fn context_is_put_in_front_and_the_code_is_kept() {
        let error = anyhow::Error::from(Failure::usage("no such thing")).context("server.properties");
        assert_eq!(explain(&error), ("error: server.properties: no such thing\n".into(), 2));
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let error = anyhow::anyhow!("in use").context("cannot listen: in use").context("node 1");
        assert_eq!(explain(&error), ("error: node 1: cannot listen: in use\n".into(), 1));
    }

    #[test]
    fn several_failures_have_a_line_each() {
        let error = Failures::check(vec![Failure::new("a"), Failure::new("b").hint("c")]).unwrap_err();
        assert_eq!(explain(&error), ("error: a\nerror: b\nhint: c\n".into(), 1));
        assert!(Failures::check(Vec::new()).is_ok());
    }

    #[test]
    fn what_the_log_has_told_is_only_a_code() {
        let error = Failures::check(vec![Failure::usage("a").hint("b"), Failure::new("c")]).unwrap_err();
        assert_eq!(messages(&error), ["a", "hint: b", "c"]);
        assert_eq!(code(&error), Some(USAGE));
        let told = anyhow::Error::from(Told(USAGE));
        assert_eq!((code(&told), explain(&told)), (None, (String::new(), USAGE)));
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = anyhow::Error::from(std::io::Error::from(ErrorKind::BrokenPipe)).context("stdout");
        assert_eq!(explain(&error), (String::new(), 0));
    }
}
