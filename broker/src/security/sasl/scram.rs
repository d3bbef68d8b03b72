//! The server's and the client's side of SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677, KIP-84).
//!
//! The server keeps no password: a salt, a count of iterations, and two keys that were derived from it. A delegation token
//! is a password too: its id is the user, its HMAC the password (KIP-48), and the client says so by `tokenauth=true`.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;

use super::{AuthenticationError, Mechanism};
use crate::security::credentials::ScramCredential;

/// Kafka's least count of iterations.
pub const ITERATIONS_MIN: u32 = 4096;
/// Kafka's greatest.
pub const ITERATIONS_MAX: u32 = 16_384;
/// Extension of the first message that says: the password is a token's HMAC.
const TOKEN_AUTH: &str = "tokenauth";
/// No attribute of a message is longer, in bytes.
const NONCE_BYTES_MAX: usize = 1024;

/// Which hash a SCRAM exchange is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramMechanism {
    /// Kafka's number of it.
    pub fn code(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    /// The mechanism of one of Kafka's numbers.
    pub fn from_code(code: i8) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|mechanism| mechanism.code() == code)
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn sign(self, key: &[u8], text: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text)
    }

    fn hash(self, bytes: &[u8]) -> digest::Digest {
        digest::digest(self.hmac().digest_algorithm(), bytes)
    }

    /// PBKDF2: some milliseconds of work.
    pub fn salted_password(self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let mut out = vec![0; self.hmac().digest_algorithm().output_len()];
        pbkdf2::derive(self.pbkdf2(), iterations, salt, password, &mut out);
        out
    }

    /// What a server keeps of a password.
    pub fn credential(self, password: &[u8], salt: Bytes, iterations: NonZeroU32) -> ScramCredential {
        self.credential_of_salted(&self.salted_password(password, &salt, iterations), salt, iterations.get())
    }

    /// What a server keeps of a password that the client has salted, as AlterUserScramCredentials brings it.
    pub fn credential_of_salted(self, salted: &[u8], salt: Bytes, iterations: u32) -> ScramCredential {
        let client_key = self.sign(salted, b"Client Key");
        let stored_key = self.hash(client_key.as_ref());
        let server_key = self.sign(salted, b"Server Key");
        ScramCredential {
            salt,
            iterations,
            stored_key: Bytes::copy_from_slice(stored_key.as_ref()),
            server_key: Bytes::copy_from_slice(server_key.as_ref()),
        }
    }
}

impl From<ScramMechanism> for Mechanism {
    fn from(mechanism: ScramMechanism) -> Self {
        match mechanism {
            ScramMechanism::Sha256 => Self::ScramSha256,
            ScramMechanism::Sha512 => Self::ScramSha512,
        }
    }
}

/// The client's first message, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// Who it says it is; of a token, its id.
    pub user: String,
    /// Whether the password is a token's.
    pub token_auth: bool,
    nonce: String,
    /// `n,,`: repeated in the last message.
    header: String,
    /// Everything behind the header.
    bare: String,
}

impl ClientFirst {
    /// Reads `n,[a=authzid],n=user,r=nonce[,extensions]`.
    pub fn parse(message: &[u8]) -> Result<Self, AuthenticationError> {
        let wrong = || AuthenticationError::new("Invalid SCRAM client first message format");
        let text = std::str::from_utf8(message).map_err(|_| wrong())?;
        let mut parts = text.splitn(3, ',');
        let (binding, authorization, bare) = (
            parts.next().ok_or_else(wrong)?,
            parts.next().ok_or_else(wrong)?,
            parts.next().ok_or_else(wrong)?,
        );
        // Channel bindings are not offered: `p=…` has no place here.
        if !matches!(binding, "n" | "y") {
            return Err(wrong());
        }
        let mut attributes = bare.split(',');
        let user = attributes.next().and_then(|item| item.strip_prefix("n=")).ok_or_else(wrong)?;
        let nonce = attributes.next().and_then(|item| item.strip_prefix("r=")).ok_or_else(wrong)?;
        if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX {
            return Err(wrong());
        }
        let token_auth =
            attributes.filter_map(|item| item.split_once('=')).any(|item| item == (TOKEN_AUTH, "true"));
        let user = unescape(user).filter(|user| !user.is_empty()).ok_or_else(wrong)?;
        let authorization = match authorization.strip_prefix("a=") {
            Some(id) => unescape(id).ok_or_else(wrong)?,
            None if authorization.is_empty() => String::new(),
            None => return Err(wrong()),
        };
        if !authorization.is_empty() && authorization != user {
            return Err(AuthenticationError::new(
                "Authentication failed: Client requested an authorization id that is different from username",
            ));
        }
        let header = text[..text.len() - bare.len()].to_owned();
        Ok(Self { user, token_auth, nonce: nonce.to_owned(), header, bare: bare.to_owned() })
    }
}

