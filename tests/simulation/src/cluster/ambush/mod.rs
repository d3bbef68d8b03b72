//! Faults that wait for their moment. Random faults hardly ever hit the few milliseconds in which a rule counts; an ambush
//! watches the cluster and strikes when the message is on its way, or the role is taken, that its script names. Clients write
//! and read all the while, delays and clocks are the seed's.

mod scripts;

use super::message::Message;
use super::network::{CONTROLLERS, Node};
use super::{Cluster, Event, at};
use crate::metadata;

/// How often the cluster is looked at.
const LOOK_US: u64 = 5_000;
/// A condition that does not come for so long foils the round.
const PATIENCE_US: u64 = 20_000_000;

/// What is laid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambush {
    /// See the scripts.
    Deposed,
    /// See the scripts.
    Overslept,
    /// See the scripts.
    Relapse,
    /// See the scripts.
    Echo,
    /// See the scripts.
    Wiped,
    /// See the scripts.
    LateFetch,
    /// See the scripts.
    LateMarker,
}

impl Ambush {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Deposed,
        Self::Overslept,
        Self::Relapse,
        Self::Echo,
        Self::Wiped,
        Self::LateFetch,
        Self::LateMarker,
    ];
}

/// A replica of the partition, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    First,
    Second,
    Third,
}

/// Which message is to be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caught {
    /// The leader's proposal of an ISR with the second replica. Kept: it does not go on, nor do its repetitions.
    Proposal { is_kept: bool },
    /// A fetch of the third replica from the second, for more than the first replica has.
    Fetch,
    /// A marker for the partition.
    Marker,
}

/// One move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// Cut off from all brokers and controllers.
    Isolate(Who),
    /// Cut off from all controllers.
    CutFromControllers(Who),
    /// The two do not hear each other.
    Block(Who, Who),
    /// All links of it pass again.
    Join(Who),
    /// All is as before.
    JoinAll,
    /// It hears nothing of the metadata.
    Freeze(Who),
    /// Its process stands still for two session time-outs and a second.
    Sleep(Who),
    /// Its process ends, and its disk loses all that is not synced.
    LosePower(Who),
    /// A process starts.
    Start(Who),
    /// Leadership goes home.
    Rebalance,
    /// From now on such a message is caught.
    Catch(Caught),
    /// What was caught goes on.
    Release,
    /// So many milliseconds.
    Pause(u64),
    /// Until the cluster is so.
    Wait(Until),
}

/// What is waited for; most of it by the latest metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// All live and are in sync.
    Repaired,
    /// Fenced and not in sync.
    Out(Who),
    /// In sync.
    InSync(Who),
    /// Its present process is registered and not fenced.
    Unfenced(Who),
    /// It leads. If that does not come soon, that is well too: so it is when the rule holds.
    Leads(Who),
    /// It leads, and knows it.
    SettledOn(Who),
    /// Its process goes on.
    Awake(Who),
    /// The proposal is caught.
    ProposalCaught,
    /// The fetch is caught.
    FetchCaught,
    /// The marker is caught.
    MarkerCaught,
    /// The producer of the marker has the next transaction open where the marker went.
    OpenAgain,
    /// The log of this one is longer than that of the first.
    HasMore(Who),
    /// It follows the first replica and has nothing that is not there.
    FollowsWith(Who),
}

/// Where an ambush is.
#[derive(Debug)]
pub(super) struct AmbushState {
    ambush: Ambush,
    partition: i32,
    is_prepared: bool,
    next: usize,
    since_us: u64,
    frozen: Vec<i32>,
    catching: Option<Caught>,
    caught: Option<(Node, Node, Message)>,
    is_caught: bool,
    /// Rounds that came to their end.
    pub(super) sprung: u64,
}

impl AmbushState {
    pub(super) fn new(ambush: Ambush) -> Self {
        Self {
            ambush,
            partition: 0,
            is_prepared: false,
            next: 0,
            since_us: 0,
            frozen: Vec::new(),
            catching: None,
            caught: None,
            is_caught: false,
            sprung: 0,
        }
    }

    /// Whether a broker is to hear nothing of the metadata.
    pub(super) fn is_frozen(&self, broker: i32) -> bool {
        self.frozen.contains(&broker)
    }

    fn moves(&self) -> &'static [Move] {
        if self.is_prepared { self.ambush.moves() } else { Ambush::preparation() }
    }
}

impl Cluster {
    fn who(&self, who: Who) -> i32 {
        let partition = self.ambush.as_ref().map_or(0, |ambush| ambush.partition);
        let place = match who {
            Who::First => 0,
            Who::Second => 1,
            Who::Third => 2,
        };
        let replicas = metadata::partition(self.quorum.latest(), partition).map(|found| &found.replicas);
        replicas.and_then(|replicas| replicas.get(place)).map_or(1, |id| id.0)
    }

