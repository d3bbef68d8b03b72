//! A broker's process and its disk: what `broker/src` does around the machines, without sockets and files.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_log::LogError;
use ottla_log::producer_state::{ProducerState, Verdict};
use ottla_metadata::image::MetadataImage;
use ottla_replica::{AckState, Effect, Effects, Input, IsrAnswer, MachineOptions, Now};

use super::batch::{Batch, add_producers, producers_of};
use super::message::{HeartbeatRequest, Message, Problem, ReadAnswer};
use super::network::{CONTROLLERS, Node};
use crate::fault::Fault;
use crate::log::ReplicaLog;
use crate::metadata::{self, Proposal};
use crate::replica::{FetchAnswer, FetchRequest, Replica};

/// Entries of one answer to a follower.
const FETCHED_MAX: i64 = 20;
/// First pause of a partition whose leader refused it; doubles up to the second.
const PAUSE_US: (u64, u64) = (10_000, 1_000_000);
/// `replica.fetch.wait.max.ms`.
const FETCH_WAIT_US: u64 = 500_000;
/// A fetch without an answer for so long: the connection is taken for broken.
const FETCH_TIMEOUT_US: u64 = 2_000_000;
/// A proposal without an answer for so long is of unknown fate.
const PROPOSAL_TIMEOUT_US: u64 = 2_000_000;

/// Something that the broker wants to be reminded of. Void when the process is another one by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Lag, proposals.
    Tick,
    /// A sign of life.
    Heartbeat,
    /// The registration was not answered.
    Register,
    /// Images may have come.
    Image,
    /// A follower fetches.
    Fetch(i32),
    /// The answer to that fetch did not come.
    FetchTimeout(i32, u64),
    /// A fetch has waited for long enough.
    Parked(i32, u64),
    /// Everything goes to the disk, by and by.
    Writeback,
    /// The disk has the log of a partition up to there.
    Synced(i32, i64),
    /// The proposal was not answered.
    ProposalTimeout(u64),
}

/// What comes out of a step.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Messages.
    pub sends: Vec<(Node, Node, Message)>,
    /// Timers: after so many microseconds.
    pub timers: Vec<(u64, Timer)>,
    /// High watermarks that moved: partition, where to, whether that was as the leader.
    pub advanced: Vec<(i32, i64, bool)>,
    /// What happened, when it is to be told.
    pub notes: Vec<String>,
}

/// What is on the disk of a partition, and beside it.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// The log.
    pub log: ReplicaLog<Batch>,
    /// The checkpointed high watermark.
    pub high_watermark: i64,
}

#[derive(Debug)]
struct AckWait {
    from: Node,
    id: (u64, u64),
    offset: i64,
    epoch: i32,
    number: u64,
}

#[derive(Debug)]
struct Parked {
    from: Node,
    id: u64,
    request: FetchRequest,
}

/// One replica with all that waits for it.
#[derive(Debug)]
pub struct Partition {
    /// Machine and log.
    pub replica: Replica<Batch>,
    producers: ProducerState,
    checkpoint: i64,
    waits: Vec<AckWait>,
    parked: Vec<Parked>,
    fetch: Option<u64>,
    pause_us: u64,
}

/// The settings of all brokers.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Of the machines.
    pub machine: MachineOptions,
    /// For tests of the checker.
    pub fault: Fault,
    /// Between two heartbeats.
    pub heartbeat_us: u64,
    /// Tell what happens.
    pub trace: bool,
}

/// A broker.
#[derive(Debug)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    settings: Settings,
    /// The process runs.
    pub is_up: bool,
    /// Of the process.
    pub incarnation: u64,
    /// The process is stopped until then.
    pub paused_until_us: u64,
    /// The disk takes so many times as long until then.
    pub slow_until_us: u64,
    /// Parts in a million by which its clock runs too fast.
    pub drift_ppm: u64,
    /// Of its registration; -1: none yet.
    pub epoch: i64,
    /// Controlled shutdown has begun.
    pub wants_shut_down: bool,
    /// It may end its process now.
    pub may_stop: bool,
    lease_until_ms: u64,
    is_fenced: bool,
    is_serving: bool,
    marker: i64,
    controllers: usize,
    controller: usize,
    /// Which controller it follows.
    pub stream: usize,
    /// How many entries it has applied, less one.
    pub applied: usize,
    image: Arc<MetadataImage>,
    /// By partition.
    pub partitions: BTreeMap<i32, Partition>,
    /// By partition.
    pub disks: BTreeMap<i32, Disk>,
    proposals: BTreeMap<u64, (i32, i32, i32)>,
    next_id: u64,
    /// Answers that were lost because another one took their place.
    pub truncations: u64,
}

