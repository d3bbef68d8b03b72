//! For each rule that small random worlds do not miss: the shortest history that needs it.
//!
//! Brokers 1, 2 and 3 begin in sync, 1 leads; `min.insync.replicas` is 2.

use super::script::Step::{
    self, Append, Apply, BreakProposal, DeliverAnswer, DeliverFetch, DeliverLateProposal, DeliverProposal,
    Fence, Fetch, FetchLate, Heartbeat, Lag, LeaseEnds, PowerLoss, Rebalance, Restart, Tick,
};
use super::world::Scenario;
use crate::fault::Fault;

/// A history, and the rule without which it ends badly.
#[derive(Debug, Clone)]
pub struct History {
    /// What happens, in words.
    pub name: &'static str,
    /// The rule; [`Fault::None`]: a fault that the product had.
    pub shows: Fault,
    /// The way to a place where something is on its way that must not arrive any more.
    pub beginning: Vec<Step>,
    /// How it ends.
    pub end: Vec<Step>,
    /// What may happen after the beginning, when all of it is tried.
    pub scenario: Scenario,
}

/// Broker 2 has left the ISR and is back; its leader's proposal to take it in again is on its way.
const PROPOSED: [Step; 7] = [LeaseEnds(2), Fence(2), Apply(1), Apply(2), Heartbeat(2), Apply(1), Fetch(2)];

/// A record that 1 and 3 have, and that is acknowledged.
const COMMITTED_BY_3: [Step; 3] = [Append(1), Fetch(3), Fetch(3)];

/// Broker 2 may serve again.
const BACK: [Step; 2] = [Heartbeat(2), Apply(2)];

/// Broker 1 is deposed, and 2 leads if the controller lets it.
const TO_2: [Step; 3] = [LeaseEnds(1), Fence(1), Apply(2)];

fn steps(parts: &[&[Step]]) -> Vec<Step> {
    parts.concat()
}

/// All of them.
pub fn histories() -> Vec<History> {
    vec![
        deposed_leader(),
        wiped_joiner(),
        late_proposal(),
        wiped_and_eligible(),
        late_fetch(),
        refused_proposal(),
        own_decision(),
    ]
}

/// Nobody has told 2 and 3 that 1 is deposed: they follow it, and it could acknowledge.
fn deposed_leader() -> History {
    History {
        name: "a leader is deposed, and its followers do not know",
        shows: Fault::NoLease,
        beginning: vec![LeaseEnds(1), Fence(1)],
        end: vec![Append(1), Fetch(2), Fetch(3), Fetch(2), Fetch(3)],
        scenario: Scenario { appends: 1, ..Scenario::new("after a leader is deposed", 8) },
    }
}

/// KIP-903: what the proposal says of 2 is true of its former life.
fn wiped_joiner() -> History {
    let acknowledged = [Append(1), Fetch(2), Fetch(3), Fetch(2), Fetch(3)];
    let wiped = [PowerLoss(2, 0), Restart(2), Apply(1), Apply(3)];
    History {
        name: "a follower loses its log while it is proposed",
        shows: Fault::NoBrokerEpoch,
        beginning: steps(&[&PROPOSED, &acknowledged, &wiped, &BACK]),
        end: steps(&[&[DeliverProposal], &TO_2]),
        scenario: Scenario {
            appends: 0,
            lease_ends: 1,
            ..Scenario::new("after a follower that is proposed was wiped", 8)
        },
    }
}

/// The first copy of a proposal comes when its member has left again.
fn late_proposal() -> History {
    let accepted = [BreakProposal(1), Tick(1), DeliverProposal, DeliverAnswer];
    let left = [Fence(2), Apply(1), Apply(2), Apply(3)];
    History {
        name: "a proposal comes again when its member has left",
        shows: Fault::NoPartitionEpoch,
        beginning: steps(&[&PROPOSED, &accepted, &left, &COMMITTED_BY_3, &BACK]),
        end: steps(&[&[DeliverLateProposal], &TO_2]),
        scenario: Scenario { appends: 0, lease_ends: 1, ..Scenario::new("after a member has left again", 8) },
    }
}

/// KIP-966: 2 would be an eligible leader, had it not lost what made it one.
fn wiped_and_eligible() -> History {
    let acknowledged = [Append(1), Fetch(2), Fetch(2)];
    History {
        name: "a follower of two loses its log, then the leader is gone",
        shows: Fault::AlwaysClean,
        beginning: steps(&[
            &[LeaseEnds(3), Fence(3), Apply(1)],
            &acknowledged,
            &[PowerLoss(2, 0), Restart(2), Apply(1), Apply(3)],
            &BACK,
        ]),
        end: TO_2.to_vec(),
        scenario: Scenario {
            appends: 0,
            lease_ends: 1,
            ..Scenario::new("after one of two in sync was wiped", 8)
        },
    }
}

/// 3 said that it has a record of 2. It gave that up for 1, and 2, which never followed 1, has it still.
fn late_fetch() -> History {
    let to_2 = [LeaseEnds(1), Fence(1), Apply(1), Apply(2), Apply(3), Heartbeat(1), Apply(2)];
    let joined = [Fetch(1), Fetch(1), DeliverProposal, DeliverAnswer, Apply(1), Apply(3)];
    let said = [Append(2), Fetch(3), FetchLate(3)];
    let home = [Rebalance, Apply(1), Apply(3), Fetch(3)];
    History {
        name: "a fetch comes two leaders late",
        shows: Fault::NoEpochCheck,
        beginning: steps(&[&to_2, &joined, &said, &home, &[Fence(1), Apply(1), Apply(2), Apply(3)]]),
        end: vec![DeliverFetch(3), LeaseEnds(2), Fence(2), Apply(3)],
        scenario: Scenario {
            appends: 0,
            lease_ends: 1,
            ..Scenario::new("after a leader that nobody missed", 8)
        },
    }
}

/// The answer to the second copy lets the leader count without 2, the first copy takes 2 in. The controller once left the
/// partition epoch as it was when it refused a member.
fn refused_proposal() -> History {
    let refused =
        [BreakProposal(1), Fence(2), Tick(1), DeliverProposal, DeliverAnswer, Apply(1), Apply(2), Apply(3)];
    History {
        name: "a proposal is refused, and then its first copy comes",
        shows: Fault::None,
        beginning: steps(&[&PROPOSED, &refused, &COMMITTED_BY_3, &BACK]),
        end: steps(&[&[DeliverLateProposal], &TO_2]),
        scenario: Scenario { appends: 0, lease_ends: 1, ..Scenario::new("after a member was refused", 8) },
    }
}

/// 2 lags. The leader wants it out of the ISR, and does not wait for the controller.
fn own_decision() -> History {
    History {
        name: "a leader counts without a member before the controller does",
        shows: Fault::NoController,
        beginning: vec![Append(1), Fetch(3), Lag, Fetch(3), Tick(1)],
        end: TO_2.to_vec(),
        scenario: Scenario { appends: 0, lease_ends: 1, ..Scenario::new("after a follower lags", 7) },
    }
}
