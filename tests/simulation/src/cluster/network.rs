//! Who reaches whom, how fast, and what is lost. A message is lost with the connection that carried it: nobody gets it twice.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Plan;
use super::random::Random;

/// A node: brokers have their ids, controllers and clients numbers of their own.
pub type Node = i32;

/// First controller.
pub const CONTROLLERS: Node = 100;
/// First client.
pub const CLIENTS: Node = 200;

/// The network.
#[derive(Debug)]
pub struct Network {
    random: Random,
    delay_us: (u64, u64),
    loss: u64,
    /// (from, to) that nothing passes.
    blocked: BTreeSet<(Node, Node)>,
    /// Factor of the delay of links to and from a node.
    slow: BTreeMap<Node, u64>,
    /// Lost in addition, per thousand.
    bad: u64,
    /// What was sent and lost.
    pub lost: u64,
}

impl Network {
    /// As the plan says.
    pub fn new(plan: &Plan) -> Self {
        Self {
            random: Random::new(plan.seed, 2),
            delay_us: plan.delay_us,
            loss: plan.loss,
            blocked: BTreeSet::new(),
            slow: BTreeMap::new(),
            bad: 0,
            lost: 0,
        }
    }

    /// When a message arrives, from now in microseconds; none: it is lost.
    pub fn delay_us(&mut self, from: Node, to: Node) -> Option<u64> {
        let (low, high) = self.delay_us;
        let mut delay = self.random.between(low, high);
        // A few are very late.
        if self.random.chance(5) {
            delay *= self.random.between(2, 40);
        }
        for node in [from, to] {
            delay *= self.slow.get(&node).copied().unwrap_or(1);
        }
        let is_lost = self.random.chance(self.loss + self.bad);
        if from != to && (is_lost || !self.reaches(from, to)) {
            self.lost += 1;
            return None;
        }
        Some(delay)
    }

    /// Whether messages pass from one to another now.
    pub fn reaches(&self, from: Node, to: Node) -> bool {
        from == to || !self.blocked.contains(&(from, to))
    }

    /// Both ways.
    pub fn connects(&self, one: Node, other: Node) -> bool {
        self.reaches(one, other) && self.reaches(other, one)
    }

    /// Nothing passes from one to the other.
    pub fn block(&mut self, from: Node, to: Node) {
        self.blocked.insert((from, to));
    }

    /// Passes again.
    pub fn unblock(&mut self, from: Node, to: Node) {
        self.blocked.remove(&(from, to));
    }

    /// Messages of a node take so many times as long; 1: no longer.
    pub fn slow_down(&mut self, node: Node, factor: u64) {
        self.slow.insert(node, factor);
    }

    /// So many more in a thousand are lost.
    pub fn lose(&mut self, per_thousand: u64) {
        self.bad = per_thousand;
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        self.blocked.clear();
        self.slow.clear();
        (self.loss, self.bad) = (0, 0);
    }
}
