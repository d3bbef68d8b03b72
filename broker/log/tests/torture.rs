//! A real process that appends, flushes, rolls, truncates and compacts, killed with SIGKILL at any moment, again and again, on one
//! directory. The page cache outlives it: every append that was told of must be there, byte for byte, in order (I25, I26, I27).

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use common::path;
use ottla_log::{Log, LogConfig, OpenOptions};
use ottla_wire::records::{BatchBuilder, BatchOptions, Batches};

/// Where the process that is killed works; its absence makes this the test.
const DIRECTORY: &str = "OTTLA_TORTURE_DIRECTORY";
/// Kills, or as many as the variable `OTTLA_TORTURE_KILLS` says.
const KILLS: u32 = 40;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 20_000, index_interval_bytes: 500, ..LogConfig::default() }
}

fn open(root: &std::path::Path) -> Log {
    let options = OpenOptions::default();
    if path(root).exists() {
        Log::open(&path(root), config(), options).unwrap().0
    } else {
        common::create(root, config())
    }
}

fn value(offset: i64) -> Vec<u8> {
    let length = usize::try_from(offset * 37 % 300).unwrap();
    offset.to_be_bytes().iter().copied().cycle().take(8 + length).collect()
}

/// The process that is killed: says on its standard output up to which offset it has appended.
fn work(root: &std::path::Path) {
    let mut log = open(root);
    let mut out = std::io::stdout().lock();
    let mut steps = log.end_offset();
    loop {
        steps += 1;
        let end = log.end_offset();
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for offset in end..=end + steps % 4 {
            builder.add(offset, None, Some(&value(offset)), &[]).unwrap();
        }
        log.append_as_leader(&mut BytesMut::from(&builder.finish().unwrap()[..]), 1, end).unwrap();
        log.update_high_watermark(log.end_offset());
        match steps % 50 {
            7 => log.roll().unwrap(),
            20 => drop(log.flush().unwrap()),
            33 => log.rest().unwrap(),
            _ => {}
        }
        writeln!(out, "{}", log.end_offset()).unwrap();
        out.flush().unwrap();
    }
}

fn check(root: &std::path::Path, told: i64) -> i64 {
    let log = open(root);
    assert!(log.end_offset() >= told, "ends at {}, told of {told}", log.end_offset());
    let mut next = 0;
    while next < log.end_offset() {
        let slice = log.read(next, 1 << 20, log.end_offset(), true).unwrap();
        for batch in Batches::new(slice.to_bytes().unwrap()) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                assert_eq!(record.offset, next);
                assert_eq!(record.value.as_deref(), Some(&value(next)[..]), "offset {next}");
                assert!(log.offset_for_timestamp(next).unwrap().is_some_and(|found| found.offset == next));
                next += 1;
            }
        }
    }
    next
}

#[test]
fn a_killed_process_loses_no_append_that_it_told_of() {
    if let Some(root) = std::env::var_os(DIRECTORY) {
        work(std::path::Path::new(&root));
    }
    let root = tempfile::tempdir().unwrap();
    let kills = std::env::var("OTTLA_TORTURE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut end = 0;
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", "a_killed_process_loses_no_append_that_it_told_of"])
            .env(DIRECTORY, root.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let pid = child.id();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(50_000 + u64::from(kill * 7_919 % 60_000)));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let told = lines.lines().filter_map(|line| line.ok()?.trim().parse().ok()).last().unwrap_or(end);
        killer.join().unwrap();
        let now = check(root.path(), told);
        assert!(now >= end, "kill {kill} of {pid}: ends at {now}, ended at {end}");
        end = now;
    }
    println!("{kills} kills, {end} records");
    assert!(end > i64::from(kills) * 10, "{end} records are too few to say anything");
}
