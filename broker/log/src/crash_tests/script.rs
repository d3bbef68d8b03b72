//! A life of a log, what is known of it at each step, and the check of what a crash has left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use ottla_wire::records::{BatchBuilder, BatchOptions, Batches};
use uuid::Uuid;

use crate::compaction::{CompactionError, OffsetMap, compact};
use crate::config::LogConfig;
use crate::error::LogError;
use crate::fs::faults::note;
use crate::log::Log;
use crate::recovery::OpenOptions;
use crate::retention::remove_files;

/// The same numbers for the same seed.
pub(super) struct Random(u64);

pub(super) fn random(seed: u64) -> Random {
    Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
}

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// So many records, with keys and values by this number.
    Append(usize, usize),
    Roll,
    Flush,
    /// An append, a truncation too, between a flush's beginning and its end.
    FlushAround(usize),
    /// By so many offsets.
    Truncate(i64),
    BeginAnew,
    /// The log's start moves by so many offsets, and segments go.
    Delete(i64),
    Compact(usize),
    Reopen,
}

pub(super) fn steps(seed: u64, compacts: bool) -> Vec<Step> {
    let mut random = random(seed);
    (0..if compacts { 45 } else { 60 })
        .map(|number| match random.below(24) {
            0..=10 => Step::Append(1 + random.below(3), random.below(1 << 20)),
            11 => Step::Roll,
            12..=14 => Step::Flush,
            15 => Step::FlushAround(number),
            16..=18 if compacts => Step::Compact(4 + random.below(30)),
            16..=17 => Step::Truncate(i64::try_from(1 + random.below(12)).unwrap()),
            18 if number > 30 => Step::BeginAnew,
            19..=20 if !compacts => Step::Delete(i64::try_from(random.below(6)).unwrap()),
            21 => Step::Reopen,
            _ => Step::Append(2, random.below(1 << 20)),
        })
        .collect()
}

/// A key and a value; no value: a tombstone.
type Record = (u8, Option<u32>);

/// What is known when a step has ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// First offset and records of each batch that was appended and not cut.
    batches: Vec<(i64, Vec<Record>)>,
    start: i64,
    end: i64,
    /// Everything before this offset was reported to be on disk.
    flushed: i64,
    /// What the checkpoint of recovery points may say at most.
    told: i64,
}

pub(super) struct Run {
    pub(super) log: Option<Log>,
    pub(super) knowns: Vec<Known>,
    /// What will be known when the step that is under way has ended.
    pub(super) attempt: Known,
    path: PathBuf,
    first_dirty: Option<i64>,
    now_ms: i64,
    compacts: bool,
}

fn config(compacts: bool) -> LogConfig {
    LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 100,
        deletes: false,
        compacts,
        delete_retention_ms: 3,
        ..LogConfig::default()
    }
}

impl Run {
    pub(super) fn create(root: &Path, compacts: bool) -> Result<Self, LogError> {
        let path = root.join("t-0");
        let log = Log::create(&path, Uuid::from_u128(7), config(compacts), 0)?;
        note(0);
        let knowns = vec![Known::default()];
        Ok(Self {
            log: Some(log),
            knowns,
            attempt: Known::default(),
            path,
            first_dirty: None,
            now_ms: 0,
            compacts,
        })
    }

    fn log(&mut self) -> Result<&mut Log, LogError> {
        let path = &self.path;
        self.log.as_mut().ok_or_else(|| LogError::corrupt(path, 0, "closed"))
    }

