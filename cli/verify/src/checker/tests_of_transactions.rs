//! Transactions: torn, seen early, seen though aborted, done twice or never; and sound ones with unknown ends.

use super::tests::{Story, assert_held, assert_refuted};
use crate::history::{Event, Outcome};
use crate::report::{Invariant, State};

const COMMITTED: u32 = 2;
const COMMITTED_TOO: u32 = 3;
const ALL: u32 = 0;

impl Story {
    fn end(&mut self, x: u64, commit: bool, outcome: Outcome) {
        let t = self.now();
        self.events.push(Event::End { t, x, commit });
        let t = self.now();
        self.events.push(Event::Ended { t, x, outcome });
    }

    fn commit(&mut self, x: u64) {
        self.end(x, true, Outcome::Committed);
    }

    fn drained(&mut self) {
        let t = self.now();
        self.events.push(Event::Drained { t });
    }

    /// Transaction `x` of writer `w`: a record to each partition of the input, at these offsets.
    fn input(&mut self, x: u64, n: u64, offsets: [i64; 2]) {
        for (p, offset) in (0..).zip(offsets) {
            let op = self.send_in(Some(x), 0, p, n, 1, &[]);
            self.sent(op, offset);
        }
    }

    /// Readers of all and of committed records read the input's records at these offsets; markers lie between.
    fn read(&mut self, readers: &[u32], from: i64, next: i64, runs: &[(i64, u32, u64, u32)]) {
        for reader in readers {
            for p in 0..2 {
                self.poll(*reader, p, from, next, runs);
            }
        }
    }

    /// A transformer's transaction: both records number `n`, to the first partition of the output.
    fn output(&mut self, x: u64, n: u64, of: u64, offset: i64) {
        let op = self.send_in(Some(x), 100, 2, n, 2, &[(0, 0, of, 1), (1, 0, of, 1)]);
        self.sent(op, offset);
    }
}

/// Input of two committed transactions and an aborted one, each transformed once.
fn sound() -> Story {
    let mut story = Story::new(true);
    story.input(1, 0, [0, 0]);
    story.commit(1);
    story.input(2, 1, [2, 2]);
    story.end(2, false, Outcome::Aborted);
    story.input(3, 2, [4, 4]);
    story.commit(3);
    story.read(&[ALL], 0, 6, &[(0, 0, 0, 1), (2, 0, 1, 1), (4, 0, 2, 1)]);
    story.read(&[COMMITTED], 0, 6, &[(0, 0, 0, 1), (4, 0, 2, 1)]);
    story.output(11, 0, 0, 0);
    story.commit(11);
    story.output(12, 2, 2, 3);
    story.end(12, false, Outcome::Aborted);
    story.output(13, 4, 2, 6);
    story.commit(13);
    story.poll(COMMITTED, 2, 0, 9, &[(0, 100, 0, 2), (6, 100, 4, 2)]);
    story.poll(ALL, 2, 0, 9, &[(0, 100, 0, 2), (3, 100, 2, 2), (6, 100, 4, 2)]);
    story
}

#[test]
fn transactions_that_are_whole_hold() {
    let mut story = sound();
    story.ends(&[6, 6, 9, 0]);
    story.drained();
    assert_held(&story);
    let counts = story.check().counts;
    assert_eq!((counts.transactions_committed, counts.transactions_aborted), (4, 2));
    assert_eq!(counts.transformed, 4);
}

#[test]
fn an_end_that_is_not_known_may_have_been_either() {
    for is_visible in [false, true] {
        let mut story = sound();
        story.input(4, 3, [6, 6]);
        story.end(4, true, Outcome::Unknown);
        let run = [(6, 0, 3, 1)];
        story.read(&[COMMITTED], 6, 8, if is_visible { &run } else { &[] });
        story.read(&[ALL], 6, 8, &run);
        if is_visible {
            story.output(14, 6, 3, 9);
            story.commit(14);
            story.poll(COMMITTED, 2, 9, 12, &[(9, 100, 6, 2)]);
            story.poll(ALL, 2, 9, 12, &[(9, 100, 6, 2)]);
        }
        story.ends(&[8, 8, if is_visible { 12 } else { 9 }, 0]);
        story.drained();
        assert_held(&story);
    }
}

