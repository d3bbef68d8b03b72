//! What can happen next, and what it does.

use std::sync::Arc;

use ottla_metadata::image::MetadataImage;
use ottla_proto::metadata::MetadataRecord;
use ottla_replica::{Effects, Input, IsrAnswer};

use super::world::{BROKERS, LAG_MS_MAX, MESSAGES_MAX, Message, World, at};
use crate::fault::Fault;
use crate::log::ReplicaLog;
use crate::metadata;
use crate::replica::{FetchAnswer, FetchRequest, Replica};

/// Entries that one fetch brings: all that a model ever has.
const FETCHED_MAX: i64 = 100;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A client's record reaches the leader.
    Append(i32),
    /// The disk of a broker has all that was written (`flush.messages=1`).
    Sync(i32),
    /// A follower asks for records and applies the answer. That both happen at once leaves nothing out: until it is
    /// answered nothing changes at the follower but its role, and then it takes no answer.
    Fetch(i32),
    /// A follower asks, and the answer is lost.
    FetchUnanswered(i32),
    /// A follower asks, and the request comes late.
    FetchLate(i32),
    /// A message arrives.
    Deliver(Message),
    /// A proposal is not answered in time.
    BreakProposal(i32),
    /// A broker applies the next image.
    ApplyNext(i32),
    Tick(i32),
    /// A heartbeat and its answer.
    Heartbeat(i32),
    LeaseEnds(i32),
    Fence(i32),
    Kill(i32),
    /// So much of the log stays.
    PowerLoss(i32, i64),
    CleanStop(i32),
    Restart(i32),
    LagPasses,
    Rebalance,
}

