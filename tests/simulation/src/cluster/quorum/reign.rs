//! What a leader does: it hears brokers, decides all that waits as one entry, and answers when that is through.

use std::sync::Arc;

use ottla_metadata::image::{BrokerEpoch, BrokerId, MetadataImage};
use ottla_metadata::leases::Heartbeat;
use ottla_replica::IsrAnswer;

use super::{Ask, Chore, LEASE_MARGIN_MS, Output, Pending, Quorum, SILENCE_US_MAX};
use crate::cluster::message::{HeartbeatRequest, Message};
use crate::cluster::network::{CONTROLLERS, Network, Node};
use crate::fault::Fault;
use crate::metadata;

/// A registration has one session here: it breaks when the process ends.
const SESSION: u64 = 1;

impl Quorum {
    /// A broker's connection to the controller that leads broke.
    pub fn session_broken(&mut self, now_us: u64, broker: i32, epoch: i64, network: &Network) {
        for member in 0..self.members.len() {
            let reaches = network.connects(Self::node(member), broker);
            if let Some(reign) = self.members[member].reign.as_mut().filter(|_| reaches) {
                reign.leases.session_broken(now_us / 1_000, BrokerId(broker), BrokerEpoch(epoch), SESSION);
            }
        }
    }

    /// Leadership goes home.
    pub fn rebalance(&mut self, now_us: u64, out: &mut Vec<Output>) {
        for leader in 0..self.members.len() {
            if let Some(reign) = &mut self.members[leader].reign {
                reign.chores.extend([Chore::ElectLeaderless, Chore::Rebalance]);
                self.propose(now_us, leader, out);
            }
        }
    }

    /// A message for a controller.
    pub fn receive(&mut self, now_us: u64, to: Node, from: Node, message: Message, out: &mut Vec<Output>) {
        let at = usize::try_from(to - CONTROLLERS).unwrap_or(0);
        let hint = self.members.iter().position(|member| member.term == Some(self.term));
        let Some(member) = self.members.get_mut(at).filter(|member| member.is_up) else { return };
        let ask = match message {
            Message::Heartbeat(request) => {
                let reply = self.heartbeat(now_us, at, &request).unwrap_or(Message::NotController(hint));
                out.push(Output::Send(to, from, reply));
                self.propose(now_us, at, out);
                return;
            }
            Message::Alter { id, proposal } => Ask::Alter { from, id, proposal },
            Message::Register { incarnation, marker } => Ask::Register { from, incarnation, marker },
            _ => return,
        };
        match &mut member.reign {
            Some(reign) => reign.asks.push_back(ask),
            None => out.push(Output::Send(to, from, refusal(&ask, hint))),
        }
        self.propose(now_us, at, out);
    }

    fn heartbeat(&mut self, now_us: u64, at: usize, request: &HeartbeatRequest) -> Option<Message> {
        let session_timeout_ms = self.session_timeout_ms;
        let member = &mut self.members[at];
        let image = Arc::clone(&self.entries[member.applied]);
        let reign = member.reign.as_mut()?;
        let id = BrokerId(request.broker);
        let broker = image.broker(id)?;
        if broker.epoch.0 != request.epoch {
            return Some(Message::RegisterAgain);
        }
        if now_us >= member.acked_us + SILENCE_US_MAX {
            return None;
        }
        if broker.fenced {
            reign.fencing.remove(&id.0);
        }
        let is_fencing = reign.fencing.get(&id.0) == Some(&broker.epoch.0);
        let heartbeat = Heartbeat {
            epoch: broker.epoch,
            session: SESSION,
            metadata_index: request.metadata_index,
            wants_fence: false,
            wants_shut_down: request.wants_shut_down,
        };
        reign.leases.heartbeat(now_us / 1_000, id, heartbeat);
        let is_caught_up = request.metadata_index >= broker.epoch.0;
        let leads_any = request.wants_shut_down
            && image.topics().flat_map(|topic| &topic.partitions).any(|partition| {
                let another =
                    |other: &BrokerId| *other != id && ottla_metadata::election::may_lead(&image, *other);
                partition.leader == Some(id) && partition.isr.iter().any(another)
            });
        let mut chores = Vec::new();
        if request.wants_shut_down && !broker.in_controlled_shutdown {
            chores.push(Chore::Shutdown(id.0, broker.epoch.0));
        } else if broker.fenced && !request.wants_shut_down && is_caught_up {
            chores.extend([Chore::Unfence(id.0, broker.epoch.0), Chore::ElectLeaderless]);
        }
        for chore in chores {
            if chore == Chore::ElectLeaderless || !reign.chores.contains(&chore) {
                reign.chores.push_back(chore);
            }
        }
        Some(Message::HeartbeatReply {
            epoch: request.epoch,
            sent_at_ms: request.sent_at_ms,
            is_fenced: broker.fenced || is_fencing,
            should_shut_down: request.wants_shut_down && broker.in_controlled_shutdown && !leads_any,
            lease_ms: session_timeout_ms.saturating_sub(LEASE_MARGIN_MS),
        })
    }

