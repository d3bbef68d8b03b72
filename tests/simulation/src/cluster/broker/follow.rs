//! Replication: what a follower asks, what its leader answers, what the follower does with that, and the answers of the
//! controller to proposals.

use ottla_replica::{Effects, Input, IsrAnswer};

use super::{Broker, FETCH_TIMEOUT_US, FETCH_WAIT_US, FETCHED_MAX, Outbox, PAUSE_US, Parked, Timer};
use crate::cluster::batch::{Batch, Producers};
use crate::cluster::message::Message;
use crate::cluster::network::Node;
use crate::metadata;
use crate::replica::{FetchAnswer, FetchRequest};

impl Broker {
    pub(super) fn fetch(&mut self, now_us: u64, index: i32, out: &mut Outbox) {
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

    pub(super) fn fetched(
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
    pub(super) fn end_parked(&mut self, now_us: u64, index: i32, only: Option<u64>, out: &mut Outbox) {
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let ends = |parked: &Parked| only.is_none_or(|id| parked.id == id);
        let (ended, kept) = std::mem::take(&mut partition.parked).into_iter().partition(ends);
        partition.parked = kept;
        let ended: Vec<Parked> = ended;
        for Parked { from, id, request } in ended {
            self.fetched(now_us, from, (id, index), request, false, out);
        }
    }

    pub(super) fn apply_fetched(
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
                partition.producers.add_from(&partition.replica.log, end);
            }
            FetchAnswer::Diverging(..) | FetchAnswer::OutOfRange(_) if changed => {
                partition.producers = Producers::of(&partition.replica.log);
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

    pub(super) fn proposal_answered(&mut self, now_us: u64, id: u64, answer: IsrAnswer, out: &mut Outbox) {
        let Some((index, leader_epoch, partition_epoch)) = self.proposals.remove(&id) else { return };
        let (now, fault) = (self.now(now_us), self.settings.fault);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let mut effects = Effects::new();
        let input = Input::IsrAnswered { leader_epoch, partition_epoch, answer };
        partition.replica.step(now, input, fault, &mut effects);
        self.execute(now_us, index, effects, out);
        self.release(now_us, index, out);
    }
}
