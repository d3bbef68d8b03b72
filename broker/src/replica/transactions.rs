//! One partition and the transactions in it: which records of a transaction may be appended (KIP-890 part 1), the markers
//! that end them (KIP-98), and the producers that the log knows (KIP-664).
//!
//! A record of a transaction that is not open here is only appended after the coordinator has said that the transaction has
//! this partition. Else a late record, behind the marker that ended its transaction, would hold the last stable offset for
//! ever. The question is named by a guard; a marker that comes between the answer and the append voids it.

use ottla_coordinator::transaction::verification::{VerificationGuard, Verifications};
use ottla_log::LogError;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchHeader, EndTransaction, Marker, end_transaction_marker};

use super::appends::{AppendMode, AppendedRecords, ProduceRefusal};
use super::partition::{Partition, State};

/// Where the attributes of a batch have the bit that says that it is part of a transaction.
const ATTRIBUTES_LOW_BYTE: usize = 22;
const TRANSACTIONAL_BIT: u8 = 0x10;

/// What records that are appended have to do with transactions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Admission {
    /// Of a client: with the guard of the question that was answered yes.
    Client(Option<VerificationGuard>),
    /// Of the group coordinator: it relies on [`Partition::confirm`]; of the others: without transactions.
    Coordinator,
    /// A marker.
    Marker(EndMarker),
}

/// The end of a transaction, for one partition.
#[derive(Debug, Clone, Copy)]
pub struct EndMarker {
    /// Whose transaction.
    pub producer_id: i64,
    /// With the epoch that the producer has from now on, or had.
    pub producer_epoch: i16,
    /// Commit, or abort.
    pub commit: bool,
    /// Leader epoch of the coordinator's partition.
    pub coordinator_epoch: i32,
    /// Transactions version 2: each end has an epoch of its own.
    pub raises_epoch: bool,
}

/// Why a marker is not appended.
#[derive(Debug, Clone)]
pub struct RefusedMarker {
    /// Kafka's error.
    pub code: ErrorCode,
    /// The producer is past the marker's epoch: this marker is in the log already, or a later one. As long as that is not
    /// committed it may be lost with this leader, and the transaction would be open again; so the refusal holds only when this
    /// is committed.
    pub known: Option<AppendedRecords>,
}

/// Where a producer's transaction stands in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is open here: nothing is asked.
    Open,
    /// The coordinator has to be asked; the guard names the question.
    Ask(VerificationGuard),
}

/// A producer that the log knows, as DescribeProducers shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Of its last record, or -1.
    pub last_sequence: i32,
    /// Of its last record or marker, milliseconds since the Unix epoch.
    pub last_timestamp_ms: i64,
    /// Of the last marker, or -1.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction, or -1.
    pub transaction_start_offset: i64,
}

/// Whether a batch is part of a transaction: one look at one byte.
pub(crate) fn is_transactional(batch: &[u8]) -> bool {
    batch.get(ATTRIBUTES_LOW_BYTE).is_some_and(|attributes| attributes & TRANSACTIONAL_BIT != 0)
}

impl Partition {
    /// Whether records of this producer's transaction may be appended, or what has to be asked before. `sequence`: of the
    /// first record, unless the producer speaks transactions version 2.
    pub fn transaction_standing(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        sequence: Option<i32>,
        now_ms: i64,
    ) -> Result<Standing, ProduceRefusal> {
        let mut state = self.lock();
        if !state.machine.is_leader() {
            return Err(Self::not_leader(&state));
        }
        let log = state.log.as_ref().ok_or(ErrorCode::KafkaStorageError)?;
        if let Some(producer) = log.producers().producer(producer_id) {
            if producer_epoch < producer.epoch {
                return Err(refusal(&LogError::ProducerFenced {
                    producer_id,
                    current: producer.epoch,
                    found: producer_epoch,
                }));
            }
            if producer_epoch == producer.epoch && producer.transaction_start.is_some() {
                return Ok(Standing::Open);
            }
        }
        let guard = state.verifications.begin(producer_id, producer_epoch, sequence, now_ms);
        guard.map(Standing::Ask).ok_or_else(|| ProduceRefusal::from(ErrorCode::NotEnoughReplicas))
    }

    /// Whether the answer to a question still counts.
    pub fn is_verified(&self, producer_id: i64, guard: VerificationGuard) -> bool {
        self.lock().verifications.verifies(producer_id, guard)
    }

    /// The coordinator said yes: the next append of this broker's group coordinator in this transaction is let in, unless
    /// a marker comes before. False: one has come already.
    pub fn confirm(&self, producer_id: i64, producer_epoch: i16, guard: VerificationGuard) -> bool {
        self.lock().verifications.confirm(producer_id, producer_epoch, guard)
    }

