//! The small world: what can happen next, and what must never have happened.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::super::{COORDINATOR_EPOCH, ID, V0, granted, partition};
use crate::transaction::verification::{VerificationGuard, Verifications};

/// What a producer does, one after the other. It waits for each answer, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Init,
    /// Adds a partition, as classic producers must.
    Add(usize),
    Write(usize),
    /// Gives up waiting at once: the record may be late.
    WriteAndGoOn(usize),
    End(bool),
    /// Sends it twice: the first request may be late.
    EndTwice(bool),
}

/// What may still go wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) failed_appends: u8,
    pub(super) crashes: u8,
    pub(super) timeouts: u8,
    pub(super) doubled_markers: u8,
}

/// One transaction of one client.
type Tag = (usize, u8);

#[derive(Debug, Clone)]
struct Client {
    script: Vec<Step>,
    /// Of the step that is waited for, or is next.
    at: usize,
    is_waiting: bool,
    retries_left: u8,
    producer: ProducerReply,
    transaction: u8,
    acknowledged: BTreeSet<(usize, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Write {
    tag: Tag,
    step: usize,
    partition: usize,
    producer_id: i64,
    epoch: i16,
}

#[derive(Debug, Clone, Default)]
struct Leader {
    epoch: i16,
    coordinator_epoch: i32,
    open: Option<Tag>,
    closed: BTreeSet<Tag>,
    verifications: Verifications,
}

impl Leader {
    fn verifies(&self, write: &Write, guard: VerificationGuard) -> bool {
        let is_open = self.open.is_some() && write.epoch == self.epoch;
        is_open || self.verifications.verifies(write.producer_id, guard)
    }
}

#[derive(Debug, Clone)]
enum Message {
    Request(usize, usize, Command),
    Write(Write),
    /// The leader asks the coordinator.
    Ask(VerificationGuard, Write),
    Asked(VerificationGuard, Write, ErrorCode),
    Marker(SendMarkers),
}

#[derive(Debug, Clone)]
enum Origin {
    Client(usize, usize),
    Leader(VerificationGuard, Write),
}

#[derive(Debug, Clone)]
pub(super) struct World {
    version: TransactionVersion,
    machine: TransactionCoordinator,
    coordinator_epoch: i32,
    log: Vec<CoordinatorRecord>,
    held: Vec<Append>,
    waiting: BTreeMap<RequestToken, Origin>,
    clients: Vec<Client>,
    leaders: [Leader; 2],
    network: Vec<Message>,
    budget: Budget,
    decided: BTreeMap<Tag, bool>,
    told_committed: BTreeSet<Tag>,
    now: Now,
    tokens: u64,
}

const TOPIC: &str = "t";
const RETRIES: u8 = 2;
/// Longer than all that happens.
const PATIENCE_MS: u64 = 1_000_000;

impl World {
    pub(super) fn new(version: TransactionVersion, scripts: &[&[Step]], budget: Budget) -> Self {
        let client = |script: &&[Step]| Client {
            script: script.to_vec(),
            at: 0,
            is_waiting: false,
            retries_left: RETRIES,
            producer: granted(NO_PRODUCER_ID, NO_PRODUCER_EPOCH),
            transaction: 0,
            acknowledged: BTreeSet::new(),
        };
        let leader = || Leader { epoch: NO_PRODUCER_EPOCH, coordinator_epoch: -1, ..Leader::default() };
        let mut world = Self {
            version,
            machine: TransactionCoordinator::new(TransactionConfig::default()),
            coordinator_epoch: COORDINATOR_EPOCH - 1,
            log: Vec::new(),
            held: Vec::new(),
            waiting: BTreeMap::new(),
            clients: scripts.iter().map(client).collect(),
            leaders: [leader(), leader()],
            network: Vec::new(),
            budget,
            decided: BTreeMap::new(),
            told_committed: BTreeSet::new(),
            now: Now { monotonic_ms: 10, wall_ms: 1_000 },
            tokens: 0,
        };
        world.elect();
        // One producer is there before the others come.
        world.send(0);
        world
    }

    /// A new coordinator, which knows the committed log only.
    fn elect(&mut self) {
        self.machine = TransactionCoordinator::new(TransactionConfig::default());
        for record in &self.log {
            self.machine.apply(&record.key, record.value.as_ref()).unwrap();
        }
        self.held.clear();
        self.waiting.clear();
        self.coordinator_epoch += 1;
        let mut effects = Effects::default();
        self.machine.lead(self.now, self.coordinator_epoch, &mut effects);
        self.execute(effects);
    }

    pub(super) fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        let mut branch = |act: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            act(&mut world);
            next.push(world);
        };
        for at in 0..self.network.len() {
            branch(&|world| {
                let message = world.network.remove(at);
                world.deliver(message);
            });
            if matches!(self.network[at], Message::Marker(_)) && self.budget.doubled_markers > 0 {
                branch(&|world| {
                    world.budget.doubled_markers -= 1;
                    world.deliver(world.network[at].clone());
                });
            }
        }
        for client in 0..self.clients.len() {
            if self.may_send(client) {
                branch(&|world| world.send(client));
            }
        }
        if !self.held.is_empty() {
            branch(&Self::commit);
            if self.budget.failed_appends > 0 {
                branch(&Self::fail);
            }
        }
        if self.budget.crashes > 0 && !self.log.is_empty() {
            branch(&|world| {
                world.budget.crashes -= 1;
                world.elect();
                world.retry_all();
            });
        }
        let is_open =
            self.machine.durable().transaction(ID).is_some_and(|found| found.deadline_ms().is_some());
        if self.budget.timeouts > 0 && is_open {
            branch(&|world| {
                world.budget.timeouts -= 1;
                world.time_out();
            });
        }
        if self.machine.next_deadline_ms().is_some() {
            branch(&Self::tick);
        }
        next
    }

