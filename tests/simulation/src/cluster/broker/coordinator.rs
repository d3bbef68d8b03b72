//! The transaction coordinators of a broker: for each partition of their log that it leads the machine, and around it what
//! `broker/src/transactions/shard.rs` and `markers.rs` do.

use std::collections::{BTreeMap, VecDeque};

use ottla_coordinator::group::{CoordinatorRecord, Now, RequestToken, Ticket, TopicPartition};
use ottla_coordinator::transaction::{
    AddPartitions, Command, Effects, MarkerOutcome, MarkerToken, Reply, SendMarkers, TransactionConfig,
    TransactionCoordinator, TransactionVersion,
};
use ottla_replica::AckState;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::serve::Admission;
use super::{Broker, Outbox, Timer};
use crate::cluster::batch::{Batch, Kind};
use crate::cluster::message::{MarkerRequest, Message, Question};
use crate::cluster::network::Node;
use crate::fault::Fault;
use crate::metadata::TOPIC;

/// Between leadership and the end of loading.
const LOAD_US: u64 = 5_000;
/// Between two looks at deadlines.
const TICK_US: u64 = 100_000;
/// An append that is not committed for so long has failed.
const COMMIT_TIMEOUT_US: u64 = 5_000_000;
/// A marker that is not answered for so long is sent again.
const MARKER_TIMEOUT_US: u64 = 3_000_000;
/// As long as this an addition waits for the transaction before.
const ADDITION_WAIT_MS_MAX: u64 = 1_000;
/// Wall clocks show something behind this.
const WALL_MS: u64 = 1_700_000_000_000;
/// Wall clocks of two brokers are apart by so much.
const WALL_APART_MS: u64 = 137;

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    records: Vec<CoordinatorRecord>,
    offset: i64,
    deadline_us: u64,
}

#[derive(Debug, Clone, Copy)]
enum Origin {
    Client(Node, u64),
    Leader(Node, u64),
}

/// A coordinator.
#[derive(Debug)]
pub(super) struct Shard {
    machine: TransactionCoordinator,
    leader_epoch: i32,
    is_loaded: bool,
    in_flight: VecDeque<InFlight>,
    origins: BTreeMap<RequestToken, Origin>,
    next_token: u64,
}

/// A marker on its way: of which coordinator.
#[derive(Debug, Clone)]
pub(super) struct SentMarker {
    index: i32,
    leader_epoch: i32,
    token: MarkerToken,
    partition: i32,
}

fn partition_of(index: i32) -> TopicPartition {
    TopicPartition { topic: Text::from(TOPIC), partition: index }
}

impl Broker {
    fn coordinator_now(&self, now_us: u64) -> Now {
        let monotonic_ms = self.local_ms(now_us);
        let apart_ms = u64::from(self.id.unsigned_abs()) * WALL_APART_MS;
        let wall_ms = i64::try_from(WALL_MS + monotonic_ms + apart_ms).unwrap_or(i64::MAX);
        Now { monotonic_ms, wall_ms }
    }

    /// A partition of the coordinators' log is led here from now on.
    pub(super) fn begin_to_coordinate(&mut self, now_us: u64, index: i32, epoch: i32, out: &mut Outbox) {
        self.resign(now_us, index, out);
        let config =
            TransactionConfig { version: self.settings.transaction_version, ..TransactionConfig::default() };
        let shard = Shard {
            machine: TransactionCoordinator::new(config),
            leader_epoch: epoch,
            is_loaded: false,
            in_flight: VecDeque::new(),
            origins: BTreeMap::new(),
            next_token: 0,
        };
        self.shards.insert(index, shard);
        out.timers.push((LOAD_US, Timer::Load(index, epoch)));
    }

    /// Leadership is lost.
    pub(super) fn resign(&mut self, now_us: u64, index: i32, out: &mut Outbox) {
        let Some(mut shard) = self.shards.remove(&index) else { return };
        let mut effects = Effects::default();
        shard.machine.resign(&mut effects);
        shard.in_flight.clear();
        self.reply(now_us, &mut shard, effects.replies, out);
    }

    /// The log has been read to its end, also beyond the high watermark.
    pub(super) fn load(&mut self, now_us: u64, index: i32, epoch: i32, out: &mut Outbox) {
        let (now, own_now) = (self.coordinator_now(now_us), self.now(now_us));
        let Some(shard) = self.shards.get_mut(&index).filter(|shard| shard.leader_epoch == epoch) else {
            return;
        };
        let Some(partition) = self.partitions.get(&index) else { return };
        let log = &partition.replica.log;
        let end = log.end();
        let state = partition.replica.ack_state(own_now, epoch, end - 1, self.settings.fault);
        if end > 0 && state != AckState::Done && self.settings.fault != Fault::LoadsUncommitted {
            // What is beyond the high watermark may be lost with this leadership: nobody is to hear of it yet.
            out.timers.push((LOAD_US, Timer::Load(index, epoch)));
            return;
        }
        for entry in log.slice(log.start(), log.end()) {
            let Kind::Coordinator(records) = &entry.payload.kind else { continue };
            for record in records.iter() {
                if let Err(error) = shard.machine.apply(&record.key, record.value.as_ref()) {
                    out.problems.push(format!("a coordinator's record cannot be read: {error}"));
                }
            }
        }
        shard.is_loaded = true;
        let mut effects = Effects::default();
        shard.machine.lead(now, epoch, &mut effects);
        self.run_shard(now_us, index, effects, out);
        out.timers.push((TICK_US, Timer::Coordinator(index, epoch)));
    }