    fn others(&self, id: i32, with_brokers: bool) -> Vec<Node> {
        let controllers = (0..self.plan.controllers).map(|at| CONTROLLERS + i32::try_from(at).unwrap_or(0));
        let brokers = (1..=self.plan.brokers).filter(|other| with_brokers && *other != id);
        brokers.chain(controllers).collect()
    }

    /// A message on its way: none, if an ambush keeps it.
    pub(super) fn catch(&mut self, from: Node, to: Node, message: Message) -> Option<Message> {
        let catching = self.ambush.as_ref().and_then(|ambush| ambush.catching);
        let is_of_interest =
            matches!(message, Message::Alter { .. } | Message::Fetch { .. } | Message::WriteMarker { .. });
        let Some(catching) = catching.filter(|_| is_of_interest) else {
            return Some(message);
        };
        let (first, second, third) = (self.who(Who::First), self.who(Who::Second), self.who(Who::Third));
        let end_of_first = self.end_of(first);
        let ambush = self.ambush.as_mut()?;
        let (is_it, is_kept) = match (&message, catching) {
            (Message::Alter { proposal, .. }, Caught::Proposal { is_kept }) => {
                let has_second = proposal.isr.iter().any(|member| member.broker == second);
                (from == first && proposal.partition == ambush.partition && has_second, is_kept)
            }
            (Message::Fetch { partition, request, .. }, Caught::Fetch) => {
                let is_more = request.offset > end_of_first;
                (*partition == ambush.partition && from == third && to == second && is_more, false)
            }
            (Message::WriteMarker { request, .. }, Caught::Marker) => {
                (request.partition == ambush.partition, false)
            }
            _ => (false, false),
        };
        if !is_it {
            return Some(message);
        }
        if !ambush.is_caught {
            ambush.is_caught = true;
            ambush.caught = Some((from, to, message.clone()));
            if !is_kept {
                ambush.catching = None;
            }
        }
        (!is_kept).then_some(message)
    }

    fn end_of(&self, id: i32) -> i64 {
        let partition = self.ambush.as_ref().map_or(0, |ambush| ambush.partition);
        let replica = self.brokers[at(id)].partitions.get(&partition);
        replica.map_or(i64::MAX, |partition| partition.replica.log.end())
    }

    /// Looks around and goes on as far as it can.
    pub(super) fn go_on_with_ambush(&mut self) {
        if self.is_mended {
            return;
        }
        while let Some(next) = self.next_move() {
            if self.trace && !matches!(next, Move::Wait(_) | Move::Pause(_)) {
                eprintln!("{:>10} us  ambush: {next:?}", self.now_us);
            }
            let is_done = self.make(next);
            let now_us = self.now_us;
            let Some(ambush) = &mut self.ambush else { return };
            if is_done {
                ambush.next += 1;
                ambush.since_us = now_us;
            } else {
                if now_us >= ambush.since_us + PATIENCE_US {
                    self.foil();
                }
                break;
            }
        }
        self.schedule(LOOK_US, Event::Ambush);
    }

    fn next_move(&mut self) -> Option<Move> {
        let partitions = self.plan.partitions;
        let ambush = self.ambush.as_mut()?;
        if ambush.next == ambush.moves().len() {
            if ambush.is_prepared {
                ambush.sprung += 1;
                self.troubles += 1;
                ambush.partition = (ambush.partition + 1) % partitions;
            }
            (ambush.is_prepared, ambush.next) = (!ambush.is_prepared, 0);
        }
        ambush.moves().get(ambush.next).copied()
    }

    /// The cluster does not do what the script needs: from the start again.
    fn foil(&mut self) {
        if self.trace {
            eprintln!("{:>10} us  ambush is foiled", self.now_us);
        }
        self.join_all();
        let now_us = self.now_us;
        if let Some(ambush) = &mut self.ambush {
            (ambush.is_prepared, ambush.next, ambush.since_us) = (false, 0, now_us);
        }
    }

    fn cut_off(&mut self, id: i32, with_brokers: bool) {
        for other in self.others(id, with_brokers) {
            self.network.block(id, other);
            self.network.block(other, id);
        }
    }

    /// As if nothing had been laid.
    pub(super) fn join_all(&mut self) {
        for id in 1..=self.plan.brokers {
            self.join(id);
            if !self.brokers[at(id)].is_up {
                self.start_broker(id);
            }
        }
        if let Some(ambush) = &mut self.ambush {
            ambush.frozen.clear();
            (ambush.catching, ambush.caught, ambush.is_caught) = (None, None, false);
        }
    }

    fn join(&mut self, id: i32) {
        for other in self.others(id, true) {
            self.network.unblock(id, other);
            self.network.unblock(other, id);
        }
    }

