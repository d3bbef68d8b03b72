//! Connections to the brokers, this one among them, by which the console asks what only they know: offsets, records, groups.
//!
//! They are those of a broker, so rights have to be looked at before: whatever goes through here is allowed to whoever asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_wire::messages::Request;
use parking_lot::Mutex;

use crate::context::BrokerContext;
use crate::replication::peer::{Peer, PeerError};

/// Idle connections that are kept for each broker.
const IDLE_MAX: usize = 4;
/// A broker that does not answer within this time is left out.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The connections that are not in use.
#[derive(Debug, Default)]
pub(super) struct Peers {
    idle: Mutex<HashMap<i32, Vec<(String, Peer)>>>,
}

/// Why a broker was not asked or did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// It is not registered, or not on the listener of brokers.
    #[error("broker {0} cannot be reached")]
    Unreachable(i32),
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl Peers {
    /// Asks a broker. A connection that was idle may have been closed: then a new one is tried.
    pub(super) async fn call<R: Request>(
        &self,
        context: &Arc<BrokerContext>,
        broker: i32,
        request: &R,
        version: i16,
    ) -> Result<R::Response, AskError> {
        let (host, port) = context.replicas.broker_endpoint(broker).ok_or(AskError::Unreachable(broker))?;
        let address = format!("{host}:{port}");
        if let Some(mut peer) = self.take(broker, &address)
            && let Ok(answer) = peer.call(request, version).await
        {
            self.give_back(broker, address, peer);
            return Ok(answer);
        }
        let client_id = format!("broker-{}-console", context.options.node_id);
        let security = &context.replicas.shared().options.peer_security;
        let mut peer = Peer::connect(&host, port, &client_id, TIMEOUT, security).await?;
        let answer = peer.call(request, version).await?;
        self.give_back(broker, address, peer);
        Ok(answer)
    }

    fn take(&self, broker: i32, address: &str) -> Option<Peer> {
        let mut idle = self.idle.lock();
        let peers = idle.get_mut(&broker)?;
        // A broker that has moved is not where these lead.
        peers.retain(|(to, _)| to == address);
        peers.pop().map(|(_, peer)| peer)
    }

    fn give_back(&self, broker: i32, address: String, peer: Peer) {
        let mut idle = self.idle.lock();
        let peers = idle.entry(broker).or_default();
        if peers.len() < IDLE_MAX {
            peers.push((address, peer));
        }
    }
}
