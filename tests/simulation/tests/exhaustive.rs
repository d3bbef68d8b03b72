//! Small clusters, every order of events: I20, I38 to I46, and S-R01 to S-R09, S-R12, S-R16 in small.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ottla_simulation::exhaustive::{explore, scenarios};
use ottla_simulation::fault::Fault;

/// States of one scenario in a test's time; the long run has its own bound.
const STATES_MAX: usize = 4_000;

#[test]
fn no_order_of_events_breaks_a_rule() {
    for scenario in scenarios() {
        let found = explore(&scenario, Fault::None, STATES_MAX);
        println!("{}", found.summary(&scenario));
        if let Some((problem, way)) = found.violation {
            panic!("{}: {problem}\n  {}", scenario.name, way.join("\n  "));
        }
        assert!(found.states > 1_000, "{}: nothing was explored", scenario.name);
    }
}

#[test]
fn every_rule_that_is_switched_off_is_noticed() {
    for fault in Fault::ALL {
        let found = scenarios().into_iter().find_map(|scenario| {
            let found = explore(&scenario, fault, STATES_MAX);
            let (problem, way) = found.violation?;
            Some(format!(
                "{fault:?}: {} states of {}: {problem} after {} events",
                found.states,
                scenario.name,
                way.len()
            ))
        });
        println!("{}", found.unwrap_or_else(|| panic!("{fault:?} is not noticed")));
    }
}
