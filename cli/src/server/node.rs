//! A node's life.
//!
//! Order of a start: the ports of gRPC and HTTP first, since a taken port is the commonest fault and nothing has happened yet;
//! then the controller and the gRPC server, for a broker registers through them; the broker last.
//! Order of a stop: the broker, which needs the quorum to move its leaders; the controller, which hands its leadership over;
//! gRPC and HTTP last.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use ottla_broker::Broker;
use ottla_broker::admin::{AdminService, node_gate};
use ottla_broker::console::Console;
use ottla_broker::controller_link::{ControllerClient, ImageHandle, follow_metadata};
use ottla_broker::http::{self, NodeStatus};
use ottla_broker::security::{GrpcSecurity, HttpSecurity};
use ottla_controller::{Controller, ControllerOptions};
use ottla_log::directory::{self, DirectoryLock, Owner};
use ottla_proto::transport::Gate;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use uuid::Uuid;

use super::adopt::Beginning;
use super::options::{self, Shared};
use crate::failure::Failure;
use crate::node_config::{Address, HttpAddress, NodeConfig};

/// Calls that are under way when the node stops get so long.
const GRPC_DRAIN: Duration = Duration::from_millis(500);
/// Pings on idle gRPC connections: a peer that is gone without a word is noticed.
const GRPC_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The gRPC and HTTP ports of a node, bound before anything else happens.
#[derive(Debug)]
pub(crate) struct Ports {
    grpc: Option<TcpListener>,
    http: Option<TcpListener>,
}

impl Ports {
    /// Binds what the configuration names. Errors name the property to change.
    pub(crate) async fn bind(config: &NodeConfig) -> anyhow::Result<Self> {
        let grpc = match &config.grpc {
            Some(grpc) => Some(bind(&grpc.listener.address, &grpc.listener.name, "listeners").await?),
            None => None,
        };
        let http = match &config.http {
            Some(http) => Some(bind(&http.address, "HTTP", "ottla.http.listener").await?),
            None => None,
        };
        Ok(Self { grpc, http })
    }
}

async fn bind(address: &Address, what: &str, property: &str) -> anyhow::Result<TcpListener> {
    let host = if address.host.is_empty() { "0.0.0.0" } else { &address.host };
    Ok(TcpListener::bind((host, address.port)).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(format!("cannot listen on {address} for {what}: {why}"))
            .hint(format!("change {what} in the property '{property}', or stop the other process"))
    })?)
}

/// A running node.
pub(crate) struct Node {
    id: i32,
    /// Addresses of the Kafka listeners.
    pub(crate) kafka: Vec<String>,
    /// Where gRPC is reached, if it is.
    pub(crate) grpc: Option<String>,
    /// The HTTP port, if there is one.
    pub(crate) http: Option<String>,
    controller: Option<Arc<Controller>>,
    broker: Option<Broker>,
    health: Option<HealthReporter>,
    /// Ends gRPC, HTTP and the following of metadata.
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// Held as long as the node runs: no other process may have the controller's directory.
    lock: Option<DirectoryLock>,
    /// `None`: gRPC is not encrypted.
    security: Option<GrpcSecurity>,
}

impl Node {
    /// Starts all roles; returns when the broker is registered and takes connections. A cluster that is formed begins with
    /// `first`.
    pub(crate) async fn start(
        config: &NodeConfig,
        ports: Ports,
        first: impl Into<Beginning>,
    ) -> anyhow::Result<Self> {
        let name = &config.controller_listener;
        let image = ImageHandle::default();
        let security = GrpcSecurity::open(name, config.protocol(name), &config.properties, image.clone())
            .map_err(|error| Failure::usage(error.to_string()))?;
        let dial = security.as_ref().map(GrpcSecurity::dial).unwrap_or_default();
        let controllers = config.controllers.iter().map(ToString::to_string).collect();
        let shared = Shared {
            controller: ControllerClient::dialled(controllers, dial.clone()),
            image,
            status: NodeStatus::new(),
        };
        let mut node = Self {
            id: config.node_id,
            kafka: Vec::new(),
            grpc: None,
            http: None,
            controller: None,
            broker: None,
            health: None,
            stop: CancellationToken::new(),
            tasks: Vec::new(),
            lock: None,
            security,
        };
        let started = node.start_roles(config, ports, shared, first.into()).await;
        match started {
            Ok(()) => Ok(node),
            Err(error) => {
                // What has started stops in order, so that the next start finds nothing half done.
                node.shut_down().await;
                Err(error)
            }
        }
    }

