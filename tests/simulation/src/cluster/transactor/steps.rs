//! What a process does next: a producer id, a transaction, its records, its end.

use std::collections::BTreeSet;

use ottla_coordinator::group::TopicPartition;
use ottla_coordinator::transaction::{AddPartitions, Command, EndTxn, InitProducerId, TransactionVersion};
use ottla_verify::{Event, Outcome};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::{
    PAUSE_US, Phase, REQUEST_TIMEOUT_US, Record, Transaction, TransactorOutbox, TransactorTimer, Transactors,
};
use crate::cluster::batch::{Batch, Kind};
use crate::cluster::message::Message;
use crate::metadata::TOPIC;

impl Transactors {
    pub(super) fn initialise(&mut self, at: usize, out: &mut TransactorOutbox) {
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

    pub(super) fn begin(&mut self, now_us: u64, at: usize, out: &mut TransactorOutbox) {
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

    pub(super) fn write(&mut self, now_us: u64, at: usize, out: &mut TransactorOutbox) {
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

    pub(super) fn end(&mut self, now_us: u64, at: usize, out: &mut TransactorOutbox) {
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
}
