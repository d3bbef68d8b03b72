//! What can only be judged when all is known: losses, order, what became of transactions.

use std::collections::BTreeMap;

use super::lane::{Fate, Sending};
use super::runs::Ranges;
use super::{ALL, COMMITTED, Checker};
use crate::history::Outcome;
use crate::report::{Invariant, Report, State, Verdict};

/// What a run must have seen before its invariants count as held.
#[derive(Debug, Default)]
struct Unproven {
    /// Acknowledged records that no reader has passed, nor ever will.
    unread: u64,
    /// Committed records that no transformer took.
    not_transformed: u64,
}

pub(super) fn finish(mut checker: Checker) -> Report {
    let mut unproven = Unproven::default();
    let lanes = std::mem::take(&mut checker.lanes);
    checker.counts.read = checker.logs.iter().map(|log| log.records.count()).sum();
    // Sendings without an outcome: the history ends before they did.
    let open = lanes.values().flat_map(|lane| lane.sendings.values()).filter(|one| one.fate == Fate::Open);
    checker.counts.unknown += open.map(|one| u64::from(one.count)).sum::<u64>();
    let with_committed = checker.readers.values().any(|view| *view == COMMITTED);
    let with_all = checker.readers.values().any(|view| *view == ALL);
    for ((writer, partition), lane) in &lanes {
        checker.lanes.insert((*writer, *partition), super::Lane::default());
        let mut last_offset = -1;
        for (number, sending) in &lane.sendings {
            let mine = Mine { writer: *writer, partition: *partition, number: *number, sending };
            let pieces = lane.seen.within(signed(*number), signed(*number) + i64::from(sending.count));
            match sending.fate {
                Fate::Sent(offset) => {
                    for view in [ALL, COMMITTED] {
                        let has_readers = if view == ALL { with_all } else { with_committed };
                        if has_readers {
                            checker.check_kept(&mine, view, offset, &pieces, &mut unproven);
                        }
                    }
                    if offset >= 0 {
                        checker.check_place_of(&mine, offset);
                    }
                    for piece in &pieces {
                        if piece.value <= last_offset {
                            let text = format!(
                                "{}: record {} of writer {writer} at offset {}, behind a later one",
                                checker.name(*partition),
                                piece.key,
                                piece.value,
                            );
                            checker.refute(Invariant::OrderPerKey, text);
                        }
                        last_offset = last_offset.max(piece.value + piece.length - 1);
                    }
                }
                Fate::Refused => checker.check_refused(&mine, &pieces),
                Fate::Open | Fate::Unknown => {}
            }
        }
    }
    if checker.header.transactions {
        checker.check_isolation();
        let all: Vec<(u32, u32, &Sending, u64)> = lanes
            .iter()
            .flat_map(|((w, p), lane)| lane.sendings.iter().map(|(n, one)| (*w, *p, one, *n)))
            .collect();
        checker.check_exactly_once(&all, &mut unproven);
    }
    report(checker, &unproven)
}

/// A sending that is judged.
#[derive(Debug, Clone, Copy)]
struct Mine<'a> {
    writer: u32,
    partition: u32,
    number: u64,
    sending: &'a Sending,
}

