//! Who votes: changes of the quorum's membership, carried out by the controller that leads.
//!
//! A controller first follows the log without a vote, as an *observer* (Raft's learner). When it has what the leader had
//! when it was asked for, it is made a voter by joint consensus: old and new majority must both agree in between (Raft,
//! section 6; KIP-853 says what Kafka's tools expect). One change at a time; a change goes on when whoever asked is gone,
//! and one that a leader left half done is finished by the next.

mod keeper;
mod succession;
mod warden;

pub(crate) use keeper::{Keeper, Places};
pub(crate) use succession::Succession;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use ottla_wire::error_code::ErrorCode;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::leadership::Leadership;
use crate::network::Network;
use crate::types::{Membership, Node, Raft, RaftId};

/// How often the progress of a change is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Observers that are let in: more would only cost the leader.
const OBSERVERS_MAX: usize = 64;

/// What openraft says of its own state.
pub(super) type Metrics = openraft::RaftMetrics<crate::types::TypeConfig>;

/// Why a change was not made: Kafka's code and what to do.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn failed(error: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::UnknownServerError, error.to_string())
    }
}

/// In which part a controller wants to be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// As a voter.
    Voter,
    /// As what it is already, or else as an observer.
    Observer,
}

/// Changes of the membership. Clones share the order of changes.
#[derive(Clone)]
pub(crate) struct QuorumChanges {
    pub(crate) raft: Raft,
    pub(crate) leadership: Leadership,
    pub(crate) network: Network,
    /// Who has not answered the leader for so long counts as down.
    pub(crate) down_after: Duration,
    /// An observer that has not answered for so long is forgotten; it comes again by itself.
    pub(crate) observer_silence_max: Duration,
    /// Changes are made one by one.
    pub(crate) one: Arc<Mutex<()>>,
}

fn index(at: Option<u64>) -> i64 {
    at.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX))
}

fn voters_of(membership: &Membership) -> BTreeSet<RaftId> {
    membership.voter_ids().collect()
}

impl QuorumChanges {
    pub(super) fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Node ids of the voters.
    pub(crate) fn voters(&self) -> Vec<i32> {
        self.metrics().membership_config.membership().voter_ids().map(|id| id.node_id).collect()
    }