impl Broker {
    /// A machine on which no process runs yet.
    pub fn new(id: i32, settings: Settings, controllers: usize, drift_ppm: u64) -> Self {
        Self {
            id,
            settings,
            is_up: false,
            incarnation: 0,
            paused_until_us: 0,
            slow_until_us: 0,
            drift_ppm,
            epoch: -1,
            wants_shut_down: false,
            may_stop: false,
            lease_until_ms: 0,
            is_fenced: true,
            is_serving: false,
            marker: -1,
            controllers,
            controller: 0,
            stream: 0,
            applied: 0,
            image: Arc::default(),
            partitions: BTreeMap::new(),
            disks: BTreeMap::new(),
            proposals: BTreeMap::new(),
            next_id: 0,
            truncations: 0,
        }
    }

    /// Milliseconds of its own clock, which never goes back and never equally fast as others.
    pub fn local_ms(&self, now_us: u64) -> u64 {
        (now_us + now_us / 1_000_000 * self.drift_ppm) / 1_000 + 1
    }

    fn now(&self, now_us: u64) -> Now {
        Now { ms: self.local_ms(now_us), lease_until_ms: self.lease_until_ms }
    }

    /// The process starts.
    pub fn start(&mut self, out: &mut Outbox) {
        self.is_up = true;
        self.incarnation += 1;
        (self.epoch, self.lease_until_ms, self.is_fenced, self.is_serving) = (-1, 0, true, false);
        (self.wants_shut_down, self.may_stop, self.applied) = (false, false, 0);
        self.image = Arc::default();
        out.timers.push((1_000, Timer::Register));
    }

    /// The process ends; `cut`: by partition, how much of the unsynced end the disk loses.
    pub fn stop(&mut self, is_clean: bool, mut cut: impl FnMut(i64, i64) -> Option<i64>) {
        for (index, mut partition) in std::mem::take(&mut self.partitions) {
            let mut log = std::mem::take(&mut partition.replica.log);
            if is_clean {
                log.sync();
            }
            if let Some(end) = cut(log.synced_end(), log.end()) {
                log.truncate_to(end);
            }
            let high_watermark =
                if is_clean { partition.replica.machine.high_watermark() } else { partition.checkpoint };
            self.disks.insert(index, Disk { log, high_watermark });
        }
        self.marker = if is_clean { self.epoch } else { -1 };
        self.is_up = false;
        self.proposals.clear();
    }

    /// Who may be spoken to: a process that listens.
    pub fn is_serving(&self) -> bool {
        self.is_up && self.is_serving
    }

    /// Where it stands, for reports.
    pub fn describe(&self, now_us: u64) -> String {
        let lease_ms = self.lease_until_ms.saturating_sub(self.local_ms(now_us));
        format!(
            "broker {}: up {}, serving {}, fenced {}, epoch {}, lease {lease_ms} ms, applied {}, controller {}, stopping {}",
            self.id,
            self.is_up,
            self.is_serving,
            self.is_fenced,
            self.epoch,
            self.applied,
            self.controller,
            self.wants_shut_down
        )
    }

    // --- timers ---

