//! Streams groups (KIP-1071) within the machine: decisions are those of [`crate::streams_group`]; here are their appends,
//! timers and answers. As consumer groups they are ahead of the log: see [`super::consumer`].
//!
//! Soft state, which a failover loses: how the topology fits the topics (worked out anew), the wait of a new group for
//! more members (over at once), who asked for a shutdown, and the epoch of endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_wire::encode::EncodeError;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{CoordinatorRecord, Effects, Now, OffsetCommit, Reply, RequestToken, Ticket};
use super::consumer::{commits_as_nobody, group_not_found, not_encoded};
use super::member::{LiveGroup, milliseconds};
use super::migrate::classic_tombstone;
use super::timers::{Deadline, TimerKind};
use super::{GroupCoordinator, GroupState, Turn};
use crate::consumer_group::{JOIN_EPOCH, Refusal};
use crate::streams_group::configure::Configured;
use crate::streams_group::endpoints::endpoints;
use crate::streams_group::heartbeat::{self, Decision};
use crate::streams_group::update::{self, Context};
use crate::streams_group::{
    Status, StatusCode, StreamsGroup, StreamsGroupConfig, StreamsHeartbeat, StreamsHeartbeatReply,
    StreamsMember, StreamsRecord,
};

/// A streams group as the leader sees it now.
#[derive(Debug)]
pub(crate) struct LiveStreams {
    /// With everything that was decided.
    pub(crate) group: StreamsGroup,
    /// By what they are for; none is kept that is not armed.
    pub(super) timers: BTreeMap<TimerKind, Deadline>,
    /// The topics that the group epoch goes by.
    looked_at: Option<i64>,
    /// The topology beside them.
    configured: Option<Arc<Configured>>,
    /// The member that asked for the whole application to stop, until the group is empty.
    shutdown_by: Option<Text>,
    /// Grows when what an endpoint answers for changes.
    endpoint_epoch: i32,
    /// The last append about it.
    pub(super) last_append: Option<Ticket>,
}

impl LiveStreams {
    pub(crate) fn new(group: StreamsGroup) -> Self {
        Self {
            group,
            timers: BTreeMap::new(),
            looked_at: None,
            configured: None,
            shutdown_by: None,
            endpoint_epoch: 0,
            last_append: None,
        }
    }

    /// The records that take it out of the log.
    pub(crate) fn tombstones(&self, id: &Text) -> Result<Vec<CoordinatorRecord>, EncodeError> {
        encode(id, &update::delete(&self.group))
    }

    /// What the failure of an append need not take along.
    pub(super) fn keep_soft_state(&mut self, before: &Self) {
        self.shutdown_by.clone_from(&before.shutdown_by);
        self.endpoint_epoch = before.endpoint_epoch;
    }

    /// Who may commit offsets: members by their epoch, and those who are nobody's member while there are none.
    pub(crate) fn may_commit(&self, command: &OffsetCommit) -> Result<(), ErrorCode> {
        let epoch = command.generation_id;
        if commits_as_nobody(command, self.group.members().is_empty()) {
            return Ok(());
        }
        let transactional = command.transaction.is_some();
        let member = self.group.members().get(&command.member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if !transactional && !command.takes_member_epoch {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let current = member.current.epoch;
        if epoch == current || ((0..current).contains(&epoch) && self.ran_since(member, command, epoch)) {
            return Ok(());
        }
        // TxnOffsetCommit speaks of generations only.
        Err(if transactional { ErrorCode::IllegalGeneration } else { ErrorCode::StaleMemberEpoch })
    }

    /// An older epoch is as good as the member's own where it has run every task since then: only others' tasks have
    /// moved.
    fn ran_since(&self, member: &StreamsMember, command: &OffsetCommit, epoch: i32) -> bool {
        let Some(topology) = self.group.topology() else { return false };
        let since = |subtopology: &Text, number: i32| {
            let both = [&member.current.assigned, &member.current.revoking];
            both.into_iter().find_map(|tasks| tasks.active.get(subtopology)?.get(&number).copied())
        };
        command.topics.iter().all(|(topic, offsets)| {
            topology.reader_of(topic).is_some_and(|subtopology| {
                let mut numbers = offsets.iter().map(|offset| offset.partition);
                numbers.all(|number| since(subtopology, number).is_some_and(|since| since <= epoch))
            })
        })
    }
}

fn encode(id: &Text, records: &[StreamsRecord]) -> Result<Vec<CoordinatorRecord>, EncodeError> {
    records.iter().map(|record| crate::streams_group::records::encode(id, record)).collect()
}

fn not_streams(group_id: &Text) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("Group {group_id} is not a streams group."))
}

