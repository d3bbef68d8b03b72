//! Records that coordinators and clients persist, generated from `schema/records`, with the version or type in front.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::decode::{DecodeError, Decoded, Decoder};
use crate::encode::{Encoded, Encoder};
use crate::messages::Message;

/// A key or value that is kept in a log.
pub trait Persisted: Message {
    /// The coordinator record's type; -1 where records of this kind have none.
    const TYPE: i16;
    /// Versions that can be read and written.
    const VERSIONS: RangeInclusive<i16>;
}

/// A coordinator record's key: its type in two bytes, then the fields.
pub fn encode_key<K: Persisted>(key: &K) -> Encoded<Bytes> {
    encode_prefixed(key, K::TYPE, 0)
}

/// A value: its version in two bytes, then the fields.
pub fn encode_value<V: Persisted>(value: &V, version: i16) -> Encoded<Bytes> {
    encode_prefixed(value, version, version)
}

fn encode_prefixed(body: &impl Message, prefix: i16, version: i16) -> Encoded<Bytes> {
    let mut encoder = Encoder::new();
    encoder.i16(prefix);
    body.encode(&mut encoder, version)?;
    Ok(encoder.finish().into_bytes())
}

/// The two bytes in front of a key or value: a type or a version.
pub fn prefix(bytes: &Bytes) -> Decoded<i16> {
    Decoder::new(bytes.clone()).i16()
}

/// Reads a key, which must be of this type; [`prefix`] tells which type it is.
pub fn decode_key<K: Persisted>(bytes: &Bytes) -> Decoded<K> {
    let mut decoder = Decoder::new(bytes.clone());
    let kind = decoder.i16()?;
    if kind != K::TYPE {
        return Err(DecodeError::UnexpectedType(kind));
    }
    decode_to_end(&mut decoder, 0)
}

/// Reads a value behind its version; a version that is not known is refused.
pub fn decode_value<V: Persisted>(bytes: &Bytes) -> Decoded<V> {
    let mut decoder = Decoder::new(bytes.clone());
    let version = decoder.i16()?;
    decode_to_end(&mut decoder, version)
}

/// Reads a subscription or assignment of the consumer protocol: a newer version is read as the newest that is known, and
/// what follows its fields is ignored, since the protocol only ever appends fields.
pub fn decode_consumer_protocol<V: Persisted>(bytes: &Bytes) -> Decoded<V> {
    let mut decoder = Decoder::new(bytes.clone());
    let version = decoder.i16()?;
    V::decode(&mut decoder, version.min(*V::VERSIONS.end()))
}

fn decode_to_end<M: Message>(decoder: &mut Decoder, version: i16) -> Decoded<M> {
    let message = M::decode(decoder, version)?;
    decoder.finish()?;
    Ok(message)
}

/// What generated code uses.
mod generated {
    pub(crate) use bytes::Bytes;
    pub(crate) use uuid::Uuid;

    pub(crate) use crate::decode::{DecodeError, Decoded, Decoder};
    pub(crate) use crate::encode::{Encoded, Encoder};
    pub(crate) use crate::messages::Message;
    pub(crate) use crate::text::Text;
}

include!(concat!(env!("OUT_DIR"), "/persisted.rs"));
