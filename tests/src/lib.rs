//! Starts real `ottla server` processes on this machine and drives them: the harness of the tests in `tests/tests`.
//!
//! A [`Cluster`] owns a temporary directory and its nodes; dropping it kills what still runs. Every wait has a limit and
//! says what it waited for. Faults are those of processes ([`Node`]), of the network ([`Network`]), of disks and clocks ([`Shim`]);
//! [`Verify`] judges whether anything was lost through them.

mod cluster;
mod command;
mod connection;
mod dice;
mod network;
mod node;
mod shim;
mod verify;

pub use cluster::{Cluster, eventually, from_environment};
pub use command::{Output, binary, ottla};
pub use connection::{Connection, Produced, call_once};
pub use dice::Dice;
pub use network::{Network, Traffic};
pub use node::Node;
pub use shim::{DISK_FAULT, Knob, NO_SPACE, Shim};
pub use verify::Verify;
