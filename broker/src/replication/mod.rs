//! Replication between brokers: this broker's followers fetch from their leaders, this broker's leaders tell the controller
//! who is in sync.
//!
//! | module | holds |
//! |---|---|
//! | [`peer`] | a Kafka-protocol client connection to another broker |
//! | [`fetcher`] | one task per leader broker: one connection, one fetch session, all partitions led there |
//! | `session` | the follower's side of the fetch session: what to ask next, what to drop |
//! | [`directory_updates`] | what the controller is told of log directories |
//! | [`isr_updates`] | proposals of all led partitions, sent to the controller in batches |

pub mod directory_updates;
pub mod fetcher;
pub mod isr_updates;
pub mod peer;
mod session;
#[cfg(test)]
mod tests;
