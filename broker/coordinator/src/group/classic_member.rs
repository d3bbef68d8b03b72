//! Members of the classic protocol in a consumer group (KIP-848): JoinGroup, SyncGroup, Heartbeat and LeaveGroup, served
//! by the coordinator's own assignment. A generation is the member's epoch, and there is no leader. REBALANCE_IN_PROGRESS
//! tells a member to join again, with what it has by then, which is how it lets go of partitions and comes to its epoch.

use std::collections::BTreeSet;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{
    Heartbeat, Join, JoinReply, Leave, LeaveReply, MemberIdentity, Reply, RequestToken, Sync,
};
use super::consumer::encode;
use super::member::{CONSUMER_PROTOCOL_TYPE, LiveGroup, milliseconds, own_protocols};
use super::migrate::{classic_assignment, partitions_by_id, subscription_of};
use super::records::own;
use super::timers::TimerKind;
use super::{SyncReply, Turn};
use crate::consumer_group::update::{self, Update, Updated, interval_is_over};
use crate::consumer_group::{
    ClassicMetadata, ConsumerGroup, ConsumerMember, MemberMetadata, MemberState, heartbeat, reconcile,
};

/// Who joins: its id, and the static member whose place it takes.
struct Joiner {
    member_id: Text,
    former_id: Option<Text>,
}

