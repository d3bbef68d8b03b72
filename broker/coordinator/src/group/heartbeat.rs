//! Heartbeat, and what happens without: a member that is silent for its session timeout is removed.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{Effects, Heartbeat, Now, Reply, RequestToken};
use super::member::{LiveGroup, milliseconds};
use super::{GroupCoordinator, GroupState, Turn};

impl GroupCoordinator {
    pub(super) fn heartbeat(
        &mut self,
        now: Now,
        token: RequestToken,
        command: &Heartbeat,
        effects: &mut Effects,
    ) {
        let error = if command.group_id.is_empty() {
            ErrorCode::InvalidGroupId
        } else {
            let found = self
                .with_group(now, effects, &command.group_id, |turn, group| turn.heartbeat(group, command));
            found.unwrap_or(ErrorCode::UnknownMemberId)
        };
        effects.replies.push((token, Reply::Heartbeat(error)));
    }
}

impl Turn<'_> {
    fn heartbeat(&mut self, group: &mut LiveGroup, command: &Heartbeat) -> ErrorCode {
        if group.consumer.is_some() {
            return self.beat_consumer_group(group, command).err().unwrap_or(ErrorCode::None);
        }
        if let Err(error) = group.validate_member(&command.member_id, command.group_instance_id.as_ref()) {
            return error;
        }
        if command.generation_id != group.generation {
            return ErrorCode::IllegalGeneration;
        }
        let error = match group.state {
            GroupState::Empty | GroupState::Dead => return ErrorCode::UnknownMemberId,
            GroupState::PreparingRebalance => ErrorCode::RebalanceInProgress,
            GroupState::CompletingRebalance | GroupState::Stable => ErrorCode::None,
        };
        self.reschedule_session(group, &command.member_id);
        error
    }

    /// The member showed a sign of life.
    pub(super) fn reschedule_session(&mut self, group: &mut LiveGroup, member_id: &Text) {
        let id = &group.id;
        let Some(member) = group.members.get_mut(member_id) else { return };
        let due_ms = self.now.monotonic_ms.saturating_add(milliseconds(member.session_timeout_ms));
        let key = || super::TimerKey {
            group: id.clone(),
            kind: super::TimerKind::Session(member.member_id.clone()),
        };
        self.machinery.timers.arm(&mut member.session, key, due_ms);
    }

    pub(super) fn reschedule_all_sessions(&mut self, group: &mut LiveGroup) {
        let ids: Vec<Text> = group.members.keys().cloned().collect();
        for member_id in ids {
            self.reschedule_session(group, &member_id);
        }
    }

    /// Members that wait for the others are not silent, it is the coordinator that owes them an answer; but a new
    /// member's wait ends here, because nothing else would tell that its client is gone.
    pub(super) fn session_expired(&mut self, group: &mut LiveGroup, member_id: &Text) {
        let Some(member) = group.members.get(member_id) else { return };
        let waiting = member.awaiting_join.is_some() || member.awaiting_sync.is_some();
        if waiting && !member.is_new {
            return;
        }
        self.remove_member(group, member_id, ErrorCode::UnknownMemberId);
        self.members_left(group);
    }

    /// Takes a member out; what it waits for is refused.
    pub(super) fn remove_member(&mut self, group: &mut LiveGroup, member_id: &Text, error: ErrorCode) {
        let Some(mut member) = group.take(member_id) else { return };
        self.machinery.timers.cancel(&mut member.session, || group.session_key(member_id));
        // Without its member id: it has to begin anew.
        self.refuse_waiting(&mut member, error, &Text::default());
    }

    /// After members left: the others share anew, or a rebalance that waited for them ends.
    pub(super) fn members_left(&mut self, group: &mut LiveGroup) {
        match group.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(group),
            GroupState::PreparingRebalance => self.maybe_complete_join(group),
            GroupState::Empty | GroupState::Dead => {}
        }
    }
}
