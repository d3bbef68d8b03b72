//! Streams groups of KIP-1071: the members of a Kafka Streams application tell what they run, the coordinator works out
//! the tasks and the internal topics of it, and each member goes its own way to the tasks that it shall have. Pure: from
//! a group, a request and a snapshot of the topics follow records and an answer.
//!
//! * `state`: a group as its records have it, the only place that changes one; `topology`: what its members run.
//! * `configure`: the topology beside the topics there are; `assignor`: the target; `reconcile`: a member's next step.
//! * `heartbeat`, `update`: decisions; `records`: Kafka's formats; `config`: settings; `endpoints`: interactive queries.
//!
//! The machine of a coordinator's partition ([`crate::group`]) holds these groups with those of other kinds under one
//! name space, appends the records, and sends answers once they are committed.
//!
//! Not served, as in Kafka 4.3: static members, patterns of source topics, warm-up tasks, changes of a topology.

mod assignor;
mod command;
mod config;
pub(crate) mod configure;
pub(crate) mod endpoints;
pub(crate) mod heartbeat;
mod reconcile;
pub(crate) mod records;
mod state;
mod topology;
pub(crate) mod update;

pub use command::{
    EndpointPartitions, MissingTopic, Status, StatusCode, StreamsHeartbeat, StreamsHeartbeatReply,
};
pub use config::{StreamsGroupConfig, StreamsOverrides};
pub use state::{
    AssignedTasks, CurrentTasks, Endpoint, GroupEpoch, StreamsGroup, StreamsGroupState, StreamsMember,
    StreamsMemberMetadata, StreamsRecord, TaskSet, Tasks, TasksWithEpochs,
};
pub use topology::{CopartitionGroup, InternalTopic, Subtopology, Topology};

/// Tasks of one group, all subtopologies together. A topology with more is refused with STREAMS_INVALID_TOPOLOGY.
pub const TASKS_PER_GROUP_MAX: i64 = 100_000;
/// Subtopologies of one topology. One more is refused with STREAMS_INVALID_TOPOLOGY.
pub const SUBTOPOLOGIES_MAX: usize = 1_000;
/// Names of topics in one topology, as often as they stand in it. One more is refused likewise.
pub const TOPOLOGY_NAMES_MAX: usize = 10_000;
/// Bytes of all texts of one topology. One more is refused likewise.
pub const TOPOLOGY_TEXTS_BYTES_MAX: usize = 1 << 20;
