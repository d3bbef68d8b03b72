//! Random schedules of members that live by heartbeats, as those of consumer and of streams groups do: heartbeats and
//! their answers, lost and late ones, processes that die, failures of appends, failovers, time, and events of the group's
//! own kind. A member uses what it was given until it has said that it let go of it, until its time for that is over, or
//! until it has not heard from the coordinator for long.

use std::fmt::Debug;

use proptest::prelude::*;

use super::*;
use crate::consumer_group::JOIN_EPOCH;

/// Members of the group `g`.
pub(super) const MEMBERS: usize = 5;

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Act<E> {
    /// A heartbeat that tells nothing, or joins if the member must.
    Beat(usize),
    /// A heartbeat that tells what the member has, once it let go of the rest.
    Acknowledge(usize),
    Leave(usize),
    /// The process dies without a word and comes back under a new member id.
    Restart(usize),
    /// The answer to a heartbeat is lost.
    Lost(usize),
    Pass(u64),
    /// Appends on their way are committed; or the last of them is refused; or the first is late.
    Settle,
    Refuse,
    Late,
    FailOver,
    /// Of this kind of group only.
    Event(E),
}

/// Schedules with these events, which come this often beside the forty other acts.
pub(super) fn acts<E: Debug + Clone + 'static>(
    weight: u32,
    events: impl Strategy<Value = E> + 'static,
) -> impl Strategy<Value = Vec<Act<E>>> {
    let act = prop_oneof![
        10 => (0..MEMBERS).prop_map(Act::Beat),
        8 => (0..MEMBERS).prop_map(Act::Acknowledge),
        1 => (0..MEMBERS).prop_map(Act::Leave),
        1 => (0..MEMBERS).prop_map(Act::Restart),
        2 => (0..MEMBERS).prop_map(Act::Lost),
        2 => (0..12_000_u64).prop_map(Act::Pass),
        8 => Just(Act::Settle),
        1 => Just(Act::Refuse),
        1 => Just(Act::Late),
        1 => Just(Act::FailOver),
        weight => events.prop_map(Act::Event),
    ];
    proptest::collection::vec(act, 1..140)
}

/// A member as its client is.
pub(super) trait Client {
    /// Its epoch as it was told.
    fn epoch(&self) -> i32;
    /// It uses nothing any more, and has to join.
    fn forget(&mut self);
    fn join(&self) -> Command;
    /// A heartbeat that tells nothing.
    fn beat(&self) -> Command;
    /// It has what it was given, and tells it; `all`: and everything else of itself.
    fn tell(&mut self, all: bool) -> Command;
    /// `count`: of leaves so far.
    fn leave(&self, count: usize) -> Command;
    /// Another process in its place; `count`: of restarts so far.
    fn restart(&mut self, index: usize, count: usize);
    /// The error of an answer.
    fn error(reply: &Reply) -> ErrorCode;
    /// An answer without one; whether it may go on using everything that it uses.
    fn learn(&mut self, reply: &Reply) -> bool;
    /// Whether this error makes it begin anew; other errors than those of its kind are faults.
    fn is_dismissed_by(&self, error: ErrorCode) -> bool;
}

/// What is special to a kind of group.
pub(super) trait Kind: Sized {
    type Client: Client;
    type Event;
    /// So long may a member take to let go of something.
    const REBALANCE_TIMEOUT_MS: u64;

    fn happen(schedule: &mut Schedule<Self>, event: Self::Event);
    /// Another node leads, and knows no topics yet.
    fn failed_over(schedule: &mut Schedule<Self>);
    /// No two members use what only one may.
    fn check(schedule: &Schedule<Self>);
    /// The last event, before everybody is left alone.
    fn come_to_rest(_schedule: &mut Schedule<Self>) {}
    /// Everything is assigned.
    fn check_assigned(schedule: &Schedule<Self>);
}

pub(super) struct Schedule<K: Kind> {
    pub(super) h: Harness,
    pub(super) kind: K,
    pub(super) clients: Vec<K::Client>,
    /// When each member stops using what it has, unless it gets an answer before: it may have been told to let go of
    /// some, and be removed when it has not by the rebalance timeout.
    expires_ms: Vec<u64>,
    /// When a member that was told to let go of something stops, unless it said before that it has.
    lets_go_ms: Vec<Option<u64>>,
    waiting: Vec<Option<(RequestToken, u64)>>,
    /// Who did not get an answer, or an error, tells everything next time, as clients do, and so is told everything.
    /// Since when: what was decided then has its time from then on.
    unsure: Vec<Option<u64>>,
    restarts: usize,
    leaves: usize,
}

impl<K: Kind> Schedule<K> {
    pub(super) fn new(mut h: Harness, kind: K, client: impl Fn(usize) -> K::Client) -> Self {
        h.held = true;
        Self {
            h,
            kind,
            clients: (0..MEMBERS).map(client).collect(),
            expires_ms: vec![0; MEMBERS],
            lets_go_ms: vec![None; MEMBERS],
            waiting: vec![None; MEMBERS],
            unsure: vec![None; MEMBERS],
            restarts: 0,
            leaves: 0,
        }
    }

