//! Who reads which partitions: the simple assignor of KIP-932. Every partition that somebody subscribes to has a reader,
//! every member has something to read if there is anything for it, and as few as possible read more than others. With more
//! members than partitions several members read one. What members had they keep as far as that allows.

use std::collections::{BTreeMap, BTreeSet};

use ottla_wire::text::Text;
use uuid::Uuid;

use crate::consumer_group::Partitions;

/// A partition.
type Partition = (Uuid, i32);

/// Shares out; `members`: the partitions that each may have.
pub(super) fn assign(
    members: &BTreeMap<Text, Partitions>,
    former: &BTreeMap<Text, Partitions>,
) -> BTreeMap<Text, Partitions> {
    let mut readers: BTreeMap<Partition, Vec<&Text>> = BTreeMap::new();
    let mut subscribers: BTreeMap<Partition, Vec<&Text>> = BTreeMap::new();
    for (member, partitions) in members {
        for partition in flat(partitions) {
            subscribers.entry(partition).or_default().push(member);
            readers.entry(partition).or_default();
        }
    }
    let mut assigned: BTreeMap<&Text, BTreeSet<Partition>> =
        members.keys().map(|member| (member, BTreeSet::new())).collect();
    let count = members.len().max(1);
    let per_member = readers.len().div_ceil(count).max(1);
    let per_partition = count.div_ceil(readers.len().max(1));
    // What they had, while nobody has more than an even part.
    for (member, partitions) in former {
        let Some((member, may_have)) = members.get_key_value(member) else { continue };
        for partition in flat(partitions).filter(|partition| contains(may_have, partition)) {
            let own = assigned.entry(member).or_default();
            if let Some(of_partition) = readers.get_mut(&partition)
                && own.len() < per_member
                && of_partition.len() < per_partition
            {
                own.insert(partition);
                of_partition.push(member);
            }
        }
    }
    // Every partition has a reader: the subscriber with least.
    for (partition, of_partition) in readers.iter_mut().filter(|(_, readers)| readers.is_empty()) {
        let least = subscribers
            .get(partition)
            .into_iter()
            .flatten()
            .min_by_key(|member| assigned.get(**member).map_or(0, BTreeSet::len));
        if let Some(member) = least {
            assigned.entry(member).or_default().insert(*partition);
            of_partition.push(member);
        }
    }
    // Every member has something: one of a member that has more, or else the partition with fewest readers.
    for (member, may_have) in members {
        if assigned.get(member).is_some_and(|own| !own.is_empty()) {
            continue;
        }
        let held = |partition: &Partition| -> usize {
            let of = readers.get(partition).into_iter().flatten();
            of.map(|reader| assigned.get(*reader).map_or(0, BTreeSet::len)).max().unwrap_or(0)
        };
        let taken = flat(may_have).rev().filter(|partition| held(partition) > 1).max_by_key(held);
        let shared = || flat(may_have).min_by_key(|partition| readers.get(partition).map_or(0, Vec::len));
        let Some(partition) = taken.or_else(shared) else { continue };
        let of_partition = readers.entry(partition).or_default();
        if taken.is_some() {
            of_partition.retain(|reader| match assigned.get_mut(*reader) {
                Some(own) if own.len() > 1 => !own.remove(&partition),
                _ => true,
            });
        }
        of_partition.push(member);
        assigned.entry(member).or_default().insert(partition);
    }
    let by_topic = |partitions: BTreeSet<Partition>| {
        let mut topics = Partitions::new();
        for (topic, partition) in partitions {
            topics.entry(topic).or_default().insert(partition);
        }
        topics
    };
    let fresh: BTreeMap<Text, Partitions> =
        assigned.into_iter().map(|(member, partitions)| (member.clone(), by_topic(partitions))).collect();
    if is_as_good(former, &fresh, members) { former.clone() } else { fresh }
}

