//! How Kafka's JSON converters show bytes and ids.

use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

/// Base64 with padding.
pub(crate) fn bytes(bytes: &Bytes) -> Value {
    Value::from(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes))
}

/// Base64 for URLs without padding.
pub(crate) fn uuid(id: Uuid) -> Value {
    Value::from(base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, id.as_bytes()))
}
