//! What a partition knows of its producers, pure: the last batches of idempotent producers (KIP-98), open transactions, and
//! the last stable offset.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ottla_wire::records::BatchHeader;

use crate::error::LogError;
use crate::transaction_index::Aborted;

/// Batches of a producer that a retry is recognised by; a producer has at most so many in flight.
pub const BATCHES_KEPT: usize = 5;

/// A batch as a retry would repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownBatch {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Its last offset less its first.
    pub offset_delta: i32,
    /// Its greatest time stamp.
    pub timestamp: i64,
}

impl KnownBatch {
    /// Offset of its first record.
    pub fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Its current epoch.
    pub epoch: i16,
    /// The last ones, oldest first.
    pub batches: VecDeque<KnownBatch>,
    /// Of the last marker; -1: none yet.
    pub coordinator_epoch: i32,
    /// Where its open transaction began.
    pub transaction_start: Option<i64>,
    /// When it last wrote.
    pub timestamp: i64,
}

/// What a batch is to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To be appended.
    New,
    /// There already.
    Duplicate(KnownBatch),
}

/// All producers of a partition.
#[derive(Debug, Clone, Default)]
pub struct ProducerState {
    producers: HashMap<i64, Producer>,
    /// Open transactions by their first offset.
    open: BTreeMap<i64, i64>,
    /// Ended transactions whose marker is not committed yet: first offset to the marker's.
    unreplicated: BTreeMap<i64, i64>,
}

/// The sequence behind another; it wraps to 0.
fn next_sequence(sequence: i32) -> i32 {
    if sequence == i32::MAX { 0 } else { sequence + 1 }
}