    /// Judges records before they are appended. Gives the producer whose question is settled by the append.
    pub(super) fn admit(
        state: &State,
        records: &[u8],
        admission: Admission,
    ) -> Result<Option<i64>, ProduceRefusal> {
        let Some(log) = &state.log else { return Err(ProduceRefusal::from(ErrorCode::KafkaStorageError)) };
        if let Admission::Marker(marker) = admission {
            let EndMarker { producer_id, producer_epoch, coordinator_epoch, raises_epoch, .. } = marker;
            log.producers()
                .check_marker(producer_id, producer_epoch, coordinator_epoch, raises_epoch)
                .map_err(|error| refusal(&error))?;
            return Ok(Some(producer_id));
        }
        if !is_transactional(records) {
            return Ok(None);
        }
        let header = BatchHeader::parse(records).map_err(|_| ErrorCode::CorruptMessage)?;
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        let known = log.producers().producer(producer_id);
        if known.is_some_and(|known| {
            epoch < known.epoch || (epoch == known.epoch && known.transaction_start.is_some())
        }) {
            // One of an older epoch is refused by the log.
            return Ok(None);
        }
        let verifications: &Verifications = &state.verifications;
        let is_verified = match admission {
            Admission::Client(guard) => guard.is_some_and(|guard| verifications.verifies(producer_id, guard)),
            Admission::Coordinator => verifications.is_confirmed(producer_id, epoch),
            Admission::Marker(_) => true,
        };
        if !is_verified {
            return Err(ProduceRefusal {
                message: format!("producer {producer_id} has no transaction with this partition"),
                ..ProduceRefusal::from(ErrorCode::InvalidTxnState)
            });
        }
        if header.base_sequence >= 0 && !verifications.may_start_at(producer_id, epoch, header.base_sequence)
        {
            return Err(refusal(&LogError::OutOfOrderSequence {
                producer_id,
                last: -1,
                found: header.base_sequence,
            }));
        }
        Ok(Some(producer_id))
    }

    /// Appends the marker that ends a transaction, as the leader. Then wait for it as for acks=all.
    pub fn append_marker(&self, marker: EndMarker, now_ms: i64) -> Result<AppendedRecords, RefusedMarker> {
        let leader_epoch = self.lock().machine.leader_epoch();
        self.try_append_marker(marker, now_ms).map_err(|refusal| {
            let is_past = refusal.code == ErrorCode::InvalidProducerEpoch;
            let known = is_past.then(|| self.end_as_appended(leader_epoch)).flatten();
            RefusedMarker { code: refusal.code, known }
        })
    }

    /// The last record of the log, as if it had been appended in that epoch: with whatever epoch it was, it is committed as
    /// soon as this is.
    fn end_as_appended(&self, leader_epoch: i32) -> Option<AppendedRecords> {
        let state = self.lock();
        let log = state.log.as_ref()?;
        let last_offset = log.end_offset() - 1;
        Some(AppendedRecords {
            base_offset: last_offset,
            last_offset,
            log_append_time_ms: -1,
            log_start_offset: log.log_start_offset(),
            leader_epoch,
        })
    }

    fn try_append_marker(&self, marker: EndMarker, now_ms: i64) -> Result<AppendedRecords, ProduceRefusal> {
        let end = if marker.commit { EndTransaction::Commit } else { EndTransaction::Abort };
        let records = end_transaction_marker(
            end,
            Marker {
                producer_id: marker.producer_id,
                producer_epoch: marker.producer_epoch,
                coordinator_epoch: marker.coordinator_epoch,
                timestamp_ms: now_ms,
            },
        )
        .map_err(|_| ErrorCode::UnknownServerError)?;
        let admission = Admission::Marker(marker);
        self.append(records, AppendMode { acks: -1, leader_epoch_required: None, now_ms, admission })
    }

    /// The producers that the log knows, by id.
    pub fn active_producers(&self) -> Result<Vec<ActiveProducer>, ErrorCode> {
        let state = self.lock();
        let log = state.log.as_ref().ok_or(ErrorCode::KafkaStorageError)?;
        if !state.machine.is_leader() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let mut producers: Vec<ActiveProducer> = log
            .producers()
            .producers()
            .map(|(producer_id, producer)| ActiveProducer {
                producer_id,
                producer_epoch: producer.epoch,
                last_sequence: producer.batches.back().map_or(-1, |batch| batch.last_sequence),
                last_timestamp_ms: producer.timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                transaction_start_offset: producer.transaction_start.unwrap_or(-1),
            })
            .collect();
        producers.sort_unstable_by_key(|producer| producer.producer_id);
        Ok(producers)
    }
}

fn refusal(error: &LogError) -> ProduceRefusal {
    ProduceRefusal { message: error.to_string(), ..ProduceRefusal::from(error.code()) }
}
