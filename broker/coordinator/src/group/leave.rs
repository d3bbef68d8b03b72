//! LeaveGroup: members that go by themselves, and static members that an administrator removes (KIP-345).

use ottla_wire::error_code::ErrorCode;

use super::command::{Effects, Leave, LeaveReply, MemberIdentity, Now, Reply, RequestToken};
use super::member::LiveGroup;
use super::{GroupCoordinator, GroupState, Turn};

impl GroupCoordinator {
    pub(super) fn leave(&mut self, now: Now, token: RequestToken, command: Leave, effects: &mut Effects) {
        let Leave { group_id, members } = command;
        if group_id.is_empty() {
            let reply = LeaveReply { error: ErrorCode::InvalidGroupId, members: Vec::new() };
            effects.replies.push((token, Reply::Leave(reply)));
            return;
        }
        let of_consumers = |group: &LiveGroup| group.consumer.is_some() && group.state != GroupState::Dead;
        if self.groups.get(&group_id).is_some_and(of_consumers) {
            let id = group_id.clone();
            self.with_group(now, effects, &id, |turn, group| {
                turn.leave_consumer_group(group, token, Leave { group_id, members });
            });
            return;
        }
        let errors = self.with_group(now, effects, &group_id, |turn, group| {
            let errors: Vec<ErrorCode> = members.iter().map(|identity| turn.leave(group, identity)).collect();
            if errors.contains(&ErrorCode::None) {
                turn.members_left(group);
            }
            errors
        });
        let errors = errors.unwrap_or_else(|| vec![ErrorCode::UnknownMemberId; members.len()]);
        let members = members.into_iter().zip(errors).collect();
        effects.replies.push((token, Reply::Leave(LeaveReply { error: ErrorCode::None, members })));
    }
}

impl Turn<'_> {
    fn leave(&mut self, group: &mut LiveGroup, identity: &MemberIdentity) -> ErrorCode {
        let instance = identity.group_instance_id.as_ref();
        if identity.member_id.is_empty() {
            let holder = instance.and_then(|instance| group.static_members.get(instance)).cloned();
            let Some(member_id) = holder else { return ErrorCode::UnknownMemberId };
            self.remove_member(group, &member_id, ErrorCode::UnknownMemberId);
            return ErrorCode::None;
        }
        if let Some(mut deadline) = group.pending_members.remove(&identity.member_id) {
            self.machinery.timers.cancel(&mut deadline, || group.session_key(&identity.member_id));
            return ErrorCode::None;
        }
        if let Err(error) = group.validate_member(&identity.member_id, instance) {
            return error;
        }
        self.remove_member(group, &identity.member_id, ErrorCode::UnknownMemberId);
        ErrorCode::None
    }
}
