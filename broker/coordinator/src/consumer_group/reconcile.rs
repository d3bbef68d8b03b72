//! A member's way to its target (KIP-848): first it lets go of what it shall not have, says so, and only then is in the
//! new epoch; what others have not let go of yet it gets later. So no partition is ever usable by two members.

use std::collections::BTreeMap;

use ottla_wire::text::Text;
use uuid::Uuid;

use super::state::{Assigned, ConsumerGroup, ConsumerMember, CurrentAssignment, MemberState, Partitions};

/// What a reconciliation goes by.
#[derive(Debug)]
pub(crate) struct Reconciliation<'a> {
    /// Who has what.
    pub(crate) group: &'a ConsumerGroup,
    /// The member's id.
    pub(crate) member_id: &'a Text,
    /// A static member's former id: what that one has is free for this one.
    pub(crate) former_id: Option<&'a Text>,
    /// The epoch of the target.
    pub(crate) target_epoch: i32,
    /// What the member shall have.
    pub(crate) target: &'a Partitions,
    /// What the member says it has; None: it did not say.
    pub(crate) owned: Option<&'a Partitions>,
}

impl Reconciliation<'_> {
    /// The member's next assignment; None: as it is.
    pub(crate) fn next(&self, member: &ConsumerMember) -> Option<CurrentAssignment> {
        let current = &member.current;
        let next = match current.state {
            MemberState::Stable if current.epoch == self.target_epoch => return None,
            // Its target may have changed while it lets go: that waits until it has.
            MemberState::UnrevokedPartitions if self.still_owns(&current.revoking) => return None,
            MemberState::Stable | MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
                self.advance(current)
            }
            MemberState::Unknown => {
                self.advance(&CurrentAssignment { epoch: self.target_epoch, ..current.clone() })
            }
        };
        (next != *current).then_some(next)
    }

    fn advance(&self, current: &CurrentAssignment) -> CurrentAssignment {
        let mut kept = Assigned::new();
        let mut revoked = Assigned::new();
        for (topic, partitions) in &current.assigned {
            for (partition, epoch) in partitions {
                let stays = self.target.get(topic).is_some_and(|numbers| numbers.contains(partition));
                let to = if stays { &mut kept } else { &mut revoked };
                to.entry(*topic).or_default().insert(*partition, *epoch);
            }
        }
        if !revoked.is_empty() && self.still_owns(&revoked) {
            return CurrentAssignment {
                state: MemberState::UnrevokedPartitions,
                assigned: kept,
                revoking: revoked,
                ..current.clone()
            };
        }
        let mut waits = false;
        for (topic, numbers) in self.target {
            for partition in numbers {
                if kept.get(topic).is_some_and(|partitions| partitions.contains_key(partition)) {
                    continue;
                }
                if self.is_free(*topic, *partition) {
                    kept.entry(*topic).or_default().insert(*partition, self.target_epoch);
                } else {
                    waits = true;
                }
            }
        }
        let epoch_changes = current.epoch != self.target_epoch;
        CurrentAssignment {
            epoch: self.target_epoch,
            previous_epoch: if epoch_changes { current.epoch } else { current.previous_epoch },
            state: if waits { MemberState::UnreleasedPartitions } else { MemberState::Stable },
            assigned: kept,
            revoking: Assigned::new(),
        }
    }

    /// Nobody has it, or this member does, with a request that tells that it has let go of it.
    fn is_free(&self, topic: Uuid, partition: i32) -> bool {
        let owner = self.group.owner(topic, partition);
        owner.is_none_or(|owner| owner == self.member_id || Some(owner) == self.former_id)
    }

    fn still_owns(&self, revoked: &Assigned) -> bool {
        let Some(owned) = self.owned else { return true };
        revoked.iter().any(|(topic, partitions)| {
            owned.get(topic).is_some_and(|numbers| partitions.keys().any(|number| numbers.contains(number)))
        })
    }
}

