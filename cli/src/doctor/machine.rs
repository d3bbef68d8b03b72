//! Open files, memory, clock.

use super::{Finding, Level, Readings};
use crate::output::bytes;

/// Below this a node of a few hundred partitions does not start.
const OPEN_FILES_MIN: u64 = 4_096;
/// A partition that is written to keeps a file open, a connection one: thousands of partitions, and as many clients beside them.
const OPEN_FILES_GOOD: u64 = 100_000;
/// With less the node has no page cache to speak of.
const MEMORY_BYTES_MIN: u64 = 1 << 30;
/// Readers that keep up are served out of the page cache, which is what is left of memory.
const AVAILABLE_BYTES_GOOD: u64 = 1 << 30;
/// Clock sources that need no call into the kernel or the hypervisor.
const CLOCKS_FAST: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

/// Judges what was read.
pub(super) fn check(readings: &Readings) -> Vec<Finding> {
    let all = [open_files(readings), memory(readings), time_service(readings), clock_source(readings)];
    all.into_iter().flatten().chain(huge_pages(readings)).collect()
}

fn open_files(readings: &Readings) -> Option<Finding> {
    const CHECK: &str = "open files";
    let limit = readings.open_files?;
    if limit >= OPEN_FILES_GOOD {
        return Some(Finding::ok(
            CHECK,
            if limit == u64::MAX { "no limit".into() } else { limit.to_string() },
        ));
    }
    let level = if limit < OPEN_FILES_MIN { Level::Problem } else { Level::Warning };
    Some(Finding::bad(
        level,
        CHECK,
        format!("a node that this user starts may have {limit} files open, better {OPEN_FILES_GOOD}"),
        "each connection and each log that is written to keeps a file open; at the limit new connections wait",
        format!(
            "LimitNOFILE={OPEN_FILES_GOOD} in the unit (systemctl edit ottla); for shells: echo '* - nofile {OPEN_FILES_GOOD}' >> /etc/security/limits.d/60-ottla.conf, and log in anew"
        ),
    ))
}

fn memory(readings: &Readings) -> Option<Finding> {
    const CHECK: &str = "memory";
    let memory = readings.memory?;
    let shown = |count: u64| bytes(i64::try_from(count).unwrap_or(i64::MAX));
    let (total, available) = (shown(memory.total_bytes), shown(memory.available_bytes));
    if memory.total_bytes < MEMORY_BYTES_MIN {
        return Some(Finding::bad(
            Level::Warning,
            CHECK,
            format!("{total} in all"),
            "requests, indexes and the page cache share it: under load the process is killed for want of memory",
            "give the machine or the container at least 1 GiB; docs/sizing.md tells how much is good",
        ));
    }
    if memory.available_bytes < AVAILABLE_BYTES_GOOD {
        return Some(Finding::bad(
            Level::Advice,
            CHECK,
            format!("{available} of {total} are left"),
            "consumers that keep up are served out of the page cache; without room for it they read the disk",
            "ps -eo rss,comm --sort=-rss | head shows who has it",
        ));
    }
    Some(Finding::ok(CHECK, format!("{available} of {total} available")))
}

fn time_service(readings: &Readings) -> Option<Finding> {
    const CHECK: &str = "time service";
    Some(if readings.time_service? {
        Finding::ok(CHECK, "runs")
    } else {
        Finding::bad(
            Level::Warning,
            CHECK,
            "no chronyd, ntpd, timesyncd or ptp daemon runs",
            "records are found and deleted by their time: clocks that drift apart delete early and search wrong",
            "apt-get install chrony, or dnf install chrony && systemctl enable --now chronyd",
        )
    })
}

fn clock_source(readings: &Readings) -> Option<Finding> {
    const CHECK: &str = "clock source";
    let source = readings.clock_source.as_deref()?.trim();
    Some(if CLOCKS_FAST.contains(&source) {
        Finding::ok(CHECK, source)
    } else {
        Finding::bad(
            Level::Advice,
            CHECK,
            source,
            "every request looks at the clock several times, and with this source each look is a slow call",
            "cat /sys/devices/system/clocksource/clocksource0/available_clocksource; write tsc to current_clocksource beside it if it is there",
        )
    })
}

fn huge_pages(readings: &Readings) -> Option<Finding> {
    const CHECK: &str = "transparent huge pages";
    let mode = readings.huge_pages.as_deref()?;
    Some(if mode == "always" {
        Finding::bad(
            Level::Advice,
            CHECK,
            "always",
            "the kernel joins pages in the background: memory grows and writes wait while it does",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )
    } else {
        Finding::ok(CHECK, mode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::readings::Memory;

    fn levels(readings: &Readings) -> Vec<(String, Level)> {
        check(readings).into_iter().map(|finding| (finding.check, finding.level)).collect()
    }

    #[test]
    fn open_files_are_a_problem_a_warning_or_enough() {
        for (limit, level) in [
            (1_024, Level::Problem),
            (4_096, Level::Warning),
            (99_999, Level::Warning),
            (100_000, Level::Ok),
            (u64::MAX, Level::Ok),
        ] {
            let readings = Readings { open_files: Some(limit), ..Readings::default() };
            assert_eq!(levels(&readings), [("open files".to_owned(), level)], "{limit}");
        }
    }

    #[test]
    fn memory_is_judged_by_what_there_is_and_what_is_left() {
        let of = |total_bytes, available_bytes| {
            let memory = Some(Memory { total_bytes, available_bytes, swap_bytes: 0 });
            check(&Readings { memory, ..Readings::default() }).remove(0)
        };
        assert_eq!(of(512 << 20, 400 << 20).level, Level::Warning);
        assert_eq!(of(16 << 30, 100 << 20).level, Level::Advice);
        let enough = of(16 << 30, 8 << 30);
        assert_eq!((enough.level, enough.finding.as_str()), (Level::Ok, "8.0 GiB of 16.0 GiB available"));
    }

    #[test]
    fn clocks_and_pages() {
        let readings = Readings {
            time_service: Some(false),
            clock_source: Some("hpet\n".into()),
            huge_pages: Some("always".into()),
            ..Readings::default()
        };
        let all: Vec<_> = levels(&readings).into_iter().map(|(_, level)| level).collect();
        assert_eq!(all, [Level::Warning, Level::Advice, Level::Advice]);
        let readings = Readings {
            time_service: Some(true),
            clock_source: Some("kvm-clock\n".into()),
            huge_pages: Some("madvise".into()),
            ..Readings::default()
        };
        assert!(levels(&readings).iter().all(|(_, level)| *level == Level::Ok));
    }
}
