//! What is written: a batch of one record, as the log and the producer state see it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ottla_coordinator::group::CoordinatorRecord;
use ottla_log::Aborted;
use ottla_log::producer_state::ProducerState;
use ottla_wire::records::BatchHeader;

use crate::log::ReplicaLog;

/// Bits of a batch's attributes.
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// In the place of a writer: a marker, a record of a coordinator.
const MARKERS: u32 = u32::MAX;
const COORDINATORS: u32 = u32::MAX - 1;

/// What a batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A record outside of transactions.
    Plain,
    /// A record of this transaction. The number is for the checks; no machine looks at it.
    Transactional(u64),
    /// The end of a transaction.
    Marker {
        /// Commit, or abort.
        commit: bool,
        /// Leader epoch of the coordinator's partition.
        coordinator_epoch: i32,
    },
    /// What a transaction coordinator decided.
    Coordinator(Arc<Vec<CoordinatorRecord>>),
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// -1: not idempotent.
    pub producer_id: i64,
    /// See the protocol.
    pub producer_epoch: i16,
    /// See the protocol.
    pub sequence: i32,
    /// Who wrote it.
    pub writer: u32,
    /// Which of the writer's records of the partition it is.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
}

impl Batch {
    /// The marker that ends a transaction.
    pub fn marker(producer_id: i64, producer_epoch: i16, commit: bool, coordinator_epoch: i32) -> Self {
        let kind = Kind::Marker { commit, coordinator_epoch };
        Self { producer_id, producer_epoch, sequence: -1, writer: MARKERS, number: 0, kind }
    }

    /// A coordinator's records.
    pub fn of_coordinator(records: Vec<CoordinatorRecord>) -> Self {
        let kind = Kind::Coordinator(Arc::new(records));
        Self { producer_id: -1, producer_epoch: -1, sequence: -1, writer: COORDINATORS, number: 0, kind }
    }

    /// Whether a consumer may be given it.
    pub fn is_data(&self) -> bool {
        matches!(self.kind, Kind::Plain | Kind::Transactional(_))
    }

    /// Whether it is a record of a transaction.
    pub fn is_transactional(&self) -> bool {
        matches!(self.kind, Kind::Transactional(_))
    }

    /// What tells it from all others.
    pub fn identity(&self) -> (u32, u64) {
        let mut hasher = DefaultHasher::new();
        match &self.kind {
            Kind::Plain | Kind::Transactional(_) => return (self.writer, self.number),
            Kind::Marker { commit, coordinator_epoch } => {
                (self.producer_id, self.producer_epoch, commit, coordinator_epoch).hash(&mut hasher);
            }
            Kind::Coordinator(records) => {
                for record in records.iter() {
                    (&record.key, &record.value).hash(&mut hasher);
                }
            }
        }
        (self.writer, hasher.finish())
    }

    /// The header that it would have at an offset.
    pub fn header(&self, offset: i64, leader_epoch: i32) -> BatchHeader {
        let attributes = match self.kind {
            Kind::Plain | Kind::Coordinator(_) => 0,
            Kind::Transactional(_) => TRANSACTIONAL,
            Kind::Marker { .. } => TRANSACTIONAL | CONTROL,
        };
        BatchHeader {
            base_offset: offset,
            batch_length: 100,
            partition_leader_epoch: leader_epoch,
            magic: 2,
            crc: 0,
            attributes,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.sequence,
            record_count: 1,
        }
    }
}

/// What a log knows of its producers, and of the transactions in it that were aborted.
#[derive(Debug, Clone, Default)]
pub struct Producers {
    /// The producers.
    pub state: ProducerState,
    /// In the order of their markers.
    aborted: Vec<Aborted>,
}

impl Producers {
    /// Made anew from a log: after a start and after a truncation.
    pub fn of(log: &ReplicaLog<Batch>) -> Self {
        let mut producers = Self::default();
        producers.add_from(log, log.start());
        producers
    }

    /// Takes what is new in the log from an offset on.
    pub fn add_from(&mut self, log: &ReplicaLog<Batch>, from: i64) {
        for (offset, entry) in (from..).zip(log.slice(from, log.end())) {
            self.add(&entry.payload, offset, entry.epoch);
        }
    }

    /// Takes a batch that is in the log.
    pub fn add(&mut self, batch: &Batch, offset: i64, leader_epoch: i32) {
        let header = batch.header(offset, leader_epoch);
        if let Kind::Marker { commit, coordinator_epoch } = batch.kind {
            self.aborted.extend(self.state.end_transaction(&header, commit, coordinator_epoch));
        } else {
            self.state.append(&header);
        }
    }

    /// What consumers of committed records may read to.
    pub fn last_stable_offset(&mut self, high_watermark: i64) -> i64 {
        self.state.set_high_watermark(high_watermark);
        self.state.first_unstable_offset().map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// Aborted transactions that overlap these offsets: producer and first offset.
    pub fn aborted(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let overlaps = |one: &&Aborted| one.last_offset >= from && one.first_offset < to;
        self.aborted.iter().filter(overlaps).map(|one| (one.producer_id, one.first_offset)).collect()
    }
}