    fn may_send(&self, client: usize) -> bool {
        let client = &self.clients[client];
        !client.is_waiting && client.at < client.script.len()
    }

    fn send(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let (step, producer) = (client.script[client.at], client.producer);
        client.is_waiting = true;
        let (tag, step_at) = ((at, client.transaction), client.at);
        let write = |partition| {
            Message::Write(Write {
                tag,
                step: step_at,
                partition,
                producer_id: producer.producer_id,
                epoch: producer.producer_epoch,
            })
        };
        match step {
            Step::Write(partition) => self.network.push(write(partition)),
            Step::WriteAndGoOn(partition) => {
                self.network.push(write(partition));
                client.is_waiting = false;
                client.at += 1;
            }
            Step::Init => {
                let command = Command::InitProducerId(InitProducerId {
                    transactional_id: Text::from(ID),
                    timeout_ms: 1_000,
                    producer_id: NO_PRODUCER_ID,
                    producer_epoch: NO_PRODUCER_EPOCH,
                    enable_two_phase_commit: false,
                    keep_prepared: false,
                    fresh_producer_id: Some(1001),
                });
                self.network.push(Message::Request(at, step_at, command));
            }
            Step::Add(index) => {
                let command = Harness::add_command(producer, &[partition(TOPIC, index_of(index))], V0);
                self.network.push(Message::Request(at, step_at, command));
            }
            Step::End(commit) | Step::EndTwice(commit) => {
                let command = Command::EndTxn(EndTxn {
                    transactional_id: Text::from(ID),
                    producer_id: producer.producer_id,
                    producer_epoch: producer.producer_epoch,
                    commit,
                    client_version: self.version,
                    fresh_producer_id: Some(1002),
                });
                if matches!(step, Step::EndTwice(_)) {
                    self.network.push(Message::Request(at, step_at, command.clone()));
                }
                self.network.push(Message::Request(at, step_at, command));
            }
        }
    }

