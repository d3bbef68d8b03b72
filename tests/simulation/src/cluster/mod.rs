//! A whole cluster in one thread: brokers, controllers, clients, a network and disks that fail, all by one seed.
//!
//! Time is simulated: the next event is taken from a queue, and what follows from it is put there. Nothing else moves, so
//! that a seed gives the same run again. Faults go on for a while; then everything is mended, and the cluster must come to
//! rest with every acknowledged record at its place. The history of what clients asked and learnt is judged by the checker of
//! `ottla verify`; what lies below high watermarks is compared at every step.

pub mod ambush;
pub mod batch;
pub mod broker;
pub mod client;
mod deliver;
pub mod isolation;
mod judge;
pub mod message;
pub mod network;
pub mod oracle;
pub mod plan;
pub mod quorum;
pub mod random;
pub mod transactor;
mod trouble;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use ottla_coordinator::transaction::TransactionVersion;
use ottla_replica::MachineOptions;
use ottla_verify::Report;

use self::ambush::AmbushState;
use self::broker::{Broker, Outbox, Settings, Timer};
use self::client::{ClientOutbox, ClientTimer, Clients};
use self::message::Message;
use self::network::{CLIENTS, CONTROLLERS, Network, Node};
use self::oracle::Oracle;
use self::plan::{Family, Plan};
use self::quorum::{Output, Quorum};
use self::random::Random;
use self::transactor::{TransactorOutbox, TransactorTimer, Transactors};
use self::trouble::Cure;
use crate::fault::Fault;
use crate::metadata::Controller;

/// Between two looks of controllers at their leases and at each other.
const QUORUM_TICK_US: u64 = 50_000;
/// How long the mended cluster may take to come to rest.
const REST_US_MAX: u64 = 120_000_000;
/// Events of one run; more mean that something goes round and round.
const EVENTS_MAX: u64 = 3_000_000;

#[derive(Debug)]
enum Event {
    Deliver { from: Node, to: Node, incarnation: u64, message: Box<Message> },
    Broker(i32, u64, Timer),
    Client(ClientTimer),
    Transactor(TransactorTimer),
    Ambush,
    QuorumTick,
    EntryThrough(usize, u64),
    Barrier(usize, u64),
    SessionBroken(i32, i64),
    Trouble,
    Cure(Cure),
}

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Of the run.
    pub seed: u64,
    /// What was broken; none: nothing.
    pub problem: Option<String>,
    /// The checker's report.
    pub report: Option<Report>,
    /// Events taken.
    pub events: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Faults.
    pub troubles: u64,
    /// Leaders of the quorum.
    pub elections: u64,
    /// Truncations of followers.
    pub truncations: u64,
    /// Messages lost.
    pub lost: u64,
    /// The leader epochs of all partitions in the end.
    pub leader_changes: i64,
    /// Simulated, in milliseconds.
    pub simulated_ms: u64,
    /// Transactions with records that were committed, and aborted.
    pub transactions: (usize, usize),
    /// Ambushes that went as they were laid.
    pub ambushes: u64,
    /// The command that runs it again.
    pub replay: String,
    /// What clients asked and learnt.
    pub history: Vec<ottla_verify::Event>,
}

/// A producer's connection.
#[derive(Debug)]
struct Connection {
    process: (Node, u64),
    /// Of the last message to the broker, and to the client.
    arrivals: [u64; 2],
    is_broken: bool,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    now_us: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    pending: BTreeMap<u64, Event>,
    next_event: u64,
    events: u64,
    random: Random,
    trouble: Random,
    network: Network,
    quorum: Quorum,
    brokers: Vec<Broker>,
    clients: Clients,
    transactors: Option<Transactors>,
    oracle: Oracle,
    ambush: Option<AmbushState>,
    connections: BTreeMap<u64, Connection>,
    is_wounded: bool,
    is_mended: bool,
    troubles: u64,
    /// By partition: writer and number of what has been below a high watermark.
    committed: Vec<Vec<(u32, u64)>>,
    /// By broker and partition: up to where that was compared in this process.
    compared: BTreeMap<(i32, i32), (u64, i64)>,
    problem: Option<String>,
    trace: bool,
}

fn at(broker: i32) -> usize {
    usize::try_from(broker - 1).unwrap_or(0)
}

