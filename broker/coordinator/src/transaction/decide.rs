//! What follows from a request, given where its transactional id stands: pure functions of the log's state, with no
//! side. A transition that is on its way is the machine's business (`mod.rs`), not known here except as a refusal.

use std::collections::BTreeSet;

use ottla_wire::error_code::ErrorCode;

use super::command::{AddPartitions, EndTxn, InitProducerId, ProducerReply, Reply};
use super::state::{
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_TIME_MS, PRODUCER_EPOCH_FOR_CLIENTS_MAX, TransactionMetadata,
    TransactionState, TransactionVersion,
};
use super::{PARTITIONS_PER_TRANSACTION_MAX, TransactionConfig};
use crate::group::TopicPartition;

/// What follows from a request that is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is so already, or the shell has to repeat the command.
    Answer(Reply),
    /// This is to be written; the reply holds once it is committed.
    Write(Transition),
}

/// A change of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) next: TransactionMetadata,
    /// The epoch that a repeated InitProducerId may name (KIP-360), or -1. Not in the log.
    pub(crate) last_producer_epoch: i16,
    pub(crate) reply: Reply,
}

/// What a decision is made on.
pub(crate) struct View<'a> {
    pub(crate) config: &'a TransactionConfig,
    /// Milliseconds since the Unix epoch.
    pub(crate) now_ms: i64,
    /// None: the id is not known.
    pub(crate) current: Option<&'a TransactionMetadata>,
    pub(crate) last_producer_epoch: i16,
    /// A change of the id is not committed yet.
    pub(crate) is_changing: bool,
}

type Decided = Result<Decision, ErrorCode>;

