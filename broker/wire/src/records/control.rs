//! Control records: what the broker writes between the records of clients (KIP-98).
//!
//! | key | | value of an end-transaction marker | |
//! |---|---|---|---|
//! | version | i16, 0 | version | i16, 0 |
//! | type | i16: 0 abort, 1 commit | coordinator epoch | i32 |
//!
//! Readers take higher versions too, by the fields that they know.

use bytes::Bytes;

use super::build::{BatchBuilder, BatchOptions, BuildError};
use super::iterate::Record;

const KEY_VERSION: i16 = 0;
const MARKER_VERSION: i16 = 0;
const TYPE_ABORT: i16 = 0;
const TYPE_COMMIT: i16 = 1;

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndTransaction {
    /// Its records shall not be read.
    Abort,
    /// Its records may be read.
    Commit,
}

/// A control record, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRecord {
    /// The end of a transaction.
    EndTransaction {
        /// How it ended.
        end: EndTransaction,
        /// Epoch of the transaction coordinator that wrote the marker.
        coordinator_epoch: i32,
    },
    /// A type that this version does not know; readers pass over it.
    Unknown(i16),
}

/// Why a control record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the control record is cut or has a version below 0")]
pub struct ControlError;

impl ControlRecord {
    /// Decodes a record of a control batch.
    pub fn parse(record: &Record) -> Result<Self, ControlError> {
        let key = record.key.as_deref().ok_or(ControlError)?;
        let (version, kind) = (int16(key, 0)?, int16(key, 2)?);
        if version < KEY_VERSION {
            return Err(ControlError);
        }
        let end = match kind {
            TYPE_ABORT => EndTransaction::Abort,
            TYPE_COMMIT => EndTransaction::Commit,
            other => return Ok(Self::Unknown(other)),
        };
        let value = record.value.as_deref().ok_or(ControlError)?;
        let epoch = value.get(2..6).and_then(|bytes| bytes.try_into().ok()).ok_or(ControlError)?;
        if int16(value, 0)? < MARKER_VERSION {
            return Err(ControlError);
        }
        Ok(Self::EndTransaction { end, coordinator_epoch: i32::from_be_bytes(epoch) })
    }
}

fn int16(bytes: &[u8], at: usize) -> Result<i16, ControlError> {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(i16::from_be_bytes).ok_or(ControlError)
}

/// Who ends a transaction, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// The producer whose transaction ends.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Epoch of the transaction coordinator.
    pub coordinator_epoch: i32,
    /// Time of the marker, ms.
    pub timestamp_ms: i64,
}

/// A control batch that ends a transaction; the log sets offset and leader epoch.
pub fn end_transaction_marker(end: EndTransaction, marker: Marker) -> Result<Bytes, BuildError> {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: marker.producer_id,
        producer_epoch: marker.producer_epoch,
        transactional: true,
        control: true,
        ..BatchOptions::default()
    });
    let kind = match end {
        EndTransaction::Abort => TYPE_ABORT,
        EndTransaction::Commit => TYPE_COMMIT,
    };
    let mut key = [0; 4];
    key[..2].copy_from_slice(&KEY_VERSION.to_be_bytes());
    key[2..].copy_from_slice(&kind.to_be_bytes());
    let mut value = [0; 6];
    value[..2].copy_from_slice(&MARKER_VERSION.to_be_bytes());
    value[2..].copy_from_slice(&marker.coordinator_epoch.to_be_bytes());
    builder.add(marker.timestamp_ms, Some(&key), Some(&value), &[])?;
    builder.finish()
}
