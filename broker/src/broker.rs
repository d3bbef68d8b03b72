//! A broker's life: bind, load, register, follow, serve; and back.
//!
//! Order of a start: ports and disks first, because they are what most often fails and nothing has happened yet; then the
//! metadata; then registration, whose epoch everything else carries; clients last, when there is something to serve.
//! Order of a stop: leadership moves away, clients follow it, connections end, replication ends, logs are closed, the marker
//! is written.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ottla_metadata::acl::AuthorizerOptions;
use ottla_metadata::features::SUPPORTED;
use ottla_metadata::image::BrokerId;
use ottla_proto::controller as proto;
use ottla_proto::metadata as records;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Dispatcher;
use crate::context::BrokerContext;
use crate::controller_link::{
    LinkError, SessionEnd, SessionOptions, SessionSignals, follow_metadata, run_session,
};
use crate::departed::Departed;
use crate::groups::GroupService;
use crate::internal_topics::{SHARE_GROUP_STATE, new_topic};
use crate::metrics::Metrics;
use crate::network::dynamic_limits;
use crate::network::{ConnectionContext, ConnectionLimits, Handler, Listener};
use crate::options::{AdvertisedListener, BrokerOptions};
use crate::producer_ids::ProducerIds;
use crate::quotas::Quotas;
use crate::readiness::Readiness;
use crate::replica::{FetchSessions, Grant, ReplicaManager, background};
use crate::replication::directory_updates::{self, DirectoryStates};
use crate::replication::{fetcher, isr_updates};
use crate::security::publish::{Publisher, token_secret};
use crate::security::{NodeSecurity, SecurityError};
use crate::share::{ShareFoundation, ShareService};
use crate::telemetry::Telemetry;
use crate::transactions::{Foundation, TransactionService};

