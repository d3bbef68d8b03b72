//! A node's configuration, typed: read from Kafka's property names, checked as a whole, all problems at once.
//!
//! Precedence: defaults, then the file, then the environment, then `--set`.

mod address;
mod network;
mod pod;
mod quorum;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ottla_broker::security::SecurityProtocol;
use ottla_metadata::config::{get_list, get_string};

pub(crate) use self::address::{Address, HttpAddress, Listener};
use self::network::Network;
use self::settings::Settings;
pub(crate) use self::settings::{Findings, Origin, Problem};

/// What a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) broker: bool,
    pub(crate) controller: bool,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The listener for gRPC: Raft, broker-to-controller, admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrpcListener {
    /// Name and where to bind.
    pub(crate) listener: Listener,
    /// Where others reach it.
    pub(crate) endpoint: Address,
}

/// Everything that a node is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeConfig {
    pub(crate) node_id: i32,
    pub(crate) roles: Roles,
    /// Kafka listeners; none of a node that is no broker.
    pub(crate) listeners: Vec<Listener>,
    /// What clients are told of them. A port of 0 is the one that gets bound.
    pub(crate) advertised: Vec<Listener>,
    /// What each listener speaks, by its name.
    pub(crate) protocols: BTreeMap<String, SecurityProtocol>,
    pub(crate) inter_broker_listener: String,
    /// Name of the listener that controllers are reached by.
    pub(crate) controller_listener: String,
    /// `None`: a broker without an admin plane of its own.
    pub(crate) grpc: Option<GrpcListener>,
    /// Node ids and gRPC endpoints of the controllers; empty of a broker that knows only endpoints.
    pub(crate) voters: Vec<(i32, Address)>,
    /// gRPC endpoints by which a controller finds a quorum that does not know it yet.
    pub(crate) bootstrap_servers: Vec<Address>,
    /// gRPC endpoints of the controllers.
    pub(crate) controllers: Vec<Address>,
    pub(crate) log_dirs: Vec<PathBuf>,
    pub(crate) metadata_dir: PathBuf,
    /// `None`: no HTTP port.
    pub(crate) http: Option<HttpAddress>,
    pub(crate) log_format: LogFormat,
    /// Where spans of requests go; `None`: nowhere.
    pub(crate) otlp_endpoint: Option<String>,
    /// Everything that was set, by Kafka's names.
    pub(crate) properties: Arc<BTreeMap<String, String>>,
}

/// Directory under `metadata.log.dir` that a controller keeps: no topic can have its name, so it may lie beside partitions.
const METADATA_DIRECTORY: &str = "__cluster_metadata";

/// The authorizer that is there goes by the name of Kafka's.
const AUTHORIZER: &str = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";

/// A property, whether a value of it wants something, and what to do instead.
type NotThereYet = (&'static str, fn(&str) -> bool, &'static str);

