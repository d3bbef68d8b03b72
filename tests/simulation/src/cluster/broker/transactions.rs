//! A leader and the transactions in its partitions, as `broker/src/replica/transactions.rs` and
//! `broker/src/api/produce_transactional.rs` have them: which records are asked about first, and markers.

use ottla_coordinator::transaction::verification::{VerificationGuard, error_for_produce};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::serve::Admission;
use super::{AckWait, Broker, Outbox, Timer, Told};
use crate::cluster::batch::Batch;
use crate::cluster::message::{MarkerRequest, Message, Question};
use crate::cluster::network::Node;
use crate::fault::Fault;

/// How often the coordinator is asked again because a marker came between its answer and the append.
const ATTEMPTS_MAX: u32 = 5;
/// A question without an answer for so long is given up.
const ANSWER_TIMEOUT_US: u64 = 2_000_000;
/// Produce of transactions version 2, and the last before.
const PRODUCE_VERSIONS: (i16, i16) = (12, 11);

/// A client's request to write.
#[derive(Debug, Clone)]
pub(super) struct Produce {
    pub(super) from: Node,
    pub(super) id: (u64, u64),
    pub(super) index: i32,
    pub(super) batch: Batch,
    /// Of a transaction: the partition of its coordinator's log, its id, whether it is of version 2.
    pub(super) transaction: Option<(i32, Text, bool)>,
}

/// A request that waits for a coordinator's answer.
#[derive(Debug)]
pub(super) struct Held {
    request: Produce,
    guard: VerificationGuard,
    attempts: u32,
}

enum Standing {
    Open,
    Ask(VerificationGuard),
}

impl Broker {
    /// A client's record: at once, or when the coordinator has said that its transaction has this partition.
    pub(super) fn produce(&mut self, now_us: u64, request: Produce, out: &mut Outbox) {
        match self.standing(now_us, &request) {
            Some(Standing::Ask(guard)) => self.ask(request, guard, 1, out),
            // What cannot be asked is refused by the append itself.
            Some(Standing::Open) | None => self.append_for_client(now_us, &request, None, out),
        }
    }

    fn standing(&mut self, now_us: u64, request: &Produce) -> Option<Standing> {
        let (_, _, is_version_2) = request.transaction.as_ref()?;
        if self.settings.fault == Fault::NoVerification {
            return Some(Standing::Open);
        }
        let partition = self.partitions.get_mut(&request.index)?;
        if !partition.replica.machine.is_leader() {
            return None;
        }
        let (producer_id, epoch) = (request.batch.producer_id, request.batch.producer_epoch);
        if let Some(producer) = partition.producers.state.producer(producer_id) {
            if epoch < producer.epoch {
                return None;
            }
            if epoch == producer.epoch && producer.transaction_start.is_some() {
                return Some(Standing::Open);
            }
        }
        let sequence = (!is_version_2).then_some(request.batch.sequence);
        let now_ms = i64::try_from(now_us / 1_000).unwrap_or(i64::MAX);
        partition.verifications.begin(producer_id, epoch, sequence, now_ms).map(Standing::Ask)
    }

    fn ask(&mut self, request: Produce, guard: VerificationGuard, attempts: u32, out: &mut Outbox) {
        let Some((coordinator, transactional_id, is_version_2)) = request.transaction.clone() else { return };
        let leader = self.leader_of(coordinator);
        if leader < 0 {
            return self.refuse(&request, ErrorCode::NotEnoughReplicas, out);
        }
        self.next_id += 1;
        let id = self.next_id;
        let question = Question {
            coordinator,
            transactional_id,
            producer_id: request.batch.producer_id,
            producer_epoch: request.batch.producer_epoch,
            partition: request.index,
            add: is_version_2,
        };
        out.sends.push((self.id, leader, Message::Ask { id, question }));
        out.timers.push((ANSWER_TIMEOUT_US, Timer::AnswerTimeout(id)));
        self.held.insert(id, Held { request, guard, attempts });
    }

    /// The coordinator's answer, or that there is none.
    pub(super) fn answered(&mut self, now_us: u64, id: u64, error: ErrorCode, out: &mut Outbox) {
        let Some(Held { request, guard, attempts }) = self.held.remove(&id) else { return };
        let is_version_2 = request.transaction.as_ref().is_some_and(|(_, _, is_version_2)| *is_version_2);
        if error != ErrorCode::None {
            let version = if is_version_2 { PRODUCE_VERSIONS.0 } else { PRODUCE_VERSIONS.1 };
            return self.refuse(&request, error_for_produce(error, version), out);
        }
        let verifies = |broker: &Self| {
            let partition = broker.partitions.get(&request.index);
            partition.is_some_and(|known| known.verifications.verifies(request.batch.producer_id, guard))
        };
        if verifies(self) || attempts >= ATTEMPTS_MAX {
            return self.append_for_client(now_us, &request, Some(guard), out);
        }
        match self.standing(now_us, &request) {
            Some(Standing::Ask(guard)) => self.ask(request, guard, attempts + 1, out),
            Some(Standing::Open) | None => self.append_for_client(now_us, &request, None, out),
        }
    }

    /// A coordinator has a marker written; it is answered when that is committed.
    pub(super) fn write_marker(
        &mut self,
        now_us: u64,
        from: Node,
        id: u64,
        request: &MarkerRequest,
        out: &mut Outbox,
    ) {
        let admission = Admission::Marker(request.raises_epoch);
        let told = Told::Coordinator { from, id, error: ErrorCode::None };
        let index = request.partition;
        let Err(error) = self.append(now_us, index, &request.batch, admission, Some(told), out) else {
            return;
        };
        if error == ErrorCode::InvalidProducerEpoch
            && self.settings.fault != Fault::RefusesEarly
            && let Some(partition) = self.partitions.get_mut(&index)
        {
            // It is there already, or something later is; as long as that is not committed it may be lost with this leader.
            let (offset, epoch) = (partition.replica.log.end() - 1, partition.replica.machine.leader_epoch());
            partition.waits.push(AckWait { told: Told::Coordinator { from, id, error }, offset, epoch });
            return self.release(now_us, index, out);
        }
        out.sends.push((self.id, from, Message::MarkerWritten { id, error }));
    }
}
