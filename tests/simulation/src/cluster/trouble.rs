//! Faults: what happens when, and how it ends.

use super::network::{CONTROLLERS, Node};
use super::plan::Trouble;
use super::{Cluster, Event};
use crate::metadata;

/// How a fault ends.
#[derive(Debug, Clone)]
pub(super) enum Cure {
    Start(i32),
    StartController(usize),
    Unblock(Vec<(Node, Node)>),
    GoodNetwork,
}

impl Cluster {
    fn any_broker(&mut self) -> i32 {
        let count = u64::from(self.plan.brokers.unsigned_abs());
        i32::try_from(self.trouble.between(1, count)).unwrap_or(1)
    }

    fn nodes(&self) -> Vec<Node> {
        let controllers = (0..self.plan.controllers).map(|at| CONTROLLERS + i32::try_from(at).unwrap_or(0));
        (1..=self.plan.brokers).chain(controllers).collect()
    }

    /// Everybody lives and every partition has all its replicas in sync: whoever lost data has it again.
    pub(super) fn is_repaired(&self) -> bool {
        let image = self.quorum.latest();
        // Its registration must be the present process's: else the image tells of the one before.
        let all_live = self.brokers.iter().all(|broker| {
            broker.is_up
                && !metadata::is_fenced(image, broker.id)
                && metadata::broker_epoch(image, broker.id) == broker.epoch
        });
        all_live
            && (0..self.plan.partitions).all(|index| {
                metadata::partition(image, index)
                    .is_some_and(|partition| partition.isr.len() == partition.replicas.len())
            })
    }

