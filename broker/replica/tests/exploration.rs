//! Every schedule of a short length over a small set of events: what random schedules might miss.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ottla_replica::{
    Assignment, Effect, Effects, Input, IsrAnswer, IsrState, MachineOptions, Now, PartitionMachine,
};

const DEPTH: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Append,
    Fetch(i32),
    Late,
    Accept,
    Refuse,
    Lose,
    Shrunk,
}

const EVENTS: [Event; 8] = [
    Event::Append,
    Event::Fetch(2),
    Event::Fetch(3),
    Event::Late,
    Event::Accept,
    Event::Refuse,
    Event::Lose,
    Event::Shrunk,
];

/// One leader with the truth beside it. Followers have what they fetched.
struct World {
    machine: PartitionMachine,
    held: [i64; 4],
    controller_epoch: i32,
    controller_isr: Vec<i32>,
    proposal: Option<(Vec<i32>, i32)>,
    now: u64,
}

fn run(schedule: &[Event]) {
    let options = MachineOptions { lag_ms_max: 100, min_insync_replicas: 2, synced_only: false };
    let mut world = World {
        machine: PartitionMachine::new(1, options, 0),
        held: [0, 1, 0, 0],
        controller_epoch: 0,
        controller_isr: vec![1, 2],
        proposal: None,
        now: 1,
    };
    world.image();
    for &event in schedule {
        world.apply(event);
        let committed = world.machine.high_watermark();
        for &broker in &world.controller_isr {
            let held = world.held[usize::try_from(broker).unwrap()];
            assert!(held >= committed, "{schedule:?}: broker {broker} could lead with {held} of {committed}");
        }
    }
}

impl World {
    fn step(&mut self, input: Input) {
        let mut out = Effects::new();
        let before = self.machine.high_watermark();
        self.machine.step(Now { ms: self.now, lease_until_ms: u64::MAX }, input, &mut out);
        assert!(self.machine.high_watermark() >= before);
        for effect in out {
            if let Effect::ProposeIsr { isr, partition_epoch, .. } = effect {
                self.proposal = Some((isr.iter().map(|member| member.broker).collect(), partition_epoch));
            }
        }
    }

    fn image(&mut self) {
        self.step(Input::Assigned(Assignment {
            leader: 1,
            leader_epoch: 0,
            partition_epoch: self.controller_epoch,
            replicas: vec![1, 2, 3],
            isr: self.controller_isr.clone(),
            log_start: 0,
            log_end: self.held[1],
            synced_end: 0,
        }));
    }

    fn answer(&mut self, partition_epoch: i32, answer: IsrAnswer) {
        self.step(Input::IsrAnswered { leader_epoch: 0, partition_epoch, answer });
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Append => {
                self.held[1] += 1;
                self.step(Input::Appended { log_end: self.held[1] });
            }
            Event::Fetch(broker) => {
                let at = usize::try_from(broker).unwrap();
                // The fetch says what it had; the answer brings the rest.
                let fetch_offset = self.held[at];
                self.step(Input::FollowerFetched {
                    broker,
                    broker_epoch: 1,
                    fetch_offset,
                    log_start: 0,
                    eligible: true,
                });
                self.held[at] = self.held[1];
            }
            Event::Late => {
                self.now += 101;
                self.step(Input::Tick);
            }
            Event::Accept | Event::Lose => {
                let Some((isr, partition_epoch)) = self.proposal.take() else { return };
                if partition_epoch != self.controller_epoch {
                    self.answer(partition_epoch, IsrAnswer::Outdated(None));
                    return;
                }
                self.controller_epoch += 1;
                self.controller_isr.clone_from(&isr);
                let state = IsrState { leader_epoch: 0, partition_epoch: self.controller_epoch, isr };
                let lost = event == Event::Lose;
                self.answer(
                    partition_epoch,
                    if lost { IsrAnswer::Unknown } else { IsrAnswer::Accepted(state) },
                );
            }
            Event::Refuse => {
                if let Some((_, partition_epoch)) = self.proposal.take() {
                    self.answer(partition_epoch, IsrAnswer::Ineligible);
                }
            }
            Event::Shrunk => {
                // The controller fences broker 2; the image is on its way and arrives with the next event of this kind.
                if self.controller_isr.contains(&2) {
                    self.controller_isr.retain(|broker| *broker != 2);
                    self.controller_epoch += 1;
                } else {
                    self.image();
                }
            }
        }
    }
}

#[test]
fn no_schedule_lets_a_possible_leader_miss_what_is_committed() {
    let mut schedule = Vec::with_capacity(DEPTH);
    let total = EVENTS.len().pow(u32::try_from(DEPTH).unwrap());
    for number in 0..total {
        schedule.clear();
        let mut rest = number;
        for _ in 0..DEPTH {
            schedule.push(EVENTS[rest % EVENTS.len()]);
            rest /= EVENTS.len();
        }
        run(&schedule);
    }
}