    /// Whoever had asked the coordinator that died asks again.
    fn retry_all(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].is_waiting {
                self.retry(at);
            }
        }
    }

    fn retry(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.is_waiting = false;
        match client.retries_left.checked_sub(1) {
            Some(left) => client.retries_left = left,
            // It gives up, and is heard of no more.
            None => client.at = client.script.len(),
        }
    }

    fn execute(&mut self, effects: Effects) {
        self.held.extend(effects.appends);
        for sent in effects.markers {
            for partition in &sent.partitions {
                let one = SendMarkers { partitions: vec![partition.clone()], ..sent.clone() };
                self.network.push(Message::Marker(one));
            }
        }
        for (token, reply) in effects.replies {
            match self.waiting.remove(&token).expect("answered once") {
                Origin::Client(client, step) => self.hear(client, step, reply),
                Origin::Leader(guard, write) => {
                    let Reply::AddPartitions(error) = reply else { panic!("no reply of its kind") };
                    self.network.push(Message::Asked(guard, write, error));
                }
            }
        }
    }

    fn commit(&mut self) {
        let append = self.held.remove(0);
        for record in &append.records {
            self.machine.apply(&record.key, record.value.as_ref()).unwrap();
        }
        self.log.extend(append.records);
        let mut effects = Effects::default();
        self.machine.committed(self.now, append.ticket, &mut effects);
        self.execute(effects);
    }

    fn fail(&mut self) {
        self.budget.failed_appends -= 1;
        let append = self.held.remove(0);
        let mut effects = Effects::default();
        self.machine.failed(self.now, append.ticket, ErrorCode::NotEnoughReplicas, &mut effects);
        self.execute(effects);
    }

    fn time_out(&mut self) {
        let mut effects = Effects::default();
        let late = Now { wall_ms: self.now.wall_ms + 1_000_000, ..self.now };
        self.machine.abort_timed_out(late, &mut effects);
        self.execute(effects);
    }

    fn tick(&mut self) {
        let mut effects = Effects::default();
        let later = Now { monotonic_ms: self.now.monotonic_ms + MARKER_RETRY_PAUSE_MS, ..self.now };
        self.machine.tick(later, &mut effects);
        self.execute(effects);
    }

    fn request(&mut self, origin: Origin, command: &Command) {
        self.tokens += 1;
        let token = RequestToken(self.tokens);
        self.waiting.insert(token, origin);
        let mut effects = Effects::default();
        self.machine.step(self.now, token, command, &mut effects);
        self.execute(effects);
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Request(client, step, command) => self.request(Origin::Client(client, step), &command),
            Message::Write(write) => self.write(write),
            Message::Ask(guard, write) => self.ask(guard, write),
            Message::Asked(guard, write, error) => self.asked(guard, write, error),
            Message::Marker(sent) => self.mark(&sent),
        }
    }

    fn write(&mut self, write: Write) {
        let leader = &mut self.leaders[write.partition];
        if write.epoch < leader.epoch {
            self.wrote(write, ErrorCode::InvalidProducerEpoch);
        } else if leader.open.is_some() && write.epoch == leader.epoch {
            self.append(write);
        } else {
            let guard = leader.verifications.begin(write.producer_id, write.epoch, None, 0);
            match guard {
                Some(guard) => self.network.push(Message::Ask(guard, write)),
                None => self.wrote(write, ErrorCode::InvalidProducerEpoch),
            }
        }
    }

    /// The coordinator adds the partition (version 2), or says whether it is there (classic).
    fn ask(&mut self, guard: VerificationGuard, write: Write) {
        let asked = partition(TOPIC, index_of(write.partition));
        if self.version.supports_epoch_bump() {
            let producer = granted(write.producer_id, write.epoch);
            let mut command = Harness::add_command(producer, &[asked], self.version);
            if let Command::AddPartitions(command) = &mut command {
                command.wait_ms_max = PATIENCE_MS;
            }
            self.request(Origin::Leader(guard, write), &command);
        } else {
            let answer = self.machine.verify(ID, write.producer_id, write.epoch, &[asked]);
            let error = answer.map_or_else(|error| error, |codes| codes[0]);
            self.network.push(Message::Asked(guard, write, error));
        }
    }

    fn asked(&mut self, guard: VerificationGuard, write: Write, error: ErrorCode) {
        let leader = &self.leaders[write.partition];
        if error != ErrorCode::None {
            self.wrote(write, error);
        } else if write.epoch < leader.epoch {
            self.wrote(write, ErrorCode::InvalidProducerEpoch);
        } else if leader.verifies(&write, guard) {
            self.append(write);
        } else {
            // A marker came in between: of this transaction or of the one before. The coordinator knows.
            self.write(write);
        }
    }

    fn append(&mut self, write: Write) {
        let leader = &mut self.leaders[write.partition];
        let is_mixed = leader.open.is_some_and(|open| open != write.tag);
        assert!(!is_mixed, "I58, I66: {write:?} lands in another transaction: {leader:?}");
        assert!(!leader.closed.contains(&write.tag), "I61: {write:?} lands behind its marker: {leader:?}");
        let has_successor = |client: &Client| client.at > 0 && client.producer.producer_epoch > write.epoch;
        let others = self.clients.iter().enumerate().filter(|(at, _)| *at != write.tag.0);
        let is_fenced = others.map(|(_, client)| client).any(has_successor);
        assert!(!is_fenced, "I59: {write:?} of a fenced producer");
        leader.open = Some(write.tag);
        leader.epoch = write.epoch;
        leader.verifications.end(write.producer_id);
        self.wrote(write, ErrorCode::None);
    }

    fn mark(&mut self, sent: &SendMarkers) {
        let index = usize::try_from(sent.partitions[0].partition).unwrap();
        let leader = &mut self.leaders[index];
        let must_be_newer = sent.transaction_version.supports_epoch_bump() && leader.open.is_some();
        let error = if sent.coordinator_epoch < leader.coordinator_epoch {
            ErrorCode::TransactionCoordinatorFenced
        } else if sent.producer_epoch < leader.epoch || (must_be_newer && sent.producer_epoch == leader.epoch)
        {
            ErrorCode::InvalidProducerEpoch
        } else {
            leader.epoch = sent.producer_epoch;
            leader.coordinator_epoch = sent.coordinator_epoch;
            leader.verifications.end(sent.producer_id);
            if let Some(tag) = leader.open.take() {
                leader.closed.insert(tag);
                let before = self.decided.insert(tag, sent.commit);
                assert!(before.is_none_or(|before| before == sent.commit), "I62: {tag:?} is decided twice");
            }
            ErrorCode::None
        };
        // An answer finds only the coordinator that has sent the marker.
        if sent.coordinator_epoch == self.coordinator_epoch {
            let outcomes = [(sent.partitions[0].clone(), MarkerOutcome::Answered(error))];
            let mut effects = Effects::default();
            self.machine.markers_answered(self.now, sent.token, &outcomes, &mut effects);
            self.execute(effects);
        }
    }

    fn wrote(&mut self, write: Write, error: ErrorCode) {
        let client = &mut self.clients[write.tag.0];
        if error == ErrorCode::None {
            client.acknowledged.insert((write.partition, write.tag.1));
        }
        if client.at == write.step && client.is_waiting {
            self.proceed(write.tag.0, error);
        }
    }

    fn hear(&mut self, at: usize, step: usize, reply: Reply) {
        let client = &mut self.clients[at];
        if client.at != step || !client.is_waiting {
            return;
        }
        let error = match reply {
            Reply::InitProducerId(reply) | Reply::EndTxn(reply) => {
                if reply.error == ErrorCode::None {
                    client.producer = reply;
                    if client.script[step] == Step::End(true) || client.script[step] == Step::EndTwice(true) {
                        self.told_committed.insert((at, client.transaction));
                    }
                    if client.script[step] != Step::Init {
                        client.transaction += 1;
                    }
                }
                reply.error
            }
            Reply::AddPartitions(error) => error,
            Reply::ProducerIdNeeded => panic!("one was given"),
        };
        self.proceed(at, error);
    }

    fn proceed(&mut self, at: usize, error: ErrorCode) {
        match error {
            ErrorCode::None => {
                self.clients[at].is_waiting = false;
                self.clients[at].at += 1;
            }
            ErrorCode::ConcurrentTransactions | ErrorCode::CoordinatorNotAvailable => self.retry(at),
            // It is fenced or confused, and heard of no more.
            _ => {
                self.clients[at].is_waiting = false;
                self.clients[at].at = self.clients[at].script.len();
            }
        }
    }

    /// Nothing more happens but that time passes.
    pub(super) fn settle_and_check(&self) {
        let mut world = self.clone();
        for _ in 0..10 {
            world.time_out();
            world.tick();
            while !world.held.is_empty() {
                world.commit();
            }
            while let Some(message) = world.network.pop() {
                world.deliver(message);
            }
        }
        for leader in &world.leaders {
            assert_eq!(leader.open, None, "I65: {world:?}");
        }
        if let Some(known) = world.machine.durable().transaction(ID) {
            assert!(known.state.is_at_rest(), "I65: {known:?}");
        }
        for (at, client) in world.clients.iter().enumerate() {
            for (index, transaction) in &client.acknowledged {
                let tag = (at, *transaction);
                let is_closed = world.leaders[*index].closed.contains(&tag);
                assert!(is_closed, "I57: {tag:?} has no marker where it was written");
                if world.told_committed.contains(&tag) {
                    assert_eq!(world.decided.get(&tag), Some(&true), "I57: {tag:?} was told to be committed");
                }
            }
        }
    }
}

fn index_of(partition: usize) -> i32 {
    i32::try_from(partition).unwrap()
}
