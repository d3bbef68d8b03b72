//! The HMAC of a delegation token (KIP-48): made of its id and `delegation.token.secret.key`, so that nobody has to keep it.
//!
//! It is the password of whoever signs in with the token, in base64, and how clients name the token when they renew it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ring::hmac;
use subtle::ConstantTimeEq;

use super::credentials::TokenCredential;
use super::principal::Principal;

/// The secret that all brokers of a cluster share.
#[derive(Clone)]
pub struct TokenSecret(hmac::Key);

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret")
    }
}

impl TokenSecret {
    /// `delegation.token.secret.key`; `None` when it is not set: tokens are not offered.
    pub fn new(secret: &str) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA512, secret.as_bytes())))
    }

    /// The HMAC of a token.
    pub fn hmac(&self, token_id: &str) -> Bytes {
        Bytes::copy_from_slice(hmac::sign(&self.0, token_id.as_bytes()).as_ref())
    }

    /// Which of some tokens has an HMAC; `None`: none of them.
    pub fn find<'a>(&self, hmac: &[u8], token_ids: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        token_ids.into_iter().find(|id| bool::from(self.hmac(id).ct_eq(hmac)))
    }

    /// What an authentication with a token is checked against.
    pub fn credential(&self, token_id: &str, owner: Principal, expires_at_ms: i64) -> TokenCredential {
        TokenCredential::new(owner, expires_at_ms, BASE64.encode(self.hmac(token_id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hmac_follows_from_the_id_and_the_secret() {
        let secret = TokenSecret::new("cluster-secret").unwrap();
        let hmac = secret.hmac("AbCdEf-token");
        assert_eq!(
            BASE64.encode(&hmac),
            "IQMNy7/+RUFxZ5TGzmtrtQVvQwQ7YG5fbmU5L/7uZApFQ+6xUsubznSKoU8AIJFridLLnM6AYegphZ9q1ZXSwA=="
        );
        assert_eq!(secret.find(&hmac, ["other", "AbCdEf-token"]), Some("AbCdEf-token"));
        assert_eq!(secret.find(b"", ["other"]), None);
        assert!(TokenSecret::new("").is_none());
        assert!(!format!("{secret:?}").contains("cluster"));
    }
}