impl Cluster {
    /// The cluster of a plan, about to start.
    pub fn new(plan: Plan, fault: Fault, trace: bool) -> Self {
        let controller = Controller::new(plan.min_insync_replicas, fault == Fault::UncleanElection);
        let ids: Vec<i32> = (1..=plan.brokers).collect();
        let replicas =
            |partition: i32| -> Vec<i32> { (0..3).map(|at| (partition + at) % plan.brokers + 1).collect() };
        let partitions: Vec<Vec<i32>> = (0..plan.all_partitions()).map(replicas).collect();
        let first = controller.first_image(&ids, &partitions);
        let min_insync_replicas = if fault == Fault::NoMinimum { 1 } else { plan.min_insync_replicas };
        let settings = Settings {
            machine: MachineOptions {
                lag_ms_max: plan.lag_ms_max,
                min_insync_replicas,
                synced_only: plan.synced_only && fault != Fault::NoSync,
            },
            fault,
            heartbeat_us: plan.session_timeout_ms * 1_000 / 5,
            trace,
            coordinators_from: plan.partitions,
            transaction_version: TransactionVersion::V2,
        };
        let mut random = Random::new(plan.seed, 5);
        let brokers =
            ids.iter().map(|id| Broker::new(*id, settings, plan.controllers, random.below(1_000))).collect();
        let mut out = ClientOutbox::default();
        let clients = Clients::new(&plan, &mut out);
        let mut transactor_out = TransactorOutbox::default();
        let transactors = Transactors::new(&plan, &mut transactor_out);
        let count = usize::try_from(plan.all_partitions()).unwrap_or(1);
        let mut cluster = Self {
            now_us: 1,
            queue: BinaryHeap::new(),
            pending: BTreeMap::new(),
            next_event: 0,
            events: 0,
            random,
            trouble: Random::new(plan.seed, 6),
            network: Network::new(&plan),
            quorum: Quorum::new(&plan, controller, first, fault),
            brokers,
            clients,
            transactors,
            oracle: Oracle::default(),
            ambush: plan.ambush.map(AmbushState::new),
            connections: BTreeMap::new(),
            is_wounded: false,
            is_mended: false,
            troubles: 0,
            committed: vec![Vec::new(); count],
            compared: BTreeMap::new(),
            problem: None,
            trace,
            plan,
        };
        cluster.execute_clients(out);
        cluster.execute_transactors(transactor_out);
        for id in ids {
            cluster.start_broker(id);
        }
        cluster.schedule(QUORUM_TICK_US, Event::QuorumTick);
        let pause = cluster.plan.fault_pause_ms * 1_000;
        cluster.schedule(5_000_000 + pause, Event::Trouble);
        if cluster.ambush.is_some() {
            cluster.schedule(5_000_000, Event::Ambush);
        }
        cluster
    }

    fn broker(&mut self, id: i32) -> &mut Broker {
        &mut self.brokers[at(id)]
    }

