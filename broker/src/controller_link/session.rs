//! The broker's session with the controller that leads: heartbeats out, the lease in.
//!
//! The lease is counted from the moment a heartbeat was *sent*, on this machine's monotonic clock, so that the
//! controller's own count (from its arrival) always ends later: a broker stops acting as a leader before anybody else
//! may lead.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ottla_proto::controller as proto;
use ottla_proto::metadata::DirectoryList;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::ControllerClient;
use crate::replica::Grant;
use crate::replication::directory_updates::DirectoryStates;

/// Pause before a lost session is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// What a session reports about, and is steered by.
#[derive(Debug)]
pub struct SessionSignals {
    /// Holds the lease that the heartbeats renew.
    pub grant: Arc<Grant>,
    /// The lease was void and is valid again: parked acknowledgements are to be looked at.
    pub lease_regained: Arc<Notify>,
    /// Last metadata index that this broker has applied.
    pub metadata_index: Arc<AtomicI64>,
    /// The index has moved: a broker that waits to be unfenced asks again at once.
    pub metadata_moved: Arc<Notify>,
    /// Whether the controller has this broker fenced.
    pub fenced: watch::Sender<bool>,
    /// What is to be said of the log directories.
    pub directories: watch::Receiver<DirectoryStates>,
    /// This broker can serve: it may be unfenced.
    pub ready: watch::Receiver<bool>,
    /// Controlled shutdown is wanted.
    pub shut_down: watch::Receiver<bool>,
    /// The controller lets this broker stop.
    pub may_stop: watch::Sender<bool>,
}

/// Parameters of a session.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// This broker.
    pub broker_id: i32,
    /// Its epoch.
    pub broker_epoch: i64,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
}

/// Why a session will not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// The process is stopping.
    Stopped,
    /// The controller no longer knows this broker epoch: the broker must register again. The text says why.
    RegisterAgain(String),
}

/// A controller that has not answered a heartbeat for so long hangs: whoever leads now is looked for, well before the lease
/// ends.
const UNANSWERED_MAX: Duration = Duration::from_secs(2);

/// Kafka's STALE_BROKER_EPOCH and BROKER_ID_NOT_REGISTERED.
const REGISTER_AGAIN: [i32; 2] = [77, 102];