impl Turn<'_> {
    /// A JoinGroup on a consumer group with members.
    pub(super) fn join_consumer_group(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &Join,
    ) -> Result<(), ErrorCode> {
        if !self.machinery.topics_known {
            return Err(ErrorCode::CoordinatorLoadInProgress);
        }
        let Some(consumer) = group.consumer.as_deref() else { return Err(ErrorCode::UnknownMemberId) };
        let known_by_all =
            |name: &Text| consumer.group.classic_protocol_count(name) == consumer.group.classic_count();
        if &*command.protocol_type != CONSUMER_PROTOCOL_TYPE
            || !command.protocols.iter().any(|protocol| known_by_all(&protocol.name))
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let is_anonymous = command.member_id.is_empty() && command.group_instance_id.is_none();
        heartbeat::has_room(
            &consumer.group,
            &self.config.consumer,
            &command.member_id,
            command.group_instance_id.as_ref(),
        )
        .map_err(|refusal| refusal.error)?;
        if is_anonymous && command.require_known_member_id {
            // Whoever joins with an id that is not known is taken in, so this one need not be kept.
            let member_id = own(&command.new_member_id);
            self.reply(token, Reply::Join(JoinReply::refused(ErrorCode::MemberIdRequired, member_id)));
            return Ok(());
        }
        let joiner = joiner(&consumer.group, command)?;
        if let Some(former_id) = &joiner.former_id {
            let gone = BTreeSet::from([former_id.clone()]);
            let was_new = consumer.group.members().get(former_id).is_some_and(|member| !member.is_classic());
            if was_new && self.downgrades(group, &gone) {
                // The last member of the consumer protocol comes back as one of the classic protocol.
                self.downgrade(group, &gone, None).map_err(|refusal| refusal.error)?;
                self.add_member(group, token, command, joiner.member_id);
                return Ok(());
            }
        }
        self.update_classic_member(group, token, command, &joiner)
    }

    fn update_classic_member(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &Join,
        joiner: &Joiner,
    ) -> Result<(), ErrorCode> {
        let Some(consumer) = group.consumer.as_deref() else { return Err(ErrorCode::UnknownMemberId) };
        let (metadata, owned) = {
            let first = command.protocols.first().map(|protocol| &protocol.metadata);
            let subscription = first.and_then(subscription_of).ok_or(ErrorCode::InconsistentGroupProtocol)?;
            let named = subscription.owned_partitions.iter().map(|one| (&one.topic, &one.partitions));
            let owned = partitions_by_id(&self.machinery.topics, named);
            let topics: BTreeSet<Text> = subscription.topics.iter().map(Text::detached).collect();
            (classic_metadata(command, topics, subscription.rack_id.as_ref().map(Text::detached)), owned)
        };
        let Joiner { member_id, former_id } = joiner;
        let members = consumer.group.members();
        let taken_over =
            former_id.as_ref().and_then(|id| members.get(id)).map(|former| heartbeat::taken_over(former));
        let member = taken_over.as_ref().or_else(|| members.get(member_id).map(|member| &**member));
        let is_changed = member.is_none_or(|member| member.metadata != metadata);
        let update = Update {
            member_id,
            former_id: former_id.as_ref(),
            member,
            metadata: is_changed.then_some(metadata),
            owned: Some(&owned),
        };
        let (Updated { records: decided, member }, refreshes) =
            self.with_context(&group.id, Some(consumer), |context| {
                (update::decide(&consumer.group, context, update), context.refresh_regexes)
            });
        let records = encode(&group.id, &decided).map_err(|_| ErrorCode::UnknownServerError)?;
        self.apply_decided(group, &decided, refreshes, true);
        if let Some(former_id) = former_id {
            self.cancel_member_timers(group, former_id);
        }
        self.arm_session(group, member_id);
        self.cancel_consumer_timer(group, TimerKind::Rejoin(member_id.clone()));
        let sync_ms = milliseconds(member.metadata.rebalance_timeout_ms);
        self.arm_consumer_timer(group, TimerKind::Resync(member_id.clone()), sync_ms);
        let reply = JoinReply {
            error: ErrorCode::None,
            generation_id: member.current.epoch,
            protocol_type: Some(Text::from_static(CONSUMER_PROTOCOL_TYPE)),
            protocol_name: command.protocols.first().map(|protocol| own(&protocol.name)),
            leader: Text::default(),
            skip_assignment: false,
            member_id: member_id.clone(),
            members: Vec::new(),
        };
        self.append_ahead(group, records, Some((token, Reply::Join(reply))));
        Ok(())
    }

    /// A SyncGroup on a consumer group.
    pub(super) fn sync_consumer_group(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &Sync,
    ) -> Result<(), ErrorCode> {
        let instance = command.group_instance_id.as_ref();
        let Some(consumer) = group.consumer.as_deref() else { return Err(ErrorCode::UnknownMemberId) };
        let member = classic_member(&consumer.group, &command.member_id, instance)?;
        if command.generation_id != member.current.epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        let protocols = member.metadata.classic.iter().flat_map(|classic| &classic.protocols);
        let knows = |name: &Text| protocols.clone().any(|(known, _)| known == name);
        if command.protocol_type.as_ref().is_some_and(|kind| &**kind != CONSUMER_PROTOCOL_TYPE)
            || command.protocol_name.as_ref().is_some_and(|name| !knows(name))
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        // Who has to let go of partitions first learns which it keeps.
        let lets_go = member.current.state == MemberState::UnrevokedPartitions;
        if !lets_go && self.is_behind(group, member) {
            self.ask_to_rejoin(group, &command.member_id);
            return Err(ErrorCode::RebalanceInProgress);
        }
        let protocol_name = protocols.clone().next().map(|(name, _)| name.clone());
        let reply = SyncReply {
            error: ErrorCode::None,
            protocol_type: Some(Text::from_static(CONSUMER_PROTOCOL_TYPE)),
            protocol_name: command.protocol_name.clone().or(protocol_name),
            assignment: classic_assignment(&self.machinery.topics, member),
        };
        self.cancel_consumer_timer(group, TimerKind::Resync(command.member_id.clone()));
        self.arm_session(group, &command.member_id);
        self.append_ahead(group, Vec::new(), Some((token, Reply::Sync(reply))));
        Ok(())
    }

    /// A Heartbeat on a consumer group.
    pub(super) fn beat_consumer_group(
        &mut self,
        group: &mut LiveGroup,
        command: &Heartbeat,
    ) -> Result<(), ErrorCode> {
        let instance = command.group_instance_id.as_ref();
        let Some(consumer) = group.consumer.as_deref() else { return Err(ErrorCode::UnknownMemberId) };
        let member = classic_member(&consumer.group, &command.member_id, instance)?;
        if command.generation_id != member.current.epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        let rejoins = match member.current.state {
            MemberState::UnrevokedPartitions => true,
            MemberState::UnreleasedPartitions
                if reconcile::can_go_on(&consumer.group, &command.member_id, member) =>
            {
                true
            }
            _ => self.is_behind(group, member),
        };
        self.arm_session(group, &command.member_id);
        if rejoins {
            self.ask_to_rejoin(group, &command.member_id);
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// A LeaveGroup on a consumer group. An administrator removes static members of both protocols.
    pub(super) fn leave_consumer_group(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: Leave,
    ) {
        let mut gone = BTreeSet::new();
        let mut members = Vec::with_capacity(command.members.len());
        for identity in command.members {
            let found = leaver(group, &identity, &gone);
            let error = found.as_ref().err().copied().unwrap_or(ErrorCode::None);
            gone.extend(found);
            members.push((identity, error));
        }
        let reply = Reply::Leave(LeaveReply { error: ErrorCode::None, members });
        if gone.is_empty() {
            self.reply(token, reply);
        } else if let Err(refusal) = self.remove_members(group, &gone, Some((token, reply))) {
            let reply = LeaveReply { error: refusal.error, members: Vec::new() };
            self.reply(token, Reply::Leave(reply));
        }
    }

    /// The group has moved on, and joining again would bring the member to a newer epoch.
    fn is_behind(&self, group: &LiveGroup, member: &ConsumerMember) -> bool {
        let Some(consumer) = group.consumer.as_deref() else { return false };
        let may_assign = self
            .with_context(&group.id, Some(consumer), |context| interval_is_over(&consumer.group, context));
        consumer.group.target_epoch > member.current.epoch
            || (consumer.group.epoch > member.current.epoch && may_assign)
    }

    /// The member has its rebalance timeout to join again.
    fn ask_to_rejoin(&mut self, group: &mut LiveGroup, member_id: &Text) {
        let Some(consumer) = group.consumer.as_deref() else { return };
        let timeout_ms =
            consumer.group.members().get(member_id).map_or(0, |member| member.metadata.rebalance_timeout_ms);
        let kind = TimerKind::Rejoin(member_id.clone());
        if !Self::has_consumer_timer(group, &kind) {
            self.arm_consumer_timer(group, kind, milliseconds(timeout_ms));
        }
    }
}

/// Who joins, by the rules of static membership (KIP-345). A dynamic member's id is taken as it is.
fn joiner(group: &ConsumerGroup, command: &Join) -> Result<Joiner, ErrorCode> {
    let holder = command.group_instance_id.as_ref().map(|instance| group.static_member(instance));
    if command.member_id.is_empty() {
        let former_id = holder.flatten().cloned();
        return Ok(Joiner { member_id: own(&command.new_member_id), former_id });
    }
    match holder {
        Some(None) => Err(ErrorCode::UnknownMemberId),
        Some(Some(holder)) if *holder != command.member_id => Err(ErrorCode::FencedInstanceId),
        _ => Ok(Joiner { member_id: own(&command.member_id), former_id: None }),
    }
}

fn classic_metadata(command: &Join, topics: BTreeSet<Text>, rack_id: Option<Text>) -> MemberMetadata {
    let protocols = own_protocols(&command.protocols).into_iter();
    MemberMetadata {
        instance_id: command.group_instance_id.as_ref().map(own),
        rack_id,
        client_id: own(&command.client_id),
        client_host: own(&command.client_host),
        topics,
        regex: None,
        rebalance_timeout_ms: command.rebalance_timeout_ms,
        server_assignor: None,
        classic: Some(ClassicMetadata {
            session_timeout_ms: command.session_timeout_ms,
            protocols: protocols.map(|protocol| (protocol.name, protocol.metadata)).collect(),
        }),
    }
}

/// The member, if it is one and of the classic protocol.
fn classic_member<'a>(
    group: &'a ConsumerGroup,
    member_id: &Text,
    instance: Option<&Text>,
) -> Result<&'a ConsumerMember, ErrorCode> {
    if let Some(instance) = instance {
        match group.static_member(instance) {
            None => return Err(ErrorCode::UnknownMemberId),
            Some(holder) if holder != member_id => return Err(ErrorCode::FencedInstanceId),
            Some(_) => {}
        }
    }
    let member = group.members().get(member_id).filter(|member| member.is_classic());
    member.map(|member| &**member).ok_or(ErrorCode::UnknownMemberId)
}

/// The id of a member that is to leave.
fn leaver(group: &LiveGroup, identity: &MemberIdentity, gone: &BTreeSet<Text>) -> Result<Text, ErrorCode> {
    let consumer = group.consumer.as_deref().ok_or(ErrorCode::UnknownMemberId)?;
    let instance = identity.group_instance_id.as_ref();
    let member_id = if identity.member_id.is_empty() {
        let holder = instance.and_then(|instance| consumer.group.static_member(instance));
        holder.cloned().ok_or(ErrorCode::UnknownMemberId)?
    } else {
        classic_member(&consumer.group, &identity.member_id, instance)?;
        own(&identity.member_id)
    };
    if gone.contains(&member_id) { Err(ErrorCode::UnknownMemberId) } else { Ok(member_id) }
}