/// Whether what members have can stay: everybody has something, everything has a reader, and nobody has more than need be.
fn is_as_good(
    former: &BTreeMap<Text, Partitions>,
    fresh: &BTreeMap<Text, Partitions>,
    members: &BTreeMap<Text, Partitions>,
) -> bool {
    let all = |assigned: &BTreeMap<Text, Partitions>| -> BTreeSet<Partition> {
        assigned.values().flat_map(flat).collect()
    };
    let size = |partitions: &Partitions| flat(partitions).count();
    let most = |assigned: &BTreeMap<Text, Partitions>| assigned.values().map(size).max();
    let total = |assigned: &BTreeMap<Text, Partitions>| assigned.values().map(size).sum::<usize>();
    former.keys().eq(members.keys())
        && former.iter().all(|(member, partitions)| {
            let may_have = members.get(member);
            flat(partitions).all(|partition| may_have.is_some_and(|all| contains(all, &partition)))
                && (size(partitions) > 0 || may_have.is_none_or(|all| size(all) == 0))
        })
        && all(former) == all(fresh)
        && most(former) <= most(fresh)
        && total(former) <= total(fresh)
}

fn flat(partitions: &Partitions) -> impl DoubleEndedIterator<Item = Partition> + '_ {
    partitions.iter().flat_map(|(topic, numbers)| numbers.iter().map(|number| (*topic, *number)))
}

fn contains(partitions: &Partitions, (topic, number): &Partition) -> bool {
    partitions.get(topic).is_some_and(|numbers| numbers.contains(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn may_have(topics: &[(u128, i32)]) -> Partitions {
        topics.iter().map(|(topic, count)| (Uuid::from_u128(*topic), (0..*count).collect())).collect()
    }

    fn size(partitions: &Partitions) -> usize {
        partitions.values().map(BTreeSet::len).sum()
    }

    proptest! {
        #[test]
        fn every_partition_is_read_every_member_reads_and_it_is_even(
            counts in proptest::collection::vec(0..6_i32, 3),
            before in 0..9_usize,
            after in 1..9_usize,
            masks in proptest::collection::vec(1..8_u8, 9),
            same in any::<bool>(),
        ) {
            let topics_of = |index: usize| -> Vec<(u128, i32)> {
                let mask = if same { 7 } else { masks[index] };
                (0..3_usize).filter(|bit| mask >> bit & 1 == 1).map(|bit| (bit as u128 + 1, counts[bit])).collect()
            };
            let members = |count: usize| -> BTreeMap<Text, Partitions> {
                (0..count).map(|index| (Text::from(format!("m{index}")), may_have(&topics_of(index)))).collect()
            };
            let former = assign(&members(before), &BTreeMap::new());
            let members = members(after);
            let assigned = assign(&members, &former);
            prop_assert_eq!(assigned.len(), after);
            let mut readers: BTreeMap<Partition, usize> = BTreeMap::new();
            for (member, partitions) in &assigned {
                let any = size(&members[member]) > 0;
                prop_assert_eq!(size(partitions) > 0, any, "{} has nothing", member);
                for partition in flat(partitions) {
                    prop_assert!(contains(&members[member], &partition));
                    *readers.entry(partition).or_default() += 1;
                }
            }
            for partition in members.values().flat_map(flat) {
                prop_assert!(readers.contains_key(&partition), "{:?} has no reader", partition);
            }
            if same && !readers.is_empty() {
                let sizes: Vec<usize> = assigned.values().map(size).collect();
                let even = readers.len().div_ceil(after).max(1);
                prop_assert!(sizes.iter().all(|size| *size <= even), "{:?}", sizes);
                let most = after.div_ceil(readers.len());
                prop_assert!(readers.values().all(|count| *count <= most), "{:?}", readers);
            }
            let again = assign(&members, &assigned);
            prop_assert!(!same || again == assigned, "nothing changed, nothing moves");
            // What different members may have is evened out step by step, and then rests.
            let rested = (0..8).fold(again, |former, _| assign(&members, &former));
            prop_assert_eq!(assign(&members, &rested), rested);
        }
    }
}
