//! The uniform assignor: every member about the same number of partitions, and as few as possible move.
//!
//! Where all subscribe to the same topics: everybody keeps what it has up to its fair share, the rest is dealt out.
//! Otherwise: everybody keeps what it has, what is free goes to the subscriber with least, then partitions move from
//! members with more to subscribers with at least two less, until none can. Only direct moves are looked for, not chains.

use std::collections::{BTreeMap, BTreeSet};

use ottla_wire::text::Text;
use uuid::Uuid;

use super::Assigning;
use crate::consumer_group::state::Partitions;

/// What each member has.
type Kept<'a> = BTreeMap<&'a Text, Vec<(Uuid, i32)>>;
/// What nobody has.
type Free = BTreeMap<Uuid, Vec<i32>>;

/// Passes over all topics in search of a move. Each move makes the assignment more even, so there is an end; this one is
/// for groups where it would be long in coming.
const BALANCE_PASSES_MAX: usize = 32;

pub(super) fn assign(assigning: &Assigning<'_>) -> BTreeMap<Text, Partitions> {
    if assigning.is_homogeneous() { homogeneous(assigning) } else { heterogeneous(assigning) }
}

/// What each member had and may keep, and what nobody has. A partition that two had goes to the first.
fn kept<'a>(assigning: &'a Assigning<'_>) -> (Kept<'a>, Free) {
    let mut taken: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
    let mut kept = BTreeMap::new();
    for (member_id, member) in &assigning.members {
        let mut own = Vec::new();
        for topic in member.topics.iter() {
            let count = assigning.partitions(*topic);
            for partition in member.target.and_then(|target| target.get(topic)).into_iter().flatten() {
                if (0..count).contains(partition) && taken.entry(*topic).or_default().insert(*partition) {
                    own.push((*topic, *partition));
                }
            }
        }
        kept.insert(member_id, own);
    }
    let subscribed: BTreeSet<Uuid> =
        assigning.members.values().flat_map(|member| member.topics.iter().copied()).collect();
    let free = |topic: Uuid| {
        let taken = taken.get(&topic);
        let is_free = |partition: &i32| !taken.is_some_and(|taken| taken.contains(partition));
        (topic, (0..assigning.partitions(topic)).filter(is_free).collect())
    };
    (kept, subscribed.into_iter().map(free).collect())
}

fn collect(own: Vec<(Uuid, i32)>) -> Partitions {
    let mut partitions = Partitions::new();
    for (topic, partition) in own {
        partitions.entry(topic).or_default().insert(partition);
    }
    partitions
}

fn homogeneous(assigning: &Assigning<'_>) -> BTreeMap<Text, Partitions> {
    let (mut kept, free) = kept(assigning);
    let mut free: Vec<(Uuid, i32)> =
        free.into_iter().flat_map(|(topic, numbers)| numbers.into_iter().map(move |n| (topic, n))).collect();
    if kept.is_empty() {
        return BTreeMap::new();
    }
    let all = free.len() + kept.values().map(Vec::len).sum::<usize>();
    let (share, mut extra) = (all / kept.len(), all % kept.len());
    // Who has more than its share keeps one extra as long as there are any, so that it loses less.
    let mut quotas = BTreeMap::new();
    for (member_id, own) in &kept {
        let with_extra = extra > 0 && own.len() > share;
        extra -= usize::from(with_extra);
        quotas.insert(*member_id, share + usize::from(with_extra));
    }
    for (member_id, own) in &kept {
        let quota = quotas.entry(member_id).or_default();
        if extra > 0 && *quota == share && own.len() <= share {
            *quota += 1;
            extra -= 1;
        }
    }
    for (member_id, own) in &mut kept {
        let quota = quotas.get(member_id).copied().unwrap_or(share);
        free.extend(own.drain(own.len().min(quota)..));
    }
    free.sort_unstable();
    let mut free = free.into_iter();
    for (member_id, own) in &mut kept {
        let quota = quotas.get(member_id).copied().unwrap_or(share);
        own.extend(free.by_ref().take(quota.saturating_sub(own.len())));
    }
    kept.into_iter().map(|(member_id, own)| (member_id.clone(), collect(own))).collect()
}

/// The state of the general case: loads, and who has what of each topic.
struct Balance<'a> {
    loads: BTreeMap<&'a Text, usize>,
    owners: BTreeMap<Uuid, BTreeMap<&'a Text, BTreeSet<i32>>>,
}

