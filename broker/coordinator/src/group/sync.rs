//! SyncGroup: the leader's assignment is logged, then every member of the generation is given its own. A member that
//! does not ask for its assignment within the rebalance timeout is dropped (KAFKA-13435).

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{Effects, Now, Reply, RequestToken, Sync, SyncReply};
use super::member::LiveGroup;
use super::records::{self, own, own_bytes};
use super::timers::{TimerKey, TimerKind};
use super::{GroupCoordinator, GroupState, Then, Turn};

/// An assignment on its way to the log.
#[derive(Debug)]
pub(super) struct PendingAssignment {
    generation: i32,
    assignments: BTreeMap<Text, Bytes>,
}

impl GroupCoordinator {
    pub(super) fn sync(&mut self, now: Now, token: RequestToken, command: Sync, effects: &mut Effects) {
        let refuse = |error: ErrorCode| Reply::Sync(SyncReply::refused(error));
        if command.group_id.is_empty() {
            effects.replies.push((token, refuse(ErrorCode::InvalidGroupId)));
            return;
        }
        if command.protocol_required && (command.protocol_type.is_none() || command.protocol_name.is_none()) {
            effects.replies.push((token, refuse(ErrorCode::InconsistentGroupProtocol)));
            return;
        }
        let found = self.with_group(now, effects, &command.group_id, |turn, group| {
            if let Err(error) = turn.sync(group, token, &command) {
                turn.reply(token, refuse(error));
            }
        });
        if found.is_none() {
            effects.replies.push((token, refuse(ErrorCode::UnknownMemberId)));
        }
    }
}

impl Turn<'_> {
    fn sync(&mut self, group: &mut LiveGroup, token: RequestToken, command: &Sync) -> Result<(), ErrorCode> {
        if group.consumer.is_some() {
            return self.sync_consumer_group(group, token, command);
        }
        group.validate_member(&command.member_id, command.group_instance_id.as_ref())?;
        if command.generation_id != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |theirs: &Option<Text>, ours: &Option<Text>| theirs.is_some() && theirs != ours;
        if differs(&command.protocol_type, &group.protocol_type)
            || differs(&command.protocol_name, &group.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match group.state {
            GroupState::Empty | GroupState::Dead => Err(ErrorCode::UnknownMemberId),
            GroupState::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            GroupState::CompletingRebalance => {
                self.park_sync(group, token, &command.member_id);
                if group.is_leader(&command.member_id) {
                    self.log_assignment(group, command);
                }
                Ok(())
            }
            GroupState::Stable => {
                self.member_synced(group, &command.member_id);
                let reply = synced(group, &command.member_id);
                self.reply(token, Reply::Sync(reply));
                Ok(())
            }
        }
    }

    fn park_sync(&mut self, group: &mut LiveGroup, token: RequestToken, member_id: &Text) {
        self.member_synced(group, member_id);
        let Some(member) = group.members.get_mut(member_id) else { return };
        if let Some(before) = member.awaiting_sync.replace(token) {
            self.reply(before, Reply::Sync(SyncReply::refused(ErrorCode::RebalanceInProgress)));
        }
    }

    fn member_synced(&mut self, group: &mut LiveGroup, member_id: &Text) {
        group.pending_sync.remove(member_id);
        if group.pending_sync.is_empty() {
            self.cancel_sync_timer(group);
        }
    }

    /// Who the leader left out is assigned nothing.
    fn log_assignment(&mut self, group: &mut LiveGroup, command: &Sync) {
        let given: BTreeMap<&Text, &Bytes> =
            command.assignments.iter().map(|(id, bytes)| (id, bytes)).collect();
        let of = |id: &Text| given.get(id).map(|bytes| own_bytes(bytes)).unwrap_or_default();
        let assignments = group.members.keys().map(|id| (own(id), of(id))).collect();
        let assignment = PendingAssignment { generation: group.generation, assignments };
        let given = &assignment.assignments;
        let record = records::group(
            &group.id,
            &group.to_metadata(|member| given.get(&member.member_id).cloned().unwrap_or_default()),
        );
        match record {
            Ok(record) => self.append(group, vec![record], Vec::new(), None, Then::Assigned(assignment)),
            Err(_) => self.assignment_settled(group, assignment, Some(ErrorCode::UnknownServerError)),
        }
    }

    /// The log has the assignment, or will not have it. Members may have come and gone in between: then the group is
    /// in another state or generation, and this one is nobody's any more.
    pub(super) fn assignment_settled(
        &mut self,
        group: &mut LiveGroup,
        mut assignment: PendingAssignment,
        error: Option<ErrorCode>,
    ) {
        if group.state != GroupState::CompletingRebalance || group.generation != assignment.generation {
            return;
        }
        if let Some(error) = error {
            self.refuse_syncs(group, error);
            self.rebalance_or_complete_join(group);
            return;
        }
        for member in group.members.values_mut() {
            member.assignment = assignment.assignments.remove(&member.member_id).unwrap_or_default();
        }
        group.transition(GroupState::Stable, self.now.wall_ms);
        let ids: Vec<Text> = group.members.keys().cloned().collect();
        for member_id in ids {
            let waiting = group.members.get_mut(&member_id).and_then(|member| member.awaiting_sync.take());
            if let Some(token) = waiting {
                self.reply(token, Reply::Sync(synced(group, &member_id)));
                // Its session ended, if it did, while it waited, and did not count.
                self.reschedule_session(group, &member_id);
            }
        }
    }

    /// The generation comes to nothing: who waits for an assignment is told, and those given are forgotten.
    pub(super) fn refuse_syncs(&mut self, group: &mut LiveGroup, error: ErrorCode) {
        let ids: Vec<Text> = group.members.keys().cloned().collect();
        for member_id in ids {
            let Some(member) = group.members.get_mut(&member_id) else { continue };
            member.assignment = Bytes::new();
            if let Some(token) = member.awaiting_sync.take() {
                self.reply(token, Reply::Sync(SyncReply::refused(error)));
                self.reschedule_session(group, &member_id);
            }
        }
    }

    pub(super) fn arm_sync_timer(&mut self, group: &mut LiveGroup) {
        let due_ms = self.now.monotonic_ms.saturating_add(group.rebalance_timeout_ms().max(1));
        self.machinery.timers.arm(&mut group.sync_timer, || sync_key(&group.id), due_ms);
    }

    pub(super) fn cancel_sync_timer(&mut self, group: &mut LiveGroup) {
        self.machinery.timers.cancel(&mut group.sync_timer, || sync_key(&group.id));
    }

    pub(super) fn sync_timer_expired(&mut self, group: &mut LiveGroup) {
        let completing = matches!(group.state, GroupState::CompletingRebalance | GroupState::Stable);
        if !completing || group.pending_sync.is_empty() {
            return;
        }
        for member_id in std::mem::take(&mut group.pending_sync) {
            self.remove_member(group, &member_id, ErrorCode::UnknownMemberId);
        }
        self.prepare_rebalance(group);
    }
}

fn sync_key(group: &Text) -> TimerKey {
    TimerKey { group: group.clone(), kind: TimerKind::Sync }
}

fn synced(group: &LiveGroup, member_id: &Text) -> SyncReply {
    SyncReply {
        error: ErrorCode::None,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol_name.clone(),
        assignment: group.members.get(member_id).map(|member| member.assignment.clone()).unwrap_or_default(),
    }
}
