//! What the leader of a partition knows while it asks the coordinator whether a producer's transaction has this partition
//! (KIP-890 part 1).
//!
//! A record of a transaction that is not open in the partition may only be appended after the coordinator has said yes.
//! Between question and append the transaction may end and the next one begin. So each question is given a guard that
//! no other has; a marker, or the append that opens the transaction, voids it (I61).
//!
//! What the leader does with a transactional batch:
//!
//! 1. Its epoch is older than the producer's here: INVALID_PRODUCER_EPOCH.
//! 2. A transaction of this producer *and this epoch* is open here: append, nothing is asked. One of an older epoch may
//!    still be open, since its marker is on its way: that is not this one.
//! 3. Else [`Verifications::begin`], and the coordinator is asked (AddPartitionsToTxn, `verify_only` unless the producer
//!    speaks version 2). When it has said yes, under the lock of the append: 1 and 2 again; then
//!    [`Verifications::verifies`], append, [`Verifications::end`]. A guard that was voided in between says nothing about
//!    this batch: back to 3, for as long as the request has time.

use std::collections::BTreeMap;

use ottla_wire::error_code::ErrorCode;

/// Producers of one partition that are being verified. One more is refused.
pub const VERIFICATIONS_PER_PARTITION_MAX: usize = 100_000;

/// Names one question to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerificationGuard(u64);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    guard: VerificationGuard,
    producer_epoch: i16,
    /// The lowest that was refused or asked about; see [`Verifications::may_start_at`].
    lowest_sequence: Option<i32>,
    asked_at_ms: i64,
    /// The coordinator said yes of this epoch; see [`Verifications::confirm`].
    confirmed_epoch: Option<i16>,
}

/// The verifications of one partition.
#[derive(Debug, Clone, Default)]
pub struct Verifications {
    entries: BTreeMap<i64, Entry>,
    last_guard: u64,
}

impl Verifications {
    /// A question about a producer whose transaction is not open here. Questions before the answer share the guard. None:
    /// there are too many. Epochs are not judged: which one is right is what the coordinator is asked.
    ///
    /// `sequence`: of the first record, unless the producer speaks transactions version 2, where every transaction begins
    /// at an epoch of its own and sequences tell enough.
    pub fn begin(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        sequence: Option<i32>,
        now_ms: i64,
    ) -> Option<VerificationGuard> {
        let count = self.entries.len();
        if let Some(entry) = self.entries.get_mut(&producer_id) {
            if producer_epoch > entry.producer_epoch {
                entry.producer_epoch = producer_epoch;
                entry.lowest_sequence = sequence;
            } else if producer_epoch == entry.producer_epoch
                && let (Some(lowest), Some(sequence)) = (entry.lowest_sequence, sequence)
            {
                entry.lowest_sequence = Some(lowest.min(sequence));
            }
            entry.asked_at_ms = now_ms;
            return Some(entry.guard);
        }
        if count >= VERIFICATIONS_PER_PARTITION_MAX {
            return None;
        }
        self.last_guard += 1;
        let guard = VerificationGuard(self.last_guard);
        let entry = Entry {
            guard,
            producer_epoch,
            lowest_sequence: sequence,
            asked_at_ms: now_ms,
            confirmed_epoch: None,
        };
        self.entries.insert(producer_id, entry);
        Some(guard)
    }

    /// Whether the answer to this question still counts.
    pub fn verifies(&self, producer_id: i64, guard: VerificationGuard) -> bool {
        self.entries.get(&producer_id).is_some_and(|entry| entry.guard == guard)
    }

    /// The coordinator said yes to this question, and the append comes by another way, later. False: it does not count.
    pub fn confirm(&mut self, producer_id: i64, producer_epoch: i16, guard: VerificationGuard) -> bool {
        let entry = self.entries.get_mut(&producer_id).filter(|entry| entry.guard == guard);
        entry.map(|entry| entry.confirmed_epoch = Some(producer_epoch)).is_some()
    }

    /// Whether the coordinator said yes, and nothing has voided that.
    pub fn is_confirmed(&self, producer_id: i64, producer_epoch: i16) -> bool {
        self.entries.get(&producer_id).is_some_and(|entry| entry.confirmed_epoch == Some(producer_epoch))
    }

    /// Whether a batch of this sequence may come first: not when an earlier one of the same epoch is being verified or
    /// was refused, which the producer will send again.
    pub fn may_start_at(&self, producer_id: i64, producer_epoch: i16, sequence: i32) -> bool {
        let entry = self.entries.get(&producer_id).filter(|entry| entry.producer_epoch == producer_epoch);
        entry.and_then(|entry| entry.lowest_sequence).is_none_or(|lowest| sequence <= lowest)
    }

    /// The transaction is open here now, or a marker has ended it: answers to older questions do not count any more.
    pub fn end(&mut self, producer_id: i64) {
        self.entries.remove(&producer_id);
    }

    /// Forgets questions that nobody came back to.
    pub fn expire(&mut self, asked_before_ms: i64) {
        self.entries.retain(|_, entry| entry.asked_at_ms >= asked_before_ms);
    }

    /// Leadership is lost.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

/// The first Produce that knows TRANSACTION_ABORTABLE.
const PRODUCE_WITH_ABORTABLE: i16 = 11;
/// The first Produce of transactions version 2.
const PRODUCE_OF_VERSION_2: i16 = 12;
/// The first TxnOffsetCommit that knows TRANSACTION_ABORTABLE.
const TXN_OFFSET_COMMIT_WITH_ABORTABLE: i16 = 4;
/// The first TxnOffsetCommit of transactions version 2.
const TXN_OFFSET_COMMIT_OF_VERSION_2: i16 = 5;

/// What a producer is told when the coordinator's answer was this error (or it gave none: NETWORK_EXCEPTION). Older
/// clients repeat a Produce on NOT_ENOUGH_REPLICAS, and know neither abortable transactions nor PRODUCER_FENCED there.
pub fn error_for_produce(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if version < PRODUCE_WITH_ABORTABLE => ErrorCode::InvalidTxnState,
        ErrorCode::ConcurrentTransactions if version >= PRODUCE_OF_VERSION_2 => error,
        ErrorCode::ConcurrentTransactions
        | ErrorCode::NetworkException
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        other => other,
    }
}

