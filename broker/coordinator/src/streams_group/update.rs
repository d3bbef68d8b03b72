//! What one member's heartbeat changes in its streams group: what it told, the topology, the group epoch, the target
//! assignment, and the member's own next step. And what follows from members that go.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_wire::text::Text;

use super::assignor::{self, AssigningMember};
use super::command::{Status, StatusCode};
use super::config::StreamsGroupConfig;
use super::configure::{Configured, configure};
use super::heartbeat::check_tasks;
use super::reconcile::Reconciliation;
use super::state::{
    CurrentTasks, GroupEpoch, NO_TOPOLOGY_EPOCH, StreamsGroup, StreamsMember, StreamsMemberMetadata,
    StreamsRecord, TaskSet,
};
use super::topology::Topology;
use crate::consumer_group::{Refusal, TopicsView, metadata_hash};

/// The one setting that the assignor goes by, as the group's record has it.
const STANDBY_REPLICAS: &str = "num.standby.replicas";

/// What decisions go by beside the group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// As it is for the group.
    pub(crate) config: &'a StreamsGroupConfig,
    pub(crate) topics: &'a TopicsView,
    /// Milliseconds since the Unix epoch.
    pub(crate) wall_ms: i64,
    /// The topics have changed since the group last looked at them.
    pub(crate) look_at_topics: bool,
    /// The topology beside the topics, as the group last looked at them.
    pub(crate) configured: Option<&'a Arc<Configured>>,
    /// The first members of the group wait for more.
    pub(crate) is_delayed: bool,
}

/// A member and what its request says.
#[derive(Debug)]
pub(crate) struct Update<'a> {
    pub(crate) member_id: &'a Text,
    /// As it was. None: it is new.
    pub(crate) member: Option<&'a StreamsMember>,
    /// What it tells now; None: nothing new.
    pub(crate) told: Option<StreamsMemberMetadata>,
    /// The group's first topology.
    pub(crate) new_topology: Option<Arc<Topology>>,
    /// What it says it has; None: it did not say.
    pub(crate) owned: Option<&'a TaskSet>,
}

/// What follows from it.
#[derive(Debug, Default)]
pub(crate) struct Updated {
    pub(crate) records: Vec<StreamsRecord>,
    /// What the member has, if that is new.
    pub(crate) current: Option<CurrentTasks>,
    pub(crate) configured: Option<Arc<Configured>>,
    pub(crate) delayed: Option<Status>,
    pub(crate) starts_delay: bool,
}

/// Whether the group's epoch was made with the settings that it has now.
pub(crate) fn has_configs(group: &StreamsGroup, context: &Context<'_>) -> bool {
    let known = group.head.assignment_configs.get(STANDBY_REPLICAS);
    known.is_some_and(|known| known.parse() == Ok(context.config.standby_replicas))
}

