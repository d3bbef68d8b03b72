//! JoinGroup, and the join phase of a rebalance: from the first member that asks for one to the new generation.
//! Rules: KIP-62 (timeouts), KIP-134 (initial delay), KIP-345 (static members), KIP-394 (member ids are given, then
//! used), KIP-814 (a returning static leader skips the assignment).

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{Effects, Join, JoinReply, Now, Protocol, Reply, RequestToken};
use super::consumer::LiveConsumer;
use super::member::{JoinPhase, LiveGroup, Member, milliseconds, own_protocols};
use super::records::{self, own};
use super::timers::{Deadline, TimerKey, TimerKind};
use super::{
    GroupCoordinator, GroupState, MEMBER_PROTOCOLS_BYTES_MAX, MEMBERS_PER_GROUP_MAX,
    NEW_MEMBER_JOIN_TIMEOUT_MS, PENDING_MEMBERS_PER_GROUP_MAX, Then, Turn,
};

/// A static member came back to a stable group under a new member id; the log must know before it is told.
#[derive(Debug)]
pub(super) struct StaticReplacement {
    instance: Text,
    member_id: Text,
    generation: i32,
    /// What to go back to if the log does not take it.
    old_member_id: Text,
    old_protocols: Vec<Protocol>,
    old_rebalance_timeout_ms: i32,
    old_session_timeout_ms: i32,
    /// The leader before, which is what versions before 9 are told: a leader that learned that it leads would assign.
    leader_before: Text,
    supports_skip_assignment: bool,
}

impl GroupCoordinator {
    pub(super) fn join(&mut self, now: Now, token: RequestToken, command: Join, effects: &mut Effects) {
        let refuse = |error: ErrorCode| Reply::Join(JoinReply::refused(error, command.member_id.clone()));
        let session = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        let size = |protocol: &Protocol| protocol.name.len().saturating_add(protocol.metadata.len());
        let error = if command.group_id.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if !session.contains(&command.session_timeout_ms) {
            Some(ErrorCode::InvalidSessionTimeout)
        } else if command.protocols.iter().map(size).sum::<usize>() > MEMBER_PROTOCOLS_BYTES_MAX {
            Some(ErrorCode::InvalidRequest)
        } else if command.member_id.is_empty() {
            self.ensure_group(&command.group_id).err()
        } else {
            None
        };
        if let Some(error) = error {
            effects.replies.push((token, refuse(error)));
            return;
        }
        let found = self.with_group(now, effects, &command.group_id, |turn, group| {
            if let Err(error) = turn.join(group, token, &command) {
                turn.reply(token, refuse(error));
            }
        });
        if found.is_none() {
            effects.replies.push((token, refuse(ErrorCode::UnknownMemberId)));
        }
    }
}