/// What would be taken and not done. A node that looks protected and is not would be worse than none.
const NOT_THERE_YET: [NotThereYet; 2] = [
    (
        "authorizer.class.name",
        |value| !value.is_empty() && value != AUTHORIZER,
        "authorizers of one's own are not there: write org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ),
    (
        "remote.log.storage.system.enable",
        |value| value == "true",
        "tiered storage is not there yet: remove it",
    ),
];

impl NodeConfig {
    /// What a listener speaks.
    pub(crate) fn protocol(&self, listener: &str) -> SecurityProtocol {
        self.protocols.get(listener).copied().unwrap_or_default()
    }

    /// Reads and checks. With problems there is no configuration.
    pub(crate) fn load(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> (Option<Self>, Findings) {
        let mut findings = Findings::default();
        let settings = Settings::gather(text, environment, flags, &mut findings);
        findings.wants_json = settings.get("ottla.log.format") == Some("json");
        let config = Self::derive(&settings, &mut findings);
        findings.sort();
        (config.filter(|_| findings.problems.is_empty()), findings)
    }

    /// The node, if enough is right to speak of one. Whatever is wrong is in the findings.
    fn derive(settings: &Settings, findings: &mut Findings) -> Option<Self> {
        for (name, is_wanted, message) in NOT_THERE_YET {
            if settings.get(name).is_some_and(is_wanted) {
                findings.problem(settings, name, message);
            }
        }
        let roles = roles(settings, findings);
        let node_id = node_id(settings, findings);
        let log_dirs = log_dirs(settings, findings);
        let http = http(settings, findings);
        let network = Network::read(settings, roles, findings);
        let quorum = quorum::read(settings, roles, node_id, network.grpc.as_ref(), findings);
        let properties = settings.values();
        let log_format = if get_string(&properties, "ottla.log.format") == "json" {
            LogFormat::Json
        } else {
            LogFormat::Text
        };
        let otlp_endpoint = otlp_endpoint(settings, findings);
        let metadata_base =
            settings.filled("metadata.log.dir").map(PathBuf::from).or_else(|| log_dirs.first().cloned());
        Some(Self {
            node_id: node_id?,
            roles,
            listeners: network.listeners,
            advertised: network.advertised,
            protocols: network.protocols,
            inter_broker_listener: network.inter_broker,
            controller_listener: network.controller,
            grpc: network.grpc,
            voters: quorum.voters,
            bootstrap_servers: quorum.bootstrap_servers,
            controllers: quorum.controllers,
            metadata_dir: metadata_base?.join(METADATA_DIRECTORY),
            log_dirs,
            http,
            log_format,
            otlp_endpoint,
            properties: Arc::new(properties),
        })
    }
}

/// The process's environment. A variable that is no text cannot be one of ours.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn roles(settings: &Settings, findings: &mut Findings) -> Roles {
    const NAME: &str = "process.roles";
    let Some(text) = settings.filled(NAME) else {
        // A value that is no role was reported as such.
        if !findings.have(NAME) {
            findings.problem(settings, NAME, "is missing: write broker, controller or broker,controller");
        }
        return Roles::default();
    };
    let has = |role: &str| text.split(',').any(|item| item == role);
    Roles { broker: has("broker"), controller: has("controller") }
}

fn node_id(settings: &Settings, findings: &mut Findings) -> Option<i32> {
    let parsed = |name: &str| settings.get(name).and_then(|text| text.parse::<i32>().ok());
    let (id, old) = (parsed("node.id"), parsed("broker.id"));
    if let (Some(id), Some(old)) = (id, old)
        && id != old
    {
        findings.problem(settings, "broker.id", format!("is {old}, but node.id is {id}: remove broker.id"));
    }
    if id.or(old).is_none() && !findings.have("node.id") && !findings.have("broker.id") {
        findings.problem(
            settings,
            "node.id",
            "is missing: give each node of the cluster a number of its own",
        );
    }
    id.or(old).filter(|id| *id >= 0)
}

fn log_dirs(settings: &Settings, findings: &mut Findings) -> Vec<PathBuf> {
    let properties = settings.values();
    let mut all: Vec<PathBuf> = Vec::new();
    for directory in get_list(&properties, "log.dirs") {
        let path = PathBuf::from(directory);
        if all.contains(&path) {
            findings.problem(settings, "log.dirs", format!("{directory} is there twice"));
        }
        all.push(path);
    }
    if all.is_empty() {
        findings.problem(settings, "log.dirs", "names no directory");
    }
    all
}

fn otlp_endpoint(settings: &Settings, findings: &mut Findings) -> Option<String> {
    const NAME: &str = "ottla.otlp.endpoint";
    let endpoint = settings.filled(NAME)?;
    if !cfg!(feature = "otlp") {
        findings.problem(settings, NAME, "needs a binary that was built with the feature otlp: leave it out");
    } else if !endpoint.starts_with("http://") {
        findings.problem(settings, NAME, "is not http://HOST:PORT of a collector's gRPC port");
    }
    Some(endpoint.to_owned())
}

fn http(settings: &Settings, findings: &mut Findings) -> Option<HttpAddress> {
    const NAME: &str = "ottla.http.listener";
    let properties = settings.values();
    let text = get_string(&properties, NAME);
    if text.is_empty() {
        return None;
    }
    HttpAddress::parse(text)
        .map_err(|message| {
            findings.problem(settings, NAME, format!("{message}; empty turns the HTTP port off"));
        })
        .ok()
}
