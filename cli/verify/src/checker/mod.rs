//! Takes the events of a history one by one, and judges.
//!
//! What can be judged at once is judged at once (`take`); what needs to know how all ended is judged in the end (`finish`).
//! Memory follows the number of batches, not of records, and what lies in one run takes one entry.

mod finish;
mod lane;
mod log;
mod runs;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_transactions;

use std::collections::{BTreeMap, HashMap};

use self::lane::{Fate, Lane, Sending};
use self::log::Log;
use self::runs::Ranges;
use crate::history::{Event, Header, HistoryError, Outcome};
use crate::report::{Counts, Invariant, Report, Wait};

/// Violations that are shown of each invariant; all are counted.
const EXAMPLES_MAX: usize = 10;
/// Longest waits that are shown.
const WAITS_MAX: usize = 5;
/// Index of the views of readers of all records, and of committed ones.
const ALL: usize = 0;
const COMMITTED: usize = 1;

/// A transaction.
#[derive(Debug, Default)]
struct Transaction {
    /// A commit was asked for.
    commit_asked: bool,
    outcome: Option<Outcome>,
    /// A reader of committed records was given one of it.
    visible: bool,
}

#[derive(Debug, Default)]
struct Violations {
    count: u64,
    examples: Vec<String>,
}

/// The checker.
#[derive(Debug)]
pub struct Checker {
    header: Header,
    lanes: BTreeMap<(u32, u32), Lane>,
    logs: Vec<Log>,
    readers: HashMap<u32, usize>,
    /// Sendings without an outcome so far: writer, partition, first number.
    open: HashMap<u64, (u32, u32, u64)>,
    transactions: HashMap<u64, Transaction>,
    violations: BTreeMap<Invariant, Violations>,
    counts: Counts,
    waits: Vec<Wait>,
    last_time: u64,
    is_final: bool,
    is_drained: bool,
}

impl Checker {
    /// Begins with the header, which is the first event.
    pub fn new(first: &Event) -> Result<Self, HistoryError> {
        let Event::History(header) = first else { return Err(HistoryError::NoHeader) };
        header.check()?;
        Ok(Self {
            logs: (0..header.partitions()).map(|_| Log::default()).collect(),
            header: header.clone(),
            lanes: BTreeMap::new(),
            readers: HashMap::new(),
            open: HashMap::new(),
            transactions: HashMap::new(),
            violations: BTreeMap::new(),
            counts: Counts::default(),
            waits: Vec::new(),
            last_time: 0,
            is_final: false,
            is_drained: false,
        })
    }

    /// Takes the next event.
    pub fn take(&mut self, event: &Event) -> Result<(), HistoryError> {
        match event {
            Event::History(_) => return Err(contradiction("a second header")),
            Event::Reader { r, committed } => {
                self.readers.insert(*r, if *committed { COMMITTED } else { ALL });
            }
            Event::Send { t, op, w, p, n, c, x, src } => {
                self.at(*t);
                let sending =
                    Sending { count: *c, began: *t, fate: Fate::Open, transaction: *x, sources: src.clone() };
                self.send(*op, (*w, *p, *n), sending)?;
            }
            Event::Sent { t, op, o } => self.sent(*t, *op, *o)?,
            Event::Refused { t, op, .. } => self.not_sent(*t, *op, Fate::Refused)?,
            Event::Unknown { t, op, .. } => self.not_sent(*t, *op, Fate::Unknown)?,
            Event::End { t, x, commit } => {
                self.at(*t);
                self.transaction(*x).commit_asked |= commit;
            }
            Event::Ended { t, x, outcome } => {
                self.at(*t);
                self.transaction(*x).outcome = Some(*outcome);
            }
            Event::Poll { s, t, r, p, from, next, hw, epoch, runs, alien } => {
                self.at(*t);
                self.counts.polls += 1;
                let view = self.view(*r)?;
                self.log(*p)?;
                self.check_watermark((*s, *t), *p, *epoch, *hw)?;
                self.check_place(*r, *p, *from)?;
                self.check_aliens(*p, alien);
                self.poll(view, *t, *p, (*from, *next), runs)?;
                self.log(*p)?.positions.insert(*r, *next);
            }
            Event::Seek { t, r, p, to } => {
                self.at(*t);
                self.view(*r)?;
                self.log(*p)?.positions.insert(*r, *to);
            }
            Event::OutOfRange { s, t, r, p, at } => {
                self.at(*t);
                let was_there = self.log(*p)?.positions.get(r) == Some(at);
                let floor = self.log(*p)?.floor.before(*s);
                if was_there || floor.is_some_and(|floor| *at <= floor) {
                    let text =
                        format!("{}: reader {r} had come to {at}, which is out of range", self.name(*p));
                    self.refute(Invariant::WatermarkMonotone, text);
                }
            }
            Event::Look { s, t, p, end } => {
                self.at(*t);
                if let Some(floor) = self.log(*p)?.floor.before(*s).filter(|floor| floor > end) {
                    let text = format!("{}: it ended at {end} after {floor} was reached", self.name(*p));
                    self.refute(Invariant::WatermarkMonotone, text);
                }
            }
            Event::Final { t, ends } => {
                self.at(*t);
                if ends.len() != self.logs.len() {
                    return Err(contradiction("the ends are not those of all partitions"));
                }
                for (log, end) in self.logs.iter_mut().zip(ends) {
                    log.end = Some(*end);
                }
                self.is_final = true;
            }
            Event::Drained { t } => {
                self.at(*t);
                self.is_drained = true;
            }
            Event::Note { t, .. } => self.at(*t),
        }
        Ok(())
    }

