//! Broken histories of each kind, each refuted by its name; sound ones with unknown outcomes, accepted.

use super::Checker;
use crate::history::{Event, Header, HistoryError, Outcome, Topic, VERSION};
use crate::report::{Invariant, Report, State};

/// Writes a history; each event is a moment later than the one before.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) events: Vec<Event>,
    pub(super) time: u64,
    op: u64,
}

impl Story {
    pub(super) fn new(transactions: bool) -> Self {
        let topic = |name: &str| Topic { name: name.to_owned(), partitions: 2 };
        let topics = if transactions { vec![topic("in"), topic("out")] } else { vec![topic("t")] };
        let header =
            Header { version: VERSION, topics, idempotent: true, transactions, seed: 7, started_ms: 0 };
        let mut story = Self { events: vec![Event::History(header)], time: 0, op: 0 };
        for r in 0..2 {
            story.events.push(Event::Reader { r, committed: false });
            story.events.push(Event::Reader { r: r + 2, committed: true });
        }
        story
    }

    pub(super) fn now(&mut self) -> u64 {
        self.time += 10;
        self.time
    }

    pub(super) fn send(&mut self, p: u32, n: u64, c: u32) -> u64 {
        self.send_in(None, 0, p, n, c, &[])
    }

    #[allow(clippy::many_single_char_names, reason = "the names that the history has")]
    pub(super) fn send_in(
        &mut self,
        x: Option<u64>,
        w: u32,
        p: u32,
        n: u64,
        c: u32,
        src: &[(u32, u32, u64, u32)],
    ) -> u64 {
        self.op += 1;
        let t = self.now();
        self.events.push(Event::Send { t, op: self.op, w, p, n, c, x, src: src.to_vec() });
        self.op
    }

    pub(super) fn sent(&mut self, op: u64, o: i64) {
        let t = self.now();
        self.events.push(Event::Sent { t, op, o });
    }

    /// Sent and acknowledged.
    fn written(&mut self, p: u32, n: u64, c: u32, o: i64) {
        let op = self.send(p, n, c);
        self.sent(op, o);
    }

    fn unknown(&mut self, op: u64) {
        let t = self.now();
        self.events.push(Event::Unknown { t, op, why: "timeout".into() });
    }

    pub(super) fn poll(&mut self, r: u32, p: u32, from: i64, next: i64, runs: &[(i64, u32, u64, u32)]) {
        self.poll_hw(r, p, from, next, next, runs);
    }

    fn poll_hw(&mut self, r: u32, p: u32, from: i64, next: i64, hw: i64, runs: &[(i64, u32, u64, u32)]) {
        let s = self.now();
        let t = self.now();
        let (runs, alien) = (runs.to_vec(), Vec::new());
        self.events.push(Event::Poll { s, t, r, p, from, next, hw, epoch: 1, runs, alien });
    }

    pub(super) fn ends(&mut self, ends: &[i64]) {
        let t = self.now();
        self.events.push(Event::Final { t, ends: ends.to_vec() });
    }

    pub(super) fn try_check(&self) -> Result<Report, HistoryError> {
        let mut checker = Checker::new(&self.events[0])?;
        for event in &self.events[1..] {
            checker.take(event)?;
        }
        Ok(checker.finish())
    }

    pub(super) fn check(&self) -> Report {
        self.try_check().unwrap()
    }
}

/// All four readers read the same.
fn all_read(story: &mut Story, p: u32, from: i64, next: i64, runs: &[(i64, u32, u64, u32)]) {
    for r in 0..4 {
        story.poll(r, p, from, next, runs);
    }
}

/// Exactly this one is refuted.
pub(super) fn assert_refuted(story: &Story, invariant: Invariant) {
    let report = story.check();
    let refuted: Vec<_> =
        report.verdicts.iter().filter(|one| one.state == State::Refuted).map(|one| one.invariant).collect();
    assert_eq!(refuted, [invariant], "{}", report.text());
    assert!(!report.held);
    assert!(report.text().contains("REFUTED"));
}

pub(super) fn assert_held(story: &Story) {
    let report = story.check();
    assert!(report.held, "{}", report.text());
}

