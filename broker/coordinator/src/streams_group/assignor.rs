//! The sticky task assignor (KIP-1071): a task stays where it runs or where its state is kept, as far as no member gets
//! more than its share; the rest goes to the processes with the fewest tasks a member. Standby tasks never go to a
//! process that has the task already. The result depends on nothing but what goes in.

use std::collections::{BTreeMap, BTreeSet};

use ottla_wire::text::Text;

use super::configure::SubtopologyTasks;
use super::state::TaskSet;

/// A member to assign to.
#[derive(Debug)]
pub(crate) struct AssigningMember<'a> {
    pub(crate) process_id: &'a Text,
    /// What it had to have until now.
    pub(crate) target: Option<&'a TaskSet>,
}

/// Loads are tasks a member, in millionths, so that they are whole numbers.
const LOAD_SCALE: u64 = 1_000_000;

/// A task: its subtopology and partition.
type Task<'a> = (&'a Text, i32);

/// Gives every task of the topology to a member, and as many copies as there is room for.
pub(crate) fn assign(
    members: &BTreeMap<&Text, AssigningMember<'_>>,
    tasks: &BTreeMap<Text, SubtopologyTasks>,
    standby_replicas: i32,
) -> BTreeMap<Text, TaskSet> {
    let mut assignment = Assignment::new(members, tasks, usize::try_from(standby_replicas).unwrap_or(0));
    if members.is_empty() {
        return BTreeMap::new();
    }
    assignment.assign_active();
    if standby_replicas > 0 {
        assignment.assign_standby();
    }
    let given = assignment.members.into_iter().map(|(id, member)| (id.clone(), member.tasks));
    given.collect()
}

/// How many tasks a member may have, so that all have about the same. It is worked out anew when a member is full.
#[derive(Debug)]
struct Quota {
    tasks: usize,
    members: usize,
    each: usize,
}

impl Quota {
    fn new(tasks: usize, members: usize) -> Self {
        Self { tasks, members, each: if members == 0 { 0 } else { tasks.div_ceil(members) } }
    }

    /// A member has so many now.
    fn count(&mut self, has: usize) {
        if has == self.each && self.members > 0 {
            *self = Self::new(self.tasks.saturating_sub(has), self.members - 1);
        }
    }
}

struct Process<'a> {
    members: Vec<&'a Text>,
    tasks: BTreeSet<Task<'a>>,
    count: u64,
}

impl Process<'_> {
    fn load(&self) -> u64 {
        self.count * LOAD_SCALE / (self.members.len() as u64).max(1)
    }
}

struct Member<'a> {
    process: &'a Text,
    count: usize,
    tasks: TaskSet,
}

struct Assignment<'a> {
    replicas: usize,
    all: Vec<Task<'a>>,
    stateful: Vec<Task<'a>>,
    processes: BTreeMap<&'a Text, Process<'a>>,
    /// Processes by load.
    by_load: BTreeSet<(u64, &'a Text)>,
    members: BTreeMap<&'a Text, Member<'a>>,
    was_active: BTreeMap<Task<'a>, &'a Text>,
    was_copy: BTreeMap<Task<'a>, Vec<&'a Text>>,
    active_quota: Quota,
    quota: Quota,
}

