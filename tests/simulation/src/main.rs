//! The long runs.

use std::process::ExitCode;
use std::time::Instant;

use ottla_simulation::cluster::plan::Family;
use ottla_simulation::cluster::{self, Outcome};
use ottla_simulation::exhaustive::{explore, explore_behind, histories, scenarios, tell};
use ottla_simulation::fault::Fault;

const USAGE: &str = "usage: ottla-simulation [--fault NAME] ...
  --explore STATES          every order of events, so many states of each scenario and behind each history's beginning
  --seeds COUNT [--from N] [--family NAME]  simulated clusters with faults, one a seed; without a name of all families
  --seed N [--family NAME] [--trace] [--history]  one of them again; with what happens, or with its history as lines of JSON
  --faults                  which rule that is switched off is noticed how fast
families: plain, transactions, and the ambushes deposed, overslept, relapse, echo, wiped, latefetch, latemarker";

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
        self.text("--fault").and_then(Fault::of_name).unwrap_or_default()
    }

    fn families(&self) -> Vec<Family> {
        let name = self.text("--family");
        Family::all().into_iter().filter(|family| name.is_none_or(|name| family.name() == name)).collect()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments(std::env::args().skip(1).collect());
    let families = arguments.families();
    if families.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let is_good = if let Some(states) = arguments.number("--explore") {
        explore_all(usize::try_from(states).unwrap_or(usize::MAX), arguments.fault())
    } else if let Some(count) = arguments.number("--seeds") {
        let from = arguments.number("--from").unwrap_or(0);
        // All of them, also when one has failed.
        let runs = families.into_iter().map(|family| run_seeds(family, from, count, arguments.fault()));
        runs.fold(true, |is_good, one| is_good & one)
    } else if let Some(seed) = arguments.number("--seed") {
        let outcome = cluster::run(families[0], seed, arguments.fault(), arguments.has("--trace"));
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
    let starts = scenarios().into_iter().map(|scenario| (scenario, None));
    let behind = histories().into_iter().map(|history| (history.scenario.clone(), Some(history)));
    for (scenario, history) in starts.chain(behind) {
        let began = Instant::now();
        let found = match &history {
            None => explore(&scenario, fault, states_max),
            Some(history) => explore_behind(history, fault, true, states_max),
        };
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

fn run_seeds(family: Family, from: u64, count: u64, fault: Fault) -> bool {
    let began = Instant::now();
    let (mut failed, mut total) = (0u64, [0u64; 9]);
    for seed in from..from + count {
        let outcome = cluster::run(family, seed, fault, false);
        if outcome.problem.is_some() {
            failed += 1;
            if failed <= 20 {
                println!("{}\n  again: {}", line(&outcome), outcome.replay);
            }
        }
        let changes = u64::try_from(outcome.leader_changes).unwrap_or(0);
        let (committed, aborted) = outcome.transactions;
        let one = [
            outcome.acknowledged,
            outcome.troubles,
            changes,
            outcome.truncations,
            outcome.events,
            outcome.simulated_ms,
            committed as u64,
            aborted as u64,
            outcome.ambushes,
        ];
        total.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
        let done = seed - from + 1;
        if done.is_multiple_of(1_000) {
            println!("{done} seeds, {failed} failed, {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    let [acknowledged, troubles, changes, truncations, events, simulated_ms, committed, aborted, ambushes] =
        total;
    println!(
        "{}: {count} seeds from {from}: {failed} failed; {acknowledged} records acknowledged, {committed} transactions committed, {aborted} aborted, {troubles} faults, {ambushes} ambushes sprung, {changes} leader changes, {truncations} truncations, {events} events, {} simulated hours, {:.1} s",
        family.name(),
        simulated_ms / 3_600_000,
        began.elapsed().as_secs_f64()
    );
    failed == 0
}

/// For each rule: how many states, which history, and how many seeds of which family, until it is missed.
fn try_faults() -> bool {
    const STATES_MAX: usize = 100_000;
    const SEEDS_MAX: u64 = 20;
    let mut is_good = true;
    for fault in Fault::ALL.into_iter().chain(Fault::OF_TRANSACTIONS) {
        println!("{fault:?}");
        let is_of_transactions = Fault::OF_TRANSACTIONS.contains(&fault);
        let mut is_found = false;
        let all = if is_of_transactions { Vec::new() } else { scenarios() };
        for scenario in all {
            let found = explore(&scenario, fault, STATES_MAX);
            if let Some((problem, way)) = found.violation {
                println!(
                    "  explored: {} states of \"{}\", {} events: {problem}",
                    found.states,
                    scenario.name,
                    way.len()
                );
                is_found = true;
                break;
            }
        }
        for history in histories() {
            if let Some(problem) = tell(&history, fault).problem {
                println!("  history \"{}\": {problem}", history.name);
                is_found = true;
            }
        }
        for family in Family::all() {
            let found = (0..SEEDS_MAX)
                .find_map(|seed| Some((seed, cluster::run(family, seed, fault, false).problem?)));
            if let Some((seed, problem)) = found {
                println!("  family {}, seed {seed}: {problem}", family.name());
                is_found = true;
            }
        }
        if !is_found {
            println!("  not found");
        }
        is_good &= is_found;
    }
    is_good
}
