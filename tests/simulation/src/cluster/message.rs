//! What nodes say to each other.

use ottla_coordinator::transaction::{Command, Reply};
use ottla_replica::IsrAnswer;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::batch::Batch;
use crate::log::Entry;
use crate::metadata::Proposal;
use crate::replica::{FetchAnswer, FetchRequest};

/// A broker's sign of life.
#[derive(Debug, Clone)]
pub struct HeartbeatRequest {
    /// Who.
    pub broker: i32,
    /// Of its registration.
    pub epoch: i64,
    /// What it has applied.
    pub metadata_index: i64,
    /// It wants to stop.
    pub wants_shut_down: bool,
    /// On its own clock.
    pub sent_at_ms: u64,
}

/// Why a client's request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Another broker leads, or another epoch has come.
    NotLeader,
    /// Certainly not appended.
    NotEnoughReplicas,
    /// Appended; it may be lost.
    Unknown,
    /// Sequences do not follow on each other.
    OutOfOrder,
    /// The producer is replaced.
    Fenced,
    /// The transaction before is not over yet.
    Concurrent,
    /// The transaction cannot go on.
    NotInTransaction,
}

/// A leader asks the coordinator of a transaction whether a partition is part of it (KIP-890).
#[derive(Debug, Clone)]
pub struct Question {
    /// Partition of the coordinator's log.
    pub coordinator: i32,
    /// Whose transaction.
    pub transactional_id: Text,
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The partition.
    pub partition: i32,
    /// Add it (transactions version 2), or else only look.
    pub add: bool,
}

/// A coordinator has a marker written.
#[derive(Debug, Clone)]
pub struct MarkerRequest {
    /// Partition to write it to.
    pub partition: i32,
    /// The marker.
    pub batch: Batch,
    /// Transactions version 2.
    pub raises_epoch: bool,
}

/// A message.
#[derive(Debug, Clone)]
pub enum Message {
    /// Broker to controller.
    Heartbeat(HeartbeatRequest),
    /// Its answer.
    HeartbeatReply {
        /// Of which registration: it comes on the connection of that process.
        epoch: i64,
        /// As asked.
        sent_at_ms: u64,
        /// It may not serve.
        is_fenced: bool,
        /// Its process may end.
        should_shut_down: bool,
        /// Counted from the sending.
        lease_ms: u64,
    },
    /// The broker's registration is void.
    RegisterAgain,
    /// Ask another one.
    NotController(Option<usize>),
    /// A process registers.
    Register {
        /// Of the process.
        incarnation: u64,
        /// Of the clean shutdown before; -1: there was none.
        marker: i64,
    },
    /// It is registered.
    Registered {
        /// As asked.
        incarnation: u64,
        /// Its epoch.
        epoch: i64,
    },
    /// A leader asks for an ISR.
    Alter {
        /// Names the answer.
        id: u64,
        /// What it asks for.
        proposal: Proposal,
    },
    /// The answer.
    Altered {
        /// As asked.
        id: u64,
        /// The answer.
        answer: IsrAnswer,
    },
    /// A follower's fetch.
    Fetch {
        /// Names the answer.
        id: u64,
        /// Of the topic.
        partition: i32,
        /// What it asks.
        request: FetchRequest,
    },
    /// The leader's answer.
    Fetched {
        /// As asked.
        id: u64,
        /// Of the topic.
        partition: i32,
        /// Under which epoch it was asked.
        leader_epoch: i32,
        /// The answer.
        answer: FetchAnswer<Batch>,
    },
    /// A client asks who leads.
    Metadata,
    /// The answer: by partition the leader and its epoch.
    MetadataAnswer(Vec<(i32, i32)>),
    /// A client's record.
    Produce {
        /// Names the answer: the connection and the request.
        id: (u64, u64),
        /// Of the topic.
        partition: i32,
        /// The record.
        batch: Batch,
        /// Of a transaction: the partition of its coordinator's log, its transactional id, whether it is of version 2.
        transaction: Option<(i32, Text, bool)>,
    },
    /// The answer: the offset, or what was wrong.
    Produced {
        /// As asked.
        id: (u64, u64),
        /// Of the topic.
        partition: i32,
        /// The record's number.
        number: u64,
        /// The answer.
        result: Result<i64, Problem>,
    },
    /// A consumer's fetch.
    Read {
        /// Names the answer.
        id: u64,
        /// Of the topic.
        partition: i32,
        /// From where.
        offset: i64,
        /// The leader epoch that the client knows.
        leader_epoch: i32,
        /// A follower may answer.
        allow_follower: bool,
        /// Only what is committed: up to the last stable offset.
        committed: bool,
    },
    /// The answer.
    ReadAnswer {
        /// As asked.
        id: u64,
        /// Of the topic.
        partition: i32,
        /// The answer.
        answer: ReadAnswer,
    },
    /// A client asks for the end.
    Look {
        /// Names the answer.
        id: u64,
        /// Of the topic.
        partition: i32,
        /// The leader epoch that the client knows.
        leader_epoch: i32,
    },
    /// The answer; none: ask again.
    LookAnswer {
        /// As asked.
        id: u64,
        /// Of the topic.
        partition: i32,
        /// The end.
        end: Option<i64>,
    },
    /// A producer asks its transaction coordinator.
    Transaction {
        /// Names the answer.
        id: u64,
        /// Partition of the coordinator's log.
        coordinator: i32,
        /// What it asks.
        command: Command,
    },
    /// The answer.
    TransactionReply {
        /// As asked.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// A leader asks a transaction coordinator.
    Ask {
        /// Names the answer.
        id: u64,
        /// What it asks.
        question: Question,
    },
    /// The answer.
    Asked {
        /// As asked.
        id: u64,
        /// The answer.
        error: ErrorCode,
    },
    /// A transaction coordinator has a marker written.
    WriteMarker {
        /// Names the answer.
        id: u64,
        /// What is to be written.
        request: MarkerRequest,
    },
    /// The answer.
    MarkerWritten {
        /// As asked.
        id: u64,
        /// The answer.
        error: ErrorCode,
    },
}

/// What a consumer is told.
#[derive(Debug, Clone)]
pub enum ReadAnswer {
    /// Ask for the leader again.
    Refused,
    /// There is no such offset.
    OutOfRange,
    /// What there is.
    Records {
        /// From the offset asked for on.
        entries: Vec<Entry<Batch>>,
        /// The high watermark.
        high_watermark: i64,
        /// Of who answered.
        leader_epoch: i32,
        /// Who answered leads.
        is_leader: bool,
        /// For readers of committed records: transactions that were aborted, by producer and first offset.
        aborted: Vec<(i64, i64)>,
    },
}
