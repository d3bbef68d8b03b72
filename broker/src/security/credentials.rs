//! What SASL checks clients against, beside the property file: SCRAM credentials and delegation tokens out of the metadata.
//!
//! A snapshot that is swapped whole; a change of the metadata publishes a new one, which the next handshake sees.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};

use super::principal::Principal;
use super::sasl::scram::{ITERATIONS_MIN, ScramMechanism};

/// Bytes of the salt of a token's credential.
const SALT_BYTES: usize = 24;

/// What a server keeps of a SCRAM password.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    /// Told to the client.
    pub salt: Bytes,
    /// Told to the client.
    pub iterations: u32,
    /// Hash of the client's key: checks a proof.
    pub stored_key: Bytes,
    /// Proves the server's knowledge.
    pub server_key: Bytes,
}

impl fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramCredential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// A delegation token, as authentication needs it.
pub struct TokenCredential {
    /// Whose rights it carries.
    pub owner: Principal,
    /// Milliseconds since 1970 after which it is no longer taken.
    pub expires_at_ms: i64,
    /// The token's HMAC in base64: the password.
    password: String,
    derived: [OnceLock<ScramCredential>; 2],
}

impl TokenCredential {
    /// `password` is the token's HMAC in base64.
    pub fn new(owner: Principal, expires_at_ms: i64, password: impl Into<String>) -> Self {
        Self { owner, expires_at_ms, password: password.into(), derived: Default::default() }
    }

    /// The credential of a mechanism; made at the first use, some milliseconds of work.
    fn credential(&self, mechanism: ScramMechanism) -> ScramCredential {
        let at = match mechanism {
            ScramMechanism::Sha256 => 0,
            ScramMechanism::Sha512 => 1,
        };
        let make = || {
            let mut salt = [0; SALT_BYTES];
            // A salt that is not random is no fault here: the password is a random key.
            if SystemRandom::new().fill(&mut salt).is_err() {
                tracing::warn!("no randomness for the salt of a token");
            }
            let iterations = NonZeroU32::new(ITERATIONS_MIN).unwrap_or(NonZeroU32::MIN);
            mechanism.credential(self.password.as_bytes(), Bytes::copy_from_slice(&salt), iterations)
        };
        self.derived[at].get_or_init(make).clone()
    }
}

impl fmt::Debug for TokenCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCredential").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// All credentials at one moment.
#[derive(Debug, Default)]
pub struct CredentialSnapshot {
    /// SCRAM credentials by user and mechanism.
    pub scram: Arc<HashMap<(String, ScramMechanism), ScramCredential>>,
    /// Delegation tokens by id. A token that goes on existing should stay the same `Arc`: what it derived is kept.
    pub tokens: Arc<HashMap<String, Arc<TokenCredential>>>,
}

impl CredentialSnapshot {
    /// The credential of a user.
    pub fn user(&self, user: &str, mechanism: ScramMechanism) -> Option<ScramCredential> {
        self.scram.get(&(user.to_owned(), mechanism)).cloned()
    }

    /// The credential of a token that has not expired, whose it is, and until when it is good.
    pub fn token(
        &self,
        id: &str,
        mechanism: ScramMechanism,
        now_ms: i64,
    ) -> Option<(ScramCredential, Principal, i64)> {
        let token = self.tokens.get(id).filter(|token| token.expires_at_ms > now_ms)?;
        let owner = Principal { by_token: true, ..token.owner.clone() };
        Some((token.credential(mechanism), owner, token.expires_at_ms))
    }
}

/// The credentials as they are now. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Arc<ArcSwap<CredentialSnapshot>>);

impl Credentials {
    /// The snapshot to check one authentication against.
    pub fn current(&self) -> Arc<CredentialSnapshot> {
        self.0.load_full()
    }

    /// Publishes what the metadata now says.
    pub fn publish(&self, snapshot: CredentialSnapshot) {
        self.0.store(Arc::new(snapshot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_token_is_no_credential() {
        let token = Arc::new(TokenCredential::new(Principal::user("alice"), 1_000, "aG1hYw=="));
        let tokens = Arc::new(HashMap::from([("id".to_owned(), token)]));
        let snapshot = CredentialSnapshot { tokens, ..Default::default() };
        let (_, owner, expires) = snapshot.token("id", ScramMechanism::Sha256, 999).unwrap();
        assert!(owner.by_token && &*owner.name == "alice" && expires == 1_000);
        assert!(snapshot.token("id", ScramMechanism::Sha256, 1_000).is_none());
        assert!(snapshot.token("other", ScramMechanism::Sha256, 0).is_none());
    }

    #[test]
    fn secrets_are_not_shown() {
        let token = TokenCredential::new(Principal::user("a"), 0, "hunter2");
        assert!(!format!("{token:?}").contains("hunter2"));
    }
}
