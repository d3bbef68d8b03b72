//! How a controller becomes and stays part of its quorum, decided from what its disk holds.
//!
//! | disk | what happens |
//! |---|---|
//! | empty, in `controller.quorum.voters` | all voters that are configured form a cluster together, or it joins the one that exists |
//! | empty, `controller.quorum.bootstrap.servers` alone | it follows the quorum as an observer until it is added |
//! | a voter's | the log says who the members are |
//! | of one that was a voter and is none now | it follows as an observer; it has no vote again until it is added |
//!
//! A cluster is formed only when every configured voter answers that its disk is empty, and only by the one with the lowest
//! node id: two clusters can thus not be formed at the same time. Each disk takes part under its own incarnation: one that
//! was wiped is another member. Who hears of no leader asks the others: a member that was removed while it was away learns of
//! it in this way, and does not go on standing for election.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use ottla_proto::raft::{HelloReply, HelloRequest, JoinRequest, JoinRole};
use ottla_wire::error_code::ErrorCode;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Request, Status};

use super::{QuorumChanges, Role};
use crate::identity::{Identity, IdentityError};
use crate::network::{CALL_TIMEOUT, Network};
use crate::store::SledStore;
use crate::types::{Node, Raft, RaftId};

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A join waits until the log has been copied.
const JOIN_TIMEOUT: Duration = Duration::from_secs(35);
/// A member that hears of no leader for so long asks whether it is a member still. Far above an election.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);
/// After a refusal the same is asked again this much later.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// Where controllers are, as the properties say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// `controller.quorum.voters`.
    pub(crate) voters: Arc<BTreeMap<i32, String>>,
    /// `controller.quorum.bootstrap.servers`.
    pub(crate) bootstrap_servers: Vec<String>,
    /// Where this one is.
    pub(crate) own_endpoint: String,
    /// `controller.quorum.auto.join.enable`.
    pub(crate) joins_by_itself: bool,
}

/// Keeps a controller in its quorum.
pub(crate) struct Keeper {
    pub(crate) identity: Arc<Identity>,
    pub(crate) places: Places,
    pub(crate) network: Network,
    pub(crate) raft: Raft,
    pub(crate) store: SledStore,
    pub(crate) changes: QuorumChanges,
    /// When the leader was last heard of. Who led last is known for ever; whether this node is still told is another matter.
    pub(crate) heard: Arc<Mutex<Instant>>,
    pub(crate) proposed_cluster_id: String,
}

/// What one run remembers.
#[derive(Default)]
struct Memory {
    /// Nothing is asked for before.
    not_before: Option<Instant>,
    /// What was said last: nothing is said twice in a row.
    said: String,
}

impl Memory {
    fn say(&mut self, text: String) {
        if self.said != text {
            tracing::info!("{text}");
            self.said = text;
        }
    }
}

enum Step {
    Settled,
    Again,
}

/// What the others answered.
#[derive(Default)]
struct Answers {
    /// Disks that are empty, by node.
    empty: BTreeMap<RaftId, Node>,
    answered: usize,
    /// Where the leader is, and whether it knows us.
    leader: Option<(String, bool)>,
    /// Where somebody said that the leader is.
    hearsay: Option<String>,
    exists: bool,
}

impl Keeper {
    /// What has to be done before anybody is asked: a cluster of one is formed, or led again, at once.
    pub(crate) async fn begin(&self) -> Result<(), String> {
        let own = self.identity.raft_id();
        if self.store.is_used().map_err(|error| error.to_string())? {
            let is_alone = self.effective_voters() == BTreeSet::from([own]);
            if is_alone {
                return self.raft.trigger().elect(false).await.map_err(|error| error.to_string());
            }
            return Ok(());
        }
        let is_alone = self.places.voters.len() == 1 && self.places.voters.contains_key(&own.node_id);
        if is_alone && self.others().is_empty() {
            let members = BTreeMap::from([(own, Node::new(self.places.own_endpoint.clone()))]);
            return self.form(members).await;
        }
        Ok(())
    }