#[test]
fn what_is_written_once_and_read_by_all_holds() {
    let mut story = Story::new(false);
    story.written(0, 0, 10, 0);
    story.written(0, 10, 5, 10);
    story.written(1, 0, 3, 0);
    all_read(&mut story, 0, 0, 12, &[(0, 0, 0, 12)]);
    all_read(&mut story, 0, 12, 15, &[(12, 0, 12, 3)]);
    all_read(&mut story, 1, 0, 3, &[(0, 0, 0, 3)]);
    story.ends(&[15, 3]);
    assert_held(&story);
    let report = story.check();
    assert_eq!((report.counts.sent, report.counts.acknowledged, report.counts.read), (18, 18, 18));
    assert_eq!(report.longest_waits.first().map(|wait| wait.wait_us), Some(10));
}

#[test]
fn unknown_outcomes_may_be_there_or_not_and_anywhere() {
    let mut story = Story::new(false);
    let lost = story.send(0, 0, 2);
    story.unknown(lost);
    let late = story.send(0, 2, 2);
    story.unknown(late);
    let never_answered = story.send(0, 4, 1);
    story.written(0, 5, 2, 0);
    assert!(never_answered > 0);
    all_read(&mut story, 0, 0, 4, &[(0, 0, 5, 2), (2, 0, 2, 2)]);
    story.ends(&[4, 0]);
    assert_held(&story);
    assert_eq!(story.check().counts.unknown, 5);
}

#[test]
fn an_acknowledgement_without_an_offset_needs_the_record_anywhere() {
    let mut story = Story::new(false);
    story.written(0, 0, 2, -1);
    let mut missing = Story::new(false);
    missing.written(0, 0, 2, -1);
    missing.written(0, 2, 1, 0);
    all_read(&mut story, 0, 0, 2, &[(0, 0, 0, 2)]);
    story.ends(&[2, 0]);
    assert_held(&story);
    all_read(&mut missing, 0, 0, 1, &[(0, 0, 2, 1)]);
    missing.ends(&[1, 0]);
    assert_refuted(&missing, Invariant::NoLoss);
}

#[test]
fn a_record_that_readers_passed_by_is_lost() {
    let mut story = Story::new(false);
    story.written(0, 0, 10, 0);
    all_read(&mut story, 0, 0, 10, &[(0, 0, 0, 4), (6, 0, 6, 4)]);
    story.ends(&[10, 0]);
    assert_refuted(&story, Invariant::NoLoss);
}

#[test]
fn a_record_behind_the_end_of_the_log_is_lost() {
    let mut story = Story::new(false);
    story.written(0, 0, 10, 0);
    all_read(&mut story, 0, 0, 8, &[(0, 0, 0, 8)]);
    story.ends(&[8, 0]);
    assert_refuted(&story, Invariant::NoLoss);
}

#[test]
fn an_offset_that_was_given_to_another_record_is_a_loss() {
    let mut story = Story::new(false);
    story.written(0, 0, 1, 0);
    let other = story.send_in(None, 1, 0, 0, 1, &[]);
    story.unknown(other);
    all_read(&mut story, 0, 0, 1, &[(0, 1, 0, 1)]);
    story.ends(&[1, 0]);
    assert_refuted(&story, Invariant::NoLoss);
}

#[test]
fn what_was_not_read_is_not_proven() {
    let mut story = Story::new(false);
    story.written(0, 0, 10, 0);
    all_read(&mut story, 0, 0, 8, &[(0, 0, 0, 8)]);
    assert_eq!(story.check().state(Invariant::NoLoss), Some(State::Unproven));
    story.ends(&[10, 0]);
    let report = story.check();
    assert_eq!(report.state(Invariant::NoLoss), Some(State::Unproven));
    assert_eq!(report.state(Invariant::SameLog), Some(State::Held));
    assert!(!report.held);
    assert!(!Story::new(false).check().held, "nothing happened, nothing is proven");
}

#[test]
fn a_record_at_two_offsets_is_a_duplicate_for_idempotent_writers_only() {
    let mut story = Story::new(false);
    story.written(0, 0, 2, 0);
    all_read(&mut story, 0, 0, 4, &[(0, 0, 0, 2), (2, 0, 0, 2)]);
    story.ends(&[4, 0]);
    assert_refuted(&story, Invariant::NoDuplicates);
    let Event::History(header) = &mut story.events[0] else { panic!("no header") };
    header.idempotent = false;
    assert_eq!(story.check().state(Invariant::NoDuplicates), Some(State::Unproven));
}

