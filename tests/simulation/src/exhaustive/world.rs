//! The state of the small cluster.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ottla_metadata::image::MetadataImage;
use ottla_replica::{Effect, Effects, IsrAnswer, IsrState, MachineOptions, Now};

use crate::fault::Fault;
use crate::log::ReplicaLog;
use crate::metadata::{self, Controller, Proposal};
use crate::replica::{FetchRequest, Replica};

/// `replica.lag.time.max.ms` of the model.
pub(super) const LAG_MS_MAX: u64 = 100;
/// The brokers' ids; the first is the preferred leader.
pub(super) const BROKERS: [i32; 3] = [1, 2, 3];
/// Messages on their way at once: what is beyond waits to be sent.
pub(super) const MESSAGES_MAX: usize = 4;

/// How much may happen.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For reports.
    pub name: &'static str,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
    /// `flush.messages=1`.
    pub synced_only: bool,
    /// Events from the start on.
    pub depth: usize,
    /// Records that clients send.
    pub appends: u8,
    /// Processes killed.
    pub kills: u8,
    /// Processes killed with the unsynced end of their log lost.
    pub power_losses: u8,
    /// Leases that end while the broker runs, so that it may be fenced.
    pub lease_ends: u8,
    /// Connections that break: the request may still arrive, or the answer is lost.
    pub timeouts: u8,
    /// Times that `replica.lag.time.max.ms` passes.
    pub lags: u8,
    /// Returns of leadership to the preferred leader.
    pub rebalances: u8,
    /// Controlled shutdowns.
    pub clean_stops: u8,
    /// A process that starts is given the oldest image that is about, not the latest.
    pub old_images: bool,
}

impl Scenario {
    /// Nothing goes wrong.
    pub const fn new(name: &'static str, depth: usize) -> Self {
        Self {
            name,
            min_insync_replicas: 2,
            synced_only: false,
            depth,
            appends: 2,
            kills: 0,
            power_losses: 0,
            lease_ends: 0,
            timeouts: 0,
            lags: 0,
            rebalances: 0,
            clean_stops: 0,
            old_images: false,
        }
    }
}

/// What is left of the scenario's events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) appends: u8,
    pub(super) kills: u8,
    pub(super) power_losses: u8,
    pub(super) lease_ends: u8,
    pub(super) timeouts: u8,
    pub(super) lags: u8,
    pub(super) rebalances: u8,
    pub(super) clean_stops: u8,
}

impl Budget {
    fn of(scenario: &Scenario) -> Self {
        Self {
            appends: scenario.appends,
            kills: scenario.kills,
            power_losses: scenario.power_losses,
            lease_ends: scenario.lease_ends,
            timeouts: scenario.timeouts,
            lags: scenario.lags,
            rebalances: scenario.rebalances,
            clean_stops: scenario.clean_stops,
        }
    }

    /// Enough for any script.
    fn plenty() -> Self {
        const MANY: u8 = 100;
        Self {
            appends: MANY,
            kills: MANY,
            power_losses: MANY,
            lease_ends: MANY,
            timeouts: MANY,
            lags: MANY,
            rebalances: MANY,
            clean_stops: MANY,
        }
    }
}

/// One broker.
#[derive(Debug, Clone)]
pub(super) struct Broker {
    pub(super) is_running: bool,
    pub(super) has_lease: bool,
    /// It was told once that it is not fenced: only then does it listen.
    pub(super) is_serving: bool,
    pub(super) incarnation: u64,
    /// Of its registration.
    pub(super) epoch: i64,
    /// In the clean-shutdown marker; -1: there is none.
    pub(super) marker: i64,
    /// Which of the images it has applied.
    pub(super) applied: usize,
    pub(super) replica: Replica<u8>,
    /// A proposal is on its way, or its answer.
    pub(super) is_proposing: bool,
    /// Records that clients wait for: offset, leader epoch, value.
    pub(super) waiting: Vec<(i64, i32, u8)>,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Message {
    /// A fetch whose follower waits for it no more.
    LateFetch { to: i32, request: FetchRequest },
    /// `is_awaited`: the leader still waits for the answer.
    Propose { proposal: Proposal, is_awaited: bool },
    /// `Accepted` and the like are kept by their words: the machine's type is not hashable.
    Proposed { to: i32, leader_epoch: i32, partition_epoch: i32, answer: Answer },
}

/// [`IsrAnswer`], to be hashed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Accepted(i32, i32, Vec<i32>),
    Outdated(Option<(i32, i32, Vec<i32>)>),
    Ineligible,
    Unknown,
}