    async fn start_roles(
        &mut self,
        config: &NodeConfig,
        ports: Ports,
        shared: Shared,
        first: Beginning,
    ) -> anyhow::Result<()> {
        if config.roles.broker {
            shared.status.set("broker", Some("starting".into()));
        }
        let replicas = Arc::new(OnceLock::new());
        let admin = AdminService::new(
            self.id,
            shared.image.clone(),
            shared.controller.clone(),
            Arc::clone(&replicas),
            Arc::clone(&config.properties),
        );
        let console = Console::new(admin.clone());
        if let Some(listener) = ports.http {
            self.serve_http(config, listener, &shared, Arc::clone(&console))?;
        }
        let mut routes = Routes::default();
        if config.roles.controller {
            self.lock = Some(lock(config).await?);
            let gate = match &self.security {
                Some(_) => node_gate(&config.properties, shared.image.clone()),
                // Who reaches a listener without encryption is not known: the network has to keep others away.
                None => Gate::default(),
            };
            let dial = self.security.as_ref().map(GrpcSecurity::dial).unwrap_or_default();
            let options = ControllerOptions {
                first_records: first.records,
                cluster_id: first.cluster_id,
                dial,
                gate,
                ..options::controller(config)
            };
            let controller = Arc::new(Controller::start(options).await?);
            claim(&config.metadata_dir, config.node_id, &controller).await?;
            routes = controller.routes();
            shared.status.add_metrics(controller.metrics());
            self.controller = Some(controller);
        }
        if let Some(listener) = ports.grpc {
            self.serve_grpc(config, listener, routes, admin).await?;
        }
        if !config.roles.broker {
            self.follow(&shared);
            self.claim_later(config);
            return Ok(());
        }
        let broker = Broker::start(options::broker(config, self.grpc.clone(), shared)).await?;
        // Nobody else sets it.
        drop(replicas.set(broker.replicas()));
        console.attach(&broker);
        let told = |name: &str, bound: &SocketAddr| {
            let told = config.advertised.iter().find(|listener| listener.name == name);
            let host = told.map_or_else(|| bound.ip().to_string(), |listener| listener.address.host.clone());
            let port = told.map(|listener| listener.address.port).filter(|port| *port != 0);
            Address { host, port: port.unwrap_or(bound.port()) }.to_string()
        };
        self.kafka = broker.addresses().iter().map(|(name, bound)| told(name, bound)).collect();
        self.broker = Some(broker);
        Ok(())
    }

