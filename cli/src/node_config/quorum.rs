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
        if let Some(id) = own {
            findings.problem(
                settings,
                VOTERS,
                format!("this controller is not among them: add {id}@HOST:PORT"),
            );
        }
        if let Some(id) =
            node_id.filter(|id| !roles.controller && voters.iter().any(|(voter, _)| voter == id))
        {
            let message = format!("node {id} is among them, but process.roles does not make it a controller");
            findings.problem(settings, VOTERS, message);
        }
        let controllers = voters.iter().map(|(_, address)| address.clone()).collect();
        return Quorum { voters, controllers };
    }
    if servers.is_empty() {
        let message = "is missing: list the controllers, 1@HOST:PORT,…; a single node lists itself";
        findings.problem(settings, VOTERS, message);
        return Quorum::default();
    }
    if !roles.controller {
        return Quorum { voters: Vec::new(), controllers: servers };
    }
    // A Kafka file for a single node names that node here and nowhere else.
    match (servers.as_slice(), node_id, grpc) {
        ([server], Some(id), Some(grpc)) if server.port == grpc.listener.address.port => {
            Quorum { voters: vec![(id, server.clone())], controllers: servers }
        }
        _ => {
            let message = format!(
                "tells a controller where the others are but not their ids: set {VOTERS}=1@HOST:PORT,… on every node"
            );
            findings.problem(settings, BOOTSTRAP, message);
            Quorum::default()
        }
    }
}
