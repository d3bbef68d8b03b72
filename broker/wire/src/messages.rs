//! Requests and responses, generated from `schema/api`: one module a message, re-exported here by the message's name.

use crate::api::ApiKey;
use crate::decode::{Decoded, Decoder};
use crate::encode::{Encoded, Encoder};

/// What all messages can do.
pub trait Message: Sized {
    /// Reads a message of a version.
    fn decode(decoder: &mut Decoder, version: i16) -> Decoded<Self>;
    /// Writes a message in a version; fields that the version does not have are left out.
    fn encode(&self, encoder: &mut Encoder, version: i16) -> Encoded;
    /// The message as Kafka's own JSON converters show it.
    #[cfg(feature = "json")]
    fn to_json(&self, version: i16) -> serde_json::Value;
}

/// A request and what answers it.
pub trait Request: Message {
    /// The answer.
    type Response: Message;
    /// The API.
    const KEY: ApiKey;
}

/// What generated code uses.
mod generated {
    pub(crate) use bytes::Bytes;
    pub(crate) use uuid::Uuid;

    pub(crate) use super::Message;
    pub(crate) use crate::decode::{DecodeError, Decoded, Decoder};
    pub(crate) use crate::encode::{Encoded, Encoder, Records};
    pub(crate) use crate::text::Text;
}

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

/// Reads a whole message; gives its JSON and its bytes, written again.
#[cfg(feature = "json")]
pub(crate) fn round_trip_as<M: Message>(
    version: i16,
    bytes: bytes::Bytes,
) -> Decoded<(serde_json::Value, bytes::Bytes)> {
    let mut decoder = Decoder::new(bytes);
    let message = M::decode(&mut decoder, version)?;
    decoder.finish()?;
    let mut encoder = Encoder::new();
    // What was just decoded has no length that does not fit.
    let written = message.encode(&mut encoder, version).map(|()| encoder.finish().into_bytes());
    Ok((message.to_json(version), written.unwrap_or_default()))
}
