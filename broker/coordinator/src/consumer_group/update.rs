//! What one member's request changes in its group: what it told, the group epoch, the target assignment, and the
//! member's own next step. JoinGroup of classic members goes the same way as ConsumerGroupHeartbeat.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_wire::text::Text;
use uuid::Uuid;

use super::assignor::{self, Assigning, AssigningMember};
use super::config::{ConsumerGroupConfig, GroupOverrides};
use super::reconcile::Reconciliation;
use super::regex;
use super::state::{
    ConsumerGroup, ConsumerMember, ConsumerRecord, MemberMetadata, Partitions, ResolvedRegex,
};
use super::view::{TopicsView, metadata_hash};

/// What decisions go by beside the group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) config: &'a ConsumerGroupConfig,
    pub(crate) overrides: GroupOverrides,
    pub(crate) topics: &'a TopicsView,
    /// Milliseconds since the Unix epoch.
    pub(crate) wall_ms: i64,
    /// The topics have changed since the group last looked at them.
    pub(crate) look_at_topics: bool,
    /// Patterns are to be resolved anew.
    pub(crate) refresh_regexes: bool,
}

impl Context<'_> {
    pub(crate) fn heartbeat_interval_ms(&self) -> i32 {
        self.overrides.heartbeat_interval_ms.unwrap_or(self.config.heartbeat_interval_ms)
    }

    fn assignment_interval_ms(&self) -> i64 {
        self.overrides.assignment_interval_ms.unwrap_or(self.config.assignment_interval_ms)
    }
}

/// A member and what its request says.
#[derive(Debug)]
pub(crate) struct Update<'a> {
    pub(crate) member_id: &'a Text,
    /// A static member's former id, which this one replaces.
    pub(crate) former_id: Option<&'a Text>,
    /// As it was; of a replaced static member, what it takes over. None: it is new.
    pub(crate) member: Option<&'a ConsumerMember>,
    /// What it tells now; None: nothing new.
    pub(crate) metadata: Option<MemberMetadata>,
    /// What it says it has; None: it did not say.
    pub(crate) owned: Option<&'a Partitions>,
}

/// What follows from it.
#[derive(Debug)]
pub(crate) struct Updated {
    pub(crate) records: Vec<ConsumerRecord>,
    pub(crate) member: ConsumerMember,
}

/// Records of the member that was replaced: it is gone.
pub(crate) fn member_tombstones(member_id: &Text) -> [ConsumerRecord; 3] {
    [
        ConsumerRecord::Current(member_id.clone(), None),
        ConsumerRecord::Target(member_id.clone(), None),
        ConsumerRecord::Member(member_id.clone(), None),
    ]
}

/// Decides an update.
pub(crate) fn decide(group: &ConsumerGroup, context: &Context<'_>, update: Update<'_>) -> Updated {
    Draft { group, context, update: &update, records: Vec::new(), regexes: BTreeMap::new() }.decide()
}

/// Names and pattern.
type Subscription<'a> = (&'a BTreeSet<Text>, Option<&'a Text>);

struct Draft<'a> {
    group: &'a ConsumerGroup,
    context: &'a Context<'a>,
    update: &'a Update<'a>,
    records: Vec<ConsumerRecord>,
    /// Patterns resolved in this step.
    regexes: BTreeMap<Text, ResolvedRegex>,
}

impl<'a> Draft<'a> {
    fn decide(mut self) -> Updated {
        let before = self.update.member.cloned().unwrap_or_default();
        let metadata = self.update.metadata.clone().unwrap_or_else(|| before.metadata.clone());
        self.replace_former();
        if self.update.member.is_none() || self.update.metadata.is_some() || self.update.former_id.is_some() {
            self.records.push(ConsumerRecord::Member(self.update.member_id.clone(), Some(metadata.clone())));
        }
        let subscribes_anew = self.update.member.is_none()
            || before.metadata.topics != metadata.topics
            || before.metadata.pattern() != metadata.pattern();
        self.resolve_patterns(&before.metadata, &metadata);
        let epoch = self.next_epoch(subscribes_anew, &metadata);
        let mut member = ConsumerMember { metadata, current: before.current.clone() };
        let (target_epoch, target) = self.next_target(epoch, &member);
        let reconciliation = Reconciliation {
            group: self.group,
            member_id: self.update.member_id,
            former_id: self.update.former_id,
            target_epoch,
            target: &target,
            owned: self.update.owned,
        };
        let next = reconciliation.next(&member);
        if next.is_some() || self.update.member.is_none() || self.update.former_id.is_some() {
            member.current = next.unwrap_or(member.current);
            let current = Some(member.current.clone());
            self.records.push(ConsumerRecord::Current(self.update.member_id.clone(), current));
        }
        Updated { records: self.records, member }
    }

