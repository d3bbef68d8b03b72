//! Controller to controller: envelopes are checked, then openraft is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::AppendEntriesResponse;
use ottla_proto::raft as proto;
use ottla_proto::raft::{Envelope, SnapshotPart};
use ottla_wire::error_code::ErrorCode;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::codec;
use crate::identity::Identity;
use crate::leadership::Leadership;
use crate::network::{SNAPSHOT_BYTES_MAX, SnapshotHead};
use crate::quorum::{QuorumChanges, Role};
use crate::store::SledStore;
use crate::types::{Raft, RaftId, Snapshot};

/// How long a new member may take to get the log.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The service. Who may call it at all is the gate's to say; a member that this node has not heard of yet is let in, for
/// it may be a new voter whose election needs this node's vote.
pub(crate) struct RaftService {
    pub(crate) identity: Arc<Identity>,
    pub(crate) voters: Arc<BTreeMap<i32, String>>,
    pub(crate) raft: Raft,
    pub(crate) store: SledStore,
    pub(crate) leadership: Leadership,
    pub(crate) proposed_cluster_id: String,
    pub(crate) changes: QuorumChanges,
    /// When the leader was last heard of.
    pub(crate) heard: Arc<Mutex<Instant>>,
}

fn answer(payload: &impl Serialize) -> Result<Response<Envelope>, Status> {
    let payload = serde_json::to_vec(payload).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(Envelope { payload: payload.into(), ..Envelope::default() }))
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(payload).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl RaftService {
    /// Refuses what is not for this disk, or not from this cluster. Who addresses our incarnation has talked to us.
    async fn open(&self, envelope: Envelope) -> Result<Bytes, Status> {
        let from = RaftId::from_bytes(&envelope.from).ok_or_else(|| Status::invalid_argument("no sender"))?;
        if envelope.to[..] != self.identity.raft_id().to_bytes()[..] {
            return Err(Status::failed_precondition(format!(
                "this is controller {}, another one is addressed",
                self.identity.raft_id()
            )));
        }
        if envelope.cluster_id.is_empty() {
            return Err(Status::failed_precondition("the sender is not part of a cluster"));
        }
        if self.identity.cluster_id() != envelope.cluster_id {
            let identity = Arc::clone(&self.identity);
            let (cluster_id, name) = (envelope.cluster_id, format!("controller {from}"));
            tokio::task::spawn_blocking(move || identity.adopt_cluster(&cluster_id, &name))
                .await
                .map_err(stopped)?
                .map_err(|error| Status::failed_precondition(error.to_string()))?;
        }
        Ok(envelope.payload)
    }

    fn join_refusal(&self, code: ErrorCode, message: impl Into<String>) -> proto::JoinReply {
        let leader = self.leadership.leader();
        proto::JoinReply {
            error_code: code.code().into(),
            message: message.into(),
            leader_id: leader.as_ref().map_or(-1, |leader| leader.node_id),
            leader_endpoint: leader.map_or_else(String::new, |leader| leader.endpoint),
        }
    }
}

#[tonic::async_trait]
impl proto::raft_server::Raft for RaftService {
    async fn append_entries(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let payload = self.open(request.into_inner()).await?;
        let request =
            codec::decode_append(payload).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let response = self.raft.append_entries(request).await.map_err(stopped)?;
        // Who leads by an older vote is no leader any more.
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            *self.heard.lock() = Instant::now();
        }
        answer(&response)
    }

    async fn vote(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let payload = self.open(request.into_inner()).await?;
        answer(&self.raft.vote(parse(&payload)?).await.map_err(stopped)?)
    }

    async fn pre_vote(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let payload = self.open(request.into_inner()).await?;
        answer(&self.raft.pre_vote(parse(&payload)?).await.map_err(stopped)?)
    }

    async fn transfer_leader(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let payload = self.open(request.into_inner()).await?;
        answer(&self.raft.handle_transfer_leader(parse(&payload)?).await.map_err(stopped)?)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<Envelope>, Status> {
        let mut parts = request.into_inner();
        let head = parts.message().await?.and_then(|part| part.head);
        let payload =
            self.open(head.ok_or_else(|| Status::invalid_argument("a snapshot without a head"))?).await?;
        let head: SnapshotHead = parse(&payload)?;
        let mut body = BytesMut::new();
        while let Some(part) = parts.message().await? {
            if body.len() + part.data.len() > SNAPSHOT_BYTES_MAX {
                return Err(Status::resource_exhausted("the snapshot is larger than is taken in"));
            }
            body.extend_from_slice(&part.data);
        }
        let snapshot = Snapshot { meta: head.meta, snapshot: body.freeze() };
        answer(&self.raft.install_full_snapshot(head.vote, snapshot).await.map_err(stopped)?)
    }

    async fn hello(
        &self,
        request: Request<proto::HelloRequest>,
    ) -> Result<Response<proto::HelloReply>, Status> {
        let request = request.into_inner();
        self.identity
            .check_cluster(&request.cluster_id, &format!("node {}", request.node_id))
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let leader = self.leadership.leader();
        let asker = RaftId::from_bytes(&request.raft_id);
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        Ok(Response::new(proto::HelloReply {
            node_id: self.identity.raft_id().node_id,
            raft_id: self.identity.raft_id().to_bytes(),
            initialised: self.store.is_used()?,
            cluster_id: self.identity.cluster_id(),
            leader_id: leader.as_ref().map_or(-1, |leader| leader.node_id),
            leader_endpoint: leader.map_or_else(String::new, |leader| leader.endpoint),
            proposed_cluster_id: self.proposed_cluster_id.clone(),
            leads: self.raft.is_leader(),
            knows_you: asker.is_some_and(|asker| membership.get_node(&asker).is_some()),
        }))
    }

    async fn join(&self, request: Request<proto::JoinRequest>) -> Result<Response<proto::JoinReply>, Status> {
        let request = request.into_inner();
        let id = RaftId::from_bytes(&request.raft_id).filter(|id| id.node_id == request.node_id);
        let id = id.ok_or_else(|| Status::invalid_argument("the Raft id is not of the node"))?;
        if let Err(error) = self.identity.check_cluster(&request.cluster_id, &format!("controller {id}")) {
            return Ok(Response::new(self.join_refusal(ErrorCode::InconsistentClusterId, error.to_string())));
        }
        if !self.raft.is_leader() {
            let text = "this controller does not lead";
            return Ok(Response::new(self.join_refusal(ErrorCode::NotController, text)));
        }
        let configured = self.voters.get(&request.node_id).cloned();
        let role = match request.role() {
            proto::JoinRole::Observer => Role::Observer,
            proto::JoinRole::Voter => Role::Voter,
            proto::JoinRole::Configured if configured.is_some() => Role::Voter,
            proto::JoinRole::Configured => {
                let text = format!(
                    "node {0} is not in controller.quorum.voters of the leader; 'ottla quorum add {0}' lets it vote",
                    request.node_id
                );
                return Ok(Response::new(self.join_refusal(ErrorCode::InvalidRequest, text)));
            }
        };
        let endpoint = configured.unwrap_or(request.endpoint);
        Ok(Response::new(match self.changes.join(id, endpoint, role, JOIN_TIMEOUT).await {
            Ok(()) => self.join_refusal(ErrorCode::None, ""),
            Err(refusal) => self.join_refusal(refusal.code, refusal.message),
        }))
    }
}
