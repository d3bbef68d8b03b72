//! Fixed histories: the way to a place from which everything is tried, or a whole story that shows what a rule is for.

use super::events::Event;
use super::world::{Message, World};

/// A step of a script. Brokers are named by their ids. A step that cannot happen (because a rule forbids it) is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A record reaches this leader.
    Append(i32),
    /// A follower asks and is answered.
    Fetch(i32),
    /// A follower asks; the request comes with [`Step::DeliverFetch`].
    FetchLate(i32),
    /// The late fetch of this follower comes.
    DeliverFetch(i32),
    /// The proposal that its leader still waits for comes to the controller.
    DeliverProposal,
    /// A proposal that its leader has given up comes to the controller.
    DeliverLateProposal,
    /// The controller's answer comes to the leader.
    DeliverAnswer,
    /// The leader waits for its proposal no more.
    BreakProposal(i32),
    /// A broker applies all images that there are.
    Apply(i32),
    /// Time for the leader to look around.
    Tick(i32),
    /// A heartbeat and its answer.
    Heartbeat(i32),
    /// The lease runs out and the process goes on.
    LeaseEnds(i32),
    /// The controller fences a broker without a lease.
    Fence(i32),
    /// The process ends.
    Kill(i32),
    /// The process ends and the log keeps so many records.
    PowerLoss(i32, i64),
    /// Another process starts.
    Restart(i32),
    /// Leadership goes home.
    Rebalance,
    /// `replica.lag.time.max.ms` passes.
    Lag,
}

impl World {
    /// Follows a script, checking as it goes: the first broken rule, and the steps that could not happen.
    pub(super) fn follow(&mut self, script: &[Step]) -> (Result<(), String>, Vec<Step>) {
        let mut left_out = Vec::new();
        for step in script {
            let events = self.events_of(*step);
            if events.is_empty() {
                left_out.push(*step);
            }
            for event in events {
                self.happen(&event);
                if let Err(problem) = self.check() {
                    return (Err(problem), left_out);
                }
            }
        }
        (Ok(()), left_out)
    }

    /// The events that a step stands for, as far as they can happen now.
    fn events_of(&self, step: Step) -> Vec<Event> {
        let event = match step {
            Step::Apply(id) => {
                let index = usize::try_from(id - 1).unwrap_or(0);
                let behind = self.images.len() - 1 - self.brokers[index].applied;
                let count = if self.brokers[index].is_running { behind } else { 0 };
                return vec![Event::ApplyNext(id); count];
            }
            Step::DeliverFetch(id) => {
                let is_it = |message: &&Message| matches!(message, Message::LateFetch { request, .. } if request.broker == id);
                return self.delivery(is_it);
            }
            Step::DeliverProposal => {
                return self.delivery(|message| matches!(message, Message::Propose { is_awaited: true, .. }));
            }
            Step::DeliverLateProposal => {
                return self
                    .delivery(|message| matches!(message, Message::Propose { is_awaited: false, .. }));
            }
            Step::DeliverAnswer => {
                return self.delivery(|message| matches!(message, Message::Proposed { .. }));
            }
            Step::Append(id) => Event::Append(id),
            Step::Fetch(id) => Event::Fetch(id),
            Step::FetchLate(id) => Event::FetchLate(id),
            Step::BreakProposal(id) => Event::BreakProposal(id),
            Step::Tick(id) => Event::Tick(id),
            Step::Heartbeat(id) => Event::Heartbeat(id),
            Step::LeaseEnds(id) => Event::LeaseEnds(id),
            Step::Fence(id) => Event::Fence(id),
            Step::Kill(id) => Event::Kill(id),
            Step::PowerLoss(id, keep) => Event::PowerLoss(id, keep),
            Step::Restart(id) => Event::Restart(id),
            Step::Rebalance => Event::Rebalance,
            Step::Lag => Event::LagPasses,
        };
        if self.events().contains(&event) { vec![event] } else { Vec::new() }
    }

    fn delivery(&self, is_it: impl FnMut(&&Message) -> bool) -> Vec<Event> {
        self.network.iter().find(is_it).map(|message| Event::Deliver(message.clone())).into_iter().collect()
    }
}