#[test]
fn an_unknown_outcome_is_no_excuse_for_a_duplicate() {
    let mut story = Story::new(false);
    let op = story.send(0, 0, 2);
    story.unknown(op);
    story.written(0, 2, 1, 2);
    all_read(&mut story, 0, 0, 5, &[(0, 0, 0, 2), (2, 0, 2, 1), (3, 0, 0, 2)]);
    story.ends(&[5, 0]);
    assert_refuted(&story, Invariant::NoDuplicates);
}

#[test]
fn acknowledged_records_in_another_order_are_refuted() {
    let mut story = Story::new(false);
    story.written(0, 0, 2, 2);
    story.written(0, 2, 2, 0);
    all_read(&mut story, 0, 0, 4, &[(0, 0, 2, 2), (2, 0, 0, 2)]);
    story.ends(&[4, 0]);
    assert_refuted(&story, Invariant::OrderPerKey);
}

#[test]
fn records_that_nobody_wrote_are_phantoms() {
    let story_of = |runs: &[(i64, u32, u64, u32)], next| {
        let mut story = Story::new(false);
        story.written(0, 0, 2, 0);
        all_read(&mut story, 0, 0, next, runs);
        story.ends(&[next, 0]);
        story
    };
    assert_refuted(&story_of(&[(0, 0, 0, 3)], 3), Invariant::NoPhantoms);
    assert_refuted(&story_of(&[(0, 0, 0, 2), (2, 9, 0, 1)], 3), Invariant::NoPhantoms);
    let mut story = story_of(&[(0, 0, 0, 2)], 2);
    let t = story.now();
    let alien = vec![(0, "bytes of no writer".to_owned())];
    story.events.push(Event::Poll {
        s: t,
        t,
        r: 0,
        p: 1,
        from: 0,
        next: 1,
        hw: 1,
        epoch: 1,
        runs: Vec::new(),
        alien,
    });
    assert_refuted(&story, Invariant::NoPhantoms);
}

#[test]
fn a_record_that_is_read_before_it_is_sent_is_a_phantom() {
    let mut story = Story::new(false);
    story.poll(0, 0, 0, 1, &[(0, 0, 0, 1)]);
    story.written(0, 0, 1, 0);
    for r in 1..4 {
        story.poll(r, 0, 0, 1, &[(0, 0, 0, 1)]);
    }
    story.ends(&[1, 0]);
    assert_eq!(story.check().state(Invariant::NoPhantoms), Some(State::Refuted));
}

#[test]
fn a_refused_record_that_is_read_is_a_phantom() {
    let mut story = Story::new(false);
    story.written(0, 0, 1, 0);
    let op = story.send(0, 1, 1);
    let t = story.now();
    story.events.push(Event::Refused { t, op, why: "MESSAGE_TOO_LARGE".into() });
    all_read(&mut story, 0, 0, 2, &[(0, 0, 0, 2)]);
    story.ends(&[2, 0]);
    assert_refuted(&story, Invariant::NoPhantoms);
}

#[test]
fn a_watermark_that_goes_back_in_an_epoch_is_refuted() {
    let mut story = Story::new(false);
    story.written(0, 0, 2, 0);
    all_read(&mut story, 0, 0, 2, &[(0, 0, 0, 2)]);
    story.ends(&[2, 0]);
    story.poll_hw(0, 0, 2, 2, 1, &[]);
    assert_refuted(&story, Invariant::WatermarkMonotone);
}

#[test]
fn a_lower_watermark_of_another_epoch_or_of_an_older_question_is_none() {
    let mut story = Story::new(false);
    story.written(0, 0, 2, 0);
    let asked = story.now();
    all_read(&mut story, 0, 0, 2, &[(0, 0, 0, 2)]);
    story.ends(&[2, 0]);
    let t = story.now();
    let poll = |s, epoch| Event::Poll {
        s,
        t,
        r: 0,
        p: 0,
        from: 2,
        next: 2,
        hw: 1,
        epoch,
        runs: Vec::new(),
        alien: Vec::new(),
    };
    story.events.extend([poll(asked, 1), poll(t, 2), poll(t, -1)]);
    assert_held(&story);
}

