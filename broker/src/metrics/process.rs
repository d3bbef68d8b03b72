//! What every Prometheus client library tells of its process: CPU, memory, open files, threads. Read from `/proc`.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

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
    resident_bytes: i64,
}

/// `stat`: fields behind the command's closing parenthesis; 12 and 13 are user and system ticks, 18 the threads.
fn parse(stat: &str, statm: &str) -> Option<Reading> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<i32>().ok();
    Some(Reading {
        cpu_seconds: (f64::from(field(11)?) + f64::from(field(12)?)) / TICKS_PER_SECOND,
        threads: field(17)?.into(),
        resident_bytes: statm
            .split_ascii_whitespace()
            .nth(1)?
            .parse::<i64>()
            .ok()?
            .checked_mul(PAGE_BYTES)?,
    })
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let Some(reading) = parse(&read("stat"), &read("statm")) else { return Ok(()) };
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let cpu = encoder.encode_descriptor(
            "process_cpu_seconds",
            "User and system time of this process",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(reading.cpu_seconds).encode(cpu)?;
        let mut gauge = |name: &str, help: &str, value: i64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge(
            "process_resident_memory_bytes",
            "Memory of this process that is resident",
            reading.resident_bytes,
        )?;
        gauge("process_threads", "Threads of this process", reading.threads)?;
        gauge("process_open_fds", "Open files and sockets of this process", super::scrape::whole(open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_is_stepped_over() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 11 0 8 9 10";
        let found = parse(stat, "900 25 5 1 0 1 0").unwrap();
        assert_eq!(found, Reading { cpu_seconds: 2.0, threads: 11, resident_bytes: 25 * 4096 });
        assert_eq!(parse("", ""), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap();
        let found = parse(&read("stat"), &read("statm")).unwrap();
        assert!(found.threads >= 1 && found.resident_bytes > 100_000, "{found:?}");
    }
}