    /// All events were taken.
    pub fn finish(self) -> Report {
        finish::finish(self)
    }

    fn at(&mut self, time: u64) {
        self.last_time = self.last_time.max(time);
    }

    fn name(&self, partition: u32) -> String {
        self.header.partition_name(partition)
    }

    fn refute(&mut self, invariant: Invariant, text: String) {
        let violations = self.violations.entry(invariant).or_default();
        violations.count += 1;
        if violations.examples.len() < EXAMPLES_MAX {
            violations.examples.push(text);
        }
    }

    fn log(&mut self, partition: u32) -> Result<&mut Log, HistoryError> {
        let found = usize::try_from(partition).ok().and_then(|at| self.logs.get_mut(at));
        found.ok_or_else(|| contradiction(&format!("there is no partition {partition}")))
    }

    fn view(&self, reader: u32) -> Result<usize, HistoryError> {
        let found = self.readers.get(&reader).copied();
        found.ok_or_else(|| contradiction(&format!("reader {reader} was not introduced")))
    }

    fn transaction(&mut self, id: u64) -> &mut Transaction {
        self.transactions.entry(id).or_default()
    }

    fn send(&mut self, op: u64, place: (u32, u32, u64), sending: Sending) -> Result<(), HistoryError> {
        let (w, p, n) = place;
        self.log(p)?;
        if let Some(id) = sending.transaction {
            self.transactions.entry(id).or_default();
        }
        let lane = self.lanes.entry((w, p)).or_default();
        // Room is kept so that numbers fit offsets.
        let end = n.checked_add(u64::from(sending.count)).filter(|end| i64::try_from(*end).is_ok());
        let (true, Some(end), 1..) = (lane.next == n, end, sending.count) else {
            let text = format!("writer {w} sends {} records from {n} on after {}", sending.count, lane.next);
            return Err(contradiction(&text));
        };
        if self.open.insert(op, (w, p, n)).is_some() {
            return Err(contradiction(&format!("sending {op} begins twice")));
        }
        lane.next = end;
        self.counts.sent += u64::from(sending.count);
        lane.sendings.insert(n, sending);
        Ok(())
    }

    fn take_open(&mut self, op: u64) -> Result<(u32, u32, u64), HistoryError> {
        let found = self.open.remove(&op);
        found.ok_or_else(|| contradiction(&format!("sending {op} ends without having begun")))
    }

    fn sent(&mut self, t: u64, op: u64, offset: i64) -> Result<(), HistoryError> {
        self.at(t);
        let (w, p, n) = self.take_open(op)?;
        let Some(lane) = self.lanes.get_mut(&(w, p)) else { return Ok(()) };
        let Some(sending) = lane.sendings.get(&n) else { return Ok(()) };
        let (count, began) = (sending.count, sending.began);
        if offset.checked_add(i64::from(count)).is_none() {
            return Err(contradiction("an offset beyond all offsets"));
        }
        lane.acknowledge(n, offset);
        self.counts.acknowledged += u64::from(count);
        if offset >= 0 {
            self.log(p)?.floor.raise(t, offset + i64::from(count));
        }
        self.waited(p, began, t);
        Ok(())
    }

    fn waited(&mut self, partition: u32, began: u64, ended: u64) {
        let wait_us = ended.saturating_sub(began);
        let name = self.name(partition);
        // The longest of each partition: one that stood still holds up all who write to it.
        match self.waits.iter_mut().find(|wait| wait.partition == name) {
            Some(known) if known.wait_us >= wait_us => return,
            Some(known) => (known.at_us, known.wait_us) = (began, wait_us),
            None => {
                let is_full = self.waits.len() >= WAITS_MAX;
                if is_full && self.waits.last().is_some_and(|shortest| shortest.wait_us >= wait_us) {
                    return;
                }
                self.waits.push(Wait { partition: name, at_us: began, wait_us });
            }
        }
        self.waits.sort_by_key(|wait| std::cmp::Reverse(wait.wait_us));
        self.waits.truncate(WAITS_MAX);
    }

    fn not_sent(&mut self, t: u64, op: u64, fate: Fate) -> Result<(), HistoryError> {
        self.at(t);
        let (w, p, n) = self.take_open(op)?;
        let sending = self.lanes.get_mut(&(w, p)).and_then(|lane| lane.sendings.get_mut(&n));
        let Some(sending) = sending else { return Ok(()) };
        sending.fate = fate;
        let count = u64::from(sending.count);
        let counted = if fate == Fate::Refused { &mut self.counts.refused } else { &mut self.counts.unknown };
        *counted += count;
        Ok(())
    }

