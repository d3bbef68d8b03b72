//! What only the leader does: decide commands, one after the other, and watch over the brokers.
//!
//! One task owns all of it. It decides against the applied image, puts what it decided into one entry, and decides further
//! only when that entry is applied: a decision can thus never rest on something that is not committed. Commands that wait
//! meanwhile share the next entry.

mod announce;
mod batch;
mod chore;
mod probe;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ReadPolicy};
use ottla_metadata::config;
use ottla_metadata::decide::{Refusal, delegation_tokens_enabled};
use ottla_metadata::election::may_lead;
use ottla_metadata::image::{BrokerEpoch, BrokerId, BrokerRegistration, MetadataImage};
use ottla_metadata::leases::{Heartbeat, LeaseOptions, Leases};
use ottla_proto::controller as proto;
use ottla_proto::metadata::MetadataRecord;
use ottla_wire::error_code::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use crate::identity::Identity;
use crate::leadership::{Leader, Leadership};
use crate::state_machine::StateMachine;
use crate::types::Raft;
pub(crate) use announce::Decided;
use batch::{InFlight, Outcome};
pub(crate) use chore::Chore;

/// Commands that may wait; who comes then waits at the door.
pub(crate) const COMMANDS_MAX: usize = 1_024;
/// Heartbeats that may wait.
pub(crate) const HEARTBEATS_MAX: usize = 1_024;
/// Answers that are remembered for commands that are sent again.
const REMEMBERED_MAX: usize = 4_096;
/// A lease ends for the broker this much before it ends here, in milliseconds: clocks do not run equally fast.
const LEASE_MARGIN_MS: u64 = 50;
/// How often leases are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often a broker whose session broke is asked whether its process lives; about as long as the grace.
const DIALS_AFTER_BREAK: u32 = 15;
/// How often a broker that has not come to a new leader yet is asked.
const DIALS_AFTER_ELECTION: u32 = 5;

/// Tokens that are over are not looked for more often.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How long a new leader waits for its barrier before it looks again whether it leads.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(1);

/// How the leader acts.
#[derive(Debug, Clone)]
pub(crate) struct LeaderOptions {
    pub(crate) identity: Arc<Identity>,
    /// For a cluster that is new.
    pub(crate) first_records: Vec<MetadataRecord>,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) leases: LeaseOptions,
    pub(crate) rebalance: Option<Duration>,
    pub(crate) rebalance_soon: Duration,
    /// A leader that no quorum has answered for so long gives no leases: another may lead soon.
    /// Not above the longest election timeout: followers elect nobody within that.
    pub(crate) quorum_silence_max: Duration,
    /// Counts of what is decided.
    pub(crate) decided: Arc<Decided>,
}

/// A change that somebody asks for.
pub(crate) enum Ask {
    Command(proto::Command, oneshot::Sender<proto::CommandReply>),
    Register(Box<proto::RegisterBrokerRequest>, oneshot::Sender<proto::RegisterBrokerReply>),
}

/// A sign of life, or of its end.
pub(crate) enum Life {
    Heartbeat(proto::BrokerHeartbeat, oneshot::Sender<proto::BrokerHeartbeatReply>),
    /// The session of this number.
    SessionBroken(BrokerId, BrokerEpoch, u64),
    /// Nobody listens at the broker's address.
    Refused(BrokerId, BrokerEpoch),
}

/// The doors of the leader's task.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) lives: mpsc::Sender<Life>,
}

/// State of one leadership.
struct Reign {
    leases: Leases,
    /// Since then no quorum answers: nobody can renew a lease, so nobody's lease ends.
    cut_off_since_ms: Option<u64>,
    probed: bool,
    /// Brokers whose fencing is decided and may not be applied yet: they get no lease any more.
    fencing: BTreeMap<BrokerId, BrokerEpoch>,
    /// Brokers that were fenced under this leadership, and how much of the metadata log they must have applied to be unfenced: with a
    /// lease, and without knowing that others lead by now what it led, a broker would take records that are lost.
    fenced: BTreeMap<BrokerId, i64>,
    rebalance_due: Option<Instant>,
    /// When tokens that are over are looked for again; `None`: there are no tokens.
    sweep_due: Option<Instant>,
}

pub(crate) struct LeaderTask {
    raft: Raft,
    machine: StateMachine,
    leadership: Leadership,
    options: LeaderOptions,
    own: i32,
    started: Instant,
    reign: Option<Reign>,
    asks: VecDeque<Ask>,
    chores: VecDeque<Chore>,
    in_flight: Option<InFlight>,
    remembered: HashMap<bytes::Bytes, proto::CommandReply>,
    remembered_order: VecDeque<bytes::Bytes>,
    own_lives: mpsc::Sender<Life>,
}