    /// Something is due.
    pub fn due(&mut self, now_us: u64, timer: Timer, out: &mut Outbox) {
        match timer {
            Timer::Tick => {
                self.tick(now_us, out);
                out.timers.push((250_000, Timer::Tick));
            }
            Timer::Heartbeat => {
                self.heartbeat(now_us, out);
                let hurried = self.is_fenced || self.wants_shut_down;
                let pause = if hurried { 100_000 } else { self.settings.heartbeat_us };
                out.timers.push((pause, Timer::Heartbeat));
                // Without an answer the next one goes elsewhere.
                if self.lease_until_ms <= self.local_ms(now_us + self.settings.heartbeat_us) {
                    self.controller = (self.controller + 1) % self.controllers;
                }
            }
            Timer::Register => {
                if self.epoch < 0 {
                    let (incarnation, marker) = (self.incarnation, self.marker);
                    let marker = if self.settings.fault == Fault::AlwaysClean { i64::MAX } else { marker };
                    self.to_controller(Message::Register { incarnation, marker }, out);
                    self.controller = (self.controller + 1) % self.controllers;
                    out.timers.push((200_000, Timer::Register));
                }
            }
            Timer::Image => {}
            Timer::Fetch(index) => self.fetch(now_us, index, out),
            Timer::FetchTimeout(index, id) => {
                if let Some(partition) = self.partitions.get_mut(&index)
                    && partition.fetch == Some(id)
                {
                    partition.fetch = None;
                    self.fetch(now_us, index, out);
                }
            }
            Timer::Parked(index, id) => self.end_parked(now_us, index, Some(id), out),
            Timer::Writeback => {
                for partition in self.partitions.values_mut() {
                    partition.replica.log.sync();
                    partition.checkpoint = partition.replica.machine.high_watermark();
                }
                out.timers.push((1_500_000, Timer::Writeback));
            }
            Timer::Synced(index, end) => self.synced(now_us, index, end, out),
            Timer::ProposalTimeout(id) => self.proposal_answered(now_us, id, IsrAnswer::Unknown, out),
        }
    }

    fn to_controller(&self, message: Message, out: &mut Outbox) {
        let to = CONTROLLERS + i32::try_from(self.controller).unwrap_or(0);
        out.sends.push((self.id, to, message));
    }

    fn heartbeat(&self, now_us: u64, out: &mut Outbox) {
        if self.epoch < 0 {
            return;
        }
        let request = HeartbeatRequest {
            broker: self.id,
            epoch: self.epoch,
            metadata_index: self.image.index().0,
            wants_shut_down: self.wants_shut_down,
            sent_at_ms: self.local_ms(now_us),
        };
        self.to_controller(Message::Heartbeat(request), out);
    }

    fn disk_us(&self, now_us: u64) -> u64 {
        if now_us < self.slow_until_us { 400_000 } else { 2_000 }
    }

    fn synced(&mut self, now_us: u64, index: i32, end: i64, out: &mut Outbox) {
        let (now, fault) = (self.now(now_us), self.settings.fault);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let mut effects = Effects::new();
        partition.replica.synced(now, end, fault, &mut effects);
        self.execute(now_us, index, effects, out);
    }

    fn tick(&mut self, now_us: u64, out: &mut Outbox) {
        let (now, fault) = (self.now(now_us), self.settings.fault);
        let indexes: Vec<i32> = self.partitions.keys().copied().collect();
        for index in indexes {
            let image = Arc::clone(&self.image);
            let Some(partition) = self.partitions.get_mut(&index) else { continue };
            if !partition.replica.machine.is_leader() {
                continue;
            }
            let mut effects = Effects::new();
            let outside: Vec<i32> = partition
                .replica
                .machine
                .followers()
                .filter(|follower| !follower.in_isr)
                .map(|follower| follower.broker)
                .collect();
            for broker in outside {
                let input = Input::BrokerChanged {
                    broker,
                    broker_epoch: metadata::broker_epoch(&image, broker),
                    eligible: metadata::is_eligible(&image, broker, -1),
                };
                partition.replica.step(now, input, fault, &mut effects);
            }
            partition.replica.step(now, Input::Tick, fault, &mut effects);
            self.execute(now_us, index, effects, out);
        }
    }

    // --- metadata ---

    /// Takes over the next image.
    pub fn apply_image(&mut self, now_us: u64, entry: usize, image: &Arc<MetadataImage>, out: &mut Outbox) {
        self.applied = entry;
        self.image = Arc::clone(image);
        let mut index = 0;
        while let Some(role) = metadata::role(image, index) {
            if role.replicas.contains(&self.id) {
                let (id, machine) = (self.id, self.settings.machine);
                let disks = &mut self.disks;
                let partition = self.partitions.entry(index).or_insert_with(|| {
                    let disk = disks.remove(&index).unwrap_or_default();
                    let producers = producers_of(&disk.log);
                    let replica = Replica::open(id, machine, disk.log, disk.high_watermark);
                    Partition {
                        replica,
                        producers,
                        checkpoint: disk.high_watermark,
                        waits: Vec::new(),
                        parked: Vec::new(),
                        fetch: None,
                        pause_us: PAUSE_US.0,
                    }
                });
                let now = Now {
                    ms: (now_us + now_us / 1_000_000 * self.drift_ppm) / 1_000 + 1,
                    lease_until_ms: self.lease_until_ms,
                };
                let mut effects = Effects::new();
                partition.replica.assign(now, &role, self.settings.fault, &mut effects);
                self.execute(now_us, index, effects, out);
            }
            index += 1;
        }
        self.tick(now_us, out);
    }

