//! What clients ask: writing, reading. An append is judged here as `broker/src/replica` judges it.

use ottla_coordinator::transaction::verification::VerificationGuard;
use ottla_log::producer_state::Verdict;
use ottla_replica::Effects;
use ottla_wire::error_code::ErrorCode;

use super::transactions::Produce;
use super::{AckWait, Broker, FETCHED_MAX, Outbox, Partition, Timer, Told};
use crate::cluster::batch::{Batch, Kind};
use crate::cluster::message::{Message, Problem, ReadAnswer};
use crate::cluster::network::Node;
use crate::fault::Fault;

/// What an append has to do with transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Of a client: with the guard of the question that was answered yes.
    Client(Option<VerificationGuard>),
    /// A marker; whether each end of a transaction has an epoch of its own.
    Marker(bool),
    /// Of a transaction coordinator, which leads in this epoch.
    Coordinator(i32),
}

/// Where a batch was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) offset: i64,
    pub(super) epoch: i32,
}

/// What a client is told.
pub(super) fn problem_of(error: ErrorCode) -> Problem {
    match error {
        ErrorCode::NotLeaderOrFollower => Problem::NotLeader,
        ErrorCode::NotEnoughReplicas => Problem::NotEnoughReplicas,
        ErrorCode::NotEnoughReplicasAfterAppend => Problem::Unknown,
        ErrorCode::OutOfOrderSequenceNumber => Problem::OutOfOrder,
        ErrorCode::InvalidProducerEpoch | ErrorCode::ProducerFenced => Problem::Fenced,
        ErrorCode::ConcurrentTransactions => Problem::Concurrent,
        _ => Problem::NotInTransaction,
    }
}

/// Whether a batch may be appended as far as transactions go. Gives the producer whose question is settled by the append.
fn admit(
    partition: &Partition,
    batch: &Batch,
    admission: Admission,
    fault: Fault,
) -> Result<Option<i64>, ErrorCode> {
    let (producer_id, epoch) = (batch.producer_id, batch.producer_epoch);
    let producers = &partition.producers.state;
    if let (Kind::Marker { coordinator_epoch, .. }, Admission::Marker(raises_epoch)) =
        (&batch.kind, admission)
    {
        if fault != Fault::NoMarkerEpoch {
            let checked = producers.check_marker(producer_id, epoch, *coordinator_epoch, raises_epoch);
            checked.map_err(|error| error.code())?;
        }
        return Ok(Some(producer_id));
    }
    if !batch.is_transactional() || fault == Fault::NoVerification {
        return Ok(None);
    }
    let known = producers.producer(producer_id);
    if known
        .is_some_and(|known| epoch < known.epoch || epoch == known.epoch && known.transaction_start.is_some())
    {
        // One of an older epoch is refused by the log.
        return Ok(None);
    }
    let verifications = &partition.verifications;
    let Admission::Client(Some(guard)) = admission else { return Err(ErrorCode::InvalidTxnState) };
    if !verifications.verifies(producer_id, guard) {
        return Err(ErrorCode::InvalidTxnState);
    }
    if !verifications.may_start_at(producer_id, epoch, batch.sequence) {
        return Err(ErrorCode::OutOfOrderSequenceNumber);
    }
    Ok(Some(producer_id))
}