impl GroupCoordinator {
    pub(super) fn streams_heartbeat(
        &mut self,
        now: Now,
        token: RequestToken,
        command: &StreamsHeartbeat,
        effects: &mut Effects,
    ) {
        let refuse = |refusal: Refusal| {
            (token, Reply::StreamsHeartbeat(Box::new(StreamsHeartbeatReply::refused(refusal))))
        };
        let joins = command.member_epoch == JOIN_EPOCH;
        let ready = self.ready_for(heartbeat::validate(command), &command.group_id, joins);
        if let Err(refusal) = ready {
            effects.replies.push(refuse(refusal));
            return;
        }
        let found = self.with_group(now, effects, &command.group_id, |turn, group| {
            if let Err(refusal) = turn.streams_heartbeat(group, token, command) {
                let (token, reply) = refuse(refusal);
                turn.reply(token, reply);
            }
        });
        if found.is_none() {
            effects.replies.push(refuse(group_not_found(&command.group_id)));
        }
    }
}

impl Turn<'_> {
    /// The settings of streams groups as they are for this one.
    pub(super) fn streams_config(&self, id: &Text) -> StreamsGroupConfig {
        let overrides = self.machinery.overrides.get(id).copied().unwrap_or_default();
        self.config.streams.of_group(overrides.streams)
    }

    fn with_streams_context<R>(
        &self,
        id: &Text,
        streams: &LiveStreams,
        act: impl FnOnce(&Context<'_>) -> R,
    ) -> R {
        let topics = &*self.machinery.topics;
        act(&Context {
            config: &self.streams_config(id),
            topics,
            wall_ms: self.now.wall_ms,
            look_at_topics: streams.looked_at != Some(topics.version()),
            configured: streams.configured.as_ref(),
            is_delayed: streams.timers.contains_key(&TimerKind::InitialRebalance),
        })
    }

    fn streams_heartbeat(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &StreamsHeartbeat,
    ) -> Result<(), Refusal> {
        if command.member_epoch < JOIN_EPOCH {
            return self.leave_streams_group(group, token, command);
        }
        let joins = command.member_epoch == JOIN_EPOCH;
        let (converted, mut records) = match &group.streams {
            Some(_) => (None, Vec::new()),
            // A group without members is of the kind that whoever joins next asks for.
            None if joins
                && group.consumer.is_none()
                && group.share.is_none()
                && group.state == GroupState::Empty =>
            {
                let tombstone = classic_tombstone(group)?;
                (Some(LiveStreams::new(StreamsGroup::default())), tombstone)
            }
            None => return Err(not_streams(&group.id)),
        };
        let live = converted.as_ref().or(group.streams.as_deref());
        let Some(streams) = live else { return Err(not_streams(&group.id)) };
        let decision = self.with_streams_context(&group.id, streams, |context| {
            heartbeat::decide(&streams.group, context, command)
        })?;
        let Decision { records: decided, mut reply, configured, moved, starts_delay } = decision;
        records.extend(encode(&group.id, &decided).map_err(|_| not_encoded())?);
        if let Some(converted) = converted {
            self.become_streams_group(group, converted);
        }
        self.apply_streams(group, &decided, configured);
        if starts_delay {
            let delay_ms = milliseconds(self.streams_config(&group.id).initial_rebalance_delay_ms);
            self.arm_consumer_timer(group, TimerKind::InitialRebalance, delay_ms);
        }
        self.arm_session(group, &reply.member_id);
        let topics = Arc::clone(&self.machinery.topics);
        if let Some(streams) = group.streams.as_deref_mut() {
            let member = streams.group.members().get(&reply.member_id);
            if moved && member.is_some_and(|member| member.metadata.user_endpoint.is_some()) {
                streams.endpoint_epoch = streams.endpoint_epoch.wrapping_add(1);
            }
            reply.endpoint_epoch = streams.endpoint_epoch;
            if command.endpoint_epoch != streams.endpoint_epoch {
                reply.endpoints = Some(endpoints(&streams.group, &topics));
            }
            if command.shutdown_application {
                streams.shutdown_by = Some(reply.member_id.clone());
            }
            reply.status.extend(streams.shutdown_by.as_ref().map(shutdown));
        }
        self.append_ahead(group, records, Some((token, Reply::StreamsHeartbeat(Box::new(reply)))));
        Ok(())
    }

    fn leave_streams_group(
        &mut self,
        group: &mut LiveGroup,
        token: RequestToken,
        command: &StreamsHeartbeat,
    ) -> Result<(), Refusal> {
        let Some(streams) = group.streams.as_deref_mut() else { return Err(not_streams(&group.id)) };
        if !streams.group.members().contains_key(&command.member_id) {
            return Err(Refusal::unknown_member(&command.member_id));
        }
        if command.shutdown_application {
            streams.shutdown_by = Some(command.member_id.detached());
        }
        let reply = StreamsHeartbeatReply::of(command.member_id.clone(), command.member_epoch);
        self.remove_streams_member(
            group,
            &command.member_id,
            Some((token, Reply::StreamsHeartbeat(Box::new(reply)))),
        )
    }

    /// Takes a member out: the others share anew.
    pub(super) fn remove_streams_member(
        &mut self,
        group: &mut LiveGroup,
        member_id: &Text,
        answer: Option<(RequestToken, Reply)>,
    ) -> Result<(), Refusal> {
        let Some(streams) = group.streams.as_deref_mut() else { return Ok(()) };
        let Some(member) = streams.group.members().get(member_id) else { return Ok(()) };
        if member.metadata.user_endpoint.is_some() {
            streams.endpoint_epoch = streams.endpoint_epoch.wrapping_add(1);
        }
        let decided = update::remove(&streams.group, &member_id.detached());
        let records = encode(&group.id, &decided).map_err(|_| not_encoded())?;
        self.cancel_member_timers(group, member_id);
        self.apply_streams(group, &decided, None);
        self.append_ahead(group, records, answer);
        Ok(())
    }

    /// The first members of a group have waited for more: now they get their tasks.
    pub(super) fn initial_rebalance(&mut self, group: &mut LiveGroup) {
        let Some(streams) = group.streams.as_deref() else { return };
        let decided = self
            .with_streams_context(&group.id, streams, |context| update::delay_over(&streams.group, context));
        // If it could not be encoded, the next heartbeat would work the target out.
        let Ok(records) = encode(&group.id, &decided) else { return };
        self.apply_streams(group, &decided, None);
        self.append_ahead(group, records, None);
    }

    /// What is decided counts from now on.
    fn apply_streams(
        &mut self,
        group: &mut LiveGroup,
        decided: &[StreamsRecord],
        configured: Option<Arc<Configured>>,
    ) {
        let version = self.machinery.topics.version();
        let Some(streams) = &mut group.streams else { return };
        let mut moved = Vec::new();
        for record in decided {
            if let StreamsRecord::Current(member_id, Some(_)) = record {
                moved.push(member_id.clone());
            }
            streams.group.apply(record.clone());
        }
        if streams.group.members().is_empty() {
            streams.shutdown_by = None;
        }
        if configured.is_some() {
            streams.configured = configured;
            streams.looked_at = Some(version);
        }
        for member_id in moved {
            self.arm_revocation(group, &member_id);
        }
    }

    fn become_streams_group(&mut self, group: &mut LiveGroup, streams: LiveStreams) {
        self.drop_soft_state(group, ErrorCode::RebalanceInProgress);
        let mut converted = LiveGroup::new(group.id.clone());
        converted.in_flight = std::mem::take(&mut group.in_flight);
        converted.appends_in_flight = group.appends_in_flight;
        converted.streams = Some(Box::new(streams));
        *group = converted;
    }
}

fn shutdown(member_id: &Text) -> Status {
    let detail = format!(
        "Streams group member {member_id} encountered a fatal error and requested a shutdown for the entire application."
    );
    Status { code: StatusCode::ShutdownApplication, detail: Text::from(detail) }
}