    /// The new member takes the former one's target over.
    fn replace_former(&mut self) {
        let Some(former_id) = self.update.former_id else { return };
        self.records.extend(member_tombstones(former_id));
        if let Some(target) = self.group.targets().get(former_id) {
            let target = Some(target.clone());
            self.records.push(ConsumerRecord::Target(self.update.member_id.clone(), target));
        }
    }

    /// Resolves what is new or due, and forgets the pattern that nobody has any more.
    fn resolve_patterns(&mut self, before: &MemberMetadata, after: &MemberMetadata) {
        let (old, new) = (before.pattern(), after.pattern());
        if old != new
            && let Some(old) = old
            && self.group.regex_counts().get(old) == Some(&1)
            && self.group.regexes().contains_key(old)
        {
            self.records.push(ConsumerRecord::Regex(old.clone(), None));
        }
        let refreshed: Vec<Text> = if self.context.refresh_regexes {
            let gone = |regex: &&Text| {
                old == Some(*regex) && old != new && self.group.regex_counts().get(*regex) == Some(&1)
            };
            self.group.regex_counts().keys().filter(|regex| !gone(regex)).cloned().collect()
        } else {
            Vec::new()
        };
        let unknown = new.filter(|new| !self.group.regexes().contains_key(*new)).cloned();
        for pattern in refreshed.into_iter().chain(unknown) {
            if self.regexes.contains_key(&pattern) {
                continue;
            }
            let resolved = regex::resolve(&pattern, self.context.topics, self.context.wall_ms);
            let known = self.group.regexes().get(&pattern);
            if known.is_none_or(|known| known.topics != resolved.topics) {
                self.records.push(ConsumerRecord::Regex(pattern.clone(), Some(resolved.clone())));
                self.regexes.insert(pattern, resolved);
            }
        }
    }

    fn matches_of(&self, pattern: &Text) -> Option<&BTreeSet<Text>> {
        let resolved = self.regexes.get(pattern).or_else(|| self.group.regexes().get(pattern))?;
        Some(&resolved.topics)
    }

    /// The group epoch, which grows if subscriptions or their topics have changed.
    fn next_epoch(&mut self, subscribes_anew: bool, metadata: &MemberMetadata) -> i32 {
        let looks = subscribes_anew || self.context.look_at_topics || !self.regexes.is_empty();
        if !looks && self.group.epoch > 0 {
            return self.group.epoch;
        }
        let old = self.update.member.map(|member| &member.metadata);
        let hash = {
            let mut names = names_without(self.group, old);
            names.extend(&metadata.topics);
            let patterns = self.group.regex_counts().iter().filter(|(pattern, count)| {
                **count > 1 || old.and_then(MemberMetadata::pattern) != Some(*pattern)
            });
            for pattern in patterns.map(|(pattern, _)| pattern).chain(metadata.pattern()) {
                names.extend(self.matches_of(pattern).into_iter().flatten());
            }
            metadata_hash(names.into_iter(), self.context.topics)
        };
        if !subscribes_anew && hash == self.group.metadata_hash && self.group.epoch > 0 {
            return self.group.epoch;
        }
        let epoch = self.group.epoch.saturating_add(1);
        self.records.push(ConsumerRecord::Group(Some((epoch, hash))));
        epoch
    }

    /// The target of the member and its epoch: a new one if the group has moved on.
    fn next_target(&mut self, epoch: i32, member: &ConsumerMember) -> (i32, Cow<'a, Partitions>) {
        let former = self.update.former_id.unwrap_or(self.update.member_id);
        let known = self.group.targets().get(former).map_or(Cow::Owned(Partitions::new()), Cow::Borrowed);
        if epoch <= self.group.target_epoch || !self.may_assign() {
            return (self.group.target_epoch, known);
        }
        let mut targets = self.assign(member);
        let mine = targets.get(self.update.member_id).cloned().unwrap_or_default();
        for (member_id, target) in &mut targets {
            let is_mine = member_id == self.update.member_id;
            let before = self.group.targets().get(if is_mine { former } else { member_id });
            let is_known = before.map_or(target.is_empty(), |before| before == target);
            if !is_known {
                let target = std::mem::take(target);
                self.records.push(ConsumerRecord::Target(member_id.clone(), Some(target)));
            }
        }
        self.records.push(ConsumerRecord::TargetEpoch(Some((epoch, self.context.wall_ms))));
        (epoch, Cow::Owned(mine))
    }

