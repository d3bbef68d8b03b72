//! What is durable of transactions: exactly what the log of one partition of `__transaction_state` says (KIP-98). Only
//! [`DurableState::apply`] changes it, with the same code on the leader, on replay and on a standby.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_wire::text::Text;

use super::records::{self, Record, RecordError};
use crate::group::TopicPartition;

/// The producer id that means that there is none.
pub const NO_PRODUCER_ID: i64 = -1;
/// The epoch that means that there is none.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// The time that means that no transaction was begun yet.
pub const NO_TIME_MS: i64 = -1;
/// The last epoch that a client may be given. The one above it is left for fencing whoever has this one.
pub const PRODUCER_EPOCH_FOR_CLIENTS_MAX: i16 = i16::MAX - 1;

/// Where a transactional id stands, in Kafka's names. [`Dead`](Self::Dead) and
/// [`PrepareEpochFence`](Self::PrepareEpochFence) are only ever on their way, never in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionState {
    /// A producer, no transaction yet.
    Empty = 0,
    /// A transaction with at least one partition.
    Ongoing = 1,
    /// Decided: committed. Markers are on their way.
    PrepareCommit = 2,
    /// Decided: aborted. Markers are on their way.
    PrepareAbort = 3,
    /// Every partition has its commit marker.
    CompleteCommit = 4,
    /// Every partition has its abort marker.
    CompleteAbort = 5,
    /// About to be forgotten.
    Dead = 6,
    /// About to be aborted by the coordinator, with an epoch that fences the producer.
    PrepareEpochFence = 7,
}

impl TransactionState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
        Self::Dead,
        Self::PrepareEpochFence,
    ];

    /// Kafka's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
            Self::Dead => "Dead",
            Self::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// The state of this name, spelled exactly so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The number in records.
    pub const fn number(self) -> i8 {
        self as i8
    }

    pub(crate) fn from_number(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }

    /// Decided, but not every partition knows.
    pub const fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// Nothing is open: a producer may begin a transaction, and the id may expire.
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Empty | Self::CompleteCommit | Self::CompleteAbort)
    }
}

/// A level of the feature `transaction.version`: of the cluster, or as a client's request shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionVersion(pub i16);

impl TransactionVersion {
    /// Classic transactions, records without tagged fields.
    pub const V0: Self = Self(0);
    /// Classic transactions, records with tagged fields.
    pub const V1: Self = Self(1);
    /// An epoch for each transaction (KIP-890 part 2).
    pub const V2: Self = Self(2);

    /// Every end of a transaction raises the epoch, so that what is late of one cannot get into the next.
    pub fn supports_epoch_bump(self) -> bool {
        self >= Self::V2
    }

    /// The version of TransactionLogValue that is written at this level.
    pub(crate) fn log_value_version(self) -> i16 {
        i16::from(self >= Self::V1)
    }
}

/// A transactional id as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionMetadata {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The producer id before the last record; differs from `producer_id` right after the epochs ran out.
    pub previous_producer_id: i64,
    /// The producer id that takes over when the markers are written, because the epochs ran out; or -1.
    pub next_producer_id: i64,
    /// Milliseconds that a transaction may be open.
    pub timeout_ms: i32,
    /// Where it stands.
    pub state: TransactionState,
    /// What the open or prepared transaction touches.
    pub partitions: BTreeSet<TopicPartition>,
    /// When the last transaction got its first partition, milliseconds since the Unix epoch, or -1.
    pub start_ms: i64,
    /// When this record was made, milliseconds since the Unix epoch.
    pub last_update_ms: i64,
    /// How the client that caused it speaks.
    pub client_version: TransactionVersion,
}

impl TransactionMetadata {
    /// No client may be given another epoch of this producer id.
    pub fn is_epoch_exhausted(&self) -> bool {
        self.producer_epoch >= PRODUCER_EPOCH_FOR_CLIENTS_MAX
    }

    /// When the open transaction has run out of time, milliseconds since the Unix epoch. Transactions of two-phase
    /// commit (KIP-939), known by the greatest timeout, have none.
    pub fn deadline_ms(&self) -> Option<i64> {
        let counts = self.state == TransactionState::Ongoing && self.timeout_ms != i32::MAX;
        counts.then(|| self.start_ms.saturating_add(i64::from(self.timeout_ms)))
    }
}

/// What a record did to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is part of the state now.
    Changed,
    /// It is of a kind that is not kept.
    Skipped,
}

/// Everything that the log of one partition says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DurableState {
    transactions: BTreeMap<Text, TransactionMetadata>,
    /// Open transactions by the time at which they run out.
    deadlines: BTreeSet<(i64, Text)>,
}

impl DurableState {
    /// The id, if the log knows it.
    pub fn transaction(&self, transactional_id: &str) -> Option<&TransactionMetadata> {
        self.transactions.get(transactional_id)
    }

    /// All of them by id.
    pub fn transactions(&self) -> impl Iterator<Item = (&Text, &TransactionMetadata)> {
        self.transactions.iter()
    }

    /// How many ids there are.
    pub fn transactions_count(&self) -> usize {
        self.transactions.len()
    }

    /// Open transactions, but those that have no timeout.
    pub fn open(&self) -> impl Iterator<Item = &TransactionMetadata> {
        self.deadlines.iter().filter_map(|(_, id)| self.transactions.get(id))
    }

    /// Open transactions whose time is up, the oldest first.
    pub(crate) fn timed_out(&self, wall_ms: i64) -> impl Iterator<Item = &Text> {
        self.deadlines.iter().take_while(move |(deadline_ms, _)| *deadline_ms < wall_ms).map(|(_, id)| id)
    }

    /// One record of the log.
    pub fn apply(&mut self, key: &Bytes, value: Option<&Bytes>) -> Result<Applied, RecordError> {
        let Record::Transaction { transactional_id, metadata } = records::decode(key, value)? else {
            return Ok(Applied::Skipped);
        };
        let before = match metadata {
            Some(metadata) => {
                if let Some(deadline_ms) = metadata.deadline_ms() {
                    self.deadlines.insert((deadline_ms, transactional_id.clone()));
                }
                let after = metadata.deadline_ms();
                let before = self.transactions.insert(transactional_id.clone(), metadata);
                before.and_then(|before| before.deadline_ms()).filter(|before| Some(*before) != after)
            }
            None => self.transactions.remove(&transactional_id).and_then(|before| before.deadline_ms()),
        };
        if let Some(deadline_ms) = before {
            self.deadlines.remove(&(deadline_ms, transactional_id));
        }
        Ok(Applied::Changed)
    }
}