/// A controlled shutdown that takes longer than this is cut short: the others will notice soon enough.
const CONTROLLED_SHUTDOWN_MAX: Duration = Duration::from_secs(30);
/// After leadership has moved away, clients have so long to be told by this broker who leads now: a refusal that names the next
/// leader moves a producer at once, a connection that ends under its request makes it ask around first.
const FAREWELL: Duration = Duration::from_millis(100);
/// How often it is looked whether clients are there still.
const FAREWELL_LOOK: Duration = Duration::from_millis(10);
/// Kafka's DUPLICATE_BROKER_REGISTRATION.
const DUPLICATE_BROKER_REGISTRATION: i32 = 101;
/// A start that opens many logs, or checks large ones, says so often how far it is: at `/readyz`, and, one time in ten, in the log.
const RECOVERY_TOLD_EVERY: Duration = Duration::from_millis(500);
const RECOVERY_LOGGED_EVERY: u32 = 10;
const REGISTRATION_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why a broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken or an address is not this machine's; the text names the property.
    #[error("{0}")]
    Listen(#[source] std::io::Error),
    /// The log directories cannot be used.
    #[error(transparent)]
    Directories(#[from] crate::replica::directories::OpenError),
    /// A listener cannot be protected as it is configured.
    #[error("listener security cannot be set up: {0}")]
    Security(#[from] SecurityError),
    /// The cluster does not take this broker, and says why.
    #[error("the cluster refused broker {0}: {1}")]
    Refused(i32, String),
    /// Nobody registered the broker in time.
    #[error("broker {0} could not register within initial.broker.registration.timeout.ms: {1}")]
    Registration(i32, LinkError),
    /// A background task of the start ended.
    #[error("the start was interrupted: {0}")]
    Interrupted(String),
}

/// A running broker.
pub struct Broker {
    context: Arc<BrokerContext>,
    addresses: Vec<(String, SocketAddr)>,
    tasks: TaskTracker,
    connections: TaskTracker,
    /// Ends accepting and the connections.
    stop_clients: CancellationToken,
    /// Ends everything else.
    stop: CancellationToken,
    want_shut_down: watch::Sender<bool>,
    may_stop: watch::Receiver<bool>,
    fenced: watch::Receiver<bool>,
    failed: watch::Receiver<Option<String>>,
}

impl Broker {
    /// Starts a broker; returns when it is registered. Its listeners are bound and accept as soon as it is unfenced.
    pub async fn start(options: BrokerOptions) -> Result<Self, StartError> {
        options.status.set("broker", Some("starting".into()));
        let security = security(&options)?;
        let mut listeners = Vec::new();
        for listener in &options.listeners {
            listeners
                .push((listener.name.clone(), Listener::bind(listener).await.map_err(StartError::Listen)?));
        }
        let addresses = bound(&listeners)?;
        let grant = Arc::new(Grant::new());
        let replicas = open_replicas(&options, Arc::clone(&grant)).await?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let controller = options.controller.clone();
        let image = options.image.clone();
        let metrics = Arc::new(Metrics::new());
        let groups = GroupService::new(
            options.groups.clone(),
            Arc::clone(&replicas),
            tasks.clone(),
            stop.child_token(),
        );
        let producer_ids = Arc::new(ProducerIds::new(controller.clone(), options.node_id));
        let transactions = TransactionService::new(
            options.transactions.clone(),
            Foundation {
                replicas: Arc::clone(&replicas),
                groups: Arc::clone(&groups),
                producer_ids: Arc::clone(&producer_ids),
                grant: Arc::clone(&grant),
                tasks: tasks.clone(),
                stopping: stop.child_token(),
            },
        );
        let share = ShareService::new(
            options.share.clone(),
            ShareFoundation {
                replicas: Arc::clone(&replicas),
                controller: controller.clone(),
                state_topic: new_topic(&options, SHARE_GROUP_STATE),
                tasks: tasks.clone(),
                stopping: stop.child_token(),
            },
        );
        let sessions = FetchSessions::new(options.replica.fetch_session_slots);
        let context = Arc::new(BrokerContext {
            producer_ids,
            image,
            replicas,
            sessions,
            grant,
            controller,
            connections: OnceLock::new(),
            metrics,
            groups,
            transactions,
            share,
            telemetry: Telemetry::new(telemetry_bytes_max(&options)),
            departed: Departed::default(),
            features: &SUPPORTED,
            security,
            quotas: Quotas::new(options.quota_windows),
            authorizer: AuthorizerOptions::from_properties(&options.properties).map(Arc::new),
            token_secret: token_secret(&options.properties),
            options,
        });
        let (failed_sender, failed) = watch::channel(None);
        let start = Start { context: &context, tasks: &tasks, stop: &stop, failed: failed_sender };
        let registered = start.follow();
        context.security.start(context.image.clone(), &tasks, &stop);
        let advertised = advertised(&context.options.advertised_listeners, &addresses);
        let registration = registration(&context, advertised);
        let (epoch, _) = register(&context, &registration).await?;
        registered.send_replace(epoch);
        context.image.wait_for(epoch, context.options.registration_timeout).await;
        start.replicate();
        let (want_shut_down, may_stop, fenced) = start.keep_session(epoch, registration);
        let stop_clients = stop.child_token();
        let connections = accept(&context, listeners, &fenced, &stop_clients);
        start.publish_metrics();
        Ok(Self {
            context,
            addresses,
            tasks,
            connections,
            stop_clients,
            stop,
            want_shut_down,
            may_stop,
            fenced,
            failed,
        })
    }

    /// What the listeners are bound to: name and address.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// The replicas on this node.
    pub fn replicas(&self) -> Arc<ReplicaManager> {
        Arc::clone(&self.context.replicas)
    }

    /// What its handlers reach.
    pub(crate) fn context(&self) -> &Arc<BrokerContext> {
        &self.context
    }

    /// Does something as long as the broker runs.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        work: impl FnOnce(CancellationToken) -> F,
    ) {
        self.tasks.spawn(work(self.stop.child_token()));
    }

    /// What it was started with.
    pub fn options(&self) -> &BrokerOptions {
        &self.context.options
    }

    /// Waits until the cluster lets this broker serve.
    pub async fn unfenced(&self) {
        let mut fenced = self.fenced.clone();
        // The sender lives as long as this broker.
        drop(fenced.wait_for(|fenced| !fenced).await);
    }

    /// Ends when something happened that this process cannot go on after; the text says what.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Controlled shutdown: leadership moves first, then everything ends, in phases.
    pub async fn shut_down(self) {
        self.context.options.status.set("broker", Some("stopping".into()));
        if self.context.options.controlled_shutdown_enable {
            self.want_shut_down.send_replace(true);
            // A bool, and not what was waited for: that holds a lock of the channel, and the session that sends would stand
            // still for it.
            let moved = {
                let mut may_stop = self.may_stop.clone();
                let moved = may_stop.wait_for(|may_stop| *may_stop);
                tokio::time::timeout(CONTROLLED_SHUTDOWN_MAX, moved).await.is_ok()
            };
            tracing::info!(moved, "leadership has moved away");
            if moved {
                self.see_off().await;
            }
        }
        self.stop_clients.cancel();
        self.connections.close();
        let connections = self.connections.len();
        self.connections.wait().await;
        tracing::info!(connections, "connections are closed");
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let replicas = Arc::clone(&self.context.replicas);
        if let Err(error) = tokio::task::spawn_blocking(move || replicas.close()).await {
            tracing::error!(%error, "logs could not be closed cleanly");
        }
        tracing::info!("broker stopped");
    }
}

impl Broker {
    /// Serves on for a moment, where there are clients and somebody else to go to.
    async fn see_off(&self) {
        let own = BrokerId(self.context.options.node_id);
        let image = self.context.image.current();
        if !image.brokers().any(|broker| broker.id != own && broker.is_eligible()) {
            return;
        }
        let is_left = || self.context.connections.get().is_none_or(|limits| limits.open() == 0);
        let deadline = tokio::time::Instant::now() + FAREWELL;
        while !is_left() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(FAREWELL_LOOK).await;
        }
    }
}

