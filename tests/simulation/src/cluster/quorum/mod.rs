//! The metadata quorum as far as brokers can tell: leaders that change, a committed log, followers that lag, entries whose
//! fate nobody knows. Raft itself is openraft's; what a leader does with it (`controller/src/leader`) is repeated here: it
//! decides on the applied image, one entry at a time, and keeps the leases.

mod reign;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ottla_metadata::image::MetadataImage;
use ottla_metadata::leases::{LeaseOptions, Leases};

use self::reign::refusal;
use super::message::Message;
use super::network::{CONTROLLERS, Network, Node};
use super::plan::Plan;
use super::random::Random;
use crate::fault::Fault;
use crate::metadata::{Controller, Proposal};

/// Followers that hear nothing of a leader for so long elect another, at the earliest.
const ELECTION_US_MIN: u64 = 1_000_000;
/// A leader that no quorum has answered for so long gives no leases.
const SILENCE_US_MAX: u64 = 1_000_000;
/// A lease ends for the broker this much before it ends here.
const LEASE_MARGIN_MS: u64 = 50;
/// A broken session is a dead broker after this.
const GRACE_MS: u64 = 300;

/// Somebody waits for an entry.
#[derive(Debug, Clone)]
enum Ask {
    Alter { from: Node, id: u64, proposal: Proposal },
    Register { from: Node, incarnation: u64, marker: i64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Chore {
    Fence(i32, i64),
    Unfence(i32, i64),
    Shutdown(i32, i64),
    ElectLeaderless,
    Rebalance,
}

/// An entry on its way.
#[derive(Debug)]
struct Pending {
    term: u64,
    base: usize,
    images: Vec<Arc<MetadataImage>>,
    answers: Vec<(Node, Message)>,
    askers: Vec<Ask>,
}

/// What one leader knows beside the log.
#[derive(Debug)]
struct Reign {
    term: u64,
    leases: Leases,
    fencing: BTreeMap<i32, i64>,
    is_cut_off: bool,
    asks: VecDeque<Ask>,
    chores: VecDeque<Chore>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Member {
    is_up: bool,
    /// Leads, as far as it knows; without a reign the barrier is not passed yet.
    term: Option<u64>,
    reign: Option<Reign>,
    applied: usize,
    heard_us: u64,
    acked_us: u64,
    patience_us: u64,
}

/// What the cluster has to do.
#[derive(Debug)]
pub enum Output {
    /// Send it.
    Send(Node, Node, Message),
    /// Call [`Quorum::entry_is_through`] after so many microseconds.
    Later(u64, usize, u64),
    /// Call [`Quorum::barrier_is_passed`] after so many microseconds.
    Barrier(u64, usize, u64),
}

/// The controllers.
#[derive(Debug)]
pub struct Quorum {
    random: Random,
    controller: Controller,
    fault: Fault,
    session_timeout_ms: u64,
    members: Vec<Member>,
    entries: Vec<Arc<MetadataImage>>,
    term: u64,
    /// Leaders that there were.
    pub elections: u64,
    slow_until_us: u64,
}

impl Quorum {
    /// All up, none leads yet.
    pub fn new(plan: &Plan, controller: Controller, first: Arc<MetadataImage>, fault: Fault) -> Self {
        let member = || Member {
            is_up: true,
            term: None,
            reign: None,
            applied: 0,
            heard_us: 0,
            acked_us: 0,
            patience_us: 0,
        };
        Self {
            random: Random::new(plan.seed, 3),
            controller,
            fault,
            session_timeout_ms: plan.session_timeout_ms,
            members: (0..plan.controllers).map(|_| member()).collect(),
            entries: vec![first],
            term: 0,
            elections: 0,
            slow_until_us: 0,
        }
    }

    /// The committed images, from the first on.
    pub fn entries(&self) -> &[Arc<MetadataImage>] {
        &self.entries
    }

    /// The latest committed image.
    pub fn latest(&self) -> &Arc<MetadataImage> {
        &self.entries[self.entries.len() - 1]
    }

    /// How far a controller is, if it is there.
    pub fn applied(&self, member: usize) -> Option<usize> {
        self.members.get(member).filter(|member| member.is_up).map(|member| member.applied)
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Who leads.
    pub fn leader(&self) -> Option<Node> {
        let leads =
            |member: &Member| member.is_up && member.reign.is_some() && member.term == Some(self.term);
        self.members.iter().position(leads).map(Self::node)
    }

    /// Where they stand, for reports.
    pub fn describe(&self) -> String {
        let members = self.members.iter().map(|member| {
            let pending =
                member.reign.as_ref().map(|reign| (reign.term, reign.pending.is_some(), reign.asks.len()));
            format!("up {} term {:?} reign {pending:?} applied {}", member.is_up, member.term, member.applied)
        });
        format!(
            "term {}, {} entries; {}",
            self.term,
            self.entries.len(),
            members.collect::<Vec<_>>().join(", ")
        )
    }

    /// Disks of the controllers are slow until then.
    pub fn slow_down(&mut self, until_us: u64) {
        self.slow_until_us = until_us;
    }

    /// The process of a controller ends.
    pub fn kill(&mut self, member: usize) {
        if let Some(member) = self.members.get_mut(member) {
            (member.is_up, member.term) = (false, None);
        }
    }

    /// It starts again. Its disk has all that it ever acknowledged.
    pub fn start(&mut self, now_us: u64, member: usize) {
        if let Some(member) = self.members.get_mut(member).filter(|member| !member.is_up) {
            (member.is_up, member.heard_us, member.reign) = (true, now_us, None);
        }
    }

    fn node(member: usize) -> Node {
        CONTROLLERS + i32::try_from(member).unwrap_or(0)
    }

    fn has_majority(&self, network: &Network, of: usize, counts: impl Fn(&Member) -> bool) -> bool {
        let reached = self.members.iter().enumerate().filter(|(other, member)| {
            member.is_up && counts(member) && network.connects(Self::node(of), Self::node(*other))
        });
        reached.count() * 2 > self.members.len()
    }

    /// Every 50 ms: heartbeats of leaders, elections, leases that end.
    pub fn tick(&mut self, now_us: u64, network: &Network, out: &mut Vec<Output>) {
        for leader in 0..self.members.len() {
            if self.members[leader].is_up && self.members[leader].term == Some(self.term) {
                self.beat(now_us, leader, network);
            }
        }
        for old in 0..self.members.len() {
            let term = self.members[old].term;
            if term.is_some_and(|term| term < self.term) {
                // It hears of the new term from whoever it reaches.
                let hears = self.members.iter().enumerate().any(|(other, member)| {
                    other != old && member.is_up && network.connects(Self::node(old), Self::node(other))
                });
                if hears {
                    self.step_down(old, out);
                }
            }
        }
        self.elect(now_us, network, out);
        for member in 0..self.members.len() {
            self.watch_over(now_us, member, out);
        }
    }

    fn beat(&mut self, now_us: u64, leader: usize, network: &Network) {
        let applied = self.members[leader].applied;
        for other in 0..self.members.len() {
            if self.members[other].is_up && network.connects(Self::node(leader), Self::node(other)) {
                self.members[other].heard_us = now_us;
                // Followers lag at times.
                if self.random.chance(800) {
                    self.members[other].applied = self.members[other].applied.max(applied);
                }
            }
        }
        if self.has_majority(network, leader, |_| true) {
            self.members[leader].acked_us = now_us;
        }
    }

    fn elect(&mut self, now_us: u64, network: &Network, out: &mut Vec<Output>) {
        let candidates: Vec<usize> = (0..self.members.len())
            .filter(|candidate| {
                let member = &self.members[*candidate];
                member.is_up
                    && member.term.is_none()
                    && now_us >= member.heard_us + ELECTION_US_MIN + member.patience_us
            })
            .collect();
        let is_silent = |member: &Member| now_us >= member.heard_us + ELECTION_US_MIN;
        let Some(winner) =
            candidates.into_iter().find(|candidate| self.has_majority(network, *candidate, is_silent))
        else {
            return;
        };
        self.settle_orphan();
        self.term += 1;
        self.elections += 1;
        for member in &mut self.members {
            member.patience_us = self.random.below(ELECTION_US_MIN);
        }
        let member = &mut self.members[winner];
        (member.term, member.heard_us, member.acked_us) = (Some(self.term), now_us, now_us);
        out.push(Output::Barrier(self.random.between(2_000, 30_000), winner, self.term));
    }

    /// The entry that the last leader had on its way: it may have reached a member of the new majority, or not.
    fn settle_orphan(&mut self) {
        let is_kept = self.random.chance(500);
        let term = self.term;
        let orphan = self
            .members
            .iter_mut()
            .filter_map(|member| member.reign.as_mut())
            .filter(|reign| reign.term == term)
            .find_map(|reign| reign.pending.as_mut());
        if let Some(orphan) = orphan {
            let images = std::mem::take(&mut orphan.images);
            if is_kept && orphan.base + 1 == self.entries.len() {
                self.entries.extend(images);
            }
        }
    }

    /// The leader has applied all that was committed before it.
    pub fn barrier_is_passed(
        &mut self,
        now_us: u64,
        winner: usize,
        term: u64,
        network: &Network,
        out: &mut Vec<Output>,
    ) {
        let is_leader = self.members[winner].is_up && self.members[winner].term == Some(term);
        if !is_leader || term != self.term {
            return;
        }
        if !self.has_majority(network, winner, |_| true) {
            out.push(Output::Barrier(50_000, winner, term));
            return;
        }
        let latest = self.entries.len() - 1;
        let options =
            LeaseOptions { session_timeout_ms: self.session_timeout_ms, broken_session_grace_ms: GRACE_MS };
        let mut leases = Leases::new(options);
        leases.begin(now_us / 1_000, &self.entries[latest]);
        let member = &mut self.members[winner];
        member.applied = latest;
        member.reign = Some(Reign {
            term,
            leases,
            fencing: BTreeMap::new(),
            is_cut_off: false,
            asks: VecDeque::new(),
            chores: VecDeque::from([Chore::ElectLeaderless]),
            pending: None,
        });
        self.propose(now_us, winner, out);
    }

    fn step_down(&mut self, old: usize, out: &mut Vec<Output>) {
        self.members[old].term = None;
        let Some(reign) = self.members[old].reign.take() else { return };
        let pending = reign.pending.into_iter().flat_map(|pending| pending.askers);
        for ask in pending.chain(reign.asks) {
            let (Ask::Alter { from, .. } | Ask::Register { from, .. }) = &ask;
            out.push(Output::Send(Self::node(old), *from, refusal(&ask, None)));
        }
    }

    fn watch_over(&mut self, now_us: u64, leader: usize, out: &mut Vec<Output>) {
        let image = Arc::clone(&self.entries[self.members[leader].applied]);
        let member = &mut self.members[leader];
        if !member.is_up {
            return;
        }
        let has_quorum = now_us < member.acked_us + SILENCE_US_MAX;
        let Some(reign) = &mut member.reign else { return };
        if !has_quorum {
            reign.is_cut_off = true;
            return;
        }
        if std::mem::take(&mut reign.is_cut_off) {
            reign.leases.begin(now_us / 1_000, &image);
        }
        for (id, epoch) in reign.leases.expired(now_us / 1_000) {
            reign.fencing.insert(id.0, epoch.0);
            reign.chores.push_back(Chore::Fence(id.0, epoch.0));
        }
        self.propose(now_us, leader, out);
    }
}
