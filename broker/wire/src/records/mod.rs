//! Record batches of message format 2 (KIP-98), the only format that Kafka 4 writes.
//!
//! A batch is opaque on the hot path: its 61-byte header is read ([`batch`]), its checksum verified, its offset and
//! leader epoch patched in place. [`iterate`] reads the records inside, [`build`] writes batches, [`control`] knows
//! the markers that end a transaction, [`validate`] decides about what a producer sent.

pub mod batch;
pub mod build;
pub mod control;
pub mod iterate;
mod source;
pub mod validate;

pub use batch::{
    BATCH_OVERHEAD_BYTES, BatchError, BatchHeader, HEADER_BYTES, TimestampType, checksum, log_append_time,
    set_base_offset, set_max_timestamp, set_partition_leader_epoch, verify_crc,
};
pub use build::{BatchBuilder, BatchOptions, BuildError, empty_batch};
pub use control::{ControlRecord, EndTransaction, Marker, end_transaction_marker};
pub use iterate::{Batch, BatchSlices, Batches, Record, RecordHeader, RecordIterator};
pub use source::RecordError;
pub use validate::{
    ProduceRules, Refusal, RefusalReason, TargetCompression, ValidatedBatch, validate_produce,
};
