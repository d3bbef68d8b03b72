//! What a client writes: a batch of one record, as the log and the producer state see it.

use ottla_log::producer_state::ProducerState;
use ottla_wire::records::BatchHeader;

use crate::log::ReplicaLog;

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
}

impl Batch {
    /// The header that it would have at an offset.
    pub fn header(&self, offset: i64, leader_epoch: i32) -> BatchHeader {
        BatchHeader {
            base_offset: offset,
            batch_length: 100,
            partition_leader_epoch: leader_epoch,
            magic: 2,
            crc: 0,
            attributes: 0,
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

/// The producers of a log, made anew from it: after a start and after a truncation.
pub fn producers_of(log: &ReplicaLog<Batch>) -> ProducerState {
    let mut state = ProducerState::default();
    add_producers(&mut state, log, log.start());
    state
}

/// Takes what is new in the log from an offset on.
pub fn add_producers(state: &mut ProducerState, log: &ReplicaLog<Batch>, from: i64) {
    for (offset, entry) in (from..).zip(log.slice(from, log.end())) {
        state.append(&entry.payload.header(offset, entry.epoch));
    }
}
