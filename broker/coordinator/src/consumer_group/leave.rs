//! Members that go: by themselves, for a while (static members), or because they were silent or slow.

use std::collections::BTreeSet;

use ottla_wire::text::Text;

use super::command::{ConsumerHeartbeat, Refusal};
use super::heartbeat::{Decision, fenced_instance, left, unknown_instance};
use super::state::{ConsumerGroup, ConsumerRecord, CurrentAssignment, LEAVE_STATIC_EPOCH, MemberMetadata};
use super::update::{Context, member_tombstones};
use super::view::metadata_hash;

/// A heartbeat that leaves.
pub(crate) fn decide(group: &ConsumerGroup, command: &ConsumerHeartbeat) -> Result<Decision, Refusal> {
    if let Some(instance) = &command.instance_id {
        match group.static_member(instance) {
            None => return Err(unknown_instance(instance)),
            Some(holder) if *holder != command.member_id => return Err(fenced_instance(instance)),
            Some(_) => {}
        }
    }
    let Some((member_id, member)) = group.members().get_key_value(&command.member_id) else {
        return Err(Refusal::unknown_member(&command.member_id));
    };
    if command.member_epoch == LEAVE_STATIC_EPOCH {
        // It keeps its partitions, but for those that it was to let go of, and its session goes on.
        let current = CurrentAssignment {
            epoch: LEAVE_STATIC_EPOCH,
            revoking: Default::default(),
            ..member.current.clone()
        };
        let records = vec![ConsumerRecord::Current(member_id.clone(), Some(current))];
        return Ok(Decision {
            records,
            reply: left(command),
            member_id: Some(member_id.clone()),
            gone: None,
        });
    }
    // The records of going for good depend on who else is there: see `remove` and the downgrade of groups.
    Ok(Decision { records: Vec::new(), reply: left(command), member_id: None, gone: Some(member_id.clone()) })
}

/// The records that take members out: the others share anew.
pub(crate) fn remove(
    group: &ConsumerGroup,
    context: &Context<'_>,
    gone: &BTreeSet<Text>,
) -> Vec<ConsumerRecord> {
    let mut records: Vec<ConsumerRecord> = gone.iter().flat_map(member_tombstones).collect();
    let left: Vec<&MemberMetadata> =
        gone.iter().filter_map(|member_id| group.members().get(member_id)).map(|m| &m.metadata).collect();
    if left.is_empty() {
        return Vec::new();
    }
    let lost = |count: usize, has: &dyn Fn(&MemberMetadata) -> bool| {
        left.iter().filter(|metadata| has(metadata)).count() >= count
    };
    let mut names: BTreeSet<&Text> = group
        .topic_counts()
        .iter()
        .filter(|(name, count)| !lost(**count, &|metadata| metadata.topics.contains(*name)))
        .map(|(name, _)| name)
        .collect();
    for (pattern, count) in group.regex_counts() {
        let resolved = group.regexes().get(pattern);
        if lost(*count, &|metadata| metadata.pattern() == Some(pattern)) {
            records.extend(resolved.map(|_| ConsumerRecord::Regex(pattern.clone(), None)));
        } else {
            names.extend(resolved.into_iter().flat_map(|resolved| &resolved.topics));
        }
    }
    let hash = metadata_hash(names.into_iter(), context.topics);
    records.push(ConsumerRecord::Group(Some((group.epoch.saturating_add(1), hash))));
    records
}

/// The records that take a whole group out of the log.
pub(crate) fn delete(group: &ConsumerGroup) -> Vec<ConsumerRecord> {
    let members: BTreeSet<&Text> = group.members().keys().chain(group.targets().keys()).collect();
    let mut records: Vec<ConsumerRecord> = members.into_iter().flat_map(member_tombstones).collect();
    records.extend(group.regexes().keys().map(|pattern| ConsumerRecord::Regex(pattern.clone(), None)));
    records.push(ConsumerRecord::TargetEpoch(None));
    records.push(ConsumerRecord::Group(None));
    records
}
