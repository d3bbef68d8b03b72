//! A broker's process and its disk: what `broker/src` does around the machines, without sockets and files.
//!
//! `receive` has messages, `effects` what the machines want done, `follow` replication, `serve` what clients ask, `transactions` what leaders ask coordinators, `coordinator` the
//! coordinators.

mod coordinator;
mod effects;
mod follow;
mod receive;
mod serve;
mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_coordinator::transaction::verification::Verifications;
use ottla_coordinator::transaction::{MarkerOutcome, TransactionVersion};
use ottla_metadata::image::MetadataImage;
use ottla_replica::{Effects, IsrAnswer, MachineOptions, Now};
use ottla_wire::error_code::ErrorCode;

use self::coordinator::{SentMarker, Shard};
use self::transactions::Held;
use super::batch::{Batch, Producers};
use super::message::{HeartbeatRequest, Message};
use super::network::{CONTROLLERS, Node};
use crate::fault::Fault;
use crate::log::ReplicaLog;
use crate::replica::{FetchRequest, Replica};

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
    /// A question to a transaction coordinator was not answered.
    AnswerTimeout(u64),
    /// A marker was not answered.
    MarkerTimeout(u64),
    /// A transaction coordinator has loaded its log: partition, epoch.
    Load(i32, i32),
    /// A transaction coordinator looks at its deadlines: partition, epoch.
    Coordinator(i32, i32),
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
    /// What must not be.
    pub problems: Vec<String>,
}

/// What is on the disk of a partition, and beside it.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// The log.
    pub log: ReplicaLog<Batch>,
    /// The checkpointed high watermark.
    pub high_watermark: i64,
}

/// Who waits for an append.
#[derive(Debug, Clone, Copy)]
enum Told {
    Client {
        from: Node,
        id: (u64, u64),
        number: u64,
    },
    /// Of a marker: what is said when it is committed.
    Coordinator {
        from: Node,
        id: u64,
        error: ErrorCode,
    },
}

#[derive(Debug)]
struct AckWait {
    told: Told,
    offset: i64,
    epoch: i32,
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
    /// What the log says of producers.
    pub producers: Producers,
    verifications: Verifications,
    /// The last stable offset that was told as the leader: in which epoch, and the offset.
    stable: (i32, i64),
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
    /// The first partition that is the log of transaction coordinators.
    pub coordinators_from: i32,
    /// Of the cluster.
    pub transaction_version: TransactionVersion,
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
    /// Of the registration before.
    last_epoch: i64,
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
    held: BTreeMap<u64, Held>,
    shards: BTreeMap<i32, Shard>,
    sent_markers: BTreeMap<u64, SentMarker>,
    next_producer: u64,
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
            last_epoch: -1,
            controllers,
            controller: 0,
            stream: 0,
            applied: 0,
            image: Arc::default(),
            partitions: BTreeMap::new(),
            disks: BTreeMap::new(),
            proposals: BTreeMap::new(),
            held: BTreeMap::new(),
            shards: BTreeMap::new(),
            sent_markers: BTreeMap::new(),
            next_producer: 0,
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
        self.last_epoch = self.last_epoch.max(self.epoch);
        self.is_up = false;
        self.proposals.clear();
        self.held.clear();
        self.shards.clear();
        self.sent_markers.clear();
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
                    let is_believed = self.settings.fault == Fault::AlwaysClean;
                    let marker = if is_believed { self.last_epoch } else { marker };
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
            Timer::AnswerTimeout(id) => self.answered(now_us, id, ErrorCode::NetworkException, out),
            Timer::MarkerTimeout(id) => self.marker_written(now_us, id, MarkerOutcome::NoAnswer, out),
            Timer::Load(index, epoch) => self.load(now_us, index, epoch, out),
            Timer::Coordinator(index, epoch) => self.coordinate(now_us, index, epoch, out),
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
}