fn heterogeneous(assigning: &Assigning<'_>) -> BTreeMap<Text, Partitions> {
    let (kept, free) = kept(assigning);
    let mut balance = Balance { loads: BTreeMap::new(), owners: BTreeMap::new() };
    for (member_id, member) in &assigning.members {
        for topic in member.topics.iter() {
            balance.owners.entry(*topic).or_default().entry(member_id).or_default();
        }
    }
    for (member_id, own) in kept {
        balance.loads.insert(member_id, own.len());
        for (topic, partition) in own {
            balance.give(topic, member_id, partition);
        }
    }
    // Topics with few subscribers first: the others have more choice.
    let mut free: Vec<(Uuid, Vec<i32>)> = free.into_iter().collect();
    free.sort_by_key(|(topic, _)| balance.owners.get(topic).map_or(0, BTreeMap::len));
    for (topic, numbers) in free {
        let members = balance.owners.get(&topic).into_iter().flat_map(BTreeMap::keys).copied();
        let mut by_load: BTreeSet<(usize, &Text)> =
            members.map(|member| (balance.load(member), member)).collect();
        for partition in numbers {
            let Some((load, member)) = by_load.pop_first() else { break };
            balance.give(topic, member, partition);
            balance.loads.insert(member, load + 1);
            by_load.insert((load + 1, member));
        }
    }
    let topics: Vec<Uuid> = balance.owners.keys().copied().collect();
    for _ in 0..BALANCE_PASSES_MAX {
        let mut moved = false;
        for topic in &topics {
            moved |= balance.even_out(*topic);
        }
        if !moved {
            break;
        }
    }
    let mut result: BTreeMap<Text, Partitions> =
        assigning.members.keys().map(|member| (member.clone(), Partitions::new())).collect();
    for (topic, owners) in balance.owners {
        for (member, numbers) in owners.into_iter().filter(|(_, numbers)| !numbers.is_empty()) {
            if let Some(partitions) = result.get_mut(member) {
                partitions.insert(topic, numbers);
            }
        }
    }
    result
}

impl<'a> Balance<'a> {
    fn load(&self, member: &Text) -> usize {
        self.loads.get(member).copied().unwrap_or(0)
    }

    fn give(&mut self, topic: Uuid, member: &'a Text, partition: i32) {
        self.owners.entry(topic).or_default().entry(member).or_default().insert(partition);
    }

    /// Moves partitions of one topic from members with most to subscribers with least.
    fn even_out(&mut self, topic: Uuid) -> bool {
        let Some(owners) = self.owners.get_mut(&topic) else { return false };
        let loads = &mut self.loads;
        let load = |loads: &BTreeMap<&Text, usize>, member: &Text| loads.get(member).copied().unwrap_or(0);
        let mut by_load: BTreeSet<(usize, &'a Text)> =
            owners.keys().map(|member| (load(loads, member), *member)).collect();
        let mut moved = false;
        // From the most loaded down: one that has nothing of this topic to give does not stop the next.
        let mut below = None;
        loop {
            let from = match below {
                None => by_load.last().copied(),
                Some(bound) => by_load.range(..bound).next_back().copied(),
            };
            let (Some(from), Some(to)) = (from, by_load.first().copied()) else { return moved };
            if from.0 < to.0 + 2 {
                return moved;
            }
            let Some(partition) = owners.get_mut(from.1).and_then(BTreeSet::pop_last) else {
                below = Some(from);
                continue;
            };
            owners.entry(to.1).or_default().insert(partition);
            by_load.remove(&from);
            by_load.remove(&to);
            by_load.insert((from.0 - 1, from.1));
            by_load.insert((to.0 + 1, to.1));
            loads.insert(from.1, from.0 - 1);
            loads.insert(to.1, to.0 + 1);
            moved = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assigning, size, topic, with_targets};
    use super::*;

    #[test]
    fn only_what_is_needed_moves_to_a_new_member() {
        let all: &[u128] = &[0];
        let first = assign(&assigning(&[6], &[("a", all), ("b", all)]));
        assert_eq!((size(&first["a"]), size(&first["b"])), (3, 3));
        let second = assign(&with_targets(assigning(&[6], &[("a", all), ("b", all), ("c", all)]), &first));
        for member in ["a", "b"] {
            assert_eq!(size(&second[member]), 2);
            assert!(second[member][&topic(0)].is_subset(&first[member][&topic(0)]));
        }
        let third = assign(&with_targets(assigning(&[6], &[("a", all), ("b", all)]), &second));
        for member in ["a", "b"] {
            assert!(third[member][&topic(0)].is_superset(&second[member][&topic(0)]));
        }
    }

    #[test]
    fn members_with_more_choice_leave_topics_to_those_with_less() {
        let given = assigning(&[2, 2], &[("a", &[0, 1]), ("b", &[1])]);
        let assignment = assign(&given);
        assert_eq!(assignment["a"], Partitions::from([(topic(0), [0, 1].into())]));
        assert_eq!(assignment["b"], Partitions::from([(topic(1), [0, 1].into())]));
    }

    #[test]
    fn loads_are_evened_out_where_subscriptions_allow() {
        let given = assigning(&[9, 3], &[("a", &[0]), ("b", &[0, 1]), ("c", &[0, 1])]);
        let assignment = assign(&given);
        assert!(assignment.values().all(|partitions| size(partitions) == 4), "{assignment:?}");
        let grown = assigning(&[9, 3], &[("a", &[0]), ("b", &[0, 1]), ("c", &[0, 1]), ("d", &[1])]);
        let assignment = assign(&with_targets(grown, &assignment));
        assert!(assignment.values().all(|partitions| (2..=4).contains(&size(partitions))), "{assignment:?}");
    }
}
