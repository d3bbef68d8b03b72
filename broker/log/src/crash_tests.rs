//! Every crash point of a log's life, tried: a script of appends, rolls, flushes, truncations, deletions and compactions is
//! watched, change by change, and after each change disks are made as a crash could have left them there. The log that opens
//! on them must hold what was promised, and nothing that never was.
//!
//! The model of a disk: bytes that were not synced may be there, or not, or in part, in any order; names change in order,
//! and those behind the directory's last sync may be undone.

mod disk;
mod script;

use std::io::Write;

use disk::{Disk, Loss};
use script::{Known, Run, Step, check, random};

use crate::fs::faults::{Made, Watcher, unwatch, watch};

/// Scripts that a test tries: four, or as many as the variable `OTTLA_CRASH_SEEDS` says, for a longer hunt, or the one of
/// `OTTLA_CRASH_SEED`, to see a failure again.
fn seeds(first: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    match number("OTTLA_CRASH_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("OTTLA_CRASH_SEEDS").unwrap_or(4),
    }
}

/// Fast, where there is one: a crash test makes thousands of small disks.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs a script without faults; gives what was changed and what was known at each note.
fn record(steps: &[Step], compacts: bool) -> (Vec<Made>, Vec<Known>) {
    let directory = temporary();
    watch(Watcher::default());
    let mut run = Run::create(directory.path(), compacts).unwrap();
    for step in steps {
        run.step(*step).unwrap();
    }
    (unwatch().made, run.knowns)
}

fn every_crash_point(seed: u64, compacts: bool) -> usize {
    let steps = script::steps(seed, compacts);
    let (made, knowns) = record(&steps, compacts);
    let mut points = 0;
    let mut disk = Disk::default();
    let mut now = 0;
    let mut rng = random(seed);
    for (at, change) in made.iter().enumerate() {
        if let Made::Note(number) = change {
            now = *number;
        }
        disk.apply(change);
        if knowns.is_empty() || !made[..=at].iter().any(|one| matches!(one, Made::Note(_))) {
            continue;
        }
        for loss in [Loss::Nothing, Loss::All, Loss::Bytes, Loss::Random, Loss::Random] {
            let directory = temporary();
            disk.write_to(directory.path(), loss, &mut rng);
            let context = format!("seed {seed}, change {at} {}, {loss:?}", describe(change));
            check(directory.path(), &knowns, now, loss == Loss::Nothing, compacts, &context);
            points += 1;
        }
    }
    points
}

fn describe(change: &Made) -> String {
    match change {
        Made::Write(path, at, bytes) => {
            format!("write of {} bytes at {at} of {}", bytes.len(), path.display())
        }
        other => format!("{other:?}"),
    }
}

/// Past the harness, which shows only what failing tests print: how much was tried is the half of what this says.
fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "crash tests: {what}");
}

/// I25, I26, I27, I28, I33, I34, I35.
#[test]
fn no_crash_loses_what_was_flushed_or_makes_up_what_was_not_written() {
    let points: usize = seeds(1).map(|seed| every_crash_point(seed, false)).sum();
    tell(&format!("{points} states of a disk after a crash"));
    assert!(points > 3_000, "{points}");
}

/// I34, I77, I78 over every state of the disk.
#[test]
fn no_crash_of_a_compaction_loses_a_value_or_brings_one_back() {
    let points: usize = seeds(100_001).map(|seed| every_crash_point(seed, true)).sum();
    tell(&format!("{points} states of a disk after a crash"));
    assert!(points > 3_000, "{points}");
}

/// I31, I32: whatever change fails, once or from then on, for want of space or for good: what was acknowledged stays.
#[test]
fn no_fault_of_the_disk_loses_what_was_acknowledged() {
    const ENOSPC: i32 = 28;
    const EIO: i32 = 5;
    let mut points = 0;
    let faulty = seeds(200_001).step_by(4).flat_map(|seed| [(seed, false), (seed, true)]);
    for (seed, compacts) in faulty {
        let steps = script::steps(seed, compacts);
        let count = record(&steps, compacts).0.len();
        for at in 0..count {
            for (code, fails_for_good) in [(ENOSPC, false), (ENOSPC, true), (EIO, false)] {
                let directory = temporary();
                watch(Watcher::default());
                let mut run = Run::create(directory.path(), compacts).unwrap();
                watch(Watcher { fail_at: Some((at, code)), fails_for_good, ..Watcher::default() });
                let mut has_room_again = false;
                for step in &steps {
                    let Err(error) = run.step(*step) else { continue };
                    if !error.is_no_space() || !run.can_go_on() {
                        break;
                    }
                    if fails_for_good && !has_room_again {
                        has_room_again = true;
                        watch(Watcher::default());
                    }
                }
                unwatch();
                let (mut knowns, attempt) = (run.knowns, run.attempt);
                drop(run.log);
                let now = knowns.len() - 1;
                knowns.push(attempt);
                let context = format!("seed {seed}, fault {code} at {at}, for good: {fails_for_good}");
                check(&directory.path().join("t-0"), &knowns, now, true, compacts, &context);
                points += 1;
            }
        }
    }
    tell(&format!("{points} faults"));
    assert!(points > 1_000, "{points}");
}
