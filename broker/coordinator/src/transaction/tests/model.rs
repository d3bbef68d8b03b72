//! Random requests, failures, failovers and answers to markers; the log that comes out must be one that the rules of
//! transactions allow, and whoever asked must have been answered once.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};

const IDS: [&str; 2] = ["a", "b"];

/// What happens next. Producers and epochs are given relative to what the log knows, so that most requests mean something.
#[derive(Debug, Clone)]
enum Event {
    Init {
        id: usize,
        names_itself: Option<i16>,
    },
    Add {
        id: usize,
        epoch_off_by: i16,
        partition: i32,
        is_v2: bool,
    },
    End {
        id: usize,
        epoch_off_by: i16,
        commit: bool,
        is_v2: bool,
    },
    Commit,
    Fail,
    /// So many of the appends that are on their way are committed; the rest is lost.
    Failover {
        survive: usize,
    },
    Answer {
        sent: usize,
        partition: usize,
        outcome: MarkerOutcome,
    },
    Pass {
        elapsed_ms: u64,
    },
    AbortTimedOut,
    ExpireIds,
}

fn event() -> impl Strategy<Value = Event> {
    let id = 0..IDS.len();
    let off_by = prop_oneof![8 => Just(0i16), 3 => Just(-1i16), 1 => Just(1i16), 1 => Just(-2i16)];
    let outcome = prop_oneof![
        6 => Just(MarkerOutcome::Answered(ErrorCode::None)),
        1 => Just(MarkerOutcome::NoAnswer),
        1 => Just(MarkerOutcome::Gone),
        1 => Just(MarkerOutcome::Answered(ErrorCode::NotLeaderOrFollower)),
    ];
    prop_oneof![
        2 => (id.clone(), proptest::option::of(off_by.clone()))
            .prop_map(|(id, names_itself)| Event::Init { id, names_itself }),
        5 => (id.clone(), off_by.clone(), 0..3, any::<bool>())
            .prop_map(|(id, epoch_off_by, partition, is_v2)| Event::Add { id, epoch_off_by, partition, is_v2 }),
        4 => (id, off_by, any::<bool>(), any::<bool>())
            .prop_map(|(id, epoch_off_by, commit, is_v2)| Event::End { id, epoch_off_by, commit, is_v2 }),
        10 => Just(Event::Commit),
        1 => Just(Event::Fail),
        1 => (0..3usize).prop_map(|survive| Event::Failover { survive }),
        6 => (0..4usize, 0..3usize, outcome)
            .prop_map(|(sent, partition, outcome)| Event::Answer { sent, partition, outcome }),
        2 => prop_oneof![Just(1u64), Just(MARKER_RETRY_PAUSE_MS), Just(40_000), Just(8 * 24 * 3_600_000)]
            .prop_map(|elapsed_ms| Event::Pass { elapsed_ms }),
        1 => Just(Event::AbortTimedOut),
        1 => Just(Event::ExpireIds),
    ]
}

/// The log's changes of one id are those of Kafka's table, epochs never go back, and a producer id that was left is not
/// seen again (I59, I60, I62, I67).
fn check_log(log: &[CoordinatorRecord], id: &str) {
    let mut current: Option<TransactionMetadata> = None;
    let mut left_behind = BTreeSet::new();
    for record in log {
        let decoded = records::decode(&record.key, record.value.as_ref()).unwrap();
        let records::Record::Transaction { transactional_id, metadata } = decoded else { continue };
        if transactional_id != *id {
            continue;
        }
        let Some(next) = metadata else {
            let before = current.take().expect("I62: nothing is forgotten twice");
            assert!(before.state.is_at_rest(), "I62: {before:?} is forgotten");
            left_behind.insert(before.producer_id);
            continue;
        };
        assert!(!left_behind.contains(&next.producer_id), "I67: {next:?} uses an old producer id");
        if let Some(before) = &current {
            let is_legal = match next.state {
                Empty => before.state.is_at_rest(),
                Ongoing => before.state.is_at_rest() || before.state == Ongoing,
                PrepareCommit => before.state == Ongoing,
                PrepareAbort => {
                    before.state == Ongoing || (before.state.is_at_rest() && next.client_version == V2)
                }
                CompleteCommit => before.state == PrepareCommit,
                CompleteAbort => before.state == PrepareAbort,
                _ => false,
            };
            assert!(is_legal, "I60, I62: {before:?} becomes {next:?}");
            if next.producer_id == before.producer_id {
                assert!(next.producer_epoch >= before.producer_epoch, "I59: {before:?} becomes {next:?}");
                assert!(next.producer_epoch <= before.producer_epoch + 1, "I59: {before:?} becomes {next:?}");
            } else {
                left_behind.insert(before.producer_id);
                assert_eq!(next.producer_epoch, 0, "I67: {before:?} becomes {next:?}");
            }
            if next.state.is_prepared() && before.state == Ongoing {
                assert_eq!(next.partitions, before.partitions, "I58: every partition is told");
            }
        } else {
            assert_eq!((next.state, next.producer_epoch), (Empty, 0));
        }
        current = Some(next);
    }
}

struct Run {
    harness: Harness,
    asked: Vec<RequestToken>,
}

impl Run {
    fn producer(&self, id: usize, epoch_off_by: i16) -> ProducerReply {
        let known = self.harness.machine.durable().transaction(IDS[id]);
        let (producer_id, epoch) = known.map_or((7, 0), |known| (known.producer_id, known.producer_epoch));
        granted(producer_id, epoch.saturating_add(epoch_off_by))
    }

