//! Ports that the node is to listen on, and the controllers that it has to reach.

use super::readings::{Advertised, Peer, PeerFailure, Port, TAKEN};
use super::{Finding, Level, Readings};

/// Clocks further apart than this are a fault, in seconds. Answers tell whole seconds, so one is nothing.
const CLOCK_APART_S_MAX: u64 = 2;

/// Judges ports and peers.
pub(super) fn check(readings: &Readings) -> Vec<Finding> {
    let ports = readings.ports.iter().map(|port| port_of(port, readings.node_runs));
    let told = readings.advertised.iter().map(told);
    ports.chain(told).chain(readings.peers.iter().flat_map(peer)).collect()
}

fn port_of(port: &Port, node_runs: bool) -> Finding {
    let check = format!("port {} of {}", port.address, port.name);
    match &port.refused {
        None => Finding::ok(check, "free"),
        Some(_) if node_runs => Finding::ok(check, "taken by the node that runs here"),
        Some(reason) => {
            let number = port.address.rsplit_once(':').map_or("", |(_, number)| number);
            let mend = if reason == TAKEN {
                format!("ss -ltnp 'sport = :{number}' shows who has it; else change the listener")
            } else {
                "ip address shows what this machine has; ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit"
                    .to_owned()
            };
            Finding::bad(Level::Problem, check, reason.clone(), "the node does not start without it", mend)
        }
    }
}

/// What cannot be found here may still be found where clients are, but hardly ever is.
fn told(told: &Advertised) -> Finding {
    let check = format!("advertised {} of {}", told.address, told.name);
    match &told.unknown {
        None => Finding::ok(check, "its name has an address"),
        Some(reason) => Finding::bad(
            Level::Warning,
            check,
            format!("its name has no address: {reason}"),
            "clients and other nodes are sent there after their first connection, and fail",
            "correct advertised.listeners, or the name in DNS or /etc/hosts",
        ),
    }
}

fn peer(peer: &Peer) -> Vec<Finding> {
    let check = format!("controller {}", peer.address);
    let first = match &peer.reached {
        Ok(()) => Finding::ok(check, "answers"),
        Err(PeerFailure::Name(reason)) => Finding::bad(
            Level::Problem,
            check,
            format!("its name has no address: {reason}"),
            "a node that cannot find the controllers does not join",
            "correct controller.quorum.voters, or the name in DNS or /etc/hosts",
        ),
        Err(PeerFailure::Connection(reason)) => Finding::bad(
            Level::Warning,
            check,
            format!("does not answer: {reason}"),
            "metadata changes need a majority of the controllers",
            "start that node; if it runs, let its gRPC port through the firewall",
        ),
    };
    let ahead = peer.clock_ahead_s.filter(|ahead| ahead.unsigned_abs() > CLOCK_APART_S_MAX);
    let second = ahead.map(|ahead| {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        Finding::bad(
            Level::Warning,
            format!("clock of {}", peer.address),
            format!("{} s {side} this machine's", ahead.unsigned_abs()),
            "records are found and deleted by their time: clocks that differ delete early and search wrong",
            "chronyc makestep on the machine whose time is wrong",
        )
    });
    std::iter::once(first).chain(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_peer(reached: Result<(), PeerFailure>, clock_ahead_s: Option<i64>) -> Vec<(String, Level)> {
        let peers = vec![Peer { address: "b:9093".into(), reached, clock_ahead_s }];
        let findings = check(&Readings { peers, ..Readings::default() });
        findings.into_iter().map(|finding| (finding.finding, finding.level)).collect()
    }

    #[test]
    fn a_port_that_is_taken_is_a_problem_unless_by_this_node() {
        let port = |refused: Option<&str>, node_runs| {
            let port = Port {
                name: "PLAINTEXT".into(),
                address: "0.0.0.0:9092".into(),
                refused: refused.map(str::to_owned),
            };
            check(&Readings { ports: vec![port], node_runs, ..Readings::default() }).remove(0)
        };
        assert_eq!(port(None, false).level, Level::Ok);
        assert_eq!(port(Some("in use"), true).level, Level::Ok);
        let taken = port(Some(TAKEN), false);
        assert_eq!(taken.level, Level::Problem);
        assert!(taken.mend.unwrap().contains("sport = :9092"));
        let refused = port(Some("Permission denied"), false);
        assert!(!refused.mend.unwrap().contains("ss -ltnp"), "nobody has it");
    }

    #[test]
    fn an_advertised_name_that_nobody_knows_is_told() {
        let of = |unknown: Option<&str>| {
            let one = Advertised {
                name: "OUTSIDE".into(),
                address: "b:9092".into(),
                unknown: unknown.map(str::to_owned),
            };
            check(&Readings { advertised: vec![one], ..Readings::default() }).remove(0).level
        };
        assert_eq!((of(None), of(Some("not found"))), (Level::Ok, Level::Warning));
    }

    #[test]
    fn a_peer_without_an_address_is_worse_than_one_that_is_silent() {
        assert_eq!(with_peer(Ok(()), Some(0)), [("answers".to_owned(), Level::Ok)]);
        assert_eq!(with_peer(Err(PeerFailure::Name("x".into())), None)[0].1, Level::Problem);
        assert_eq!(with_peer(Err(PeerFailure::Connection("x".into())), None)[0].1, Level::Warning);
    }

    #[test]
    fn clocks_may_differ_by_what_a_date_can_tell() {
        assert_eq!(with_peer(Ok(()), Some(-2)).len(), 1);
        assert_eq!(
            with_peer(Ok(()), Some(-30))[1],
            ("30 s behind this machine's".to_owned(), Level::Warning)
        );
        assert_eq!(with_peer(Ok(()), Some(i64::MIN))[1].1, Level::Warning);
    }
}