/// As [`error_for_produce`], for the partitions of a TxnOffsetCommit. NOT_COORDINATOR would be taken for the group's.
pub fn error_for_txn_offset_commit(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if version < TXN_OFFSET_COMMIT_WITH_ABORTABLE => {
            ErrorCode::InvalidTxnState
        }
        ErrorCode::ConcurrentTransactions if version >= TXN_OFFSET_COMMIT_OF_VERSION_2 => error,
        ErrorCode::ConcurrentTransactions
        | ErrorCode::NetworkException
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::CoordinatorLoadInProgress,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_what_their_version_understands() {
        let abortable = ErrorCode::TransactionAbortable;
        assert_eq!(error_for_produce(abortable, 10), ErrorCode::InvalidTxnState);
        assert_eq!(error_for_produce(abortable, 11), abortable);
        assert_eq!(error_for_txn_offset_commit(abortable, 3), ErrorCode::InvalidTxnState);
        assert_eq!(error_for_txn_offset_commit(abortable, 4), abortable);
        let concurrent = ErrorCode::ConcurrentTransactions;
        assert_eq!(error_for_produce(concurrent, 11), ErrorCode::NotEnoughReplicas);
        assert_eq!(error_for_produce(concurrent, 12), concurrent);
        assert_eq!(error_for_txn_offset_commit(concurrent, 4), ErrorCode::CoordinatorLoadInProgress);
        assert_eq!(error_for_txn_offset_commit(concurrent, 5), concurrent);
        for version in 0..=12 {
            let (fenced, epoch) = (ErrorCode::ProducerFenced, ErrorCode::InvalidProducerEpoch);
            let mapping = ErrorCode::InvalidProducerIdMapping;
            assert_eq!(
                (error_for_produce(fenced, version), error_for_produce(mapping, version)),
                (epoch, mapping)
            );
            assert_eq!(error_for_txn_offset_commit(fenced, version), epoch);
            assert_eq!(error_for_txn_offset_commit(mapping, version), mapping);
            assert!(error_for_produce(ErrorCode::NotCoordinator, version).is_retriable());
            assert!(error_for_txn_offset_commit(ErrorCode::NetworkException, version).is_retriable());
        }
    }

    #[test]
    fn i61_an_answer_that_a_marker_overtook_does_not_count() {
        let mut verifications = Verifications::default();
        let first = verifications.begin(7, 0, Some(0), 1).unwrap();
        assert_eq!(
            verifications.begin(7, 0, Some(1), 1),
            Some(first),
            "questions of one transaction share a guard"
        );
        assert!(verifications.verifies(7, first));
        verifications.end(7);
        assert!(!verifications.verifies(7, first));
        let second = verifications.begin(7, 0, Some(2), 2).unwrap();
        assert_ne!(first, second);
        assert!(!verifications.verifies(7, first) && verifications.verifies(7, second));
        assert!(!verifications.verifies(8, second), "of another producer");
    }

    #[test]
    fn guards_are_never_used_twice_even_after_all_is_forgotten() {
        let mut verifications = Verifications::default();
        let first = verifications.begin(7, 0, None, 1).unwrap();
        verifications.expire(2);
        let second = verifications.begin(7, 0, None, 3).unwrap();
        verifications.clear();
        let third = verifications.begin(7, 0, None, 3).unwrap();
        assert!(first < second && second < third);
    }

    #[test]
    fn a_later_sequence_does_not_overtake_the_first_that_is_asked_about() {
        let mut verifications = Verifications::default();
        verifications.begin(7, 0, Some(5), 1).unwrap();
        assert!(!verifications.may_start_at(7, 0, 6));
        verifications.begin(7, 0, Some(3), 1).unwrap();
        assert!(verifications.may_start_at(7, 0, 3) && !verifications.may_start_at(7, 0, 5));
        assert!(verifications.may_start_at(7, 1, 9), "another epoch is not compared");
        assert_eq!(verifications.begin(7, 1, Some(8), 1), verifications.begin(7, 1, Some(8), 1));
        assert!(verifications.may_start_at(7, 1, 8));
        assert!(verifications.begin(7, 0, Some(0), 1).is_some());
        assert!(!verifications.may_start_at(7, 1, 9), "an older epoch changes nothing for the newer one");
    }

    #[test]
    fn a_yes_is_kept_until_a_marker_comes() {
        let mut verifications = Verifications::default();
        let guard = verifications.begin(7, 3, None, 1).unwrap();
        assert!(!verifications.is_confirmed(7, 3));
        assert!(verifications.confirm(7, 3, guard));
        assert!(verifications.is_confirmed(7, 3) && !verifications.is_confirmed(7, 4));
        verifications.end(7);
        assert!(!verifications.is_confirmed(7, 3) && !verifications.confirm(7, 3, guard));
    }

    #[test]
    fn as_many_producers_as_the_limit_says() {
        let mut verifications = Verifications::default();
        for producer_id in 0..i64::try_from(VERIFICATIONS_PER_PARTITION_MAX).unwrap() {
            assert!(verifications.begin(producer_id, 0, None, 1).is_some());
        }
        assert_eq!(verifications.begin(-5, 0, None, 1), None);
    }
}