    /// The leaders that its image knows.
    fn leaders(&self) -> Vec<(i32, i32)> {
        let roles = (0..).map_while(|index| metadata::role(&self.image, index));
        roles.map(|role| (role.leader, role.leader_epoch)).collect()
    }

    // --- effects ---

    fn execute(&mut self, now_us: u64, index: i32, effects: Effects, out: &mut Outbox) {
        for effect in effects {
            if self.settings.trace {
                let end = self.partitions.get(&index).map_or(0, |partition| partition.replica.log.end());
                out.notes.push(format!("partition {index} (end {end}): {effect:?}"));
            }
            match effect {
                Effect::ProposeIsr { isr, leader_epoch, partition_epoch } => {
                    self.next_id += 1;
                    let id = self.next_id;
                    self.proposals.insert(id, (index, leader_epoch, partition_epoch));
                    let proposal = Proposal {
                        broker: self.id,
                        broker_epoch: self.epoch,
                        partition: index,
                        isr,
                        leader_epoch,
                        partition_epoch,
                    };
                    self.to_controller(Message::Alter { id, proposal }, out);
                    out.timers.push((PROPOSAL_TIMEOUT_US, Timer::ProposalTimeout(id)));
                }
                Effect::HighWatermarkAdvanced(high_watermark) => {
                    let leads = |partition: &Partition| partition.replica.machine.is_leader();
                    let leads = self.partitions.get(&index).is_some_and(leads);
                    out.advanced.push((index, high_watermark, leads));
                    self.release(now_us, index, out);
                }
                Effect::LeadershipLost => {
                    self.release(now_us, index, out);
                    self.end_parked(now_us, index, None, out);
                }
                Effect::Follow { .. } => {
                    if let Some(partition) = self.partitions.get_mut(&index) {
                        (partition.fetch, partition.pause_us) = (None, PAUSE_US.0);
                    }
                    self.fetch(now_us, index, out);
                }
                _ => {}
            }
        }
    }

    /// Acknowledgements whose time has come.
    fn release(&mut self, now_us: u64, index: i32, out: &mut Outbox) {
        let (now, fault, own) = (self.now(now_us), self.settings.fault, self.id);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let replica = &partition.replica;
        partition.waits.retain(|wait| {
            let result = match replica.ack_state(now, wait.epoch, wait.offset, fault) {
                AckState::Pending => return true,
                AckState::Done => Ok(wait.offset),
                AckState::NotEnoughReplicasAfterAppend => Err(Problem::Unknown),
                AckState::NoLongerLeader => Err(Problem::NotLeader),
            };
            let answer = Message::Produced { id: wait.id, partition: index, number: wait.number, result };
            out.sends.push((own, wait.from, answer));
            false
        });
    }

    // --- replication ---

    fn fetch(&mut self, now_us: u64, index: i32, out: &mut Outbox) {
        self.next_id += 1;
        let (id, own, epoch) = (self.next_id, self.id, self.epoch);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        if partition.fetch.is_some() {
            return;
        }
        let Some((leader, request)) = partition.replica.fetch_request(epoch) else { return };
        if self.settings.machine.synced_only && partition.replica.log.synced_end() < request.offset {
            // What the fetch says that this broker has must be on its disk: it is asked again behind the sync.
            let end = request.offset;
            let disk_us = self.disk_us(now_us);
            out.timers.push((disk_us, Timer::Synced(index, end)));
            out.timers.push((disk_us + 1, Timer::Fetch(index)));
            return;
        }
        partition.fetch = Some(id);
        out.sends.push((own, leader, Message::Fetch { id, partition: index, request }));
        out.timers.push((FETCH_TIMEOUT_US, Timer::FetchTimeout(index, id)));
    }

