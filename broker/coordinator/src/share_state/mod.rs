//! The machine of one partition of `__share_group_state` (KIP-932): what share groups have of partitions, kept for the
//! brokers that lead these.
//!
//! | step | what a shell does |
//! |---|---|
//! | load | reads the log from its first record to its last into [`ShareStates::apply`] |
//! | a request | [`ShareStates::decide`]; appends the record; `apply`s it; answers once it is committed |
//! | a query | [`ShareStates::summary`] |
//! | now and then | [`ShareStates::maintain`]: records that let the log's head go, and [`ShareStates::redundant_before`] |
//!
//! A request is decided and applied under one lock, as soon as the log has its record: what is in the log can only be lost
//! together with this leadership. The log holds a snapshot of each share-partition and the updates since; a new snapshot
//! comes after `share.coordinator.snapshot.update.records.per.snapshot` updates. The topic is not compacted: what lies
//! before the oldest snapshot in use is deleted.

mod batches;
mod records;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use uuid::Uuid;

pub use batches::{StateBatch, merge};

use crate::group::{Applied, CoordinatorRecord, RecordError};
use records::Record;

/// Share-partitions of one partition of the topic. One more is refused with POLICY_VIOLATION.
pub const SHARE_PARTITIONS_MAX: usize = 1_000_000;
/// Batches of states of one share-partition. A write with more is refused with INVALID_REQUEST: a partition's leader has
/// no more than it may have locks.
pub const STATE_BATCHES_MAX: usize = 100_000;
/// No start offset is known yet: the leader of the partition finds it by `share.auto.offset.reset`.
pub const NO_START_OFFSET: i64 = -1;
/// An epoch that is not given.
const NO_EPOCH: i32 = -1;

/// A share-partition: a partition as one share group has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareKey {
    /// The group.
    pub group_id: Text,
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
}

impl ShareKey {
    /// What decides which partition of the topic holds it: `group:topicId:partition`, the id as Kafka prints it.
    pub fn coordinator_key(&self) -> String {
        format!("{}:{}:{}", self.group_id, printed(self.topic_id), self.partition)
    }

    /// The key of such a text. Groups may have colons in their names.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(3, ':');
        let partition = parts.next()?.parse().ok()?;
        let topic_id = parsed(parts.next()?)?;
        let group_id = parts.next().filter(|group| !group.is_empty())?;
        Some(Self { group_id: Text::from(group_id), topic_id, partition })
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// An id as Kafka prints it: URL-safe Base64 without padding.
fn printed(id: Uuid) -> String {
    let (mut text, mut bits, mut held) = (String::with_capacity(22), 0_u32, 0_u32);
    for byte in id.as_bytes() {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 6 {
            held -= 6;
            text.push(char::from(ALPHABET[(bits >> held & 63) as usize]));
        }
    }
    text.push(char::from(ALPHABET[(bits << (6 - held) & 63) as usize]));
    text
}

fn parsed(text: &str) -> Option<Uuid> {
    if text.len() != 22 {
        return None;
    }
    let mut id = 0_u128;
    for (index, letter) in text.bytes().enumerate() {
        let value = ALPHABET.iter().position(|known| *known == letter)? as u128;
        // The last letter has two bits of the id.
        id = if index < 21 { id << 6 | value } else { id << 2 | value >> 4 };
    }
    Some(Uuid::from_u128(id))
}

/// What a share-partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareState {
    /// Grows with each snapshot.
    pub snapshot_epoch: i32,
    /// Grows with each initialisation: an older one's writes are refused.
    pub state_epoch: i32,
    /// Of the leader of the partition: an older one's writes are refused.
    pub leader_epoch: i32,
    /// The first offset that is not final; [`NO_START_OFFSET`]: not known yet.
    pub start_offset: i64,
    /// How many offsets behind it are final; -1: not known.
    pub delivery_complete_count: i32,
    /// What became of offsets from there on.
    pub batches: Vec<StateBatch>,
    /// When the snapshot was made, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it was last written.
    pub written_ms: i64,
    /// Updates since the snapshot.
    updates: usize,
    /// Where the snapshot lies in the log.
    snapshot_offset: i64,
}

