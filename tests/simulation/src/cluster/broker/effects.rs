//! What follows from time, from the metadata and from the machines' effects.

use std::sync::Arc;

use ottla_coordinator::transaction::verification::Verifications;
use ottla_metadata::image::MetadataImage;
use ottla_replica::{AckState, Effect, Effects, Input, IsrAnswer, IsrState, Now};
use ottla_wire::error_code::ErrorCode;

use super::serve::problem_of;
use super::{Broker, Outbox, PAUSE_US, PROPOSAL_TIMEOUT_US, Partition, Timer, Told};
use crate::cluster::batch::Producers;
use crate::cluster::message::Message;
use crate::fault::Fault;
use crate::metadata::{self, Proposal};
use crate::replica::Replica;

impl Broker {
    pub(super) fn tick(&mut self, now_us: u64, out: &mut Outbox) {
        let (now, fault) = (self.now(now_us), self.settings.fault);
        let indexes: Vec<i32> = self.partitions.keys().copied().collect();
        for index in indexes {
            let image = Arc::clone(&self.image);
            let Some(partition) = self.partitions.get_mut(&index) else { continue };
            if !partition.replica.machine.is_leader() {
                continue;
            }
            let mut effects = Effects::new();
            let outside: Vec<i32> = partition
                .replica
                .machine
                .followers()
                .filter(|follower| !follower.in_isr)
                .map(|follower| follower.broker)
                .collect();
            for broker in outside {
                let input = Input::BrokerChanged {
                    broker,
                    broker_epoch: metadata::broker_epoch(&image, broker),
                    eligible: metadata::is_eligible(&image, broker, -1),
                };
                partition.replica.step(now, input, fault, &mut effects);
            }
            partition.replica.step(now, Input::Tick, fault, &mut effects);
            self.execute(now_us, index, effects, out);
        }
    }

    // --- metadata ---

    /// Takes over the next image.
    pub fn apply_image(&mut self, now_us: u64, entry: usize, image: &Arc<MetadataImage>, out: &mut Outbox) {
        self.applied = entry;
        self.image = Arc::clone(image);
        let mut index = 0;
        while let Some(role) = metadata::role(image, index) {
            if role.replicas.contains(&self.id) {
                let (id, machine) = (self.id, self.settings.machine);
                let disks = &mut self.disks;
                let partition = self.partitions.entry(index).or_insert_with(|| {
                    let disk = disks.remove(&index).unwrap_or_default();
                    let producers = Producers::of(&disk.log);
                    let replica = Replica::open(id, machine, disk.log, disk.high_watermark);
                    Partition {
                        replica,
                        producers,
                        verifications: Verifications::default(),
                        stable: (-1, 0),
                        checkpoint: disk.high_watermark,
                        waits: Vec::new(),
                        parked: Vec::new(),
                        fetch: None,
                        pause_us: PAUSE_US.0,
                    }
                });
                let now = Now {
                    ms: (now_us + now_us / 1_000_000 * self.drift_ppm) / 1_000 + 1,
                    lease_until_ms: self.lease_until_ms,
                };
                let mut effects = Effects::new();
                partition.replica.assign(now, &role, self.settings.fault, &mut effects);
                self.execute(now_us, index, effects, out);
            }
            index += 1;
        }
        self.tick(now_us, out);
    }

    /// The leaders that its image knows.
    pub(super) fn leaders(&self) -> Vec<(i32, i32)> {
        let roles = (0..).map_while(|index| metadata::role(&self.image, index));
        roles.map(|role| (role.leader, role.leader_epoch)).collect()
    }

    /// Who leads a partition, by its image; -1: nobody.
    pub(super) fn leader_of(&self, index: i32) -> i32 {
        metadata::partition(&self.image, index)
            .and_then(|partition| partition.leader)
            .map_or(-1, |leader| leader.0)
    }

    // --- effects ---

