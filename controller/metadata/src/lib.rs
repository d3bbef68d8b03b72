//! Cluster metadata, pure: the records of the log become an image; commands are decided against the image.
//!
//! | module | holds |
//! |---|---|
//! | [`image`] | the immutable value that everyone reads |
//! | [`apply`] | records to image: the only mutator, the same live, on replay and on a standby |
//! | [`snapshot`] | an image as records, and back |
//! | [`decide`] | commands to records and replies; changes nothing |
//! | [`placement`], [`election`] | where replicas go, who leads |
//! | [`acl`], [`credentials`], [`quotas`] | who may do what, who is who, how fast |
//! | [`features`] | what this software can, and at which level |
//! | [`leases`] | which brokers live: soft state of the controller that leads |
//! | [`config`] | every property: type, default, range, who overrides whom |
//! | [`properties`] | the text of a Java property file |
//!
//! No clock, file, socket, thread or random source: times and seeds come in as arguments.

pub mod acl;
pub mod apply;
mod apply_access;
pub mod config;
mod configs;
pub mod credentials;
pub mod decide;
pub mod election;
pub mod features;
pub mod image;
pub mod leases;
pub mod placement;
pub mod properties;
pub mod quotas;
pub mod snapshot;
pub mod topic_name;

pub use apply_access::COMPLETED_COMMANDS_MAX;

#[cfg(test)]
mod model_tests;