    fn fetched(
        &mut self,
        now_us: u64,
        from: Node,
        (id, index): (u64, i32),
        request: FetchRequest,
        may_park: bool,
        out: &mut Outbox,
    ) {
        let (now, fault, own) = (self.now(now_us), self.settings.fault, self.id);
        let eligible = metadata::is_eligible(&self.image, request.broker, request.broker_epoch);
        let leader_epoch = request.leader_epoch;
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let mut effects = Effects::new();
        let answer = partition.replica.fetched(now, &request, eligible, FETCHED_MAX, fault, &mut effects);
        let is_empty = matches!(&answer, FetchAnswer::Records { entries, .. } if entries.is_empty());
        if is_empty && may_park {
            partition.parked.retain(|other| other.from != from);
            partition.parked.push(Parked { from, id, request });
            out.timers.push((FETCH_WAIT_US, Timer::Parked(index, id)));
        } else {
            out.sends.push((own, from, Message::Fetched { id, partition: index, leader_epoch, answer }));
        }
        self.execute(now_us, index, effects, out);
    }

    /// Fetches that waited are answered: one, or all.
    fn end_parked(&mut self, now_us: u64, index: i32, only: Option<u64>, out: &mut Outbox) {
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let ends = |parked: &Parked| only.is_none_or(|id| parked.id == id);
        let (ended, kept) = std::mem::take(&mut partition.parked).into_iter().partition(ends);
        partition.parked = kept;
        let ended: Vec<Parked> = ended;
        for Parked { from, id, request } in ended {
            self.fetched(now_us, from, (id, index), request, false, out);
        }
    }

    fn apply_fetched(
        &mut self,
        now_us: u64,
        index: i32,
        leader_epoch: i32,
        answer: &FetchAnswer<Batch>,
        out: &mut Outbox,
    ) {
        let (now, fault) = (self.now(now_us), self.settings.fault);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        partition.fetch = None;
        let end = partition.replica.log.end();
        let mut effects = Effects::new();
        let changed = partition.replica.apply_answer(now, leader_epoch, answer, fault, &mut effects);
        match answer {
            FetchAnswer::Refused => {
                out.timers.push((partition.pause_us, Timer::Fetch(index)));
                partition.pause_us = (partition.pause_us * 2).min(PAUSE_US.1);
            }
            FetchAnswer::Records { .. } => {
                partition.pause_us = PAUSE_US.0;
                add_producers(&mut partition.producers, &partition.replica.log, end);
            }
            FetchAnswer::Diverging(..) | FetchAnswer::OutOfRange(_) if changed => {
                partition.producers = producers_of(&partition.replica.log);
                self.truncations += 1;
                if self.settings.trace {
                    let end = partition.replica.log.end();
                    out.notes.push(format!("partition {index}: {answer:?} truncates to {end}"));
                }
            }
            _ => {}
        }
        self.execute(now_us, index, effects, out);
        if *answer != FetchAnswer::Refused {
            self.fetch(now_us, index, out);
        }
    }

    fn proposal_answered(&mut self, now_us: u64, id: u64, answer: IsrAnswer, out: &mut Outbox) {
        let Some((index, leader_epoch, partition_epoch)) = self.proposals.remove(&id) else { return };
        let (now, fault) = (self.now(now_us), self.settings.fault);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let mut effects = Effects::new();
        let input = Input::IsrAnswered { leader_epoch, partition_epoch, answer };
        partition.replica.step(now, input, fault, &mut effects);
        self.execute(now_us, index, effects, out);
        self.release(now_us, index, out);
    }

    // --- messages ---