    fn check_watermark(
        &mut self,
        times: (u64, u64),
        p: u32,
        epoch: i32,
        value: i64,
    ) -> Result<(), HistoryError> {
        // Without an epoch nobody can say whether it is the same leader's.
        if epoch < 0 {
            return Ok(());
        }
        if let Some(before) = self.log(p)?.watermark(epoch, times.0, times.1, value) {
            let text = format!("{}: from {before} to {value} in leader epoch {epoch}", self.name(p));
            self.refute(Invariant::WatermarkMonotone, text);
        }
        Ok(())
    }

    fn check_place(&mut self, r: u32, p: u32, from: i64) -> Result<(), HistoryError> {
        if let Some(was) = self.log(p)?.positions.get(&r).copied().filter(|was| *was != from) {
            return Err(contradiction(&format!(
                "reader {r} was at {was} of {} and reads from {from}",
                self.name(p)
            )));
        }
        Ok(())
    }

    fn check_aliens(&mut self, p: u32, aliens: &[(i64, String)]) {
        for (offset, what) in aliens {
            let text = format!("{} offset {offset}: {what}", self.name(p));
            self.refute(Invariant::NoPhantoms, text);
        }
    }

    fn poll(
        &mut self,
        view: usize,
        t: u64,
        p: u32,
        (from, next): (i64, i64),
        runs: &[(i64, u32, u64, u32)],
    ) -> Result<(), HistoryError> {
        let name = self.name(p);
        let mut given = Ranges::default();
        let mut at = from;
        for (offset, w, n, c) in runs.iter().copied() {
            let end = offset.saturating_add(i64::from(c));
            let Ok(number) = i64::try_from(n) else { return Err(contradiction("a number beyond all")) };
            if offset < at || end > next {
                let text = format!("{name}: offset {offset} comes at {at}, on the way to {next}");
                self.refute(Invariant::SameLog, text);
                continue;
            }
            at = end;
            given.add(offset, end);
            if view == ALL {
                self.log(p)?.floor.raise(t, end);
            }
            let put = self.log(p)?.put(offset, w, number, i64::from(c));
            if let Some((old, new)) = put.conflicts.first() {
                let text = format!(
                    "{name} offset {}: record {} of writer {}, then record {} of writer {}",
                    old.key, old.value, old.tag, new.value, new.tag
                );
                self.refute(Invariant::SameLog, text);
            }
            for fresh in put.fresh {
                self.found(&name, p, fresh);
            }
            if view == COMMITTED {
                self.read_as_committed(&name, p, offset, (w, n, c));
            }
        }
        if let Some((start, end)) = self.log(p)?.views[view].pass(from, next, &given) {
            let text = format!("{name}: readers were given different records between {start} and {end}");
            self.refute(Invariant::SameLog, text);
        }
        Ok(())
    }

    /// Records that nobody has read before.
    fn found(&mut self, name: &str, p: u32, fresh: runs::Piece) {
        let sent = self.lanes.get(&(fresh.tag, p)).map_or(0, |lane| lane.next);
        let end = fresh.value.saturating_add(fresh.length);
        if u64::try_from(end).is_ok_and(|end| end > sent) {
            let text = format!(
                "{name} offset {}: records up to {end} of writer {}, who has sent {sent}",
                fresh.key, fresh.tag
            );
            self.refute(Invariant::NoPhantoms, text);
        }
        let Some(lane) = self.lanes.get_mut(&(fresh.tag, p)) else { return };
        let conflicts = lane.find(fresh.value, fresh.length, fresh.key).conflicts;
        if self.header.idempotent {
            for (first, second) in conflicts {
                let text = format!(
                    "{name}: record {} of writer {} at offsets {} and {}",
                    first.key, fresh.tag, first.value, second.value
                );
                self.refute(Invariant::NoDuplicates, text);
            }
        }
    }

    /// A reader of committed records was given these.
    fn read_as_committed(&mut self, name: &str, p: u32, offset: i64, (w, n, c): (u32, u64, u32)) {
        let Some(lane) = self.lanes.get(&(w, p)) else { return };
        let mut early = Vec::new();
        for (first, sending) in lane.sendings_of(n, c) {
            let Some(id) = sending.transaction else { continue };
            let Some(transaction) = self.transactions.get_mut(&id) else { continue };
            transaction.visible = true;
            if !transaction.commit_asked {
                early.push(format!(
                    "{name} near offset {offset}: record {first} of writer {w} was read before its transaction {id} ended"
                ));
            }
        }
        for text in early {
            self.refute(Invariant::Isolation, text);
        }
    }
}

fn contradiction(text: &str) -> HistoryError {
    HistoryError::Contradiction(text.to_owned())
}
