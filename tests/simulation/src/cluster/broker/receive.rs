//! What comes of a message.

use ottla_coordinator::transaction::MarkerOutcome;

use super::transactions::Produce;
use super::{Broker, Outbox, Timer};
use crate::cluster::batch::Batch;
use crate::cluster::message::Message;
use crate::cluster::network::Node;
use crate::replica::Replica;

impl Broker {
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
            Message::HeartbeatReply { epoch, sent_at_ms, is_fenced, should_shut_down, lease_ms }
                if epoch == self.epoch =>
            {
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
            Message::Produce { id, partition, batch, transaction } => {
                let request = Produce { from, id, index: partition, batch, transaction };
                self.produce(now_us, request, out);
            }
            Message::Asked { id, error } => self.answered(now_us, id, error, out),
            Message::WriteMarker { id, request } => self.write_marker(now_us, from, id, &request, out),
            Message::MarkerWritten { id, error } => {
                self.marker_written(now_us, id, MarkerOutcome::Answered(error), out);
            }
            Message::Ask { id, question } => self.asked(now_us, from, id, &question, out),
            Message::Transaction { id, coordinator, command } => {
                self.transact(now_us, from, (id, coordinator), command, out);
            }
            Message::Metadata => {
                out.sends.push((self.id, from, Message::MetadataAnswer(self.leaders())));
            }
            Message::Read { id, partition, offset, leader_epoch, allow_follower, committed } => {
                let place = (offset, leader_epoch);
                self.read(from, (id, partition), place, (allow_follower, committed), out);
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
}