    fn schedule(&mut self, after_us: u64, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse((self.now_us + after_us, self.next_event)));
        self.pending.insert(self.next_event, event);
    }

    fn start_broker(&mut self, id: i32) {
        let mut out = Outbox::default();
        self.broker(id).start(&mut out);
        self.execute_broker(id, out);
    }

    // --- outputs ---

    fn send(&mut self, from: Node, to: Node, message: Message, order: Option<u64>) {
        let connection = match (&message, order) {
            (Message::Produced { id, .. }, _) => Some(id.0),
            (_, order) => order,
        };
        let incarnation = self.incarnation(to);
        let Some(message) = self.catch(from, to, message) else { return };
        if let Some(connection) = connection {
            // A connection is to one process; what is lost on it, or finds another process, breaks it.
            let process = if to < CONTROLLERS { (to, incarnation) } else { (from, self.incarnation(from)) };
            let known = self.connections.entry(connection).or_insert(Connection {
                process,
                arrivals: [0, 0],
                is_broken: false,
            });
            known.is_broken |= known.process != process;
            if known.is_broken {
                return;
            }
        }
        let delay = self.network.delay_us(from, to);
        if let Some(connection) = connection.and_then(|connection| self.connections.get_mut(&connection)) {
            let Some(delay) = delay else {
                connection.is_broken = true;
                return;
            };
            // It arrives in the order of sending.
            let arrival = &mut connection.arrivals[usize::from(to >= CLIENTS)];
            *arrival = (*arrival).max(self.now_us + delay);
            let delay = *arrival - self.now_us;
            self.schedule(delay, Event::Deliver { from, to, incarnation, message: Box::new(message) });
        } else if let Some(delay) = delay {
            self.schedule(delay, Event::Deliver { from, to, incarnation, message: Box::new(message) });
        }
    }

    fn incarnation(&self, node: Node) -> u64 {
        if node < CONTROLLERS { self.brokers[at(node)].incarnation } else { 0 }
    }

    fn execute_broker(&mut self, id: i32, out: Outbox) {
        for problem in out.problems {
            self.problem.get_or_insert(problem);
        }
        for (from, to, message) in out.sends {
            self.check_lease(id, &message);
            self.send(from, to, message, None);
        }
        let incarnation = self.brokers[at(id)].incarnation;
        for (after, timer) in out.timers {
            self.schedule(after, Event::Broker(id, incarnation, timer));
        }
        for note in out.notes {
            eprintln!("{:>10} us  broker {id}: {note}", self.now_us);
        }
        for advanced in out.advanced {
            self.compare(id, advanced);
        }
    }

    fn execute_clients(&mut self, out: ClientOutbox) {
        for (from, to, message, order) in out.sends {
            self.send(from, to, message, order);
        }
        for (after, timer) in out.timers {
            self.schedule(after, Event::Client(timer));
        }
    }

    fn execute_transactors(&mut self, out: TransactorOutbox) {
        if let Some(transactors) = &mut self.transactors {
            self.clients.history.append(&mut transactors.history);
            // What one client knows of a later leader the others know.
            self.clients.hear_of(transactors.leaders());
        }
        for (from, to, message, order) in out.sends {
            self.send(from, to, message, order);
        }
        for (after, timer) in out.timers {
            self.schedule(after, Event::Transactor(timer));
        }
    }

    fn execute_quorum(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send(from, to, message) => self.send(from, to, message, None),
                Output::Later(after, member, term) => self.schedule(after, Event::EntryThrough(member, term)),
                Output::Barrier(after, member, term) => self.schedule(after, Event::Barrier(member, term)),
            }
        }
    }

    // --- events ---

    /// Runs to the end and judges.
    pub fn run(mut self) -> Outcome {
        if self.trace {
            eprintln!("{:?}", self.plan);
        }
        let faults_end_us = 5_000_000 + self.plan.fault_ms * 1_000;
        let writes_end_us = faults_end_us + 5_000_000;
        let mut next_look_us = 0;
        while let Some(Reverse((time, number))) = self.queue.pop() {
            self.now_us = self.now_us.max(time);
            self.events += 1;
            if !self.is_mended && self.now_us >= faults_end_us {
                self.mend();
            }
            self.clients.is_stopped |= self.now_us >= writes_end_us;
            if let Some(transactors) = &mut self.transactors {
                transactors.is_stopped |= self.clients.is_stopped;
            }
            if let Some(event) = self.pending.remove(&number) {
                self.take(event);
            }
            if self.problem.is_some() {
                break;
            }
            if self.now_us >= writes_end_us && self.now_us >= next_look_us {
                next_look_us = self.now_us + 500_000;
                let unrest = self.unrest();
                if unrest.is_none() {
                    break;
                }
                if self.now_us >= writes_end_us + REST_US_MAX || self.events >= EVENTS_MAX {
                    let brokers: Vec<String> =
                        self.brokers.iter().map(|broker| broker.describe(self.now_us)).collect();
                    let state = format!("{}; {}", brokers.join("; "), self.quorum.describe());
                    self.problem = unrest
                        .map(|unrest| format!("the mended cluster does not come to rest: {unrest}; {state}"));
                    break;
                }
            }
        }
        self.judge()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, incarnation, message } => self.deliver(from, to, incarnation, message),
            Event::Broker(id, incarnation, timer) => self.broker_due(id, incarnation, timer),
            Event::Client(timer) => {
                let mut out = ClientOutbox::default();
                self.clients.due(self.now_us, timer, &mut out);
                self.execute_clients(out);
            }
            Event::Transactor(timer) => {
                let mut out = TransactorOutbox::default();
                if let Some(transactors) = &mut self.transactors {
                    transactors.due(self.now_us, timer, &mut out);
                }
                self.execute_transactors(out);
            }
            Event::Ambush => self.go_on_with_ambush(),
            Event::QuorumTick => {
                let mut out = Vec::new();
                self.quorum.tick(self.now_us, &self.network, &mut out);
                self.execute_quorum(out);
                self.schedule(QUORUM_TICK_US, Event::QuorumTick);
            }
            Event::EntryThrough(member, term) => {
                let mut out = Vec::new();
                self.quorum.entry_is_through(self.now_us, member, term, &self.network, &mut out);
                self.execute_quorum(out);
            }
            Event::Barrier(member, term) => {
                let mut out = Vec::new();
                self.quorum.barrier_is_passed(self.now_us, member, term, &self.network, &mut out);
                self.execute_quorum(out);
            }
            Event::SessionBroken(id, epoch) => {
                self.quorum.session_broken(self.now_us, id, epoch, &self.network);
            }
            Event::Trouble => {
                if !self.is_mended {
                    self.make_trouble();
                    let pause = self.trouble.between(1, 2 * self.plan.fault_pause_ms) * 1_000;
                    self.schedule(pause, Event::Trouble);
                }
            }
            Event::Cure(cure) => self.cure(cure),
        }
    }
}

/// Runs a seed of a family; with `trace` it tells what happens on standard error.
pub fn run(family: Family, seed: u64, fault: Fault, trace: bool) -> Outcome {
    Cluster::new(Plan::of(family, seed), fault, trace).run()
}
