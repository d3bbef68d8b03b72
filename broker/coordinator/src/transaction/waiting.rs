//! Additions of partitions that wait for an earlier change of their transactional id.
//!
//! With transactions version 2 (KIP-890) a producer begins its next transaction as soon as the end of the last one is
//! decided, and brokers add partitions for it, several at a time. Told CONCURRENT_TRANSACTIONS they could only ask again
//! and again. So those that say how long they can wait are kept, and those of one producer are written together.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{AddPartitions, Effects, Reply};
use super::decide::{Decision, Transition};
use super::{Then, TransactionCoordinator};
use crate::group::{Now, RequestToken};

/// Additions that wait for one id. One more is told CONCURRENT_TRANSACTIONS.
pub const WAITING_ADDITIONS_MAX: usize = 256;

/// An addition that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    tokens: Vec<RequestToken>,
    command: AddPartitions,
    until_ms: u64,
}

impl Waiter {
    fn is_of_same_producer(&self, other: &Self) -> bool {
        let identity = |waiter: &Self| {
            let command = &waiter.command;
            (command.producer_id, command.producer_epoch, command.client_version)
        };
        identity(self) == identity(other)
    }
}

impl TransactionCoordinator {
    /// Keeps an addition that comes too early, if it can wait; else false.
    pub(super) fn wait(&mut self, now: Now, token: RequestToken, command: &AddPartitions) -> bool {
        if command.wait_ms_max == 0 {
            return false;
        }
        let id = command.transactional_id.detached();
        // What waits outlives its request's frame.
        let mut command = AddPartitions { transactional_id: id.clone(), ..command.clone() };
        for partition in &mut command.partitions {
            partition.topic = partition.topic.detached();
        }
        let waiters = &mut self.live.entry(id.clone()).or_default().waiters;
        if waiters.len() >= WAITING_ADDITIONS_MAX {
            return false;
        }
        let until_ms = now.monotonic_ms.saturating_add(command.wait_ms_max);
        waiters.push(Waiter { tokens: vec![token], command, until_ms });
        self.waiting_until.insert((until_ms, id));
        true
    }

    /// Nothing is on its way for the id any more: those who waited have their turn, all of one producer together.
    pub(super) fn serve_waiters(&mut self, now: Now, id: &Text, effects: &mut Effects) {
        let is_prepared = self.durable.transaction(id).is_some_and(|found| found.state.is_prepared());
        let Some(live) = self.live.get_mut(id).filter(|live| !is_prepared && !live.is_changing) else {
            return;
        };
        let mut merged: Vec<Waiter> = Vec::new();
        for waiter in std::mem::take(&mut live.waiters) {
            self.waiting_until.remove(&(waiter.until_ms, id.clone()));
            match merged.iter_mut().find(|other| other.is_of_same_producer(&waiter)) {
                Some(other) => {
                    other.tokens.extend(waiter.tokens);
                    other.command.partitions.extend(waiter.command.partitions);
                }
                None => merged.push(waiter),
            }
        }
        for Waiter { tokens, command, .. } in merged {
            let refuse = |error| Reply::AddPartitions(error);
            match self.view(now, id).add_partitions(&command) {
                Err(error) => effects.replies.extend(tokens.into_iter().map(|token| (token, refuse(error)))),
                Ok(Decision::Answer(reply)) => {
                    effects.replies.extend(tokens.into_iter().map(|token| (token, reply)));
                }
                Ok(Decision::Write(transition)) => self.write_for(tokens, id, transition, effects),
            }
        }
    }

    /// Whoever has waited long enough is told that it came too early.
    pub(super) fn end_waits(&mut self, now: Now, effects: &mut Effects) {
        while let Some((until_ms, id)) = self.waiting_until.pop_first() {
            if until_ms > now.monotonic_ms {
                self.waiting_until.insert((until_ms, id));
                return;
            }
            if let Some(live) = self.live.get_mut(&id) {
                live.waiters.retain(|waiter| {
                    let waits = waiter.until_ms > now.monotonic_ms;
                    if !waits {
                        let too_early = Reply::AddPartitions(ErrorCode::ConcurrentTransactions);
                        effects.replies.extend(waiter.tokens.iter().map(|token| (*token, too_early)));
                    }
                    waits
                });
            }
            self.drop_if_nothing(&id);
        }
    }

    /// Leadership is lost.
    pub(super) fn send_waiters_away(&mut self, effects: &mut Effects) {
        let gone = Reply::AddPartitions(ErrorCode::NotCoordinator);
        for waiter in self.live.values_mut().flat_map(|live| std::mem::take(&mut live.waiters)) {
            effects.replies.extend(waiter.tokens.iter().map(|token| (*token, gone)));
        }
        self.waiting_until.clear();
    }

    /// Appends a change that several requests asked for.
    pub(super) fn write_for(
        &mut self,
        tokens: Vec<RequestToken>,
        id: &Text,
        transition: Transition,
        effects: &mut Effects,
    ) {
        let Transition { next, last_producer_epoch, reply } = transition;
        let refused = reply.failed(ErrorCode::UnknownServerError);
        let told = tokens.clone();
        if !self.write(id, &next, Then::Reply { tokens, reply, last_producer_epoch }, effects) {
            effects.replies.extend(told.into_iter().map(|token| (token, refused)));
        }
    }
}
