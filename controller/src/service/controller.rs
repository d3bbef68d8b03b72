//! What brokers ask of a controller: the service of `controller.proto`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use ottla_metadata::image::{BrokerEpoch, BrokerId};
use ottla_proto::controller as proto;
use ottla_proto::controller::metadata_update::Update;
use ottla_wire::error_code::ErrorCode;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::identity::Identity;
use crate::leader::{Ask, Doors, Life, not_controller};
use crate::leadership::{Leader, Leadership};
use crate::quorum::{QuorumChanges, Refusal};
use crate::state_machine::{Next, StateMachine, snapshot_file};
use crate::types::{Raft, RaftId};

/// Updates that wait for a slow follower; it is not sent more until it takes some.
const UPDATES_MAX: usize = 256;
/// A follower that takes nothing for this long is dropped; it comes again and is given what it missed.
const FOLLOWER_STALL: Duration = Duration::from_secs(10);
/// A follower of the metadata hears something this often, so that it can tell a quiet cluster from a controller that hangs.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// Replies to heartbeats that wait for a slow broker.
const REPLIES_MAX: usize = 64;

/// A change of the quorum is tried for at least so long, however impatient the caller: it may be committed anyway.
const CHANGE_PATIENCE_MIN: Duration = Duration::from_millis(500);
/// A caller that asks for longer is answered sooner all the same.
const CHANGE_PATIENCE_MAX: Duration = Duration::from_secs(600);

/// How often, and after what pause, a question after the quorum looks for members that catch up.
const CATCH_UP_LOOKS: usize = 10;
const CATCH_UP_PAUSE: Duration = Duration::from_millis(20);

/// The service.
#[derive(Clone)]
pub(crate) struct ControllerService {
    pub(crate) identity: Arc<Identity>,
    pub(crate) raft: Raft,
    pub(crate) machine: StateMachine,
    pub(crate) leadership: Leadership,
    pub(crate) doors: Doors,
    pub(crate) changes: QuorumChanges,
    pub(crate) stop: CancellationToken,
}

fn named(leader: Option<Leader>) -> (i32, String) {
    leader.map_or((-1, String::new()), |leader| (leader.node_id, leader.endpoint))
}

impl ControllerService {
    fn not_controller(&self) -> proto::Failure {
        not_controller(self.leadership.leader())
    }

    fn check_cluster(&self, cluster_id: &str, from: &str) -> Result<(), Status> {
        self.identity
            .check_cluster(cluster_id, from)
            .map_err(|error| Status::failed_precondition(error.to_string()))
    }
}

/// Sends to a follower; an error: it is gone, or too slow.
async fn give(
    updates: &mpsc::Sender<Result<proto::MetadataUpdate, Status>>,
    update: proto::MetadataUpdate,
) -> Result<(), ()> {
    match tokio::time::timeout(FOLLOWER_STALL, updates.send(Ok(update))).await {
        Ok(sent) => sent.map_err(drop),
        Err(_) => Err(()),
    }
}

/// Gives one follower every entry from an index on, once and in order.
async fn feed(
    machine: StateMachine,
    leadership: Leadership,
    mut index: i64,
    updates: mpsc::Sender<Result<proto::MetadataUpdate, Status>>,
) -> Result<(), ()> {
    let mut applied = machine.watch_applied();
    let mut leaders = leadership.watch();
    let mut told = None;
    let mut update = |update| {
        let (leader_id, leader_endpoint) = named(leadership.leader());
        let controller_endpoints = machine.new_voter_endpoints(&mut told);
        proto::MetadataUpdate { update, leader_id, leader_endpoint, controller_endpoints }
    };
    // Who leads is news by itself: a follower that waits for entries learns of a failover without one.
    give(&updates, update(None)).await?;
    loop {
        applied.mark_unchanged();
        match machine.next(index) {
            Next::Entry(entry) => {
                let delta = entry.delta().map_err(drop)?;
                give(&updates, update(Some(Update::Delta(delta)))).await?;
                index += 1;
            }
            Next::Missed(missed) => {
                let (position, image) = machine.image_at();
                if image.index().0 < missed.oldest - 1 {
                    return Err(());
                }
                let term = position.map_or(0, |position| position.leader_id.term);
                for chunk in snapshot_file::chunks(&image, term) {
                    give(&updates, update(Some(Update::Snapshot(chunk)))).await?;
                }
                index = image.index().0 + 1;
            }
            Next::Wait => tokio::select! {
                changed = applied.changed() => changed.map_err(drop)?,
                changed = leaders.changed() => {
                    changed.map_err(drop)?;
                    give(&updates, update(None)).await?;
                }
                () = tokio::time::sleep(SIGN_OF_LIFE) => give(&updates, update(None)).await?,
                () = updates.closed() => return Err(()),
            },
        }
    }
}

