//! What goes into a share group and what comes out.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use uuid::Uuid;

use crate::consumer_group::{Partitions, Refusal};

/// The settings of the node; Kafka's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareGroupConfig {
    /// `group.share.session.timeout.ms`
    pub session_timeout_ms: i32,
    /// `group.share.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `group.share.max.size`
    pub group_size_max: usize,
    /// `group.share.assignment.interval.ms`: the least time between two target assignments of a group.
    pub assignment_interval_ms: i64,
    /// `group.share.initialize.retry.interval.ms`: share-partitions that are not initialised by then are tried again.
    pub initialize_retry_interval_ms: u64,
}

impl Default for ShareGroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            group_size_max: 200,
            assignment_interval_ms: 1_000,
            initialize_retry_interval_ms: 30_000,
        }
    }
}

/// What one group has set of its own; None: as the node has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShareOverrides {
    /// `share.session.timeout.ms`
    pub session_timeout_ms: Option<i32>,
    /// `share.heartbeat.interval.ms`
    pub heartbeat_interval_ms: Option<i32>,
    /// `share.assignment.interval.ms`
    pub assignment_interval_ms: Option<i64>,
}

/// A ShareGroupHeartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareHeartbeat {
    /// The group.
    pub group_id: Text,
    /// Made by the client.
    pub member_id: Text,
    /// 0 joins, -1 leaves, others are what the member was told.
    pub member_epoch: i32,
    /// None: as before.
    pub rack_id: Option<Text>,
    /// None: as before.
    pub topics: Option<Vec<Text>>,
    /// Of the request's header, or empty.
    pub client_id: Text,
    /// As Kafka prints it.
    pub client_host: Text,
}

/// The answer to a ShareGroupHeartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareHeartbeatReply {
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
    /// What the member may read from now on. None: as before.
    pub assignment: Option<Partitions>,
    /// Not for the client: share-partitions to initialise, with this state epoch.
    pub initialize: Option<(i32, Partitions)>,
}

impl ShareHeartbeatReply {
    /// A refusal.
    pub fn refused(refusal: Refusal) -> Self {
        Self {
            error: refusal.error,
            message: Some(Text::from(refusal.message)),
            member_id: None,
            member_epoch: 0,
            heartbeat_interval_ms: 0,
            assignment: None,
            initialize: None,
        }
    }

    /// A refusal that the code says all about.
    pub fn failed(error: ErrorCode) -> Self {
        Self::refused(Refusal::new(error, error.message()))
    }
}

/// What happened to share-partitions of a group outside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareStateChange {
    /// The share coordinator has these; members may read them. `create`: a group that is not there is made.
    Initialized {
        /// Which.
        partitions: Partitions,
        /// An administrator sets offsets of a group that nobody has joined yet.
        create: bool,
    },
    /// The share coordinator is to forget these topics; told before it does, so that a failure is found and ended later.
    Forget(Vec<Uuid>),
    /// The share coordinator has forgotten these topics.
    Forgotten(Vec<Uuid>),
    /// The next state epoch is asked for, which outdates what leaders of partitions have read.
    NextEpoch,
}

/// A change of a group's share-partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareStateCommand {
    /// The group.
    pub group_id: Text,
    /// Refuse with NON_EMPTY_GROUP while there are members.
    pub must_be_empty: bool,
    /// What happened.
    pub change: ShareStateChange,
}