    /// All of it, and then everybody sends heartbeats until everything is assigned.
    pub(super) fn run(mut self, acts: Vec<Act<K::Event>>) {
        for act in acts {
            self.act(act);
            self.receive();
            K::check(&self);
            if self.h.appends.is_empty() && self.h.machine.groups.contains_key("g") {
                self.h.assert_replayed();
            }
        }
        self.finish();
    }

    /// Whether a heartbeat of its own may say something: it is a member, and sure of what it has.
    pub(super) fn is_sure(&self, index: usize) -> bool {
        self.clients[index].epoch() > JOIN_EPOCH && self.unsure[index].is_none()
    }

    pub(super) fn send(&mut self, index: usize, command: Command) {
        if self.waiting[index].is_none() {
            let token = self.h.send(command);
            self.waiting[index] = Some((token, self.h.now.monotonic_ms));
        }
    }

    fn beat(&mut self, index: usize, acknowledges: bool) {
        if self.waiting[index].is_some() {
            return;
        }
        let (client, is_unsure) = (&mut self.clients[index], self.unsure[index].is_some());
        let command = if client.epoch() <= JOIN_EPOCH {
            client.forget();
            client.join()
        } else if acknowledges || is_unsure {
            self.lets_go_ms[index] = None;
            client.tell(is_unsure)
        } else {
            client.beat()
        };
        self.send(index, command);
    }

    /// The member stops.
    fn forget(&mut self, index: usize) {
        (self.lets_go_ms[index], self.unsure[index]) = (None, None);
        self.clients[index].forget();
    }

    fn act(&mut self, act: Act<K::Event>) {
        match act {
            Act::Beat(index) => self.beat(index, false),
            Act::Acknowledge(index) => self.beat(index, true),
            Act::Leave(index) => {
                if self.waiting[index].is_none() && self.clients[index].epoch() > JOIN_EPOCH {
                    self.leaves += 1;
                    let command = self.clients[index].leave(self.leaves);
                    self.forget(index);
                    self.send(index, command);
                    if let Some((token, _)) = self.waiting[index].take() {
                        self.h.replies.remove(&token);
                    }
                }
            }
            Act::Restart(index) => {
                self.restarts += 1;
                self.forget(index);
                self.waiting[index] = None;
                self.clients[index].restart(index, self.restarts);
            }
            Act::Lost(index) => {
                if let Some((_, sent_ms)) = self.waiting[index].take() {
                    self.unsure[index].get_or_insert(sent_ms);
                }
            }
            Act::Pass(ms) => {
                for step in [ms / 2, ms - ms / 2] {
                    self.h.pass(step);
                    self.stop_expired();
                }
            }
            Act::Settle => self.h.commit(),
            Act::Refuse => {
                if let Some(last) = self.h.appends.pop() {
                    self.h.appends.insert(0, last);
                    self.h.fail(ErrorCode::NotEnoughReplicas);
                }
            }
            Act::Late => {
                if let Some(first) = self.h.appends.first() {
                    let records = first.records.clone();
                    self.h.log.extend(records.into_iter().map(|record| (None, record)));
                    self.h.fail(ErrorCode::RequestTimedOut);
                }
            }
            Act::FailOver => {
                self.h.fail_over();
                K::failed_over(self);
            }
            Act::Event(event) => K::happen(self, event),
        }
    }

    /// A client that got no answer for long uses nothing any more.
    fn stop_expired(&mut self) {
        for index in 0..MEMBERS {
            let due_ms = self.expires_ms[index].min(self.lets_go_ms[index].unwrap_or(u64::MAX));
            if self.h.now.monotonic_ms >= due_ms && self.clients[index].epoch() > JOIN_EPOCH {
                self.forget(index);
                self.waiting[index] = None;
            }
        }
    }

    fn receive(&mut self) {
        for index in 0..MEMBERS {
            let Some((token, sent_ms)) = self.waiting[index] else { continue };
            let Some(reply) = self.h.replies.remove(&token) else { continue };
            self.waiting[index] = None;
            let since_ms = self.unsure[index].take().unwrap_or(sent_ms);
            match K::Client::error(&reply) {
                ErrorCode::None => {
                    self.expires_ms[index] = sent_ms + K::REBALANCE_TIMEOUT_MS;
                    if !self.clients[index].learn(&reply) {
                        self.lets_go_ms[index].get_or_insert(since_ms + K::REBALANCE_TIMEOUT_MS);
                    }
                }
                error => {
                    self.unsure[index] = Some(since_ms);
                    let passes =
                        matches!(error, ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator);
                    if !passes && self.clients[index].is_dismissed_by(error) {
                        self.forget(index);
                    }
                }
            }
        }
    }

    fn finish(&mut self) {
        K::come_to_rest(self);
        self.h.commit();
        self.receive();
        for round in 0..60 {
            // Static members whose former selves have not been heard of for long are let in.
            self.h.pass(if round < 20 { 3_000 } else { 100 });
            self.stop_expired();
            self.h.commit();
            for index in 0..MEMBERS {
                self.beat(index, true);
                self.h.commit();
                self.receive();
                K::check(self);
            }
        }
        K::check_assigned(self);
        self.h.assert_replayed();
    }
}