    fn serve_http(
        &mut self,
        config: &NodeConfig,
        listener: TcpListener,
        shared: &Shared,
        console: Arc<Console>,
    ) -> anyhow::Result<()> {
        let bound = listener.local_addr()?;
        let address = Address { host: bound.ip().to_string(), port: bound.port() };
        let is_tls = config.http.as_ref().is_some_and(|http| http.is_tls);
        self.http = Some(HttpAddress { address, is_tls }.to_string());
        let open = || HttpSecurity::open(&config.properties, shared.image.clone(), self.id);
        let security = is_tls.then(open).transpose().map_err(|error| Failure::usage(error.to_string()))?;
        let (status, stop) = (Arc::clone(&shared.status), self.stop.clone());
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = http::serve(listener, status, console, security, stop).await {
                tracing::error!(%error, "the HTTP port ended");
            }
        }));
        Ok(())
    }

    async fn serve_grpc(
        &mut self,
        config: &NodeConfig,
        listener: TcpListener,
        routes: Routes,
        admin: AdminService,
    ) -> anyhow::Result<()> {
        let bound = listener.local_addr()?;
        self.grpc = config.grpc.as_ref().map(|grpc| {
            // A port that was left to the system is known only now.
            let port = if grpc.endpoint.port == 0 { bound.port() } else { grpc.endpoint.port };
            Address { port, ..grpc.endpoint.clone() }.to_string()
        });
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", ServingStatus::NotServing).await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(ottla_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .context("no gRPC reflection")?;
        let router = Server::builder()
            .http2_keepalive_interval(Some(GRPC_KEEP_ALIVE))
            .add_routes(routes)
            .add_service(admin.into_server())
            .add_service(health)
            .add_service(reflection);
        let stop = self.stop.clone();
        let stopped = stop.clone().cancelled_owned();
        let serving: Pin<Box<dyn Future<Output = _> + Send>> = match &self.security {
            Some(security) => {
                self.tasks.push(tokio::spawn(security.clone().keep_fresh(stop.clone())));
                let incoming = security.incoming(listener, stop.clone());
                Box::pin(router.serve_with_incoming_shutdown(incoming, stopped))
            }
            None => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                Box::pin(router.serve_with_incoming_shutdown(incoming, stopped))
            }
        };
        self.tasks.push(tokio::spawn(async move {
            let drained = async {
                stop.cancelled().await;
                tokio::time::sleep(GRPC_DRAIN).await;
            };
            tokio::select! {
                served = serving => if let Err(error) = served {
                    tracing::error!(%error, "the gRPC port ended");
                },
                () = drained => {}
            }
        }));
        self.health = Some(reporter);
        Ok(())
    }

    /// A broker writes the cluster's id beside its logs when it registers; a node without one does so when it is part of a
    /// cluster.
    fn claim_later(&mut self, config: &NodeConfig) {
        let Some(controller) = self.controller.clone() else { return };
        let (metadata_dir, node_id, stop) = (config.metadata_dir.clone(), config.node_id, self.stop.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut applied = controller.watch_applied();
            let joined = async { applied.wait_for(|index| *index >= 0).await.is_ok() };
            if stop.run_until_cancelled(joined).await != Some(true) {
                return;
            }
            if let Err(error) = claim(&metadata_dir, node_id, &controller).await {
                tracing::warn!("the cluster's id cannot be written beside the metadata: {error:#}");
            }
        }));
    }

    /// A node without a broker follows the metadata for its admin plane alone.
    fn follow(&mut self, shared: &Shared) {
        let (client, image) = (shared.controller.clone(), shared.image.clone());
        // Without a broker there is no registration to wait for.
        let (_, at_once) = tokio::sync::watch::channel(0);
        let follow = follow_metadata(client, self.id, image, at_once, |_, _| {}, self.stop.clone());
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = follow.await {
                tracing::error!(%error, "the metadata cannot be followed");
            }
        }));
    }

    /// Waits until the cluster lets the node serve.
    pub(crate) async fn ready(&self) {
        if let Some(broker) = &self.broker {
            broker.unfenced().await;
        }
        if let Some(health) = &self.health {
            health.set_service_status("", ServingStatus::Serving).await;
        }
    }

    /// Ends when something happened that the node cannot go on after; says what.
    pub(crate) async fn failed(&self) -> String {
        let controller = async {
            match &self.controller {
                Some(controller) => controller.failed().await,
                None => std::future::pending().await,
            }
        };
        let broker = async {
            match &self.broker {
                Some(broker) => broker.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = controller => reason,
            reason = broker => reason,
        }
    }

    /// Stops in order; leadership moves away first.
    pub(crate) async fn shut_down(mut self) {
        if let Some(health) = &self.health {
            health.set_service_status("", ServingStatus::NotServing).await;
        }
        if let Some(broker) = self.broker.take() {
            broker.shut_down().await;
        }
        if let Some(controller) = self.controller.take() {
            controller.shut_down().await;
        }
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            // A task that panicked has said so.
            drop(task.await);
        }
        drop(self.lock.take());
        tracing::info!(node = self.id, "node stopped");
    }
}

/// Writes `meta.properties` beside the controller's directory, if nobody has, so that Kafka's `kafka-metadata-quorum.sh
/// add-controller` finds there under which directory id this disk can be given a vote. Whoever is there before keeps its own:
/// `ottla quorum status` shows the id in any case.
async fn claim(metadata_dir: &Path, node_id: i32, controller: &Controller) -> anyhow::Result<()> {
    let Some(base) = metadata_dir.parent().map(Path::to_path_buf) else { return Ok(()) };
    let directory_id = Uuid::from_bytes(controller.incarnation());
    let owner = Owner { cluster_id: controller.cluster_id(), node_id, directory_id };
    let written = tokio::task::spawn_blocking(move || match directory::read_owner(&base)? {
        None => directory::write_owner(&base, &owner),
        // The cluster was not known when it was written.
        Some(old) if old == (Owner { cluster_id: String::new(), ..owner.clone() }) => {
            directory::write_owner(&base, &owner)
        }
        Some(_) => Ok(()),
    });
    Ok(written.await.context("the start was interrupted")??)
}

async fn lock(config: &NodeConfig) -> anyhow::Result<DirectoryLock> {
    let path = config.metadata_dir.clone();
    let locked = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        anyhow::Ok(directory::lock(&path)?)
    });
    locked.await.context("the start was interrupted")?
}