/// Answers one broker's heartbeats, in order, until the stream ends; says so when it breaks.
async fn hold_session(
    service: ControllerService,
    mut heartbeats: Streaming<proto::BrokerHeartbeat>,
    replies: mpsc::Sender<Result<proto::BrokerHeartbeatReply, Status>>,
) {
    let mut last = None;
    loop {
        let beat = tokio::select! {
            beat = heartbeats.message() => beat,
            () = replies.closed() => break,
        };
        let Ok(Some(beat)) = beat else { break };
        last = Some((BrokerId(beat.broker_id), BrokerEpoch(beat.broker_epoch), beat.session));
        let (sender, reply) = oneshot::channel();
        if service.doors.lives.send(Life::Heartbeat(beat, sender)).await.is_err() {
            break;
        }
        let Ok(reply) = reply.await else { break };
        let is_refused = reply.failure.is_some();
        if replies.send(Ok(reply)).await.is_err() || is_refused {
            break;
        }
    }
    if let Some((id, epoch, session)) = last {
        // Nobody minds when the node stops.
        drop(service.doors.lives.send(Life::SessionBroken(id, epoch, session)).await);
    }
}

#[tonic::async_trait]
impl proto::controller_server::Controller for ControllerService {
    type SessionStream = BoxStream<'static, Result<proto::BrokerHeartbeatReply, Status>>;
    type FollowMetadataStream = BoxStream<'static, Result<proto::MetadataUpdate, Status>>;

    async fn identify(
        &self,
        _: Request<proto::IdentifyRequest>,
    ) -> Result<Response<proto::IdentifyReply>, Status> {
        let (leader_id, leader_endpoint) = named(self.leadership.leader());
        Ok(Response::new(proto::IdentifyReply {
            node_id: self.identity.raft_id().node_id,
            cluster_id: self.identity.cluster_id(),
            leader_id,
            leader_endpoint,
        }))
    }

    async fn register_broker(
        &self,
        request: Request<proto::RegisterBrokerRequest>,
    ) -> Result<Response<proto::RegisterBrokerReply>, Status> {
        let (sender, reply) = oneshot::channel();
        let ask = Ask::Register(Box::new(request.into_inner()), sender);
        let failed =
            || proto::RegisterBrokerReply { failure: Some(self.not_controller()), ..Default::default() };
        if self.doors.asks.send(ask).await.is_err() {
            return Ok(Response::new(failed()));
        }
        Ok(Response::new(reply.await.unwrap_or_else(|_| failed())))
    }

    async fn session(
        &self,
        request: Request<Streaming<proto::BrokerHeartbeat>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (sender, replies) = mpsc::channel(REPLIES_MAX);
        let session = hold_session(self.clone(), request.into_inner(), sender);
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(session).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }

    async fn follow_metadata(
        &self,
        request: Request<proto::FollowMetadataRequest>,
    ) -> Result<Response<Self::FollowMetadataStream>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id, &format!("node {}", request.node_id))?;
        let (sender, updates) = mpsc::channel(UPDATES_MAX);
        let feed = feed(self.machine.clone(), self.leadership.clone(), request.from_index.max(0), sender);
        let stop = self.stop.clone();
        let node_id = request.node_id;
        tokio::spawn(async move {
            // However it ends, the follower comes again if it wants more.
            let _ended = stop.run_until_cancelled(feed).await;
            tracing::debug!(node_id, "a follower of the metadata is gone");
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(updates))))
    }

    async fn submit(
        &self,
        request: Request<proto::Command>,
    ) -> Result<Response<proto::CommandReply>, Status> {
        let (sender, reply) = oneshot::channel();
        let failed = || proto::CommandReply { failure: Some(self.not_controller()), ..Default::default() };
        if self.doors.asks.send(Ask::Command(request.into_inner(), sender)).await.is_err() {
            return Ok(Response::new(failed()));
        }
        Ok(Response::new(reply.await.unwrap_or_else(|_| failed())))
    }

    async fn describe_quorum(
        &self,
        _: Request<proto::DescribeQuorumRequest>,
    ) -> Result<Response<proto::DescribeQuorumReply>, Status> {
        // Whoever gets what the log has now within a moment has caught up: under load nobody ever has all of it.
        let asked_end = position(self.raft.metrics().borrow_watched().last_log_index);
        for _ in 0..CATCH_UP_LOOKS {
            let reply = describe_quorum(&self.raft, self.leadership.leader(), asked_end);
            let is_late =
                |voter: &proto::QuorumMember| voter.last_fetch_ms >= 0 && voter.last_caught_up_ms < 0;
            if !self.raft.is_leader() || !reply.voters.iter().any(is_late) {
                return Ok(Response::new(reply));
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
        Ok(Response::new(describe_quorum(&self.raft, self.leadership.leader(), asked_end)))
    }

    async fn change_quorum(
        &self,
        request: Request<proto::ChangeQuorumRequest>,
    ) -> Result<Response<proto::ChangeQuorumReply>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id, "the request")?;
        let mut reply = proto::ChangeQuorumReply { leader_id: -1, ..Default::default() };
        if !self.raft.is_leader() {
            reply.failure = Some(self.not_controller());
            return Ok(Response::new(reply));
        }
        match self.change_quorum_as(request).await {
            Ok(Some(leader_id)) => reply.leader_id = leader_id,
            Ok(None) => reply.leader_id = self.leadership.leader().map_or(-1, |leader| leader.node_id),
            // Only a refusal that sends the caller elsewhere names the leader.
            Err(refusal) if refusal.code == ErrorCode::NotController => {
                reply.failure = Some(self.not_controller());
            }
            Err(Refusal { code, message }) => {
                let error_code = code.code().into();
                reply.failure = Some(proto::Failure { error_code, message, ..Default::default() });
            }
        }
        reply.voters = self.changes.voters();
        Ok(Response::new(reply))
    }
}