impl From<IsrAnswer> for Answer {
    fn from(answer: IsrAnswer) -> Self {
        let state = |state: IsrState| (state.leader_epoch, state.partition_epoch, state.isr);
        match answer {
            IsrAnswer::Accepted(found) => {
                let (leader_epoch, partition_epoch, isr) = state(found);
                Self::Accepted(leader_epoch, partition_epoch, isr)
            }
            IsrAnswer::Outdated(found) => Self::Outdated(found.map(state)),
            IsrAnswer::Ineligible => Self::Ineligible,
            IsrAnswer::Unknown => Self::Unknown,
        }
    }
}

impl From<Answer> for IsrAnswer {
    fn from(answer: Answer) -> Self {
        let state = |(leader_epoch, partition_epoch, isr)| IsrState { leader_epoch, partition_epoch, isr };
        match answer {
            Answer::Accepted(leader_epoch, partition_epoch, isr) => {
                Self::Accepted(state((leader_epoch, partition_epoch, isr)))
            }
            Answer::Outdated(found) => Self::Outdated(found.map(state)),
            Answer::Ineligible => Self::Ineligible,
            Answer::Unknown => Self::Unknown,
        }
    }
}

/// The cluster, and what is known of it by who sees all.
#[derive(Debug, Clone)]
pub struct World {
    pub(super) controller: Arc<Controller>,
    pub(super) options: MachineOptions,
    pub(super) fault: Fault,
    pub(super) now_ms: u64,
    pub(super) budget: Budget,
    /// Committed images, the oldest that some broker has applied first.
    pub(super) images: Vec<Arc<MetadataImage>>,
    pub(super) brokers: [Broker; 3],
    pub(super) network: Vec<Message>,
    /// Records that were acknowledged: offset to value.
    pub(super) acknowledged: BTreeMap<i64, u8>,
    /// What has been below a high watermark, from offset 0 on.
    pub(super) committed: Vec<u8>,
    /// Whether it is a fault that a fenced broker acts as a leader (I44).
    pub(super) leases_count: bool,
    /// By leader epoch: the highest end that the leader told who asked for it.
    pub(super) told: BTreeMap<i32, i64>,
    pub(super) old_images: bool,
    /// `flush.messages=1`: what counts is on disk.
    pub(super) synced_only: bool,
    /// Processes that ended without a marker, and how many of them lost data.
    pub(super) unclean: (u8, u8),
    /// More disks lost data than the promise covers.
    pub(super) promised_loss: bool,
    /// The value of the next record.
    pub(super) next_value: u8,
}

pub(super) fn at(broker: i32) -> usize {
    usize::try_from(broker - 1).unwrap_or(0)
}

impl World {
    /// Three brokers, all in sync, nothing written.
    pub fn new(scenario: &Scenario, fault: Fault) -> Self {
        let controller = Controller::new(scenario.min_insync_replicas, fault == Fault::UncleanElection);
        let image = controller.first_image(&BROKERS, &[BROKERS.to_vec()]);
        let min_insync_replicas = if fault == Fault::NoMinimum { 1 } else { scenario.min_insync_replicas };
        let options = MachineOptions {
            lag_ms_max: LAG_MS_MAX,
            min_insync_replicas,
            synced_only: scenario.synced_only && fault != Fault::NoSync,
        };
        let broker = |id: i32| Broker {
            is_running: true,
            has_lease: true,
            is_serving: true,
            incarnation: 0,
            epoch: metadata::broker_epoch(&image, id),
            marker: -1,
            applied: 0,
            replica: Replica::open(id, options, ReplicaLog::default(), 0),
            is_proposing: false,
            waiting: Vec::new(),
        };
        let brokers = BROKERS.map(broker);
        let mut world = Self {
            controller: Arc::new(controller),
            options,
            fault,
            now_ms: 1,
            budget: Budget::of(scenario),
            images: vec![image],
            brokers,
            network: Vec::new(),
            acknowledged: BTreeMap::new(),
            committed: Vec::new(),
            leases_count: true,
            told: BTreeMap::new(),
            old_images: scenario.old_images,
            synced_only: scenario.synced_only,
            unclean: (0, 0),
            promised_loss: false,
            next_value: 0,
        };
        for id in BROKERS {
            world.take_over_image(id, 0);
        }
        world
    }

    /// Anything may happen, as often as a script wants it.
    pub(super) fn allow_all(&mut self) {
        self.budget = Budget::plenty();
    }

    /// From now on no more may happen than this.
    pub(super) fn allow(&mut self, scenario: &Scenario) {
        self.budget = Budget::of(scenario);
    }

    pub(super) fn latest(&self) -> &Arc<MetadataImage> {
        self.images.last().unwrap_or_else(|| unreachable!("there is always an image"))
    }

    pub(super) fn broker(&mut self, id: i32) -> &mut Broker {
        &mut self.brokers[at(id)]
    }

    pub(super) fn now(&self, id: i32) -> Now {
        let lease_until_ms = if self.brokers[at(id)].has_lease { u64::MAX } else { 0 };
        Now { ms: self.now_ms, lease_until_ms }
    }

