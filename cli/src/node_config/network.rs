//! Listeners: what is bound, what clients are told, which one brokers use among themselves, which one is gRPC.

use std::collections::BTreeMap;

use ottla_broker::security::SecurityProtocol;
use ottla_metadata::config::{get_list, get_string};

use super::address::{self, Address, Listener};
use super::settings::{Findings, Settings};
use super::{GrpcListener, Roles};

const LISTENERS: &str = "listeners";
const ADVERTISED: &str = "advertised.listeners";
const PROTOCOL_MAP: &str = "listener.security.protocol.map";
const CONTROLLER_NAMES: &str = "controller.listener.names";
const INTER_BROKER: &str = "inter.broker.listener.name";
const INTER_BROKER_PROTOCOL: &str = "security.inter.broker.protocol";

/// A node's listeners.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) listeners: Vec<Listener>,
    pub(super) advertised: Vec<Listener>,
    /// What each listener speaks, by its name.
    pub(super) protocols: BTreeMap<String, SecurityProtocol>,
    pub(super) inter_broker: String,
    /// Name of the listener that controllers are reached by; empty: not said.
    pub(super) controller: String,
    pub(super) grpc: Option<GrpcListener>,
}

impl Network {
    pub(super) fn read(settings: &Settings, roles: Roles, findings: &mut Findings) -> Self {
        let properties = settings.values();
        let all = parse(settings, LISTENERS, get_string(&properties, LISTENERS), findings);
        let advertised = parse(settings, ADVERTISED, get_string(&properties, ADVERTISED), findings);
        let controller_names: Vec<String> =
            get_list(&properties, CONTROLLER_NAMES).into_iter().map(str::to_ascii_uppercase).collect();
        // What cannot be read has been said; nothing that follows from it is worth saying.
        let (Some(all), Some(advertised)) = (all, advertised) else { return Self::default() };
        check_ports(settings, &all, findings);
        let protocols = protocols(settings, &all, &controller_names, findings);
        let (grpc, kafka): (Vec<_>, Vec<_>) =
            all.iter().cloned().partition(|listener| controller_names.contains(&listener.name));
        let mut network = Self {
            grpc: grpc_listener(settings, &grpc, &advertised, findings),
            protocols,
            controller: controller_names.first().cloned().unwrap_or_default(),
            ..Self::default()
        };
        // Where the roles are not known either, this is missing all the same.
        if roles.controller || !roles.broker {
            check_controller(settings, &controller_names, network.grpc.is_some(), roles, findings);
        }
        if roles.broker {
            network.add_broker(settings, kafka, &all, advertised, &controller_names, findings);
        } else if let Some(listener) = kafka.first().filter(|_| roles.controller) {
            let name = &listener.name;
            let message = format!("a node that is only a controller has no Kafka listener: remove {name}");
            findings.problem(settings, LISTENERS, message);
        }
        network
    }

    fn add_broker(
        &mut self,
        settings: &Settings,
        kafka: Vec<Listener>,
        all: &[Listener],
        advertised: Vec<Listener>,
        controller_names: &[String],
        findings: &mut Findings,
    ) {
        if kafka.is_empty() {
            findings.problem(settings, LISTENERS, "a broker needs a Kafka listener: add PLAINTEXT://:9092");
            return;
        }
        for listener in &advertised {
            if !all.iter().any(|bound| bound.name == listener.name) {
                let message = format!("{} is not among the listeners", listener.name);
                findings.problem(settings, ADVERTISED, message);
            }
        }
        let given = settings.filled(ADVERTISED).is_some();
        self.advertised = kafka
            .iter()
            .filter_map(|listener| match advertised.iter().find(|one| one.name == listener.name) {
                Some(told) => Some(told.clone()),
                // As in Kafka: a listener that the given list leaves out is for those who know of it.
                None if given => None,
                None => Some(Listener { address: reachable(&listener.address), ..listener.clone() }),
            })
            .collect();
        for listener in &self.advertised {
            if listener.address.is_wildcard() {
                let name = if given { ADVERTISED } else { LISTENERS };
                let told = &listener.address;
                let message = format!(
                    "clients would be told {told}, which leads nowhere: set advertised.listeners to a host that they reach"
                );
                findings.problem(settings, name, message);
            }
        }
        self.inter_broker = inter_broker(settings, &self.advertised, controller_names, findings);
        self.listeners = kafka;
    }
}

fn parse(settings: &Settings, name: &str, text: &str, findings: &mut Findings) -> Option<Vec<Listener>> {
    address::listeners(text).map_err(|message| findings.problem(settings, name, message)).ok()
}

fn check_ports(settings: &Settings, all: &[Listener], findings: &mut Findings) {
    for (at, listener) in all.iter().enumerate() {
        let same = |other: &&Listener| {
            other.address.port == listener.address.port
                && (other.address.host == listener.address.host
                    || other.address.is_wildcard()
                    || listener.address.is_wildcard())
        };
        if let Some(other) = all[..at].iter().find(same).filter(|other| other.address.port != 0) {
            let message =
                format!("{} and {} have the same port {}", other.name, listener.name, other.address.port);
            findings.problem(settings, LISTENERS, message);
        }
    }
}

