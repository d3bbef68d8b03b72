//! Transactional producers. Each of a few transactional ids is used by one process after the other: some processes die, some
//! only pause and go on as zombies while a successor writes already. Time-outs leave requests on their way that arrive late.

mod answers;
mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ottla_coordinator::transaction::TransactionVersion;
use ottla_verify::{Event, Outcome};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::batch::Batch;
use super::message::Message;
use super::network::{CLIENTS, Node};
use super::plan::{Plan, Transactions};
use super::random::Random;

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
}