impl ProducerState {
    /// Judges a client's batch before it is appended.
    pub fn check(&self, header: &BatchHeader) -> Result<Verdict, LogError> {
        if !header.has_producer_id() || header.is_control() {
            return Ok(Verdict::New);
        }
        let producer_id = header.producer_id;
        // State may have been lost by retention: any sequence begins anew.
        let Some(producer) = self.producers.get(&producer_id) else { return Ok(Verdict::New) };
        if header.producer_epoch < producer.epoch {
            return Err(LogError::ProducerFenced {
                producer_id,
                current: producer.epoch,
                found: header.producer_epoch,
            });
        }
        if header.base_sequence < 0 {
            // A coordinator's own: one writer, without retries.
            return Ok(Verdict::New);
        }
        let out_of_order =
            |last| Err(LogError::OutOfOrderSequence { producer_id, last, found: header.base_sequence });
        if header.producer_epoch > producer.epoch {
            return if header.base_sequence == 0 { Ok(Verdict::New) } else { out_of_order(-1) };
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        let same = |batch: &&KnownBatch| batch.first_sequence == first && batch.last_sequence == last;
        if let Some(known) = producer.batches.iter().find(same) {
            return Ok(Verdict::Duplicate(*known));
        }
        match producer.batches.back() {
            Some(known) if next_sequence(known.last_sequence) != first => out_of_order(known.last_sequence),
            // Only a marker so far, which may have raised the epoch (KIP-890): sequences begin anew.
            None if first != 0 => out_of_order(-1),
            _ if producer.transaction_start.is_some() && !header.is_transactional() => {
                Err(LogError::OutsideOfTransaction { producer_id })
            }
            _ => Ok(Verdict::New),
        }
    }

    /// Judges an end-of-transaction marker before it is appended. `raises_epoch`: the end of each transaction has an epoch
    /// of its own (transactions version 2), so that one that is not newer is late.
    pub fn check_marker(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        coordinator_epoch: i32,
        raises_epoch: bool,
    ) -> Result<(), LogError> {
        let Some(producer) = self.producers.get(&producer_id) else { return Ok(()) };
        let is_late =
            if raises_epoch { producer_epoch <= producer.epoch } else { producer_epoch < producer.epoch };
        if is_late {
            return Err(LogError::ProducerFenced {
                producer_id,
                current: producer.epoch,
                found: producer_epoch,
            });
        }
        if coordinator_epoch < producer.coordinator_epoch {
            return Err(LogError::CoordinatorFenced {
                producer_id,
                current: producer.coordinator_epoch,
                found: coordinator_epoch,
            });
        }
        Ok(())
    }

    /// One producer.
    pub fn producer(&self, id: i64) -> Option<&Producer> {
        self.producers.get(&id)
    }

    /// Notes a batch that is in the log.
    pub fn append(&mut self, header: &BatchHeader) {
        if !header.has_producer_id() || header.is_control() {
            return;
        }
        let producer = self.producers.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::new(),
            coordinator_epoch: -1,
            transaction_start: None,
            timestamp: header.max_timestamp,
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if header.base_sequence >= 0 {
            if producer.batches.len() == BATCHES_KEPT {
                producer.batches.pop_front();
            }
            producer.batches.push_back(KnownBatch {
                first_sequence: header.base_sequence,
                last_sequence: header.last_sequence(),
                last_offset: header.last_offset(),
                offset_delta: header.last_offset_delta,
                timestamp: header.max_timestamp,
            });
        }
        producer.timestamp = header.max_timestamp;
        if header.is_transactional() && producer.transaction_start.is_none() {
            producer.transaction_start = Some(header.base_offset);
            self.open.insert(header.base_offset, header.producer_id);
        }
    }

    /// Notes an end-of-transaction marker; gives the transaction if it was aborted.
    pub fn end_transaction(
        &mut self,
        header: &BatchHeader,
        commit: bool,
        coordinator_epoch: i32,
    ) -> Option<Aborted> {
        let offset = header.last_offset();
        let producer = self.producers.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::new(),
            coordinator_epoch,
            transaction_start: None,
            timestamp: header.max_timestamp,
        });
        if header.producer_epoch > producer.epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        producer.coordinator_epoch = coordinator_epoch;
        producer.timestamp = header.max_timestamp;
        let first_offset = producer.transaction_start.take()?;
        self.open.remove(&first_offset);
        self.unreplicated.insert(first_offset, offset);
        // As Kafka has it: where the next transaction that is still open begins, or else behind the marker.
        let last_stable_offset = self.open.keys().next().copied().unwrap_or(offset + 1);
        (!commit).then_some(Aborted {
            producer_id: header.producer_id,
            first_offset,
            last_offset: offset,
            last_stable_offset,
        })
    }

    /// The first offset that belongs to a transaction that is open, or whose end is not committed.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        let open = self.open.keys().next();
        let unreplicated = self.unreplicated.keys().next();
        open.into_iter().chain(unreplicated).min().copied()
    }

    /// Markers below the high watermark are committed.
    pub fn set_high_watermark(&mut self, high_watermark: i64) {
        self.unreplicated.retain(|_, last| *last >= high_watermark);
    }

    /// Forgets producers that have not written since a time and have no open transaction.
    pub fn expire(&mut self, before_ms: i64) {
        self.producers
            .retain(|_, producer| producer.transaction_start.is_some() || producer.timestamp >= before_ms);
    }

    /// Keeps no more memory than what is known takes.
    pub(crate) fn rest(&mut self) {
        for producer in self.producers.values_mut() {
            producer.batches.shrink_to_fit();
        }
        self.producers.shrink_to_fit();
    }

    /// All producers.
    pub fn producers(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter().map(|(id, producer)| (*id, producer))
    }

    /// Adds a producer that a snapshot has.
    pub fn restore(&mut self, id: i64, producer: Producer) {
        if let Some(start) = producer.transaction_start {
            self.open.insert(start, id);
        }
        self.producers.insert(id, producer);
    }

    /// How many producers it knows.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer_id: i64, epoch: i16, sequence: i32, count: i32, offset: i64) -> BatchHeader {
        let mut builder = ottla_wire::records::BatchBuilder::new(ottla_wire::records::BatchOptions {
            base_offset: offset,
            producer_id,
            producer_epoch: epoch,
            base_sequence: sequence,
            ..Default::default()
        });
        for _ in 0..count {
            builder.add(5, None, Some(b"v"), &[]).unwrap();
        }
        BatchHeader::parse(&builder.finish().unwrap()).unwrap()
    }

    #[test]
    fn sequences_go_on_duplicates_are_known_and_gaps_are_refused() {
        let mut state = ProducerState::default();
        for n in 0..7 {
            let header = batch(1, 0, n * 10, 10, i64::from(n) * 10);
            assert_eq!(state.check(&header).unwrap(), Verdict::New);
            state.append(&header);
        }
        let Verdict::Duplicate(known) = state.check(&batch(1, 0, 30, 10, 99)).unwrap() else {
            panic!("not known")
        };
        assert_eq!(known.first_offset(), 30);
        assert!(matches!(
            state.check(&batch(1, 0, 10, 10, 99)),
            Err(LogError::OutOfOrderSequence { last: 69, .. })
        ));
        assert!(matches!(state.check(&batch(1, 0, 80, 1, 99)), Err(LogError::OutOfOrderSequence { .. })));
        assert!(matches!(state.check(&batch(1, 1, 5, 1, 99)), Err(LogError::OutOfOrderSequence { .. })));
        assert_eq!(state.check(&batch(1, 1, 0, 1, 99)).unwrap(), Verdict::New);
        state.append(&batch(1, 1, 0, 1, 70));
        assert!(matches!(
            state.check(&batch(1, 0, 70, 1, 99)),
            Err(LogError::ProducerFenced { current: 1, .. })
        ));
    }

    #[test]
    fn markers_of_older_producers_and_coordinators_are_refused() {
        let mut state = ProducerState::default();
        assert!(state.check_marker(1, 0, -1, true).is_ok(), "nothing is known of the producer");
        state.append(&batch(1, 3, 0, 1, 0));
        assert!(matches!(
            state.check_marker(1, 2, 0, false),
            Err(LogError::ProducerFenced { current: 3, .. })
        ));
        assert!(state.check_marker(1, 3, 0, false).is_ok());
        assert!(matches!(state.check_marker(1, 3, 0, true), Err(LogError::ProducerFenced { .. })));
        assert!(state.check_marker(1, 4, 0, true).is_ok());
        state.end_transaction(&batch(1, 4, -1, 1, 1), true, 7);
        assert!(matches!(
            state.check_marker(1, 5, 6, true),
            Err(LogError::CoordinatorFenced { current: 7, found: 6, .. })
        ));
        // The marker has raised the epoch: sequences begin anew.
        assert!(matches!(
            state.check(&batch(1, 4, 1, 1, 2)),
            Err(LogError::OutOfOrderSequence { last: -1, .. })
        ));
        assert_eq!(state.check(&batch(1, 4, 0, 1, 2)).unwrap(), Verdict::New);
    }

    #[test]
    fn a_coordinators_records_have_no_sequences() {
        let mut state = ProducerState::default();
        for offset in 0..2 {
            let header = batch(1, 0, -1, 1, offset);
            assert_eq!(state.check(&header).unwrap(), Verdict::New);
            state.append(&header);
        }
        assert!(state.producer(1).unwrap().batches.is_empty());
    }

    #[test]
    fn sequences_wrap_behind_the_largest_integer() {
        let mut state = ProducerState::default();
        state.append(&batch(1, 0, i32::MAX - 1, 2, 0));
        assert_eq!(state.check(&batch(1, 0, 0, 1, 2)).unwrap(), Verdict::New);
    }
}