impl Broker {
    /// Appends as the leader, as for acks=all. Whoever is to be told is told when it is committed, or cannot be any more.
    pub(super) fn append(
        &mut self,
        now_us: u64,
        index: i32,
        batch: &Batch,
        admission: Admission,
        told: Option<Told>,
        out: &mut Outbox,
    ) -> Result<Appended, ErrorCode> {
        let (now, fault) = (self.now(now_us), self.settings.fault);
        let has_lease = now.has_lease() || fault == Fault::NoLease;
        let found = self.partitions.get_mut(&index).filter(|partition| partition.replica.machine.is_leader());
        let partition = found.filter(|_| has_lease).ok_or(ErrorCode::NotLeaderOrFollower)?;
        let epoch = partition.replica.machine.leader_epoch();
        if matches!(admission, Admission::Coordinator(required) if required != epoch) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if !partition.replica.may_append(now, fault) {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        let settled = admit(partition, batch, admission, fault)?;
        let header = batch.header(partition.replica.log.end(), epoch);
        let verdict = partition.producers.state.check(&header).map_err(|error| error.code())?;
        if let Some(producer_id) = settled {
            partition.verifications.end(producer_id);
        }
        let mut effects = Effects::new();
        let offset = match verdict {
            Verdict::New => {
                let offset = partition.replica.append(now, batch.clone(), fault, &mut effects);
                partition.producers.add(batch, offset, epoch);
                offset
            }
            Verdict::Duplicate(known) => known.last_offset,
        };
        if self.settings.trace && !matches!(batch.kind, Kind::Plain) {
            let Batch { producer_id, producer_epoch, sequence, kind, .. } = batch;
            out.notes.push(format!(
                "partition {index}, offset {offset}: {verdict:?} {kind:?} of producer {producer_id} epoch {producer_epoch} sequence {sequence}"
            ));
        }
        partition.waits.extend(told.map(|told| AckWait { told, offset, epoch }));
        let end = partition.replica.log.end();
        if self.settings.machine.synced_only {
            out.timers.push((self.disk_us(now_us), Timer::Synced(index, end)));
        }
        self.execute(now_us, index, effects, out);
        self.release(now_us, index, out);
        self.end_parked(now_us, index, None, out);
        Ok(Appended { offset, epoch })
    }

    /// A client's record, as far as transactions allow it.
    pub(super) fn append_for_client(
        &mut self,
        now_us: u64,
        request: &Produce,
        guard: Option<VerificationGuard>,
        out: &mut Outbox,
    ) {
        let Produce { from, id, index, batch, .. } = request;
        let told = Told::Client { from: *from, id: *id, number: batch.number };
        let admission = Admission::Client(guard);
        if let Err(error) = self.append(now_us, *index, batch, admission, Some(told), out) {
            self.refuse(request, error, out);
        }
    }

    pub(super) fn refuse(&self, request: &Produce, error: ErrorCode, out: &mut Outbox) {
        let Produce { from, id, index, batch, .. } = request;
        let result = Err(problem_of(error));
        let answer = Message::Produced { id: *id, partition: *index, number: batch.number, result };
        out.sends.push((self.id, *from, answer));
    }

    pub(super) fn read(
        &mut self,
        from: Node,
        (id, index): (u64, i32),
        (offset, leader_epoch): (i64, i32),
        (allow_follower, committed): (bool, bool),
        out: &mut Outbox,
    ) {
        let answer = self.read_answer(index, offset, leader_epoch, allow_follower, committed, out);
        out.sends.push((self.id, from, Message::ReadAnswer { id, partition: index, answer }));
    }

    fn read_answer(
        &mut self,
        index: i32,
        offset: i64,
        leader_epoch: i32,
        allow_follower: bool,
        committed: bool,
        out: &mut Outbox,
    ) -> ReadAnswer {
        let (id, fault) = (self.id, self.settings.fault);
        let Some(partition) = self.partitions.get_mut(&index) else { return ReadAnswer::Refused };
        let (machine, log) = (&partition.replica.machine, &partition.replica.log);
        let may_answer = machine.is_leader() || allow_follower && machine.is_follower();
        if !may_answer || machine.leader_epoch() != leader_epoch {
            return ReadAnswer::Refused;
        }
        if offset < log.start() || offset > log.end() {
            // A follower that is behind sends the consumer back to the leader.
            return if machine.is_leader() { ReadAnswer::OutOfRange } else { ReadAnswer::Refused };
        }
        let (high_watermark, is_leader) = (machine.high_watermark(), machine.is_leader());
        let last_stable = partition.producers.last_stable_offset(high_watermark);
        if is_leader {
            let (epoch, before) = partition.stable;
            if epoch == leader_epoch && before > last_stable {
                out.problems.push(format!(
                    "I68: the last stable offset of partition {index} goes from {before} to {last_stable} at broker {id}"
                ));
            }
            partition.stable = (leader_epoch, last_stable);
        }
        let is_bounded = committed && fault != Fault::ReadsUnstable;
        let end = if is_bounded { last_stable } else { high_watermark };
        let entries = partition.replica.log.slice(offset, end.min(offset + FETCHED_MAX)).to_vec();
        let next = offset + i64::try_from(entries.len()).unwrap_or(0);
        let aborted = if committed { partition.producers.aborted(offset, next) } else { Vec::new() };
        ReadAnswer::Records { entries, high_watermark, leader_epoch, is_leader, aborted }
    }
}
