//! One controller: everything of this crate put together, and taken apart again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use openraft::SnapshotPolicy;
use openraft::async_runtime::WatchReceiver;
use ottla_metadata::config;
use ottla_metadata::image::MetadataImage;
use ottla_metadata::leases::LeaseOptions;
use ottla_proto::controller::controller_server::ControllerServer;
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::raft::raft_server::RaftServer;
use ottla_proto::transport::{Dial, Gate};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::service::interceptor::InterceptedService;

use crate::identity::{Identity, IdentityError};
use crate::leader::{Decided, LeaderOptions, LeaderTask};
use crate::leadership::{Leader, Leadership};
use crate::metrics;
use crate::network::{MESSAGE_BYTES_MAX, Network};
use crate::quorum::{Keeper, Places, QuorumChanges, Succession};
use crate::service::controller::ControllerService;
use crate::service::raft::RaftService;
use crate::snapshots::{SnapshotLimits, write_in_time};
use crate::state_machine::StateMachine;
use crate::store::{SledStore, StoreError};
use crate::types::Raft;

/// Name of the directory of the Raft log inside the metadata directory.
pub(crate) const LOG_DIRECTORY: &str = "raft-log";
/// Default of `snapshot_entries`.
const SNAPSHOT_ENTRIES: u64 = 10_000;
/// Default of `snapshot_bytes`: Kafka's.
const SNAPSHOT_BYTES: u64 = 20 << 20;
/// Default of `kept_entries`.
const KEPT_ENTRIES: u64 = 2_000;
/// Entries that one request to a follower carries at most.
const REQUEST_ENTRIES_MAX: u64 = 64;
/// How long a snapshot may take to reach a follower, in milliseconds.
const SNAPSHOT_TIMEOUT_MS: u64 = 30_000;
/// How long a leader that stops waits for another one to take over.
const TRANSFER_PATIENCE: Duration = Duration::from_millis(1_500);
/// Kafka's observers are forgotten after so long, too.
const OBSERVER_SILENCE_MAX: Duration = Duration::from_secs(300);
/// A member that has not answered the leader for so many election timeouts counts as down.
const DOWN_AFTER_TIMEOUTS: u64 = 4;
/// A leader that lives says so every `heartbeat_interval_ms`. After so many of them without a word it is looked whether its
/// process has ended.
const SILENT_AFTER_HEARTBEATS: u64 = 2;
/// How soon after a broker is back leadership may return to it.
const REBALANCE_SOON: Duration = Duration::from_secs(1);