impl Mine<'_> {
    fn what(&self, checker: &Checker, skip: i64) -> String {
        format!(
            "{}: record {} of writer {}",
            checker.name(self.partition),
            signed(self.number) + skip,
            self.writer
        )
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Checker {
    /// Whether a transaction is committed as far as can be known: the cluster said so, or a reader was given some of it.
    fn is_committed(&self, id: u64) -> bool {
        self.transactions.get(&id).is_some_and(|one| match one.outcome {
            Some(Outcome::Committed) => true,
            Some(Outcome::Aborted) => false,
            Some(Outcome::Unknown) | None => one.commit_asked && one.visible,
        })
    }

    /// An acknowledged record must be given to all readers that pass it, and the log must reach behind it.
    fn check_kept(
        &mut self,
        mine: &Mine<'_>,
        view: usize,
        offset: i64,
        pieces: &[super::runs::Piece],
        unproven: &mut Unproven,
    ) {
        let id = mine.sending.transaction;
        if view == COMMITTED && id.is_some_and(|id| !self.is_committed(id)) {
            return;
        }
        let Some(log) = usize::try_from(mine.partition).ok().and_then(|at| self.logs.get(at)) else { return };
        let count = i64::from(mine.sending.count);
        let mut lost = Vec::new();
        if offset >= 0 {
            for (start, end) in log.views[view].seen.gaps(offset, offset + count) {
                for (start, end) in log.views[view].passed.within(start, end) {
                    lost.push((
                        start - offset,
                        end - start,
                        format!("readers passed offset {start} without it"),
                    ));
                }
                for (start, end) in log.views[view].passed.gaps(start, end) {
                    match log.end {
                        Some(log_end) if log_end <= start => lost.push((
                            start - offset,
                            end - start,
                            format!("acknowledged at offset {start}, but the log ends at {log_end}"),
                        )),
                        _ => unproven.unread += end.abs_diff(start),
                    }
                }
            }
        } else {
            let found: i64 = pieces.iter().map(|piece| piece.length).sum();
            let is_read = log.end.is_some_and(|end| log.views[view].passed.gaps(0, end).is_empty());
            if found < count && is_read {
                lost.push((0, count - found, "it is nowhere in the log".to_owned()));
            } else if found < count {
                unproven.unread += (count - found).unsigned_abs();
            }
        }
        // A transaction of which some is visible to readers of committed data must be visible in whole.
        let torn = view == COMMITTED
            && id.and_then(|id| self.transactions.get(&id)).is_some_and(|transaction| transaction.visible);
        let invariant = if torn { Invariant::Atomicity } else { Invariant::NoLoss };
        for (skip, length, why) in lost {
            let of = id.map(|id| format!(" of transaction {id}")).unwrap_or_default();
            let text = format!("{}{of} and {} more: {why}", mine.what(self, skip), length - 1);
            self.refute(invariant, text);
        }
    }

    /// At the offset of the acknowledgement lies this record and no other.
    fn check_place_of(&mut self, mine: &Mine<'_>, offset: i64) {
        let Some(log) = usize::try_from(mine.partition).ok().and_then(|at| self.logs.get(at)) else { return };
        let found = log.records.within(offset, offset + i64::from(mine.sending.count));
        let wrong = found.into_iter().find(|piece| {
            piece.tag != mine.writer || piece.value != signed(mine.number) + (piece.key - offset)
        });
        if let Some(wrong) = wrong {
            let text = format!(
                "{}: acknowledged at offset {}, where record {} of writer {} lies",
                mine.what(self, wrong.key - offset),
                wrong.key,
                wrong.value,
                wrong.tag
            );
            self.refute(Invariant::NoLoss, text);
        }
    }

    fn check_refused(&mut self, mine: &Mine<'_>, pieces: &[super::runs::Piece]) {
        if let Some(piece) = pieces.first() {
            let skip = piece.key - signed(mine.number);
            let text = format!("{}: refused, but read at offset {}", mine.what(self, skip), piece.value);
            self.refute(Invariant::NoPhantoms, text);
        }
    }

    fn check_isolation(&mut self) {
        let mut aborted = Vec::new();
        for (id, one) in &self.transactions {
            let counted = match one.outcome {
                Some(Outcome::Committed) => &mut self.counts.transactions_committed,
                Some(Outcome::Unknown) => &mut self.counts.transactions_unknown,
                None if one.commit_asked => &mut self.counts.transactions_unknown,
                Some(Outcome::Aborted) | None => &mut self.counts.transactions_aborted,
            };
            *counted += 1;
            if one.visible && one.outcome == Some(Outcome::Aborted) {
                aborted.push(*id);
            }
        }
        aborted.sort_unstable();
        for id in aborted {
            self.refute(
                Invariant::Isolation,
                format!("transaction {id} is aborted, but was read as committed"),
            );
        }
    }

    /// Each committed record of the first topic was taken by exactly one committed transaction.
    fn check_exactly_once(&mut self, all: &[(u32, u32, &Sending, u64)], unproven: &mut Unproven) {
        let committed = |one: &Sending| one.transaction.is_none_or(|id| self.is_committed(id));
        let mut taken: BTreeMap<(u32, u32), Ranges> = BTreeMap::new();
        let mut twice = Vec::new();
        let mut transformed = 0;
        for (_, _, sending, _) in all.iter().filter(|(_, _, one, _)| committed(one)) {
            for (p, w, n, c) in &sending.sources {
                let ranges = taken.entry((*w, *p)).or_default();
                let (start, end) = (signed(*n), signed(*n).saturating_add(i64::from(*c)));
                if let Some((again, _)) = ranges.within(start, end).first() {
                    twice.push(format!(
                        "{}: record {again} of writer {w} was transformed twice, at last in transaction {}",
                        self.name(*p),
                        sending.transaction.map_or_else(|| "none".to_owned(), |id| id.to_string())
                    ));
                }
                ranges.add(start, end);
                transformed += u64::from(*c);
            }
        }
        let inputs = self.header.topics.first().map_or(0, |topic| topic.partitions);
        let has_transformers = self.header.topics.len() > 1;
        let empty = Ranges::default();
        let mut never = Vec::new();
        for (w, p, sending, n) in all.iter().filter(|(_, p, one, _)| *p < inputs && committed(one)) {
            if !has_transformers || !matches!(sending.fate, Fate::Sent(_)) {
                continue;
            }
            let end = signed(*n) + i64::from(sending.count);
            for (start, end) in taken.get(&(*w, *p)).unwrap_or(&empty).gaps(signed(*n), end) {
                if self.is_drained {
                    never.push(format!(
                        "{}: record {start} of writer {w} and {} more were never transformed",
                        self.name(*p),
                        end - start - 1
                    ));
                } else {
                    unproven.not_transformed += end.abs_diff(start);
                }
            }
        }
        self.counts.transformed = transformed;
        for text in twice.into_iter().chain(never) {
            self.refute(Invariant::ExactlyOnce, text);
        }
    }
}

fn report(mut checker: Checker, unproven: &Unproven) -> Report {
    let mut invariants = Invariant::ALWAYS.to_vec();
    if checker.header.transactions {
        invariants.extend(Invariant::OF_TRANSACTIONS);
    }
    let mut verdicts = Vec::new();
    for invariant in invariants {
        let violations = checker.violations.remove(&invariant).unwrap_or_default();
        let why = why_unproven(&checker, invariant, unproven);
        let (state, examples) = match (violations.count, why) {
            (1.., _) => (State::Refuted, violations.examples),
            (0, Some(why)) => (State::Unproven, vec![why]),
            (0, None) => (State::Held, Vec::new()),
        };
        verdicts.push(Verdict { invariant, state, violations: violations.count, examples });
    }
    Report {
        held: verdicts.iter().all(|verdict| verdict.state == State::Held),
        seed: checker.header.seed,
        duration_us: checker.last_time,
        counts: checker.counts,
        longest_waits: checker.waits,
        verdicts,
    }
}

fn why_unproven(checker: &Checker, invariant: Invariant, unproven: &Unproven) -> Option<String> {
    let counts = &checker.counts;
    if counts.acknowledged == 0 {
        return Some("no record was acknowledged".to_owned());
    }
    if counts.read == 0 {
        return Some("no record was read".to_owned());
    }
    match invariant {
        Invariant::NoLoss | Invariant::Atomicity | Invariant::ExactlyOnce if !checker.is_final => {
            Some("the history ends before the writers stopped".to_owned())
        }
        Invariant::NoLoss | Invariant::Atomicity if unproven.unread > 0 => {
            Some(format!("{} acknowledged records were not read to the end", unproven.unread))
        }
        Invariant::ExactlyOnce if unproven.not_transformed > 0 => {
            Some(format!("{} records were not transformed to the end", unproven.not_transformed))
        }
        Invariant::NoDuplicates if !checker.header.idempotent => {
            Some("the writers were not idempotent".to_owned())
        }
        Invariant::Atomicity | Invariant::Isolation | Invariant::ExactlyOnce
            if counts.transactions_committed == 0 =>
        {
            Some("no transaction was committed".to_owned())
        }
        _ => None,
    }
}
