//! A small Kafka client for `produce`, `consume` and `group`. It speaks to Ottla and to Apache Kafka alike.
//!
//! Produce and Fetch are asked in versions that name topics, not ids: one less thing to keep in step with topics that are
//! deleted and made again under way.

pub(crate) mod assignor;
pub(crate) mod batch;
pub(crate) mod cluster;
pub(crate) mod connection;
pub(crate) mod fetcher;
pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod loggers;
pub(crate) mod offsets;
pub(crate) mod partitioner;
pub(crate) mod producer;
pub(crate) mod records;
pub(crate) mod transactional_producer;
pub(crate) mod transactions;

use ottla_broker::security::{ClientSecurity, SecurityProtocol};
use ottla_wire::error_code::ErrorCode;

use crate::failure::Failure;
use crate::profile::Session;

/// Why the client could not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection, or it broke.
    #[error("{address}: {reason}")]
    Connection {
        /// The broker.
        address: String,
        /// In words.
        reason: String,
    },
    /// The broker does not believe who we are.
    #[error("{address}: {reason}")]
    Unknown {
        /// The broker.
        address: String,
        /// In words.
        reason: String,
    },
    /// The answer cannot be read.
    #[error("{address} answers {what} with bytes that are no Kafka response: {reason}")]
    Garbled {
        /// The broker.
        address: String,
        /// The API.
        what: &'static str,
        /// In words.
        reason: String,
    },
    /// The broker has no version of an API that we have.
    #[error("{address} knows {what} in no version that this client knows")]
    Version {
        /// The broker.
        address: String,
        /// The API.
        what: &'static str,
    },
    /// The broker refused.
    #[error("{what}: {} ({})", message.as_deref().unwrap_or(code.message()), code.name())]
    Refused {
        /// What was asked.
        what: String,
        /// Kafka's code.
        code: ErrorCode,
        /// The broker's words, if it had any.
        message: Option<String>,
    },
}

impl ClientError {
    /// A refusal without further words.
    pub(crate) fn refused(what: impl Into<String>, code: i16) -> Self {
        Self::Refused { what: what.into(), code: ErrorCode::from_code(code), message: None }
    }

    /// Whether the same may succeed in a moment, here or elsewhere.
    pub(crate) fn is_retriable(&self) -> bool {
        match self {
            Self::Connection { .. } => true,
            Self::Garbled { .. } | Self::Version { .. } | Self::Unknown { .. } => false,
            Self::Refused { code, .. } => code.is_retriable(),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::Connection { .. } => {
                "see 'ottla cluster status'; --bootstrap HOST:PORT names other brokers"
            }
            ClientError::Unknown { .. } => {
                "--sasl-user NAME --sasl-password-file FILE --sasl-mechanism MECHANISM say who signs in"
            }
            ClientError::Garbled { .. } | ClientError::Version { .. } => {
                "--bootstrap names a Kafka listener: is it one?"
            }
            ClientError::Refused { code: ErrorCode::UnknownTopicOrPartition, .. } => {
                "'ottla topic create' creates it"
            }
            ClientError::Refused { code: ErrorCode::NotEnoughReplicas, .. } => {
                "fewer replicas are in sync than min.insync.replicas: see 'ottla cluster status'"
            }
            ClientError::Refused { code: ErrorCode::MessageTooLarge, .. } => {
                "'ottla topic alter TOPIC --set max.message.bytes=…' lets larger records in"
            }
            ClientError::Refused { .. } => "",
        };
        Self::new(error.to_string()).hint(hint)
    }
}

/// Where brokers are to begin with, and how they are spoken to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bootstrap {
    pub(crate) addresses: Vec<String>,
    pub(crate) security: ClientSecurity,
}

/// The Kafka addresses to begin with: what the user named, or the brokers that the admin plane names.
pub(crate) async fn bootstrap(session: &Session) -> Result<Bootstrap, Failure> {
    let access = &session.access;
    if !session.bootstrap.is_empty() {
        let addresses = session.bootstrap.clone();
        return Ok(Bootstrap { addresses, security: access.to(access.protocol())? });
    }
    let cluster = crate::admin::Admin::connect(session).await?.describe_cluster().await?;
    let listeners =
        || cluster.brokers.iter().filter(|broker| !broker.fenced).flat_map(|broker| &broker.listeners);
    for protocol in access.preferred() {
        let speaking =
            listeners().filter(|listener| protocol_of(&listener.security_protocol) == Some(*protocol));
        let named = speaking.map(|listener| (listener.host.clone(), listener.port));
        let addresses = nearest_first(named, &session.servers);
        if !addresses.is_empty() {
            return Ok(Bootstrap { addresses, security: access.to(*protocol)? });
        }
    }
    let mut spoken: Vec<&str> = listeners().map(|listener| listener.security_protocol.as_str()).collect();
    spoken.sort_unstable();
    spoken.dedup();
    let spoken = if spoken.is_empty() { "nothing".to_owned() } else { spoken.join(", ") };
    Err(Failure::new(format!("no broker serves on a {} listener, but on {spoken}", access.protocol()))
        .hint("--tls-ca FILE and --sasl-user NAME say how to get in; --bootstrap HOST:PORT names a listener"))
}

/// A cluster may have listeners that only its own network reaches. What has the host by which the admin plane was reached is
/// reached from here; all others stay, behind it.
fn nearest_first(listeners: impl Iterator<Item = (String, u32)>, servers: &[String]) -> Vec<String> {
    let mut listeners: Vec<_> = listeners.collect();
    let is_known = |host: &str| {
        servers.iter().any(|server| server.rsplit_once(':').is_some_and(|(known, _)| known == host))
    };
    listeners.sort_by_key(|(host, _)| !is_known(host));
    listeners.into_iter().map(|(host, port)| format!("{host}:{port}")).collect()
}

fn protocol_of(name: &str) -> Option<SecurityProtocol> {
    if name.is_empty() { Some(SecurityProtocol::Plaintext) } else { name.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_the_host_of_the_admin_plane_is_tried_first() {
        let listeners = [("ottla-1", 19092), ("localhost", 9092), ("ottla-2", 19092), ("localhost", 9192)];
        let listeners = || listeners.iter().map(|(host, port)| ((*host).to_owned(), *port));
        assert_eq!(
            nearest_first(listeners(), &["localhost:9093".to_owned()]),
            ["localhost:9092", "localhost:9192", "ottla-1:19092", "ottla-2:19092"]
        );
        assert_eq!(nearest_first(listeners(), &["elsewhere:9093".to_owned()])[0], "ottla-1:19092");
    }
}
