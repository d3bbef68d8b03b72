//! Who the controllers are.

use super::address::{self, Address};
use super::settings::{Findings, Settings};
use super::{GrpcListener, Roles};

const VOTERS: &str = "controller.quorum.voters";
const BOOTSTRAP: &str = "controller.quorum.bootstrap.servers";

/// The controllers as a node knows them.
#[derive(Debug, Default)]
pub(super) struct Quorum {
    pub(super) voters: Vec<(i32, Address)>,
    /// Where a controller finds the quorum that `voters` does not name, or that has lost its disk.
    pub(super) bootstrap_servers: Vec<Address>,
    pub(super) controllers: Vec<Address>,
}

pub(super) fn read(
    settings: &Settings,
    roles: Roles,
    node_id: Option<i32>,
    grpc: Option<&GrpcListener>,
    findings: &mut Findings,
) -> Quorum {
    let voters = match address::voters(settings.filled(VOTERS).unwrap_or_default()) {
        Ok(voters) => voters,
        Err(message) => {
            findings.problem(settings, VOTERS, message);
            return Quorum::default();
        }
    };
    let mut servers = Vec::new();
    for item in settings.filled(BOOTSTRAP).unwrap_or_default().split(',').map(str::trim) {
        if item.is_empty() {
            continue;
        }
        match Address::parse(item) {
            Ok(address) if address.is_wildcard() || address.port == 0 => {
                findings.problem(settings, BOOTSTRAP, format!("nobody can connect to '{item}'"));
            }
            Ok(address) => servers.push(address),
            Err(message) => findings.problem(settings, BOOTSTRAP, message),
        }
    }
    if !voters.is_empty() {
        let own = node_id.filter(|id| roles.controller && !voters.iter().any(|(voter, _)| voter == id));
        if let Some(id) = own.filter(|_| servers.is_empty()) {
            let message = format!(
                "this controller is not among them: add {id}@HOST:PORT if the cluster is new, or set {BOOTSTRAP} instead \
                 and give it a vote later with 'ottla quorum add {id}'"
            );
            findings.problem(settings, VOTERS, message);
        }
        if let Some(id) =
            node_id.filter(|id| !roles.controller && voters.iter().any(|(voter, _)| voter == id))
        {
            let message = format!("node {id} is among them, but process.roles does not make it a controller");
            findings.problem(settings, VOTERS, message);
        }
        let mut controllers: Vec<Address> = voters.iter().map(|(_, address)| address.clone()).collect();
        controllers.extend(
            servers.iter().filter(|server| !controllers.contains(server)).cloned().collect::<Vec<_>>(),
        );
        return Quorum { voters, bootstrap_servers: servers, controllers };
    }
    if servers.is_empty() {
        let message = "is missing: list the controllers, 1@HOST:PORT,…; a single node lists itself";
        findings.problem(settings, VOTERS, message);
        return Quorum::default();
    }
    // A Kafka file for a single node names that node here and nowhere else.
    if let ([server], Some(id), Some(grpc)) = (servers.as_slice(), node_id, grpc)
        && roles.controller
        && is_own(server, grpc)
    {
        return Quorum {
            voters: vec![(id, server.clone())],
            bootstrap_servers: Vec::new(),
            controllers: servers,
        };
    }
    // A controller then follows the quorum that it finds there, until it is given a vote.
    Quorum { voters: Vec::new(), bootstrap_servers: servers.clone(), controllers: servers }
}

/// Whether an address is this node's own: its port, and its host or this machine's loopback.
fn is_own(server: &Address, grpc: &GrpcListener) -> bool {
    let (bound, told) = (&grpc.listener.address, &grpc.endpoint);
    let is_loopback = matches!(server.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    (server.port == bound.port && (is_loopback || server.host.eq_ignore_ascii_case(&bound.host)))
        || (server.port == told.port && server.host.eq_ignore_ascii_case(&told.host))
}
