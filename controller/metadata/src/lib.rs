//! Cluster metadata, pure: the records of the log become an image; commands are decided against the image.
//!
//! | module | holds |
//! |---|---|
//! | [`image`] | the immutable value that everyone reads |
//! | [`apply`] | records to image: the only mutator, the same live, on replay and on a standby |
//! | [`snapshot`] | an image as records, and back |
//! | [`decide`] | commands to records and replies; changes nothing |
//! | [`placement`], [`election`] | where replicas go, who leads |
//! | [`leases`] | which brokers live: soft state of the controller that leads |
//! | [`config`] | every property: type, default, range, who overrides whom |
//! | [`properties`] | the text of a Java property file |
//!
//! No clock, file, socket, thread or random source: times and seeds come in as arguments.

pub mod apply;
pub mod config;
pub mod decide;
pub mod election;
pub mod image;
pub mod leases;
pub mod placement;
pub mod properties;
pub mod snapshot;
pub mod topic_name;

#[cfg(test)]
mod model_tests;