    /// Whether it is time for a new target: others' changes within a short time are taken together.
    fn may_assign(&self) -> bool {
        let alone =
            self.group.members().keys().all(|member_id| {
                member_id == self.update.member_id || Some(member_id) == self.update.former_id
            });
        alone || interval_is_over(self.group, self.context)
    }

    fn assign(&self, member: &ConsumerMember) -> BTreeMap<Text, Partitions> {
        let mut assigning = Assigning::default();
        let mut shared: BTreeMap<Subscription<'_>, Arc<[Uuid]>> = BTreeMap::new();
        let former = self.update.former_id.unwrap_or(self.update.member_id);
        let others = self
            .group
            .members()
            .iter()
            .filter(|(member_id, _)| *member_id != self.update.member_id && *member_id != former)
            .map(|(member_id, member)| (member_id, &**member, member_id));
        for (member_id, member, target) in others.chain([(self.update.member_id, member, former)]) {
            let metadata = &member.metadata;
            let topics = shared
                .entry((&metadata.topics, metadata.pattern()))
                .or_insert_with(|| self.topics_of(metadata, &mut assigning.partitions));
            let assigning_member = AssigningMember {
                instance_id: metadata.instance_id.clone(),
                topics: Arc::clone(topics),
                target: self.group.targets().get(target),
            };
            assigning.members.insert(member_id.clone(), assigning_member);
        }
        let assignor = self.assignor(member);
        assignor::assign(&assignor, &assigning)
    }

    fn topics_of(&self, metadata: &MemberMetadata, partitions: &mut BTreeMap<Uuid, i32>) -> Arc<[Uuid]> {
        let matches = metadata.pattern().and_then(|pattern| self.matches_of(pattern));
        let names = metadata.topics.iter().chain(matches.into_iter().flatten());
        let mut ids = BTreeSet::new();
        for topic in names.filter_map(|name| self.context.topics.by_name(name)) {
            partitions.insert(topic.id, topic.partitions);
            ids.insert(topic.id);
        }
        ids.into_iter().collect()
    }

    /// The assignor that most members ask for, with what this one asks for now.
    fn assignor(&self, member: &ConsumerMember) -> Text {
        let old = self.update.member.and_then(|member| member.metadata.server_assignor.as_ref());
        let new = member.metadata.server_assignor.as_ref();
        let mut counts: BTreeMap<&Text, usize> =
            self.group.assignor_counts().iter().map(|(name, count)| (name, *count)).collect();
        if let Some(count) = old.and_then(|old| counts.get_mut(old)) {
            *count -= 1;
        }
        if let Some(new) = new {
            *counts.entry(new).or_default() += 1;
        }
        most_wanted(counts.into_iter(), self.context.config)
    }
}

/// Whether a new target may be made, as far as the time since the last one goes.
pub(crate) fn interval_is_over(group: &ConsumerGroup, context: &Context<'_>) -> bool {
    let since_ms = context.wall_ms.saturating_sub(group.target_timestamp_ms);
    // A clock that went back must not stop assignments.
    group.target_epoch == 0 || since_ms < 0 || since_ms >= context.assignment_interval_ms()
}

/// The assignor with most votes; of equal ones the first that the node lists; without votes the node's first.
pub(crate) fn most_wanted<'a>(
    votes: impl Iterator<Item = (&'a Text, usize)>,
    config: &ConsumerGroupConfig,
) -> Text {
    let votes: BTreeMap<&Text, usize> = votes.filter(|(_, count)| *count > 0).collect();
    let most = votes.values().max().copied().unwrap_or(0);
    let wanted = |name: &&Text| votes.get(*name).copied().unwrap_or(0) == most;
    config.assignors.iter().find(wanted).cloned().unwrap_or_else(|| Text::from(assignor::ASSIGNORS[0]))
}

/// Names that members subscribe to, leaving one member out.
pub(crate) fn names_without<'a>(
    group: &'a ConsumerGroup,
    left_out: Option<&MemberMetadata>,
) -> BTreeSet<&'a Text> {
    let by_others = |(name, count): &(&Text, &usize)| {
        **count > 1 || !left_out.is_some_and(|metadata| metadata.topics.contains(*name))
    };
    group.topic_counts().iter().filter(by_others).map(|(name, _)| name).collect()
}