    /// Deadlines, and transactions that ran out of time.
    pub(super) fn coordinate(&mut self, now_us: u64, index: i32, epoch: i32, out: &mut Outbox) {
        let now = self.coordinator_now(now_us);
        let Some(shard) = self.shards.get_mut(&index).filter(|shard| shard.leader_epoch == epoch) else {
            return;
        };
        let mut effects = Effects::default();
        if shard.machine.next_deadline_ms().is_some_and(|at_ms| at_ms <= now.monotonic_ms) {
            shard.machine.tick(now, &mut effects);
        }
        shard.machine.abort_timed_out(now, &mut effects);
        self.run_shard(now_us, index, effects, out);
        out.timers.push((TICK_US, Timer::Coordinator(index, epoch)));
    }

    /// A producer's request.
    pub(super) fn transact(
        &mut self,
        now_us: u64,
        from: Node,
        (id, index): (u64, i32),
        mut command: Command,
        out: &mut Outbox,
    ) {
        self.next_producer += 1;
        let fresh = (i64::from(self.id) << 40) | i64::try_from(self.next_producer).unwrap_or(0);
        match &mut command {
            Command::InitProducerId(command) => command.fresh_producer_id = Some(fresh),
            Command::EndTxn(command) => command.fresh_producer_id = Some(fresh),
            Command::AddPartitions(_) => {}
        }
        let refusal = |error| command.refusal(error);
        match self.submit(now_us, index, Origin::Client(from, id), &command, out) {
            Ok(()) => {}
            Err(error) => {
                out.sends.push((self.id, from, Message::TransactionReply { id, reply: refusal(error) }));
            }
        }
    }

    /// A leader's question.
    pub(super) fn asked(&mut self, now_us: u64, from: Node, id: u64, question: &Question, out: &mut Outbox) {
        let Question { transactional_id, producer_id, producer_epoch, .. } = question;
        let (producer_id, producer_epoch) = (*producer_id, *producer_epoch);
        let partitions = vec![partition_of(question.partition)];
        let answer = if question.add {
            let command = Command::AddPartitions(AddPartitions {
                transactional_id: transactional_id.clone(),
                producer_id,
                producer_epoch,
                client_version: TransactionVersion::V2,
                partitions,
                wait_ms_max: ADDITION_WAIT_MS_MAX,
            });
            match self.submit(now_us, question.coordinator, Origin::Leader(from, id), &command, out) {
                Ok(()) => return,
                Err(error) => error,
            }
        } else {
            let shard = self.shards.get(&question.coordinator);
            match shard {
                None => ErrorCode::NotCoordinator,
                Some(shard) if !shard.is_loaded => ErrorCode::CoordinatorLoadInProgress,
                Some(shard) => {
                    match shard.machine.verify(transactional_id, producer_id, producer_epoch, &partitions) {
                        Ok(codes) => codes.first().copied().unwrap_or(ErrorCode::UnknownServerError),
                        Err(error) => error,
                    }
                }
            }
        };
        out.sends.push((self.id, from, Message::Asked { id, error: answer }));
    }

    fn submit(
        &mut self,
        now_us: u64,
        index: i32,
        origin: Origin,
        command: &Command,
        out: &mut Outbox,
    ) -> Result<(), ErrorCode> {
        let now = self.coordinator_now(now_us);
        let shard = self.shards.get_mut(&index).ok_or(ErrorCode::NotCoordinator)?;
        if !shard.is_loaded {
            return Err(ErrorCode::CoordinatorLoadInProgress);
        }
        shard.next_token += 1;
        let token = RequestToken(shard.next_token);
        shard.origins.insert(token, origin);
        let mut effects = Effects::default();
        shard.machine.step(now, token, command, &mut effects);
        self.run_shard(now_us, index, effects, out);
        Ok(())
    }

    /// What became of a marker.
    pub(super) fn marker_written(&mut self, now_us: u64, id: u64, outcome: MarkerOutcome, out: &mut Outbox) {
        let Some(sent) = self.sent_markers.remove(&id) else { return };
        let now = self.coordinator_now(now_us);
        let shard = self.shards.get_mut(&sent.index).filter(|shard| shard.leader_epoch == sent.leader_epoch);
        let Some(shard) = shard.filter(|shard| shard.is_loaded) else { return };
        let mut effects = Effects::default();
        let outcomes = [(partition_of(sent.partition), outcome)];
        shard.machine.markers_answered(now, sent.token, &outcomes, &mut effects);
        self.run_shard(now_us, sent.index, effects, out);
    }

