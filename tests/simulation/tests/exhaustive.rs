//! Small clusters, every order of events: I20, I38 to I46, and S-R01 to S-R09, S-R12, S-R16 in small.

use ottla_simulation::exhaustive::{explore, explore_behind, histories, scenarios, tell};
use ottla_simulation::fault::Fault;

/// States of one scenario in a test's time; `--explore` has its own bound.
const STATES_MAX: usize = 4_000;
/// States in which a rule that is switched off must be missed.
const STATES_OF_FAULTS_MAX: usize = 8_000;
/// States behind the beginning of a history.
const STATES_BEHIND_MAX: usize = 2_000;

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

/// The faults that small worlds show soon; the others need longer histories.
#[test]
fn rules_that_are_switched_off_are_missed() {
    for fault in [Fault::NoDivergence, Fault::CountsWhatIsSent] {
        let found = scenarios().into_iter().find_map(|scenario| {
            let found = explore(&scenario, fault, STATES_OF_FAULTS_MAX);
            let (problem, way) = found.violation?;
            Some(format!("{fault:?}: {problem} after {} events, {} states", way.len(), found.states))
        });
        println!("{}", found.unwrap_or_else(|| panic!("{fault:?} is not noticed")));
    }
}

/// Each history holds with all rules, and ends badly without the one that it is about.
#[test]
fn histories_show_the_rules_that_they_are_about() {
    for history in histories() {
        let told = tell(&history, Fault::None);
        assert_eq!(told.problem, None, "{}", history.name);
        if history.shows == Fault::None {
            assert_eq!(told.left_out, [], "{}", history.name);
            continue;
        }
        let without = tell(&history, history.shows);
        assert_eq!(without.left_out, [], "{}", history.name);
        let problem = without.problem.unwrap_or_else(|| panic!("{}: not noticed", history.name));
        println!("{:?}: {problem}", history.shows);
    }
}

/// The same, whatever happens after the beginning.
#[test]
fn whatever_follows_on_the_beginnings_of_histories_breaks_no_rule() {
    for history in histories() {
        let found = explore_behind(&history, Fault::None, true, STATES_BEHIND_MAX);
        println!("{}", found.summary(&history.scenario));
        if let Some((problem, way)) = found.violation {
            panic!("{}: {problem}\n  {}", history.name, way.join("\n  "));
        }
        if history.shows != Fault::None {
            let found = explore_behind(&history, history.shows, true, STATES_BEHIND_MAX);
            let (problem, way) =
                found.violation.unwrap_or_else(|| panic!("{:?} is not noticed", history.shows));
            println!("  {:?}: {problem} after {} events, {} states", history.shows, way.len(), found.states);
        }
    }
}

/// As in Kafka, which has no leases: whoever is deposed and does not know it is followed by nobody who could lead after it,
/// so that it loses nothing. What the lease adds is that nobody is told of commits by two leaders at once (I44).
#[test]
fn without_leases_nothing_is_lost() {
    for history in histories() {
        let found = explore_behind(&history, Fault::NoLease, false, STATES_BEHIND_MAX);
        assert_eq!(found.violation, None, "{}", history.name);
    }
}