    pub(super) fn execute(&mut self, now_us: u64, index: i32, effects: Effects, out: &mut Outbox) {
        for effect in effects {
            if self.settings.trace {
                let end = self.partitions.get(&index).map_or(0, |partition| partition.replica.log.end());
                out.notes.push(format!("partition {index} (end {end}): {effect:?}"));
            }
            match effect {
                Effect::ProposeIsr { mut isr, leader_epoch, partition_epoch } => {
                    if self.settings.fault == Fault::NoBrokerEpoch {
                        for member in &mut isr {
                            member.broker_epoch = -1;
                        }
                    }
                    if self.settings.fault == Fault::NoController {
                        let isr = isr.iter().map(|member| member.broker).collect();
                        let state = IsrState { leader_epoch, partition_epoch, isr };
                        let answer = IsrAnswer::Accepted(state);
                        let input = Input::IsrAnswered { leader_epoch, partition_epoch, answer };
                        self.step(now_us, index, input, out);
                    }
                    self.next_id += 1;
                    let id = self.next_id;
                    self.proposals.insert(id, (index, leader_epoch, partition_epoch));
                    let proposal = Proposal {
                        broker: self.id,
                        broker_epoch: self.epoch,
                        partition: index,
                        isr,
                        leader_epoch,
                        partition_epoch,
                    };
                    self.to_controller(Message::Alter { id, proposal }, out);
                    out.timers.push((PROPOSAL_TIMEOUT_US, Timer::ProposalTimeout(id)));
                }
                Effect::HighWatermarkAdvanced(high_watermark) => {
                    let leads = |partition: &Partition| partition.replica.machine.is_leader();
                    let leads = self.partitions.get(&index).is_some_and(leads);
                    out.advanced.push((index, high_watermark, leads));
                    self.release(now_us, index, out);
                }
                Effect::BecameLeader { leader_epoch, .. } if index >= self.settings.coordinators_from => {
                    self.begin_to_coordinate(now_us, index, leader_epoch, out);
                }
                Effect::LeadershipLost => {
                    self.resign(now_us, index, out);
                    if let Some(partition) = self.partitions.get_mut(&index) {
                        partition.verifications.clear();
                    }
                    self.release(now_us, index, out);
                    self.end_parked(now_us, index, None, out);
                }
                Effect::Follow { .. } => {
                    if let Some(partition) = self.partitions.get_mut(&index) {
                        (partition.fetch, partition.pause_us) = (None, PAUSE_US.0);
                    }
                    self.fetch(now_us, index, out);
                }
                _ => {}
            }
        }
    }

    /// Reports a fact to the machine of a partition.
    fn step(&mut self, now_us: u64, index: i32, input: Input, out: &mut Outbox) {
        let (now, fault) = (self.now(now_us), self.settings.fault);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let mut effects = Effects::new();
        partition.replica.step(now, input, fault, &mut effects);
        self.execute(now_us, index, effects, out);
    }

    /// Acknowledgements whose time has come.
    pub(super) fn release(&mut self, now_us: u64, index: i32, out: &mut Outbox) {
        let (now, fault, own) = (self.now(now_us), self.settings.fault, self.id);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let replica = &partition.replica;
        partition.waits.retain(|wait| {
            let error = match replica.ack_state(now, wait.epoch, wait.offset, fault) {
                AckState::Pending => return true,
                AckState::Done => ErrorCode::None,
                AckState::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
                AckState::NoLongerLeader => ErrorCode::NotLeaderOrFollower,
            };
            let (to, answer) = match wait.told {
                Told::Client { from, id, number } => {
                    let is_done = error == ErrorCode::None;
                    let result = if is_done { Ok(wait.offset) } else { Err(problem_of(error)) };
                    (from, Message::Produced { id, partition: index, number, result })
                }
                Told::Coordinator { from, id, error: then } => {
                    let error = if error == ErrorCode::None { then } else { error };
                    (from, Message::MarkerWritten { id, error })
                }
            };
            out.sends.push((own, to, answer));
            false
        });
        self.settle(now_us, index, out);
    }
}
