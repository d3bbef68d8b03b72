//! A leader against a small model of its followers and of the controller, over random schedules: I40, I44 to I47.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ottla_replica::{
    AckState, Assignment, Effect, Effects, Input, IsrAnswer, IsrMember, IsrState, MachineOptions, Now,
    PartitionMachine,
};
use proptest::prelude::*;

const BROKERS: [i32; 3] = [1, 2, 3];

#[derive(Debug, Clone)]
enum Event {
    Append(i64),
    /// A follower fetches: it has so many records more than at its last fetch.
    Fetch {
        broker: i32,
        gains: i64,
    },
    /// A follower is replaced by an empty one with a new epoch.
    Wipe {
        broker: i32,
    },
    Fence {
        broker: i32,
        fenced: bool,
    },
    Time(u64),
    Lease(bool),
    /// The controller decides the oldest proposal; the answer arrives or is lost.
    Decide {
        arrives: bool,
    },
    /// The image of now reaches the leader.
    Image,
    MinIsr(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let broker = prop_oneof![Just(2), Just(3)];
    prop_oneof![
        4 => (1..5i64).prop_map(Event::Append),
        8 => (broker.clone(), 0..8i64).prop_map(|(broker, gains)| Event::Fetch { broker, gains }),
        1 => broker.clone().prop_map(|broker| Event::Wipe { broker }),
        1 => (broker, any::<bool>()).prop_map(|(broker, fenced)| Event::Fence { broker, fenced }),
        3 => (1..700u64).prop_map(Event::Time),
        1 => prop::bool::weighted(0.8).prop_map(Event::Lease),
        4 => any::<bool>().prop_map(|arrives| Event::Decide { arrives }),
        3 => Just(Event::Image),
        1 => (1..4usize).prop_map(Event::MinIsr),
    ]
}

/// The controller's truth.
struct Controller {
    partition_epoch: i32,
    isr: Vec<i32>,
    epochs: [i64; 4],
    fenced: [bool; 4],
}

struct World {
    machine: PartitionMachine,
    controller: Controller,
    proposals: Vec<(Vec<IsrMember>, i32)>,
    /// What each broker really holds.
    log_end: [i64; 4],
    now: u64,
    has_lease: bool,
    min_isr: usize,
    out: Effects,
}

impl World {
    fn new() -> Self {
        let options = MachineOptions { lag_ms_max: 1_000, min_insync_replicas: 2, synced_only: false };
        let mut world = Self {
            machine: PartitionMachine::new(1, options, 3),
            controller: Controller {
                partition_epoch: 0,
                isr: vec![1, 2, 3],
                epochs: [10; 4],
                fenced: [false; 4],
            },
            proposals: Vec::new(),
            log_end: [0, 5, 4, 3],
            now: 1,
            has_lease: true,
            min_isr: 2,
            out: Effects::new(),
        };
        world.image();
        world
    }

    fn step(&mut self, input: Input) {
        let now = self.clock();
        let before = self.machine.high_watermark();
        self.out.clear();
        self.machine.step(now, input, &mut self.out);
        let after = self.machine.high_watermark();
        assert!(after >= before, "I40: the watermark never goes back");
        if after > before {
            assert!(self.has_lease, "I44: no lease, no progress");
            let min = self.min_isr.min(BROKERS.len());
            assert!(self.machine.isr().len() >= min, "I45: frozen under min ISR");
            for broker in self.machine.maximal_isr() {
                let held = self.log_end[usize::try_from(broker).unwrap()];
                let wiped = self.is_gone(broker);
                assert!(
                    held >= after || wiped,
                    "I46: {broker} of the maximal ISR holds only {held} of {after}"
                );
            }
        }
        for effect in std::mem::take(&mut self.out) {
            if let Effect::ProposeIsr { isr, partition_epoch, .. } = effect {
                assert!(self.has_lease, "a deposed leader proposes nothing");
                for member in &isr {
                    if member.broker != 1 && !self.machine.isr().contains(&member.broker) {
                        self.check_joins(*member);
                    }
                }
                self.proposals.push((isr, partition_epoch));
            }
        }
    }

    /// The leader cannot know yet that the broker was replaced: it has not fetched since.
    fn is_gone(&self, broker: i32) -> bool {
        broker != 1
            && self.machine.followers().any(|known| {
                known.broker == broker
                    && known.broker_epoch != self.controller.epochs[usize::try_from(broker).unwrap()]
            })
    }

    fn check_joins(&self, member: IsrMember) {
        let known = self.machine.followers().find(|known| known.broker == member.broker).unwrap();
        if member.broker_epoch < known.broker_epoch {
            return; // Sent again, for an incarnation that is gone: the controller refuses it by that epoch.
        }
        let least = self.machine.high_watermark().max(self.machine.leader_epoch_start_offset().unwrap());
        assert!(known.log_end >= least, "I47: {} of {least}", known.log_end);
        assert_eq!(known.broker_epoch, member.broker_epoch);
    }

