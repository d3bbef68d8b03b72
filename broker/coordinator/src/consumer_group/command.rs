//! What goes into a consumer group and what comes out.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::state::Partitions;

/// A ConsumerGroupHeartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group_id: Text,
    /// Made by the client since version 1; before, empty in the first request.
    pub member_id: Text,
    /// 0 joins, -1 leaves, -2 leaves for a while, others are what the member was told.
    pub member_epoch: i32,
    /// Given by static members.
    pub instance_id: Option<Text>,
    /// None: as before.
    pub rack_id: Option<Text>,
    /// Milliseconds. None: as before.
    pub rebalance_timeout_ms: Option<i32>,
    /// None: as before.
    pub topics: Option<Vec<Text>>,
    /// None: as before. Empty: none.
    pub regex: Option<Text>,
    /// None: as before.
    pub server_assignor: Option<Text>,
    /// What the member has. None: it does not say.
    pub owned: Option<Partitions>,
    /// Of the request's header, or empty.
    pub client_id: Text,
    /// As Kafka prints it.
    pub client_host: Text,
    /// Since version 1 the client makes the member id.
    pub member_id_required: bool,
    /// The id of a member that joins without one; fresh.
    pub new_member_id: Text,
}

/// The answer to a ConsumerGroupHeartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerHeartbeatReply {
    /// Zero, or why not.
    pub error: ErrorCode,
    /// Why not, in words.
    pub message: Option<Text>,
    /// The member's id.
    pub member_id: Option<Text>,
    /// The member's epoch from now on.
    pub member_epoch: i32,
    /// How often to send heartbeats.
    pub heartbeat_interval_ms: i32,
    /// What the member may use from now on. None: as before.
    pub assignment: Option<Partitions>,
}

impl ConsumerHeartbeatReply {
    /// A refusal.
    pub fn refused(refusal: Refusal) -> Self {
        Self {
            error: refusal.error,
            message: Some(Text::from(refusal.message)),
            member_id: None,
            member_epoch: 0,
            heartbeat_interval_ms: 0,
            assignment: None,
        }
    }

    /// A refusal that the code says all about.
    pub fn failed(error: ErrorCode) -> Self {
        Self::refused(Refusal::new(error, error.message()))
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code on the wire.
    pub error: ErrorCode,
    /// For people.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }

    pub(crate) fn unknown_member(member_id: &str) -> Self {
        Self::new(ErrorCode::UnknownMemberId, format!("Member {member_id} is not a member of the group."))
    }
}