/// Whether the member waits for a partition that nobody has any more.
pub(crate) fn can_go_on(group: &ConsumerGroup, member_id: &Text, member: &ConsumerMember) -> bool {
    let nothing = Partitions::new();
    let target = group.targets().get(member_id).unwrap_or(&nothing);
    let has = |topic: &Uuid, partition: i32| {
        member.current.assigned.get(topic).is_some_and(|numbers| numbers.contains_key(&partition))
    };
    target.iter().any(|(topic, numbers)| {
        numbers.iter().any(|number| !has(topic, *number) && group.owner(*topic, *number).is_none())
    })
}

/// Whether the member has everything that it says.
pub(crate) fn is_subset(owned: &Partitions, assigned: &Assigned) -> bool {
    let none = BTreeMap::new();
    owned.iter().all(|(topic, numbers)| {
        let has = assigned.get(topic).unwrap_or(&none);
        numbers.iter().all(|number| has.contains_key(number))
    })
}

#[cfg(test)]
mod tests {
    use super::super::state::ConsumerRecord;
    use super::*;

    fn t() -> Uuid {
        Uuid::from_u128(1)
    }

    fn numbers(numbers: &[i32]) -> Partitions {
        let numbers = numbers.iter().copied().collect();
        BTreeMap::from([(t(), numbers)])
    }

    fn assigned(numbers: &[(i32, i32)]) -> Assigned {
        BTreeMap::from([(t(), numbers.iter().copied().collect())])
    }

    fn member(epoch: i32, has: &[(i32, i32)]) -> ConsumerMember {
        let current =
            CurrentAssignment { epoch, previous_epoch: epoch, assigned: assigned(has), ..Default::default() };
        ConsumerMember { current, ..Default::default() }
    }

    fn next(
        group: &ConsumerGroup,
        member: &ConsumerMember,
        target_epoch: i32,
        target: &[i32],
        owned: Option<&[i32]>,
    ) -> Option<CurrentAssignment> {
        let owned = owned.map(numbers);
        let target = numbers(target);
        let member_id = Text::from("m");
        let reconciliation = Reconciliation {
            group,
            member_id: &member_id,
            former_id: None,
            target_epoch,
            target: &target,
            owned: owned.as_ref(),
        };
        reconciliation.next(member)
    }

    #[test]
    fn what_goes_is_revoked_before_anything_comes_or_the_epoch_changes() {
        let group = ConsumerGroup::default();
        let mut m = member(1, &[(0, 1), (1, 1)]);
        m.current = next(&group, &m, 2, &[1, 2], None).unwrap();
        assert_eq!((m.current.epoch, m.current.state), (1, MemberState::UnrevokedPartitions));
        assert_eq!((&m.current.assigned, &m.current.revoking), (&assigned(&[(1, 1)]), &assigned(&[(0, 1)])));
        assert_eq!(next(&group, &m, 2, &[1, 2], None), None);
        assert_eq!(next(&group, &m, 2, &[1, 2], Some(&[0, 1])), None, "it still has it");
        m.current = next(&group, &m, 2, &[1, 2], Some(&[1])).unwrap();
        assert_eq!((m.current.epoch, m.current.previous_epoch, m.current.state), (2, 1, MemberState::Stable));
        assert_eq!((m.current.assigned, m.current.revoking), (assigned(&[(1, 1), (2, 2)]), Assigned::new()));
    }

    #[test]
    fn a_partition_that_another_has_is_waited_for() {
        let mut group = ConsumerGroup::default();
        let theirs = CurrentAssignment { epoch: 1, revoking: assigned(&[(0, 1)]), ..Default::default() };
        group.apply(ConsumerRecord::Current(Text::from("other"), Some(theirs)));
        let mut m = member(0, &[]);
        m.current = next(&group, &m, 2, &[0, 1], Some(&[])).unwrap();
        assert_eq!((m.current.epoch, m.current.state), (2, MemberState::UnreleasedPartitions));
        assert_eq!(m.current.assigned, assigned(&[(1, 2)]));
        assert_eq!(next(&group, &m, 2, &[0, 1], None), None);
        group.apply(ConsumerRecord::Current(Text::from("other"), None));
        let done = next(&group, &m, 2, &[0, 1], None).unwrap();
        assert_eq!((done.state, done.previous_epoch), (MemberState::Stable, 0));
        assert_eq!(done.assigned, assigned(&[(0, 2), (1, 2)]));
    }
}