    /// Whether the log is worth another step.
    pub(super) fn can_go_on(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.check_usable().is_ok())
    }

    /// One step. What is known afterwards is noted among the changes.
    pub(super) fn step(&mut self, step: Step) -> Result<(), LogError> {
        self.now_ms += 1;
        self.attempt = self.knowns.last().unwrap().clone();
        if let Err(error) = self.carry_out(step) {
            // The log's start moves first, and the files go then.
            if let (Some(log), Some(known)) = (&self.log, self.knowns.last_mut()) {
                known.start = known.start.max(log.log_start_offset());
            }
            return Err(error);
        }
        let end = self.attempt.end;
        let log = self.log()?;
        log.update_high_watermark(end);
        assert_eq!(log.end_offset(), end, "{step:?}");
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        note(self.knowns.len());
        self.knowns.push(self.attempt.clone());
    }

    fn append(&mut self, count: usize, number: usize) -> Result<(), LogError> {
        let record = |n: usize| {
            let key = u8::try_from((number + n * 7) % 9).unwrap();
            (key, (!(number + n).is_multiple_of(5)).then_some(u32::try_from(number * 3 + n).unwrap()))
        };
        let records: Vec<Record> = (0..count).map(record).collect();
        let epoch = i32::try_from(self.knowns.len() / 10).unwrap();
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for (key, value) in &records {
            let value = value.map(u32::to_be_bytes);
            builder.add(5, Some(&[*key]), value.as_ref().map(<[u8; 4]>::as_slice), &[]).unwrap();
        }
        let mut bytes = BytesMut::from(&builder.finish().unwrap()[..]);
        let first = self.attempt.end;
        self.attempt.end += i64::try_from(count).unwrap();
        self.attempt.batches.push((first, records));
        let now_ms = self.now_ms;
        self.log()?.append_as_leader(&mut bytes, epoch, now_ms).map(drop)
    }

    fn truncate(&mut self, by: i64) -> Result<(), LogError> {
        let known = &mut self.attempt;
        let target = (known.end - by).max(known.start);
        let end_of = |(first, records): &(i64, Vec<Record>)| first + i64::try_from(records.len()).unwrap();
        // A batch that holds the target goes whole.
        let gone = known.batches.iter().find(|batch| end_of(batch) > target).map(|(first, _)| *first);
        known.batches.retain(|batch| end_of(batch) <= target);
        known.end = gone.unwrap_or(known.end);
        known.flushed = known.flushed.min(known.end);
        let log = self.log()?;
        log.truncate_to(target)?;
        let (start, end) = (log.log_start_offset(), log.end_offset());
        (self.attempt.start, self.attempt.end) = (start, end);
        self.attempt.flushed = self.attempt.flushed.min(end);
        Ok(())
    }

    fn flushed(&mut self, offset: i64) {
        self.attempt.flushed = self.attempt.flushed.max(offset);
        self.attempt.told = self.attempt.told.max(offset);
    }

    fn carry_out(&mut self, step: Step) -> Result<(), LogError> {
        match step {
            Step::Append(count, number) => self.append(count, number),
            Step::Roll => self.log()?.roll(),
            Step::Flush => {
                let offset = self.log()?.flush()?;
                self.flushed(offset);
                Ok(())
            }
            Step::FlushAround(number) => {
                let mut ticket = self.log()?.begin_flush()?;
                self.append(2, number)?;
                self.settle();
                if !self.compacts {
                    self.truncate(3)?;
                    self.settle();
                    self.append(1, number)?;
                    self.settle();
                }
                ticket.sync()?;
                let offset = self.log()?.finish_flush(ticket)?;
                self.flushed(offset);
                Ok(())
            }
            Step::Truncate(by) => self.truncate(by),
            Step::BeginAnew => {
                let offset = self.attempt.end + 5;
                self.attempt = Known {
                    start: offset,
                    end: offset,
                    told: self.attempt.told,
                    flushed: 0,
                    batches: Vec::new(),
                };
                self.log()?.truncate_fully_and_start_at(offset)
            }
            Step::Delete(by) => {
                let known = &mut self.attempt;
                known.start = (known.start + by).min(known.end);
                let (start, end, now_ms) = (known.start, known.end, self.now_ms);
                let log = self.log()?;
                log.increment_log_start_offset(start)?;
                let paths = log.delete_old_segments(now_ms, end)?;
                remove_files(&paths)
            }
            Step::Compact(slots) => self.compact(slots),
            Step::Reopen => {
                if let Some(log) = self.log.take() {
                    log.close()?;
                }
                self.flushed(self.attempt.end);
                let options = OpenOptions {
                    recovery_point: self.attempt.told,
                    clean_shutdown: true,
                    log_start_offset: self.attempt.start,
                    now_ms: self.now_ms,
                    ..OpenOptions::default()
                };
                self.log = Some(Log::open(&self.path, config(self.compacts), options)?.0);
                Ok(())
            }
        }
    }

    fn compact(&mut self, slots: usize) -> Result<(), LogError> {
        let (first_dirty, now_ms) = (self.first_dirty, self.now_ms);
        let log = self.log()?;
        let Some(plan) = log.plan_compaction(first_dirty, now_ms)? else { return Ok(()) };
        let mut map = OffsetMap::with_budget(slots * crate::compaction::SLOT_BYTES);
        let result = compact(&plan, &mut map, &mut |_| true, &mut |group| {
            let removed = log.swap_cleaned(group)?;
            Ok(remove_files(&removed)?)
        });
        match result {
            Ok(report) => {
                self.first_dirty = self.log()?.finish_compaction(plan, &report);
                Ok(())
            }
            Err(CompactionError::Log(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a log holds: offset and record.
fn content(log: &Log) -> Result<Vec<(i64, Record)>, LogError> {
    let mut found = Vec::new();
    let mut next = log.log_start_offset();
    while next < log.end_offset() {
        let slice = log.read(next, 2_000, log.end_offset(), true)?;
        for batch in Batches::new(slice.to_bytes().unwrap()) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                if record.offset >= next {
                    let value = record.value.map(|value| u32::from_be_bytes(value[..].try_into().unwrap()));
                    found.push((record.offset, (record.key.unwrap()[0], value)));
                }
            }
        }
        next = slice.next_offset_max.max(next + 1);
    }
    Ok(found)
}

fn records(known: &Known, from: i64, to: i64) -> impl Iterator<Item = (i64, Record)> {
    let all = known.batches.iter().flat_map(|(first, records)| (*first..).zip(records.iter().copied()));
    all.filter(move |(offset, _)| (from..to).contains(offset))
}

fn fold(records: impl Iterator<Item = (i64, Record)>) -> BTreeMap<u8, u32> {
    let mut state = BTreeMap::new();
    for (_, (key, value)) in records {
        match value {
            Some(value) => drop(state.insert(key, value)),
            None => drop(state.remove(&key)),
        }
    }
    state
}

/// Opens what a crash has left, twice, and says what is wrong with it. `now`: the last step that had ended.
pub(super) fn check(
    path: &Path,
    knowns: &[Known],
    now: usize,
    is_all_there: bool,
    compacts: bool,
    context: &str,
) {
    let known = &knowns[now];
    let next = knowns.get(now + 1).unwrap_or(known);
    // A checkpoint may be older than the last cut; or, every other time, it is not, and then damage before it would be a loss.
    let is_exact = now % 2 == 1;
    let first = if is_exact { known.flushed.min(next.flushed) } else { known.told };
    for (round, recovery_point) in [first, 0].into_iter().enumerate() {
        let options = OpenOptions {
            recovery_point,
            log_start_offset: known.start,
            keeps_damage: is_exact,
            ..OpenOptions::default()
        };
        let context = format!("{context}, opening {round}");
        let (mut log, _) =
            Log::open(path, config(compacts), options).unwrap_or_else(|error| panic!("{context}: {error}"));
        let (start, end) = (log.log_start_offset(), log.end_offset());
        let found = content(&log).unwrap_or_else(|error| panic!("{context}: {error}"));
        let floor = if is_all_there { known.end.min(next.end) } else { known.flushed.min(next.flushed) };
        // The log was about to begin anew behind its end: whatever is left of it is no loss.
        let is_anew = next.start > known.end;
        assert!(end >= floor || is_anew, "{context}: ends at {end}, not at {floor}");
        assert!(start <= known.start.max(next.start), "{context}: begins at {start}");
        let is_known = |version: &&Known| {
            if compacts {
                return version.end >= end
                    && fold(found.iter().copied()) == fold(records(version, 0, end))
                    && found.iter().all(|one| records(version, one.0, one.0 + 1).next() == Some(*one));
            }
            version.end >= end && records(version, start, end).eq(found.iter().copied())
        };
        let version = knowns[..knowns.len().min(now + 2)].iter().rev().find(is_known);
        assert!(
            version.is_some() || is_anew,
            "{context}: {start}..{end} never was: {found:?}; {known:?} {next:?}"
        );
        let mut names =
            std::fs::read_dir(path).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap());
        let leftover =
            names.find(|name| [".swap", ".cleaned", ".deleted", ".tmp"].iter().any(|it| name.ends_with(it)));
        assert_eq!(leftover, None, "{context}");
        if round == 1 {
            log.append_as_leader(&mut a_batch(), 1_000, 9)
                .unwrap_or_else(|error| panic!("{context}: {error}"));
        }
    }
}

fn a_batch() -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.add(5, Some(&[1]), None, &[]).unwrap();
    BytesMut::from(&builder.finish().unwrap()[..])
}
