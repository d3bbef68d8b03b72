//! Transactional producers. Each of a few transactional ids is used by one process after the other: some processes die, some
//! only pause and go on as zombies while a successor writes already. Time-outs leave requests on their way that arrive late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ottla_coordinator::group::TopicPartition;
use ottla_coordinator::transaction::{
    AddPartitions, Command, EndTxn, InitProducerId, ProducerReply, Reply, TransactionVersion,
};
use ottla_verify::{Event, Outcome};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::batch::{Batch, Kind};
use super::message::{Message, Problem};
use super::network::{CLIENTS, Node};
use super::plan::{Plan, Transactions};
use super::random::Random;
use crate::metadata::TOPIC;

/// The first of them; each process has a node of its own.
pub const TRANSACTORS: Node = CLIENTS + 1_000;
/// A request without an answer for so long is given up, and made again.
const REQUEST_TIMEOUT_US: u64 = 1_500_000;
/// Before something is tried again.
const PAUSE_US: (u64, u64) = (20_000, 300_000);
/// Between two records, or two transactions.
const THINK_US: (u64, u64) = (1_000, 60_000);
/// After so many failures of one record its transaction is given up.
const FAILURES_MAX: u32 = 8;
/// Numbers of sendings and connections, apart from those of other clients.
const NUMBERS_FROM: u64 = 1 << 40;
/// The clients' way to say that there is no producer id yet.
const NONE: (i64, i16) = (-1, -1);

/// Something that a process wants to be reminded of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactorTimer {
    /// The process goes on.
    Act(usize),
    /// That request was not answered.
    Silent(usize, u64),
    /// The next process of a transactional id starts.
    Succeed(usize),
}

/// What comes out of a step.
#[derive(Debug, Default)]
pub struct TransactorOutbox {
    /// Messages; with a number they arrive in the order of sending among those with the same number.
    pub sends: Vec<(Node, Node, Message, Option<u64>)>,
    /// Timers.
    pub timers: Vec<(u64, TransactorTimer)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It needs a producer id, or another epoch.
    Initialising,
    Idle,
    Writing,
    Ending,
    /// It is fenced, dead, or done.
    Over,
}

#[derive(Debug)]
struct Record {
    op: u64,
    partition: usize,
    batch: Batch,
}

#[derive(Debug)]
struct Transaction {
    number: u64,
    /// Partitions of records that are still to be written.
    left: VecDeque<usize>,
    added: BTreeSet<usize>,
    record: Option<Record>,
    wants_commit: bool,
    /// The end was asked for so many times.
    ends_asked: u32,
    /// Something was sent whose fate is not known.
    is_unresolved: bool,
    /// Records were sent at all.
    has_sent: bool,
}

#[derive(Debug)]
struct Process {
    /// Which transactional id.
    id: usize,
    phase: Phase,
    producer: (i64, i16),
    sequences: BTreeMap<usize, i32>,
    numbers: BTreeMap<usize, u64>,
    transaction: Option<Transaction>,
    /// The request that is waited for, and what was asked before counts no more.
    request: Option<u64>,
    failures: u32,
    /// Zombies do nothing until then.
    paused_until_us: u64,
    is_dead: bool,
}

/// All processes.
#[derive(Debug)]
pub struct Transactors {
    random: Random,
    settings: Transactions,
    brokers: i32,
    partitions: usize,
    leaders: Vec<(i32, i32)>,
    processes: Vec<Process>,
    next_number: u64,
    /// No more transactions.
    pub is_stopped: bool,
    /// What happened since it was taken last.
    pub history: Vec<Event>,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Processes that found that they were replaced.
    pub fenced: u64,
}

impl Transactors {
    /// The first process of each id is about to start.
    pub fn new(plan: &Plan, out: &mut TransactorOutbox) -> Option<Self> {
        let settings = plan.transactions.clone()?;
        let all = plan.partitions + settings.coordinators;
        out.timers.extend((0..settings.ids).map(|id| (10_000, TransactorTimer::Succeed(id))));
        Some(Self {
            random: Random::new(plan.seed, 8),
            brokers: plan.brokers,
            partitions: usize::try_from(plan.partitions).unwrap_or(1),
            leaders: vec![(-1, -1); usize::try_from(all).unwrap_or(1)],
            processes: Vec::new(),
            next_number: NUMBERS_FROM,
            is_stopped: false,
            history: Vec::new(),
            acknowledged: 0,
            fenced: 0,
            settings,
        })
    }

    /// The leaders that they know, by partition.
    pub fn leaders(&self) -> &[(i32, i32)] {
        &self.leaders
    }

