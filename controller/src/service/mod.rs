//! The gRPC services of a controller.

pub(crate) mod controller;
pub(crate) mod raft;