pub(crate) fn not_controller(leader: Option<Leader>) -> proto::Failure {
    proto::Failure {
        error_code: ErrorCode::NotController.code().into(),
        message: "this controller does not lead".to_owned(),
        leader_id: leader.as_ref().map_or(-1, |leader| leader.node_id),
        leader_endpoint: leader.map_or_else(String::new, |leader| leader.endpoint),
    }
}

impl LeaderTask {
    /// Starts the task; it ends when all doors are closed.
    pub(crate) fn start(
        raft: Raft,
        machine: StateMachine,
        leadership: Leadership,
        options: LeaderOptions,
        stop: tokio_util::sync::CancellationToken,
    ) -> (Doors, tokio::task::JoinHandle<()>) {
        let (asks_in, asks) = mpsc::channel(COMMANDS_MAX);
        let (lives_in, lives) = mpsc::channel(HEARTBEATS_MAX);
        let task = Self {
            raft,
            machine,
            leadership,
            own: options.identity.raft_id().node_id,
            options,
            started: Instant::now(),
            reign: None,
            asks: VecDeque::new(),
            chores: VecDeque::new(),
            in_flight: None,
            remembered: HashMap::new(),
            remembered_order: VecDeque::new(),
            own_lives: lives_in.clone(),
        };
        let handle = tokio::spawn(task.run(asks, lives, stop));
        (Doors { asks: asks_in, lives: lives_in }, handle)
    }

