//! Who leads which partition, and a connection to each broker that is spoken to.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ottla_broker::security::ClientSecurity;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{MetadataRequest, Request, metadata_request};
use ottla_wire::text::Text;

use super::connection::Connection;
use super::{Bootstrap, ClientError};

/// Newest version of Metadata that is asked: it names topics.
const METADATA_VERSION: i16 = 12;
/// Pause between two looks at the metadata while a leader is missing.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A topic as the cluster knows it: leaders by partition, -1 where there is none, and their epochs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) leaders: BTreeMap<i32, i32>,
    pub(crate) epochs: BTreeMap<i32, i32>,
}

/// The cluster as this client sees it.
#[derive(Debug)]
pub(crate) struct Cluster {
    bootstrap: Vec<String>,
    security: ClientSecurity,
    brokers: HashMap<i32, String>,
    topics: HashMap<String, Topic>,
    connections: HashMap<String, Connection>,
    timeout: Duration,
    /// How often a broker had nothing new to tell: another is asked then. The one that was asked may be cut off from the others, and
    /// take itself for a leader for ever.
    nothing_new: usize,
}

impl Cluster {
    /// A cluster of which nothing is known but addresses.
    pub(crate) fn new(bootstrap: Bootstrap, timeout: Duration) -> Self {
        Self {
            bootstrap: bootstrap.addresses,
            security: bootstrap.security,
            brokers: HashMap::new(),
            topics: HashMap::new(),
            connections: HashMap::new(),
            timeout,
            nothing_new: 0,
        }
    }

    /// How long an answer may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How brokers are spoken to.
    pub(crate) fn security(&self) -> ClientSecurity {
        self.security.clone()
    }

    /// A topic that [`Self::refresh`] has found.
    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// The brokers that are known, in order.
    pub(crate) fn broker_ids(&self) -> Vec<i32> {
        let mut ids: Vec<i32> = self.brokers.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The address of a broker.
    pub(crate) fn address(&self, id: i32) -> Option<&str> {
        self.brokers.get(&id).map(String::as_str)
    }

    /// The leader of a partition; `None`: there is none now.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let leader = *self.topics.get(topic)?.leaders.get(&partition)?;
        self.brokers.contains_key(&leader).then_some(leader)
    }

    /// The epoch of the leader of a partition; -1: not known.
    pub(crate) fn leader_epoch(&self, topic: &str, partition: i32) -> i32 {
        let epoch = self.topics.get(topic).and_then(|topic| topic.epochs.get(&partition));
        epoch.copied().unwrap_or(-1)
    }

    /// Forgets all connections: what is on its way on them is not waited for.
    pub(crate) fn disconnect(&mut self) {
        self.connections.clear();
    }

    /// How many brokers are known.
    pub(crate) fn broker_count(&self) -> usize {
        self.brokers.len()
    }

