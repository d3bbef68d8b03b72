//! What a connection is known by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ottla_wire::text::Text;

use crate::metrics::Handled;
use crate::security::Principal;
use crate::share::ShareConnection;

/// The client at the other end of one connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its address as groups and logs show it.
    pub(crate) host: Arc<str>,
    /// The port that it connected from.
    pub(crate) port: u16,
    pub(crate) listener: Arc<str>,
    /// Since when it is connected.
    pub(crate) connected_at: Instant,
    /// Who it has shown to be; before that, nobody.
    pub(crate) principal: Arc<Principal>,
    /// It has fetched as a follower: brokers are not held to quotas of clients.
    pub(crate) is_broker: bool,
    /// From ApiVersions 3 on: what it calls itself.
    pub(crate) software: Option<(Text, Text)>,
    /// The last request that was dispatched, until the connection has taken note of it.
    pub(crate) handled: Option<Handled>,
    /// From its first ShareFetch on: its share sessions end with it.
    pub(crate) share: Option<ShareConnection>,
}

impl Client {
    pub(crate) fn new(peer: SocketAddr, listener: Arc<str>) -> Self {
        let host = peer.ip().to_canonical().to_string().into();
        Self {
            host,
            port: peer.port(),
            listener,
            connected_at: Instant::now(),
            principal: Arc::new(Principal::anonymous()),
            is_broker: false,
            software: None,
            handled: None,
            share: None,
        }
    }
}