#[test]
fn a_transaction_whose_end_is_not_known_must_not_be_torn() {
    let mut story = sound();
    story.input(4, 3, [6, 6]);
    story.end(4, true, Outcome::Unknown);
    story.poll(COMMITTED, 0, 6, 8, &[(6, 0, 3, 1)]);
    story.poll(COMMITTED, 1, 6, 8, &[]);
    story.read(&[ALL], 6, 8, &[(6, 0, 3, 1)]);
    story.ends(&[8, 8, 9, 0]);
    assert_refuted(&story, Invariant::Atomicity);
}

#[test]
fn half_of_a_committed_transaction_is_torn() {
    let mut story = sound();
    story.input(4, 3, [6, 6]);
    story.commit(4);
    story.poll(COMMITTED, 0, 6, 8, &[(6, 0, 3, 1)]);
    story.poll(COMMITTED, 1, 6, 8, &[]);
    story.read(&[ALL], 6, 8, &[(6, 0, 3, 1)]);
    story.ends(&[8, 8, 9, 0]);
    assert_refuted(&story, Invariant::Atomicity);
}

#[test]
fn a_committed_transaction_of_which_nothing_is_seen_is_lost() {
    let mut story = sound();
    story.input(4, 3, [6, 6]);
    story.commit(4);
    story.read(&[COMMITTED], 6, 8, &[]);
    story.read(&[ALL], 6, 8, &[(6, 0, 3, 1)]);
    story.ends(&[8, 8, 9, 0]);
    assert_refuted(&story, Invariant::NoLoss);
}

#[test]
fn an_aborted_transaction_that_is_read_as_committed_is_refuted() {
    let mut story = sound();
    story.input(4, 3, [6, 6]);
    // The commit is asked for and refused: the producer is told of an abort.
    story.end(4, true, Outcome::Aborted);
    story.read(&[ALL, COMMITTED], 6, 8, &[(6, 0, 3, 1)]);
    story.ends(&[8, 8, 9, 0]);
    assert_refuted(&story, Invariant::Isolation);
}

#[test]
fn an_open_transaction_that_is_read_as_committed_is_refuted() {
    let mut story = sound();
    story.input(4, 3, [6, 6]);
    story.read(&[COMMITTED], 6, 7, &[(6, 0, 3, 1)]);
    story.commit(4);
    story.read(&[COMMITTED], 7, 8, &[]);
    story.read(&[ALL], 6, 8, &[(6, 0, 3, 1)]);
    story.ends(&[8, 8, 9, 0]);
    assert_refuted(&story, Invariant::Isolation);
}

#[test]
fn a_reader_that_passes_an_open_transaction_misses_it() {
    let mut story = sound();
    story.input(4, 3, [6, 6]);
    // It should have waited at 6, the last stable offset.
    story.read(&[COMMITTED], 6, 7, &[]);
    story.commit(4);
    story.read(&[COMMITTED], 7, 8, &[]);
    story.read(&[ALL], 6, 8, &[(6, 0, 3, 1)]);
    story.ends(&[8, 8, 9, 0]);
    assert_refuted(&story, Invariant::NoLoss);
}

#[test]
fn readers_of_committed_records_must_agree_too() {
    let mut story = sound();
    for p in 0..2 {
        story.poll(COMMITTED_TOO, p, 0, 6, &[(0, 0, 0, 1), (2, 0, 1, 1), (4, 0, 2, 1)]);
    }
    story.ends(&[6, 6, 9, 0]);
    let report = story.check();
    assert_eq!(report.state(Invariant::SameLog), Some(State::Refuted));
    assert_eq!(report.state(Invariant::Isolation), Some(State::Refuted));
}

#[test]
fn a_record_that_is_transformed_twice_is_refuted() {
    let mut story = sound();
    story.output(14, 6, 2, 9);
    story.commit(14);
    story.poll(COMMITTED, 2, 9, 12, &[(9, 100, 6, 2)]);
    story.poll(ALL, 2, 9, 12, &[(9, 100, 6, 2)]);
    story.ends(&[6, 6, 12, 0]);
    assert_refuted(&story, Invariant::ExactlyOnce);
}

#[test]
fn a_record_that_is_never_transformed_is_refuted_once_all_are_drained() {
    let mut story = sound();
    story.input(4, 3, [6, 6]);
    story.commit(4);
    story.read(&[ALL, COMMITTED], 6, 8, &[(6, 0, 3, 1)]);
    story.ends(&[8, 8, 9, 0]);
    assert_eq!(story.check().state(Invariant::ExactlyOnce), Some(State::Unproven));
    story.drained();
    assert_refuted(&story, Invariant::ExactlyOnce);
}