impl View<'_> {
    pub(crate) fn init_producer_id(&self, command: &InitProducerId) -> Decided {
        let has_id = command.producer_id != NO_PRODUCER_ID;
        if has_id != (command.producer_epoch != NO_PRODUCER_EPOCH) || command.transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        // Two-phase commit (KIP-939) is switched off, as `transaction.two.phase.commit.enable` is by default.
        if command.enable_two_phase_commit {
            return Err(ErrorCode::TransactionalIdAuthorizationFailed);
        }
        if command.keep_prepared {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if command.timeout_ms <= 0 || command.timeout_ms > self.config.timeout_ms_max {
            return Err(ErrorCode::InvalidTransactionTimeout);
        }
        if self.is_changing {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let expected = has_id.then_some((command.producer_id, command.producer_epoch));
        let Some(current) = self.current else {
            return Ok(self.first_producer(command));
        };
        if expected.is_some_and(|expected| !may_be(current, expected)) {
            return Err(ErrorCode::ProducerFenced);
        }
        match current.state {
            state if state.is_prepared() => Err(ErrorCode::ConcurrentTransactions),
            // The producer has to ask again when the transaction is aborted, and gets one more epoch then.
            TransactionState::Ongoing => Ok(Decision::Write(self.fence(current))),
            _ => self.next_producer(command, current, expected.map(|(_, epoch)| epoch)),
        }
    }

    fn first_producer(&self, command: &InitProducerId) -> Decision {
        let Some(producer_id) = command.fresh_producer_id else {
            return Decision::Answer(Reply::ProducerIdNeeded);
        };
        Decision::Write(Transition {
            next: self.initialized(command, producer_id, 0, NO_PRODUCER_ID, TransactionVersion::V0),
            last_producer_epoch: NO_PRODUCER_EPOCH,
            reply: Reply::InitProducerId(ProducerReply::granted(producer_id, 0)),
        })
    }

    fn next_producer(
        &self,
        command: &InitProducerId,
        current: &TransactionMetadata,
        expected_epoch: Option<i16>,
    ) -> Decided {
        let (producer_id, epoch, last_epoch) = match expected_epoch {
            // A repetition of what went well: no other producer has come since, or the last epoch would be unknown.
            Some(expected) if expected != current.producer_epoch => {
                if expected != self.last_producer_epoch {
                    return Err(ErrorCode::ProducerFenced);
                }
                (current.producer_id, current.producer_epoch, self.last_producer_epoch)
            }
            expected => {
                let last_epoch = expected.unwrap_or(NO_PRODUCER_EPOCH);
                if current.is_epoch_exhausted() {
                    let Some(producer_id) = command.fresh_producer_id else {
                        return Ok(Decision::Answer(Reply::ProducerIdNeeded));
                    };
                    (producer_id, 0, last_epoch)
                } else {
                    (current.producer_id, current.producer_epoch + 1, last_epoch)
                }
            }
        };
        Ok(Decision::Write(Transition {
            next: self.initialized(command, producer_id, epoch, current.producer_id, current.client_version),
            last_producer_epoch: last_epoch,
            reply: Reply::InitProducerId(ProducerReply::granted(producer_id, epoch)),
        }))
    }

    fn initialized(
        &self,
        command: &InitProducerId,
        producer_id: i64,
        producer_epoch: i16,
        previous_producer_id: i64,
        client_version: TransactionVersion,
    ) -> TransactionMetadata {
        TransactionMetadata {
            producer_id,
            producer_epoch,
            previous_producer_id,
            next_producer_id: NO_PRODUCER_ID,
            timeout_ms: command.timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            start_ms: NO_TIME_MS,
            last_update_ms: self.now_ms,
            client_version,
        }
    }

    /// Aborts an open transaction against the producer's will, with an epoch that only the coordinator has: Kafka's
    /// PrepareEpochFence. It is written as a classic end, also for producers of version 2: whoever repeats an EndTxn 5
    /// is told the raised epoch if its own end raised it, and must not be told this one (I59).
    pub(crate) fn fence(&self, current: &TransactionMetadata) -> Transition {
        Transition {
            next: TransactionMetadata {
                producer_epoch: current.producer_epoch.saturating_add(1),
                previous_producer_id: current.producer_id,
                next_producer_id: NO_PRODUCER_ID,
                state: TransactionState::PrepareAbort,
                last_update_ms: self.now_ms,
                client_version: TransactionVersion::V0,
                ..current.clone()
            },
            last_producer_epoch: NO_PRODUCER_EPOCH,
            reply: Reply::InitProducerId(ProducerReply::refused(ErrorCode::ConcurrentTransactions)),
        }
    }

    pub(crate) fn add_partitions(&self, command: &AddPartitions) -> Decided {
        let current = self.known(&command.transactional_id, command.producer_id, command.producer_epoch)?;
        if self.is_changing || current.state.is_prepared() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let is_open = current.state == TransactionState::Ongoing;
        let is_there = |partition| is_open && current.partitions.contains(partition);
        if command.partitions.iter().all(is_there) {
            return Ok(Decision::Answer(Reply::AddPartitions(ErrorCode::None)));
        }
        let mut partitions = if is_open { current.partitions.clone() } else { BTreeSet::new() };
        partitions.extend(command.partitions.iter().cloned());
        if partitions.len() > PARTITIONS_PER_TRANSACTION_MAX {
            return Err(ErrorCode::PolicyViolation);
        }
        Ok(Decision::Write(Transition {
            next: TransactionMetadata {
                previous_producer_id: current.producer_id,
                state: TransactionState::Ongoing,
                partitions,
                start_ms: if is_open { current.start_ms } else { self.now_ms },
                last_update_ms: self.now_ms,
                client_version: self.spoken(command.client_version),
                ..current.clone()
            },
            last_producer_epoch: self.last_producer_epoch,
            reply: Reply::AddPartitions(ErrorCode::None),
        }))
    }

    /// Whether these partitions are part of this very transaction (KIP-890 part 1); what is still on its way is not.
    pub(crate) fn verify(
        &self,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        partitions: &[TopicPartition],
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        let current = self.known(transactional_id, producer_id, producer_epoch)?;
        if current.state.is_prepared() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let of_partition = |partition| {
            if current.partitions.contains(partition) {
                ErrorCode::None
            } else {
                ErrorCode::TransactionAbortable
            }
        };
        Ok(partitions.iter().map(of_partition).collect())
    }

    fn known(
        &self,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
    ) -> Result<&TransactionMetadata, ErrorCode> {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let current = self.current.filter(|current| current.producer_id == producer_id);
        let current = current.ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if current.producer_epoch != producer_epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        Ok(current)
    }

    /// A client speaks no newer version than the cluster.
    fn spoken(&self, client_version: TransactionVersion) -> TransactionVersion {
        client_version.min(self.config.version)
    }

    pub(crate) fn end(&self, command: &EndTxn) -> Decided {
        if self.spoken(command.client_version).supports_epoch_bump() {
            self.end_with_new_epoch(command)
        } else {
            self.end_classic(command)
        }
    }

    fn end_classic(&self, command: &EndTxn) -> Decided {
        let current = self.known(&command.transactional_id, command.producer_id, command.producer_epoch)?;
        if self.is_changing {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        match (current.state, command.commit) {
            (TransactionState::Ongoing, _) => Ok(self.prepare(command, current, current.start_ms)),
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => {
                Ok(answer(current))
            }
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
                Err(ErrorCode::ConcurrentTransactions)
            }
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// KIP-890 part 2. The epoch before the current one repeats an end; the current one ends what came after.
    fn end_with_new_epoch(&self, command: &EndTxn) -> Decided {
        if command.transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let current = self.current.ok_or(ErrorCode::InvalidProducerIdMapping)?;
        let raised = current.client_version.supports_epoch_bump();
        let overflowed = raised
            && current.state.is_at_rest()
            && current.previous_producer_id == command.producer_id
            && command.producer_epoch == PRODUCER_EPOCH_FOR_CLIENTS_MAX
            && current.producer_epoch == 0;
        if current.producer_id != command.producer_id && !overflowed {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        let before = raised && command.producer_epoch.checked_add(1) == Some(current.producer_epoch);
        let is_same = current.producer_epoch == command.producer_epoch;
        let (is_valid, is_repeated) = match current.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => (before, before),
            TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
                (before || overflowed || is_same, before || overflowed)
            }
            _ => (is_same, false),
        };
        if !is_valid {
            return Err(ErrorCode::ProducerFenced);
        }
        if self.is_changing {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        match (current.state, command.commit) {
            (TransactionState::Ongoing, _) => Ok(self.prepare(command, current, current.start_ms)),
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false)
                if is_repeated =>
            {
                Ok(answer(current))
            }
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
                Err(ErrorCode::ConcurrentTransactions)
            }
            // A producer whose records may or may not have opened a transaction gets out with a new epoch.
            (state, false) if state.is_at_rest() && !is_repeated => {
                Ok(self.prepare(command, current, self.now_ms))
            }
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    fn prepare(&self, command: &EndTxn, current: &TransactionMetadata, start_ms: i64) -> Decision {
        let client_version = self.spoken(command.client_version);
        let (mut epoch, mut next_id, mut last_epoch) =
            (current.producer_epoch, NO_PRODUCER_ID, self.last_producer_epoch);
        if client_version.supports_epoch_bump() {
            if current.is_epoch_exhausted() {
                let Some(fresh) = command.fresh_producer_id else {
                    return Decision::Answer(Reply::ProducerIdNeeded);
                };
                next_id = fresh;
            }
            epoch = epoch.saturating_add(1);
            last_epoch = current.producer_epoch;
        }
        let state =
            if command.commit { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort };
        let next = TransactionMetadata {
            producer_epoch: epoch,
            previous_producer_id: current.producer_id,
            next_producer_id: next_id,
            state,
            partitions: if current.state.is_at_rest() { BTreeSet::new() } else { current.partitions.clone() },
            start_ms,
            last_update_ms: self.now_ms,
            client_version,
            ..current.clone()
        };
        // The client goes on as what it will be when the markers are written.
        let after = complete(&next, self.now_ms);
        let reply = Reply::EndTxn(ProducerReply::granted(after.producer_id, after.producer_epoch));
        Decision::Write(Transition { next, last_producer_epoch: last_epoch, reply })
    }
}

/// A prepared transaction whose markers are written.
pub(crate) fn complete(prepared: &TransactionMetadata, now_ms: i64) -> TransactionMetadata {
    let has_next = prepared.next_producer_id != NO_PRODUCER_ID;
    let committed = prepared.state == TransactionState::PrepareCommit;
    TransactionMetadata {
        producer_id: if has_next { prepared.next_producer_id } else { prepared.producer_id },
        producer_epoch: if has_next { 0 } else { prepared.producer_epoch },
        previous_producer_id: prepared.producer_id,
        next_producer_id: NO_PRODUCER_ID,
        state: if committed { TransactionState::CompleteCommit } else { TransactionState::CompleteAbort },
        partitions: BTreeSet::new(),
        last_update_ms: now_ms,
        ..prepared.clone()
    }
}

/// The end is decided and done as asked.
fn answer(current: &TransactionMetadata) -> Decision {
    Decision::Answer(Reply::EndTxn(ProducerReply::granted(current.producer_id, current.producer_epoch)))
}

/// Whether a producer that names itself (KIP-360) may be the one that is known. The epoch is looked at later. If the
/// epochs ran out, it may not have heard of its new id.
fn may_be(current: &TransactionMetadata, (producer_id, producer_epoch): (i64, i16)) -> bool {
    producer_id == current.producer_id
        || (producer_id == current.previous_producer_id && producer_epoch >= PRODUCER_EPOCH_FOR_CLIENTS_MAX)
}
