//! What comes to nodes: messages, timers, the stream of committed metadata; and the end of all faults.

use super::broker::{Outbox, Timer};
use super::client::ClientOutbox;
use super::message::Message;
use super::network::{CLIENTS, CONTROLLERS, Node};
use super::transactor::{TRANSACTORS, TransactorOutbox};
use super::trouble::Cure;
use super::{Cluster, Event, at};

impl Cluster {
    pub(super) fn deliver(&mut self, from: Node, to: Node, incarnation: u64, message: Box<Message>) {
        if to >= TRANSACTORS {
            let mut out = TransactorOutbox::default();
            if let Some(transactors) = &mut self.transactors {
                transactors.receive(self.now_us, to, *message, &mut out);
            }
            self.execute_transactors(out);
        } else if to >= CLIENTS {
            let mut out = ClientOutbox::default();
            self.clients.receive(self.now_us, to, from, *message, &mut out);
            self.execute_clients(out);
        } else if to >= CONTROLLERS {
            let mut out = Vec::new();
            self.quorum.receive(self.now_us, to, from, *message, &mut out);
            self.execute_quorum(out);
        } else if self.brokers[at(to)].is_up && self.brokers[at(to)].incarnation == incarnation {
            if let Some(wait) = self.pause_left(to) {
                self.schedule(wait, Event::Deliver { from, to, incarnation, message });
                return;
            }
            let (now_us, mut out) = (self.now_us, Outbox::default());
            self.broker(to).receive(now_us, from, *message, &mut out);
            self.execute_broker(to, out);
            let broker = &self.brokers[at(to)];
            if broker.wants_shut_down && broker.may_stop {
                self.stop_cleanly(to);
            }
        }
    }

    fn pause_left(&self, id: i32) -> Option<u64> {
        let until = self.brokers[at(id)].paused_until_us;
        (until > self.now_us).then(|| until - self.now_us)
    }

    pub(super) fn broker_due(&mut self, id: i32, incarnation: u64, timer: Timer) {
        let broker = &self.brokers[at(id)];
        if !broker.is_up || broker.incarnation != incarnation {
            return;
        }
        if let Some(wait) = self.pause_left(id) {
            self.schedule(wait, Event::Broker(id, incarnation, timer));
            return;
        }
        let (now_us, mut out) = (self.now_us, Outbox::default());
        if timer == Timer::Image {
            self.bring_images(id, &mut out);
            let pause = if self.random.chance(20) { 500_000 } else { 50_000 };
            out.timers.push((self.random.between(2_000, pause), Timer::Image));
        } else {
            self.broker(id).due(now_us, timer, &mut out);
        }
        self.execute_broker(id, out);
    }

    /// The stream of committed entries from a controller.
    fn bring_images(&mut self, id: i32, out: &mut Outbox) {
        if self.ambush.as_ref().is_some_and(|ambush| ambush.is_frozen(id)) {
            return;
        }
        let (stream, applied) = (self.brokers[at(id)].stream, self.brokers[at(id)].applied);
        let node = CONTROLLERS + i32::try_from(stream).unwrap_or(0);
        let reached = self.quorum.applied(stream).filter(|_| self.network.connects(node, id));
        let Some(known) = reached else {
            self.broker(id).stream = (stream + 1) % self.quorum.size();
            return;
        };
        // Who begins, or is far behind, is given a snapshot; else what has come is applied one by one.
        let is_new = self.brokers[at(id)].partitions.is_empty();
        let first = if is_new || known > applied + 20 { known } else { applied + 1 };
        for entry in first..=known {
            let image = self.quorum.entries()[entry].clone();
            let now_us = self.now_us;
            self.broker(id).apply_image(now_us, entry, &image, out);
        }
    }

    pub(super) fn mend(&mut self) {
        self.is_mended = true;
        self.network.heal();
        self.quorum.slow_down(0);
        if self.ambush.is_some() {
            self.join_all();
        }
        for id in 1..=self.plan.brokers {
            let broker = self.broker(id);
            (broker.paused_until_us, broker.slow_until_us) = (0, 0);
        }
        for member in 0..self.quorum.size() {
            self.schedule(100_000, Event::Cure(Cure::StartController(member)));
        }
    }
}