    /// Draws a fault and lets it happen.
    pub(super) fn make_trouble(&mut self) {
        let total: u64 = self.plan.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.trouble.below(total.max(1));
        let found = self.plan.weights.iter().find(|(_, weight)| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        });
        let Some((trouble, _)) = found.copied() else { return };
        // While a disk has lost data that another holds alone, a second unclean end may lose what was promised for one only.
        if self.is_repaired() {
            self.is_wounded = false;
        }
        let ends_processes =
            matches!(trouble, Trouble::Kill | Trouble::KillAll | Trouble::PowerLoss | Trouble::CleanStop);
        if self.is_wounded && ends_processes && !self.plan.synced_only {
            return;
        }
        self.troubles += 1;
        self.happen(trouble);
    }

    fn happen(&mut self, trouble: Trouble) {
        let broker = self.any_broker();
        if self.trace {
            eprintln!("{:>10} us  {trouble:?} (broker {broker})", self.now_us);
        }
        match trouble {
            Trouble::Kill => self.kill(broker, false),
            Trouble::KillAll => (1..=self.plan.brokers).for_each(|broker| self.kill(broker, false)),
            Trouble::PowerLoss => {
                if self.plan.synced_only || self.is_repaired() {
                    self.is_wounded = true;
                    self.kill(broker, true);
                }
            }
            Trouble::PowerLossOfAll => (1..=self.plan.brokers).for_each(|broker| self.kill(broker, true)),
            Trouble::CleanStop => self.broker(broker).wants_shut_down = true,
            Trouble::Pause => {
                let until =
                    self.now_us + self.trouble.between(10_000, 2 * self.plan.session_timeout_ms * 1_000);
                self.broker(broker).paused_until_us = until;
            }
            Trouble::Isolate => {
                let nodes = self.nodes();
                let Some(one) = self.trouble.pick(&nodes).copied() else { return };
                let links = nodes.into_iter().filter(|node| *node != one);
                self.cut(links.flat_map(|node| [(one, node), (node, one)]).collect());
            }
            Trouble::OneWay => {
                let nodes = self.nodes();
                let from = self.trouble.pick(&nodes).copied();
                if let (Some(from), Some(to)) = (from, self.trouble.pick(&nodes).copied()) {
                    self.cut(vec![(from, to)]);
                }
            }
            Trouble::Split => {
                let nodes = self.nodes();
                let sides: Vec<bool> = nodes.iter().map(|_| self.trouble.chance(500)).collect();
                let mut links = Vec::new();
                for (one, side) in nodes.iter().zip(&sides) {
                    let others = nodes.iter().zip(&sides).filter(|(_, other)| *other != side);
                    links.extend(others.map(|(other, _)| (*one, *other)));
                }
                self.cut(links);
            }
            Trouble::SlowDisk => {
                let until = self.now_us + self.trouble.between(500_000, 8_000_000);
                if self.trouble.chance(250) {
                    self.quorum.slow_down(until);
                } else {
                    self.broker(broker).slow_until_us = until;
                }
            }
            Trouble::BadNetwork => {
                let factor = self.trouble.between(2, 50);
                self.network.slow_down(broker, factor);
                self.network.lose(self.trouble.between(0, 200));
                let after = self.trouble.between(500_000, 6_000_000);
                self.schedule(after, Event::Cure(Cure::GoodNetwork));
            }
            Trouble::KillController => {
                let member = usize::try_from(self.trouble.below(self.plan.controllers as u64)).unwrap_or(0);
                self.quorum.kill(member);
                let after = self.trouble.between(200_000, 6_000_000);
                self.schedule(after, Event::Cure(Cure::StartController(member)));
            }
            Trouble::Rebalance => {
                let mut out = Vec::new();
                self.quorum.rebalance(self.now_us, &mut out);
                self.execute_quorum(out);
            }
        }
    }

    fn cut(&mut self, links: Vec<(Node, Node)>) {
        for (from, to) in &links {
            self.network.block(*from, *to);
        }
        let after = self.trouble.between(100_000, 3 * self.plan.session_timeout_ms * 1_000);
        self.schedule(after, Event::Cure(Cure::Unblock(links)));
    }

    /// The process ends without a word; with `loses_power` the disk keeps the synced part and some of the rest.
    pub(super) fn kill(&mut self, id: i32, loses_power: bool) {
        if !self.brokers[super::at(id)].is_up {
            return;
        }
        let mut random = self.trouble.clone();
        self.trouble.draw();
        if self.trace {
            eprintln!("{:>10} us  broker {id} ends, power lost: {loses_power}", self.now_us);
        }
        self.end_process(id, |synced_end, end| {
            loses_power.then(|| {
                let lost = random.below(u64::try_from(end - synced_end).unwrap_or(0) + 1);
                end - i64::try_from(lost).unwrap_or(0)
            })
        });
        let after = self.trouble.between(50_000, 8_000_000);
        self.schedule(after, Event::Cure(Cure::Start(id)));
    }

    /// The process ends; `cut` says what is left of logs, by what is synced and what there is.
    pub(super) fn end_process(&mut self, id: i32, cut: impl FnMut(i64, i64) -> Option<i64>) {
        let epoch = self.brokers[super::at(id)].epoch;
        self.broker(id).stop(false, cut);
        self.broker(id).paused_until_us = 0;
        self.note_end(id, epoch);
    }

    /// A controlled shutdown is through.
    pub(super) fn stop_cleanly(&mut self, id: i32) {
        let epoch = self.brokers[super::at(id)].epoch;
        self.broker(id).stop(true, |_, _| None);
        self.note_end(id, epoch);
        let after = self.trouble.between(50_000, 3_000_000);
        self.schedule(after, Event::Cure(Cure::Start(id)));
    }

    fn note_end(&mut self, id: i32, epoch: i64) {
        // Whoever has a connection to the process sees it break.
        let after = self.trouble.between(500, 50_000);
        self.schedule(after, Event::SessionBroken(id, epoch));
    }

    pub(super) fn cure(&mut self, cure: Cure) {
        if self.trace {
            eprintln!("{:>10} us  {cure:?}", self.now_us);
        }
        match cure {
            Cure::Start(id) => {
                if !self.brokers[super::at(id)].is_up {
                    self.start_broker(id);
                }
            }
            Cure::StartController(member) => self.quorum.start(self.now_us, member),
            Cure::Unblock(links) => {
                for (from, to) in links {
                    self.network.unblock(from, to);
                }
            }
            Cure::GoodNetwork => {
                for node in self.nodes() {
                    self.network.slow_down(node, 1);
                }
                self.network.lose(0);
            }
        }
    }
}