    /// The finalized level of a feature, as some broker tells it; 0: none.
    pub(crate) async fn feature(&mut self, name: &str) -> Result<i16, ClientError> {
        let mut addresses: Vec<String> = self.brokers.values().cloned().collect();
        addresses.extend(self.bootstrap.iter().cloned());
        let mut last = None;
        for address in addresses {
            match self.take_connection(&address).await {
                Ok(connection) => {
                    let level = connection.feature(name);
                    self.keep(&address, connection, &Ok(()));
                    return Ok(level);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::refused("features", ErrorCode::BrokerNotAvailable.code())))
    }

    /// Looks topics up anew, on any broker that answers. A topic that does not exist is an error.
    pub(crate) async fn refresh(&mut self, topics: &[String]) -> Result<(), ClientError> {
        let request = MetadataRequest {
            topics: Some(
                topics
                    .iter()
                    .map(|name| metadata_request::Topic {
                        name: Some(Text::from(name.as_str())),
                        ..metadata_request::Topic::default()
                    })
                    .collect(),
            ),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let response = self.ask_any(&request, METADATA_VERSION).await?;
        self.brokers = response
            .brokers
            .iter()
            .map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port)))
            .collect();
        let mut is_news = topics.is_empty();
        for topic in response.topics {
            let name = topic.name.map(|name| name.to_string()).unwrap_or_default();
            match ErrorCode::from_code(topic.error_code) {
                // With LEADER_NOT_AVAILABLE the partitions are told all the same.
                ErrorCode::None | ErrorCode::LeaderNotAvailable => {}
                code @ ErrorCode::UnknownTopicOrPartition => {
                    let message = Some("it does not exist".to_owned());
                    return Err(ClientError::Refused { what: format!("topic \"{name}\""), code, message });
                }
                _ => return Err(ClientError::refused(format!("topic \"{name}\""), topic.error_code)),
            }
            let leaders = topic.partitions.iter().map(|one| (one.partition_index, one.leader_id)).collect();
            let epochs = topic.partitions.iter().map(|one| (one.partition_index, one.leader_epoch)).collect();
            let told = Topic { leaders, epochs };
            is_news |= self.topics.get(&name) != Some(&told);
            self.topics.insert(name, told);
        }
        if !is_news {
            self.nothing_new += 1;
        }
        Ok(())
    }

    /// As [`Self::refresh`], but tries again until the deadline while the reason may pass.
    pub(crate) async fn refresh_until(
        &mut self,
        topics: &[String],
        deadline: Instant,
    ) -> Result<(), ClientError> {
        loop {
            match self.refresh(topics).await {
                // A topic that was just created is not known everywhere at once, but asking for one that does not exist
                // must not hang: one who wants to wait creates it first.
                Err(error)
                    if error.is_retriable() && !is_unknown_topic(&error) && Instant::now() < deadline =>
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Asks the first broker that answers.
    pub(crate) async fn ask_any<R: Request>(
        &mut self,
        request: &R,
        newest: i16,
    ) -> Result<R::Response, ClientError> {
        let mut addresses: Vec<String> = self.brokers.values().cloned().collect();
        // Those we are connected to first, the known before those that were typed.
        addresses.sort_by_key(|address| (!self.connections.contains_key(address), address.clone()));
        let known = addresses.len();
        addresses.rotate_left(self.nothing_new % known.max(1));
        addresses.extend(self.bootstrap.iter().cloned());
        let mut last = None;
        for address in addresses {
            match self.ask_at(&address, request, newest).await {
                Ok(response) => return Ok(response),
                Err(error @ ClientError::Connection { .. }) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Connection {
            address: "cluster".to_owned(),
            reason: "no broker is known".to_owned(),
        }))
    }

    /// Asks one broker by its id.
    pub(crate) async fn ask<R: Request>(
        &mut self,
        broker: i32,
        request: &R,
        newest: i16,
    ) -> Result<R::Response, ClientError> {
        let address = self.brokers.get(&broker).cloned().ok_or_else(|| ClientError::Connection {
            address: format!("broker {broker}"),
            reason: "its address is not known".to_owned(),
        })?;
        self.ask_at(&address, request, newest).await
    }

    /// Asks one broker by its address.
    pub(crate) async fn ask_at<R: Request>(
        &mut self,
        address: &str,
        request: &R,
        newest: i16,
    ) -> Result<R::Response, ClientError> {
        self.ask_at_within(address, request, newest, self.timeout).await
    }

    /// As [`Self::ask_at`], for requests that the broker holds on to.
    pub(crate) async fn ask_at_within<R: Request>(
        &mut self,
        address: &str,
        request: &R,
        newest: i16,
        limit: Duration,
    ) -> Result<R::Response, ClientError> {
        let mut connection = self.take_connection(address).await?;
        let answer = connection.ask_within(request, newest, limit).await;
        self.keep(address, connection, &answer);
        answer
    }

    /// The connection to a broker, out of the pool; [`Self::keep`] gives it back.
    pub(crate) async fn take_connection(&mut self, address: &str) -> Result<Connection, ClientError> {
        match self.connections.remove(address) {
            Some(connection) if !connection.is_over() => Ok(connection),
            _ => Connection::open(address, &self.security, self.timeout).await,
        }
    }

    /// Puts a connection back, unless what was asked on it broke it.
    pub(crate) fn keep<T>(&mut self, address: &str, connection: Connection, answer: &Result<T, ClientError>) {
        let broken = matches!(answer, Err(ClientError::Connection { .. } | ClientError::Garbled { .. }));
        if !broken {
            self.connections.insert(address.to_owned(), connection);
        }
    }
}

fn is_unknown_topic(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: ErrorCode::UnknownTopicOrPartition, .. })
}
