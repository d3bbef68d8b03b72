//! Who clients are, and how bytes are kept from others: TLS, SASL, principals.
//!
//! | module | holds |
//! |---|---|
//! | `properties` | Kafka's properties as one listener sees them |
//! | `protocol` | TLS or not, SASL or not |
//! | `principal` | who a client is |
//! | `credentials` | SCRAM credentials and delegation tokens out of the metadata |
//! | `tokens` | the passwords of delegation tokens |
//! | `publish` | credentials and quotas follow the metadata |
//! | [`sasl`] | the mechanisms and the order of an authentication |
//! | `tls` | keys, certificates, and what rustls makes of them |
//! | `distinguished_name`, `principal_mapping` | from a certificate to a principal |
//! | `listener`, `node` | all of it for one listener, and for all of them as properties and files change |
//! | `authority` | the keys that OAuth tokens are checked by |
//! | `peer` | connections to other brokers |
//! | `failures` | who guesses passwords waits |
//! | `login` | connections of whoever calls a listener and is no broker calling a broker |
//! | `grpc` | TLS and SASL of the gRPC listener |
//! | [`http`] | TLS of the HTTP port |

mod authority;
pub mod credentials;
mod der;
mod distinguished_name;
mod failures;
pub mod grpc;
pub(crate) mod handshakes;
pub mod http;
mod listener;
pub mod login;
mod node;
pub mod peer;
pub mod principal;
pub mod principal_mapping;
pub mod properties;
pub mod protocol;
pub(crate) mod publish;
pub mod sasl;
pub(crate) mod tls;
pub mod tokens;

pub use credentials::{CredentialSnapshot, Credentials, ScramCredential, TokenCredential};
pub use grpc::{GrpcCaller, GrpcSecurity};
pub use http::HttpSecurity;
pub(crate) use listener::ListenerSecurity;
pub use login::ClientSecurity;
pub(crate) use node::NodeSecurity;
pub use peer::PeerSecurity;
pub use principal::Principal;
pub use protocol::SecurityProtocol;
pub use tls::own_certificates;
pub use tokens::TokenSecret;

/// A property that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{property}{}: {message}", place(listener))]
pub struct SecurityError {
    /// Its name, without the listener.
    pub property: &'static str,
    /// The listener that it is for; empty: any.
    pub listener: String,
    /// What is wrong and what to do; holds no secret.
    pub message: String,
}

impl SecurityError {
    /// An error of a property.
    pub fn new(property: &'static str, message: impl Into<String>) -> Self {
        Self { property, listener: String::new(), message: message.into() }
    }

    /// The error, of a listener.
    pub(crate) fn of_listener(self, name: &str) -> Self {
        Self { listener: name.to_owned(), ..self }
    }
}

fn place(listener: &str) -> String {
    if listener.is_empty() { String::new() } else { format!(" of the listener {listener}") }
}