#[test]
fn an_end_before_what_was_acknowledged_is_refuted() {
    let mut story = Story::new(false);
    story.written(0, 0, 2, 0);
    all_read(&mut story, 0, 0, 2, &[(0, 0, 0, 2)]);
    story.ends(&[2, 0]);
    let mut sound = story.time;
    story.events.push(Event::Look { s: 0, t: sound, p: 0, end: 0 });
    assert_held(&story);
    sound += 10;
    story.events.push(Event::Look { s: sound, t: sound, p: 0, end: 1 });
    assert_refuted(&story, Invariant::WatermarkMonotone);
}

#[test]
fn a_place_that_was_read_and_is_out_of_range_is_refuted() {
    let mut story = Story::new(false);
    story.written(0, 0, 2, 0);
    all_read(&mut story, 0, 0, 2, &[(0, 0, 0, 2)]);
    story.ends(&[2, 0]);
    let t = story.now();
    story.events.push(Event::OutOfRange { s: t, t, r: 0, p: 0, at: 2 });
    assert_refuted(&story, Invariant::WatermarkMonotone);
}

#[test]
fn two_records_at_one_offset_are_different_logs() {
    let mut story = Story::new(false);
    for w in [0, 1] {
        let op = story.send_in(None, w, 0, 0, 1, &[]);
        story.unknown(op);
    }
    story.written(1, 0, 1, 0);
    all_read(&mut story, 1, 0, 1, &[(0, 0, 0, 1)]);
    story.poll(0, 0, 0, 1, &[(0, 0, 0, 1)]);
    story.poll(1, 0, 0, 1, &[(0, 1, 0, 1)]);
    story.ends(&[1, 1]);
    assert_refuted(&story, Invariant::SameLog);
}

#[test]
fn a_record_that_only_one_reader_gets_is_a_different_log() {
    let mut story = Story::new(false);
    let op = story.send(0, 0, 3);
    story.unknown(op);
    story.written(1, 0, 1, 0);
    all_read(&mut story, 1, 0, 1, &[(0, 0, 0, 1)]);
    story.poll(0, 0, 0, 3, &[(0, 0, 0, 3)]);
    story.poll(1, 0, 0, 3, &[(0, 0, 0, 1), (2, 0, 2, 1)]);
    story.ends(&[3, 1]);
    assert_refuted(&story, Invariant::SameLog);
}

#[test]
fn records_outside_of_what_was_asked_for_are_a_different_log() {
    let mut story = Story::new(false);
    story.written(0, 0, 3, 0);
    all_read(&mut story, 0, 0, 3, &[(0, 0, 0, 3)]);
    story.poll(0, 0, 3, 3, &[(1, 0, 1, 1)]);
    story.ends(&[3, 0]);
    assert_refuted(&story, Invariant::SameLog);
}

#[test]
fn histories_that_contradict_themselves_are_errors_not_verdicts() {
    let broken = |event: Event| {
        let mut story = Story::new(false);
        story.written(0, 0, 1, 0);
        story.poll(0, 0, 0, 1, &[(0, 0, 0, 1)]);
        story.events.push(event);
        assert!(
            matches!(story.try_check(), Err(HistoryError::Contradiction(_))),
            "{:?}",
            story.events.last()
        );
    };
    let send = |op, p, n, c| Event::Send { t: 0, op, w: 0, p, n, c, x: None, src: Vec::new() };
    broken(Event::Sent { t: 0, op: 1, o: 0 });
    broken(Event::Sent { t: 0, op: 99, o: 0 });
    broken(send(5, 0, 7, 1));
    broken(send(5, 0, 1, 0));
    broken(send(5, 2, 0, 1));
    broken(send(5, u32::MAX, 0, 1));
    broken(Event::Final { t: 0, ends: vec![0] });
    broken(Event::Seek { t: 0, r: 9, p: 0, to: 0 });
    let poll = |r, p, from| Event::Poll {
        s: 0,
        t: 0,
        r,
        p,
        from,
        next: from,
        hw: 0,
        epoch: 0,
        runs: Vec::new(),
        alien: Vec::new(),
    };
    broken(poll(9, 0, 1));
    broken(poll(0, 9, 1));
    broken(poll(0, 0, 0));
    broken(Story::new(false).events[0].clone());
    assert_eq!(Checker::new(&poll(0, 0, 0)).unwrap_err(), HistoryError::NoHeader);
    let mut other = Story::new(false);
    let Event::History(header) = &mut other.events[0] else { panic!("no header") };
    header.version = 2;
    assert_eq!(other.try_check(), Err(HistoryError::Version(2)));
    assert_eq!(Outcome::Aborted, Outcome::Aborted);
}
