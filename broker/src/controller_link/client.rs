//! Finds the controller that leads and sends it what a broker wants: one call for everyone who must change metadata.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use ottla_proto::controller as proto;
use ottla_proto::controller::controller_client::ControllerClient as GrpcClient;
use ottla_proto::transport::Dial;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::channel::{MESSAGE_BYTES_MAX, connect};

/// Kafka's NOT_CONTROLLER.
const NOT_CONTROLLER: i32 = 41;
/// Pause before the next controller is tried when none answered as the leader.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The pause grows to this while there is no leader.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(250);
/// One call may take this long; the leader commits within it or is not one any more.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a command got no answer from a leader.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// Nobody led, or nobody could be reached, for as long as the caller would wait. The command may have taken effect.
    #[error("no controller that leads answered within {0:?}: {1}")]
    Unavailable(Duration, String),
    /// A controller refused the call itself.
    #[error("the controller refused: {0}")]
    Refused(String),
}

/// A handle on the metadata quorum. Clones share the channels and the knowledge of who leads.
#[derive(Clone)]
pub struct ControllerClient {
    shared: Arc<Shared>,
}

struct Shared {
    voters: Vec<String>,
    dial: Dial,
    leader_id: AtomicI32,
    /// Endpoint of the controller that is believed to lead.
    leader: watch::Sender<Option<String>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Controllers that the metadata told of and the properties do not name.
    learned: Vec<String>,
    channels: HashMap<String, Channel>,
    next: usize,
}

impl ControllerClient {
    /// `voters` are the controllers' gRPC endpoints, `host:port`; at least one.
    pub fn new(voters: Vec<String>) -> Self {
        Self::dialled(voters, Dial::default())
    }

    /// As [`Self::new`], with channels that `dial` opens.
    pub fn dialled(voters: Vec<String>, dial: Dial) -> Self {
        let (leader_id, leader) = (AtomicI32::new(-1), watch::Sender::default());
        Self { shared: Arc::new(Shared { voters, dial, leader_id, leader, state: Mutex::default() }) }
    }

    /// A channel to any node.
    pub(crate) fn channel(&self, endpoint: &str) -> Result<Channel, tonic::transport::Error> {
        connect(&self.shared.dial, endpoint)
    }

    /// Decides and commits one command on the leader. Commands that are not idempotent by themselves carry an id, so
    /// that a retry after a lost answer does nothing twice.
    pub async fn submit(&self, command: proto::command::Command) -> Result<proto::CommandReply, LinkError> {
        self.submit_within(command, Duration::from_secs(30)).await
    }

    /// As [`Self::submit`], giving up after `patience`.
    pub async fn submit_within(
        &self,
        command: proto::command::Command,
        patience: Duration,
    ) -> Result<proto::CommandReply, LinkError> {
        let command_id = bytes::Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        let command = proto::Command { command_id, command: Some(command) };
        self.on_leader(patience, CALL_TIMEOUT, |mut client| {
            let command = command.clone();
            async move { client.submit(command).await.map(tonic::Response::into_inner) }
        })
        .await
    }

    /// Registers this broker; the reply's failure is the caller's to judge.
    pub async fn register(
        &self,
        request: proto::RegisterBrokerRequest,
        patience: Duration,
    ) -> Result<proto::RegisterBrokerReply, LinkError> {
        self.on_leader(patience, CALL_TIMEOUT, |mut client| {
            let request = request.clone();
            async move { client.register_broker(request).await.map(tonic::Response::into_inner) }
        })
        .await
    }

    /// Changes who votes or who leads; the reply's failure is the caller's to judge. The leader answers when it is done.
    pub async fn change_quorum(
        &self,
        request: proto::ChangeQuorumRequest,
        patience: Duration,
    ) -> Result<proto::ChangeQuorumReply, LinkError> {
        self.on_leader(patience, patience + CALL_TIMEOUT, |mut client| {
            let request = request.clone();
            async move { client.change_quorum(request).await.map(tonic::Response::into_inner) }
        })
        .await
    }

    /// The quorum's state as its leader sees it.
    pub async fn describe_quorum(&self) -> Result<proto::DescribeQuorumReply, LinkError> {
        let mut last = String::from("no controller is configured");
        let mut is_redirected = false;
        for _ in 0..=self.known() {
            let endpoint = self.endpoint();
            match self.grpc(&endpoint).describe_quorum(proto::DescribeQuorumRequest {}).await {
                Ok(reply) => {
                    let reply = reply.into_inner();
                    let leads = reply.voters.iter().find(|voter| voter.node_id == reply.leader_id);
                    // Only the leader hears of the others.
                    if let Some(leader) = leads
                        && leader.endpoint != endpoint
                        && !std::mem::replace(&mut is_redirected, true)
                    {
                        self.note_leader(&leader.endpoint);
                        continue;
                    }
                    if reply.leader_id >= 0 {
                        return Ok(reply);
                    }
                    last = format!("{endpoint} knows no leader");
                }
                Err(status) => last = format!("{endpoint}: {}", status.message()),
            }
            self.forget(&endpoint);
        }
        Err(LinkError::Unavailable(Duration::ZERO, last))
    }

    /// A client of the controller that is believed to lead, or of the next one in turn.
    pub(crate) fn leader(&self) -> (String, GrpcClient<Channel>) {
        let endpoint = self.endpoint();
        let client = self.grpc(&endpoint);
        (endpoint, client)
    }

