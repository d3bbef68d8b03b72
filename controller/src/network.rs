//! Calls to the other controllers: channels, envelopes, and openraft's network on top of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use ottla_proto::raft::raft_client::RaftClient;
use ottla_proto::raft::{Envelope, HelloRequest, SnapshotPart};
use ottla_proto::transport::Dial;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::codec;
use crate::identity::Identity;
use crate::types::{Membership, Node, RaftId, Snapshot, SnapshotMeta, TypeConfig, Vote};

/// Largest message between controllers. An entry is far smaller; a backlog is sent in several requests.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Largest snapshot that is taken in.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = 1 << 30;
/// A snapshot is sent in parts of this size.
const SNAPSHOT_PART_BYTES: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that is silent for so long is asked whether it lives; a stale one would make a follower look dead.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// For calls that openraft gives no time.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Why an address cannot be dialled at all.
pub(crate) type AddressError = tonic::transport::Error;

/// A channel to `host:port` that connects when used, and again when broken; the name is resolved each time.
pub(crate) fn channel(dial: &Dial, address: &str) -> Result<Channel, AddressError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(32 << 20);
    Ok(dial.channel(&endpoint))
}

/// A client of the Raft service at an address.
pub(crate) fn raft_client(dial: &Dial, address: &str) -> Result<RaftClient<Channel>, AddressError> {
    Ok(RaftClient::new(channel(dial, address)?)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

/// Makes connections to peers.
#[derive(Clone)]
pub(crate) struct Network {
    identity: Arc<Identity>,
    /// Configured addresses by node id: they win over what a membership remembers, so that a move is a change of
    /// configuration only.
    voters: Arc<BTreeMap<i32, String>>,
    /// One channel for each address, shared by heartbeats and entries.
    channels: Arc<Mutex<BTreeMap<String, RaftClient<Channel>>>>,
    /// Where the members are by the newest membership: a member may move.
    members: Arc<Mutex<BTreeMap<RaftId, String>>>,
    silent: Arc<Mutex<Silent>>,
    dial: Dial,
}

/// The peers whose last call failed, so that the log says once that one went and once that it is back: heartbeats
/// would repeat it ten times a second for as long as a node is away.
#[derive(Default)]
struct Silent(BTreeSet<RaftId>);

impl Silent {
    /// Takes note of how a call went; whether that is news.
    fn learn(&mut self, peer: RaftId, answered: bool) -> bool {
        if answered { self.0.remove(&peer) } else { self.0.insert(peer) }
    }
}

impl Network {
    pub(crate) fn new(identity: Arc<Identity>, voters: Arc<BTreeMap<i32, String>>, dial: Dial) -> Self {
        let (channels, members, silent) = Default::default();
        Self { identity, voters, channels, members, silent, dial }
    }

    /// Takes note of where the members are, and forgets channels to where nobody is any more.
    pub(crate) fn learn(&self, membership: &Membership) {
        let members: BTreeMap<RaftId, String> =
            membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
        let mut known = self.members.lock();
        if *known == members {
            return;
        }
        let is_used = |address: &String| {
            members.values().any(|used| used == address) || self.voters.values().any(|used| used == address)
        };
        self.channels.lock().retain(|address, _| is_used(address));
        self.silent.lock().0.retain(|peer| members.contains_key(peer));
        *known = members;
    }

    /// Where a member is.
    pub(crate) fn address(&self, membership: &Membership, id: RaftId) -> Option<String> {
        let told = membership.get_node(&id).map(|node| node.addr.clone());
        self.voters.get(&id.node_id).cloned().or(told)
    }

    /// Who answers at an address; `None`: nobody does, or it is of another cluster.
    pub(crate) async fn identify(&self, address: &str) -> Option<RaftId> {
        let mut client = self.client(address).ok()?;
        let own = self.identity.raft_id();
        let mut request = Request::new(HelloRequest {
            node_id: own.node_id,
            cluster_id: self.identity.cluster_id(),
            raft_id: own.to_bytes(),
        });
        request.set_timeout(CALL_TIMEOUT);
        let reply = client.hello(request).await.ok()?.into_inner();
        RaftId::from_bytes(&reply.raft_id)
    }

    /// A client of the Raft service at an address.
    pub(crate) fn client(&self, address: &str) -> Result<RaftClient<Channel>, AddressError> {
        let mut channels = self.channels.lock();
        if let Some(client) = channels.get(address) {
            return Ok(client.clone());
        }
        let client = raft_client(&self.dial, address)?;
        channels.insert(address.to_owned(), client.clone());
        Ok(client)
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: RaftId, node: &Node) -> Connection {
        Connection { network: self.clone(), target, address: node.addr.clone() }
    }
}

/// The way to one peer.
pub(crate) struct Connection {
    network: Network,
    target: RaftId,
    /// Where it was when it became a member.
    address: String,
}

/// Nobody is there: openraft backs off. Everything else is tried again at once.
fn rpc_error(status: &Status) -> RPCError<TypeConfig> {
    match status.code() {
        Code::Unavailable | Code::FailedPrecondition | Code::Unimplemented | Code::PermissionDenied => {
            RPCError::Unreachable(Unreachable::new(&io::Error::other(status.message().to_owned())))
        }
        _ => RPCError::Network(NetworkError::new(&io::Error::other(status.message().to_owned()))),
    }
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn streaming(error: RPCError<TypeConfig>) -> StreamingError<TypeConfig> {
    match error {
        RPCError::Unreachable(error) => StreamingError::Unreachable(error),
        error => StreamingError::Network(NetworkError::new(&error)),
    }
}

enum Call {
    Append,
    Vote,
    PreVote,
    Transfer,
}

impl Connection {
    fn client(&self) -> Result<RaftClient<Channel>, RPCError<TypeConfig>> {
        let configured = self.network.voters.get(&self.target.node_id).cloned();
        let address = configured.or_else(|| self.network.members.lock().get(&self.target).cloned());
        self.network
            .client(&address.unwrap_or_else(|| self.address.clone()))
            .map_err(|error| unreachable(&error))
    }

    /// Says in the log what is new about the peer.
    fn announce<T>(&self, answer: &Result<T, Status>) {
        if !self.network.silent.lock().learn(self.target, answer.is_ok()) {
            return;
        }
        let controller = self.target.node_id;
        match answer {
            Ok(_) => tracing::info!(controller, "a controller answers again"),
            Err(status) => {
                tracing::warn!(controller, error = status.message(), "a controller does not answer");
            }
        }
    }

    fn envelope(&self, payload: Bytes) -> Envelope {
        let identity = &self.network.identity;
        Envelope {
            cluster_id: identity.cluster_id(),
            from: identity.raft_id().to_bytes(),
            to: self.target.to_bytes(),
            payload,
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        call: Call,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<T, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let mut request = Request::new(self.envelope(payload));
        request.set_timeout(timeout);
        let answer = match call {
            Call::Append => client.append_entries(request).await,
            Call::Vote => client.vote(request).await,
            Call::PreVote => client.pre_vote(request).await,
            Call::Transfer => client.transfer_leader(request).await,
        };
        self.announce(&answer);
        let answer = answer.map_err(|status| rpc_error(&status))?.into_inner();
        serde_json::from_slice(&answer.payload).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    async fn call_json<T: DeserializeOwned>(
        &self,
        call: Call,
        request: &impl Serialize,
        option: &RPCOption,
    ) -> Result<T, RPCError<TypeConfig>> {
        let payload = serde_json::to_vec(request).map_err(|error| unreachable(&error))?;
        self.call(call, payload.into(), option.hard_ttl()).await
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = codec::encode_append(&request).map_err(|error| unreachable(&error))?;
        self.call(Call::Append, payload, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_json(Call::Vote, &request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_json(Call::PreVote, &request, &option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_json(Call::Transfer, &request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client().map_err(streaming)?;
        let payload = serde_json::to_vec(&SnapshotHead { vote, meta: snapshot.meta.clone() })
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let head = SnapshotPart { head: Some(self.envelope(payload.into())), data: Bytes::new() };
        let body = snapshot.snapshot;
        let parts = (0..body.len()).step_by(SNAPSHOT_PART_BYTES).map(move |from| {
            let until = body.len().min(from + SNAPSHOT_PART_BYTES);
            SnapshotPart { head: None, data: body.slice(from..until) }
        });
        let mut request = Request::new(futures_util::stream::iter(std::iter::once(head).chain(parts)));
        request.set_timeout(option.hard_ttl());
        let answer = tokio::select! {
            answer = client.install_snapshot(request) => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let answer = answer.map_err(|status| streaming(rpc_error(&status)))?.into_inner();
        serde_json::from_slice(&answer.payload)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))
    }
}

/// What stands before a snapshot's bytes.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_news_once_and_so_is_its_end() {
        let mut silent = Silent::default();
        let (one, two) = (RaftId { node_id: 1, incarnation: 7 }, RaftId { node_id: 2, incarnation: 7 });
        assert!(!silent.learn(one, true), "whoever was never silent is not back");
        assert!(silent.learn(one, false));
        assert!(!silent.learn(one, false));
        assert!(silent.learn(two, false));
        assert!(silent.learn(one, true));
        assert!(!silent.learn(one, true));
    }
}