impl Turn<'_> {
    fn join(&mut self, group: &mut LiveGroup, token: RequestToken, command: &Join) -> Result<(), ErrorCode> {
        if group.share.is_some() {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if group.streams.as_ref().is_some_and(|streams| !streams.group.members().is_empty()) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let there = |consumer: &LiveConsumer| !consumer.group.members().is_empty();
        if group.consumer.as_deref().is_some_and(there) {
            return self.join_consumer_group(group, token, command);
        }
        if group.consumer.is_some() || group.streams.is_some() {
            if !command.member_id.is_empty() {
                return Err(ErrorCode::UnknownMemberId);
            }
            if command.protocol_type.is_empty() || command.protocols.is_empty() {
                return Err(ErrorCode::InconsistentGroupProtocol);
            }
            self.empty_to_classic(group)?;
        }
        // A static member that comes back takes its own place.
        let holder =
            command.group_instance_id.as_ref().and_then(|instance| group.static_members.get(instance));
        if !self.has_room(group, holder.unwrap_or(&command.member_id)) {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        if !group.supports(&command.protocol_type, &command.protocols) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if !command.member_id.is_empty() {
            return self.join_known(group, token, command);
        }
        let member_id = own(&command.new_member_id);
        if let Some(instance) = &command.group_instance_id {
            match group.static_members.get(instance).cloned() {
                Some(old) => self.replace_static(group, token, command, &old, member_id),
                None => self.add_member(group, token, command, member_id),
            }
            return Ok(());
        }
        if !command.require_known_member_id {
            self.add_member(group, token, command, member_id);
            return Ok(());
        }
        if group.pending_members.len() >= PENDING_MEMBERS_PER_GROUP_MAX {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        let mut deadline = Deadline::default();
        let due_ms = self.now.monotonic_ms.saturating_add(milliseconds(command.session_timeout_ms));
        self.machinery.timers.arm(&mut deadline, || group.session_key(&member_id), due_ms);
        group.pending_members.insert(member_id.clone(), deadline);
        self.reply(token, Reply::Join(JoinReply::refused(ErrorCode::MemberIdRequired, member_id)));
        Ok(())
    }

    /// Whether `group.max.size` lets this member in. While a rebalance gathers members, those that have joined count:
    /// so the last to come are kept out, also where the limit was lowered.
    fn has_room(&self, group: &LiveGroup, member_id: &Text) -> bool {
        let most = self.config.group_size_max.min(MEMBERS_PER_GROUP_MAX);
        match group.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                let waits = group.members.get(member_id).is_some_and(|member| member.awaiting_join.is_some());
                waits || group.awaiting_join_count < most
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                group.members.contains_key(member_id) || group.members.len() < most
            }
        }
    }

    fn join_known(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &Join,
    ) -> Result<(), ErrorCode> {
        let member_id = own(&command.member_id);
        if let Some(mut deadline) = group.pending_members.remove(&member_id) {
            self.machinery.timers.cancel(&mut deadline, || group.session_key(&member_id));
            if command.group_instance_id.is_some() {
                return Err(ErrorCode::UnknownMemberId);
            }
            self.add_member(group, token, command, member_id);
            return Ok(());
        }
        group.validate_member(&member_id, command.group_instance_id.as_ref())?;
        let changed =
            group.members.get(&member_id).is_none_or(|member| member.protocols != command.protocols);
        match group.state {
            // The group lost this member's generation: it must begin anew.
            GroupState::Empty | GroupState::Dead => return Err(ErrorCode::UnknownMemberId),
            // It did not get the answer to its join: it is given again.
            GroupState::CompletingRebalance if !changed => {
                let members = group.is_leader(&member_id);
                self.reply(token, Reply::Join(joined(group, &member_id, members)));
            }
            // A follower that has nothing new can go on to sync. A leader that joins again asks for a new assignment,
            // for example because a topic has more partitions now.
            GroupState::Stable if !changed && !group.is_leader(&member_id) => {
                self.reply(token, Reply::Join(joined(group, &member_id, false)));
            }
            GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Stable => {
                self.update_member(group, token, command, &member_id);
                self.rebalance_or_complete_join(group);
            }
        }
        Ok(())
    }

    pub(super) fn add_member(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &Join,
        member_id: Text,
    ) {
        if group.members.is_empty() {
            group.protocol_type = Some(own(&command.protocol_type));
        }
        group.new_member_added = true;
        let mut member = Member {
            member_id: member_id.clone(),
            group_instance_id: command.group_instance_id.as_ref().map(own),
            client_id: own(&command.client_id),
            client_host: own(&command.client_host),
            rebalance_timeout_ms: command.rebalance_timeout_ms,
            session_timeout_ms: command.session_timeout_ms,
            protocols: own_protocols(&command.protocols),
            assignment: Bytes::new(),
            awaiting_join: Some(token),
            awaiting_sync: None,
            is_new: true,
            session: Deadline::default(),
        };
        let due_ms = self.now.monotonic_ms.saturating_add(NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.machinery.timers.arm(&mut member.session, || group.session_key(&member_id), due_ms);
        group.insert(member);
        self.rebalance_or_complete_join(group);
    }

    fn update_member(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &Join,
        member_id: &Text,
    ) {
        group.set_protocols(member_id, own_protocols(&command.protocols));
        if let Some(member) = group.members.get_mut(member_id) {
            member.rebalance_timeout_ms = command.rebalance_timeout_ms;
            member.session_timeout_ms = command.session_timeout_ms;
        }
        if let Some(before) = group.park_join(member_id, token) {
            // Asked twice: the client gave up on the first, only one answer can be the generation's.
            let reply = JoinReply::refused(ErrorCode::RebalanceInProgress, member_id.clone());
            self.reply(before, Reply::Join(reply));
        }
    }

    /// A static member is back under a new member id. Its old self is fenced, wherever it still waits.
    fn replace_static(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &Join,
        old_member_id: &Text,
        member_id: Text,
    ) {
        let leader_before = group.leader.clone().unwrap_or_default();
        let Some(old) = self.rename_member(group, old_member_id, &member_id, ErrorCode::FencedInstanceId)
        else {
            return;
        };
        self.update_member(group, token, command, &member_id);
        self.reschedule_session(group, &member_id);
        match group.state {
            GroupState::Stable if group.select_protocol() == group.protocol_name => {
                let replacement = StaticReplacement {
                    instance: old.instance,
                    member_id,
                    generation: group.generation,
                    old_member_id: old_member_id.clone(),
                    old_protocols: old.protocols,
                    old_rebalance_timeout_ms: old.rebalance_timeout_ms,
                    old_session_timeout_ms: old.session_timeout_ms,
                    leader_before,
                    supports_skip_assignment: command.supports_skip_assignment,
                };
                match records::group(&group.id, &group.to_metadata(|member| member.assignment.clone())) {
                    Ok(record) => {
                        self.append(group, vec![record], Vec::new(), None, Then::Replaced(replacement));
                    }
                    Err(_) => {
                        self.replacement_settled(group, replacement, Some(ErrorCode::UnknownServerError));
                    }
                }
            }
            // The chosen protocol would change; or the leader may have been given the old member id already, and
            // would assign to nobody.
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(group),
            GroupState::PreparingRebalance => self.maybe_complete_join(group),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    /// Gives a member another id; who waits under the old one is refused.
    fn rename_member(
        &mut self,
        group: &mut LiveGroup,
        from: &Text,
        to: &Text,
        error: ErrorCode,
    ) -> Option<RenamedMember> {
        let leads = group.is_leader(from);
        let mut member = group.take(from)?;
        self.machinery.timers.cancel(&mut member.session, || group.session_key(from));
        self.refuse_waiting(&mut member, error, from);
        let renamed = RenamedMember {
            instance: member.group_instance_id.clone().unwrap_or_default(),
            protocols: member.protocols.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
        };
        member.member_id = to.clone();
        group.insert(member);
        if leads {
            group.leader = Some(to.clone());
        }
        Some(renamed)
    }

    pub(super) fn refuse_waiting(&mut self, member: &mut Member, error: ErrorCode, member_id: &Text) {
        if let Some(token) = member.awaiting_join.take() {
            self.reply(token, Reply::Join(JoinReply::refused(error, member_id.clone())));
        }
        if let Some(token) = member.awaiting_sync.take() {
            self.reply(token, Reply::Sync(super::SyncReply::refused(error)));
        }
    }

    /// The log has a static member's new id, or will not have it.
    pub(super) fn replacement_settled(
        &mut self,
        group: &mut LiveGroup,
        replacement: StaticReplacement,
        error: Option<ErrorCode>,
    ) {
        let StaticReplacement { instance, member_id, generation, .. } = replacement;
        let current = group.state == GroupState::Stable
            && group.generation == generation
            && group.static_members.get(&instance) == Some(&member_id);
        // Otherwise a rebalance has begun, which answers it, or yet another took its place, which fenced it.
        if !current {
            return;
        }
        let Some(token) = group.unpark_join(&member_id) else { return };
        if let Some(error) = error {
            let old = &replacement.old_member_id;
            self.rename_member(group, &member_id, old, error);
            group.set_protocols(old, replacement.old_protocols);
            if let Some(member) = group.members.get_mut(old) {
                member.rebalance_timeout_ms = replacement.old_rebalance_timeout_ms;
                member.session_timeout_ms = replacement.old_session_timeout_ms;
            }
            self.reschedule_session(group, old);
            self.reply(token, Reply::Join(JoinReply::refused(error, Text::default())));
            return;
        }
        self.reschedule_session(group, &member_id);
        let mut reply = joined(group, &member_id, false);
        if replacement.supports_skip_assignment {
            reply.skip_assignment = group.is_leader(&member_id);
            if reply.skip_assignment {
                reply.members = group.joined_members();
            }
        } else {
            reply.leader = replacement.leader_before;
        }
        self.reply(token, Reply::Join(reply));
    }

    pub(super) fn rebalance_or_complete_join(&mut self, group: &mut LiveGroup) {
        if group.can_rebalance() {
            self.prepare_rebalance(group);
        } else {
            self.maybe_complete_join(group);
        }
    }

    /// A rebalance begins. An empty group waits for more members to come; others for their members to join again.
    pub(super) fn prepare_rebalance(&mut self, group: &mut LiveGroup) {
        if group.state == GroupState::CompletingRebalance {
            self.refuse_syncs(group, ErrorCode::RebalanceInProgress);
        }
        self.cancel_sync_timer(group);
        let initial = group.state == GroupState::Empty;
        group.transition(GroupState::PreparingRebalance, self.now.wall_ms);
        if initial {
            let delay_ms = self.config.initial_rebalance_delay_ms;
            let remaining_ms = group.rebalance_timeout_ms().saturating_sub(delay_ms);
            group.join_phase = JoinPhase::Initial { delay_ms, remaining_ms };
            group.new_member_added = false;
            self.arm_join_timer(group, delay_ms);
        } else {
            group.join_phase = JoinPhase::Rejoin;
            if group.has_all_joined() {
                self.complete_join(group);
            } else {
                self.arm_join_timer(group, group.rebalance_timeout_ms());
            }
        }
    }

    /// Ends the join phase early if nobody is missing. The initial delay is always waited for.
    pub(super) fn maybe_complete_join(&mut self, group: &mut LiveGroup) {
        let rejoining =
            group.state == GroupState::PreparingRebalance && group.join_phase == JoinPhase::Rejoin;
        if rejoining && group.has_all_joined() {
            self.complete_join(group);
        }
    }

    pub(super) fn join_timer_expired(&mut self, group: &mut LiveGroup) {
        if group.state != GroupState::PreparingRebalance {
            return;
        }
        match group.join_phase {
            JoinPhase::Initial { delay_ms, remaining_ms } if group.new_member_added && remaining_ms != 0 => {
                group.new_member_added = false;
                let next_ms = self.config.initial_rebalance_delay_ms.min(remaining_ms);
                let remaining_ms = remaining_ms.saturating_sub(delay_ms);
                group.join_phase = JoinPhase::Initial { delay_ms: next_ms, remaining_ms };
                self.arm_join_timer(group, next_ms);
            }
            JoinPhase::Initial { .. } | JoinPhase::Rejoin => self.complete_join(group),
        }
    }

    /// The join phase ends: who has not joined is dropped (static members stay until their session ends), the rest is
    /// the next generation.
    fn complete_join(&mut self, group: &mut LiveGroup) {
        self.machinery.timers.cancel(&mut group.join_timer, || join_key(&group.id));
        let missing = |member: &&Member| member.awaiting_join.is_none() && !member.is_static();
        let missing: Vec<Text> =
            group.members.values().filter(missing).map(|m| m.member_id.clone()).collect();
        for member_id in missing {
            self.remove_member(group, &member_id, ErrorCode::UnknownMemberId);
        }
        if !elect_joined_leader(group) && !group.members.is_empty() {
            // Only static members, and none has joined: wait until one does or their sessions end.
            group.join_phase = JoinPhase::Rejoin;
            self.arm_join_timer(group, group.rebalance_timeout_ms().max(1));
            return;
        }
        // Generations are positive and wrap; a group does not live to see it.
        group.generation = group.generation.checked_add(1).unwrap_or(1);
        group.pending_sync.clear();
        if group.members.is_empty() {
            group.protocol_name = None;
            group.subscribed_topics = group.compute_subscribed_topics();
            group.transition(GroupState::Empty, self.now.wall_ms);
            // If it is not logged, the log still has members that are gone; they time out at the next coordinator.
            if let Ok(record) = records::group(&group.id, &group.to_metadata(|_| Bytes::new())) {
                self.append(group, vec![record], Vec::new(), None, Then::Nothing);
            }
            return;
        }
        group.protocol_name = group.select_protocol();
        group.subscribed_topics = group.compute_subscribed_topics();
        group.transition(GroupState::CompletingRebalance, self.now.wall_ms);
        self.answer_joins(group);
        self.arm_sync_timer(group);
    }

    fn answer_joins(&mut self, group: &mut LiveGroup) {
        let ids: Vec<Text> = group.members.keys().cloned().collect();
        for member_id in ids {
            if let Some(token) = group.unpark_join(&member_id) {
                let reply = joined(group, &member_id, group.is_leader(&member_id));
                self.reply(token, Reply::Join(reply));
            }
            if let Some(member) = group.members.get_mut(&member_id) {
                member.is_new = false;
            }
            self.reschedule_session(group, &member_id);
            group.pending_sync.insert(member_id);
        }
    }

    pub(super) fn cancel_join_timer(&mut self, group: &mut LiveGroup) {
        self.machinery.timers.cancel(&mut group.join_timer, || join_key(&group.id));
    }

    fn arm_join_timer(&mut self, group: &mut LiveGroup, delay_ms: u64) {
        let due_ms = self.now.monotonic_ms.saturating_add(delay_ms);
        self.machinery.timers.arm(&mut group.join_timer, || join_key(&group.id), due_ms);
    }
}

/// What a member was before it was given another id.
struct RenamedMember {
    instance: Text,
    protocols: Vec<Protocol>,
    rebalance_timeout_ms: i32,
    session_timeout_ms: i32,
}

fn join_key(group: &Text) -> TimerKey {
    TimerKey { group: group.clone(), kind: TimerKind::Join }
}

/// A leader that has joined: the one there is, else another. False: nobody has joined.
fn elect_joined_leader(group: &mut LiveGroup) -> bool {
    let joined = |member: &Member| member.awaiting_join.is_some();
    if group.leader.as_ref().and_then(|leader| group.members.get(leader)).is_some_and(joined) {
        return true;
    }
    let other = group.members.values().find(|member| joined(member)).map(|member| member.member_id.clone());
    let found = other.is_some();
    if found {
        group.leader = other;
    }
    found
}

/// The generation as it is.
fn joined(group: &LiveGroup, member_id: &Text, with_members: bool) -> JoinReply {
    JoinReply {
        error: ErrorCode::None,
        generation_id: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol_name.clone(),
        leader: group.leader.clone().unwrap_or_default(),
        skip_assignment: false,
        member_id: member_id.clone(),
        members: if with_members { group.joined_members() } else { Vec::new() },
    }
}