/// `=2C` is a comma, `=3D` an equals sign; any other equals sign is wrong.
fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('=') {
        out.push_str(before);
        out.push(match after.get(..2)? {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        rest = &after[2..];
    }
    out.push_str(rest);
    Some(out)
}

fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The server's side behind the first message: it waits for the proof.
pub struct ServerExchange {
    mechanism: ScramMechanism,
    credential: ScramCredential,
    first: ClientFirst,
    nonce: String,
    server_first: String,
}

impl ServerExchange {
    /// Takes the first message and the credential of its user; `server_nonce` must be printable, without a comma.
    pub fn start(
        mechanism: ScramMechanism,
        first: ClientFirst,
        credential: ScramCredential,
        server_nonce: &str,
    ) -> Self {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = BASE64.encode(&credential.salt);
        let server_first = format!("r={nonce},s={salt},i={}", credential.iterations);
        Self { mechanism, credential, first, nonce, server_first }
    }

    /// The challenge to the client.
    pub fn challenge(&self) -> Bytes {
        self.server_first.clone().into()
    }

    /// Who the client says it is.
    pub fn user(&self) -> &str {
        &self.first.user
    }

    /// Checks the client's proof; gives the message that proves the server's knowledge.
    pub fn finish(&self, message: &[u8]) -> Result<Bytes, AuthenticationError> {
        let wrong = || AuthenticationError::new("Invalid SCRAM client final message format");
        let refused = || AuthenticationError::credentials(self.mechanism.into());
        let text = std::str::from_utf8(message).map_err(|_| wrong())?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or_else(wrong)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|item| item.strip_prefix("c=")).ok_or_else(wrong)?;
        let nonce = attributes.next().and_then(|item| item.strip_prefix("r=")).ok_or_else(wrong)?;
        if BASE64.decode(binding).ok().as_deref() != Some(self.first.header.as_bytes()) {
            return Err(wrong());
        }
        // librdkafka before 2.6.1 says its own part once more in front. What the server made up stands there either way, so that
        // nothing can be replayed; Kafka 3.9 takes it too.
        let is_said_twice = nonce.strip_prefix(self.first.nonce.as_str()) == Some(self.nonce.as_str());
        if nonce != self.nonce && !is_said_twice {
            return Err(AuthenticationError::new("Invalid client nonce in the final client message."));
        }
        let proof = BASE64.decode(proof).map_err(|_| wrong())?;
        let auth_message = format!("{},{},{without_proof}", self.first.bare, self.server_first);
        let signature = self.mechanism.sign(&self.credential.stored_key, auth_message.as_bytes());
        if proof.len() != signature.as_ref().len() {
            return Err(refused());
        }
        let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let stored_key = self.mechanism.hash(&client_key);
        if !bool::from(stored_key.as_ref().ct_eq(&self.credential.stored_key)) {
            return Err(refused());
        }
        let server = self.mechanism.sign(&self.credential.server_key, auth_message.as_bytes());
        Ok(format!("v={}", BASE64.encode(server.as_ref())).into())
    }
}

/// The client's side: how a broker authenticates to another.
pub struct ClientExchange {
    mechanism: ScramMechanism,
    bare: String,
    nonce: String,
    server_signature: Option<Vec<u8>>,
}

impl ClientExchange {
    /// Begins; `nonce` must be printable, without a comma.
    pub fn start(mechanism: ScramMechanism, user: &str, nonce: &str, token_auth: bool) -> Self {
        let extension = if token_auth { ",tokenauth=true" } else { "" };
        let bare = format!("n={},r={nonce}{extension}", escape(user));
        Self { mechanism, bare, nonce: nonce.to_owned(), server_signature: None }
    }

    /// The first message.
    pub fn first(&self) -> Bytes {
        format!("n,,{}", self.bare).into()
    }

    /// Answers the server's challenge. Some milliseconds of work.
    pub fn prove(&mut self, challenge: &[u8], password: &str) -> Result<Bytes, AuthenticationError> {
        let wrong = || AuthenticationError::new("the peer's SCRAM challenge cannot be read");
        let server_first = std::str::from_utf8(challenge).map_err(|_| wrong())?;
        let mut attributes = server_first.split(',');
        let nonce = attributes.next().and_then(|item| item.strip_prefix("r=")).ok_or_else(wrong)?;
        let salt = attributes.next().and_then(|item| item.strip_prefix("s=")).ok_or_else(wrong)?;
        let iterations = attributes.next().and_then(|item| item.strip_prefix("i=")).ok_or_else(wrong)?;
        let salt = BASE64.decode(salt).map_err(|_| wrong())?;
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| wrong())?;
        // Fewer would let whoever poses as the server find the password; more would keep this node busy.
        if !nonce.starts_with(&self.nonce) || !(ITERATIONS_MIN..=1 << 20).contains(&iterations.get()) {
            return Err(wrong());
        }
        let salted = self.mechanism.salted_password(password.as_bytes(), &salt, iterations);
        let without_proof = format!("c={},r={nonce}", BASE64.encode("n,,"));
        let auth_message = format!("{},{server_first},{without_proof}", self.bare);
        let client_key = self.mechanism.sign(&salted, b"Client Key");
        let stored_key = self.mechanism.hash(client_key.as_ref());
        let signature = self.mechanism.sign(stored_key.as_ref(), auth_message.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = self.mechanism.sign(&salted, b"Server Key");
        let server = self.mechanism.sign(server_key.as_ref(), auth_message.as_bytes());
        self.server_signature = Some(server.as_ref().to_vec());
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)).into())
    }

    /// Checks that the server knows the password too.
    pub fn verify(&self, message: &[u8]) -> Result<(), AuthenticationError> {
        let signature = message.strip_prefix(b"v=").and_then(|text| BASE64.decode(text).ok());
        match (signature, &self.server_signature) {
            (Some(got), Some(expected)) if bool::from(got.as_slice().ct_eq(expected)) => Ok(()),
            _ => Err(AuthenticationError::new("the peer does not know the password itself")),
        }
    }
}

#[cfg(test)]
#[path = "scram_tests.rs"]
mod tests;
