//! What goes into a streams group and what comes out.

use std::collections::BTreeMap;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::state::{Endpoint, TaskSet};
use super::topology::Topology;
use crate::consumer_group::Refusal;

/// A StreamsGroupHeartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsHeartbeat {
    /// The group.
    pub group_id: Text,
    /// Made by the client.
    pub member_id: Text,
    /// 0 joins, -1 leaves, others are what the member was told.
    pub member_epoch: i32,
    /// Of the endpoints that the member knows.
    pub endpoint_epoch: i32,
    /// Static membership is not served.
    pub instance_id: Option<Text>,
    /// None: as before.
    pub rack_id: Option<Text>,
    /// Milliseconds. None: as before.
    pub rebalance_timeout_ms: Option<i32>,
    /// Given by those who join. As it does not read, it is refused.
    pub topology: Option<Result<Topology, Refusal>>,
    /// The topology reads topics by patterns, which is not served.
    pub has_patterns: bool,
    /// What the member has. None: it does not say.
    pub owned: Option<TaskSet>,
    /// Some kinds of tasks are told and others are not.
    pub owns_in_part: bool,
    /// None: as before.
    pub process_id: Option<Text>,
    /// None: as before.
    pub user_endpoint: Option<Endpoint>,
    /// None: as before.
    pub client_tags: Option<BTreeMap<Text, Text>>,
    /// It tells how far its tasks are, which is not served.
    pub has_offsets: bool,
    /// The whole application shall stop.
    pub shutdown_application: bool,
    /// Of the request's header, or empty.
    pub client_id: Text,
    /// As Kafka prints it.
    pub client_host: Text,
}

/// The kinds of what a member is told beside its tasks, with their numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum StatusCode {
    /// Its topology is older than the group's.
    StaleTopology = 0,
    /// A topic that is read is not there.
    MissingSourceTopics = 1,
    /// Topics do not have the partitions that they need.
    IncorrectlyPartitionedTopics = 2,
    /// Internal topics are not there yet.
    MissingInternalTopics = 3,
    /// A member asks that the whole application stops.
    ShutdownApplication = 4,
    /// Tasks are given later, with those of others.
    AssignmentDelayed = 5,
}

/// What a member is told beside its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What.
    pub code: StatusCode,
    /// In words.
    pub detail: Text,
}

/// An internal topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTopic {
    /// Its name.
    pub name: Text,
    /// How many partitions.
    pub partitions: i32,
    /// -1: the cluster's default.
    pub replication_factor: i16,
    /// Properties.
    pub configs: BTreeMap<Text, Text>,
}

/// What can be asked of a member that answers interactive queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPartitions {
    /// Where.
    pub endpoint: Endpoint,
    /// By topic.
    pub active: Vec<(Text, Vec<i32>)>,
    /// By topic.
    pub standby: Vec<(Text, Vec<i32>)>,
}

/// The answer to a StreamsGroupHeartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsHeartbeatReply {
    /// Zero, or why not.
    pub error: ErrorCode,
    /// Why not, in words.
    pub message: Option<Text>,
    /// The member's id.
    pub member_id: Text,
    /// The member's epoch from now on.
    pub member_epoch: i32,
    /// How often to send heartbeats.
    pub heartbeat_interval_ms: i32,
    /// See the type.
    pub status: Vec<Status>,
    /// What the member may run from now on. None: as before.
    pub tasks: Option<TaskSet>,
    /// Of the endpoints.
    pub endpoint_epoch: i32,
    /// Given where the member knows others.
    pub endpoints: Option<Vec<EndpointPartitions>>,
    /// For the shell: what to create, if the client may.
    pub missing: Vec<MissingTopic>,
}

impl StreamsHeartbeatReply {
    /// Of a member that is told nothing but its epoch.
    pub(crate) fn of(member_id: Text, member_epoch: i32) -> Self {
        Self {
            error: ErrorCode::None,
            message: None,
            member_id,
            member_epoch,
            heartbeat_interval_ms: 0,
            status: Vec::new(),
            tasks: None,
            endpoint_epoch: 0,
            endpoints: None,
            missing: Vec::new(),
        }
    }

    /// A refusal.
    pub fn refused(refusal: Refusal) -> Self {
        let message = Some(Text::from(refusal.message));
        Self { error: refusal.error, message, ..Self::of(Text::default(), 0) }
    }

    /// A refusal that the code says all about.
    pub fn failed(error: ErrorCode) -> Self {
        Self::refused(Refusal::new(error, error.message()))
    }
}
