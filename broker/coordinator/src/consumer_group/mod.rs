//! Consumer groups of KIP-848: the coordinator itself assigns partitions, and each member goes its own way to what it
//! shall have. Pure: from a group, a request and a snapshot of the topics follow records and an answer.
//!
//! * `state`: a group as its records have it, the only place that changes one.
//! * `heartbeat`, `leave`, `update`: decisions; `reconcile`: a member's next step; `assignor`: the target.
//! * `records`: Kafka's formats; `regex`: patterns; `view`: topics; `config`: settings; `describe`, `convert`.
//!
//! The machine of a coordinator's partition ([`crate::group`]) holds these groups and classic ones under one name
//! space, appends the records, and sends answers once they are committed.

mod assignor;
mod command;
mod config;
pub(crate) mod heartbeat;
pub(crate) mod leave;
pub(crate) mod reconcile;
pub(crate) mod records;
mod regex;
mod state;
pub(crate) mod update;
mod view;

pub use assignor::ASSIGNORS;
pub use command::{ConsumerHeartbeat, ConsumerHeartbeatReply, Refusal};
pub use config::{ConsumerGroupConfig, GroupOverrides, MigrationPolicy};
pub use state::{
    Assigned, ClassicMetadata, ConsumerGroup, ConsumerGroupState, ConsumerMember, ConsumerRecord,
    CurrentAssignment, JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, MemberMetadata, MemberState, Partitions,
    ResolvedRegex,
};
pub(crate) use view::metadata_hash;
pub use view::{TopicView, TopicsView};