    /// Takes appends whose fate is known from the front of the queue.
    pub(super) fn settle(&mut self, now_us: u64, index: i32, out: &mut Outbox) {
        if self.shards.contains_key(&index) {
            self.run_shard(now_us, index, Effects::default(), out);
        }
    }

    /// Appends, answers, sends, until nothing more follows.
    fn run_shard(&mut self, now_us: u64, index: i32, mut effects: Effects, out: &mut Outbox) {
        // While it is out, nothing that an append sets off finds it.
        let Some(mut shard) = self.shards.remove(&index) else { return };
        self.settle_shard(now_us, index, &mut shard, &mut effects);
        loop {
            self.reply(now_us, &mut shard, std::mem::take(&mut effects.replies), out);
            for markers in std::mem::take(&mut effects.markers) {
                self.send_markers(index, &shard, &markers, out);
            }
            let appends = std::mem::take(&mut effects.appends);
            if appends.is_empty() {
                break;
            }
            for append in appends {
                let batch = Batch::of_coordinator(append.records.clone());
                let admission = Admission::Coordinator(shard.leader_epoch);
                match self.append(now_us, index, &batch, admission, None, out) {
                    Ok(appended) => shard.in_flight.push_back(InFlight {
                        ticket: append.ticket,
                        records: append.records,
                        offset: appended.offset,
                        deadline_us: now_us + COMMIT_TIMEOUT_US,
                    }),
                    Err(error) => {
                        shard.machine.failed(
                            self.coordinator_now(now_us),
                            append.ticket,
                            error,
                            &mut effects,
                        );
                    }
                }
            }
            self.settle_shard(now_us, index, &mut shard, &mut effects);
        }
        self.shards.insert(index, shard);
    }

    fn settle_shard(&self, now_us: u64, index: i32, shard: &mut Shard, effects: &mut Effects) {
        let (now, fault) = (self.coordinator_now(now_us), self.settings.fault);
        let Some(partition) = self.partitions.get(&index) else { return };
        while let Some(front) = shard.in_flight.front() {
            let state =
                partition.replica.ack_state(self.now(now_us), shard.leader_epoch, front.offset, fault);
            let fate = match state {
                _ if fault == Fault::DecidesAlone => None,
                AckState::Done => None,
                AckState::NotEnoughReplicasAfterAppend => Some(ErrorCode::NotEnoughReplicasAfterAppend),
                AckState::NoLongerLeader => Some(ErrorCode::NotLeaderOrFollower),
                AckState::Pending if now_us >= front.deadline_us => Some(ErrorCode::RequestTimedOut),
                AckState::Pending => return,
            };
            let Some(done) = shard.in_flight.pop_front() else { return };
            if let Some(error) = fate {
                shard.machine.failed(now, done.ticket, error, effects);
                continue;
            }
            for record in &done.records {
                let applied = shard.machine.apply(&record.key, record.value.as_ref());
                debug_assert!(applied.is_ok(), "the coordinator wrote it itself");
            }
            shard.machine.committed(now, done.ticket, effects);
        }
    }

    fn reply(&self, _now_us: u64, shard: &mut Shard, replies: Vec<(RequestToken, Reply)>, out: &mut Outbox) {
        for (token, reply) in replies {
            match (shard.origins.remove(&token), reply) {
                (Some(Origin::Client(to, id)), reply) => {
                    out.sends.push((self.id, to, Message::TransactionReply { id, reply }));
                }
                (Some(Origin::Leader(to, id)), Reply::AddPartitions(error)) => {
                    out.sends.push((self.id, to, Message::Asked { id, error }));
                }
                _ => {}
            }
        }
    }

    fn send_markers(&mut self, index: i32, shard: &Shard, markers: &SendMarkers, out: &mut Outbox) {
        let SendMarkers { producer_id, producer_epoch, commit, coordinator_epoch, .. } = *markers;
        for partition in &markers.partitions {
            self.next_id += 1;
            let id = self.next_id;
            let sent = SentMarker {
                index,
                leader_epoch: shard.leader_epoch,
                token: markers.token,
                partition: partition.partition,
            };
            self.sent_markers.insert(id, sent);
            let leader = self.leader_of(partition.partition);
            if leader < 0 {
                out.timers.push((0, Timer::MarkerTimeout(id)));
                continue;
            }
            let batch = Batch::marker(producer_id, producer_epoch, commit, coordinator_epoch);
            let raises_epoch = markers.transaction_version.supports_epoch_bump();
            let request = MarkerRequest { partition: partition.partition, batch, raises_epoch };
            out.sends.push((self.id, leader, Message::WriteMarker { id, request }));
            out.timers.push((MARKER_TIMEOUT_US, Timer::MarkerTimeout(id)));
        }
    }
}
