//! The assignors of the server (KIP-848): who shall have which partitions. Pure functions of members, their topics, and
//! what they were to have before. Neither looks at racks, as in Kafka since 4.0.

mod range;
mod uniform;

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_wire::text::Text;
use uuid::Uuid;

use super::state::Partitions;

/// The assignors by name, the default first (`group.consumer.assignors`).
pub const ASSIGNORS: [&str; 2] = ["uniform", "range"];

/// What an assignor is told of a member.
#[derive(Debug, Clone, Default)]
pub(crate) struct AssigningMember<'a> {
    /// Given by static members, which keep their place in the order when they come back under another id.
    pub(crate) instance_id: Option<Text>,
    /// The topics it subscribes to, sorted; only such as there are. Shared by members with one subscription.
    pub(crate) topics: Arc<[Uuid]>,
    /// What it was to have so far.
    pub(crate) target: Option<&'a Partitions>,
}

/// What an assignor is told.
#[derive(Debug, Default)]
pub(crate) struct Assigning<'a> {
    /// By member id.
    pub(crate) members: BTreeMap<Text, AssigningMember<'a>>,
    /// How many partitions each subscribed topic has.
    pub(crate) partitions: BTreeMap<Uuid, i32>,
}

impl Assigning<'_> {
    /// Whether all members subscribe to the same topics.
    fn is_homogeneous(&self) -> bool {
        let mut members = self.members.values();
        let Some(first) = members.next() else { return true };
        members.all(|member| Arc::ptr_eq(&member.topics, &first.topics) || member.topics == first.topics)
    }

    fn partitions(&self, topic: Uuid) -> i32 {
        self.partitions.get(&topic).copied().unwrap_or(0)
    }
}

/// Shares every partition of subscribed topics out. Each member is in the answer, each partition at most once.
pub(crate) fn assign(assignor: &str, assigning: &Assigning<'_>) -> BTreeMap<Text, Partitions> {
    if assignor == "range" { range::assign(assigning) } else { uniform::assign(assigning) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    pub(super) fn topic(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    pub(super) fn assigning<'a>(partitions: &[i32], members: &[(&str, &[u128])]) -> Assigning<'a> {
        let numbered = (0_u128..).zip(partitions);
        Assigning {
            partitions: numbered.map(|(number, count)| (topic(number), *count)).collect(),
            members: members
                .iter()
                .map(|(name, topics)| {
                    let topics = topics.iter().copied().map(topic).collect();
                    (Text::from(*name), AssigningMember { topics, ..AssigningMember::default() })
                })
                .collect(),
        }
    }

    pub(super) fn size(partitions: &Partitions) -> usize {
        partitions.values().map(BTreeSet::len).sum()
    }

    pub(super) fn with_targets<'a>(
        mut given: Assigning<'a>,
        targets: &'a BTreeMap<Text, Partitions>,
    ) -> Assigning<'a> {
        for (member_id, member) in &mut given.members {
            member.target = targets.get(member_id);
        }
        given
    }

    /// Every partition of a subscribed topic goes to one subscriber.
    fn check(given: &Assigning<'_>, assignment: &BTreeMap<Text, Partitions>) {
        let mut seen = BTreeSet::new();
        assert!(assignment.keys().eq(given.members.keys()));
        for (member, partitions) in assignment {
            for (topic, numbers) in partitions {
                assert!(given.members[member].topics.contains(topic));
                assert!(!numbers.is_empty());
                for number in numbers {
                    assert!((0..given.partitions[topic]).contains(number));
                    assert!(seen.insert((*topic, *number)), "{topic} {number} is given twice");
                }
            }
        }
        let subscribed: BTreeSet<Uuid> =
            given.members.values().flat_map(|member| member.topics.iter().copied()).collect();
        let all: i32 = subscribed.iter().map(|topic| given.partitions[topic]).sum();
        assert_eq!(i32::try_from(seen.len()).unwrap(), all);
    }

    proptest! {
        #[test]
        fn everything_is_assigned_once_and_staying_is_stable(
            partitions in proptest::collection::vec(1..12_i32, 4),
            subscriptions in proptest::collection::vec(0..16_u8, 1..7),
            changed in proptest::collection::vec(0..16_u8, 0..7),
            uniform in any::<bool>(),
        ) {
            let name = if uniform { "uniform" } else { "range" };
            let given = |masks: &[u8]| {
                let names: Vec<String> = (0..masks.len()).map(|index| format!("m{index}")).collect();
                let topics: Vec<Vec<u128>> = masks
                    .iter()
                    .map(|mask| (0..4_u128).filter(|bit| mask >> bit & 1 == 1).collect())
                    .collect();
                let members: Vec<(&str, &[u128])> =
                    names.iter().zip(&topics).map(|(name, topics)| (name.as_str(), topics.as_slice())).collect();
                assigning(&partitions, &members)
            };
            let first = given(&subscriptions);
            let assignment = assign(name, &first);
            check(&first, &assignment);
            let again = with_targets(given(&subscriptions), &assignment);
            prop_assert_eq!(&assign(name, &again), &assignment, "nothing changed, nothing moves");
            let second = with_targets(given(&changed), &assignment);
            check(&second, &assign(name, &second));
        }
    }
}
