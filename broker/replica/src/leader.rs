//! What a leader knows: how far its followers are, which ISR is committed, which one it asked for.

use crate::partition::{Assignment, Effect, Effects, IsrAnswer, IsrState, Now};

/// After `INELIGIBLE_REPLICA` the same follower is not proposed again for this long: the image, which is late, would
/// otherwise have it proposed at every fetch.
const INELIGIBLE_RETRY_MS: u64 = 500;

/// A member of a proposed ISR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IsrMember {
    /// Its id.
    pub broker: i32,
    /// The broker epoch with which it last fetched; -1: not known, or the leader itself (the shell fills that in).
    pub broker_epoch: i64,
}

/// A follower as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerView {
    /// Its id.
    pub broker: i32,
    /// The broker epoch with which it last fetched; -1: not known.
    pub broker_epoch: i64,
    /// Its next offset; -1: not known.
    pub log_end: i64,
    /// First offset of its log; -1: not known.
    pub log_start: i64,
    /// When it last had all of the leader's log; 0: not in this leader's time.
    pub last_caught_up_ms: u64,
    /// When it last fetched; 0: not in this leader's time.
    pub last_fetch_ms: u64,
    /// Member of the committed ISR.
    pub in_isr: bool,
}

/// A follower's progress. Soft: a new leader learns it from the next fetches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    pub(crate) broker: i32,
    broker_epoch: i64,
    log_end: i64,
    log_start: i64,
    last_caught_up_ms: u64,
    last_fetch_ms: u64,
    /// The leader's log end at the last fetch: who reaches it with the next one was caught up at the time of the last.
    leader_end_at_fetch: i64,
    eligible: bool,
    /// No proposal with it before this time.
    propose_after_ms: u64,
}

/// The proposal that waits for the controller or for the image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pending {
    None,
    /// Asked for more members: they count at once, because the controller may have let them in already.
    Expand {
        isr: Vec<IsrMember>,
        sent: Sent,
    },
    /// Asked for fewer: the committed ones count until the controller says so.
    Shrink {
        isr: Vec<IsrMember>,
        sent: Sent,
    },
}

/// Where a proposal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sent {
    /// With the controller.
    InFlight,
    /// Not answered; the next tick sends it again.
    Again,
    /// Refused as outdated; only the image ends it.
    WaitsForImage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    broker_id: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) partition_epoch: i32,
    pub(crate) epoch_start_offset: i64,
    pub(crate) isr: Vec<i32>,
    pub(crate) pending: Pending,
    pub(crate) followers: Vec<Progress>,
}

impl Leader {
    pub(crate) fn new(now_ms: u64, broker_id: i32, assignment: &Assignment) -> Self {
        let mut leader = Self {
            broker_id,
            leader_epoch: assignment.leader_epoch,
            partition_epoch: assignment.partition_epoch,
            epoch_start_offset: assignment.log_end,
            isr: assignment.isr.clone(),
            pending: Pending::None,
            followers: Vec::new(),
        };
        leader.set_replicas(&assignment.replicas, now_ms);
        leader
    }

    fn set_replicas(&mut self, replicas: &[i32], now_ms: u64) {
        self.followers.retain(|follower| replicas.contains(&follower.broker));
        for &broker in replicas {
            if broker == self.broker_id || self.followers.iter().any(|follower| follower.broker == broker) {
                continue;
            }
            // A member of the ISR gets the whole lag time to show up; others have to show that they are caught up.
            let last_caught_up_ms = if self.isr.contains(&broker) { now_ms.max(1) } else { 0 };
            self.followers.push(Progress {
                broker,
                broker_epoch: -1,
                log_end: -1,
                log_start: -1,
                last_caught_up_ms,
                last_fetch_ms: 0,
                leader_end_at_fetch: -1,
                eligible: false,
                propose_after_ms: 0,
            });
        }
    }

    /// The image moved on in the same leader epoch.
    pub(crate) fn image_changed(
        &mut self,
        partition_epoch: i32,
        isr: Vec<i32>,
        replicas: &[i32],
        now_ms: u64,
        out: &mut Effects,
    ) {
        if partition_epoch > self.partition_epoch {
            if isr == self.isr {
                // The controller refused a member and voided the proposal; its answer is still on its way.
                self.revert(now_ms);
            }
            let leader_epoch = self.leader_epoch;
            self.commit(IsrState { leader_epoch, partition_epoch, isr }, out);
        }
        self.set_replicas(replicas, now_ms);
    }