/// How a controller is set up.
#[derive(Debug, Clone)]
pub struct ControllerOptions {
    /// `node.id`.
    pub node_id: i32,
    /// Where identity, log and snapshots live; made if it is not there.
    pub metadata_dir: PathBuf,
    /// `controller.quorum.voters`: node id and `host:port` of those that form a new cluster. Who votes later is in the log.
    pub voters: Vec<(i32, String)>,
    /// `controller.quorum.bootstrap.servers`: `host:port` of controllers by which a node that `voters` does not name finds
    /// the quorum. With neither this node is a cluster of its own.
    pub bootstrap_servers: Vec<String>,
    /// `controller.quorum.auto.join.enable`: a controller without a vote asks for one.
    pub joins_by_itself: bool,
    /// An observer that has not answered the leader for so long is forgotten; it comes again by itself.
    pub observer_silence_max: Duration,
    /// `host:port` under which the other controllers reach this one, when `voters` does not name it.
    pub own_endpoint: String,
    /// The id of a cluster that is formed; `None`: drawn at random.
    pub cluster_id: Option<String>,
    /// What a cluster that is formed begins with beside its own records: credentials of a first user.
    pub first_records: Vec<MetadataRecord>,
    /// How other controllers are reached.
    pub dial: Dial,
    /// Who may call what nodes do among themselves.
    pub gate: Gate,
    /// The node's static properties: defaults of the cluster.
    pub properties: Arc<BTreeMap<String, String>>,
    /// `broker.session.timeout.ms`.
    pub session_timeout_ms: u64,
    /// How long a broker whose session broke has to open another.
    pub broken_session_grace_ms: u64,
    /// How often a Raft leader says that it lives, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Without a word from the leader for `election_timeout_max_ms` and then this long at least, an election begins, in
    /// milliseconds.
    pub election_timeout_min_ms: u64,
    /// The upper end of that time; each node draws its own between the two, in milliseconds.
    pub election_timeout_max_ms: u64,
    /// Entries after which the image is written to a snapshot file.
    pub snapshot_entries: u64,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub snapshot_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`; `None`: time alone is no reason for a snapshot.
    pub snapshot_interval: Option<Duration>,
    /// Entries that stay in the log behind a snapshot, so that a follower that is a little late needs no snapshot.
    pub kept_entries: u64,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            node_id: 0,
            metadata_dir: PathBuf::new(),
            voters: Vec::new(),
            bootstrap_servers: Vec::new(),
            joins_by_itself: false,
            observer_silence_max: OBSERVER_SILENCE_MAX,
            own_endpoint: String::new(),
            cluster_id: None,
            first_records: Vec::new(),
            dial: Dial::default(),
            gate: Gate::default(),
            properties: Arc::default(),
            session_timeout_ms: 9_000,
            broken_session_grace_ms: 300,
            heartbeat_interval_ms: 100,
            // Followers wait for a lease of the longest timeout first and then for their own: a leader that is silent is
            // replaced after 0.8 to 1.0 seconds, and one whose process has ended after 0.2 to 0.3.
            election_timeout_min_ms: 300,
            election_timeout_max_ms: 500,
            snapshot_entries: SNAPSHOT_ENTRIES,
            snapshot_bytes: SNAPSHOT_BYTES,
            snapshot_interval: None,
            kept_entries: KEPT_ENTRIES,
        }
    }
}

/// Why a controller cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory belongs to somebody else.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk.
    #[error("the metadata directory {0}: {1}")]
    Io(String, io::Error),
    /// What the options ask for cannot be.
    #[error("{0}")]
    Options(String),
    /// Raft refuses to start.
    #[error("the metadata quorum cannot start: {0}")]
    Raft(String),
}

/// A running controller.
pub struct Controller {
    identity: Arc<Identity>,
    raft: Raft,
    store: SledStore,
    machine: StateMachine,
    leadership: Leadership,
    decided: Arc<Decided>,
    raft_service: RaftServer<RaftService>,
    service: ControllerServer<ControllerService>,
    gate: Gate,
    failed: Arc<watch::Sender<Option<String>>>,
    stop: CancellationToken,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

struct Opened {
    identity: Arc<Identity>,
    store: SledStore,
    machine: StateMachine,
}

/// Opens everything on disk. Blocks.
fn open(directory: &Path, node_id: i32) -> Result<Opened, StartError> {
    let io_error = |error| StartError::Io(directory.display().to_string(), error);
    std::fs::create_dir_all(directory).map_err(io_error)?;
    let identity = Arc::new(Identity::open(directory, node_id)?);
    let store = SledStore::open(&directory.join(LOG_DIRECTORY))?;
    store.give_up_leadership(identity.raft_id()).map_err(io_error)?;
    let machine =
        StateMachine::open(directory.to_path_buf(), Some(Arc::clone(&identity))).map_err(io_error)?;
    Ok(Opened { identity, store, machine })
}

fn raft_config(options: &ControllerOptions) -> Result<Arc<openraft::Config>, StartError> {
    let config = openraft::Config {
        heartbeat_interval: options.heartbeat_interval_ms,
        election_timeout_min: options.election_timeout_min_ms,
        election_timeout_max: options.election_timeout_max_ms,
        enable_pre_vote: Some(true),
        max_payload_entries: REQUEST_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_entries),
        max_in_snapshot_log_to_keep: options.kept_entries,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        ..Default::default()
    };
    config.validate().map(Arc::new).map_err(|error| StartError::Options(error.to_string()))
}

/// With nothing configured this node is a cluster of its own.
fn places(options: &ControllerOptions) -> Places {
    let mut voters: BTreeMap<i32, String> = options.voters.iter().cloned().collect();
    if voters.is_empty() && options.bootstrap_servers.is_empty() {
        voters.insert(options.node_id, options.own_endpoint.clone());
    }
    let own_endpoint = voters.get(&options.node_id).cloned().unwrap_or_else(|| options.own_endpoint.clone());
    Places {
        voters: Arc::new(voters),
        bootstrap_servers: options.bootstrap_servers.clone(),
        own_endpoint,
        joins_by_itself: options.joins_by_itself,
    }
}

fn leader_options(options: &ControllerOptions, identity: Arc<Identity>) -> LeaderOptions {
    let properties = &*options.properties;
    let interval =
        u64::try_from(config::get_i64(properties, "leader.imbalance.check.interval.seconds")).unwrap_or(300);
    let is_automatic = config::get_bool(properties, "auto.leader.rebalance.enable");
    LeaderOptions {
        identity,
        first_records: options.first_records.clone(),
        properties: properties.clone(),
        leases: LeaseOptions {
            session_timeout_ms: options.session_timeout_ms,
            broken_session_grace_ms: options.broken_session_grace_ms,
        },
        rebalance: is_automatic.then(|| Duration::from_secs(interval.max(1))),
        rebalance_soon: REBALANCE_SOON,
        quorum_silence_max: Duration::from_millis(options.election_timeout_max_ms),
        decided: Arc::default(),
    }
}

fn random_cluster_id() -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

impl Controller {
    /// Opens the metadata directory and starts; does not wait for the other controllers.
    pub async fn start(options: ControllerOptions) -> Result<Self, StartError> {
        let places = places(&options);
        let voters = Arc::clone(&places.voters);
        let (directory, node_id) = (options.metadata_dir.clone(), options.node_id);
        let opened = tokio::task::spawn_blocking(move || open(&directory, node_id))
            .await
            .map_err(|error| StartError::Raft(error.to_string()))??;
        let Opened { identity, store, machine } = opened;
        if let Some(cluster_id) = &options.cluster_id {
            identity.check_cluster(cluster_id, "the configuration")?;
        }
        let known = Some(identity.cluster_id()).filter(|id| !id.is_empty());
        let cluster_id = known.or_else(|| options.cluster_id.clone()).unwrap_or_else(random_cluster_id);
        let network = Network::new(Arc::clone(&identity), Arc::clone(&voters), options.dial.clone());
        let raft = Raft::new(
            identity.raft_id(),
            raft_config(&options)?,
            network.clone(),
            store.clone(),
            machine.clone(),
        )
        .await
        .map_err(|error| StartError::Raft(error.to_string()))?;
        let failed = Arc::new(watch::Sender::new(None));
        let leadership = Leadership::follow(&raft, Arc::clone(&voters), Arc::clone(&failed));
        let stop = CancellationToken::new();
        let leader = leader_options(&options, Arc::clone(&identity));
        let decided = Arc::clone(&leader.decided);
        let (doors, leader_task) =
            LeaderTask::start(raft.clone(), machine.clone(), leadership.clone(), leader, stop.clone());
        let down_after =
            Duration::from_millis(options.election_timeout_max_ms.saturating_mul(DOWN_AFTER_TIMEOUTS));
        let changes = QuorumChanges {
            raft: raft.clone(),
            leadership: leadership.clone(),
            network: network.clone(),
            down_after,
            observer_silence_max: options.observer_silence_max,
            one: Arc::default(),
        };
        let warden = tokio::spawn(changes.clone().watch_over(stop.clone()));
        let limits =
            SnapshotLimits { bytes_max: options.snapshot_bytes, interval: options.snapshot_interval };
        let snapshots = tokio::spawn(write_in_time(raft.clone(), machine.clone(), limits, stop.clone()));
        let heard = Arc::new(parking_lot::Mutex::new(tokio::time::Instant::now()));
        let silence =
            Duration::from_millis(options.heartbeat_interval_ms.saturating_mul(SILENT_AFTER_HEARTBEATS));
        let succession = Succession { changes: changes.clone(), heard: Arc::clone(&heard), silence };
        let succession = tokio::spawn(succession.watch(stop.clone()));
        let raft_service = RaftService {
            identity: Arc::clone(&identity),
            voters: Arc::clone(&voters),
            raft: raft.clone(),
            store: store.clone(),
            leadership: leadership.clone(),
            proposed_cluster_id: cluster_id.clone(),
            changes: changes.clone(),
            heard: Arc::clone(&heard),
        };
        let service = ControllerService {
            identity: Arc::clone(&identity),
            raft: raft.clone(),
            machine: machine.clone(),
            leadership: leadership.clone(),
            doors,
            changes: changes.clone(),
            stop: stop.clone(),
        };
        let controller = Self {
            identity: Arc::clone(&identity),
            raft: raft.clone(),
            store: store.clone(),
            machine,
            leadership,
            decided,
            raft_service: RaftServer::new(raft_service)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            service: ControllerServer::new(service)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            gate: options.gate.clone(),
            failed,
            stop,
            tasks: parking_lot::Mutex::new(vec![leader_task, warden, snapshots, succession]),
        };
        let keeper = Keeper {
            identity,
            places,
            network,
            raft,
            store,
            changes,
            heard,
            proposed_cluster_id: cluster_id,
        };
        controller.keep(keeper).await?;
        Ok(controller)
    }

    /// A cluster of one is formed, or led again, at once; all else happens in the background.
    async fn keep(&self, keeper: Keeper) -> Result<(), StartError> {
        keeper.begin().await.map_err(StartError::Raft)?;
        let failed = Arc::clone(&self.failed);
        let stop = self.stop.clone();
        let task = tokio::spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(keeper.run()).await {
                failed.send_replace(Some(error.to_string()));
            }
        });
        self.tasks.lock().push(task);
        Ok(())
    }

    /// A source of the page that `/metrics` shows of this controller.
    pub fn metrics(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let (raft, machine, sync) = (self.raft.clone(), self.machine.clone(), self.store.sync_times());
        let decided = Arc::clone(&self.decided);
        move || metrics::page(&raft, &machine.image(), &sync, &decided)
    }

    /// Adds the services of this crate to those of a listener.
    pub fn add_routes(&self, routes: &mut RoutesBuilder) {
        routes
            .add_service(InterceptedService::new(self.raft_service.clone(), self.gate.clone()))
            .add_service(InterceptedService::new(self.service.clone(), self.gate.clone()));
    }

    /// The committed metadata, as far as it is applied here.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.machine.image()
    }

    /// Node id and `host:port` of the controller that leads, if one is known.
    pub fn leader(&self) -> Option<(i32, String)> {
        self.leadership.leader().map(|leader| (leader.node_id, leader.endpoint))
    }

    /// Who leads, as it changes.
    pub fn watch_leader(&self) -> watch::Receiver<Option<Leader>> {
        self.leadership.watch()
    }

    /// The cluster's id; empty: not part of one yet.
    pub fn cluster_id(&self) -> String {
        self.identity.cluster_id()
    }

    /// Index of the last applied entry, as it moves; -1: none yet.
    pub fn watch_applied(&self) -> watch::Receiver<i64> {
        self.machine.watch_applied()
    }

    /// Returns when this controller cannot go on, with the reason: the node must then end. A clean stop does not count.
    pub async fn failed(&self) -> String {
        let mut failures = self.failed.subscribe();
        let reason = failures.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// The services of this crate as routes of their own.
    pub fn routes(&self) -> tonic::service::Routes {
        let mut routes = RoutesBuilder::default();
        self.add_routes(&mut routes);
        routes.routes()
    }

    /// The incarnation of this disk: Kafka's directory id.
    pub fn incarnation(&self) -> [u8; 16] {
        self.identity.raft_id().incarnation.to_be_bytes()
    }

    /// Hands leadership over, if this controller leads, and closes everything.
    pub async fn shut_down(&self) {
        self.hand_over().await;
        self.abandon().await;
    }

    /// Closes everything and hands nothing over: the others find out by themselves.
    pub async fn abandon(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            drop(task.await);
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!("the metadata quorum did not stop cleanly: {error}");
        }
        let store = self.store.clone();
        drop(tokio::task::spawn_blocking(move || store.close()).await);
    }

    async fn hand_over(&self) {
        if !self.raft.is_leader() {
            return;
        }
        let metrics = self.raft.metrics().borrow_watched().clone();
        let own = metrics.id;
        let voters: std::collections::BTreeSet<_> =
            metrics.membership_config.membership().voter_ids().collect();
        // The one that has most of the log takes over soonest.
        let next = metrics
            .replication
            .iter()
            .flatten()
            .filter(|(id, at)| **id != own && voters.contains(id) && at.is_some());
        let Some((next, _)) = next.max_by_key(|(_, at)| at.as_ref().map(|at| at.index)) else { return };
        if self.raft.trigger().transfer_leader(*next).await.is_err() {
            return;
        }
        let mut leaders = self.leadership.watch();
        let taken =
            leaders.wait_for(|leader| leader.as_ref().is_some_and(|leader| leader.node_id != own.node_id));
        if tokio::time::timeout(TRANSFER_PATIENCE, taken).await.is_err() {
            tracing::info!("no other controller took over in time");
        }
    }
}