    /// Runs a change to its end, whether or not the caller waits for it, when the one before has ended.
    async fn in_turn<T, Work>(
        &self,
        patience: Duration,
        work: impl FnOnce(Self, Instant) -> Work + Send + 'static,
    ) -> Result<T, Refusal>
    where
        T: Send + 'static,
        Work: Future<Output = Result<T, Refusal>> + Send,
    {
        let deadline = Instant::now() + patience;
        let late = |what: &str| Refusal::new(ErrorCode::RequestTimedOut, what);
        let turn = tokio::time::timeout_at(deadline, Arc::clone(&self.one).lock_owned()).await.map_err(|_| {
            late("another change of the quorum is under way: wait until 'ottla quorum status' shows it done")
        })?;
        let changes = self.clone();
        let task = tokio::spawn(async move {
            let _turn = turn;
            if !changes.raft.is_leader() {
                return Err(Refusal::new(ErrorCode::NotController, "this controller does not lead"));
            }
            work(changes, deadline).await
        });
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(Refusal::failed(error)),
            Err(_) => Err(late(
                "the change has begun and a majority has not confirmed it yet: look at 'ottla quorum status'",
            )),
        }
    }

    /// Takes a controller in, or notes where it is now. Voter: in place of an older incarnation of the same node, for that
    /// is a disk that no longer exists.
    pub(crate) async fn join(
        &self,
        id: RaftId,
        endpoint: String,
        role: Role,
        patience: Duration,
    ) -> Result<(), Refusal> {
        let membership = self.metrics().membership_config.membership().clone();
        let is_voter = voters_of(&membership).contains(&id);
        let is_there = membership.get_node(&id).is_some_and(|node| node.addr == endpoint);
        if is_there && (role == Role::Observer || (is_voter && membership.get_joint_config().len() == 1)) {
            return Ok(());
        }
        self.in_turn(patience, move |changes, deadline| async move {
            changes.settle().await?;
            changes.observe(id, endpoint).await?;
            if role == Role::Observer {
                return Ok(());
            }
            changes.promote(id, deadline).await
        })
        .await
    }

    /// Makes an observer a voter. Without an incarnation it is the disk with which the node follows the quorum now, which
    /// replaces an older one; with one the node must not vote yet (KIP-853).
    pub(crate) async fn add(
        &self,
        node_id: i32,
        incarnation: Option<u128>,
        endpoint: String,
        patience: Duration,
    ) -> Result<(), Refusal> {
        self.in_turn(patience, move |changes, deadline| async move {
            changes.settle().await?;
            let id = changes.candidate(node_id, incarnation, endpoint).await?;
            changes.promote(id, deadline).await
        })
        .await
    }

    /// Takes a voter's vote away; it follows the log as an observer until it is stopped. A leader hands over, and refuses with
    /// NOT_CONTROLLER: its successor is then to be asked.
    pub(crate) async fn remove(
        &self,
        node_id: i32,
        incarnation: Option<u128>,
        patience: Duration,
    ) -> Result<(), Refusal> {
        self.in_turn(patience, move |changes, deadline| async move {
            changes.settle().await?;
            let metrics = changes.metrics();
            let mut voters = voters_of(metrics.membership_config.membership());
            let found = voters.iter().copied().find(|id| {
                id.node_id == node_id && incarnation.is_none_or(|incarnation| incarnation == id.incarnation)
            });
            let Some(id) = found else { return Err(no_such_voter(node_id, incarnation, &voters)) };
            voters.remove(&id);
            changes.check_remains(&metrics, &voters, node_id).await?;
            if id == metrics.id {
                // Whoever leads next takes the vote away: a leader that does not vote would go on leading.
                changes.hand_over(None, deadline).await?;
                return Err(Refusal::new(ErrorCode::NotController, "this controller has handed over"));
            }
            changes.replace_voters(voters, true).await?;
            tracing::info!(controller = %id, "does not vote any more");
            Ok(())
        })
        .await
    }

    /// Has another voter lead; gives its node id.
    pub(crate) async fn transfer(&self, node_id: Option<i32>, patience: Duration) -> Result<i32, Refusal> {
        self.in_turn(
            patience,
            move |changes, deadline| async move { changes.hand_over(node_id, deadline).await },
        )
        .await
    }

    /// Has another voter lead, this one or the one that is furthest.
    async fn hand_over(&self, node_id: Option<i32>, deadline: Instant) -> Result<i32, Refusal> {
        let metrics = self.metrics();
        let own = metrics.id;
        if node_id == Some(own.node_id) {
            return Ok(own.node_id);
        }
        let voters = voters_of(metrics.membership_config.membership());
        let mut others = voters.iter().copied().filter(|id| *id != own);
        let to = match node_id {
            Some(node_id) => others
                .find(|id| id.node_id == node_id)
                .ok_or_else(|| no_such_voter(node_id, None, &voters))?,
            None => {
                let up = others.filter(|id| self.is_up(&metrics, *id));
                up.max_by_key(|id| matched(&metrics, *id)).ok_or_else(|| {
                    let text = "no other voter runs: start one, or add one with 'ottla quorum add'";
                    Refusal::new(ErrorCode::InvalidRequest, text)
                })?
            }
        };
        if !self.answers(&metrics, to).await {
            let text = format!("controller {} does not answer the leader: start it first", to.node_id);
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        self.raft.trigger().transfer_leader(to).await.map_err(Refusal::failed)?;
        let mut leaders = self.leadership.watch();
        let taken =
            leaders.wait_for(|leader| leader.as_ref().is_some_and(|leader| leader.node_id != own.node_id));
        match tokio::time::timeout_at(deadline, taken).await {
            Ok(Ok(leader)) => Ok(leader.as_ref().map_or(-1, |leader| leader.node_id)),
            _ => Err(Refusal::new(
                ErrorCode::RequestTimedOut,
                format!("controller {} did not take over in time: it may lag behind; try again", to.node_id),
            )),
        }
    }

    /// Finishes a change that an earlier leader has left half done.
    pub(super) async fn settle(&self) -> Result<(), Refusal> {
        if self.metrics().membership_config.membership().get_joint_config().len() < 2 {
            return Ok(());
        }
        let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
        self.raft.change_membership(nothing, true).await.map(drop).map_err(Refusal::failed)
    }

    /// Has a controller follow the log, at this address.
    async fn observe(&self, id: RaftId, endpoint: String) -> Result<(), Refusal> {
        let membership = self.metrics().membership_config.membership().clone();
        let known = membership.get_node(&id).map(|node| node.addr.clone());
        if known.as_deref() == Some(&*endpoint) {
            return Ok(());
        }
        let observers = membership.learner_ids().count();
        if known.is_none() && observers >= OBSERVERS_MAX {
            let text = format!("{observers} controllers follow the quorum already, which is the most");
            return Err(Refusal::new(ErrorCode::PolicyViolation, text));
        }
        // An address is believed only when that very disk answers there: the log goes there from now on.
        let named = self.network.identify(&endpoint).await;
        if named != Some(id) {
            let text = match named {
                None => format!("no controller answers at {endpoint}: check its listeners and the network"),
                Some(other) => format!("at {endpoint} is controller {other}, not {id}"),
            };
            return Err(Refusal::new(ErrorCode::RequestTimedOut, text));
        }
        let nodes = BTreeMap::from([(id, Node::new(endpoint.clone()))]);
        let change = match known {
            Some(_) => ChangeMembers::SetNodes(nodes),
            None => ChangeMembers::AddNodes(nodes),
        };
        self.raft.change_membership(change, true).await.map_err(Refusal::failed)?;
        self.network.learn(self.metrics().membership_config.membership());
        tracing::info!(controller = %id, %endpoint, "follows the quorum");
        Ok(())
    }

    /// Whom to make a voter.
    async fn candidate(
        &self,
        node_id: i32,
        incarnation: Option<u128>,
        endpoint: String,
    ) -> Result<RaftId, Refusal> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let voters = voters_of(membership);
        let voting = voters.iter().find(|id| id.node_id == node_id);
        if let (Some(voting), Some(_)) = (voting, incarnation) {
            let text = format!("controller {voting} votes already; remove it first if its disk is gone");
            return Err(Refusal::new(ErrorCode::DuplicateVoter, text));
        }
        if let Some(incarnation) = incarnation {
            let id = RaftId { node_id, incarnation };
            if membership.get_node(&id).is_none() {
                self.observe(id, endpoint).await?;
            }
            return Ok(id);
        }
        let observers = membership.learner_ids().filter(|id| id.node_id == node_id);
        let newest = observers.max_by_key(|id| heard(&metrics, *id).map(std::cmp::Reverse));
        if let Some(id) = newest {
            return Ok(id);
        }
        Err(match voting {
            Some(_) => Refusal::new(ErrorCode::DuplicateVoter, format!("controller {node_id} votes already")),
            None => Refusal::new(
                ErrorCode::VoterNotFound,
                format!(
                    "node {node_id} does not follow the quorum: start it with process.roles=controller and with the \
                     controllers in controller.quorum.bootstrap.servers, and try again"
                ),
            ),
        })
    }

    /// Gives an observer a vote as soon as it has what the log has now.
    async fn promote(&self, id: RaftId, deadline: Instant) -> Result<(), Refusal> {
        let wanted = index(self.metrics().last_log_index);
        loop {
            let metrics = self.metrics();
            if !self.raft.is_leader() {
                return Err(Refusal::new(ErrorCode::NotController, "this controller does not lead any more"));
            }
            if matched(&metrics, id) >= wanted {
                break;
            }
            if Instant::now() + LOOK > deadline {
                let text = match heard(&metrics, id) {
                    Some(_) => format!(
                        "controller {id} has the log up to {} of {wanted}: wait until it has caught up, and try again",
                        matched(&metrics, id)
                    ),
                    None => format!(
                        "controller {id} does not answer: is it running, and reachable from the leader?"
                    ),
                };
                return Err(Refusal::new(ErrorCode::RequestTimedOut, text));
            }
            tokio::time::sleep(LOOK).await;
        }
        let mut voters = voters_of(self.metrics().membership_config.membership());
        // An older incarnation is not kept as an observer: nobody will ever answer for it.
        voters.retain(|voter| voter.node_id != id.node_id);
        voters.insert(id);
        self.replace_voters(voters, false).await?;
        tracing::info!(controller = %id, "votes");
        Ok(())
    }

    async fn replace_voters(&self, voters: BTreeSet<RaftId>, retain: bool) -> Result<(), Refusal> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.raft.change_membership(change, retain).await.map(drop).map_err(Refusal::failed)
    }

    /// A quorum that could not decide any more once the change is made is not made. Those that remain are asked: one that
    /// has just died has answered the leader a moment ago.
    async fn check_remains(
        &self,
        metrics: &Metrics,
        remaining: &BTreeSet<RaftId>,
        removed: i32,
    ) -> Result<(), Refusal> {
        if remaining.is_empty() {
            let text = "this is the last voter: a cluster needs one; add another first";
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        let asked = remaining.iter().map(|id| async { (id.node_id, self.answers(metrics, *id).await) });
        let answers = futures_util::future::join_all(asked).await;
        let down: Vec<String> =
            answers.iter().filter(|(_, answers)| !answers).map(|(id, _)| id.to_string()).collect();
        let up = remaining.len() - down.len();
        if up > remaining.len() / 2 {
            return Ok(());
        }
        let text = format!(
            "without controller {removed} only {up} of {} voters would run and nothing could be decided: start \
             controller {} first, or remove it instead",
            remaining.len(),
            down.join(", ")
        );
        Err(Refusal::new(ErrorCode::InvalidRequest, text))
    }

    /// Whether a member runs and can be reached now.
    async fn answers(&self, metrics: &Metrics, id: RaftId) -> bool {
        if id == metrics.id {
            return true;
        }
        match self.network.address(metrics.membership_config.membership(), id) {
            Some(address) => self.network.identify(&address).await == Some(id),
            None => false,
        }
    }

    pub(super) fn is_up(&self, metrics: &Metrics, id: RaftId) -> bool {
        heard(metrics, id).is_some_and(|ago| ago < self.down_after)
    }
}

fn no_such_voter(node_id: i32, incarnation: Option<u128>, voters: &BTreeSet<RaftId>) -> Refusal {
    let text = match (voters.iter().find(|id| id.node_id == node_id), incarnation) {
        (Some(voting), Some(_)) => format!(
            "controller {node_id} votes with directory {}, not with this one",
            uuid::Uuid::from_u128(voting.incarnation)
        ),
        _ => {
            let all: Vec<String> = voters.iter().map(|id| id.node_id.to_string()).collect();
            format!("node {node_id} is no voter; the voters are {}", all.join(", "))
        }
    };
    Refusal::new(ErrorCode::VoterNotFound, text)
}

/// How long ago a member last answered this leader; `None`: never.
fn heard(metrics: &Metrics, id: RaftId) -> Option<Duration> {
    if id == metrics.id {
        return Some(Duration::ZERO);
    }
    let at = metrics.heartbeat.as_ref()?.get(&id)?.as_ref()?;
    Some(at.elapsed())
}

/// Up to where a member has the log; -1: not known.
fn matched(metrics: &Metrics, id: RaftId) -> i64 {
    if id == metrics.id {
        return index(metrics.last_log_index);
    }
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&id)).and_then(Option::as_ref);
    index(matched.map(|at| at.index))
}