/// `telemetry.max.bytes`.
fn telemetry_bytes_max(options: &BrokerOptions) -> usize {
    let bytes = ottla_metadata::config::get_i32(&options.properties, "telemetry.max.bytes");
    usize::try_from(bytes).unwrap_or(0)
}

fn security(options: &BrokerOptions) -> Result<Arc<NodeSecurity>, SecurityError> {
    let listeners: Vec<_> =
        options.listeners.iter().map(|listener| (listener.name.clone(), listener.protocol)).collect();
    NodeSecurity::open(
        &listeners,
        &options.inter_broker_listener,
        options.replica.peer_security.clone(),
        Arc::clone(&options.properties),
        options.node_id,
    )
}

fn bound(listeners: &[(String, Listener)]) -> Result<Vec<(String, SocketAddr)>, StartError> {
    listeners
        .iter()
        .map(|(name, listener)| Ok((name.clone(), listener.local_address().map_err(StartError::Listen)?)))
        .collect()
}

async fn open_replicas(
    options: &BrokerOptions,
    grant: Arc<Grant>,
) -> Result<Arc<ReplicaManager>, StartError> {
    let replica_options = options.replica.clone();
    let properties = Arc::clone(&options.properties);
    let recovery = Arc::clone(&replica_options.recovery);
    let mut opening =
        tokio::task::spawn_blocking(move || ReplicaManager::open(replica_options, properties, grant));
    let mut pauses = 0_u32;
    let opened = loop {
        tokio::select! {
            opened = &mut opening => break opened,
            () = tokio::time::sleep(RECOVERY_TOLD_EVERY) => {}
        }
        if recovery.is_done() {
            continue;
        }
        options.status.set("broker", Some(recovery.to_string()));
        if pauses.is_multiple_of(RECOVERY_LOGGED_EVERY) {
            tracing::info!("{recovery}");
        }
        pauses += 1;
    };
    options.status.set("broker", Some("starting".into()));
    Ok(opened.map_err(|error| StartError::Interrupted(error.to_string()))??)
}

