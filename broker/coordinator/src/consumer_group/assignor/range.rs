//! The range assignor: each topic's partitions in runs, one run a subscriber, the first ones longer by one where they do
//! not divide. Members that subscribe to the same topics with the same numbers of partitions get the same numbers of
//! each, so that topics with one key can be joined.

use std::collections::BTreeMap;

use ottla_wire::text::Text;
use uuid::Uuid;

use super::Assigning;
use crate::consumer_group::state::Partitions;

pub(super) fn assign(assigning: &Assigning<'_>) -> BTreeMap<Text, Partitions> {
    let mut result: BTreeMap<Text, Partitions> =
        assigning.members.keys().map(|member| (member.clone(), Partitions::new())).collect();
    let mut subscribers: BTreeMap<Uuid, Vec<(bool, &Text, &Text)>> = BTreeMap::new();
    for (member_id, member) in &assigning.members {
        // Static members stand first, by instance id: so they get the same when they come back under a new member id.
        let place =
            (member.instance_id.is_none(), member.instance_id.as_ref().unwrap_or(member_id), member_id);
        for topic in member.topics.iter() {
            subscribers.entry(*topic).or_default().push(place);
        }
    }
    for (topic, mut members) in subscribers {
        members.sort_unstable();
        let partitions = assigning.partitions(topic);
        let count = i32::try_from(members.len()).unwrap_or(i32::MAX);
        let (length, longer) = (partitions / count, partitions % count);
        let mut start = 0;
        for (index, (_, _, member_id)) in (0..).zip(members) {
            let end = start + length + i32::from(index < longer);
            if end > start
                && let Some(given) = result.get_mut(member_id)
            {
                given.insert(topic, (start..end).collect());
            }
            start = end;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assigning, topic};
    use super::*;

    #[test]
    fn partitions_are_shared_in_runs_and_the_same_of_each_topic() {
        let given = assigning(&[3, 3], &[("a", &[0, 1]), ("b", &[0, 1])]);
        let assignment = assign(&given);
        for number in [0, 1] {
            assert_eq!(assignment["a"][&topic(number)], [0, 1].into());
            assert_eq!(assignment["b"][&topic(number)], [2].into());
        }
    }

    #[test]
    fn static_members_keep_their_place_under_a_new_member_id() {
        let mut given = assigning(&[3], &[("a", &[0]), ("z", &[0])]);
        if let Some(member) = given.members.get_mut("z") {
            member.instance_id = Some(Text::from("i"));
        }
        let before = assign(&given)["z"].clone();
        let member = given.members.remove("z").unwrap();
        given.members.insert(Text::from("0"), member);
        assert_eq!(assign(&given)["0"], before);
        assert_eq!(before[&topic(0)], [0, 1].into());
    }

    #[test]
    fn who_comes_too_late_for_few_partitions_gets_none() {
        let given = assigning(&[1], &[("a", &[0]), ("b", &[0])]);
        assert_eq!(assign(&given)["b"], Partitions::new());
    }
}