    /// Endpoint of the controller that is believed to lead, as it changes.
    pub(crate) fn watch_leader(&self) -> watch::Receiver<Option<String>> {
        self.shared.leader.subscribe()
    }

    /// A client of any controller, a different one at each call.
    pub(crate) fn any(&self) -> (String, GrpcClient<Channel>) {
        let endpoint = self.next_in_turn();
        let client = self.grpc(&endpoint);
        (endpoint, client)
    }

    /// Node id of the controller that leads, as far as the metadata stream told; -1: not known.
    pub fn leader_id(&self) -> i32 {
        self.shared.leader_id.load(Ordering::Relaxed)
    }

    /// Takes note of the leader's node id.
    pub(crate) fn note_leader_id(&self, id: i32) {
        self.shared.leader_id.store(id, Ordering::Relaxed);
    }

    /// Takes note of who leads; an empty endpoint is no news.
    pub(crate) fn note_leader(&self, endpoint: &str) {
        if !endpoint.is_empty() {
            self.shared.leader.send_if_modified(|leader| {
                let is_news = leader.as_deref() != Some(endpoint);
                *leader = Some(endpoint.to_owned());
                is_news
            });
        }
    }

    /// The controller at `endpoint` does not lead, or does not answer.
    pub(crate) fn forget(&self, endpoint: &str) {
        self.shared.leader.send_if_modified(|leader| {
            let is_it = leader.as_deref() == Some(endpoint);
            if is_it {
                *leader = None;
            }
            is_it
        });
    }

    async fn on_leader<Reply, Call, Sent>(
        &self,
        patience: Duration,
        call_timeout: Duration,
        call: Call,
    ) -> Result<Reply, LinkError>
    where
        Reply: HasFailure,
        Call: Fn(GrpcClient<Channel>) -> Sent,
        Sent: Future<Output = Result<Reply, tonic::Status>>,
    {
        let started = tokio::time::Instant::now();
        let mut pause = RETRY_PAUSE;
        let mut last;
        loop {
            let (endpoint, client) = self.leader();
            match tokio::time::timeout(call_timeout, call(client)).await {
                Ok(Ok(reply)) => match reply.failure() {
                    Some(failure) if failure.error_code == NOT_CONTROLLER => {
                        last = format!("{endpoint} does not lead");
                        self.forget(&endpoint);
                        self.note_leader(&failure.leader_endpoint);
                    }
                    _ => {
                        self.note_leader(&endpoint);
                        return Ok(reply);
                    }
                },
                Ok(Err(status)) => {
                    last = format!("{endpoint}: {}", status.message());
                    self.forget(&endpoint);
                    if matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::PermissionDenied) {
                        return Err(LinkError::Refused(last));
                    }
                }
                Err(_) => {
                    last = format!("{endpoint}: no answer within {call_timeout:?}");
                    self.forget(&endpoint);
                }
            }
            if started.elapsed() + pause > patience {
                return Err(LinkError::Unavailable(patience, last));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    fn endpoint(&self) -> String {
        if let Some(leader) = &*self.shared.leader.borrow() {
            return leader.clone();
        }
        self.next_in_turn()
    }

    /// How many controllers are known.
    fn known(&self) -> usize {
        self.shared.voters.len() + self.shared.state.lock().learned.len()
    }

    fn next_in_turn(&self) -> String {
        let mut state = self.shared.state.lock();
        state.next += 1;
        let at = state.next % (self.shared.voters.len() + state.learned.len());
        let mut known = self.shared.voters.iter().chain(&state.learned);
        known.nth(at).cloned().unwrap_or_default()
    }

    /// Takes note of where all controllers are; nothing told is no news.
    pub(crate) fn note_controllers(&self, endpoints: Vec<String>) {
        if endpoints.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        let is_used =
            |endpoint: &String| endpoints.contains(endpoint) || self.shared.voters.contains(endpoint);
        state.channels.retain(|endpoint, _| is_used(endpoint));
        state.learned =
            endpoints.into_iter().filter(|endpoint| !self.shared.voters.contains(endpoint)).collect();
    }

    fn grpc(&self, endpoint: &str) -> GrpcClient<Channel> {
        let mut state = self.shared.state.lock();
        if !state.channels.contains_key(endpoint) {
            match connect(&self.shared.dial, endpoint) {
                Ok(channel) => {
                    state.channels.insert(endpoint.to_owned(), channel);
                }
                Err(error) => tracing::warn!(endpoint, %error, "not a usable controller endpoint"),
            }
        }
        // An endpoint that cannot even be parsed falls back to one that could.
        let channel = state.channels.get(endpoint).cloned();
        drop(state);
        let channel = channel
            .unwrap_or_else(|| tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
        GrpcClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Replies that say when they do not come from the leader.
trait HasFailure {
    fn failure(&self) -> Option<&proto::Failure>;
}

impl HasFailure for proto::CommandReply {
    fn failure(&self) -> Option<&proto::Failure> {
        self.failure.as_ref()
    }
}

impl HasFailure for proto::RegisterBrokerReply {
    fn failure(&self) -> Option<&proto::Failure> {
        self.failure.as_ref()
    }
}

impl HasFailure for proto::ChangeQuorumReply {
    fn failure(&self) -> Option<&proto::Failure> {
        self.failure.as_ref()
    }
}