    /// A message for this broker.
    pub fn receive(&mut self, now_us: u64, from: Node, message: Message, out: &mut Outbox) {
        match message {
            Message::Registered { incarnation, epoch }
                if incarnation == self.incarnation && self.epoch < 0 =>
            {
                self.epoch = epoch;
                out.timers.extend([
                    (0, Timer::Image),
                    (1_000, Timer::Heartbeat),
                    (250_000, Timer::Tick),
                    (1_500_000, Timer::Writeback),
                ]);
            }
            Message::HeartbeatReply { sent_at_ms, is_fenced, should_shut_down, lease_ms } => {
                self.is_fenced = is_fenced;
                self.may_stop |= should_shut_down;
                if is_fenced {
                    self.lease_until_ms = 0;
                } else {
                    let regained = self.lease_until_ms <= self.local_ms(now_us);
                    self.lease_until_ms = self.lease_until_ms.max(sent_at_ms + lease_ms);
                    self.is_serving = true;
                    if regained {
                        self.tick(now_us, out);
                        self.release_all(now_us, out);
                    }
                }
            }
            Message::NotController(hint) => {
                let next = (self.controller + 1) % self.controllers;
                self.controller = hint.unwrap_or(next);
            }
            Message::Altered { id, answer } => self.proposal_answered(now_us, id, answer, out),
            Message::Fetched { id, partition, leader_epoch, answer }
                if self.partitions.get(&partition).is_some_and(|partition| partition.fetch == Some(id)) =>
            {
                self.apply_fetched(now_us, partition, leader_epoch, &answer, out);
            }
            _ if !self.is_serving => {}
            Message::Fetch { id, partition, request } => {
                self.fetched(now_us, from, (id, partition), request, true, out);
            }
            Message::Produce { id, partition, batch } => {
                self.produce(now_us, from, (id, partition), batch, out);
            }
            Message::Metadata => {
                out.sends.push((self.id, from, Message::MetadataAnswer(self.leaders())));
            }
            Message::Read { id, partition, offset, leader_epoch, allow_follower } => {
                let answer = self.read(partition, offset, leader_epoch, allow_follower);
                out.sends.push((self.id, from, Message::ReadAnswer { id, partition, answer }));
            }
            Message::Look { id, partition, leader_epoch } => {
                let replica = self.partitions.get(&partition).map(|partition| &partition.replica);
                let is_same = |replica: &&Replica<Batch>| replica.machine.leader_epoch() == leader_epoch;
                let end = replica.filter(is_same).and_then(Replica::latest_offset);
                out.sends.push((self.id, from, Message::LookAnswer { id, partition, end }));
            }
            _ => {}
        }
    }

    fn release_all(&mut self, now_us: u64, out: &mut Outbox) {
        let indexes: Vec<i32> = self.partitions.keys().copied().collect();
        for index in indexes {
            self.release(now_us, index, out);
        }
    }

    fn produce(
        &mut self,
        now_us: u64,
        from: Node,
        (id, index): ((u64, u64), i32),
        batch: Batch,
        out: &mut Outbox,
    ) {
        let (now, fault, own, number) = (self.now(now_us), self.settings.fault, self.id, batch.number);
        let mut refuse = |problem| {
            let result = Err(problem);
            out.sends.push((own, from, Message::Produced { id, partition: index, number, result }));
        };
        let has_lease = now.has_lease() || fault == Fault::NoLease;
        let found = self.partitions.get_mut(&index).filter(|partition| partition.replica.machine.is_leader());
        let Some(partition) = found.filter(|_| has_lease) else { return refuse(Problem::NotLeader) };
        if !partition.replica.may_append(now, fault) {
            return refuse(Problem::NotEnoughReplicas);
        }
        let epoch = partition.replica.machine.leader_epoch();
        let header = batch.header(partition.replica.log.end(), epoch);
        let mut effects = Effects::new();
        let offset = match partition.producers.check(&header) {
            Ok(Verdict::New) => {
                let offset = partition.replica.append(now, batch, fault, &mut effects);
                partition.producers.append(&header);
                offset
            }
            Ok(Verdict::Duplicate(known)) => known.last_offset,
            Err(LogError::ProducerFenced { .. }) => return refuse(Problem::Fenced),
            Err(_) => return refuse(Problem::OutOfOrder),
        };
        partition.waits.push(AckWait { from, id, offset, epoch, number });
        let end = partition.replica.log.end();
        if self.settings.machine.synced_only {
            out.timers.push((self.disk_us(now_us), Timer::Synced(index, end)));
        }
        self.execute(now_us, index, effects, out);
        self.release(now_us, index, out);
        self.end_parked(now_us, index, None, out);
    }

    fn read(&self, index: i32, offset: i64, leader_epoch: i32, allow_follower: bool) -> ReadAnswer {
        let Some(partition) = self.partitions.get(&index) else { return ReadAnswer::Refused };
        let (machine, log) = (&partition.replica.machine, &partition.replica.log);
        let may_answer = machine.is_leader() || allow_follower && machine.is_follower();
        if !may_answer || machine.leader_epoch() != leader_epoch {
            return ReadAnswer::Refused;
        }
        if offset < log.start() || offset > log.end() {
            // A follower that is behind sends the consumer back to the leader.
            return if machine.is_leader() { ReadAnswer::OutOfRange } else { ReadAnswer::Refused };
        }
        let high_watermark = machine.high_watermark();
        ReadAnswer::Records {
            entries: log.slice(offset, high_watermark.min(offset + FETCHED_MAX)).to_vec(),
            high_watermark,
            leader_epoch,
            is_leader: machine.is_leader(),
        }
    }
}
