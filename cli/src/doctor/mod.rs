//! `ottla doctor`: what of this machine would hurt a node, why, and the command that mends it.
//!
//! [`reader`] takes the readings and judges nothing; every check is a pure function over [`Readings`]. What could not be read is
//! not judged: a container sees neither its host's time service nor all of its settings.
//!
//! | module | judges |
//! |---|---|
//! | [`kernel`] | settings of the kernel |
//! | [`machine`] | open files, memory, clock |
//! | [`storage`] | the directories of `log.dirs` |
//! | [`network`] | ports, the other nodes |
//! | [`settings`] | properties that fit, but not together or not here |
//! | [`security`] | who gets in, and what others can read |
//! | [`certificate`] | certificates that end soon |

pub(crate) mod certificate;
mod kernel;
mod machine;
mod network;
pub(crate) mod reader;
mod readings;
mod security;
mod settings;
mod storage;

use serde::Serialize;

pub(crate) use self::readings::Readings;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, and would work better.
    Advice,
    /// It works until there is load or something fails.
    Warning,
    /// It does not work, or data is in danger.
    Problem,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at: `vm.swappiness`, `open files`, a path.
    pub(crate) check: String,
    pub(crate) level: Level,
    /// What was found.
    pub(crate) finding: String,
    /// Why it matters; absent of what is as it should be.
    pub(crate) why: Option<String>,
    /// What mends it, a command where one can.
    pub(crate) mend: Option<String>,
}

impl Finding {
    fn ok(check: impl Into<String>, finding: impl Into<String>) -> Self {
        Self { check: check.into(), level: Level::Ok, finding: finding.into(), why: None, mend: None }
    }

    fn bad(
        level: Level,
        check: impl Into<String>,
        finding: impl Into<String>,
        why: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            check: check.into(),
            level,
            finding: finding.into(),
            why: Some(why.into()),
            mend: Some(mend.into()),
        }
    }
}

/// All findings, the worst first.
pub(crate) fn examine(readings: &Readings) -> Vec<Finding> {
    let mut findings = kernel::check(readings);
    findings.extend(machine::check(readings));
    findings.extend(storage::check(readings));
    findings.extend(network::check(readings));
    findings.extend(settings::check(readings));
    findings.extend(security::check(readings));
    findings.extend(certificate::check(readings));
    // Stable: within a level in the order of the checks.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_judged() {
        assert_eq!(examine(&Readings::default()), []);
    }

    #[test]
    fn the_worst_stands_first_and_has_a_reason_and_a_way_out() {
        let mut readings = Readings::default();
        readings.kernel.insert("vm.swappiness".into(), "60".into());
        readings.kernel.insert("net.ipv4.tcp_window_scaling".into(), "1".into());
        readings.open_files = Some(512);
        let findings = examine(&readings);
        let levels: Vec<_> = findings.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Problem, Level::Warning, Level::Ok]);
        for finding in &findings {
            let is_bad = finding.level > Level::Ok;
            assert_eq!((finding.why.is_some(), finding.mend.is_some()), (is_bad, is_bad), "{finding:?}");
        }
    }
}
