//! What a process makes of an answer.

use ottla_coordinator::transaction::{ProducerReply, Reply};
use ottla_verify::{Event, Outcome};
use ottla_wire::error_code::ErrorCode;

use super::{PAUSE_US, Phase, THINK_US, TRANSACTORS, TransactorOutbox, TransactorTimer, Transactors};
use crate::cluster::message::{Message, Problem};
use crate::cluster::network::Node;

impl Transactors {
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