impl ControllerService {
    /// Who leads then, where the change says so.
    async fn change_quorum_as(&self, request: proto::ChangeQuorumRequest) -> Result<Option<i32>, Refusal> {
        use proto::change_quorum_request::Change;
        let patience_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
        let patience = Duration::from_millis(patience_ms).clamp(CHANGE_PATIENCE_MIN, CHANGE_PATIENCE_MAX);
        let incarnation = |bytes: &[u8]| -> Result<Option<u128>, Refusal> {
            if bytes.is_empty() {
                return Ok(None);
            }
            let bytes: Result<[u8; 16], _> = bytes.try_into();
            let message = "a directory id has 16 bytes".to_owned();
            bytes
                .map(|bytes| Some(u128::from_be_bytes(bytes)))
                .map_err(|_| Refusal { code: ErrorCode::InvalidRequest, message })
        };
        match request.change {
            Some(Change::Add(add)) => {
                let incarnation = incarnation(&add.incarnation)?;
                self.changes.add(add.node_id, incarnation, add.endpoint, patience).await.map(|()| None)
            }
            Some(Change::Remove(remove)) => {
                let incarnation = incarnation(&remove.incarnation)?;
                self.changes.remove(remove.node_id, incarnation, patience).await.map(|()| None)
            }
            Some(Change::Transfer(transfer)) => {
                let to = Some(transfer.node_id).filter(|id| *id >= 0);
                self.changes.transfer(to, patience).await.map(Some)
            }
            None => Err(Refusal {
                code: ErrorCode::InvalidRequest,
                message: "a change that this controller does not know".to_owned(),
            }),
        }
    }
}

fn position(index: Option<u64>) -> i64 {
    index.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX))
}

/// `asked_end`: who has the log up to there counts as caught up.
fn describe_quorum(raft: &Raft, leader: Option<Leader>, asked_end: i64) -> proto::DescribeQuorumReply {
    let metrics = raft.metrics().borrow_watched().clone();
    let own_end = position(metrics.last_log_index);
    let membership = metrics.membership_config.membership();
    let member = |id: RaftId, endpoint: String| {
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|all| all.get(&id))
            .map(|at| position(at.as_ref().map(|at| at.index)));
        let is_own = id == metrics.id;
        let end = if is_own { Some(own_end) } else { matched };
        // Only the leader hears of the others.
        let heard = metrics
            .heartbeat
            .as_ref()
            .and_then(|all| all.get(&id))
            .and_then(Option::as_ref)
            .map(|at| crate::now_ms() - i64::try_from(at.elapsed().as_millis()).unwrap_or(0));
        let fetched_ms = if is_own { crate::now_ms() } else { heard.unwrap_or(-1) };
        let is_behind = end.is_none_or(|end| end < asked_end);
        proto::QuorumMember {
            node_id: id.node_id,
            incarnation: bytes::Bytes::copy_from_slice(&id.incarnation.to_be_bytes()),
            log_end_offset: end.unwrap_or(-1),
            last_fetch_ms: fetched_ms,
            last_caught_up_ms: if is_behind { -1 } else { fetched_ms },
            endpoint,
        }
    };
    let all: Vec<_> = membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
    let voters: std::collections::BTreeSet<RaftId> = membership.voter_ids().collect();
    let (voting, observing): (Vec<_>, Vec<_>) = all.into_iter().partition(|(id, _)| voters.contains(id));
    proto::DescribeQuorumReply {
        leader_id: leader.map_or(-1, |leader| leader.node_id),
        leader_epoch: position(Some(metrics.current_term)),
        high_watermark: position(metrics.last_applied.as_ref().map(|id| id.index)),
        voters: voting.into_iter().map(|(id, endpoint)| member(id, endpoint)).collect(),
        observers: observing.into_iter().map(|(id, endpoint)| member(id, endpoint)).collect(),
    }
}
