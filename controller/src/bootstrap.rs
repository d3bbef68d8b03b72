//! How an empty disk becomes part of a cluster: a new one that all voters agree to form, or one that exists.
//!
//! A cluster is formed only when every configured voter answers that its disk is empty, and only by the one with the lowest
//! node id: two clusters can thus not be formed at the same time. As soon as one voter says that a cluster exists, the
//! others join it through its leader, each under the incarnation of its disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_proto::raft::{HelloReply, HelloRequest, JoinRequest};
use tonic::{Request, Status};

use crate::identity::{Identity, IdentityError};
use crate::network::{CALL_TIMEOUT, Network};
use crate::store::SledStore;
use crate::types::{Node, Raft, RaftId};

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A join waits until the log has been copied.
const JOIN_TIMEOUT: Duration = Duration::from_secs(35);

/// What bootstrap needs.
pub(crate) struct Bootstrap {
    pub(crate) identity: Arc<Identity>,
    pub(crate) voters: Arc<BTreeMap<i32, String>>,
    pub(crate) network: Network,
    pub(crate) raft: Raft,
    pub(crate) store: SledStore,
    pub(crate) proposed_cluster_id: String,
}

enum Step {
    Done,
    Again,
}

impl Bootstrap {
    /// A disk of which the quorum already knows has nothing to do here; the log says who its members are.
    pub(crate) fn is_member(&self) -> std::io::Result<bool> {
        self.store.is_used()
    }

    /// Forms a cluster of one, at once.
    pub(crate) async fn form_alone(&self) -> Result<(), String> {
        self.form(BTreeMap::from([(self.identity.raft_id(), self.own_node())])).await
    }

    /// Tries until this disk is part of a cluster.
    ///
    /// # Errors
    /// Another cluster was met: no retry heals that.
    pub(crate) async fn run(self) -> Result<(), IdentityError> {
        let mut pause = RETRY_MIN;
        loop {
            match self.attempt().await {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Again) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn own_node(&self) -> Node {
        let own = self.identity.raft_id().node_id;
        Node::new(self.voters.get(&own).cloned().unwrap_or_default())
    }

    async fn form(&self, members: BTreeMap<RaftId, Node>) -> Result<(), String> {
        let identity = Arc::clone(&self.identity);
        let cluster_id = self.proposed_cluster_id.clone();
        // The name is durable before the cluster is: a crash in between leads to the same name again.
        tokio::task::spawn_blocking(move || identity.adopt_cluster(&cluster_id, "this node"))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        self.raft.initialize(members).await.map_err(|error| error.to_string())
    }

    async fn attempt(&self) -> Result<Step, IdentityError> {
        // A leader that was told of this disk by an earlier join, or whoever formed the cluster, may have called.
        if self.store.is_used().unwrap_or(false) && self.is_voter() {
            return Ok(Step::Done);
        }
        let own = self.identity.raft_id();
        let others: Vec<_> = self.voters.iter().filter(|(id, _)| **id != own.node_id).collect();
        let replies =
            futures_util::future::join_all(others.iter().map(|(id, address)| self.hello(**id, address)))
                .await;
        let mut empty = BTreeMap::from([(own, self.own_node())]);
        let mut leaders = Vec::new();
        let mut exists = false;
        for ((id, address), reply) in others.into_iter().zip(replies) {
            let reply = match reply {
                Ok(reply) => reply,
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                    tracing::error!(peer = id, %address, "{}", status.message());
                    continue;
                }
                Err(status) => {
                    tracing::debug!(peer = id, %address, "no answer yet: {}", status.message());
                    continue;
                }
            };
            self.identity.check_cluster(&reply.cluster_id, &format!("node {id} at {address}"))?;
            if reply.initialised {
                exists = true;
                if reply.leader_id >= 0 && !reply.leader_endpoint.is_empty() {
                    leaders.push(reply.leader_endpoint);
                }
            } else if let Some(raft_id) = RaftId::from_bytes(&reply.raft_id) {
                empty.insert(raft_id, Node::new(address.clone()));
            }
        }
        if exists {
            for leader in leaders {
                if self.join(&leader).await {
                    return Ok(Step::Done);
                }
            }
            return Ok(Step::Again);
        }
        let is_lowest = self.voters.keys().next() == Some(&own.node_id);
        if empty.len() == self.voters.len() && is_lowest {
            match self.form(empty).await {
                Ok(()) => return Ok(Step::Done),
                Err(error) => tracing::warn!("a cluster could not be formed: {error}"),
            }
        }
        Ok(Step::Again)
    }

    fn is_voter(&self) -> bool {
        let own = self.identity.raft_id();
        self.raft.voter_ids().any(|id| id == own)
    }

    async fn hello(&self, node_id: i32, address: &str) -> Result<HelloReply, Status> {
        let mut client =
            self.network.client(address).map_err(|error| Status::unavailable(error.to_string()))?;
        let own = self.identity.raft_id().node_id;
        let mut request = Request::new(HelloRequest { node_id: own, cluster_id: self.identity.cluster_id() });
        request.set_timeout(CALL_TIMEOUT);
        let reply = client.hello(request).await?.into_inner();
        if reply.node_id != node_id {
            return Err(Status::failed_precondition(format!(
                "{address} is configured as node {node_id} but is node {}; check controller.quorum.voters",
                reply.node_id
            )));
        }
        Ok(reply)
    }

    async fn join(&self, leader: &str) -> bool {
        let own = self.identity.raft_id();
        let Ok(mut client) = self.network.client(leader) else { return false };
        let mut request = Request::new(JoinRequest {
            node_id: own.node_id,
            raft_id: own.to_bytes(),
            endpoint: self.own_node().addr,
            cluster_id: self.identity.cluster_id(),
        });
        request.set_timeout(JOIN_TIMEOUT);
        match client.join(request).await.map(tonic::Response::into_inner) {
            Ok(reply) if reply.error_code == 0 => true,
            Ok(reply) => {
                tracing::info!(%leader, "the leader does not take this controller in yet: {}", reply.message);
                false
            }
            Err(status) => {
                tracing::info!(%leader, "the leader does not answer: {}", status.message());
                false
            }
        }
    }
}