    /// Runs for ever.
    ///
    /// # Errors
    /// Another cluster was met: no retry heals that.
    pub(crate) async fn run(self) -> Result<(), IdentityError> {
        let mut memory = Memory::default();
        let mut pause = RETRY_MIN;
        loop {
            match self.step(&mut memory).await? {
                Step::Settled => pause = RETRY_MAX,
                Step::Again => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn effective_voters(&self) -> BTreeSet<RaftId> {
        self.raft.metrics().borrow_watched().membership_config.membership().voter_ids().collect()
    }

    async fn step(&self, memory: &mut Memory) -> Result<Step, IdentityError> {
        let own = self.identity.raft_id();
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        self.network.learn(membership);
        let is_voter = membership.voter_ids().any(|id| id == own);
        let is_configured = self.places.voters.contains_key(&own.node_id);
        let wants_vote =
            !is_voter && (self.places.joins_by_itself || (is_configured && !self.identity.has_voted()));
        let has_moved = membership.get_node(&own).is_some_and(|node| node.addr != self.places.own_endpoint);
        let is_member = membership.get_node(&own).is_some();
        if is_member {
            let is_early = memory.not_before.is_some_and(|at| Instant::now() < at);
            let hears = self.raft.is_leader() || self.heard.lock().elapsed() < LEADERLESS_MAX;
            if hears && (is_early || (!wants_vote && !has_moved)) {
                return Ok(Step::Settled);
            }
        }
        if self.raft.is_leader() {
            // Only its own address can be wrong.
            memory.not_before = Some(Instant::now() + REFUSED_PAUSE);
            let endpoint = self.places.own_endpoint.clone();
            if let Err(refusal) = self.changes.join(own, endpoint, Role::Observer, JOIN_TIMEOUT).await {
                memory.say(format!("the address of this controller is not told yet: {}", refusal.message));
            }
            return Ok(Step::Settled);
        }
        let answers = self.ask().await?;
        let Some((leader, knows_us)) = self.find_leader(&answers).await? else {
            return self.without_leader(memory, answers).await;
        };
        if is_member && knows_us && !wants_vote && !has_moved {
            return Ok(Step::Again);
        }
        let role = match (wants_vote, self.places.joins_by_itself) {
            (true, true) => JoinRole::Voter,
            (true, false) => JoinRole::Configured,
            (false, _) => JoinRole::Observer,
        };
        self.join(&leader, role, memory).await
    }

    /// Nobody leads, or no cluster is there.
    async fn without_leader(&self, memory: &mut Memory, answers: Answers) -> Result<Step, IdentityError> {
        let own = self.identity.raft_id();
        if answers.exists || self.store.is_used().unwrap_or(true) {
            return Ok(Step::Again);
        }
        if !self.places.voters.contains_key(&own.node_id) {
            memory.say(format!(
                "no cluster is found at {} yet. This node waits for one; the controllers that form a new cluster need \
                 controller.quorum.voters",
                self.places.bootstrap_servers.join(", ")
            ));
            return Ok(Step::Again);
        }
        let mut empty: BTreeMap<RaftId, Node> = answers.empty;
        empty.retain(|id, _| self.places.voters.contains_key(&id.node_id));
        empty.insert(own, Node::new(self.places.own_endpoint.clone()));
        let is_lowest = self.places.voters.keys().next() == Some(&own.node_id);
        let is_whole = empty.len() == self.places.voters.len() && answers.answered == self.others().len();
        if is_whole && is_lowest {
            match self.form(empty).await {
                Ok(()) => return Ok(Step::Settled),
                Err(error) => tracing::warn!("a cluster could not be formed: {error}"),
            }
        }
        Ok(Step::Again)
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

    /// Addresses at which another controller may be, with its node id where that is known.
    fn others(&self) -> BTreeMap<String, Option<i32>> {
        let own = self.identity.raft_id();
        let metrics = self.raft.metrics().borrow_watched().clone();
        let mut others = BTreeMap::new();
        for address in &self.places.bootstrap_servers {
            others.insert(address.clone(), None);
        }
        for (id, node) in metrics.membership_config.membership().nodes() {
            others.insert(node.addr.clone(), Some(id.node_id));
        }
        for (id, address) in &*self.places.voters {
            others.insert(address.clone(), Some(*id));
        }
        others.retain(|address, id| *id != Some(own.node_id) && *address != self.places.own_endpoint);
        others
    }

    async fn ask(&self) -> Result<Answers, IdentityError> {
        let others: Vec<(String, Option<i32>)> = self.others().into_iter().collect();
        let asked = others.iter().map(|(address, id)| self.hello(*id, address));
        let replies = futures_util::future::join_all(asked).await;
        let mut answers = Answers::default();
        for ((address, id), reply) in others.into_iter().zip(replies) {
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
            self.identity
                .check_cluster(&reply.cluster_id, &format!("node {} at {address}", reply.node_id))?;
            answers.answered += 1;
            if reply.leads {
                answers.leader = Some((address, reply.knows_you));
                answers.exists = true;
            } else if reply.initialised {
                answers.exists = true;
                if reply.leader_id >= 0 && !reply.leader_endpoint.is_empty() {
                    answers.hearsay = Some(reply.leader_endpoint);
                }
            } else if let Some(raft_id) = RaftId::from_bytes(&reply.raft_id) {
                answers.empty.insert(raft_id, Node::new(address));
            }
        }
        Ok(answers)
    }

    /// The leader, if one was met or heard of.
    async fn find_leader(&self, answers: &Answers) -> Result<Option<(String, bool)>, IdentityError> {
        if answers.leader.is_some() {
            return Ok(answers.leader.clone());
        }
        let Some(address) = answers.hearsay.as_ref().filter(|address| **address != self.places.own_endpoint)
        else {
            return Ok(None);
        };
        let Ok(reply) = self.hello(None, address).await else { return Ok(None) };
        self.identity.check_cluster(&reply.cluster_id, &format!("node {} at {address}", reply.node_id))?;
        Ok(reply.leads.then(|| (address.clone(), reply.knows_you)))
    }

    async fn hello(&self, node_id: Option<i32>, address: &str) -> Result<HelloReply, Status> {
        let mut client =
            self.network.client(address).map_err(|error| Status::unavailable(error.to_string()))?;
        let own = self.identity.raft_id();
        let mut request = Request::new(HelloRequest {
            node_id: own.node_id,
            cluster_id: self.identity.cluster_id(),
            raft_id: own.to_bytes(),
        });
        request.set_timeout(CALL_TIMEOUT);
        let reply = client.hello(request).await?.into_inner();
        if node_id.is_some_and(|node_id| reply.node_id != node_id) {
            return Err(Status::failed_precondition(format!(
                "{address} is configured as node {} but is node {}; check controller.quorum.voters",
                node_id.unwrap_or(-1),
                reply.node_id
            )));
        }
        Ok(reply)
    }

    async fn join(&self, leader: &str, role: JoinRole, memory: &mut Memory) -> Result<Step, IdentityError> {
        let own = self.identity.raft_id();
        let Ok(mut client) = self.network.client(leader) else { return Ok(Step::Again) };
        let mut request = Request::new(JoinRequest {
            node_id: own.node_id,
            raft_id: own.to_bytes(),
            endpoint: self.places.own_endpoint.clone(),
            cluster_id: self.identity.cluster_id(),
            role: role.into(),
        });
        request.set_timeout(JOIN_TIMEOUT);
        let reply = match client.join(request).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => {
                memory.say(format!("the leader at {leader} does not answer: {}", status.message()));
                return Ok(Step::Again);
            }
        };
        memory.not_before = Some(Instant::now() + REFUSED_PAUSE);
        if reply.error_code == 0 {
            if role == JoinRole::Observer {
                memory.say(format!(
                    "this controller follows the quorum and has no vote; 'ottla quorum add {}' gives it one",
                    own.node_id
                ));
            }
            return Ok(Step::Settled);
        }
        memory.say(format!("the leader at {leader} does not take this controller in yet: {}", reply.message));
        let is_not_wanted = reply.error_code == i32::from(ErrorCode::InvalidRequest.code());
        if role == JoinRole::Configured && is_not_wanted {
            // It can follow at least, until somebody adds it.
            return Box::pin(self.join(leader, JoinRole::Observer, memory)).await;
        }
        Ok(Step::Again)
    }
}