/// Decides an update.
pub(crate) fn decide(
    group: &StreamsGroup,
    context: &Context<'_>,
    update: Update<'_>,
) -> Result<Updated, Refusal> {
    let mut records = Vec::new();
    let is_new = update.member.is_none();
    if let Some(told) = &update.told {
        records.push(StreamsRecord::Member(update.member_id.clone(), Some(told.clone())));
    }
    if let Some(topology) = &update.new_topology {
        records.push(StreamsRecord::Topology(Some(Arc::clone(topology))));
    }
    let (configured, hash) = look(group, context, update.new_topology.as_ref())?;
    if configured.is_ready() {
        check_tasks(&configured, update.owned)?;
    }
    let topology = update.new_topology.as_ref().or(group.topology());
    let valid =
        topology.filter(|_| configured.is_ready()).map_or(NO_TOPOLOGY_EPOCH, |topology| topology.epoch);
    let moves_on = update.told.is_some()
        || update.new_topology.is_some()
        || hash != group.head.metadata_hash
        || valid != group.head.validated_topology_epoch
        || !has_configs(group, context);
    let mut epoch = group.head.epoch;
    if moves_on {
        epoch = epoch.saturating_add(1);
        records.push(StreamsRecord::Group(Some(head(context, epoch, hash, valid))));
    }
    let starts_delay =
        group.members().is_empty() && !context.is_delayed && context.config.initial_rebalance_delay_ms > 0;
    let fallback = StreamsMemberMetadata::default();
    let metadata = update.told.as_ref().or(update.member.map(|member| &member.metadata)).unwrap_or(&fallback);
    let is_delayed = context.is_delayed || starts_delay;
    let target = next_target(
        group,
        context,
        &configured,
        epoch,
        is_delayed,
        (update.member_id, metadata),
        &mut records,
    );
    let reconciliation = Reconciliation {
        group,
        member_id: update.member_id,
        process_id: &metadata.process_id,
        target_epoch: target.epoch,
        target: &target.tasks,
        owned: update.owned,
    };
    let nothing = CurrentTasks::default();
    let before = update.member.map_or(&nothing, |member| &member.current);
    let next = reconciliation.next(before);
    let current = if is_new { Some(next.unwrap_or(nothing)) } else { next };
    if let Some(current) = &current {
        records.push(StreamsRecord::Current(update.member_id.clone(), Some(current.clone())));
    }
    let configured = Some(configured);
    Ok(Updated { records, current, configured, delayed: target.delayed, starts_delay })
}

fn head(context: &Context<'_>, epoch: i32, metadata_hash: i64, validated_topology_epoch: i32) -> GroupEpoch {
    let replicas = Text::from(context.config.standby_replicas.to_string());
    let assignment_configs = BTreeMap::from([(Text::from_static(STANDBY_REPLICAS), replicas)]);
    GroupEpoch { epoch, metadata_hash, validated_topology_epoch, assignment_configs }
}

/// The topology beside the topics, and a number that changes with those that it needs.
fn look(
    group: &StreamsGroup,
    context: &Context<'_>,
    new_topology: Option<&Arc<Topology>>,
) -> Result<(Arc<Configured>, i64), Refusal> {
    if let Some(known) = context.configured
        && new_topology.is_none()
        && !context.look_at_topics
    {
        return Ok((Arc::clone(known), group.head.metadata_hash));
    }
    let nothing = Arc::default();
    let topology = new_topology.or(group.topology()).unwrap_or(&nothing);
    let hash = metadata_hash(topology.required_topics().into_iter(), context.topics);
    match context.configured.filter(|_| new_topology.is_none() && hash == group.head.metadata_hash) {
        Some(known) => Ok((Arc::clone(known), hash)),
        None => Ok((Arc::new(configure(topology, context.topics)?), hash)),
    }
}

/// A member's target.
struct NextTarget<'a> {
    epoch: i32,
    tasks: Cow<'a, TaskSet>,
    /// Why it is not that of the newest group epoch.
    delayed: Option<Status>,
}

/// The target of the member and its epoch: a new one if the group has moved on and it is time.
fn next_target<'a>(
    group: &'a StreamsGroup,
    context: &Context<'_>,
    configured: &Configured,
    epoch: i32,
    is_delayed: bool,
    told: (&Text, &StreamsMemberMetadata),
    records: &mut Vec<StreamsRecord>,
) -> NextTarget<'a> {
    let member_id = told.0;
    let status = |detail: &'static str| Status {
        code: StatusCode::AssignmentDelayed,
        detail: Text::from_static(detail),
    };
    let known = || group.targets().get(member_id).map_or(Cow::Owned(TaskSet::default()), Cow::Borrowed);
    if epoch <= group.target_epoch {
        return NextTarget { epoch: group.target_epoch, tasks: known(), delayed: None };
    }
    if is_delayed {
        let delayed = Some(status("Assignment delayed due to the configured initial rebalance delay."));
        return NextTarget { epoch: group.target_epoch, tasks: Cow::Owned(TaskSet::default()), delayed };
    }
    if !interval_is_over(group, context) {
        let delayed = Some(status("Assignment delayed due to the configured assignment interval."));
        return NextTarget { epoch: group.target_epoch, tasks: known(), delayed };
    }
    let (targets, mine) = retarget(group, context, configured, epoch, Some(told));
    records.extend(targets);
    NextTarget { epoch, tasks: Cow::Owned(mine), delayed: None }
}

