//! Small clusters, every order of events: I20, I38 to I46, and S-R01 to S-R09, S-R12, S-R16 in small.

use ottla_simulation::exhaustive::{explore, scenarios};
use ottla_simulation::fault::Fault;

/// States of one scenario in a test's time; `--explore` has its own bound.
const STATES_MAX: usize = 4_000;
/// States in which a rule that is switched off must be missed.
const STATES_OF_FAULTS_MAX: usize = 8_000;

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

/// The faults that small worlds show soon; the others need longer histories, which the simulation has.
#[test]
fn rules_that_are_switched_off_are_missed() {
    for fault in [Fault::NoDivergence, Fault::CountsWhatIsSent, Fault::NoController] {
        let found = scenarios().into_iter().find_map(|scenario| {
            let found = explore(&scenario, fault, STATES_OF_FAULTS_MAX);
            let (problem, way) = found.violation?;
            Some(format!("{fault:?}: {problem} after {} events, {} states", way.len(), found.states))
        });
        println!("{}", found.unwrap_or_else(|| panic!("{fault:?} is not noticed")));
    }
}
