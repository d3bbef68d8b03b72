//! Every order of events of a small world: a coordinator that may die, two partitions, producers whose requests may be
//! late or doubled, markers that may be late or doubled.
//!
//! What must hold in every state is checked where it happens (`world.rs`): records of two transactions are never mixed
//! (I58, I66), none lands behind its transaction's marker (I61), a transaction is committed or aborted and never both
//! (I62), a fenced producer writes nothing (I59). When nothing is left to happen but the passing of time, no
//! transaction stays open (I65), and a commit that was acknowledged is one (I57).

mod world;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{V0, V2};
use world::{Budget, Step, World};

/// States of one exploration; more mean that a scenario is too large.
const STATES_MAX: usize = 400_000;

fn key(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{world:?}").hash(&mut hasher);
    hasher.finish()
}

/// Visits every state that can be reached; gives how many there are, and how many of them are final.
fn explore(start: World) -> (usize, usize) {
    let mut seen = HashSet::from([key(&start)]);
    let mut open = vec![start];
    let mut finals = 0;
    while let Some(world) = open.pop() {
        let next = world.successors();
        if next.is_empty() {
            finals += 1;
            world.settle_and_check();
        }
        for world in next {
            if seen.insert(key(&world)) {
                open.push(world);
            }
        }
        assert!(seen.len() < STATES_MAX, "the scenario is too large");
    }
    (seen.len(), finals)
}

fn check(world: World) {
    let (states, finals) = explore(world);
    assert!(states > 100 && finals > 1, "nothing was explored: {states} states, {finals} final");
}

const NOTHING_FAILS: Budget = Budget { failed_appends: 0, crashes: 0, timeouts: 0, doubled_markers: 0 };

#[test]
fn i59_i61_a_zombie_and_its_successor_with_classic_transactions() {
    let zombie = [Step::Init, Step::Add(0), Step::Write(0), Step::Add(1), Step::Write(1), Step::End(true)];
    let successor = [Step::Init, Step::Add(0), Step::Write(0), Step::End(true)];
    check(World::new(V0, &[&zombie, &successor], NOTHING_FAILS));
}

#[test]
fn i59_i61_a_zombie_and_its_successor_with_an_epoch_for_each_transaction() {
    let zombie = [Step::Init, Step::Write(0), Step::Write(1), Step::End(true)];
    let successor = [Step::Init, Step::Write(0), Step::End(true)];
    check(World::new(V2, &[&zombie, &successor], NOTHING_FAILS));
}

#[test]
fn i59_a_zombie_that_aborts_does_not_come_back_with_the_epoch_that_fenced_it() {
    let zombie = [Step::Init, Step::Write(0), Step::End(false), Step::Write(0), Step::End(true)];
    let successor = [Step::Init, Step::Write(0), Step::End(true)];
    check(World::new(V2, &[&zombie, &successor], NOTHING_FAILS));
}

#[test]
fn i66_late_writes_and_doubled_ends_of_one_transaction_stay_out_of_the_next() {
    let producer = [
        Step::Init,
        Step::WriteAndGoOn(0),
        Step::Write(1),
        Step::EndTwice(false),
        Step::Write(0),
        Step::End(true),
    ];
    check(World::new(V2, &[&producer], Budget { doubled_markers: 1, ..NOTHING_FAILS }));
}

#[test]
fn i66_doubled_markers_of_one_transaction_do_not_end_the_next() {
    let producer = [Step::Init, Step::Write(0), Step::End(false), Step::Write(0), Step::EndTwice(true)];
    check(World::new(V2, &[&producer], Budget { doubled_markers: 2, ..NOTHING_FAILS }));
}

#[test]
fn i62_a_coordinator_that_dies_or_cannot_write_changes_no_decision() {
    let budget = Budget { failed_appends: 1, crashes: 1, doubled_markers: 1, ..NOTHING_FAILS };
    let producer = [Step::Init, Step::Write(0), Step::End(true), Step::Write(0), Step::End(false)];
    check(World::new(V2, &[&producer], budget));
    let producer = [Step::Init, Step::Add(0), Step::Write(0), Step::Add(1), Step::Write(1), Step::End(true)];
    check(World::new(V0, &[&producer], budget));
}

#[test]
fn i65_a_timeout_races_with_everything() {
    let budget = Budget { timeouts: 1, crashes: 1, ..NOTHING_FAILS };
    let producer = [Step::Init, Step::Write(0), Step::Write(1), Step::End(true)];
    check(World::new(V2, &[&producer], budget));
    let producer = [Step::Init, Step::Add(0), Step::Write(0), Step::Add(1), Step::Write(1), Step::End(true)];
    check(World::new(V0, &[&producer], budget));
}