    /// Takes over a committed ISR; whatever was proposed on an older one is void.
    fn commit(&mut self, state: IsrState, out: &mut Effects) {
        let expanded = state.isr.iter().filter(|broker| !self.isr.contains(broker)).count();
        let shrunk = self.isr.iter().filter(|broker| !state.isr.contains(broker)).count();
        if expanded > 0 {
            out.push(Effect::IsrExpanded(expanded));
        }
        if shrunk > 0 {
            out.push(Effect::IsrShrunk(shrunk));
        }
        self.partition_epoch = state.partition_epoch;
        self.isr = state.isr;
        self.pending = Pending::None;
    }

    /// Notes a follower's fetch; false: a stranger, or an earlier incarnation of the follower.
    #[allow(clippy::too_many_arguments, reason = "the fields of one fetch")]
    pub(crate) fn fetched(
        &mut self,
        now_ms: u64,
        broker: i32,
        broker_epoch: i64,
        offset: i64,
        log_start: i64,
        leader_end: i64,
        eligible: bool,
    ) -> bool {
        let Some(follower) = self.followers.iter_mut().find(|follower| follower.broker == broker) else {
            return false;
        };
        if broker_epoch < follower.broker_epoch {
            return false;
        }
        if offset >= leader_end {
            follower.last_caught_up_ms = follower.last_caught_up_ms.max(now_ms);
        } else if follower.leader_end_at_fetch >= 0 && offset >= follower.leader_end_at_fetch {
            follower.last_caught_up_ms = follower.last_caught_up_ms.max(follower.last_fetch_ms);
        }
        follower.broker_epoch = broker_epoch;
        follower.log_end = offset;
        follower.log_start = log_start;
        follower.last_fetch_ms = now_ms;
        follower.leader_end_at_fetch = leader_end;
        follower.eligible = eligible;
        true
    }

    /// The log is about to be longer than `before`: who had all of it was caught up until now. A follower of an idle
    /// partition does not fetch it again and again to say so.
    pub(crate) fn log_grew(&mut self, now_ms: u64, before: i64) {
        for follower in &mut self.followers {
            if follower.log_end == before {
                follower.last_caught_up_ms = follower.last_caught_up_ms.max(now_ms);
            }
        }
    }

    pub(crate) fn broker_changed(&mut self, broker: i32, broker_epoch: i64, eligible: bool) {
        if let Some(follower) = self.followers.iter_mut().find(|follower| follower.broker == broker) {
            // What is known was said by the incarnation with this epoch, or it is void (KIP-903).
            follower.eligible =
                eligible && (follower.broker_epoch == broker_epoch || follower.broker_epoch == -1);
        }
    }

