//! Controllers in one process, over real gRPC on loopback ports.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test stops where its ground is gone, and does not use everything"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ottla_controller::{Controller, ControllerOptions};
use ottla_proto::controller as proto;
use ottla_proto::controller::controller_client::ControllerClient;
use ottla_proto::metadata::{Endpoint, RegisterBrokerRecord};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tonic::transport::Channel;

pub(crate) struct Node {
    pub(crate) controller: Controller,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) server: tokio::task::JoinHandle<()>,
}

impl Node {
    pub(crate) fn identity(&self) -> (String, [u8; 16]) {
        (self.controller.cluster_id(), self.controller.incarnation())
    }
}

pub(crate) struct Cluster {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) voters: Vec<(i32, String)>,
    /// Nodes that are told bootstrap servers only.
    pub(crate) newcomers: Vec<i32>,
    pub(crate) observer_silence_max: Duration,
    /// `controller.quorum.auto.join.enable`
    pub(crate) join_by_themselves: bool,
    pub(crate) nodes: BTreeMap<i32, Node>,
    /// Bound and never listening: the ports stay ours while a node is down, and refuse connections.
    reserved: Vec<TcpSocket>,
}

/// A socket of an address that others of ours may share.
pub(crate) fn bound(address: &str) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    socket
}

pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Cluster {
    pub(crate) fn new(count: i32) -> Self {
        let reserved: Vec<_> = (0..count).map(|_| bound("127.0.0.1:0")).collect();
        let voters =
            (1..).zip(&reserved).map(|(id, socket)| (id, socket.local_addr().unwrap().to_string())).collect();
        let directory = tempfile::tempdir().unwrap();
        Self {
            directory,
            voters,
            newcomers: Vec::new(),
            join_by_themselves: false,
            observer_silence_max: Duration::from_secs(300),
            nodes: BTreeMap::new(),
            reserved,
        }
    }

    pub(crate) fn path(&self, id: i32) -> std::path::PathBuf {
        self.directory.path().join(id.to_string())
    }

    pub(crate) fn address(&self, id: i32) -> &str {
        &self.voters.iter().find(|(voter, _)| *voter == id).unwrap().1
    }

    pub(crate) fn options(&self, id: i32) -> ControllerOptions {
        let (newcomers, voters): (Vec<_>, Vec<_>) =
            self.voters.iter().cloned().partition(|(id, _)| self.newcomers.contains(id));
        let is_newcomer = newcomers.iter().any(|(newcomer, _)| *newcomer == id);
        let servers = voters.iter().map(|(_, address)| address.clone()).filter(|_| is_newcomer).collect();
        ControllerOptions {
            node_id: id,
            metadata_dir: self.path(id),
            voters: if is_newcomer { Vec::new() } else { voters },
            bootstrap_servers: servers,
            joins_by_itself: self.join_by_themselves,
            own_endpoint: self.address(id).to_owned(),
            observer_silence_max: self.observer_silence_max,
            cluster_id: None,
            snapshot_entries: 20,
            kept_entries: 10,
            // The machine may be busy with other tests: who leads should not change because of that.
            election_timeout_min_ms: 800,
            election_timeout_max_ms: 1_200,
            session_timeout_ms: 60_000,
            ..ControllerOptions::default()
        }
    }

    pub(crate) async fn start(&mut self, id: i32) {
        let controller = Controller::start(self.options(id)).await.unwrap();
        let (stop, server) = self.serve(id, controller.routes());
        self.nodes.insert(id, Node { controller, stop, server });
    }

    fn serve(
        &self,
        id: i32,
        routes: tonic::service::Routes,
    ) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = bound(self.address(id)).listen(1_024).unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            tonic::transport::Server::builder()
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .unwrap();
        });
        (stop, server)
    }

    /// The node runs on, and nobody reaches it.
    pub(crate) async fn mute(&mut self, id: i32) {
        let node = self.nodes.get_mut(&id).unwrap();
        let (stop, _) = oneshot::channel();
        drop(std::mem::replace(&mut node.stop, stop));
        node.server.abort();
        let server = std::mem::replace(&mut node.server, tokio::spawn(async {}));
        drop(server.await);
    }

    /// It is reached again.
    pub(crate) fn unmute(&mut self, id: i32) {
        let (stop, server) = self.serve(id, self.nodes[&id].controller.routes());
        let node = self.nodes.get_mut(&id).unwrap();
        (node.stop, node.server) = (stop, server);
    }

    /// The node has another port from now on.
    pub(crate) fn relocate(&mut self, id: i32) {
        let socket = bound("127.0.0.1:0");
        let voter = self.voters.iter_mut().find(|(voter, _)| *voter == id).unwrap();
        voter.1 = socket.local_addr().unwrap().to_string();
        self.reserved.push(socket);
    }

    pub(crate) async fn started(count: i32) -> Self {
        let mut cluster = Self::new(count);
        for id in (1..=count).rev() {
            cluster.start(id).await;
        }
        cluster
    }

    /// As killed: nothing is handed over.
    pub(crate) async fn kill(&mut self, id: i32) {
        let node = self.nodes.remove(&id).unwrap();
        node.controller.abandon().await;
        drop(node.stop);
        drop(node.server.await);
    }

    pub(crate) async fn leader(&self) -> i32 {
        eventually("a leader that all know", async || {
            let mut known = self.nodes.values().map(|node| node.controller.watch_leader().borrow().clone());
            let first = known.next()??.node_id;
            (known.all(|leader| leader.is_some_and(|leader| leader.node_id == first))
                && self.nodes.contains_key(&first))
            .then_some(first)
        })
        .await
    }

    pub(crate) async fn client(&self, id: i32) -> ControllerClient<Channel> {
        let address = format!("http://{}", self.address(id));
        eventually("a connection", async || ControllerClient::connect(address.clone()).await.ok()).await
    }

    /// Registers a broker with whoever leads; gives its epoch.
    pub(crate) async fn register(&self, id: i32) -> i64 {
        eventually("a registration", async || {
            let mut client = self.client(self.leader().await).await;
            let reply = client.register_broker(registration(id)).await.ok()?.into_inner();
            reply.failure.is_none().then_some(reply.broker_epoch)
        })
        .await
    }

    /// Sends a command to whoever leads until it is carried out.
    pub(crate) async fn submit(&self, command: &proto::Command) -> proto::CommandReply {
        eventually("a command", async || {
            let mut client = self.client(self.leader().await).await;
            let reply = client.submit(command.clone()).await.ok()?.into_inner();
            reply.failure.is_none().then_some(reply)
        })
        .await
    }

    pub(crate) async fn all_have(&self, what: &str, holds: impl Fn(&Controller) -> bool) {
        eventually(what, async || self.nodes.values().all(|node| holds(&node.controller)).then_some(()))
            .await;
    }
}