    /// Decides all that waits, on the applied image and what was decided since; sends it on its way as one entry.
    pub(super) fn propose(&mut self, now_us: u64, leader: usize, out: &mut Vec<Output>) {
        let base = self.members[leader].applied;
        let mut image = Arc::clone(&self.entries[base]);
        let Some(reign) = &mut self.members[leader].reign else { return };
        if reign.pending.is_some() || (reign.asks.is_empty() && reign.chores.is_empty()) {
            return;
        }
        let (controller, fault) = (&self.controller, self.fault);
        let mut images = Vec::new();
        let mut write = |image: &mut Arc<MetadataImage>,
                         records: &[ottla_proto::metadata::MetadataRecord]| {
            if !records.is_empty() {
                *image = metadata::commit(image, records);
                images.push(Arc::clone(image));
            }
        };
        for chore in std::mem::take(&mut reign.chores) {
            let records = match chore {
                Chore::Fence(id, epoch) => controller.fence(&image, id, epoch),
                Chore::Unfence(id, epoch) => controller.unfence(&image, id, epoch),
                Chore::Shutdown(id, epoch) => controller.shut_down(&image, id, epoch),
                Chore::ElectLeaderless => controller.elect(&image),
                Chore::Rebalance => controller.rebalance(&image),
            };
            write(&mut image, &records);
        }
        let askers: Vec<Ask> = std::mem::take(&mut reign.asks).into();
        let mut answers = Vec::new();
        for ask in &askers {
            match ask {
                Ask::Alter { from, id, proposal } => {
                    let mut proposal = proposal.clone();
                    if fault == Fault::NoPartitionEpoch
                        && let Some(partition) = metadata::partition(&image, proposal.partition)
                    {
                        proposal.partition_epoch = partition.partition_epoch.0;
                    }
                    let (records, answer) = controller.alter(&image, &proposal);
                    write(&mut image, &records);
                    answers.push((*from, Message::Altered { id: *id, answer }));
                }
                Ask::Register { from, incarnation, marker } => {
                    let is_held = reign.leases.is_held(now_us / 1_000, BrokerId(*from));
                    match controller.register(&image, *from, *incarnation, *marker, is_held) {
                        Some(records) => {
                            write(&mut image, &records);
                            let epoch = metadata::broker_epoch(&image, *from);
                            answers.push((*from, Message::Registered { incarnation: *incarnation, epoch }));
                        }
                        None => answers.push((*from, Message::NotController(Some(leader)))),
                    }
                }
            }
        }
        let term = reign.term;
        if images.is_empty() {
            for (to, answer) in answers {
                out.push(Output::Send(Self::node(leader), to, answer));
            }
            return;
        }
        reign.pending = Some(Pending { term, base, images, answers, askers });
        let slow = if now_us < self.slow_until_us { 40 } else { 1 };
        out.push(Output::Later(self.random.between(1_000, 10_000) * slow, leader, term));
    }

    /// The entry has had the time that a majority's disks and the network take.
    pub fn entry_is_through(
        &mut self,
        now_us: u64,
        leader: usize,
        term: u64,
        network: &Network,
        out: &mut Vec<Output>,
    ) {
        if !self.members[leader].is_up || term != self.term {
            return; // Superseded: the tick tells those who wait.
        }
        if !self.has_majority(network, leader, |_| true) {
            out.push(Output::Later(50_000, leader, term));
            return;
        }
        let member = &mut self.members[leader];
        let Some(reign) = member.reign.as_mut().filter(|reign| reign.term == term) else { return };
        let Some(pending) = reign.pending.take_if(|pending| pending.term == term) else { return };
        assert_eq!(
            pending.base + 1,
            self.entries.len(),
            "a leader decided on an image that is not the latest"
        );
        self.entries.extend(pending.images);
        member.applied = self.entries.len() - 1;
        for (to, answer) in pending.answers {
            out.push(Output::Send(Self::node(leader), to, answer));
        }
        self.propose(now_us, leader, out);
    }
}

pub(super) fn refusal(ask: &Ask, hint: Option<usize>) -> Message {
    match ask {
        Ask::Alter { id, .. } => Message::Altered { id: *id, answer: IsrAnswer::Unknown },
        Ask::Register { .. } => Message::NotController(hint),
    }
}
