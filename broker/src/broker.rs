//! A broker's life: bind, load, register (`registration`), follow (`start`), serve; and back.
//!
//! Order of a start: ports and disks first, because they are what most often fails and nothing has happened yet; then the
//! metadata; then registration, whose epoch everything else carries; clients last, when there is something to serve.
//! Order of a stop: leadership moves away, clients follow it, connections end, replication ends, logs are closed, the marker
//! is written.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ottla_metadata::acl::AuthorizerOptions;
use ottla_metadata::features::SUPPORTED;
use ottla_metadata::image::BrokerId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Dispatcher;
use crate::context::BrokerContext;
use crate::departed::Departed;
use crate::groups::GroupService;
use crate::internal_topics::{SHARE_GROUP_STATE, new_topic};
use crate::metrics::Metrics;
use crate::network::dynamic_limits;
use crate::network::{ConnectionContext, ConnectionLimits, Handler, Listener};
use crate::options::BrokerOptions;
use crate::own_configs::OwnConfigs;
use crate::producer_ids::ProducerIds;
use crate::quotas::Quotas;
use crate::registration::{advertised, register, registration};
use crate::replica::{FetchSessions, Grant, ReplicaManager};
use crate::security::publish::token_secret;
use crate::security::{NodeSecurity, SecurityError};
use crate::share::{ShareFoundation, ShareService};
use crate::start::Start;
pub use crate::start_error::StartError;
use crate::telemetry::Telemetry;
use crate::transactions::{Foundation, TransactionService};

/// A controlled shutdown that takes longer than this is cut short: the others will notice soon enough.
const CONTROLLED_SHUTDOWN_MAX: Duration = Duration::from_secs(30);
/// After leadership has moved away, clients have so long to be told by this broker who leads now: a refusal that names the next
/// leader moves a producer at once, a connection that ends under its request makes it ask around first.
const FAREWELL: Duration = Duration::from_millis(100);
/// How often it is looked whether clients are there still.
const FAREWELL_LOOK: Duration = Duration::from_millis(10);
/// A start that opens many logs, or checks large ones, says so often how far it is: at `/readyz`, and, one time in ten, in the log.
const RECOVERY_TOLD_EVERY: Duration = Duration::from_millis(500);
const RECOVERY_LOGGED_EVERY: u32 = 10;

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
        let context = Arc::new(context(options, security, replicas, grant, &tasks, &stop));
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

/// What the handlers reach: the services of this broker around its replicas.
fn context(
    options: BrokerOptions,
    security: Arc<NodeSecurity>,
    replicas: Arc<ReplicaManager>,
    grant: Arc<Grant>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> BrokerContext {
    let controller = options.controller.clone();
    let image = options.image.clone();
    let metrics = Arc::new(Metrics::new());
    let groups =
        GroupService::new(options.groups.clone(), Arc::clone(&replicas), tasks.clone(), stop.child_token());
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
    let own_configs = OwnConfigs::new(
        options.node_id,
        Arc::clone(&options.properties),
        image.clone(),
        Arc::clone(&replicas),
        Arc::clone(&security),
    );
    BrokerContext {
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
        own_configs,
        quotas: Quotas::new(options.quota_windows),
        authorizer: AuthorizerOptions::from_properties(&options.properties).map(Arc::new),
        token_secret: token_secret(&options.properties),
        options,
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