pub(crate) fn registration(id: i32) -> proto::RegisterBrokerRequest {
    proto::RegisterBrokerRequest {
        cluster_id: String::new(),
        registration: Some(RegisterBrokerRecord {
            broker_id: id,
            incarnation_id: vec![u8::try_from(id % 250).unwrap(); 16].into(),
            endpoints: vec![Endpoint {
                name: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 1,
                security_protocol: "PLAINTEXT".into(),
            }],
            ..Default::default()
        }),
        previous_broker_epoch: -1,
    }
}

pub(crate) type Beats = tokio::sync::mpsc::Sender<proto::BrokerHeartbeat>;

/// A session of a broker that is not fenced, with whoever leads.
pub(crate) async fn serving(cluster: &Cluster, id: i32, epoch: i64) -> Beats {
    eventually("a session", async || {
        let mut client = cluster.client(cluster.leader().await).await;
        unfence(&mut client, id, epoch).await
    })
    .await
}

/// Beats until the broker may serve; `None`: the leader has changed meanwhile.
pub(crate) async fn unfence(client: &mut ControllerClient<Channel>, id: i32, epoch: i64) -> Option<Beats> {
    let (beats, receiver) = tokio::sync::mpsc::channel(4);
    let beat = proto::BrokerHeartbeat {
        broker_id: id,
        broker_epoch: epoch,
        // It has applied whatever there is.
        metadata_index: i64::MAX,
        ..Default::default()
    };
    beats.send(beat.clone()).await.unwrap();
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut replies = client.session(outgoing).await.ok()?.into_inner();
    loop {
        let reply = replies.message().await.ok()??;
        if reply.failure.is_some() {
            return None;
        }
        if !reply.is_fenced {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        beats.send(beat.clone()).await.ok()?;
    }
    // The replies must stay open as long as the beats.
    tokio::spawn(async move { while let Ok(Some(_)) = replies.message().await {} });
    Some(beats)
}

pub(crate) fn create(name: &str) -> proto::Command {
    let topic =
        proto::NewTopic { name: name.into(), partitions: 1, replication_factor: 1, ..Default::default() };
    let create = proto::CreateTopics { validate_only: false, topics: vec![topic] };
    proto::Command {
        command_id: name.as_bytes().to_vec().into(),
        command: Some(proto::command::Command::CreateTopics(create)),
    }
}