    /// Whether nobody is in a transaction any more.
    pub fn is_quiet(&self) -> bool {
        self.processes.iter().all(|process| process.phase == Phase::Over)
    }

    /// Who is, for reports.
    pub fn describe_waiting(&self) -> String {
        let busy = self.processes.iter().enumerate().filter(|(_, process)| process.phase != Phase::Over);
        let texts = busy.map(|(at, process)| {
            format!(
                "process {at} of transactional id {} is {:?} with {:?} after {} failures: {:?}",
                process.id, process.phase, process.producer, process.failures, process.transaction
            )
        });
        texts.collect::<Vec<_>>().join("; ")
    }

    fn node(at: usize) -> Node {
        TRANSACTORS + i32::try_from(at).unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn coordinator(&self, id: usize) -> usize {
        self.partitions + id % usize::try_from(self.settings.coordinators).unwrap_or(1).max(1)
    }

    fn transactional_id(id: usize) -> Text {
        Text::from(["transactor-0", "transactor-1", "transactor-2", "transactor-3"][id % 4])
    }

    fn version(&self) -> TransactionVersion {
        if self.settings.is_version_2 { TransactionVersion::V2 } else { TransactionVersion::V0 }
    }

    fn ask_for_leaders(&mut self, at: usize, out: &mut TransactorOutbox) {
        let broker = self.random.between(1, u64::from(self.brokers.unsigned_abs()));
        out.sends.push((Self::node(at), i32::try_from(broker).unwrap_or(1), Message::Metadata, None));
    }

    /// Something is due.
    pub fn due(&mut self, now_us: u64, timer: TransactorTimer, out: &mut TransactorOutbox) {
        match timer {
            TransactorTimer::Succeed(id) => {
                if !self.is_stopped {
                    self.processes.push(Process {
                        id,
                        phase: Phase::Initialising,
                        producer: NONE,
                        sequences: BTreeMap::new(),
                        numbers: BTreeMap::new(),
                        transaction: None,
                        request: None,
                        failures: 0,
                        paused_until_us: 0,
                        is_dead: false,
                    });
                    self.act(now_us, self.processes.len() - 1, out);
                }
            }
            TransactorTimer::Act(at) => self.act(now_us, at, out),
            TransactorTimer::Silent(at, request) => {
                if self.processes[at].request == Some(request) {
                    self.processes[at].request = None;
                    if let Some(transaction) = &mut self.processes[at].transaction {
                        transaction.is_unresolved = true;
                    }
                    self.ask_for_leaders(at, out);
                    self.again(now_us, at, out);
                }
            }
        }
    }

    /// The process does its next step, unless it waits for an answer.
    fn act(&mut self, now_us: u64, at: usize, out: &mut TransactorOutbox) {
        let process = &self.processes[at];
        if process.is_dead || process.phase == Phase::Over || process.request.is_some() {
            return;
        }
        if process.paused_until_us > now_us {
            out.timers.push((process.paused_until_us - now_us, TransactorTimer::Act(at)));
            return;
        }
        match process.phase {
            Phase::Over => {}
            Phase::Initialising => self.initialise(at, out),
            Phase::Idle => self.begin(now_us, at, out),
            Phase::Writing => self.write(now_us, at, out),
            Phase::Ending => self.end(now_us, at, out),
        }
    }

    fn initialise(&mut self, at: usize, out: &mut TransactorOutbox) {
        if self.is_stopped {
            self.processes[at].phase = Phase::Over;
            return;
        }
        let process = &self.processes[at];
        let command = Command::InitProducerId(InitProducerId {
            transactional_id: Self::transactional_id(process.id),
            timeout_ms: self.settings.timeout_ms,
            producer_id: process.producer.0,
            producer_epoch: process.producer.1,
            enable_two_phase_commit: false,
            keep_prepared: false,
            fresh_producer_id: None,
        });
        self.request(at, command, out);
    }

    fn begin(&mut self, now_us: u64, at: usize, out: &mut TransactorOutbox) {
        if self.is_stopped {
            self.processes[at].phase = Phase::Over;
            return;
        }
        if self.random.chance(self.settings.successors) {
            let id = self.processes[at].id;
            let after = self.random.between(0, 200_000);
            out.timers.push((after, TransactorTimer::Succeed(id)));
            // It dies somewhere on its way, or pauses there.
            if self.random.chance(500) {
                self.processes[at].paused_until_us = now_us + self.random.between(200_000, 4_000_000);
            } else {
                self.processes[at].is_dead = true;
                self.processes[at].phase = Phase::Over;
                return;
            }
        }
        let number = self.number();
        let count = self.random.between(1, 4);
        let partitions = self.partitions as u64;
        let left = (0..count).map(|_| usize::try_from(self.random.below(partitions)).unwrap_or(0)).collect();
        let transaction = Transaction {
            number,
            left,
            added: BTreeSet::new(),
            record: None,
            wants_commit: self.random.chance(700),
            ends_asked: 0,
            is_unresolved: false,
            has_sent: false,
        };
        (self.processes[at].transaction, self.processes[at].phase) = (Some(transaction), Phase::Writing);
        self.act(now_us, at, out);
    }

    fn write(&mut self, now_us: u64, at: usize, out: &mut TransactorOutbox) {
        // In the midst of a transaction too processes die, and pause.
        if self.random.chance(self.settings.successors / 4) && !self.is_stopped {
            let id = self.processes[at].id;
            out.timers.push((self.random.between(0, 200_000), TransactorTimer::Succeed(id)));
            if self.random.chance(500) {
                self.give_up_record(now_us, at);
                self.over(now_us, at, ErrorCode::None);
                self.processes[at].is_dead = true;
                return;
            }
            self.processes[at].paused_until_us = now_us + self.random.between(200_000, 4_000_000);
            return self.act(now_us, at, out);
        }
        let Some(transaction) = &self.processes[at].transaction else { return };
        let partition = match (&transaction.record, transaction.left.front()) {
            (Some(record), _) => record.partition,
            (None, Some(partition)) => *partition,
            (None, None) => {
                self.processes[at].phase = Phase::Ending;
                return self.act(now_us, at, out);
            }
        };
        if !self.settings.is_version_2 && !transaction.added.contains(&partition) {
            let (process, index) = (&self.processes[at], i32::try_from(partition).unwrap_or(0));
            let command = Command::AddPartitions(AddPartitions {
                transactional_id: Self::transactional_id(process.id),
                producer_id: process.producer.0,
                producer_epoch: process.producer.1,
                client_version: TransactionVersion::V0,
                partitions: vec![TopicPartition { topic: Text::from(TOPIC), partition: index }],
                wait_ms_max: 0,
            });
            return self.request(at, command, out);
        }
        self.produce(now_us, at, partition, out);
    }

    fn produce(&mut self, now_us: u64, at: usize, partition: usize, out: &mut TransactorOutbox) {
        let (op, request) = (self.number(), self.number());
        let process = &mut self.processes[at];
        let Some(transaction) = &mut process.transaction else { return };
        if transaction.record.is_none() {
            transaction.left.pop_front();
            let number = process.numbers.entry(partition).or_insert(0);
            let batch = Batch {
                producer_id: process.producer.0,
                producer_epoch: process.producer.1,
                sequence: *process.sequences.entry(partition).or_insert(0),
                writer: u32::try_from(at).unwrap_or(0),
                number: *number,
                kind: Kind::Transactional(transaction.number),
            };
            self.history.push(Event::Send {
                t: now_us,
                op,
                w: batch.writer,
                p: u32::try_from(partition).unwrap_or(0),
                n: *number,
                c: 1,
                x: Some(transaction.number),
                src: Vec::new(),
            });
            *number += 1;
            transaction.has_sent = true;
            transaction.record = Some(Record { op, partition, batch });
        }
        let Some(batch) = transaction.record.as_ref().map(|record| record.batch.clone()) else { return };
        let (leader, _) = self.leaders[partition];
        if leader < 0 {
            self.ask_for_leaders(at, out);
            return self.again(now_us, at, out);
        }
        self.processes[at].request = Some(request);
        let coordinator = i32::try_from(self.coordinator(self.processes[at].id)).unwrap_or(0);
        let id = Self::transactional_id(self.processes[at].id);
        let produce = Message::Produce {
            // Each request has a connection of its own: what is late of an earlier one may come behind it.
            id: (request, request),
            partition: i32::try_from(partition).unwrap_or(0),
            batch,
            transaction: Some((coordinator, id, self.settings.is_version_2)),
        };
        out.sends.push((Self::node(at), leader, produce, Some(request)));
        out.timers.push((REQUEST_TIMEOUT_US, TransactorTimer::Silent(at, request)));
    }

    fn end(&mut self, now_us: u64, at: usize, out: &mut TransactorOutbox) {
        let version = self.version();
        let process = &mut self.processes[at];
        let Some(transaction) = &mut process.transaction else { return };
        if !transaction.has_sent && transaction.added.is_empty() {
            // Nobody knows of it.
            let x = transaction.number;
            process.transaction = None;
            process.phase = Phase::Idle;
            self.history.push(Event::Ended { t: now_us, x, outcome: Outcome::Aborted });
            out.timers.push((PAUSE_US.1, TransactorTimer::Act(at)));
            return;
        }
        transaction.ends_asked += 1;
        let commit = transaction.wants_commit;
        self.history.push(Event::End { t: now_us, x: transaction.number, commit });
        let command = Command::EndTxn(EndTxn {
            transactional_id: Self::transactional_id(process.id),
            producer_id: process.producer.0,
            producer_epoch: process.producer.1,
            commit,
            client_version: version,
            fresh_producer_id: None,
        });
        self.request(at, command, out);
    }

    /// To the coordinator.
    fn request(&mut self, at: usize, command: Command, out: &mut TransactorOutbox) {
        let coordinator = self.coordinator(self.processes[at].id);
        let (leader, _) = self.leaders[coordinator];
        if leader < 0 {
            self.ask_for_leaders(at, out);
            out.timers.push((PAUSE_US.1, TransactorTimer::Act(at)));
            return;
        }
        let id = self.number();
        self.processes[at].request = Some(id);
        let coordinator = i32::try_from(coordinator).unwrap_or(0);
        out.sends.push((Self::node(at), leader, Message::Transaction { id, coordinator, command }, None));
        out.timers.push((REQUEST_TIMEOUT_US, TransactorTimer::Silent(at, id)));
    }

    /// Something failed: it is tried again after a pause; a record is given up after a while.
    fn again(&mut self, now_us: u64, at: usize, out: &mut TransactorOutbox) {
        let process = &mut self.processes[at];
        process.failures += 1;
        let has_record = process.transaction.as_ref().is_some_and(|transaction| transaction.record.is_some());
        if process.phase == Phase::Writing && process.failures > FAILURES_MAX {
            if has_record {
                self.give_up_record(now_us, at);
            }
            self.abort(at);
        }
        let pause = self.random.between(PAUSE_US.0, PAUSE_US.1);
        out.timers.push((pause, TransactorTimer::Act(at)));
    }

    fn abort(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if let Some(transaction) = &mut process.transaction {
            transaction.left.clear();
            (transaction.wants_commit, transaction.is_unresolved) = (false, true);
            process.phase = Phase::Ending;
        }
    }

    fn give_up_record(&mut self, now_us: u64, at: usize) {
        let transaction = self.processes[at].transaction.as_mut();
        let record = transaction.and_then(|transaction| transaction.record.take());
        if let Some(record) = record {
            self.history.push(Event::Unknown { t: now_us, op: record.op, why: "given up".to_owned() });
        }
    }

    /// The process ends in the midst of whatever it did, because of this error or (none) by itself.
    fn over(&mut self, now_us: u64, at: usize, error: ErrorCode) {
        self.give_up_record(now_us, at);
        let process = &mut self.processes[at];
        process.phase = Phase::Over;
        let Some(transaction) = process.transaction.take() else { return };
        // A first request that is refused has committed nothing.
        let is_definite = matches!(
            error,
            ErrorCode::ProducerFenced
                | ErrorCode::InvalidProducerEpoch
                | ErrorCode::InvalidTxnState
                | ErrorCode::InvalidProducerIdMapping
        );
        let is_refused = is_definite && transaction.ends_asked == 1;
        let may_be = transaction.wants_commit && transaction.ends_asked > 0 && !is_refused;
        let outcome = if may_be { Outcome::Unknown } else { Outcome::Aborted };
        self.history.push(Event::Ended { t: now_us, x: transaction.number, outcome });
    }

    /// It is replaced, or cannot go on: another process takes its place by and by.
    fn replaced(&mut self, now_us: u64, at: usize, error: ErrorCode, out: &mut TransactorOutbox) {
        self.fenced += 1;
        self.over(now_us, at, error);
        let id = self.processes[at].id;
        let is_alone = !self.processes.iter().any(|process| process.id == id && process.phase != Phase::Over);
        if is_alone {
            out.timers.push((self.random.between(100_000, 1_000_000), TransactorTimer::Succeed(id)));
        }
    }

    /// A message for a process.
    pub fn receive(&mut self, now_us: u64, to: Node, message: Message, out: &mut TransactorOutbox) {
        let at = usize::try_from(to - TRANSACTORS).unwrap_or(0);
        match message {
            Message::MetadataAnswer(leaders) => {
                for (known, new) in self.leaders.iter_mut().zip(leaders) {
                    if new.1 > known.1 || new.1 == known.1 && new.0 >= 0 {
                        *known = new;
                    }
                }
            }
            Message::Produced { id, result, .. } if self.processes[at].request == Some(id.0) => {
                self.processes[at].request = None;
                self.produced(now_us, at, result, out);
            }
            Message::TransactionReply { id, reply } if self.processes[at].request == Some(id) => {
                self.processes[at].request = None;
                match reply {
                    Reply::InitProducerId(reply) => self.initialised(now_us, at, reply, out),
                    Reply::AddPartitions(error) => self.added(now_us, at, error, out),
                    Reply::EndTxn(reply) => self.ended(now_us, at, reply, out),
                    Reply::ProducerIdNeeded => self.again(now_us, at, out),
                }
            }
            _ => {}
        }
    }

    fn produced(&mut self, now_us: u64, at: usize, result: Result<i64, Problem>, out: &mut TransactorOutbox) {
        if self.processes[at].is_dead {
            return;
        }
        match result {
            Ok(offset) => {
                let process = &mut self.processes[at];
                process.failures = 0;
                let transaction = process.transaction.as_mut();
                let Some(record) = transaction.and_then(|transaction| transaction.record.take()) else {
                    return;
                };
                *process.sequences.entry(record.partition).or_insert(0) += 1;
                self.acknowledged += 1;
                self.history.push(Event::Sent { t: now_us, op: record.op, o: offset });
                let pause = self.random.between(THINK_US.0, THINK_US.1);
                out.timers.push((pause, TransactorTimer::Act(at)));
            }
            Err(Problem::Fenced) => self.replaced(now_us, at, ErrorCode::ProducerFenced, out),
            Err(Problem::NotInTransaction | Problem::OutOfOrder) => {
                self.give_up_record(now_us, at);
                self.abort(at);
                out.timers.push((PAUSE_US.0, TransactorTimer::Act(at)));
            }
            Err(Problem::NotLeader | Problem::NotEnoughReplicas | Problem::Unknown | Problem::Concurrent) => {
                self.ask_for_leaders(at, out);
                self.again(now_us, at, out);
            }
        }
    }

    fn initialised(&mut self, now_us: u64, at: usize, reply: ProducerReply, out: &mut TransactorOutbox) {
        match reply.error {
            ErrorCode::None => {
                let process = &mut self.processes[at];
                process.producer = (reply.producer_id, reply.producer_epoch);
                process.sequences.clear();
                (process.phase, process.failures) = (Phase::Idle, 0);
                out.timers.push((1_000, TransactorTimer::Act(at)));
            }
            error => self.refused(now_us, at, error, out),
        }
    }

    fn added(&mut self, now_us: u64, at: usize, error: ErrorCode, out: &mut TransactorOutbox) {
        if error != ErrorCode::None {
            return self.refused(now_us, at, error, out);
        }
        if let Some(transaction) = &mut self.processes[at].transaction {
            let next = transaction.record.as_ref().map(|record| record.partition);
            transaction.added.extend(next.or(transaction.left.front().copied()));
        }
        self.act(now_us, at, out);
    }

    fn ended(&mut self, now_us: u64, at: usize, reply: ProducerReply, out: &mut TransactorOutbox) {
        if reply.error != ErrorCode::None {
            return self.refused(now_us, at, reply.error, out);
        }
        let version_2 = self.settings.is_version_2;
        let process = &mut self.processes[at];
        let Some(transaction) = process.transaction.take() else { return };
        process.failures = 0;
        let outcome = if transaction.wants_commit { Outcome::Committed } else { Outcome::Aborted };
        self.history.push(Event::Ended { t: now_us, x: transaction.number, outcome });
        if version_2 {
            process.producer = (reply.producer_id, reply.producer_epoch);
            process.sequences.clear();
        }
        // Without an epoch for each transaction whatever may still be on its way must be kept out of the next one.
        let needs_epoch = !version_2 && (transaction.is_unresolved || transaction.ends_asked > 1);
        process.phase = if needs_epoch { Phase::Initialising } else { Phase::Idle };
        let pause = self.random.between(THINK_US.0, THINK_US.1);
        out.timers.push((pause, TransactorTimer::Act(at)));
    }

    fn refused(&mut self, now_us: u64, at: usize, error: ErrorCode, out: &mut TransactorOutbox) {
        match error {
            ErrorCode::ConcurrentTransactions
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable => {
                self.ask_for_leaders(at, out);
                self.again(now_us, at, out);
            }
            error => self.replaced(now_us, at, error, out),
        }
    }
}