impl World {
    /// All that can happen in this state.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        let mut known: Vec<&Message> = Vec::new();
        for message in &self.network {
            if !known.contains(&message) {
                known.push(message);
                events.push(Event::Deliver(message.clone()));
            }
        }
        for id in BROKERS {
            if self.brokers[at(id)].is_running {
                self.events_of_running(id, &mut events);
            } else {
                events.push(Event::Restart(id));
            }
            let may_be_fenced = !self.brokers[at(id)].is_running || !self.brokers[at(id)].has_lease;
            if may_be_fenced && !metadata::is_fenced(self.latest(), id) {
                events.push(Event::Fence(id));
            }
        }
        if self.budget.lags > 0 {
            events.push(Event::LagPasses);
        }
        if self.budget.rebalances > 0 && !self.controller.rebalance(self.latest()).is_empty() {
            events.push(Event::Rebalance);
        }
        events
    }

    fn events_of_running(&self, id: i32, events: &mut Vec<Event>) {
        let broker = &self.brokers[at(id)];
        let budget = &self.budget;
        let has_room = self.network.len() < MESSAGES_MAX;
        if budget.appends > 0 && broker.replica.may_append(self.now(id), self.fault) {
            events.push(Event::Append(id));
        }
        if self.options.synced_only && broker.replica.log.synced_end() < broker.replica.log.end() {
            events.push(Event::Sync(id));
        }
        let asked = broker.replica.fetch_request(broker.epoch);
        if asked.is_some_and(|(leader, _)| self.brokers[at(leader)].is_serving) {
            events.push(Event::Fetch(id));
            if budget.timeouts > 0 {
                events.push(Event::FetchUnanswered(id));
            }
            if budget.timeouts > 0 && has_room {
                events.push(Event::FetchLate(id));
            }
        }
        if broker.applied + 1 < self.images.len() {
            events.push(Event::ApplyNext(id));
        }
        if broker.replica.machine.is_leader() && broker.has_lease {
            events.push(Event::Tick(id));
        }
        if metadata::broker_epoch(self.latest(), id) == broker.epoch {
            let has_seen = metadata::broker_epoch(&self.images[broker.applied], id) == broker.epoch;
            let may_unfence = metadata::is_fenced(self.latest(), id) && has_seen;
            if may_unfence || !metadata::is_fenced(self.latest(), id) && !broker.has_lease {
                events.push(Event::Heartbeat(id));
            }
        }
        if budget.lease_ends > 0 && broker.has_lease {
            events.push(Event::LeaseEnds(id));
        }
        if budget.timeouts > 0 && broker.is_proposing {
            events.push(Event::BreakProposal(id));
        }
        if budget.kills > 0 {
            events.push(Event::Kill(id));
        }
        if budget.clean_stops > 0 && !broker.replica.machine.is_leader() {
            events.push(Event::CleanStop(id));
        }
        if budget.power_losses > 0 {
            let first = if self.synced_only { broker.replica.log.synced_end() } else { 0 };
            for keep in first..broker.replica.log.end() {
                events.push(Event::PowerLoss(id, keep));
            }
        }
    }

    /// Does it.
    pub(super) fn happen(&mut self, event: &Event) {
        match event {
            Event::Append(id) => self.append(*id),
            Event::Sync(id) => {
                let (now, fault) = (self.now(*id), self.fault);
                let mut out = Effects::new();
                let replica = &mut self.broker(*id).replica;
                let end = replica.log.end();
                replica.synced(now, end, fault, &mut out);
                self.execute(*id, out);
            }
            Event::Fetch(id) => self.fetch(*id, true),
            Event::FetchUnanswered(id) => {
                self.budget.timeouts -= 1;
                self.fetch(*id, false);
            }
            Event::FetchLate(id) => {
                self.budget.timeouts -= 1;
                let broker = self.broker(*id);
                if let Some((to, request)) = broker.replica.fetch_request(broker.epoch) {
                    self.network.push(Message::LateFetch { to, request });
                }
            }
            Event::Deliver(message) => {
                if let Some(found) = self.network.iter().position(|other| other == message) {
                    let message = self.network.remove(found);
                    self.deliver(message);
                }
            }
            Event::BreakProposal(id) => self.break_proposal(*id),
            Event::ApplyNext(id) => {
                let next = self.brokers[at(*id)].applied + 1;
                self.take_over_image(*id, next);
            }
            Event::Tick(id) => self.tick(*id),
            Event::Heartbeat(id) => self.heartbeat(*id),
            Event::LeaseEnds(id) => {
                self.budget.lease_ends -= 1;
                self.broker(*id).has_lease = false;
            }
            Event::Fence(id) => {
                let epoch = metadata::broker_epoch(self.latest(), *id);
                let records = self.controller.fence(self.latest(), *id, epoch);
                self.commit(&records);
            }
            Event::Kill(id) => {
                self.budget.kills -= 1;
                self.unclean.0 += 1;
                self.stop(*id, 0);
            }
            Event::PowerLoss(id, keep) => {
                self.budget.power_losses -= 1;
                self.unclean = (self.unclean.0 + 1, self.unclean.1 + 1);
                self.broker(*id).replica.log.truncate_to(*keep);
                self.stop(*id, 0);
            }
            Event::CleanStop(id) => {
                self.budget.clean_stops -= 1;
                let epoch = self.brokers[at(*id)].epoch;
                let high_watermark = self.brokers[at(*id)].replica.machine.high_watermark();
                self.stop(*id, high_watermark);
                self.broker(*id).marker = epoch;
            }
            Event::Restart(id) => self.restart(*id),
            Event::LagPasses => {
                self.budget.lags -= 1;
                self.now_ms += LAG_MS_MAX + 1;
            }
            Event::Rebalance => {
                self.budget.rebalances -= 1;
                let records = self.controller.rebalance(self.latest());
                self.commit(&records);
            }
        }
        self.trim();
    }

    fn append(&mut self, id: i32) {
        self.budget.appends = self.budget.appends.saturating_sub(1);
        let (now, fault, value) = (self.now(id), self.fault, self.next_value);
        self.next_value += 1;
        let broker = self.broker(id);
        let mut out = Effects::new();
        let epoch = broker.replica.machine.leader_epoch();
        let offset = broker.replica.append(now, value, fault, &mut out);
        broker.waiting.push((offset, epoch, value));
        self.execute(id, out);
    }

    fn fetch(&mut self, id: i32, is_answered: bool) {
        let broker = self.broker(id);
        let Some((to, request)) = broker.replica.fetch_request(broker.epoch) else { return };
        let answer = self.answer_fetch(to, &request);
        if let Some(answer) = answer.filter(|_| is_answered) {
            let (now, fault) = (self.now(id), self.fault);
            let mut out = Effects::new();
            let synced_only = self.options.synced_only;
            let replica = &mut self.broker(id).replica;
            replica.apply_answer(now, request.leader_epoch, &answer, fault, &mut out);
            if synced_only {
                replica.log.sync();
            }
            self.execute(id, out);
        }
    }

    fn answer_fetch(&mut self, to: i32, request: &FetchRequest) -> Option<FetchAnswer<u8>> {
        if !self.brokers[at(to)].is_serving {
            return None;
        }
        let (now, fault) = (self.now(to), self.fault);
        let image = Arc::clone(&self.images[self.brokers[at(to)].applied]);
        let eligible = metadata::is_eligible(&image, request.broker, request.broker_epoch);
        let mut out = Effects::new();
        let leader = self.broker(to);
        let answer = leader.replica.fetched(now, request, eligible, FETCHED_MAX, fault, &mut out);
        self.execute(to, out);
        Some(answer)
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::LateFetch { to, request } => drop(self.answer_fetch(to, &request)),
            Message::Propose { mut proposal, is_awaited } => {
                if self.fault == Fault::NoPartitionEpoch
                    && let Some(partition) = metadata::partition(self.latest(), 0)
                {
                    proposal.partition_epoch = partition.partition_epoch.0;
                }
                let (records, answer) = self.controller.alter(self.latest(), &proposal);
                self.commit(&records);
                if is_awaited {
                    self.network.push(Message::Proposed {
                        to: proposal.broker,
                        leader_epoch: proposal.leader_epoch,
                        partition_epoch: proposal.partition_epoch,
                        answer: answer.into(),
                    });
                }
            }
            Message::Proposed { to, leader_epoch, partition_epoch, answer } => {
                self.answer_proposal(to, (leader_epoch, partition_epoch), answer.into());
            }
        }
    }

    fn answer_proposal(&mut self, id: i32, epochs: (i32, i32), answer: IsrAnswer) {
        let (now, fault) = (self.now(id), self.fault);
        let mut out = Effects::new();
        let broker = self.broker(id);
        broker.is_proposing = false;
        let input = Input::IsrAnswered { leader_epoch: epochs.0, partition_epoch: epochs.1, answer };
        broker.replica.step(now, input, fault, &mut out);
        self.execute(id, out);
    }

    fn break_proposal(&mut self, id: i32) {
        self.budget.timeouts = self.budget.timeouts.saturating_sub(1);
        let epochs = self.network.iter().find_map(|message| match message {
            Message::Propose { proposal, is_awaited: true } if proposal.broker == id => {
                Some((proposal.leader_epoch, proposal.partition_epoch))
            }
            Message::Proposed { to, leader_epoch, partition_epoch, .. } if *to == id => {
                Some((*leader_epoch, *partition_epoch))
            }
            _ => None,
        });
        self.forget_proposals_of(id);
        if let Some(epochs) = epochs {
            self.answer_proposal(id, epochs, IsrAnswer::Unknown);
        }
    }

    fn heartbeat(&mut self, id: i32) {
        let epoch = self.brokers[at(id)].epoch;
        if !metadata::is_fenced(self.latest(), id) {
            let broker = self.broker(id);
            (broker.has_lease, broker.is_serving) = (true, true);
            // The manager looks at parked acknowledgements again.
            self.tick(id);
            return;
        }
        let records = self.controller.unfence(self.latest(), id, epoch);
        self.commit(&records);
        let records = self.controller.elect(self.latest());
        self.commit(&records);
    }

    pub(super) fn commit(&mut self, records: &[MetadataRecord]) {
        if !records.is_empty() {
            let next: Arc<MetadataImage> = metadata::commit(self.latest(), records);
            self.images.push(next);
        }
    }

    /// The process ends.
    fn stop(&mut self, id: i32, checkpoint: i64) {
        let options = self.options;
        self.forget_proposals_of(id);
        let broker = self.broker(id);
        let log = std::mem::take(&mut broker.replica.log);
        broker.replica = Replica::open(id, options, log, checkpoint);
        (broker.is_running, broker.has_lease, broker.is_serving) = (false, false, false);
        broker.is_proposing = false;
        (broker.marker, broker.applied) = (-1, 0);
        broker.waiting.clear();
    }

    fn restart(&mut self, id: i32) {
        let incarnation = self.brokers[at(id)].incarnation + 1;
        let marker = match self.fault {
            Fault::AlwaysClean => self.brokers[at(id)].epoch,
            _ => self.brokers[at(id)].marker,
        };
        let records = self.controller.register(self.latest(), id, incarnation, marker, false);
        self.commit(&records.unwrap_or_default());
        let epoch = metadata::broker_epoch(self.latest(), id);
        let broker = self.broker(id);
        (broker.incarnation, broker.epoch, broker.marker) = (incarnation, epoch, -1);
        broker.is_running = true;
        // A controller that lags gives it an image as old as any broker's.
        let index = if self.old_images { 0 } else { self.images.len() - 1 };
        self.take_over_image(id, index);
    }

    /// Images that nobody needs any more go.
    fn trim(&mut self) {
        let running = self.brokers.iter().filter(|broker| broker.is_running);
        let oldest = running.map(|broker| broker.applied).min().unwrap_or(self.images.len() - 1);
        self.images.drain(..oldest);
        for broker in self.brokers.iter_mut().filter(|broker| broker.is_running) {
            broker.applied -= oldest;
        }
    }

    /// Everything works from now on: the partition must come back whole.
    pub(super) fn heal(&self) -> Result<(), String> {
        const ROUNDS: usize = 60;
        const ROUND_MS: u64 = 40;
        let mut world = self.clone();
        for _ in 0..ROUNDS {
            world.now_ms += ROUND_MS;
            for id in BROKERS {
                world.heal_broker(id)?;
                if world.is_promised_loss() {
                    return Ok(());
                }
            }
        }
        world.check_healed()
    }

    fn heal_broker(&mut self, id: i32) -> Result<(), String> {
        let mut events = Vec::new();
        if self.brokers[at(id)].is_running {
            self.events_of_running(id, &mut events);
        } else {
            events.push(Event::Restart(id));
        }
        let is_helpful = |event: &Event| {
            matches!(
                event,
                Event::Restart(_)
                    | Event::ApplyNext(_)
                    | Event::Heartbeat(_)
                    | Event::Fetch(_)
                    | Event::Sync(_)
                    | Event::Tick(_)
            )
        };
        for event in events.into_iter().filter(is_helpful) {
            self.happen(&event);
            self.check()?;
            while let Some(message) = self.network.first().cloned() {
                self.happen(&Event::Deliver(message));
                self.check()?;
            }
        }
        Ok(())
    }
}

impl<P: Clone> Replica<P> {
    /// Whether the log begins with these payloads.
    pub(super) fn holds(&self, payloads: &[P]) -> bool
    where
        P: PartialEq,
    {
        holds(&self.log, payloads)
    }
}

fn holds<P: Clone + PartialEq>(log: &ReplicaLog<P>, payloads: &[P]) -> bool {
    let end = i64::try_from(payloads.len()).unwrap_or(i64::MAX);
    let slice = log.slice(0, end);
    slice.len() == payloads.len()
        && slice.iter().zip(payloads).all(|(entry, payload)| entry.payload == *payload)
}
