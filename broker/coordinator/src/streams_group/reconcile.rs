//! A member's next step towards its target (KIP-1071): it lets go of what it shall not have, says so, and then is in the
//! new epoch; what others have not let go of yet it gets later. So no task is ever run by two members, and no process
//! has a task twice: its members share the state on one disk.

use std::collections::{BTreeMap, BTreeSet};

use ottla_wire::text::Text;

use super::state::{
    AssignedTasks, CurrentTasks, StreamsGroup, StreamsMember, TaskSet, Tasks, TasksWithEpochs,
};
use crate::consumer_group::MemberState;

/// What a reconciliation goes by.
#[derive(Debug)]
pub(crate) struct Reconciliation<'a> {
    /// Who has what.
    pub(crate) group: &'a StreamsGroup,
    /// The member's id.
    pub(crate) member_id: &'a Text,
    /// Its process.
    pub(crate) process_id: &'a Text,
    /// The epoch of the target.
    pub(crate) target_epoch: i32,
    /// What the member shall have.
    pub(crate) target: &'a TaskSet,
    /// What the member says it has; None: it did not say.
    pub(crate) owned: Option<&'a TaskSet>,
}

impl Reconciliation<'_> {
    /// The member's next assignment; None: as it is.
    pub(crate) fn next(&self, current: &CurrentTasks) -> Option<CurrentTasks> {
        let next = match current.state {
            MemberState::Stable if current.epoch == self.target_epoch => return None,
            // Its target may have changed while it lets go: that waits until it has.
            MemberState::UnrevokedPartitions if self.still_owns(&current.revoking) => return None,
            MemberState::Stable | MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
                self.advance(current)
            }
            MemberState::Unknown => {
                self.advance(&CurrentTasks { epoch: self.target_epoch, ..current.clone() })
            }
        };
        (next != *current).then_some(next)
    }

    fn advance(&self, current: &CurrentTasks) -> CurrentTasks {
        let assigned = &current.assigned;
        let (active, no_active) = split_active(&assigned.active, &self.target.active);
        let (standby, no_standby) = split(&assigned.standby, &self.target.standby);
        let (warmup, no_warmup) = split(&assigned.warmup, &self.target.warmup);
        let mut kept = AssignedTasks { active, standby, warmup };
        let revoked = AssignedTasks { active: no_active, standby: no_standby, warmup: no_warmup };
        if !revoked.is_empty() && self.still_owns(&revoked) {
            return CurrentTasks {
                state: MemberState::UnrevokedPartitions,
                assigned: kept,
                revoking: revoked,
                ..current.clone()
            };
        }
        let waits = self.add(&mut kept);
        let epoch_changes = current.epoch != self.target_epoch;
        CurrentTasks {
            epoch: self.target_epoch,
            previous_epoch: if epoch_changes { current.epoch } else { current.previous_epoch },
            state: if waits { MemberState::UnreleasedPartitions } else { MemberState::Stable },
            assigned: kept,
            revoking: AssignedTasks::default(),
        }
    }

    /// What the member shall have and does not, as far as it is free; says whether it has to wait for more.
    fn add(&self, kept: &mut AssignedTasks) -> bool {
        let mut waits = false;
        for (id, number) in each(&self.target.active) {
            if has_active(kept, id, number) {
                continue;
            }
            if self.is_free(kept, id, number, true) {
                kept.active.entry(id.clone()).or_default().insert(number, self.target_epoch);
            } else {
                waits = true;
            }
        }
        for (id, number) in each(&self.target.standby) {
            if !has(&kept.standby, id, number) {
                let free = self.is_free(kept, id, number, false);
                waits |= !free;
                if free {
                    kept.standby.entry(id.clone()).or_default().insert(number);
                }
            }
        }
        for (id, number) in each(&self.target.warmup) {
            if !has(&kept.warmup, id, number) {
                let free = self.is_free(kept, id, number, false);
                waits |= !free;
                if free {
                    kept.warmup.entry(id.clone()).or_default().insert(number);
                }
            }
        }
        waits
    }

    /// Nobody else runs it, and nobody on the member's process has it in any role. What the member itself has let go of
    /// is free for it.
    fn is_free(&self, kept: &AssignedTasks, id: &Text, number: i32, active: bool) -> bool {
        if has_active(kept, id, number) || has(&kept.standby, id, number) || has(&kept.warmup, id, number) {
            return false;
        }
        let Some(owners) = self.group.owners(id, number) else { return true };
        let other = |owner: &&Text| *owner != self.member_id;
        let on_process =
            |owner: &Text| self.group.members().get(owner).is_some_and(|member| self.is_mine(member));
        let runs = owners.active.as_ref().filter(other);
        if runs.is_some_and(|runs| active || on_process(runs)) {
            return false;
        }
        !owners.copies.iter().filter(other).any(on_process)
    }

    fn is_mine(&self, member: &StreamsMember) -> bool {
        member.metadata.process_id == *self.process_id
    }

    fn still_owns(&self, revoked: &AssignedTasks) -> bool {
        let Some(owned) = self.owned else { return true };
        let active = revoked.active.iter().any(|(id, numbers)| {
            owned.active.get(id).is_some_and(|owned| numbers.keys().any(|number| owned.contains(number)))
        });
        active || intersects(&revoked.standby, &owned.standby) || intersects(&revoked.warmup, &owned.warmup)
    }
}

/// Whether the member has everything that it says.
pub(crate) fn is_subset(owned: &TaskSet, assigned: &AssignedTasks) -> bool {
    each(&owned.active).all(|(id, number)| has_active(assigned, id, number))
        && each(&owned.standby).all(|(id, number)| has(&assigned.standby, id, number))
        && each(&owned.warmup).all(|(id, number)| has(&assigned.warmup, id, number))
}

fn each(tasks: &Tasks) -> impl Iterator<Item = (&Text, i32)> {
    tasks.iter().flat_map(|(id, numbers)| numbers.iter().map(move |number| (id, *number)))
}

fn has(tasks: &Tasks, id: &Text, number: i32) -> bool {
    tasks.get(id).is_some_and(|numbers| numbers.contains(&number))
}

fn has_active(tasks: &AssignedTasks, id: &Text, number: i32) -> bool {
    tasks.active.get(id).is_some_and(|numbers| numbers.contains_key(&number))
}

fn intersects(one: &Tasks, other: &Tasks) -> bool {
    each(one).any(|(id, number)| has(other, id, number))
}

/// What stays and what goes.
fn split_active(tasks: &TasksWithEpochs, target: &Tasks) -> (TasksWithEpochs, TasksWithEpochs) {
    let (mut kept, mut gone) = (BTreeMap::new(), BTreeMap::new());
    for (id, numbers) in tasks {
        for (number, epoch) in numbers {
            let to: &mut TasksWithEpochs = if has(target, id, *number) { &mut kept } else { &mut gone };
            to.entry(id.clone()).or_default().insert(*number, *epoch);
        }
    }
    (kept, gone)
}

fn split(tasks: &Tasks, target: &Tasks) -> (Tasks, Tasks) {
    let (mut kept, mut gone) = (Tasks::new(), Tasks::new());
    for (id, number) in each(tasks) {
        let to: &mut Tasks = if has(target, id, number) { &mut kept } else { &mut gone };
        let numbers: &mut BTreeSet<i32> = to.entry(id.clone()).or_default();
        numbers.insert(number);
    }
    (kept, gone)
}