fn interval_is_over(group: &StreamsGroup, context: &Context<'_>) -> bool {
    let since_ms = context.wall_ms.saturating_sub(group.target_timestamp_ms);
    // A clock that went back must not stop assignments.
    since_ms < 0 || since_ms >= context.config.assignment_interval_ms
}

/// The records of a new target for everybody, and the target of the member that is told of beside the group.
fn retarget(
    group: &StreamsGroup,
    context: &Context<'_>,
    configured: &Configured,
    epoch: i32,
    told: Option<(&Text, &StreamsMemberMetadata)>,
) -> (Vec<StreamsRecord>, TaskSet) {
    let mut members: BTreeMap<&Text, AssigningMember<'_>> = BTreeMap::new();
    let others = group.members().iter().map(|(member_id, member)| (member_id, &member.metadata));
    for (member_id, metadata) in others.chain(told) {
        let target = group.targets().get(member_id);
        members.insert(member_id, AssigningMember { process_id: &metadata.process_id, target });
    }
    // While the topics do not fit nobody runs anything.
    let mut targets = if configured.is_ready() {
        assignor::assign(&members, &configured.tasks, context.config.standby_replicas)
    } else {
        members.keys().map(|member_id| ((*member_id).clone(), TaskSet::default())).collect()
    };
    let mine = told.and_then(|(member_id, _)| targets.get(member_id)).cloned().unwrap_or_default();
    targets.retain(|member_id, target| {
        group.targets().get(member_id).map_or(!target.is_empty(), |before| before != target)
    });
    let mut records: Vec<StreamsRecord> = targets
        .into_iter()
        .map(|(member_id, target)| StreamsRecord::Target(member_id, Some(target)))
        .collect();
    records.push(StreamsRecord::TargetEpoch(Some((epoch, context.wall_ms))));
    (records, mine)
}

/// The first members have waited long enough: the records of their target.
pub(crate) fn delay_over(group: &StreamsGroup, context: &Context<'_>) -> Vec<StreamsRecord> {
    match context.configured {
        Some(configured) if !group.members().is_empty() && group.head.epoch > group.target_epoch => {
            retarget(group, context, configured, group.head.epoch, None).0
        }
        _ => Vec::new(),
    }
}

fn member_tombstones(member_id: &Text) -> [StreamsRecord; 3] {
    [
        StreamsRecord::Current(member_id.clone(), None),
        StreamsRecord::Target(member_id.clone(), None),
        StreamsRecord::Member(member_id.clone(), None),
    ]
}

/// The records that take a member out: the others share anew.
pub(crate) fn remove(group: &StreamsGroup, member_id: &Text) -> Vec<StreamsRecord> {
    let mut records = member_tombstones(member_id).to_vec();
    let epoch = group.head.epoch.saturating_add(1);
    records.push(StreamsRecord::Group(Some(GroupEpoch { epoch, ..group.head.clone() })));
    records
}

/// The records that take a whole group out of the log.
pub(crate) fn delete(group: &StreamsGroup) -> Vec<StreamsRecord> {
    let members: BTreeSet<&Text> = group.members().keys().chain(group.targets().keys()).collect();
    let mut records: Vec<StreamsRecord> = members.into_iter().flat_map(member_tombstones).collect();
    records.push(StreamsRecord::TargetEpoch(None));
    records.push(StreamsRecord::Topology(None));
    records.push(StreamsRecord::Group(None));
    records
}
