//! The header in front of every request.

use crate::api::ApiKey;
use crate::decode::{Decoded, Decoder};
use crate::text::Text;

/// Who asks what, in which version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// See [`ApiKey`]; may be unknown.
    pub api_key: i16,
    /// Version of the request; may be unknown.
    pub api_version: i16,
    /// Comes back in the answer.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Text>,
}

impl RequestHeader {
    /// Reads a header. Of an API or version that is not known it is the plain one (version 1), but for ApiVersions,
    /// whose unknown versions are taken as flexible.
    pub fn decode(decoder: &mut Decoder) -> Decoded<Self> {
        let api_key = decoder.i16()?;
        let api_version = decoder.i16()?;
        let correlation_id = decoder.i32()?;
        let client_id = decoder.nullable_text_lossy()?;
        if ApiKey::from_code(api_key).is_some_and(|key| key.request_header_version(api_version) > 1) {
            decoder.skip_tagged_fields()?;
        }
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }
}
