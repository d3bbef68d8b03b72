//! The Kafka listener: accepting connections, reading frames in order, writing answers in order.
//!
//! A connection is one task that owns its socket. It reads as many requests as have arrived, dispatches each one in
//! order, and writes whatever is ready with as few system calls as it can: a burst of pipelined requests costs one
//! wake-up, one read and one write. Before the first request a listener may ask for TLS and for an authentication; what
//! these are is in [`crate::security`].

mod authentication;
mod connection;
pub(crate) mod dynamic_limits;
mod frame_reader;
mod limits;
mod listener;
mod request_clock;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

pub use limits::{ConnectionLimits, ConnectionMaxima, ConnectionRates, ConnectionRefusal};
pub use listener::{Listener, ListenerOptions};
pub use writer::FileRange;

pub(crate) use connection::{ConnectionContext, Handler};