/// Every listener needs a protocol; the controllers' one is plain or has TLS.
fn protocols(
    settings: &Settings,
    all: &[Listener],
    controller_names: &[String],
    findings: &mut Findings,
) -> BTreeMap<String, SecurityProtocol> {
    let map = protocol_map(settings, findings);
    let mapped = settings.filled(PROTOCOL_MAP).is_some();
    let mut protocols = BTreeMap::new();
    for listener in all {
        let name = &listener.name;
        let is_controller = controller_names.contains(name);
        let protocol = match map.get(name) {
            Some(protocol) => Some(*protocol),
            // As in Kafka: without a map of the user's, names stand for themselves and controllers are plain.
            None if !mapped && is_controller => Some(SecurityProtocol::Plaintext),
            None if !mapped => name.parse().ok(),
            None => None,
        };
        let Some(protocol) = protocol else {
            let message = format!("says nothing of the listener {name}: add {name}:PLAINTEXT");
            findings.problem(settings, PROTOCOL_MAP, message);
            continue;
        };
        protocols.insert(name.clone(), protocol);
    }
    // A broker that has no such listener calls those of the controllers.
    for name in controller_names {
        if let Some(protocol) = map.get(name) {
            protocols.entry(name.clone()).or_insert(*protocol);
        }
    }
    protocols
}

/// The property, read.
fn protocol_map(settings: &Settings, findings: &mut Findings) -> BTreeMap<String, SecurityProtocol> {
    let mut map = BTreeMap::new();
    for item in settings.filled(PROTOCOL_MAP).unwrap_or_default().split(',').map(str::trim) {
        if item.is_empty() {
            continue;
        }
        let read = item.split_once(':').and_then(|(name, protocol)| {
            Some((name.trim().to_ascii_uppercase(), protocol.parse::<SecurityProtocol>().ok()?))
        });
        match read {
            Some((name, protocol)) if !name.is_empty() => {
                map.insert(name, protocol);
            }
            _ => {
                let known = SecurityProtocol::ALL.map(SecurityProtocol::name).join(", ");
                let message = format!("'{item}' is not NAME:PROTOCOL with one of {known}");
                findings.problem(settings, PROTOCOL_MAP, message);
            }
        }
    }
    map
}

fn grpc_listener(
    settings: &Settings,
    grpc: &[Listener],
    advertised: &[Listener],
    findings: &mut Findings,
) -> Option<GrpcListener> {
    if let [first, second, ..] = grpc {
        let message =
            format!("{} and {} both name listeners; a node has one gRPC listener", first.name, second.name);
        findings.problem(settings, CONTROLLER_NAMES, message);
    }
    let listener = grpc.first()?.clone();
    let told = advertised.iter().find(|one| one.name == listener.name).map(|one| one.address.clone());
    let endpoint = told.unwrap_or_else(|| reachable(&listener.address));
    Some(GrpcListener { listener, endpoint })
}

fn check_controller(
    settings: &Settings,
    controller_names: &[String],
    is_bound: bool,
    roles: Roles,
    findings: &mut Findings,
) {
    if controller_names.is_empty() {
        let message = "is missing: name the listener that controllers are reached by, CONTROLLER";
        findings.problem(settings, CONTROLLER_NAMES, message);
    } else if !is_bound {
        let name = &controller_names[0];
        let more = if roles.broker { " beside the Kafka listener" } else { "" };
        let message = format!("a controller needs the listener {name}: add {name}://:9093{more}");
        findings.problem(settings, LISTENERS, message);
    }
}

fn inter_broker(
    settings: &Settings,
    advertised: &[Listener],
    controller_names: &[String],
    findings: &mut Findings,
) -> String {
    let by_name = settings.filled(INTER_BROKER);
    let by_protocol = settings.filled(INTER_BROKER_PROTOCOL);
    if by_name.is_some() && by_protocol.is_some() {
        let message = format!("only one of {INTER_BROKER} and {INTER_BROKER_PROTOCOL} may be set");
        findings.problem(settings, INTER_BROKER, message);
    }
    let at = if by_name.is_none() && by_protocol.is_some() { INTER_BROKER_PROTOCOL } else { INTER_BROKER };
    let name = by_name.or(by_protocol).unwrap_or("PLAINTEXT").to_ascii_uppercase();
    if controller_names.contains(&name) {
        findings.problem(
            settings,
            at,
            format!("{name} is the controllers' listener; brokers need one of their own"),
        );
    } else if !advertised.iter().any(|listener| listener.name == name) {
        let known: Vec<&str> = advertised.iter().map(|listener| listener.name.as_str()).collect();
        let known = known.join(", ");
        let message = format!(
            "brokers reach each other over {name}, which is not among the advertised listeners ({known}): set {INTER_BROKER}"
        );
        findings.problem(settings, at, message);
    }
    name
}

/// The address that others are told of a listener: of one that is bound to every address, this machine's name.
fn reachable(bound: &Address) -> Address {
    let host = if bound.host.is_empty() { machine_name() } else { bound.host.clone() };
    Address { host, port: bound.port }
}

fn machine_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
