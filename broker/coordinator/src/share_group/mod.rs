//! Share groups (KIP-932) within the machine of one partition of `__consumer_offsets`: several members of a group read one
//! partition, each other records of it.
//!
//! | module | holds |
//! |---|---|
//! | `state` | a group as its records have it |
//! | `records` | those records in Kafka's formats |
//! | `assignor` | who reads which partitions |
//! | `heartbeat` | ShareGroupHeartbeat: what is refused, and what follows |
//! | `offsets` | which share-partitions are initialised, and changes of that |
//!
//! A member is given only partitions whose state the share coordinator has been told to keep. A heartbeat that finds others
//! answers with them in [`ShareHeartbeatReply::initialize`]; the shell initialises them and says so by a command.

mod assignor;
mod command;
pub(crate) mod heartbeat;
pub(crate) mod offsets;
pub(crate) mod records;
mod state;
#[cfg(test)]
mod tests;

pub use command::{
    ShareGroupConfig, ShareHeartbeat, ShareHeartbeatReply, ShareOverrides, ShareStateChange,
    ShareStateCommand,
};
pub use state::{
    ShareCurrent, ShareGroup, ShareGroupState, ShareMember, ShareMetadata, ShareRecord, StatePartitions,
};

/// The assignor of the server, the only one (`group.share.assignors`).
pub const SHARE_ASSIGNOR: &str = "simple";