/// What the machine goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareStateConfig {
    /// `share.coordinator.snapshot.update.records.per.snapshot`.
    pub updates_per_snapshot: usize,
    /// `share.coordinator.cold.partition.snapshot.interval.ms`: what was not written for so long gets a new snapshot, so
    /// that the log's head can go.
    pub cold_interval_ms: i64,
}

impl Default for ShareStateConfig {
    fn default() -> Self {
        Self { updates_per_snapshot: 500, cold_interval_ms: 300_000 }
    }
}

/// What is asked of a share-partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A group has it from now on, from this start offset.
    Initialize {
        /// Not older than the one known.
        state_epoch: i32,
        /// [`NO_START_OFFSET`]: to be found.
        start_offset: i64,
    },
    /// A leader takes it over.
    Read {
        /// The leader's; -1: none.
        leader_epoch: i32,
    },
    /// A leader tells what became of offsets.
    Write {
        /// As it was read; -1: whichever.
        state_epoch: i32,
        /// The leader's; -1: none.
        leader_epoch: i32,
        /// -1: as it was.
        start_offset: i64,
        /// -1: not known.
        delivery_complete_count: i32,
        /// Changes.
        batches: Vec<StateBatch>,
    },
    /// No group has it any more.
    Delete,
}

/// What a leader is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadState {
    /// See [`ShareState`].
    pub state_epoch: i32,
    /// See [`ShareState`].
    pub leader_epoch: i32,
    /// See [`ShareState`].
    pub start_offset: i64,
    /// See [`ShareState`].
    pub delivery_complete_count: i32,
    /// See [`ShareState`].
    pub batches: Vec<StateBatch>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code on the wire.
    pub error: ErrorCode,
    /// For people.
    pub message: &'static str,
}

fn refuse<T>(error: ErrorCode, message: &'static str) -> Result<T, Refusal> {
    Err(Refusal { error, message })
}

/// What follows from a command: what to append, and the answer that is true once that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// None: nothing changes.
    pub record: Option<CoordinatorRecord>,
    /// Of a read.
    pub read: Option<ReadState>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ShareStates {
    config: ShareStateConfig,
    states: BTreeMap<ShareKey, ShareState>,
    /// Offsets of the snapshots in use.
    snapshots: BTreeSet<(i64, ShareKey)>,
}