/// The advertised addresses; a port of 0 is the one that was bound.
fn advertised(
    listeners: &[AdvertisedListener],
    addresses: &[(String, SocketAddr)],
) -> Vec<records::Endpoint> {
    listeners
        .iter()
        .map(|listener| {
            let bound =
                addresses.iter().find(|(name, _)| *name == listener.name).map(|(_, address)| address.port());
            let port = if listener.port == 0 { bound.unwrap_or(0) } else { listener.port };
            records::Endpoint {
                name: listener.name.clone(),
                host: listener.host.clone(),
                port: port.into(),
                security_protocol: listener.security_protocol.clone(),
            }
        })
        .collect()
}

fn registration(context: &BrokerContext, endpoints: Vec<records::Endpoint>) -> proto::RegisterBrokerRequest {
    let directories = context.replicas.directories();
    proto::RegisterBrokerRequest {
        cluster_id: directories.cluster_id().unwrap_or_default(),
        registration: Some(records::RegisterBrokerRecord {
            broker_id: context.options.node_id,
            incarnation_id: bytes::Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
            endpoints,
            rack: context.options.rack.clone().unwrap_or_default(),
            log_directories: directories
                .ids()
                .into_iter()
                .map(|id| bytes::Bytes::copy_from_slice(id.as_bytes()))
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            grpc_endpoint: context.options.grpc_endpoint.clone().unwrap_or_default(),
            ..Default::default()
        }),
        previous_broker_epoch: directories.previous_broker_epoch(),
    }
}

/// Registers until the cluster takes or refuses the broker; gives its epoch and the cluster's id.
async fn register(
    context: &BrokerContext,
    request: &proto::RegisterBrokerRequest,
) -> Result<(i64, String), StartError> {
    let id = context.options.node_id;
    let patience = context.options.registration_timeout;
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let reply = context
            .controller
            .register(request.clone(), left)
            .await
            .map_err(|error| StartError::Registration(id, error))?;
        match reply.failure.filter(|failure| failure.error_code != 0) {
            None => {
                context.grant.set_broker_epoch(reply.broker_epoch);
                context.replicas.directories().set_cluster_id(&reply.cluster_id)?;
                tracing::info!(
                    broker = id,
                    epoch = reply.broker_epoch,
                    cluster = reply.cluster_id,
                    "registered"
                );
                return Ok((reply.broker_epoch, reply.cluster_id));
            }
            // The lease of the process before this one runs out within the session timeout.
            Some(failure)
                if failure.error_code == DUPLICATE_BROKER_REGISTRATION
                    && tokio::time::Instant::now() < deadline =>
            {
                tracing::info!(reason = failure.message, "not registered yet; trying again");
                tokio::time::sleep(REGISTRATION_RETRY_PAUSE).await;
            }
            Some(failure) => return Err(StartError::Refused(id, failure.message)),
        }
    }
}

/// Accepts on every listener once the cluster lets this broker serve. Clients that connect earlier wait in the backlog: an
/// answer that names no broker would send them away for longer than the wait takes.
fn accept(
    context: &Arc<BrokerContext>,
    listeners: Vec<(String, Listener)>,
    fenced: &watch::Receiver<bool>,
    stop_clients: &CancellationToken,
) -> TaskTracker {
    let connections = TaskTracker::new();
    let options = &context.options;
    let limits = ConnectionLimits::new(
        options.connections_max.clone(),
        options.connection_rate_max.clone(),
        Arc::clone(&context.quotas),
        options.quota_windows.client,
    );
    // Nobody else sets it.
    drop(context.connections.set(Arc::clone(&limits)));
    dynamic_limits::follow(&limits, options, &context.image, &connections, stop_clients);
    let dispatcher = Dispatcher::new(Arc::clone(context));
    let handler: Handler = Arc::new(move |client, frame| dispatcher.dispatch(client, frame));
    for (name, listener) in listeners {
        let Some(security) = context.security.listener(&name) else { continue };
        let shared = Arc::new(ConnectionContext {
            handler: Arc::clone(&handler),
            times: Some(context.metrics.requests.clone()),
            security,
            listener: name.into(),
            frame_bytes_max: options.request_bytes_max,
            idle_max: options.connection_idle_max,
        });
        let accepting =
            listener.accept(shared, Arc::clone(&limits), connections.clone(), stop_clients.clone());
        let mut fenced = fenced.clone();
        let stopping = stop_clients.clone();
        connections.spawn(async move {
            tokio::select! {
                unfenced = fenced.wait_for(|fenced| !fenced) => if unfenced.is_err() { return },
                () = stopping.cancelled() => return,
            }
            accepting.await;
        });
    }
    connections
}

