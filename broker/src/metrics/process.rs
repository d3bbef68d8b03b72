//! What every Prometheus client library tells of its process: CPU, memory, open files and their limit, threads, since when it runs;
//! and the bytes that it had from disks and gave to them (Kafka's `linux-disk-read-bytes`, `linux-disk-write-bytes`). Read from `/proc`.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::scrape::counter;

/// Ticks of a second in `/proc/self/stat`: fixed on Linux for user space (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a page as `/proc/self/statm` counts them.
const PAGE_BYTES: i64 = 4096;

/// Reads at each scrape; on a system without `/proc` it has nothing to say.
#[derive(Debug)]
pub(super) struct Process;

#[derive(Debug, PartialEq)]
struct Reading {
    cpu_seconds: f64,
    threads: i64,
    /// From the machine's start to the process's.
    begun_seconds: f64,
    virtual_bytes: i64,
    resident_bytes: i64,
}

/// `stat`: fields behind the command's closing parenthesis; 12 and 13 are user and system ticks, 18 the threads, 20 the tick at which
/// the process began, 21 its bytes of address space.
fn parse(stat: &str, statm: &str) -> Option<Reading> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<i32>().ok();
    let long = |index: usize| fields.get(index)?.parse::<i64>().ok();
    Some(Reading {
        cpu_seconds: (f64::from(field(11)?) + f64::from(field(12)?)) / TICKS_PER_SECOND,
        threads: field(17)?.into(),
        begun_seconds: long(19)? as f64 / TICKS_PER_SECOND,
        virtual_bytes: long(20)?,
        resident_bytes: statm
            .split_ascii_whitespace()
            .nth(1)?
            .parse::<i64>()
            .ok()?
            .checked_mul(PAGE_BYTES)?,
    })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A line `NAME VALUE` or `NAME: VALUE` of a file that has one a line.
fn line(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim_start_matches(':').split_ascii_whitespace().next()?.parse().ok()
}

/// How long this process runs, to a hundredth of a second.
pub(super) fn age_seconds() -> Option<f64> {
    let up: f64 = read("/proc/uptime").split_ascii_whitespace().next()?.parse().ok()?;
    let reading = parse(&read("/proc/self/stat"), &read("/proc/self/statm"))?;
    Some((up - reading.begun_seconds).max(1.0 / TICKS_PER_SECOND))
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(reading) = parse(&read("/proc/self/stat"), &read("/proc/self/statm")) else { return Ok(()) };
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let help = "User and system time of this process";
        ConstCounter::new(reading.cpu_seconds).encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            MetricType::Counter,
        )?)?;
        let io = read("/proc/self/io");
        for (name, key, help) in [
            (
                "ottla_disk_read_bytes",
                "read_bytes",
                "Bytes that this process had from disks, not from the page cache",
            ),
            (
                "ottla_disk_written_bytes",
                "write_bytes",
                "Bytes that this process gave the page cache for disks",
            ),
        ] {
            if let Some(bytes) = line(&io, key) {
                counter(&mut encoder, name, help, bytes)?;
            }
        }
        // In seconds since 1970, as everywhere.
        if let Some(booted) = line(&read("/proc/stat"), "btime") {
            let begun = ConstGauge::new(booted as f64 + reading.begun_seconds);
            let help = "When this process began, in seconds since 1970";
            begun.encode(encoder.encode_descriptor(
                "process_start_time_seconds",
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        let mut gauge = |name: &str, help: &str, value: i64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge(
            "process_resident_memory_bytes",
            "Memory of this process that is resident",
            reading.resident_bytes,
        )?;
        gauge("process_virtual_memory_bytes", "Address space of this process", reading.virtual_bytes)?;
        gauge("process_threads", "Threads of this process", reading.threads)?;
        gauge("process_open_fds", "Open files and sockets of this process", super::scrape::whole(open))?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.map_or(i64::MAX, super::scrape::whole);
        gauge("process_max_fds", "Files and sockets that this process may have open", limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_is_stepped_over() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 11 0 8 9 10";
        let found = parse(stat, "900 25 5 1 0 1 0").unwrap();
        let expected = Reading {
            cpu_seconds: 2.0,
            threads: 11,
            begun_seconds: 0.08,
            virtual_bytes: 9,
            resident_bytes: 25 * 4096,
        };
        assert_eq!(found, expected);
        assert_eq!(parse("", ""), None);
    }

    #[test]
    fn a_line_is_found_by_its_name() {
        let io = "rchar: 5\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n";
        assert_eq!((line(io, "read_bytes"), line(io, "write_bytes")), (Some(4_096), Some(8_192)));
        assert_eq!(line("cpu 1 2\nbtime 1700000000\n", "btime"), Some(1_700_000_000));
        assert_eq!(line("", "btime"), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let found = parse(&read("/proc/self/stat"), &read("/proc/self/statm")).unwrap();
        assert!(age_seconds().is_some_and(|age_s| age_s > 0.0 && age_s < 3_600.0));
        assert!(found.threads >= 1 && found.resident_bytes > 100_000, "{found:?}");
    }
}
