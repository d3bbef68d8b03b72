//! Every order of events of three replicas of one partition, a controller and the messages between them, to a bound.
//!
//! The machines are the real ones: the partition machine of `broker/replica`, the decisions and the image of
//! `controller/metadata`. What may happen next is enumerated in `events`; what must never have happened is checked after
//! each event in `checks`. States are deduplicated by a hash of all that matters for what follows.
//!
//! Long histories are out of reach from the start. So there are also beginnings (`histories`), from which all is tried.

mod checks;
mod events;
mod histories;
mod scenarios;
mod script;
mod world;

use std::collections::{HashSet, VecDeque};

pub use histories::{History, histories};
pub use scenarios::scenarios;
pub use script::Step;
pub use world::{Scenario, World};

use crate::fault::Fault;

/// What an exploration found.
#[derive(Debug, Clone, Default)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Events that led to them or to known ones.
    pub transitions: usize,
    /// States in which nothing but healing was left.
    pub finals: usize,
    /// States in which so many disks had lost data that loss is what is promised.
    pub promised_losses: usize,
    /// States from which healing was tried.
    pub healed: usize,
    /// Events from the start to the last state.
    pub depth: usize,
    /// Whether the bound on states ended it.
    pub is_cut: bool,
    /// The first violation, and the events that led to it.
    pub violation: Option<(String, Vec<String>)>,
}

impl Explored {
    /// In one line.
    pub fn summary(&self, scenario: &Scenario) -> String {
        let Self { states, depth, transitions, finals, healed, promised_losses, .. } = self;
        let bound = if self.is_cut { "cut" } else { "complete" };
        let name = scenario.name;
        format!(
            "{name}: {states} states to depth {depth} ({bound}), {transitions} transitions, {finals} final, {healed} healed, {promised_losses} promised losses"
        )
    }
}

/// One state in so many is healed, besides the final ones.
const HEAL_EVERY: u64 = 97;

/// A state that waits to be looked at, and how it was reached: an index into the trail.
struct Open {
    world: World,
    trail: usize,
    depth: usize,
}

/// Visits every state within the scenario's bounds, or until `states_max`. Stops at the first violation.
pub fn explore(scenario: &Scenario, fault: Fault, states_max: usize) -> Explored {
    explore_from(World::new(scenario, fault), scenario, states_max)
}

/// As [`explore`], from where the history's beginning leads. `leases_count`: whether it is a fault that a fenced broker acts
/// as a leader, or only what comes of it.
pub fn explore_behind(history: &History, fault: Fault, leases_count: bool, states_max: usize) -> Explored {
    let mut start = World::new(&history.scenario, fault);
    start.leases_count = leases_count;
    start.allow_all();
    if let (Err(problem), _) = start.follow(&history.beginning) {
        let way = history.beginning.iter().map(|step| format!("{step:?}")).collect();
        return Explored { violation: Some((problem, way)), ..Explored::default() };
    }
    start.allow(&history.scenario);
    explore_from(start, &history.scenario, states_max)
}

/// What became of a history from its beginning to its end.
#[derive(Debug, Clone)]
pub struct Told {
    /// The first rule that was broken, also when all is healed in the end.
    pub problem: Option<String>,
    /// Steps that could not happen.
    pub left_out: Vec<Step>,
}

/// Follows a history step by step, then heals the cluster.
pub fn tell(history: &History, fault: Fault) -> Told {
    let mut world = World::new(&history.scenario, fault);
    world.allow_all();
    let script: Vec<Step> = history.beginning.iter().chain(&history.end).copied().collect();
    let (result, left_out) = world.follow(&script);
    let result = result.and_then(|()| world.heal());
    Told { problem: result.err(), left_out }
}

fn explore_from(start: World, scenario: &Scenario, states_max: usize) -> Explored {
    let mut found = Explored { states: 1, ..Explored::default() };
    let mut seen = HashSet::from([start.key()]);
    // (parent, what happened): the way to each state, for the report.
    let mut trail: Vec<(usize, events::Event)> = Vec::new();
    // Breadth first: a violation is found by one of the shortest ways, and the depth bound is exact.
    let mut open = VecDeque::from([Open { world: start, trail: usize::MAX, depth: 0 }]);
    while let Some(Open { world, trail: at, depth }) = open.pop_front() {
        found.depth = found.depth.max(depth);
        let events = if depth < scenario.depth { world.events() } else { Vec::new() };
        let is_final = events.is_empty();
        if is_final || world.key().is_multiple_of(HEAL_EVERY) {
            found.finals += usize::from(is_final);
            found.healed += 1;
            if let Err(problem) = world.heal() {
                found.violation = Some((format!("after healing: {problem}"), way(&trail, at)));
                return found;
            }
        }
        for event in events {
            found.transitions += 1;
            let mut next = world.clone();
            next.happen(&event);
            if let Err(problem) = next.check() {
                trail.push((at, event));
                found.violation = Some((problem, way(&trail, trail.len() - 1)));
                return found;
            }
            if next.is_promised_loss() {
                found.promised_losses += 1;
                continue;
            }
            if seen.insert(next.key()) {
                found.states += 1;
                trail.push((at, event));
                open.push_back(Open { world: next, trail: trail.len() - 1, depth: depth + 1 });
            }
        }
        if found.states >= states_max {
            found.is_cut = true;
            return found;
        }
    }
    found
}

fn way(trail: &[(usize, events::Event)], mut at: usize) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some((parent, event)) = trail.get(at) {
        steps.push(format!("{event:?}"));
        at = *parent;
    }
    steps.reverse();
    steps
}
