//! Starts real `ottla server` processes on this machine and drives them: the harness of the tests in `tests/tests`.
//!
//! A [`Cluster`] owns a temporary directory and its nodes; dropping it kills what still runs. Every wait has a limit and
//! says what it waited for.

mod cluster;
mod command;
mod node;

pub use cluster::{Cluster, eventually};
pub use command::{Output, binary, ottla};
pub use node::Node;
