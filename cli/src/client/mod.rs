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
pub(crate) mod offsets;
pub(crate) mod partitioner;
pub(crate) mod producer;
pub(crate) mod records;
pub(crate) mod transactional_producer;
pub(crate) mod transactions;

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
            Self::Garbled { .. } | Self::Version { .. } => false,
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

/// The Kafka addresses to begin with: what the user named, or the brokers that the admin plane names.
pub(crate) async fn bootstrap(session: &Session) -> Result<Vec<String>, Failure> {
    if !session.bootstrap.is_empty() {
        return Ok(session.bootstrap.clone());
    }
    let cluster = crate::admin::Admin::connect(session).await?.describe_cluster().await?;
    let listeners =
        cluster.brokers.iter().filter(|broker| !broker.fenced).flat_map(|broker| &broker.listeners);
    let plain = listeners.filter(|listener| is_plaintext(&listener.security_protocol));
    let addresses =
        nearest_first(plain.map(|listener| (listener.host.clone(), listener.port)), &session.servers);
    if addresses.is_empty() {
        return Err(Failure::new("no broker serves on a PLAINTEXT listener")
            .hint("see 'ottla broker list'; --bootstrap HOST:PORT names a Kafka listener"));
    }
    Ok(addresses)
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

fn is_plaintext(protocol: &str) -> bool {
    protocol.is_empty() || protocol.eq_ignore_ascii_case("PLAINTEXT")
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