    pub(crate) fn maximal_isr(&self) -> impl Iterator<Item = i32> + '_ {
        let joining = match &self.pending {
            Pending::Expand { isr, .. } => isr.as_slice(),
            _ => &[],
        };
        let added = joining.iter().map(|member| member.broker).filter(|broker| !self.isr.contains(broker));
        self.isr.iter().copied().chain(added)
    }

    fn in_maximal_isr(&self, broker: i32) -> bool {
        self.isr.contains(&broker)
            || matches!(&self.pending, Pending::Expand { isr, .. } if isr.iter().any(|member| member.broker == broker))
    }

    /// Least log end over the maximal ISR, and over followers that are caught up and about to join: without them the
    /// watermark would run ahead of a fast follower for ever.
    pub(crate) fn least_log_end(&self, now_ms: u64, own_end: i64, leader_end: i64, lag_ms_max: u64) -> i64 {
        let mut least = own_end;
        for follower in &self.followers {
            let waits_to_join = || follower.eligible && follower.is_caught_up(now_ms, leader_end, lag_ms_max);
            if follower.log_end < least && (self.in_maximal_isr(follower.broker) || waits_to_join()) {
                least = follower.log_end;
            }
        }
        least
    }

    pub(crate) fn try_expand(&mut self, now: Now, broker: i32, high_watermark: i64, out: &mut Effects) {
        if !matches!(self.pending, Pending::None) || !now.has_lease() || self.isr.contains(&broker) {
            return;
        }
        if !self.may_join(now.ms, broker, high_watermark) {
            return;
        }
        // One proposal for all that may join: each costs the partition a round trip to the controller.
        let joining = self.followers.iter().map(|follower| follower.broker).filter(|&other| {
            !self.isr.contains(&other) && (other == broker || self.may_join(now.ms, other, high_watermark))
        });
        let members: Vec<i32> = self.isr.iter().copied().chain(joining).collect();
        let isr = self.members(&members);
        self.propose(&isr, out);
        self.pending = Pending::Expand { isr, sent: Sent::InFlight };
    }

    /// A replica joins when it has all that is committed, and all that the leader had when its epoch began: what lies
    /// before that may have been committed under an earlier leader.
    fn may_join(&self, now_ms: u64, broker: i32, high_watermark: i64) -> bool {
        let least = high_watermark.max(self.epoch_start_offset);
        self.followers.iter().any(|follower| {
            follower.broker == broker
                && follower.eligible
                && follower.log_end >= least
                && now_ms >= follower.propose_after_ms
        })
    }

    pub(crate) fn try_expand_any(&mut self, now: Now, high_watermark: i64, out: &mut Effects) {
        for index in 0..self.followers.len() {
            let broker = self.followers[index].broker;
            self.try_expand(now, broker, high_watermark, out);
        }
    }

    pub(crate) fn try_shrink(&mut self, now_ms: u64, leader_end: i64, lag_ms_max: u64, out: &mut Effects) {
        if !matches!(self.pending, Pending::None) {
            return;
        }
        let lags = |broker: i32| {
            self.followers.iter().any(|follower| {
                follower.broker == broker && !follower.is_caught_up(now_ms, leader_end, lag_ms_max)
            })
        };
        let members: Vec<i32> = self.isr.iter().copied().filter(|broker| !lags(*broker)).collect();
        if members.len() == self.isr.len() {
            return;
        }
        let isr = self.members(&members);
        self.propose(&isr, out);
        self.pending = Pending::Shrink { isr, sent: Sent::InFlight };
    }

    /// Sends a proposal again whose fate is not known. The compare-and-set makes that harmless.
    pub(crate) fn propose_again(&mut self, out: &mut Effects) {
        let isr = match &mut self.pending {
            Pending::Expand { isr, sent } | Pending::Shrink { isr, sent } if *sent == Sent::Again => {
                *sent = Sent::InFlight;
                isr.clone()
            }
            _ => return,
        };
        self.propose(&isr, out);
    }

    fn members(&self, brokers: &[i32]) -> Vec<IsrMember> {
        let epoch_of = |broker: i32| {
            self.followers
                .iter()
                .find(|follower| follower.broker == broker)
                .map_or(-1, |found| found.broker_epoch)
        };
        brokers.iter().map(|&broker| IsrMember { broker, broker_epoch: epoch_of(broker) }).collect()
    }

    fn propose(&self, isr: &[IsrMember], out: &mut Effects) {
        out.push(Effect::ProposeIsr {
            isr: isr.to_vec(),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
        });
    }

    pub(crate) fn answered(
        &mut self,
        now_ms: u64,
        leader_epoch: i32,
        partition_epoch: i32,
        answer: IsrAnswer,
        out: &mut Effects,
    ) {
        if leader_epoch != self.leader_epoch || partition_epoch != self.partition_epoch {
            return; // The image has moved on since; the proposal is void.
        }
        match answer {
            IsrAnswer::Accepted(state) => {
                if state.leader_epoch == self.leader_epoch && state.partition_epoch >= self.partition_epoch {
                    self.commit(state, out);
                }
            }
            IsrAnswer::Outdated(Some(state))
                if state.leader_epoch == self.leader_epoch
                    && state.partition_epoch > self.partition_epoch =>
            {
                self.commit(state, out);
            }
            IsrAnswer::Outdated(_) => self.set_sent(Sent::WaitsForImage),
            IsrAnswer::Unknown => self.set_sent(Sent::Again),
            IsrAnswer::Ineligible => self.revert(now_ms),
        }
    }

    fn set_sent(&mut self, to: Sent) {
        if let Pending::Expand { sent, .. } | Pending::Shrink { sent, .. } = &mut self.pending {
            *sent = to;
        }
    }

    /// Back to the last committed ISR (KIP-841).
    fn revert(&mut self, now_ms: u64) {
        if let Pending::Expand { isr, .. } = std::mem::replace(&mut self.pending, Pending::None) {
            for follower in &mut self.followers {
                if isr.iter().any(|member| member.broker == follower.broker) {
                    follower.propose_after_ms = now_ms.saturating_add(INELIGIBLE_RETRY_MS);
                }
            }
        }
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = FollowerView> + '_ {
        self.followers.iter().map(|follower| FollowerView {
            broker: follower.broker,
            broker_epoch: follower.broker_epoch,
            log_end: follower.log_end,
            log_start: follower.log_start,
            last_caught_up_ms: follower.last_caught_up_ms,
            last_fetch_ms: follower.last_fetch_ms,
            in_isr: self.isr.contains(&follower.broker),
        })
    }
}

impl Progress {
    fn is_caught_up(&self, now_ms: u64, leader_end: i64, lag_ms_max: u64) -> bool {
        self.log_end == leader_end
            || (self.last_caught_up_ms > 0 && now_ms.saturating_sub(self.last_caught_up_ms) <= lag_ms_max)
    }
}
