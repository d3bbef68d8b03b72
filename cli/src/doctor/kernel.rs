//! Settings of the kernel. The values are those that Kafka's operators have settled on (O'Reilly's "Kafka: The Definitive Guide",
//! chapter on installing); they hold here as the load is the same: large sequential writes, the page cache, many connections.

use super::{Finding, Level, Readings};

/// What a value has to be.
enum Wanted {
    AtMost(u64),
    AtLeast(u64),
    /// Of a setting of three numbers the last: the most that a buffer grows to.
    LastAtLeast(u64),
}

/// A setting: its name, what it has to be, the value that mends it, how bad it is, why.
type Rule = (&'static str, Wanted, &'static str, Level, &'static str);

const BUFFERS: &str =
    "connections between data centres and of fast clients fill larger socket buffers than this";

const RULES: [Rule; 14] = [
    (
        "vm.swappiness",
        Wanted::AtMost(1),
        "1",
        Level::Warning,
        "the kernel swaps the process out to keep file pages, and a broker that waits for its swap misses its lease",
    ),
    (
        "vm.dirty_background_ratio",
        Wanted::AtMost(5),
        "5",
        Level::Advice,
        "written pages pile up before the disk is asked to take them, and then all come at once",
    ),
    (
        "vm.dirty_ratio",
        Wanted::AtLeast(60),
        "60",
        Level::Advice,
        "writers are stopped early when the disk falls behind for a moment",
    ),
    (
        "vm.max_map_count",
        Wanted::AtLeast(65_530),
        "262144",
        Level::Warning,
        "allocator and threads run out of memory mappings long before memory",
    ),
    ("net.core.rmem_default", Wanted::AtLeast(131_072), "131072", Level::Advice, BUFFERS),
    ("net.core.wmem_default", Wanted::AtLeast(131_072), "131072", Level::Advice, BUFFERS),
    ("net.core.rmem_max", Wanted::AtLeast(2_097_152), "2097152", Level::Advice, BUFFERS),
    ("net.core.wmem_max", Wanted::AtLeast(2_097_152), "2097152", Level::Advice, BUFFERS),
    ("net.ipv4.tcp_rmem", Wanted::LastAtLeast(2_097_152), "4096 131072 2097152", Level::Advice, BUFFERS),
    ("net.ipv4.tcp_wmem", Wanted::LastAtLeast(2_097_152), "4096 65536 2097152", Level::Advice, BUFFERS),
    (
        "net.ipv4.tcp_window_scaling",
        Wanted::AtLeast(1),
        "1",
        Level::Warning,
        "no connection has more than 64 KiB under way, however large its buffers are",
    ),
    (
        "net.ipv4.tcp_max_syn_backlog",
        Wanted::AtLeast(1_024),
        "4096",
        Level::Advice,
        "clients that come back all at once after a restart are dropped before they are accepted",
    ),
    (
        "net.core.somaxconn",
        Wanted::AtLeast(1_024),
        "4096",
        Level::Advice,
        "clients that come back all at once after a restart wait for a second try",
    ),
    (
        "net.core.netdev_max_backlog",
        Wanted::AtLeast(1_000),
        "5000",
        Level::Advice,
        "packets that come faster than they are taken are dropped and sent again",
    ),
];

/// Names of all settings that are judged: what the reader reads.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(name, ..)| *name)
}

/// Judges those that were read.
pub(super) fn check(readings: &Readings) -> Vec<Finding> {
    let has_no_swap = readings.memory.is_some_and(|memory| memory.swap_bytes == 0);
    let judge = |(name, wanted, better, level, why): &Rule| {
        let text = readings.kernel.get(*name)?;
        let shown = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if has_no_swap && *name == "vm.swappiness" {
            return Some(Finding::ok(*name, format!("{shown}, and there is no swap")));
        }
        let is_good = is_good(name, wanted, text)?;
        Some(if is_good {
            Finding::ok(*name, shown)
        } else {
            let mend = format!(
                "sysctl -w {name}=\"{better}\" && echo '{name} = {better}' >> /etc/sysctl.d/60-ottla.conf"
            );
            Finding::bad(*level, *name, format!("{shown}, better {better}"), *why, mend)
        })
    };
    RULES.iter().filter_map(judge).collect()
}

/// `None`: it is no number.
fn is_good(name: &str, wanted: &Wanted, text: &str) -> Option<bool> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let first = numbers.next()?.ok()?;
    Some(match wanted {
        // The kernel shows 0 where somebody has set the limit in bytes: then they have thought about it.
        _ if first == 0 && name.starts_with("vm.dirty") => true,
        Wanted::AtMost(most) => first <= *most,
        Wanted::AtLeast(least) => first >= *least,
        Wanted::LastAtLeast(least) => numbers.next_back()?.ok()? >= *least,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::readings::Memory;

    fn judge(name: &str, value: &str) -> Vec<Finding> {
        check(&Readings { kernel: [(name.to_owned(), value.to_owned())].into(), ..Readings::default() })
    }

    #[track_caller]
    fn level(name: &str, value: &str) -> Level {
        judge(name, value)[0].level
    }

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(level("vm.swappiness", "1\n"), Level::Ok);
        assert_eq!(level("vm.swappiness", "2"), Level::Warning);
        assert_eq!(level("net.core.rmem_max", "2097152"), Level::Ok);
        assert_eq!(level("net.core.rmem_max", "2097151"), Level::Advice);
        assert_eq!(level("net.ipv4.tcp_window_scaling", "0"), Level::Warning);
    }

    #[test]
    fn without_swap_nothing_is_swapped_out() {
        let of = |swap_bytes| {
            let memory = Some(Memory { total_bytes: 8 << 30, available_bytes: 4 << 30, swap_bytes });
            let kernel = [("vm.swappiness".to_owned(), "60".to_owned())].into();
            check(&Readings { kernel, memory, ..Readings::default() }).remove(0).level
        };
        assert_eq!((of(0), of(1 << 30)), (Level::Ok, Level::Warning));
    }

    #[test]
    fn of_three_numbers_the_last_counts() {
        assert_eq!(level("net.ipv4.tcp_rmem", "4096\t131072\t6291456"), Level::Ok);
        assert_eq!(level("net.ipv4.tcp_rmem", "4096\t9999999\t212992"), Level::Advice);
    }

    #[test]
    fn ratios_that_give_way_to_bytes_are_left_alone() {
        assert_eq!(level("vm.dirty_ratio", "0"), Level::Ok);
        assert_eq!(level("vm.dirty_ratio", "20"), Level::Advice);
        assert_eq!(level("vm.dirty_background_ratio", "10"), Level::Advice);
    }

    #[test]
    fn the_command_sets_it_now_and_for_good() {
        let mend = judge("net.ipv4.tcp_wmem", "1 2 3")[0].mend.clone().unwrap();
        assert_eq!(
            mend,
            "sysctl -w net.ipv4.tcp_wmem=\"4096 65536 2097152\" && echo 'net.ipv4.tcp_wmem = 4096 65536 2097152' >> /etc/sysctl.d/60-ottla.conf"
        );
    }

    #[test]
    fn what_is_no_number_is_not_judged() {
        for value in ["", "x", "4096 131072 x"] {
            assert_eq!(judge("net.ipv4.tcp_rmem", value), [], "{value}");
        }
    }

    #[test]
    fn what_mends_a_setting_passes_its_own_check() {
        for (name, _, better, ..) in &RULES {
            assert_eq!(level(name, better), Level::Ok, "{name}");
        }
    }
}
