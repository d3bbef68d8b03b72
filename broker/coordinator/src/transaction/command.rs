//! What goes into the machine and what comes out: commands, replies, effects. Plain data in Kafka's terms; the shell
//! converts them from and to the messages of each API version.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::state::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, TransactionVersion};
use crate::group::{CoordinatorRecord, RequestToken, Ticket, TopicPartition};

/// First versions of requests that know PRODUCER_FENCED (KIP-588); see [`for_request_version`].
pub const PRODUCER_FENCED_SINCE_INIT_PRODUCER_ID: i16 = 4;
/// As [`PRODUCER_FENCED_SINCE_INIT_PRODUCER_ID`], of AddPartitionsToTxn.
pub const PRODUCER_FENCED_SINCE_ADD_PARTITIONS: i16 = 2;
/// As [`PRODUCER_FENCED_SINCE_INIT_PRODUCER_ID`], of AddOffsetsToTxn.
pub const PRODUCER_FENCED_SINCE_ADD_OFFSETS: i16 = 2;
/// As [`PRODUCER_FENCED_SINCE_INIT_PRODUCER_ID`], of EndTxn.
pub const PRODUCER_FENCED_SINCE_END_TXN: i16 = 2;

/// What a client of this request version is told: older ones know INVALID_PRODUCER_EPOCH only.
pub fn for_request_version(error: ErrorCode, version: i16, fenced_since: i16) -> ErrorCode {
    if error == ErrorCode::ProducerFenced && version < fenced_since {
        return ErrorCode::InvalidProducerEpoch;
    }
    error
}

/// InitProducerId with a transactional id. (Without one, the answer is a fresh producer id; no coordinator is needed.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducerId {
    /// Empty: INVALID_REQUEST.
    pub transactional_id: Text,
    /// Milliseconds.
    pub timeout_ms: i32,
    /// What the producer believes to be (KIP-360), or -1.
    pub producer_id: i64,
    /// The epoch that it believes to have, or -1.
    pub producer_epoch: i16,
    /// Asks for two-phase commit (KIP-939).
    pub enable_two_phase_commit: bool,
    /// Asks to keep a prepared transaction (KIP-939).
    pub keep_prepared: bool,
    /// A producer id that nobody has had, if the shell has one at hand. [`Reply::ProducerIdNeeded`] asks for one.
    pub fresh_producer_id: Option<i64>,
}

/// AddPartitionsToTxn of one transaction; AddOffsetsToTxn, whose partition is that of the group in `__consumer_offsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddPartitions {
    /// Empty: INVALID_REQUEST.
    pub transactional_id: Text,
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Version 2 if a broker adds them on behalf of a producer that speaks it (AddPartitionsToTxn 5), else 0.
    pub client_version: TransactionVersion,
    /// All exist, as the shell has checked.
    pub partitions: Vec<TopicPartition>,
    /// Milliseconds that it can wait for an earlier change, before it is told CONCURRENT_TRANSACTIONS. 0 for clients,
    /// who come again by themselves; a broker that adds for a producer gives the rest of its request's time.
    pub wait_ms_max: u64,
}

/// EndTxn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTxn {
    /// Empty: INVALID_REQUEST.
    pub transactional_id: Text,
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Commit, or abort.
    pub commit: bool,
    /// Version 2 for EndTxn 5, else 0.
    pub client_version: TransactionVersion,
    /// As in [`InitProducerId`].
    pub fresh_producer_id: Option<i64>,
}

/// A request that may change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// InitProducerId.
    InitProducerId(InitProducerId),
    /// AddPartitionsToTxn and AddOffsetsToTxn.
    AddPartitions(AddPartitions),
    /// EndTxn.
    EndTxn(EndTxn),
}

impl Command {
    /// Whom it is about.
    pub fn transactional_id(&self) -> &Text {
        match self {
            Self::InitProducerId(command) => &command.transactional_id,
            Self::AddPartitions(command) => &command.transactional_id,
            Self::EndTxn(command) => &command.transactional_id,
        }
    }

