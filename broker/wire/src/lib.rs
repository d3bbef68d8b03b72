//! The Kafka wire protocol: messages, headers, error codes, record batches. Pure: no clock, file, socket or thread.

pub mod api;
pub mod compression;
pub mod decode;
pub mod encode;
pub mod error_code;
pub mod header;
#[cfg(feature = "json")]
mod json;
pub mod messages;
pub mod persisted;
pub mod records;
pub mod text;