impl<'a> Assignment<'a> {
    fn new(
        assigning: &'a BTreeMap<&'a Text, AssigningMember<'a>>,
        tasks: &'a BTreeMap<Text, SubtopologyTasks>,
        replicas: usize,
    ) -> Self {
        let of =
            |(id, tasks): (&'a Text, &SubtopologyTasks)| (0..tasks.count).map(move |number| (id, number));
        let all: Vec<Task<'a>> = tasks.iter().flat_map(of).collect();
        let stateful: Vec<Task<'a>> = tasks.iter().filter(|(_, tasks)| tasks.stateful).flat_map(of).collect();
        let mut processes: BTreeMap<&Text, Process<'_>> = BTreeMap::new();
        let mut members = BTreeMap::new();
        let mut was_active = BTreeMap::new();
        let mut was_copy: BTreeMap<Task<'_>, Vec<&Text>> = BTreeMap::new();
        for (id, member) in assigning {
            let new = || Process { members: Vec::new(), tasks: BTreeSet::new(), count: 0 };
            processes.entry(member.process_id).or_insert_with(new).members.push(id);
            members.insert(*id, Member { process: member.process_id, count: 0, tasks: TaskSet::default() });
            let Some(target) = member.target else { continue };
            for task in each(&target.active) {
                was_active.insert(task, *id);
            }
            for task in each(&target.standby).chain(each(&target.warmup)) {
                was_copy.entry(task).or_default().push(id);
            }
        }
        let by_load = processes.keys().map(|process| (0, *process)).collect();
        let quota = Quota::new(all.len() + stateful.len() * replicas, members.len());
        let active_quota = Quota::new(all.len(), members.len());
        Self {
            replicas,
            all,
            stateful,
            processes,
            by_load,
            members,
            was_active,
            was_copy,
            active_quota,
            quota,
        }
    }

    fn assign_active(&mut self) {
        let mut open: Vec<Task<'a>> = self.all.clone();
        open.sort_unstable_by_key(|(id, number)| (*number, *id));
        open.retain(|task| {
            let Some(member) = self.was_active.get(task).copied() else { return true };
            !self.keeps_active(*task, member)
        });
        open.retain(|task| match self.least_loaded_copy(*task, false) {
            Some(member) => !self.keeps_active(*task, member),
            None => true,
        });
        // What is new goes round by subtopology, so that a process gets different partitions of one.
        open.sort_unstable();
        for task in open {
            if let Some((_, process)) = self.by_load.first().copied() {
                let member = self.least_loaded_member(process);
                self.give(task, member, true);
            }
        }
    }

    fn keeps_active(&mut self, task: Task<'a>, member: &'a Text) -> bool {
        let has_room = self.count(member) < self.active_quota.each;
        if has_room {
            self.give(task, member, true);
        }
        has_room
    }

    fn assign_standby(&mut self) {
        let mut tasks = self.stateful.clone();
        tasks.sort_unstable_by_key(|(id, number)| std::cmp::Reverse((*number, *id)));
        let mut open: Vec<(Task<'a>, usize)> = Vec::new();
        for task in tasks {
            let kept = (0..self.replicas).take_while(|_| self.keeps_standby(task)).count();
            if kept < self.replicas {
                open.push((task, self.replicas - kept));
            }
        }
        open.sort_unstable_by(|one, other| other.cmp(one));
        for (task, copies) in open {
            for _ in 0..copies {
                let without = |process: &Text| {
                    self.processes.get(process).is_some_and(|process| !process.tasks.contains(&task))
                };
                // There may be fewer processes than copies are wanted.
                let Some((_, process)) = self.by_load.iter().find(|(_, process)| without(process)).copied()
                else {
                    break;
                };
                let member = self.least_loaded_member(process);
                self.give(task, member, false);
            }
        }
    }

    /// Whoever ran it or kept its state has it on disk.
    fn keeps_standby(&mut self, task: Task<'a>) -> bool {
        let active = self.was_active.get(&task).copied().filter(|member| self.takes_copy(task, member));
        let copy = || self.least_loaded_copy(task, true).filter(|member| self.takes_copy(task, member));
        match active.or_else(copy) {
            Some(member) => {
                self.give(task, member, false);
                true
            }
            None => false,
        }
    }

    fn takes_copy(&self, task: Task<'a>, member: &Text) -> bool {
        self.count(member) < self.quota.each && !self.is_on_process_of(task, member)
    }

    fn is_on_process_of(&self, task: Task<'a>, member: &Text) -> bool {
        let process = self.members.get(member).and_then(|member| self.processes.get(member.process));
        process.is_some_and(|process| process.tasks.contains(&task))
    }

    /// Of those that had a copy; `elsewhere`: on a process that does not have the task.
    fn least_loaded_copy(&self, task: Task<'a>, elsewhere: bool) -> Option<&'a Text> {
        let had = self.was_copy.get(&task)?.iter().copied();
        let load = |member: &&Text| {
            let found = self.members.get(*member)?;
            Some((self.processes.get(found.process)?.load(), found.count))
        };
        had.filter(|member| !elsewhere || !self.is_on_process_of(task, member)).min_by_key(load)
    }

    fn count(&self, member: &Text) -> usize {
        self.members.get(member).map_or(0, |member| member.count)
    }

    fn least_loaded_member(&self, process: &Text) -> &'a Text {
        let members = self.processes.get(process).into_iter().flat_map(|process| &process.members).copied();
        // A process is there because a member is.
        members.min_by_key(|member| self.count(member)).unwrap_or_else(|| unreachable!())
    }

    fn give(&mut self, task: Task<'a>, member_id: &'a Text, active: bool) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        let tasks = if active { &mut member.tasks.active } else { &mut member.tasks.standby };
        tasks.entry(task.0.clone()).or_default().insert(task.1);
        member.count += 1;
        if active {
            self.active_quota.count(member.count);
        }
        self.quota.count(member.count);
        if let Some(process) = self.processes.get_mut(member.process) {
            self.by_load.remove(&(process.load(), member.process));
            process.count += 1;
            process.tasks.insert(task);
            self.by_load.insert((process.load(), member.process));
        }
    }
}

fn each(tasks: &BTreeMap<Text, BTreeSet<i32>>) -> impl Iterator<Item = Task<'_>> {
    tasks.iter().flat_map(|(id, numbers)| numbers.iter().map(move |number| (id, *number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Group {
        tasks: BTreeMap<Text, SubtopologyTasks>,
        replicas: i32,
        /// Member and process.
        members: Vec<(Text, Text)>,
        targets: BTreeMap<Text, TaskSet>,
    }

    impl Group {
        fn new(tasks: &[(&str, i32, bool)], replicas: i32) -> Self {
            let one = |(id, count, stateful): &(&str, i32, bool)| {
                (Text::from(*id), SubtopologyTasks { count: *count, stateful: *stateful })
            };
            Self {
                tasks: tasks.iter().map(one).collect(),
                replicas,
                members: Vec::new(),
                targets: BTreeMap::new(),
            }
        }

        fn add(&mut self, member: &str, process: &str) {
            self.members.push((member.into(), process.into()));
        }

        /// Assigns anew, with what must hold of every result; says how many active tasks moved to another process.
        fn assign(&mut self) -> usize {
            let before = std::mem::take(&mut self.targets);
            let members = self
                .members
                .iter()
                .map(|(id, process_id)| (id, AssigningMember { process_id, target: before.get(id) }))
                .collect();
            self.targets = assign(&members, &self.tasks, self.replicas);
            let process_of: BTreeMap<&Text, &Text> = self.members.iter().map(|(m, p)| (m, p)).collect();
            let mut active: BTreeMap<Task<'_>, &Text> = BTreeMap::new();
            let mut on: BTreeMap<Task<'_>, BTreeSet<&Text>> = BTreeMap::new();
            for (member, tasks) in &self.targets {
                for task in each(&tasks.active) {
                    assert_eq!(active.insert(task, member), None, "{task:?} runs twice");
                    assert!(on.entry(task).or_default().insert(process_of[member]));
                }
            }
            for (member, tasks) in &self.targets {
                for task in each(&tasks.standby) {
                    assert!(self.tasks[task.0].stateful);
                    assert!(
                        on.entry(task).or_default().insert(process_of[member]),
                        "{task:?} twice on a process"
                    );
                }
            }
            let processes: BTreeSet<&Text> = process_of.values().copied().collect();
            for (id, tasks) in &self.tasks {
                let copies = if tasks.stateful { 1 + usize::try_from(self.replicas).unwrap() } else { 1 };
                for number in 0..tasks.count {
                    assert!(active.contains_key(&(id, number)));
                    assert_eq!(on[&(id, number)].len(), copies.min(processes.len()));
                }
            }
            let moved = |task: &Task<'_>| {
                let was = before.iter().find(|(_, tasks)| each(&tasks.active).any(|one| one == *task));
                let was = was.and_then(|(member, _)| process_of.get(member).copied());
                was.is_some_and(|was| was != process_of[active[task]])
            };
            active.keys().filter(|task| moved(task)).count()
        }

        fn active_counts(&self) -> Vec<usize> {
            self.targets.values().map(|tasks| each(&tasks.active).count()).collect()
        }
    }

    #[test]
    fn tasks_are_shared_evenly_and_stay_where_they_are() {
        let mut group = Group::new(&[("0", 4, false), ("1", 4, true)], 0);
        group.add("a", "p");
        assert_eq!((group.assign(), group.active_counts()), (0, vec![8]));
        group.add("b", "q");
        assert_eq!((group.assign(), group.active_counts()), (4, vec![4, 4]));
        assert_eq!(group.assign(), 0);
        group.add("c", "r");
        assert_eq!(group.assign(), 2);
        assert_eq!(group.active_counts().iter().max(), Some(&3));
        group.members.remove(0);
        group.assign();
        assert_eq!(group.active_counts(), [4, 4]);
    }

    #[test]
    fn a_process_with_two_members_gets_twice_as_much() {
        let mut group = Group::new(&[("0", 9, true)], 0);
        for (member, process) in [("a", "p"), ("b", "p"), ("c", "q")] {
            group.add(member, process);
        }
        group.assign();
        assert_eq!(group.active_counts(), [3, 3, 3]);
    }

    #[test]
    fn when_a_member_dies_its_tasks_go_where_their_state_is_as_far_as_there_is_room() {
        let mut group = Group::new(&[("0", 6, true)], 1);
        for (member, process) in [("a", "p"), ("b", "q"), ("c", "r")] {
            group.add(member, process);
        }
        group.assign();
        let lost = group.targets[&Text::from("a")].active.clone();
        let kept: Vec<(Text, TaskSet)> = group
            .targets
            .iter()
            .filter(|(id, _)| ***id != *"a")
            .map(|(id, t)| (id.clone(), t.clone()))
            .collect();
        group.members.remove(0);
        assert_eq!(group.assign(), 0);
        let mut with_state = 0;
        for task in each(&lost) {
            let (heir, _) =
                group.targets.iter().find(|(_, tasks)| each(&tasks.active).any(|one| one == task)).unwrap();
            let (_, had) = kept.iter().find(|(id, _)| id == heir).unwrap();
            with_state += usize::from(each(&had.standby).any(|one| one == task));
        }
        assert_eq!((each(&lost).count(), group.active_counts()), (2, vec![3, 3]));
        assert!(with_state >= 1, "each of the others has room for one");
    }

    #[test]
    fn there_are_as_many_copies_as_processes_allow() {
        let mut group = Group::new(&[("0", 5, true), ("1", 3, false)], 2);
        group.add("a", "p");
        group.assign();
        group.add("b", "p");
        group.add("c", "q");
        group.assign();
        group.add("d", "r");
        group.add("e", "s");
        group.assign();
        assert_eq!(group.assign(), 0);
    }
}
