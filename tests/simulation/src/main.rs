//! The long runs.

use std::process::ExitCode;
use std::time::Instant;

use ottla_simulation::cluster::{self, Outcome};
use ottla_simulation::exhaustive::{explore, scenarios};
use ottla_simulation::fault::Fault;

const USAGE: &str = "usage: ottla-simulation [--fault NAME] ...
  --explore STATES          every order of events, so many states of each scenario
  --seeds COUNT [--from N]  simulated clusters with faults, one a seed
  --seed N [--trace] [--history]  one of them again; with what happens, or with its history as lines of JSON
  --faults                  which rule that is switched off is noticed how fast";

struct Arguments(Vec<String>);

impl Arguments {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    fn fault(&self) -> Fault {
        let name = self.text("--fault").unwrap_or_default();
        Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name).unwrap_or_default()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments(std::env::args().skip(1).collect());
    let is_good = if let Some(states) = arguments.number("--explore") {
        explore_all(usize::try_from(states).unwrap_or(usize::MAX), arguments.fault())
    } else if let Some(count) = arguments.number("--seeds") {
        run_seeds(arguments.number("--from").unwrap_or(0), count, arguments.fault())
    } else if let Some(seed) = arguments.number("--seed") {
        let run = if arguments.has("--trace") { cluster::run_and_tell } else { cluster::run };
        let outcome = run(seed, arguments.fault());
        if arguments.has("--history") {
            for event in &outcome.history {
                println!("{}", serde_json::to_string(event).unwrap_or_default());
            }
        }
        eprintln!("{}", line(&outcome));
        outcome.problem.is_none()
    } else if arguments.has("--faults") {
        try_faults()
    } else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn explore_all(states_max: usize, fault: Fault) -> bool {
    let mut is_good = true;
    for scenario in scenarios() {
        let began = Instant::now();
        let found = explore(&scenario, fault, states_max);
        println!("{:>7.1} s  {}", began.elapsed().as_secs_f64(), found.summary(&scenario));
        if let Some((problem, way)) = &found.violation {
            is_good = false;
            println!("{problem}\n  {}", way.join("\n  "));
        }
    }
    is_good
}

fn line(outcome: &Outcome) -> String {
    let Outcome { seed, events, acknowledged, troubles, leader_changes, truncations, lost, .. } = outcome;
    let problem = outcome.problem.as_deref().unwrap_or("held");
    format!(
        "seed {seed}: {problem}\n  {acknowledged} acknowledged, {troubles} faults, {leader_changes} leader changes, {truncations} truncations, {lost} messages lost, {events} events, {} ms simulated",
        outcome.simulated_ms
    )
}

fn run_seeds(from: u64, count: u64, fault: Fault) -> bool {
    let began = Instant::now();
    let (mut failed, mut total) = (0u64, [0u64; 6]);
    for seed in from..from + count {
        let outcome = cluster::run(seed, fault);
        if outcome.problem.is_some() {
            failed += 1;
            if failed <= 20 {
                println!("{}", line(&outcome));
            }
        }
        let changes = u64::try_from(outcome.leader_changes).unwrap_or(0);
        let one = [
            outcome.acknowledged,
            outcome.troubles,
            changes,
            outcome.truncations,
            outcome.events,
            outcome.simulated_ms,
        ];
        total.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
        let done = seed - from + 1;
        if done.is_multiple_of(1_000) {
            println!("{done} seeds, {failed} failed, {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    let [acknowledged, troubles, changes, truncations, events, simulated_ms] = total;
    println!(
        "{count} seeds from {from}: {failed} failed; {acknowledged} records acknowledged, {troubles} faults, {changes} leader changes, {truncations} truncations, {events} events, {} simulated hours, {:.1} s",
        simulated_ms / 3_600_000,
        began.elapsed().as_secs_f64()
    );
    failed == 0
}

/// For each rule: how many states, and how many seeds, until it is missed.
fn try_faults() -> bool {
    const STATES_MAX: usize = 100_000;
    const SEEDS_MAX: u64 = 300;
    let mut is_good = true;
    for fault in Fault::ALL {
        let mut explored = "not found".to_owned();
        for scenario in scenarios() {
            let found = explore(&scenario, fault, STATES_MAX);
            if let Some((problem, way)) = found.violation {
                explored = format!(
                    "{} states of \"{}\", {} events: {problem}",
                    found.states,
                    scenario.name,
                    way.len()
                );
                break;
            }
        }
        let simulated = (0..SEEDS_MAX).find_map(|seed| Some((seed, cluster::run(seed, fault).problem?)));
        let is_found = explored != "not found" || simulated.is_some();
        is_good &= is_found;
        let simulated =
            simulated.map_or("not found".to_owned(), |(seed, problem)| format!("seed {seed}: {problem}"));
        println!("{fault:?}\n  explored: {explored}\n  simulated: {simulated}");
    }
    is_good
}