    /// The answer that refuses it.
    pub fn refusal(&self, error: ErrorCode) -> Reply {
        match self {
            Self::InitProducerId(_) => Reply::InitProducerId(ProducerReply::refused(error)),
            Self::AddPartitions(_) => Reply::AddPartitions(error),
            Self::EndTxn(_) => Reply::EndTxn(ProducerReply::refused(error)),
        }
    }
}

/// A producer id and epoch, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerReply {
    /// None if it went well.
    pub error: ErrorCode,
    /// Or -1.
    pub producer_id: i64,
    /// Or -1.
    pub producer_epoch: i16,
}

impl ProducerReply {
    /// Nothing but an error.
    pub const fn refused(error: ErrorCode) -> Self {
        Self { error, producer_id: NO_PRODUCER_ID, producer_epoch: NO_PRODUCER_EPOCH }
    }

    /// What the producer is from now on.
    pub const fn granted(producer_id: i64, producer_epoch: i16) -> Self {
        Self { error: ErrorCode::None, producer_id, producer_epoch }
    }
}

/// The answer to a command, of its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// To InitProducerId.
    InitProducerId(ProducerReply),
    /// To AddPartitions: for every partition.
    AddPartitions(ErrorCode),
    /// To EndTxn. Versions before 5 have no room for the producer.
    EndTxn(ProducerReply),
    /// Not for the client: the command is to be repeated with a fresh producer id. Nothing has changed.
    ProducerIdNeeded,
}

impl Reply {
    /// The same, refused.
    pub(crate) fn failed(self, error: ErrorCode) -> Self {
        match self {
            Self::InitProducerId(_) => Self::InitProducerId(ProducerReply::refused(error)),
            Self::AddPartitions(_) => Self::AddPartitions(error),
            Self::EndTxn(_) => Self::EndTxn(ProducerReply::refused(error)),
            Self::ProducerIdNeeded => Self::ProducerIdNeeded,
        }
    }
}

/// One batch to append. The shell answers with [`committed`](super::TransactionCoordinator::committed) once every
/// record is committed and applied, or with [`failed`](super::TransactionCoordinator::failed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Names it.
    pub ticket: Ticket,
    /// Never empty; all or none.
    pub records: Vec<CoordinatorRecord>,
}

/// Names the end of one transaction under one leadership: answers that were meant for an earlier coordinator of the
/// partition, even on the same node, find nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkerToken {
    pub(super) coordinator_epoch: i32,
    pub(super) number: u64,
}

/// Markers to write, one in each partition, by WriteTxnMarkers or locally. The shell sends each partition's to its
/// leader and tells [`markers_answered`](super::TransactionCoordinator::markers_answered) of every one, in parts or
/// together. It need not try again: the machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMarkers {
    /// Names the end of the transaction.
    pub token: MarkerToken,
    /// Whose transaction.
    pub transactional_id: Text,
    /// The producer in whose name they are written.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Commit, or abort.
    pub commit: bool,
    /// The leader epoch of the coordinator's partition.
    pub coordinator_epoch: i32,
    /// What WriteTxnMarkers 2 carries.
    pub transaction_version: TransactionVersion,
    /// Never empty.
    pub partitions: Vec<TopicPartition>,
}

/// What became of the marker of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerOutcome {
    /// The leader's answer.
    Answered(ErrorCode),
    /// The leader is not known or could not be reached, or its answer is lost.
    NoAnswer,
    /// The partition or its topic is deleted, by the metadata.
    Gone,
}

/// What the shell has to do after a step, in this order. Replies that depend on an append are held by the machine
/// until it is told of the append's fate; those here may go out at once. So do the markers here: what they say is
/// committed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Batches for the log, in order.
    pub appends: Vec<Append>,
    /// Answers that are true now.
    pub replies: Vec<(RequestToken, Reply)>,
    /// Markers to send.
    pub markers: Vec<SendMarkers>,
}
