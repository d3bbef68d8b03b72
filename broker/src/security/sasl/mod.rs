//! SASL: how a client says who it is (KIP-43, KIP-84, KIP-152, KIP-255, KIP-368).
//!
//! Everything here takes bytes and a time and gives bytes: sockets, files and clocks are elsewhere.

pub mod client;
pub mod jaas;
pub mod jwt;
pub mod oauthbearer;
pub mod plain;
pub mod scram;
pub(crate) mod server;
pub mod settings;

use std::fmt;

use super::principal::Principal;
pub use settings::SaslSettings;

/// A mechanism that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// User and password as they are (RFC 4616).
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
    /// A token of an authority (RFC 7628).
    OauthBearer,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::OauthBearer];

    /// The name on the wire and in properties.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }

    /// The mechanism of a name, in the case of the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// The login module that a JAAS line names for it, without the package.
    pub fn login_module(self) -> &'static str {
        match self {
            Self::Plain => "PlainLoginModule",
            Self::ScramSha256 | Self::ScramSha512 => "ScramLoginModule",
            Self::OauthBearer => "OAuthBearerLoginModule",
        }
    }

    /// The hash of a SCRAM mechanism.
    pub fn scram(self) -> Option<scram::ScramMechanism> {
        match self {
            Self::ScramSha256 => Some(scram::ScramMechanism::Sha256),
            Self::ScramSha512 => Some(scram::ScramMechanism::Sha512),
            Self::Plain | Self::OauthBearer => None,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an authentication failed; the client is told this text, so it holds nothing of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticationError(String);

impl AuthenticationError {
    /// An error with its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whatever was wrong with the secret: which part it was is nobody's business.
    pub(crate) fn credentials(mechanism: Mechanism) -> Self {
        Self(format!(
            "Authentication failed during authentication due to invalid credentials with SASL mechanism {mechanism}"
        ))
    }
}

/// Who an authentication has shown the client to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The client.
    pub principal: Principal,
    /// Milliseconds since 1970 at which its token ends; `None`: it has none.
    pub expires_at_ms: Option<i64>,
}
