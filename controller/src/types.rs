//! What openraft is told about this cluster: ids, entries, leader ids. Nothing outside this crate sees these types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A controller as Raft knows it: its node id and the random incarnation of its disk. A disk that was wiped is another
/// member: under the same id it would have forgotten votes that it gave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct RaftId {
    /// `node.id`.
    pub(crate) node_id: i32,
    /// Drawn when the metadata directory was first used.
    pub(crate) incarnation: u128,
}

/// Bytes of a Raft id on the wire: 4 of the node id, 16 of the incarnation.
const RAFT_ID_BYTES: usize = 20;

impl RaftId {
    /// The form of the wire.
    pub(crate) fn to_bytes(self) -> bytes::Bytes {
        let mut out = Vec::with_capacity(RAFT_ID_BYTES);
        out.extend_from_slice(&self.node_id.to_be_bytes());
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        out.into()
    }

    /// From the form of the wire.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (node_id, incarnation) = bytes.split_first_chunk::<4>()?;
        let incarnation = u128::from_be_bytes(incarnation.try_into().ok()?);
        Some(Self { node_id: i32::from_be_bytes(*node_id), incarnation })
    }
}

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:032x}", self.node_id, self.incarnation)
    }
}

impl fmt::Debug for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RaftId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = "not a Raft id: want node-incarnation";
        let (node_id, incarnation) = text.rsplit_once('-').ok_or(error)?;
        Ok(Self {
            node_id: node_id.parse().map_err(|_| error)?,
            incarnation: u128::from_str_radix(incarnation, 16).map_err(|_| error)?,
        })
    }
}

// As text, because ids are keys of JSON maps in a membership.
impl Serialize for RaftId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RaftId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
impl From<u64> for RaftId {
    fn from(number: u64) -> Self {
        Self { node_id: i32::try_from(number).unwrap(), incarnation: u128::from(number) }
    }
}

/// What an entry carries: an encoded `MetadataBatch`.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Batch(pub(crate) bytes::Bytes);

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// openraft asks for serde; entries are written by `codec`, which does not use it for the batch.
impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| Self(bytes.into()))
    }
}

/// What applying an entry gives back: the index is with openraft's response already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied;

/// A member's address: `host:port` of its gRPC listener.
pub(crate) type Node = openraft::impls::BasicNode;

openraft::declare_raft_types!(
    pub(crate) TypeConfig:
        D = Batch,
        R = Applied,
        NodeId = RaftId,
        Node = openraft::impls::BasicNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, RaftId>,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state_machine::StateMachine>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<RaftId, Node>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot's bytes are those of its file's body.
pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, bytes::Bytes>;
/// Position in the log as the metadata image counts it.
pub(crate) fn image_index(log_id: &LogId) -> i64 {
    i64::try_from(log_id.index).unwrap_or(i64::MAX)
}