    fn clock(&self) -> Now {
        Now { ms: self.now, lease_until_ms: if self.has_lease { u64::MAX } else { 0 } }
    }

    fn image(&mut self) {
        self.step(Input::Assigned(Assignment {
            leader: 1,
            leader_epoch: 7,
            partition_epoch: self.controller.partition_epoch,
            replicas: BROKERS.to_vec(),
            isr: self.controller.isr.clone(),
            log_start: 0,
            log_end: self.log_end[1],
            synced_end: 0,
        }));
    }

    fn decide(&mut self, arrives: bool) {
        if self.proposals.is_empty() {
            return;
        }
        let (isr, partition_epoch) = self.proposals.remove(0);
        let controller = &mut self.controller;
        let is_eligible = |member: &IsrMember| {
            let at = usize::try_from(member.broker).unwrap();
            member.broker == 1
                || !controller.fenced[at]
                    && (member.broker_epoch == -1 || member.broker_epoch == controller.epochs[at])
        };
        let state = |controller: &Controller| IsrState {
            leader_epoch: 7,
            partition_epoch: controller.partition_epoch,
            isr: controller.isr.clone(),
        };
        let answer = if partition_epoch != controller.partition_epoch {
            IsrAnswer::Outdated(arrives.then(|| state(controller)))
        } else if !isr.iter().all(is_eligible) {
            IsrAnswer::Ineligible
        } else {
            controller.partition_epoch += 1;
            controller.isr = isr.iter().map(|member| member.broker).collect();
            IsrAnswer::Accepted(state(controller))
        };
        let answer = if arrives { answer } else { IsrAnswer::Unknown };
        self.step(Input::IsrAnswered { leader_epoch: 7, partition_epoch, answer });
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Append(count) => {
                self.log_end[1] += count;
                self.step(Input::Appended { log_end: self.log_end[1] });
            }
            Event::Fetch { broker, gains } => {
                let at = usize::try_from(broker).unwrap();
                self.log_end[at] = (self.log_end[at] + gains).min(self.log_end[1]);
                self.step(Input::FollowerFetched {
                    broker,
                    broker_epoch: self.controller.epochs[at],
                    fetch_offset: self.log_end[at],
                    log_start: 0,
                    eligible: !self.controller.fenced[at],
                });
            }
            Event::Wipe { broker } => {
                let at = usize::try_from(broker).unwrap();
                self.controller.epochs[at] += 1;
                self.log_end[at] = 0;
                self.fence(broker, true);
            }
            Event::Fence { broker, fenced } => self.fence(broker, fenced),
            Event::Time(ms) => {
                self.now += ms;
                self.step(Input::Tick);
            }
            Event::Lease(has_lease) => {
                self.has_lease = has_lease;
                self.step(Input::Tick);
            }
            Event::Decide { arrives } => self.decide(arrives),
            Event::Image => self.image(),
            Event::MinIsr(min_insync_replicas) => {
                self.min_isr = min_insync_replicas;
                let options = MachineOptions { lag_ms_max: 1_000, min_insync_replicas, synced_only: false };
                self.step(Input::Options(options));
            }
        }
        self.check_acks();
    }

    /// A fenced broker leaves the ISR with the same record.
    fn fence(&mut self, broker: i32, fenced: bool) {
        let at = usize::try_from(broker).unwrap();
        self.controller.fenced[at] = fenced;
        if fenced && self.controller.isr.contains(&broker) {
            self.controller.isr.retain(|other| *other != broker);
            self.controller.partition_epoch += 1;
        }
        let broker_epoch = self.controller.epochs[at];
        self.step(Input::BrokerChanged { broker, broker_epoch, eligible: !fenced });
    }

    /// Who wins the next election (anyone whom the controller has in the ISR) has all that is committed: I39 in small.
    fn check_acks(&self) {
        let committed = self.machine.high_watermark();
        for &broker in &self.controller.isr {
            let at = usize::try_from(broker).unwrap();
            assert!(
                self.log_end[at] >= committed,
                "broker {broker} may lead with {} of {committed}",
                self.log_end[at]
            );
        }
        if !self.has_lease {
            assert_eq!(self.machine.ack_state(self.clock(), 7, 0), AckState::Pending);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_over_random_schedules(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
        }
    }

    #[test]
    fn a_quiet_cluster_comes_to_a_full_isr_and_a_full_watermark(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
        }
        world.apply(Event::Lease(true));
        world.apply(Event::MinIsr(2));
        for broker in [2, 3] {
            world.apply(Event::Fence { broker, fenced: false });
        }
        for _ in 0..20 {
            for broker in [2, 3] {
                world.apply(Event::Fetch { broker, gains: i64::from(i32::MAX) });
            }
            world.apply(Event::Time(600));
            world.apply(Event::Decide { arrives: true });
            world.apply(Event::Image);
        }
        prop_assert_eq!(world.machine.isr().len(), 3);
        prop_assert_eq!(world.machine.high_watermark(), world.log_end[1]);
    }
}