    /// The broker applies that image: what `ReplicaManager::apply_image` does.
    pub(super) fn take_over_image(&mut self, id: i32, index: usize) {
        let (now, fault) = (self.now(id), self.fault);
        let image = Arc::clone(&self.images[index]);
        let mut out = Effects::new();
        let broker = self.broker(id);
        broker.applied = index;
        if let Some(role) = metadata::role(&image, 0) {
            broker.replica.assign(now, &role, fault, &mut out);
        }
        self.execute(id, out);
        self.tick(id);
    }

    /// As the manager's tick: who stands outside, then the time.
    pub(super) fn tick(&mut self, id: i32) {
        let (now, fault) = (self.now(id), self.fault);
        let image = Arc::clone(&self.images[self.brokers[at(id)].applied]);
        let broker = self.broker(id);
        if !broker.replica.machine.is_leader() {
            return;
        }
        let mut out = Effects::new();
        let followers = broker.replica.machine.followers();
        let outside: Vec<i32> =
            followers.filter(|follower| !follower.in_isr).map(|follower| follower.broker).collect();
        for follower in outside {
            let input = ottla_replica::Input::BrokerChanged {
                broker: follower,
                broker_epoch: metadata::broker_epoch(&image, follower),
                eligible: metadata::is_eligible(&image, follower, -1),
            };
            broker.replica.step(now, input, fault, &mut out);
        }
        broker.replica.step(now, ottla_replica::Input::Tick, fault, &mut out);
        self.execute(id, out);
    }

    /// Proposals go out; the rest has been done.
    pub(super) fn execute(&mut self, id: i32, effects: Effects) {
        for effect in effects {
            let Effect::ProposeIsr { mut isr, leader_epoch, partition_epoch } = effect else { continue };
            if self.fault == Fault::NoBrokerEpoch {
                for member in &mut isr {
                    member.broker_epoch = -1;
                }
            }
            if self.fault == Fault::NoController {
                self.answer_itself(id, leader_epoch, partition_epoch, &isr);
            }
            let broker = self.broker(id);
            broker.is_proposing = true;
            let broker_epoch = broker.epoch;
            let proposal =
                Proposal { broker: id, broker_epoch, partition: 0, isr, leader_epoch, partition_epoch };
            self.forget_proposals_of(id);
            self.network.push(Message::Propose { proposal, is_awaited: true });
        }
    }

    fn answer_itself(
        &mut self,
        id: i32,
        leader_epoch: i32,
        partition_epoch: i32,
        isr: &[ottla_replica::IsrMember],
    ) {
        let (now, fault) = (self.now(id), self.fault);
        let isr = isr.iter().map(|member| member.broker).collect();
        let state = IsrState { leader_epoch, partition_epoch, isr };
        let answer = IsrAnswer::Accepted(state);
        let mut out = Effects::new();
        let input = ottla_replica::Input::IsrAnswered { leader_epoch, partition_epoch, answer };
        self.broker(id).replica.step(now, input, fault, &mut out);
    }

    /// A new proposal takes the place of one that nobody waits for any more; the old one may arrive all the same.
    pub(super) fn forget_proposals_of(&mut self, id: i32) {
        for message in &mut self.network {
            match message {
                Message::Propose { proposal, is_awaited } if proposal.broker == id => *is_awaited = false,
                _ => {}
            }
        }
        self.network.retain(|message| !matches!(message, Message::Proposed { to, .. } if *to == id));
    }

    /// More disks have lost data than the promise covers: nothing that follows can be judged.
    pub(super) fn is_promised_loss(&self) -> bool {
        self.promised_loss
    }

    /// A hash of all that matters for what may follow.
    pub(super) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.now_ms, self.unclean, &self.budget, &self.acknowledged, &self.committed, &self.told)
            .hash(&mut hasher);
        let images = &self.images;
        for image in images {
            metadata::partition(image, 0).hash(&mut hasher);
            for id in BROKERS {
                (metadata::broker_epoch(image, id), metadata::is_fenced(image, id)).hash(&mut hasher);
                metadata::is_eligible(image, id, -1).hash(&mut hasher);
            }
        }
        for broker in &self.brokers {
            (broker.is_running, broker.has_lease, broker.epoch, broker.marker, broker.applied)
                .hash(&mut hasher);
            (broker.is_serving, broker.is_proposing, &broker.waiting).hash(&mut hasher);
            broker.replica.hash(&mut hasher);
        }
        // Messages arrive in any order: their set counts.
        let mut sum = 0u64;
        for message in &self.network {
            let mut one = DefaultHasher::new();
            message.hash(&mut one);
            sum = sum.wrapping_add(one.finish());
        }
        sum.hash(&mut hasher);
        hasher.finish()
    }
}
