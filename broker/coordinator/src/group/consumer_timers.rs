//! Timers of consumer and streams groups: when a member is given up, when what it should have let go of is taken away, and
//! that none outlives what it is for.

use std::collections::BTreeMap;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::Turn;
use super::consumer::LiveConsumer;
use super::member::{LiveGroup, milliseconds};
use super::streams::LiveStreams;
use super::timers::{Deadline, TimerKey, TimerKind};
use crate::consumer_group::MemberState;

/// The timers of a group that is no classic one.
fn timers_of<'a>(
    consumer: &'a mut Option<Box<LiveConsumer>>,
    streams: &'a mut Option<Box<LiveStreams>>,
) -> Option<&'a mut BTreeMap<TimerKind, Deadline>> {
    let of_streams = streams.as_mut().map(|streams| &mut streams.timers);
    consumer.as_mut().map(|consumer| &mut consumer.timers).or(of_streams)
}

impl LiveGroup {
    /// Of a group that is no classic one.
    pub(super) fn timers(&self) -> Option<&BTreeMap<TimerKind, Deadline>> {
        let of_streams = self.streams.as_ref().map(|streams| &streams.timers);
        self.consumer.as_ref().map(|consumer| &consumer.timers).or(of_streams)
    }
}

impl Turn<'_> {
    /// A timer's entry of a consumer group came up.
    pub(super) fn consumer_timer_up(&mut self, group: &mut LiveGroup, key: TimerKey) {
        let Some(timers) = timers_of(&mut group.consumer, &mut group.streams) else { return };
        let kind = key.kind.clone();
        let Some(deadline) = timers.get_mut(&kind) else { return };
        if !self.machinery.timers.is_due(deadline, key, self.now.monotonic_ms) {
            return;
        }
        timers.remove(&kind);
        match kind {
            TimerKind::Session(member_id)
            | TimerKind::Revocation(member_id)
            | TimerKind::Rejoin(member_id)
            | TimerKind::Resync(member_id) => self.fence(group, &member_id),
            TimerKind::InitialRebalance => self.initial_rebalance(group),
            TimerKind::Join | TimerKind::Sync => {}
        }
    }

    pub(super) fn arm_consumer_timer(&mut self, group: &mut LiveGroup, kind: TimerKind, after_ms: u64) {
        let due_ms = self.now.monotonic_ms.saturating_add(after_ms);
        let Some(timers) = timers_of(&mut group.consumer, &mut group.streams) else { return };
        let deadline = timers.entry(kind.clone()).or_default();
        let id = &group.id;
        self.machinery.timers.arm(deadline, || TimerKey { group: id.clone(), kind }, due_ms);
    }

    pub(super) fn cancel_consumer_timer(&mut self, group: &mut LiveGroup, kind: TimerKind) {
        let Some(timers) = timers_of(&mut group.consumer, &mut group.streams) else { return };
        if let Some(mut deadline) = timers.remove(&kind) {
            let id = &group.id;
            self.machinery.timers.cancel(&mut deadline, || TimerKey { group: id.clone(), kind });
        }
    }

    pub(super) fn has_consumer_timer(group: &LiveGroup, kind: &TimerKind) -> bool {
        group.consumer.as_ref().is_some_and(|consumer| consumer.timers.contains_key(kind))
    }

    pub(super) fn cancel_member_timers(&mut self, group: &mut LiveGroup, member_id: &Text) {
        let kinds: [fn(Text) -> TimerKind; 4] =
            [TimerKind::Session, TimerKind::Revocation, TimerKind::Rejoin, TimerKind::Resync];
        for kind in kinds {
            self.cancel_consumer_timer(group, kind(member_id.clone()));
        }
    }

    /// The member showed a sign of life.
    pub(super) fn arm_session(&mut self, group: &mut LiveGroup, member_id: &Text) {
        if group.streams.is_some() {
            let timeout_ms = self.streams_config(&group.id).session_timeout_ms;
            self.arm_consumer_timer(group, TimerKind::Session(member_id.clone()), milliseconds(timeout_ms));
            return;
        }
        let member = group.consumer.as_ref().and_then(|consumer| consumer.group.members().get(member_id));
        let Some(member) = member else { return };
        let overrides = self.machinery.overrides.get(&group.id).copied().unwrap_or_default();
        let timeout_ms = match &member.metadata.classic {
            Some(classic) => classic.session_timeout_ms,
            None => overrides.session_timeout_ms.unwrap_or(self.config.consumer.session_timeout_ms),
        };
        self.arm_consumer_timer(group, TimerKind::Session(member_id.clone()), milliseconds(timeout_ms));
    }

    /// The member has its rebalance timeout to let go of what it has to; else it is taken out.
    pub(super) fn arm_revocation(&mut self, group: &mut LiveGroup, member_id: &Text) {
        let of_consumer = group.consumer.as_ref().and_then(|consumer| {
            let member = consumer.group.members().get(member_id)?;
            let revokes = member.current.state == MemberState::UnrevokedPartitions
                && !member.current.revoking.is_empty();
            Some((member.metadata.rebalance_timeout_ms, revokes))
        });
        let of_streams = group.streams.as_ref().and_then(|streams| {
            let member = streams.group.members().get(member_id)?;
            let revokes = member.current.state == MemberState::UnrevokedPartitions;
            Some((member.metadata.rebalance_timeout_ms, revokes))
        });
        let Some((timeout_ms, revokes)) = of_consumer.or(of_streams) else { return };
        let kind = TimerKind::Revocation(member_id.clone());
        if revokes {
            self.arm_consumer_timer(group, kind, milliseconds(timeout_ms));
        } else {
            self.cancel_consumer_timer(group, kind);
        }
    }

    /// Leadership begins, or the group is anew what the log has: every member has its timeouts from now on.
    pub(super) fn arm_consumer_timers(&mut self, group: &mut LiveGroup) {
        let of_consumer = group.consumer.iter().flat_map(|consumer| consumer.group.members().keys());
        let of_streams = group.streams.iter().flat_map(|streams| streams.group.members().keys());
        let members: Vec<Text> = of_consumer.chain(of_streams).cloned().collect();
        for member_id in members {
            self.arm_session(group, &member_id);
            self.arm_revocation(group, &member_id);
        }
    }

    /// Whoever waits is refused, and no timer is left.
    pub(super) fn drop_soft_state(&mut self, group: &mut LiveGroup, error: ErrorCode) {
        let members: Vec<Text> = group.members.keys().cloned().collect();
        for member_id in members {
            self.remove_member(group, &member_id, error);
        }
        for (member_id, mut deadline) in std::mem::take(&mut group.pending_members) {
            self.machinery.timers.cancel(&mut deadline, || group.session_key(&member_id));
        }
        self.cancel_sync_timer(group);
        self.cancel_join_timer(group);
        self.drop_share_sessions(group);
        if let Some(timers) = timers_of(&mut group.consumer, &mut group.streams) {
            for (kind, mut deadline) in std::mem::take(timers) {
                let id = &group.id;
                self.machinery.timers.cancel(&mut deadline, || TimerKey { group: id.clone(), kind });
            }
        }
    }
}
