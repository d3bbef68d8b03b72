//! Whole clusters in one thread, made of the machines that the servers run.
//!
//! | module | holds |
//! |---|---|
//! | [`log`], [`replica`], [`metadata`] | the shells' part without files and sockets: a log, a replica, the controller |
//! | [`fault`] | rules that can be switched off: the checkers must notice |
//! | [`exhaustive`] | every order of events of three replicas and one partition, to a bound |
//! | [`cluster`] | brokers, controllers, clients, network and disks, with faults by a seed |
//!
//! Nothing here has a clock, a thread or a source of randomness of its own.

pub mod cluster;
pub mod exhaustive;
pub mod fault;
pub mod log;
pub mod metadata;
pub mod replica;