/// Keeps a session open, on whichever controller leads, until it must end.
pub async fn run_session(
    client: &ControllerClient,
    options: &SessionOptions,
    mut signals: SessionSignals,
    stopping: CancellationToken,
) -> (SessionEnd, SessionSignals) {
    loop {
        let (endpoint, grpc) = client.leader();
        let outcome = tokio::select! {
            outcome = one_stream(grpc, options, &mut signals) => outcome,
            () = stopping.cancelled() => return (SessionEnd::Stopped, signals),
        };
        match outcome {
            StreamEnd::RegisterAgain(why) => return (SessionEnd::RegisterAgain(why), signals),
            StreamEnd::NotLeader(leader) => {
                client.forget(&endpoint);
                client.note_leader(&leader);
            }
            StreamEnd::Broken(why) => {
                tracing::debug!(endpoint, why, "the session with the controller broke");
                client.forget(&endpoint);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(REOPEN_PAUSE) => {}
            () = stopping.cancelled() => return (SessionEnd::Stopped, signals),
        }
    }
}

enum StreamEnd {
    RegisterAgain(String),
    NotLeader(String),
    Broken(String),
}

async fn one_stream(
    mut grpc: proto::controller_client::ControllerClient<tonic::transport::Channel>,
    options: &SessionOptions,
    signals: &mut SessionSignals,
) -> StreamEnd {
    // What the network keeps back of one session may arrive after the next has begun: the controller tells them apart.
    static SESSIONS: AtomicU64 = AtomicU64::new(1);
    let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
    let (heartbeats, outgoing) = mpsc::channel(4);
    let heartbeat = |signals: &SessionSignals| heartbeat(options, session, signals);
    // Replies come in the order of the heartbeats: the front is the one that the next reply answers.
    let mut sent_at = std::collections::VecDeque::from([signals.grant.clock().monotonic_ms()]);
    if heartbeats.try_send(heartbeat(signals)).is_err() {
        return StreamEnd::Broken("the stream took no heartbeat".into());
    }
    let opening =
        tokio::time::timeout(Duration::from_secs(2), grpc.session(ReceiverStream::new(outgoing))).await;
    // Since when a heartbeat has waited while nothing was answered.
    let mut unanswered = Some(Instant::now());
    let mut replies = match opening {
        Ok(Ok(replies)) => replies.into_inner(),
        Ok(Err(status)) => return StreamEnd::Broken(status.message().to_owned()),
        Err(_) => return StreamEnd::Broken("the controller did not open the session in time".into()),
    };
    let mut ticks = tokio::time::interval(options.heartbeat_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.reset();
    // While fenced and ready, or shutting down, news is asked for more often than the lease needs.
    let eager = Duration::from_millis(50).min(options.heartbeat_interval);
    loop {
        let hurried = *signals.ready.borrow() && *signals.fenced.borrow() || *signals.shut_down.borrow();
        tokio::select! {
            reply = replies.message() => match reply {
                Ok(Some(reply)) => {
                    unanswered = (sent_at.len() > 1).then(Instant::now);
                    if let Some(end) = take_reply(signals, &reply, sent_at.pop_front()) {
                        return end;
                    }
                    continue;
                }
                Ok(None) => return StreamEnd::Broken("the controller closed the session".into()),
                Err(status) => return StreamEnd::Broken(status.message().to_owned()),
            },
            _ = ticks.tick() => {}
            () = silence(unanswered) => {
                return StreamEnd::Broken("the controller does not answer heartbeats".into());
            }
            () = tokio::time::sleep(eager), if hurried => {}
            () = signals.metadata_moved.notified(), if hurried => {}
            changed = signals.directories.changed() => if changed.is_err() { std::future::pending::<()>().await },
            changed = signals.ready.changed() => if changed.is_err() { std::future::pending::<()>().await },
            changed = signals.shut_down.changed() => if changed.is_err() { std::future::pending::<()>().await },
        }
        if sent_at.len() > 64 {
            return StreamEnd::Broken("the controller does not answer heartbeats".into());
        }
        sent_at.push_back(signals.grant.clock().monotonic_ms());
        unanswered.get_or_insert_with(Instant::now);
        if heartbeats.send(heartbeat(signals)).await.is_err() {
            return StreamEnd::Broken("the controller closed the session".into());
        }
    }
}

/// Returns when the controller has been silent for too long.
async fn silence(unanswered: Option<Instant>) {
    match unanswered {
        Some(since) => tokio::time::sleep_until(since + UNANSWERED_MAX).await,
        None => std::future::pending().await,
    }
}

fn heartbeat(options: &SessionOptions, session: u64, signals: &SessionSignals) -> proto::BrokerHeartbeat {
    let ids =
        |ids: &[uuid::Uuid]| ids.iter().map(|id| bytes::Bytes::copy_from_slice(id.as_bytes())).collect();
    let directories = signals.directories.borrow();
    proto::BrokerHeartbeat {
        broker_id: options.broker_id,
        broker_epoch: options.broker_epoch,
        session,
        metadata_index: signals.metadata_index.load(Ordering::Acquire),
        want_fence: !*signals.ready.borrow(),
        want_shut_down: *signals.shut_down.borrow(),
        offline_directories: ids(&directories.offline),
        cordoned_directories: Some(DirectoryList { directories: ids(&directories.cordoned) }),
    }
}

fn take_reply(
    signals: &SessionSignals,
    reply: &proto::BrokerHeartbeatReply,
    sent_at_ms: Option<u64>,
) -> Option<StreamEnd> {
    if let Some(failure) = reply.failure.as_ref().filter(|failure| failure.error_code != 0) {
        return Some(if REGISTER_AGAIN.contains(&failure.error_code) {
            StreamEnd::RegisterAgain(failure.message.clone())
        } else {
            StreamEnd::NotLeader(failure.leader_endpoint.clone())
        });
    }
    if reply.is_fenced {
        signals.grant.lose_lease();
    } else if let Some(sent_at_ms) = sent_at_ms {
        let lease_ms = u64::try_from(reply.lease_ms).unwrap_or(0);
        if signals.grant.renew_lease(sent_at_ms + lease_ms) {
            signals.lease_regained.notify_one();
        }
    }
    signals.fenced.send_if_modified(|fenced| std::mem::replace(fenced, reply.is_fenced) != reply.is_fenced);
    signals.may_stop.send_if_modified(|may_stop| {
        std::mem::replace(may_stop, reply.should_shut_down) != reply.should_shut_down
    });
    None
}
