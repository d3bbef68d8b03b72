//! The long runs: `cargo run --release -p ottla-simulation -- --explore 1000000`.

use std::process::ExitCode;
use std::time::Instant;

use ottla_simulation::exhaustive::{explore, scenarios};
use ottla_simulation::fault::Fault;

const USAGE: &str =
    "usage: ottla-simulation --explore STATES   every order of events, so many states a scenario";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| -> Option<u64> {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse().ok()
    };
    if let Some(states) = number("--explore") {
        return explore_all(usize::try_from(states).unwrap_or(usize::MAX));
    }
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn explore_all(states_max: usize) -> ExitCode {
    let mut is_good = true;
    for scenario in scenarios() {
        let began = Instant::now();
        let found = explore(&scenario, Fault::None, states_max);
        println!("{:>7.1} s  {}", began.elapsed().as_secs_f64(), found.summary(&scenario));
        if let Some((problem, way)) = &found.violation {
            is_good = false;
            println!("{problem}\n  {}", way.join("\n  "));
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