    async fn run(
        mut self,
        mut asks: mpsc::Receiver<Ask>,
        mut lives: mpsc::Receiver<Life>,
        stop: tokio_util::sync::CancellationToken,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leaders = self.leadership.watch();
        loop {
            self.follow_leadership().await;
            self.propose();
            let has_room = self.asks.len() < COMMANDS_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                outcome = batch::finished(&mut self.in_flight) => self.settle(outcome),
                Some(life) = lives.recv() => self.live(life),
                Some(ask) = asks.recv(), if has_room => self.admit(ask),
                changed = leaders.changed() => if changed.is_err() { return },
                _ = tick.tick() => self.tick(),
            }
        }
    }

    /// Milliseconds of a clock that never goes back.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn follow_leadership(&mut self) {
        let leads = self.leadership.leader().is_some_and(|leader| leader.node_id == self.own)
            && self.raft.is_leader();
        if leads == self.reign.is_some() {
            return;
        }
        if !leads {
            tracing::info!("this controller does not lead any more");
            self.reign = None;
            self.chores.clear();
            for ask in std::mem::take(&mut self.asks) {
                self.refuse(ask);
            }
            return;
        }
        // Everything that earlier leaders committed is applied before anything is decided.
        let barrier = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        if !matches!(tokio::time::timeout(BARRIER_TIMEOUT, barrier).await, Ok(Ok(_))) {
            return;
        }
        tracing::info!("this controller leads");
        let mut leases = Leases::new(self.options.leases);
        leases.begin(self.now_ms(), &self.machine.image());
        let rebalance_due = self.options.rebalance.map(|_| Instant::now() + self.options.rebalance_soon);
        self.reign = Some(Reign {
            leases,
            cut_off_since_ms: None,
            probed: false,
            fencing: BTreeMap::new(),
            fenced: BTreeMap::new(),
            rebalance_due,
            sweep_due: delegation_tokens_enabled(&self.options.properties).then(Instant::now),
        });
        // What was answered under an earlier leadership may not be what was committed.
        self.remembered.clear();
        self.remembered_order.clear();
        self.chores.extend([Chore::Begin, Chore::ElectLeaderless]);
        // Who died with the last leader is to be known soon.
        self.tick();
    }

    fn refuse(&self, ask: Ask) {
        let failure = Some(not_controller(self.leadership.leader()));
        // Whoever asked may be gone; nothing is lost then.
        match ask {
            Ask::Command(_, reply) => drop(reply.send(proto::CommandReply { failure, ..Default::default() })),
            Ask::Register(_, reply) => {
                drop(reply.send(proto::RegisterBrokerReply { failure, ..Default::default() }));
            }
        }
    }

    fn admit(&mut self, ask: Ask) {
        if self.reign.is_none() {
            return self.refuse(ask);
        }
        if let Ask::Command(command, reply) = ask {
            if let Some(answer) = self.remembered.get(&command.command_id) {
                drop(reply.send(answer.clone()));
                return;
            }
            self.asks.push_back(Ask::Command(command, reply));
        } else {
            self.asks.push_back(ask);
        }
    }

    fn propose(&mut self) {
        let Some(reign) = &self.reign else { return };
        if self.in_flight.is_some() || (self.asks.is_empty() && self.chores.is_empty()) {
            return;
        }
        let now_ms = self.now_ms();
        let is_held = |id| reign.leases.is_held(now_ms, id);
        let batch = batch::Batch::decide(
            self.machine.image(),
            &self.options,
            &mut self.chores,
            &mut self.asks,
            &self.remembered,
            is_held,
        );
        self.in_flight = batch.propose(&self.raft);
    }

    /// An entry is applied, or is known not to be led by us any more.
    fn settle(&mut self, outcome: Outcome) {
        self.in_flight = None;
        let (index, waiting) = match outcome {
            Outcome::Applied { index, waiting } => (index, waiting),
            Outcome::Failed { waiting } => {
                for ask in waiting {
                    ask.fail(not_controller(
                        self.leadership.leader().filter(|leader| leader.node_id != self.own),
                    ));
                }
                return;
            }
        };
        for ask in waiting {
            if ask.changed_isr()
                && self.options.rebalance.is_some()
                && let Some(reign) = &mut self.reign
            {
                // A replica may be back: leadership goes home soon, once for all partitions.
                let due = Instant::now() + self.options.rebalance_soon;
                reign.rebalance_due = Some(reign.rebalance_due.map_or(due, |old| old.min(due)));
            }
            if let Some((id, answer)) = ask.release(index) {
                self.remember(id, answer);
            }
        }
    }

    fn remember(&mut self, id: bytes::Bytes, answer: proto::CommandReply) {
        if id.is_empty() || self.remembered.insert(id.clone(), answer).is_some() {
            return;
        }
        self.remembered_order.push_back(id);
        if self.remembered_order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.remembered_order.pop_front()
        {
            self.remembered.remove(&oldest);
        }
    }

    fn live(&mut self, life: Life) {
        let now_ms = self.now_ms();
        match life {
            Life::Heartbeat(beat, reply) => {
                let answer = self.heartbeat(now_ms, &beat);
                drop(reply.send(answer));
            }
            Life::SessionBroken(id, epoch, session) => {
                if let Some(reign) = &mut self.reign {
                    reign.leases.session_broken(now_ms, id, epoch, session);
                    let address = self.machine.image().broker(id).and_then(dialled_at);
                    let asked = address.map(|address| (id, epoch, address)).into_iter().collect();
                    probe::start(asked, DIALS_AFTER_BREAK, &self.own_lives);
                }
            }
            Life::Refused(id, epoch) => {
                if let Some(reign) = &mut self.reign {
                    tracing::info!(
                        broker = id.0,
                        "nobody listens at the broker's address: its process has ended"
                    );
                    reign.leases.process_ended(now_ms, id, epoch);
                }
                self.tick();
            }
        }
    }

    /// Whether a quorum has lately taken this node for its leader.
    fn has_quorum(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_alone = metrics.membership_config.membership().voter_ids().count() == 1;
        is_alone
            || metrics
                .last_quorum_acked
                .as_ref()
                .is_some_and(|at| at.elapsed() < self.options.quorum_silence_max)
    }

    fn heartbeat(&mut self, now_ms: u64, beat: &proto::BrokerHeartbeat) -> proto::BrokerHeartbeatReply {
        let failed = |failure| proto::BrokerHeartbeatReply {
            failure: Some(failure),
            is_fenced: true,
            ..Default::default()
        };
        if self.reign.is_none() {
            return failed(not_controller(self.leadership.leader()));
        }
        let image = self.machine.image();
        let id = BrokerId(beat.broker_id);
        let Some(broker) = image.broker(id) else {
            let text = format!("broker {id} is not registered");
            return failed(Refusal::new(ErrorCode::BrokerIdNotRegistered, text).to_failure());
        };
        if broker.epoch.0 != beat.broker_epoch {
            let text = format!("broker {id} has epoch {}, not {}", broker.epoch, beat.broker_epoch);
            return failed(Refusal::new(ErrorCode::StaleBrokerEpoch, text).to_failure());
        }
        if !self.has_quorum() {
            return failed(not_controller(None));
        }
        let Some(reign) = &mut self.reign else { return failed(not_controller(None)) };
        if broker.fenced && reign.fencing.remove(&id).is_some() {
            reign.fenced.insert(id, image.index().0);
        } else if !broker.fenced {
            reign.fenced.remove(&id);
        }
        let needed = reign.fenced.get(&id).copied().unwrap_or(0);
        let is_fencing = reign.fencing.get(&id) == Some(&broker.epoch);
        let heartbeat = Heartbeat {
            epoch: broker.epoch,
            session: beat.session,
            metadata_index: beat.metadata_index,
            wants_fence: beat.want_fence,
            wants_shut_down: beat.want_shut_down,
        };
        reign.leases.heartbeat(now_ms, id, heartbeat);
        // Its own registration is what a broker must have seen to be of use, and that it was fenced.
        let is_caught_up = beat.metadata_index >= broker.epoch.0.max(needed);
        let directories = chore::of_directories(broker, beat);
        // What nobody else could lead does not hold a broker up: it would have to wait for ever.
        let leads_any = beat.want_shut_down
            && image.topics().flat_map(|topic| &topic.partitions).any(|partition| {
                let another = |other: &BrokerId| *other != id && may_lead(&image, *other);
                partition.leader == Some(id) && partition.isr.iter().any(another)
            });
        let chore = if beat.want_shut_down && !broker.in_controlled_shutdown {
            Some(Chore::Shutdown(id, broker.epoch))
        } else if broker.fenced && !beat.want_fence && !beat.want_shut_down && is_caught_up {
            Some(Chore::Unfence(id, broker.epoch))
        } else if !broker.fenced && beat.want_fence {
            reign.fencing.insert(id, broker.epoch);
            Some(Chore::Fence(id, broker.epoch))
        } else {
            None
        };
        for chore in directories.into_iter().chain(chore) {
            if self.chores.contains(&chore) {
                continue;
            }
            let unfences = matches!(chore, Chore::Unfence(..));
            self.chores.push_back(chore);
            if unfences {
                self.chores.push_back(Chore::ElectLeaderless);
            }
        }
        proto::BrokerHeartbeatReply {
            failure: None,
            is_fenced: broker.fenced || is_fencing,
            is_caught_up,
            should_shut_down: beat.want_shut_down && broker.in_controlled_shutdown && !leads_any,
            lease_ms: i64::try_from(self.options.leases.session_timeout_ms.saturating_sub(LEASE_MARGIN_MS))
                .unwrap_or(i64::MAX),
        }
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms();
        let has_quorum = self.has_quorum();
        let Some(reign) = &mut self.reign else { return };
        // A fencing decided without a quorum would wait in the log and strike when the quorum is back, whoever lives then.
        if !has_quorum {
            reign.cut_off_since_ms.get_or_insert(now_ms);
            return;
        }
        if let Some(since_ms) = reign.cut_off_since_ms.take() {
            reign.leases.resume(now_ms, since_ms, &self.machine.image());
            reign.probed = false;
        }
        for (id, epoch) in reign.leases.expired(now_ms) {
            if has_stopped(&self.machine.image(), id) {
                tracing::info!(broker = id.0, "the broker has stopped as it had announced: it is fenced");
            } else {
                tracing::warn!(broker = id.0, "the broker's lease has ended: it is fenced");
            }
            reign.fencing.insert(id, epoch);
            self.chores.push_back(Chore::Fence(id, epoch));
        }
        if !reign.probed {
            reign.probed = true;
            let silent = silent_brokers(&self.machine.image(), &reign.leases);
            probe::start(silent, DIALS_AFTER_ELECTION, &self.own_lives);
        }
        let is_due = reign.rebalance_due.is_some_and(|due| Instant::now() >= due);
        if is_due && reign.leases.is_anyone_silent(now_ms) {
            // Whoever is cut off does not hear that another leads, and would go on until its lease is over.
            reign.rebalance_due = Some(Instant::now() + self.options.rebalance_soon);
        } else if is_due {
            reign.rebalance_due = self.options.rebalance.map(|interval| Instant::now() + interval);
            self.chores.extend([Chore::ElectLeaderless, Chore::Rebalance]);
        }
        if reign.sweep_due.is_some_and(|due| Instant::now() >= due) {
            let interval =
                config::get_i64(&self.options.properties, "delegation.token.expiry.check.interval.ms");
            let interval =
                Duration::from_millis(u64::try_from(interval).unwrap_or(0)).max(SWEEP_INTERVAL_MIN);
            reign.sweep_due = Some(Instant::now() + interval);
            self.chores.push_back(Chore::SweepTokens(crate::now_ms()));
        }
    }
}

/// Brokers that hold a lease of the last leader and have not come to this one yet.
fn silent_brokers(image: &Arc<MetadataImage>, leases: &Leases) -> Vec<(BrokerId, BrokerEpoch, String)> {
    image
        .brokers()
        .filter(|broker| !broker.fenced && !leases.is_caught_up(broker.id, 0))
        .filter_map(|broker| Some((broker.id, broker.epoch, dialled_at(broker)?)))
        .collect()
}

/// Whether the end of a broker's lease is what it had asked for: nobody need be told as of a fault.
fn has_stopped(image: &MetadataImage, id: BrokerId) -> bool {
    image.broker(id).is_some_and(|broker| broker.in_controlled_shutdown)
}

/// Where a broker's process listens: its gRPC port, else its first listener.
fn dialled_at(broker: &BrokerRegistration) -> Option<String> {
    let kafka = || broker.endpoints.first().map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port));
    let grpc = Some(broker.grpc_endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    grpc.or_else(kafka)
}