/// What the parts of a start share.
struct Start<'a> {
    context: &'a Arc<BrokerContext>,
    tasks: &'a TaskTracker,
    stop: &'a CancellationToken,
    failed: watch::Sender<Option<String>>,
}

impl Start<'_> {
    /// Follows the metadata; replicas and coordinators take each image before it is published. Give it the index of the
    /// registration: nothing is published before that is reached.
    fn follow(&self) -> watch::Sender<i64> {
        let (registered_sender, registered) = watch::channel(-1);
        let context = Arc::clone(self.context);
        let failed = self.failed.clone();
        let stop = self.stop.child_token();
        let image = context.image.clone();
        let client = context.controller.clone();
        let node_id = context.options.node_id;
        self.tasks.spawn(async move {
            let applying = Arc::clone(&context);
            let publisher = Publisher::new(
                context.security.credentials.clone(),
                Arc::clone(&context.quotas),
                context.token_secret.clone(),
            );
            let on_image = move |image: &Arc<_>, delta: Option<&ottla_metadata::image::MetadataDelta>| {
                // Applying creates and deletes files.
                tokio::task::block_in_place(|| {
                    applying.departed.apply_image(image, std::time::Instant::now());
                    applying.replicas.apply_image(image, delta);
                    applying.groups.apply_image(image, delta, applying.options.node_id);
                    applying.transactions.apply_image(image, applying.options.node_id);
                    applying.share.apply_image(image, applying.options.node_id);
                    publisher.apply_image(image, delta);
                });
            };
            if let Err(error) = follow_metadata(client, node_id, image, registered, on_image, stop).await {
                tracing::error!(%error, "this broker cannot go on");
                failed.send_replace(Some(error.to_string()));
            }
        });
        registered_sender
    }

    fn replicate(&self) {
        let manager = &self.context.replicas;
        background::start(manager, self.tasks, self.stop);
        self.tasks.spawn(fetcher::run(Arc::clone(manager), self.stop.child_token()));
        let client = Arc::new(self.context.controller.clone());
        self.tasks.spawn(isr_updates::run(Arc::clone(manager), client, self.stop.child_token()));
    }

    /// Keeps the session with the controller; registers again when the controller has forgotten this broker.
    fn keep_session(
        &self,
        epoch: i64,
        registration: proto::RegisterBrokerRequest,
    ) -> (watch::Sender<bool>, watch::Receiver<bool>, watch::Receiver<bool>) {
        let (want_shut_down, shut_down) = watch::channel(false);
        let (may_stop_sender, may_stop) = watch::channel(false);
        let (fenced_sender, fenced) = watch::channel(true);
        let (ready_sender, ready) = watch::channel(true);
        let (directories_sender, directories) = watch::channel(DirectoryStates::default());
        self.tasks.spawn(directory_updates::run(
            Arc::clone(&self.context.replicas),
            self.context.controller.clone(),
            directories_sender,
            self.failed.clone(),
            self.stop.child_token(),
        ));
        let lease_regained = Arc::new(Notify::new());
        let metadata_index = Arc::new(AtomicI64::new(-1));
        let metadata_moved = Arc::new(Notify::new());
        let mut signals = SessionSignals {
            grant: Arc::clone(&self.context.grant),
            lease_regained: Arc::clone(&lease_regained),
            metadata_index: Arc::clone(&metadata_index),
            metadata_moved: Arc::clone(&metadata_moved),
            fenced: fenced_sender,
            directories,
            ready,
            shut_down,
            may_stop: may_stop_sender,
        };
        self.watch_signals(fenced.clone(), lease_regained, metadata_index, metadata_moved);
        let context = Arc::clone(self.context);
        let stop = self.stop.child_token();
        let failed = self.failed.clone();
        self.tasks.spawn(async move {
            let mut options = SessionOptions {
                broker_id: context.options.node_id,
                broker_epoch: epoch,
                heartbeat_interval: context.options.heartbeat_interval,
            };
            // Held as long as the session: a broker that has come this far can serve.
            let _held = ready_sender;
            loop {
                let end;
                (end, signals) = run_session(&context.controller, &options, signals, stop.clone()).await;
                match end {
                    SessionEnd::Stopped => return,
                    SessionEnd::RegisterAgain(why) => {
                        tracing::warn!(
                            why,
                            "the controller does not know this broker any more; registering again"
                        );
                        context.grant.lose_lease();
                        signals.fenced.send_replace(true);
                        let mut request = registration.clone();
                        context.image.current().cluster_id().clone_into(&mut request.cluster_id);
                        let registered = tokio::select! {
                            registered = register(&context, &request) => registered,
                            () = stop.cancelled() => return,
                        };
                        match registered {
                            Ok((epoch, _)) => options.broker_epoch = epoch,
                            Err(error) => {
                                failed.send_replace(Some(error.to_string()));
                                return;
                            }
                        }
                    }
                }
            }
        });
        (want_shut_down, may_stop, fenced)
    }

    /// Readiness follows fencing and the in-sync replicas; the session tells the controller how far the metadata is applied; acknowledgements that
    /// waited for a lease are looked at when it is back.
    fn watch_signals(
        &self,
        mut fenced: watch::Receiver<bool>,
        lease_regained: Arc<Notify>,
        metadata_index: Arc<AtomicI64>,
        metadata_moved: Arc<Notify>,
    ) {
        let context = Arc::clone(self.context);
        let stop = self.stop.child_token();
        let mut index = context.image.watch();
        let mut readiness = Readiness::default();
        let own_id = BrokerId(context.options.node_id);
        self.tasks.spawn(async move {
            loop {
                let applied = *index.borrow_and_update();
                if metadata_index.swap(applied, Ordering::AcqRel) != applied {
                    metadata_moved.notify_one();
                }
                let is_fenced = *fenced.borrow_and_update();
                let why_not = readiness.why_not(is_fenced, &context.image.current(), own_id);
                if why_not.is_none() {
                    context.metrics.ready();
                }
                context.options.status.set("broker", why_not);
                context.metrics.fenced.set(i64::from(is_fenced));
                tokio::select! {
                    changed = fenced.changed() => if changed.is_err() { return },
                    changed = index.changed() => if changed.is_err() { return },
                    () = lease_regained.notified() => context.replicas.tick(),
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    fn publish_metrics(&self) {
        let groups = Arc::clone(&self.context.groups);
        self.tasks.spawn(Arc::clone(&groups).watch_lag(self.stop.child_token()));
        self.context.options.status.add_metrics(move || groups.lag_page());
        let share = Arc::clone(&self.context.share);
        self.context.options.status.add_metrics(move || share.page());
        let context = Arc::clone(self.context);
        context.metrics.watch(&context);
        self.context
            .options
            .status
            .add_metrics(move || context.telemetry.page(context.grant.clock().monotonic_ms()));
        let context = Arc::clone(self.context);
        self.context.options.status.add_metrics(move || {
            let metrics = &context.metrics;
            let open = context.connections.get().map_or(0, |limits| limits.open());
            metrics.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
            metrics.metadata_index.set(context.image.index());
            let (open, oldest_ms) = context.transactions.open();
            metrics.transactions_open.set(i64::try_from(open).unwrap_or(i64::MAX));
            let age_ms = oldest_ms.map_or(0, |begun_ms| BrokerContext::now_ms() - begun_ms);
            metrics.transaction_age_seconds_max.set(age_ms.max(0) as f64 / 1_000.0);
            metrics.encode()
        });
    }
}