impl ShareStates {
    /// An empty one.
    pub fn new(config: ShareStateConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// A share-partition.
    pub fn get(&self, key: &ShareKey) -> Option<&ShareState> {
        self.states.get(key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Decides; `is_partition`: there is such a partition. `now_ms`: milliseconds since the Unix epoch.
    pub fn decide(
        &self,
        now_ms: i64,
        key: &ShareKey,
        is_partition: bool,
        command: &Command,
    ) -> Result<Decision, Refusal> {
        if key.group_id.is_empty() {
            return refuse(ErrorCode::InvalidRequest, "The group id is empty.");
        }
        if key.topic_id.is_nil() {
            return refuse(ErrorCode::InvalidRequest, "The topic id is missing.");
        }
        if key.partition < 0 {
            return refuse(ErrorCode::InvalidRequest, "The partition is negative.");
        }
        let known = self.states.get(key);
        if *command == Command::Delete {
            let record = known.map(|_| encoded(records::tombstone(key))).transpose()?;
            return Ok(Decision { record, read: None });
        }
        if let (Some(known), Command::Read { leader_epoch } | Command::Write { leader_epoch, .. }) =
            (known, command)
            && *leader_epoch != NO_EPOCH
            && *leader_epoch < known.leader_epoch
        {
            return refuse(ErrorCode::FencedLeaderEpoch, "A later leader has taken the partition over.");
        }
        if let (Some(known), Command::Write { state_epoch, .. } | Command::Initialize { state_epoch, .. }) =
            (known, command)
            && *state_epoch != NO_EPOCH
            && *state_epoch < known.state_epoch
        {
            return refuse(ErrorCode::FencedStateEpoch, "The share-partition was initialised anew.");
        }
        if !is_partition {
            return refuse(ErrorCode::UnknownTopicOrPartition, "There is no such partition.");
        }
        match (command, known) {
            (Command::Initialize { state_epoch, start_offset }, known) => {
                self.initialize(now_ms, key, known, (*state_epoch, *start_offset))
            }
            (Command::Read { .. }, None) => refuse(
                ErrorCode::InvalidRequest,
                "A share-partition that was not initialised cannot be read.",
            ),
            (Command::Write { .. }, None) => refuse(
                ErrorCode::InvalidRequest,
                "A share-partition that was not initialised cannot be written.",
            ),
            (Command::Read { leader_epoch }, Some(known)) => self.read(now_ms, key, known, *leader_epoch),
            (Command::Write { .. }, Some(known)) => self.write(now_ms, key, known, command),
            (Command::Delete, _) => Ok(Decision { record: None, read: None }),
        }
    }

    fn initialize(
        &self,
        now_ms: i64,
        key: &ShareKey,
        known: Option<&ShareState>,
        (state_epoch, start_offset): (i32, i64),
    ) -> Result<Decision, Refusal> {
        if known.is_none() && self.states.len() >= SHARE_PARTITIONS_MAX {
            return refuse(ErrorCode::PolicyViolation, "There are too many share-partitions.");
        }
        let state = ShareState {
            snapshot_epoch: known.map_or(0, |known| known.snapshot_epoch.saturating_add(1)),
            state_epoch: if state_epoch == NO_EPOCH {
                known.map_or(0, |known| known.state_epoch)
            } else {
                state_epoch
            },
            leader_epoch: 0,
            start_offset: start_offset.max(NO_START_OFFSET),
            delivery_complete_count: if start_offset < 0 { -1 } else { 0 },
            batches: Vec::new(),
            created_ms: now_ms,
            written_ms: now_ms,
            updates: 0,
            snapshot_offset: 0,
        };
        Ok(Decision { record: Some(encoded(records::snapshot(key, &state))?), read: None })
    }

    fn read(
        &self,
        now_ms: i64,
        key: &ShareKey,
        known: &ShareState,
        leader_epoch: i32,
    ) -> Result<Decision, Refusal> {
        let read = ReadState {
            state_epoch: known.state_epoch,
            leader_epoch: known.leader_epoch.max(leader_epoch),
            start_offset: known.start_offset,
            delivery_complete_count: known.delivery_complete_count,
            batches: known.batches.clone(),
        };
        // From now on an older leader's writes are refused, also after a change of this coordinator.
        let record = (leader_epoch > known.leader_epoch).then(|| {
            let takes_over = Command::Write {
                state_epoch: known.state_epoch,
                leader_epoch,
                start_offset: known.start_offset,
                delivery_complete_count: known.delivery_complete_count,
                batches: Vec::new(),
            };
            self.written(now_ms, key, known, &takes_over)
        });
        Ok(Decision { record: record.transpose()?, read: Some(read) })
    }

    fn write(
        &self,
        now_ms: i64,
        key: &ShareKey,
        known: &ShareState,
        command: &Command,
    ) -> Result<Decision, Refusal> {
        let Command::Write { batches, .. } = command else {
            return Ok(Decision { record: None, read: None });
        };
        if batches.len() > STATE_BATCHES_MAX || known.batches.len() > STATE_BATCHES_MAX {
            return refuse(ErrorCode::InvalidRequest, "There are too many batches of states.");
        }
        if batches.iter().any(|batch| !batch.is_valid()) {
            return refuse(ErrorCode::InvalidRequest, "A batch of states is not valid.");
        }
        Ok(Decision { record: Some(self.written(now_ms, key, known, command)?), read: None })
    }

    /// An update or, when there were enough of them, a snapshot.
    fn written(
        &self,
        now_ms: i64,
        key: &ShareKey,
        known: &ShareState,
        command: &Command,
    ) -> Result<CoordinatorRecord, Refusal> {
        let Command::Write { state_epoch, leader_epoch, start_offset, delivery_complete_count, batches } =
            command
        else {
            return refuse(ErrorCode::UnknownServerError, "This is no write.");
        };
        let next = |given: i32, known: i32| if given == NO_EPOCH { known } else { given };
        let start = if *start_offset < 0 { known.start_offset } else { *start_offset };
        let mut state = ShareState {
            snapshot_epoch: known.snapshot_epoch,
            state_epoch: next(*state_epoch, known.state_epoch),
            leader_epoch: next(*leader_epoch, known.leader_epoch),
            start_offset: start,
            delivery_complete_count: *delivery_complete_count,
            batches: Vec::new(),
            created_ms: known.created_ms,
            written_ms: now_ms,
            updates: 0,
            snapshot_offset: 0,
        };
        // An update does not tell the state epoch.
        if known.updates >= self.config.updates_per_snapshot || state.state_epoch != known.state_epoch {
            state.snapshot_epoch = known.snapshot_epoch.saturating_add(1);
            state.created_ms = now_ms;
            state.batches = merge(&known.batches, batches, start);
            return encoded(records::snapshot(key, &state));
        }
        state.batches = merge(&[], batches, start);
        encoded(records::update(key, &state))
    }

    /// What is known of a share-partition; one that nobody has initialised has no start offset.
    pub fn summary(&self, key: &ShareKey) -> ReadState {
        match self.states.get(key) {
            Some(known) => ReadState {
                state_epoch: known.state_epoch,
                leader_epoch: known.leader_epoch,
                start_offset: known.start_offset,
                delivery_complete_count: known.delivery_complete_count,
                batches: Vec::new(),
            },
            None => ReadState {
                start_offset: NO_START_OFFSET,
                delivery_complete_count: -1,
                ..ReadState::default()
            },
        }
    }

    /// A record of the log; the only mutator.
    pub fn apply(&mut self, offset: i64, key: &Bytes, value: Option<&Bytes>) -> Result<Applied, RecordError> {
        match records::decode(key, value)? {
            Record::Other => return Ok(Applied::Skipped),
            Record::Snapshot(key, Some(mut state)) => {
                state.snapshot_offset = offset;
                if let Some(former) = self.states.insert(key.clone(), state) {
                    self.snapshots.remove(&(former.snapshot_offset, key.clone()));
                }
                self.snapshots.insert((offset, key));
            }
            Record::Snapshot(key, None) => {
                if let Some(former) = self.states.remove(&key) {
                    self.snapshots.remove(&(former.snapshot_offset, key));
                }
            }
            Record::Update(key, Some(update)) => {
                // Without its snapshot it is of something that was deleted.
                let Some(known) = self.states.get_mut(&key) else { return Ok(Applied::Skipped) };
                if update.start_offset >= 0 {
                    known.start_offset = update.start_offset;
                }
                if update.leader_epoch != NO_EPOCH {
                    known.leader_epoch = update.leader_epoch;
                }
                known.delivery_complete_count = update.delivery_complete_count;
                known.batches = merge(&known.batches, &update.batches, known.start_offset);
                known.written_ms = known.written_ms.max(update.written_ms);
                known.updates += 1;
            }
            Record::Update(_, None) => {}
        }
        Ok(Applied::Changed)
    }

    /// Nothing before this offset of the log is of use; `end`: where the log ends.
    pub fn redundant_before(&self, end: i64) -> i64 {
        self.snapshots.first().map_or(end, |(offset, _)| *offset)
    }

    /// Records to append now and then, at most so many: tombstones of share-partitions that are gone with their topics, and
    /// new snapshots of those that hold up the log's head.
    pub fn maintain(
        &self,
        now_ms: i64,
        at_most: usize,
        is_partition: impl Fn(&ShareKey) -> bool,
    ) -> Vec<CoordinatorRecord> {
        let gone = self.states.keys().filter(|key| !is_partition(key)).map(records::tombstone);
        let is_cold = |key: &ShareKey, state: &ShareState| {
            let age_ms = now_ms.saturating_sub(state.created_ms);
            age_ms >= self.config.cold_interval_ms && is_partition(key)
        };
        let cold = self.snapshots.iter().filter_map(|(_, key)| {
            let state = self.states.get(key).filter(|state| is_cold(key, state))?;
            let fresh = ShareState {
                snapshot_epoch: state.snapshot_epoch.saturating_add(1),
                created_ms: now_ms,
                ..state.clone()
            };
            Some(records::snapshot(key, &fresh))
        });
        // Of one that was not encodable nothing would be in the log.
        gone.chain(cold).filter_map(Result::ok).take(at_most).collect()
    }
}

fn encoded(
    record: Result<CoordinatorRecord, ottla_wire::encode::EncodeError>,
) -> Result<CoordinatorRecord, Refusal> {
    record.or(Err(Refusal { error: ErrorCode::InvalidRequest, message: "The state does not fit a record." }))
}
