//! PLAIN (RFC 4616): `authorization id`, zero byte, user, zero byte, password. Users come from the listener's JAAS line.

use std::collections::HashMap;
use std::fmt;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::jaas::Jaas;
use super::{AuthenticationError, Identity};
use crate::security::principal::Principal;

type PasswordHash = [u8; 32];

/// The users of a listener.
#[derive(Clone, Default)]
pub struct PlainUsers {
    /// Hashes, so that a comparison takes the same time whatever the lengths.
    users: HashMap<String, PasswordHash>,
}

impl fmt::Debug for PlainUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainUsers").field("count", &self.users.len()).finish()
    }
}

fn hash(password: &[u8]) -> PasswordHash {
    let mut out = PasswordHash::default();
    out.copy_from_slice(digest(&SHA256, password).as_ref());
    out
}

impl PlainUsers {
    /// The options `user_<name>="<password>"`.
    pub fn from_jaas(jaas: &Jaas) -> Self {
        let users = jaas
            .with_prefix("user_")
            .map(|(user, password)| (user.to_owned(), hash(password.as_bytes())))
            .collect();
        Self { users }
    }

    /// Checks a client's one message.
    pub fn authenticate(&self, message: &[u8]) -> Result<Identity, AuthenticationError> {
        let text = std::str::from_utf8(message)
            .map_err(|_| AuthenticationError::new("Invalid SASL/PLAIN response: not UTF-8"))?;
        let parts: Vec<&str> = text.split('\0').collect();
        let [authorization, user, password] = parts[..] else {
            return Err(AuthenticationError::new(format!(
                "Invalid SASL/PLAIN response: expected 3 tokens, got {}",
                parts.len()
            )));
        };
        if user.is_empty() {
            return Err(AuthenticationError::new("Authentication failed: username not specified"));
        }
        if password.is_empty() {
            return Err(AuthenticationError::new("Authentication failed: password not specified"));
        }
        // A user that is not there takes as long as one that is.
        let expected = self.users.get(user).copied();
        let equal = bool::from(hash(password.as_bytes()).ct_eq(&expected.unwrap_or_default()));
        if expected.is_none() || !equal {
            return Err(AuthenticationError::new("Authentication failed: Invalid username or password"));
        }
        if !authorization.is_empty() && authorization != user {
            return Err(AuthenticationError::new(
                "Authentication failed: Client requested an authorization id that is different from username",
            ));
        }
        Ok(Identity { principal: Principal::user(user), expires_at_ms: None })
    }
}

/// A client's one message.
pub fn message(user: &str, password: &str) -> Vec<u8> {
    format!("\0{user}\0{password}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_of_a_known_user_is_taken() {
        let users = PlainUsers::from_jaas(
            &Jaas::parse("a.PlainLoginModule required user_alice=\"secret\" user_bob=\"other\";").unwrap(),
        );
        assert_eq!(
            users.authenticate(&message("alice", "secret")).unwrap().principal,
            Principal::user("alice")
        );
        assert!(users.authenticate(b"alice\0alice\0secret").is_ok());
        for wrong in [
            &b"\0alice\0other"[..],
            b"\0alice\0secret ",
            b"\0carol\0secret",
            b"\0\0secret",
            b"\0alice\0",
            b"bob\0alice\0secret",
            b"alice\0secret",
            b"\0alice\0secret\0",
            b"",
            b"\xff\0\xff\0\xff",
        ] {
            assert!(users.authenticate(wrong).is_err(), "{wrong:?}");
        }
    }
}
