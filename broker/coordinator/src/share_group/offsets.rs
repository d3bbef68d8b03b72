//! Which share-partitions the share coordinator keeps for a group, and changes of that.

use std::collections::BTreeSet;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use uuid::Uuid;

use super::command::ShareStateChange;
use super::heartbeat::{names, subscribed};
use super::state::{ShareGroup, ShareRecord, StatePartitions};
use crate::consumer_group::{Partitions, TopicsView};

/// Partitions that members subscribe to and that nobody has told the share coordinator of.
pub(super) fn to_initialize(group: &ShareGroup, topics: &TopicsView) -> Partitions {
    let known = &group.partitions;
    let mut missing = Partitions::new();
    for topic in names(group).into_iter().filter_map(|name| topics.by_name(name)) {
        let is_known = |number: &i32| {
            let of = [known.initializing.get(&topic.id), known.initialized.get(&topic.id)];
            of.into_iter().flatten().any(|(_, numbers)| numbers.contains(number))
        };
        let numbers: BTreeSet<i32> = (0..topic.partitions).filter(|number| !is_known(number)).collect();
        if !numbers.is_empty() {
            missing.insert(topic.id, numbers);
        }
    }
    missing
}

/// With these being initialised.
pub(super) fn initializing(
    group: &ShareGroup,
    topics: &TopicsView,
    partitions: &Partitions,
) -> StatePartitions {
    let mut known = group.partitions.clone();
    for (id, numbers) in partitions {
        let Some(topic) = topics.by_id(*id) else { continue };
        known.deleting.remove(id);
        let entry = known.initializing.entry(*id).or_insert_with(|| (topic.name.clone(), BTreeSet::new()));
        entry.1.extend(numbers);
    }
    known
}

/// Without topics that are not there any more; None: all are.
pub(super) fn without_deleted_topics(group: &ShareGroup, topics: &TopicsView) -> Option<StatePartitions> {
    let known = &group.partitions;
    let is_there = |id: &Uuid| topics.by_id(*id).is_some();
    let all = known.initializing.keys().chain(known.initialized.keys()).chain(known.deleting.keys());
    if all.into_iter().all(is_there) {
        return None;
    }
    let mut left = known.clone();
    left.initializing.retain(|id, _| is_there(id));
    left.initialized.retain(|id, _| is_there(id));
    left.deleting.retain(|id, _| is_there(id));
    Some(left)
}

/// What members may be given: initialised partitions of topics that they subscribe to.
pub(super) fn readable(group: &ShareGroup, topics: &TopicsView) -> Partitions {
    let subscribed = subscribed(group, topics);
    let initialized = group.partitions.initialized.iter();
    initialized
        .filter(|(id, (_, numbers))| subscribed.contains(*id) && !numbers.is_empty())
        .map(|(id, (_, numbers))| (*id, numbers.clone()))
        .collect()
}

/// The records of a change.
pub(crate) fn change(
    group: &ShareGroup,
    topics: &TopicsView,
    change: &ShareStateChange,
) -> Result<Vec<ShareRecord>, ErrorCode> {
    let mut known = group.partitions.clone();
    match change {
        ShareStateChange::Initialized { partitions, .. } => {
            for (id, numbers) in partitions {
                let initializing = known.initializing.get_mut(id);
                let name = match (initializing, topics.by_id(*id)) {
                    (Some((name, waiting)), _) => {
                        waiting.retain(|number| !numbers.contains(number));
                        name.clone()
                    }
                    (None, Some(topic)) => topic.name.clone(),
                    // Deleted in the meantime.
                    (None, None) => continue,
                };
                known.deleting.remove(id);
                let entry = known.initialized.entry(*id).or_insert_with(|| (name, BTreeSet::new()));
                entry.1.extend(numbers);
            }
            known.initializing.retain(|_, (_, numbers)| !numbers.is_empty());
        }
        ShareStateChange::Forget(ids) => {
            for id in ids {
                let name = |known: &mut StatePartitions| -> Option<Text> {
                    let initialized = known.initialized.remove(id);
                    let initializing = known.initializing.remove(id);
                    initialized.or(initializing).map(|(name, _)| name)
                };
                if let Some(name) = name(&mut known) {
                    known.deleting.insert(*id, name);
                }
            }
        }
        ShareStateChange::Forgotten(ids) => {
            for id in ids {
                known.deleting.remove(id);
            }
        }
        ShareStateChange::NextEpoch => {
            let epoch = group.epoch.checked_add(1).ok_or(ErrorCode::UnknownServerError)?;
            return Ok(vec![ShareRecord::Group(Some((epoch, group.metadata_hash)))]);
        }
    }
    if known == group.partitions {
        return Ok(Vec::new());
    }
    Ok(vec![ShareRecord::Partitions(Some(known))])
}