    /// Makes a move; false: it is not done yet.
    fn make(&mut self, next: Move) -> bool {
        match next {
            Move::Isolate(who) => self.cut_off(self.who(who), true),
            Move::CutFromControllers(who) => self.cut_off(self.who(who), false),
            Move::Block(one, other) => {
                let (one, other) = (self.who(one), self.who(other));
                self.network.block(one, other);
                self.network.block(other, one);
            }
            Move::Join(who) => self.join(self.who(who)),
            Move::JoinAll => self.join_all(),
            Move::Freeze(who) => {
                let id = self.who(who);
                if let Some(ambush) = &mut self.ambush {
                    ambush.frozen.push(id);
                }
            }
            Move::Sleep(who) => {
                let id = self.who(who);
                let sleep_us = 2 * self.plan.session_timeout_ms * 1_000 + 1_000_000;
                self.broker(id).paused_until_us = self.now_us + sleep_us;
            }
            Move::LosePower(who) => {
                let id = self.who(who);
                self.end_process(id, |synced_end, _| Some(synced_end));
            }
            Move::Start(who) => {
                let id = self.who(who);
                if !self.brokers[at(id)].is_up {
                    self.start_broker(id);
                }
            }
            Move::Rebalance => {
                let mut out = Vec::new();
                self.quorum.rebalance(self.now_us, &mut out);
                self.execute_quorum(out);
            }
            Move::Catch(caught) => {
                if let Some(ambush) = &mut self.ambush {
                    (ambush.catching, ambush.caught, ambush.is_caught) = (Some(caught), None, false);
                }
            }
            Move::Release => self.release_caught(),
            Move::Pause(milliseconds) => {
                let since_us = self.ambush.as_ref().map_or(0, |ambush| ambush.since_us);
                return self.now_us >= since_us + milliseconds * 1_000;
            }
            Move::Wait(until) => return self.is_so(until),
        }
        true
    }

    fn release_caught(&mut self) {
        let Some(ambush) = &mut self.ambush else { return };
        ambush.catching = None;
        let Some((from, to, message)) = ambush.caught.take() else { return };
        let is_proposal = matches!(message, Message::Alter { .. });
        // A proposal finds whoever decides now.
        let to = if is_proposal { self.quorum.leader().unwrap_or(to) } else { to };
        let incarnation = self.incarnation(to);
        self.schedule(1_000, Event::Deliver { from, to, incarnation, message: Box::new(message) });
    }

    fn is_so(&self, until: Until) -> bool {
        let Some(ambush) = &self.ambush else { return true };
        let image = self.quorum.latest();
        let Some(partition) = metadata::partition(image, ambush.partition) else { return false };
        let in_sync = |id: i32| partition.isr.iter().any(|member| member.0 == id);
        let leads = |id: i32| partition.leader.is_some_and(|leader| leader.0 == id);
        let waited_us = self.now_us - ambush.since_us;
        match until {
            Until::Repaired => self.is_repaired(),
            Until::Out(who) => {
                metadata::is_fenced(image, self.who(who))
                    && (!in_sync(self.who(who)) || partition.isr.len() == 1)
            }
            Until::InSync(who) => in_sync(self.who(who)),
            Until::Unfenced(who) => {
                let id = self.who(who);
                let epoch = self.brokers[at(id)].epoch;
                !metadata::is_fenced(image, id) && metadata::broker_epoch(image, id) == epoch
            }
            Until::Leads(who) => {
                leads(self.who(who)) || waited_us >= 2 * self.plan.session_timeout_ms * 1_000
            }
            Until::SettledOn(who) => {
                let id = self.who(who);
                let replica = self.brokers[at(id)].partitions.get(&ambush.partition);
                leads(id)
                    && replica.is_some_and(|found| {
                        found.replica.machine.is_leader()
                            && found.replica.machine.leader_epoch() == partition.leader_epoch.0
                    })
            }
            Until::Awake(who) => self.brokers[at(self.who(who))].paused_until_us <= self.now_us,
            Until::ProposalCaught | Until::FetchCaught | Until::MarkerCaught => ambush.is_caught,
            Until::OpenAgain => self.is_open_again(ambush),
            Until::HasMore(who) => self.end_of(self.who(who)) > self.end_of(self.who(Who::First)),
            Until::FollowsWith(who) => self.is_prefix(self.who(who), self.who(Who::First)),
        }
    }

    fn is_open_again(&self, ambush: &AmbushState) -> bool {
        let Some((_, to, Message::WriteMarker { request, .. })) = &ambush.caught else { return false };
        let Some(partition) = self.brokers[at(*to)].partitions.get(&ambush.partition) else { return false };
        let producer = partition.producers.state.producer(request.batch.producer_id);
        producer.is_some_and(|known| {
            known.epoch == request.batch.producer_epoch && known.transaction_start.is_some()
        })
    }

    /// Whether one follows the other, and the other has all of its log.
    fn is_prefix(&self, one: i32, other: i32) -> bool {
        let index = self.ambush.as_ref().map_or(0, |ambush| ambush.partition);
        let found = |id: i32| self.brokers[at(id)].partitions.get(&index).map(|found| &found.replica);
        let (Some(one), Some(leader)) = (found(one), found(other)) else { return false };
        let log = &one.log;
        one.machine.is_follower()
            && one.machine.leader() == other
            && log.end() <= leader.log.end()
            && log.slice(log.start(), log.end()) == leader.log.slice(log.start(), log.end())
    }
}