    fn submit(&mut self, id: usize, mut command: Command) {
        match &mut command {
            Command::InitProducerId(command) => command.transactional_id = Text::from(IDS[id]),
            Command::AddPartitions(command) => command.transactional_id = Text::from(IDS[id]),
            Command::EndTxn(command) => command.transactional_id = Text::from(IDS[id]),
        }
        let token = self.harness.submit(&command);
        self.asked.push(token);
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Init { id, names_itself } => {
                let producer =
                    names_itself.map(|off_by| self.producer(id, off_by)).filter(|p| p.producer_epoch >= 0);
                let producer = producer.unwrap_or(granted(NO_PRODUCER_ID, NO_PRODUCER_EPOCH));
                let command = self.harness.init_command(producer.producer_id, producer.producer_epoch);
                self.submit(id, command);
            }
            Event::Add { id, epoch_off_by, partition: index, is_v2 } => {
                let version = if is_v2 { V2 } else { V0 };
                let partitions = [partition("t", index)];
                let mut command = Harness::add_command(self.producer(id, epoch_off_by), &partitions, version);
                if let Command::AddPartitions(command) = &mut command {
                    command.wait_ms_max = if is_v2 { 2 * MARKER_RETRY_PAUSE_MS } else { 0 };
                }
                self.submit(id, command);
            }
            Event::End { id, epoch_off_by, commit, is_v2 } => {
                let version = if is_v2 { V2 } else { V0 };
                let command = self.harness.end_command(self.producer(id, epoch_off_by), commit, version);
                self.submit(id, command);
            }
            Event::Commit if !self.harness.held.is_empty() => self.harness.commit(),
            Event::Fail if !self.harness.held.is_empty() => self.harness.fail(ErrorCode::NotEnoughReplicas),
            Event::Commit | Event::Fail => {}
            Event::Failover { survive } => self.fail_over(survive),
            Event::Answer { sent, partition, outcome } => self.answer(sent, partition, outcome),
            Event::Pass { elapsed_ms } => self.harness.pass(elapsed_ms),
            Event::AbortTimedOut => self.harness.abort_timed_out(),
            Event::ExpireIds => self.harness.expire_ids(),
        }
    }

    /// The coordinator dies; its log has some of what was on its way.
    fn fail_over(&mut self, survive: usize) {
        let mut effects = Effects::default();
        self.harness.machine.resign(&mut effects);
        let survived: Vec<_> =
            self.harness.held.drain(..).take(survive).flat_map(|append| append.records).collect();
        self.harness.execute(effects);
        self.check_answers();
        self.harness.log.extend(survived);
        let mut next = self.harness.failover();
        next.holds = true;
        self.harness = next;
        self.asked.clear();
    }

    fn answer(&mut self, sent: usize, partition: usize, outcome: MarkerOutcome) {
        let newest = self.harness.markers.len().checked_sub(1 + sent);
        let Some(sent) = newest.and_then(|at| self.harness.markers.get(at)).cloned() else { return };
        if let Some(partition) = sent.partitions.get(partition) {
            self.harness.answer(sent.token, &[(partition.clone(), outcome)]);
        }
    }

    /// Nobody is forgotten, and nobody is told a decision that the log does not have.
    fn check_answers(&self) {
        for token in &self.asked {
            assert!(self.harness.replies.contains_key(token), "{token:?} was not answered");
        }
    }

    fn settle(&mut self) {
        self.harness.holds = false;
        while !self.harness.held.is_empty() {
            self.harness.commit();
        }
        for _ in 0..4 {
            self.harness.pass(1_000_000);
            self.harness.abort_timed_out();
            for sent in std::mem::take(&mut self.harness.markers) {
                let done = |partition: &TopicPartition| {
                    (partition.clone(), MarkerOutcome::Answered(ErrorCode::None))
                };
                let outcomes: Vec<_> = sent.partitions.iter().map(done).collect();
                self.harness.answer(sent.token, &outcomes);
            }
        }
        self.check_answers();
        for (id, found) in self.harness.machine.durable().transactions() {
            assert!(found.state.is_at_rest(), "I65: {id} is left in {found:?}");
        }
        assert!(self.harness.machine.appends.is_empty() && self.harness.machine.timers.is_empty());
        assert!(self.harness.machine.tokens.is_empty() && self.harness.machine.waiting_until.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_log_is_lawful_and_everyone_is_answered(
        events in proptest::collection::vec(event(), 1..120),
        level in 0i16..3,
    ) {
        let mut harness = Harness::new(TransactionVersion(level));
        harness.holds = true;
        let mut run = Run { harness, asked: Vec::new() };
        for event in events {
            let (before, sent_before) = (run.harness.replies.len(), run.harness.markers.len());
            run.act(event);
            if run.harness.replies.len() < before {
                // A failover: a new harness.
                run.harness.assert_replay_equals_live();
                continue;
            }
            for sent in run.harness.markers.iter().skip(sent_before) {
                let known = run.harness.machine.durable().transaction(&sent.transactional_id).unwrap();
                let expected = if sent.commit { PrepareCommit } else { PrepareAbort };
                prop_assert_eq!(known.state, expected, "I62: markers say what is committed");
            }
            run.harness.assert_replay_equals_live();
        }
        run.settle();
        for id in IDS {
            check_log(&run.harness.log, id);
        }
        run.harness.assert_replay_equals_live();
    }
}
