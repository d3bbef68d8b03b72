//! What can go wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

use ottla_wire::error_code::ErrorCode;

use crate::segment_file::ToPath;

/// An operation on a log, or on a log directory, that failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file operation failed.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that are not what they must be.
    #[error("{path} at byte {position}: {reason}", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// Records from elsewhere that are no whole, sound batches. Nothing of them was written.
    #[error("the records are damaged at byte {position}: {reason}")]
    Malformed {
        /// Where, in what came.
        position: usize,
        /// What is wrong.
        reason: String,
    },
    /// What was on disk is lost or damaged: to cut the log there would lose records that may have been acknowledged.
    #[error("{path} is damaged at offset {offset}, and everything before offset {recovery_point} was on disk: {reason}", path = path.display())]
    Damaged {
        /// The log's directory.
        path: PathBuf,
        /// The first offset that cannot be read.
        offset: i64,
        /// Up to here the log was synced.
        recovery_point: i64,
        /// What was found there.
        reason: String,
    },
    /// Outside of what the log has.
    #[error("offset is outside of {start}..={end}")]
    OffsetOutOfRange {
        /// First offset.
        start: i64,
        /// Next offset.
        end: i64,
    },
    /// Records that do not continue the log.
    #[error("records begin at offset {found}, the log ends at {expected}")]
    NotContiguous {
        /// The log's end.
        expected: i64,
        /// What came.
        found: i64,
    },
    /// Records of an earlier leader behind those of a later one.
    #[error("records of leader epoch {found} came behind those of epoch {last}")]
    EpochWentBack {
        /// The log's.
        last: i32,
        /// What came.
        found: i32,
    },
    /// An idempotent producer's sequence has a gap, or goes back.
    #[error("producer {producer_id}: sequence {found} does not follow {last}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The last sequence of the log.
        last: i32,
        /// What came.
        found: i32,
    },
    /// A producer that has been replaced.
    #[error("producer {producer_id}: epoch {found} is older than {current}")]
    ProducerFenced {
        /// The producer.
        producer_id: i64,
        /// The epoch that counts.
        current: i16,
        /// What came.
        found: i16,
    },
    /// A record that does not belong to the transaction that is open here.
    #[error("producer {producer_id} has a transaction open here, and sends records outside of it")]
    OutsideOfTransaction {
        /// The producer.
        producer_id: i64,
    },
    /// A marker of a coordinator that has been replaced.
    #[error("producer {producer_id}: coordinator epoch {found} is older than {current}")]
    CoordinatorFenced {
        /// The producer.
        producer_id: i64,
        /// The epoch that counts.
        current: i32,
        /// What came.
        found: i32,
    },
    /// A batch is larger than a segment may be.
    #[error("{bytes} bytes do not fit into a segment of {limit}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// `segment.bytes`.
        limit: usize,
    },
    /// A directory belongs to somebody else.
    #[error("{0}")]
    Foreign(String),
}

impl LogError {
    /// Says which file an operation failed at.
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// As [`Self::io`], of a file whose name is only made when it is needed.
    pub(crate) fn io_at<P: ToPath + ?Sized>(
        operation: &'static str,
        file: &P,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: file.to_path().into_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, position: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), position, reason: reason.into() }
    }

    /// The file or directory that it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } | Self::Corrupt { path, .. } | Self::Damaged { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The disk is full: writing may go on when there is room.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::QuotaExceeded)
    }

    /// The disk or a file on it, not the request, is at fault.
    pub fn is_storage_fault(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Corrupt { .. } | Self::Damaged { .. })
    }

    /// The disk refuses to read or write: whatever else lies on it cannot be relied upon either. A file with wrong bytes in it says
    /// nothing of its neighbours.
    pub fn is_disk_fault(&self) -> bool {
        matches!(self, Self::Io { .. }) && !self.is_no_space()
    }

    /// The log cannot go on.
    pub fn is_fatal(&self) -> bool {
        self.is_storage_fault() && !self.is_no_space()
    }

    /// Kafka's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Io { .. } | Self::Corrupt { .. } | Self::Damaged { .. } | Self::Foreign(_) => {
                ErrorCode::KafkaStorageError
            }
            Self::Malformed { .. } => ErrorCode::CorruptMessage,
            Self::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::NotContiguous { .. } | Self::EpochWentBack { .. } => ErrorCode::UnknownServerError,
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::ProducerFenced { .. } => ErrorCode::InvalidProducerEpoch,
            Self::OutsideOfTransaction { .. } => ErrorCode::InvalidTxnState,
            Self::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
            Self::TooLarge { .. } => ErrorCode::RecordListTooLarge,
        }
    }
}
