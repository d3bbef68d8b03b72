//! Random schedules of streams groups, with changing topics and settings. What must hold at every step: no active task is
//! run by two members, by what they were told and acknowledged, and no process has a task twice; no commit is taken from
//! before a task was given; the state is the log's replay. And in the end, when everyone sends heartbeats, everything is
//! assigned.

use proptest::prelude::*;

use super::super::heartbeats::{Client, Kind, MEMBERS, Schedule, acts};
use super::*;
use crate::consumer_group::GroupOverrides;
use crate::streams_group::StreamsOverrides;

const PROCESSES: [&str; MEMBERS] = ["p", "p", "q", "r", "r"];
const CASES: u32 = 192;

#[derive(Debug, Clone)]
enum Event {
    Partitions(i32),
    /// The changelog is gone until the next change of partitions.
    Missing,
    Replicas(i32),
    /// A commit of a task with the epoch that a member once had.
    Commit(usize, i32),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (1..6_i32).prop_map(Event::Partitions),
        1 => Just(Event::Missing),
        1 => (0..3_i32).prop_map(Event::Replicas),
        3 => ((0..MEMBERS), 0..4_i32).prop_map(|(index, age)| Event::Commit(index, age)),
    ]
}

fn heartbeat(command: StreamsHeartbeat) -> Command {
    Command::StreamsHeartbeat(Box::new(command))
}

impl Client for Worker {
    fn epoch(&self) -> i32 {
        self.epoch
    }

    fn forget(&mut self) {
        self.epoch = JOIN_EPOCH;
        (self.owned, self.given) = (TaskSet::default(), TaskSet::default());
    }

    fn join(&self) -> Command {
        heartbeat(self.join_command())
    }

    fn beat(&self) -> Command {
        heartbeat(self.command())
    }

    fn tell(&mut self, all: bool) -> Command {
        self.owned = self.given.clone();
        heartbeat(StreamsHeartbeat {
            owned: Some(self.owned.clone()),
            rebalance_timeout_ms: all.then(|| i32::try_from(REBALANCE_TIMEOUT_MS).unwrap()),
            ..self.command()
        })
    }

    fn leave(&self, _: usize) -> Command {
        heartbeat(StreamsHeartbeat { member_epoch: LEAVE_EPOCH, ..self.command() })
    }

    /// Its disk is locked and fresh for the others.
    fn restart(&mut self, index: usize, count: usize) {
        self.id = format!("m{index}-{count}");
        self.process = format!("{}-{count}", PROCESSES[index]);
    }

    fn error(reply: &Reply) -> ErrorCode {
        answer(reply).error
    }

    fn learn(&mut self, reply: &Reply) -> bool {
        let used = uses(self);
        Worker::learn(self, answer(reply));
        used.is_subset(&uses(&Worker { owned: TaskSet::default(), ..self.clone() }))
    }

    /// Tasks that are no more, as of a topic that shrank, are an invalid request: real clients are fenced by other means.
    fn is_dismissed_by(&self, error: ErrorCode) -> bool {
        match error {
            ErrorCode::FencedMemberEpoch
            | ErrorCode::UnknownMemberId
            | ErrorCode::GroupIdNotFound
            | ErrorCode::InvalidRequest => true,
            other => panic!("{other:?}"),
        }
    }
}

fn answer(reply: &Reply) -> &StreamsHeartbeatReply {
    match reply {
        Reply::StreamsHeartbeat(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// What a member runs: what it was given, and what it has not told yet that it let go of; and whether as active task.
fn uses(worker: &Worker) -> BTreeSet<(Text, i32, bool)> {
    let mut all = BTreeSet::new();
    for set in [&worker.given, &worker.owned] {
        for (tasks, is_active) in [(&set.active, true), (&set.standby, false)] {
            for (id, numbers) in tasks {
                all.extend(numbers.iter().map(|number| (id.clone(), *number, is_active)));
            }
        }
    }
    all
}

/// The topics there are.
struct Streams {
    counts: Vec<(&'static str, i32)>,
}

impl Streams {
    fn set_topics(schedule: &mut Schedule<Self>, counts: Vec<(&'static str, i32)>) {
        set_topics(&mut schedule.h, &counts);
        schedule.kind.counts = counts;
    }

    /// No commit from the past: of a task that someone else may run, or with an epoch from before the task was given.
    fn commit(schedule: &Schedule<Self>, index: usize, age: i32) {
        let worker = &schedule.clients[index];
        let epoch = worker.epoch - age;
        let command = OffsetCommit {
            member_id: text(&worker.id),
            generation_id: epoch.max(1),
            ..commit_command("g", &[("lines", 0, 1)])
        };
        let live = schedule.h.machine.groups.get("g").and_then(|group| group.streams.as_ref());
        let Some(live) = live else { return };
        let allowed = live.may_commit(&command).is_ok();
        let member = live.group.members().get(&text(&worker.id));
        let current = member.map(|member| member.current.clone());
        let since = current.as_ref().and_then(|current| {
            let mut both = [&current.assigned, &current.revoking].into_iter();
            both.find_map(|tasks| tasks.active.get(&text("0"))?.get(&0).copied())
        });
        let is_current = current.as_ref().is_some_and(|current| current.epoch == command.generation_id);
        let has_since = since.is_some_and(|since| since <= command.generation_id)
            && current.is_some_and(|current| command.generation_id < current.epoch);
        assert_eq!(allowed, is_current || has_since);
    }
}

impl Kind for Streams {
    type Client = Worker;
    type Event = Event;
    const REBALANCE_TIMEOUT_MS: u64 = REBALANCE_TIMEOUT_MS;

    fn happen(schedule: &mut Schedule<Self>, event: Event) {
        match event {
            Event::Partitions(count) => Self::set_topics(schedule, all_topics(count)),
            Event::Missing => {
                let there = schedule.kind.counts.iter().copied().take(2).collect();
                Self::set_topics(schedule, there);
            }
            Event::Replicas(replicas) => {
                let streams =
                    StreamsOverrides { standby_replicas: Some(replicas), ..StreamsOverrides::default() };
                let overrides = GroupOverrides { streams, ..GroupOverrides::default() };
                schedule.h.machine.set_overrides(Arc::new(BTreeMap::from([(text("g"), overrides)])));
            }
            Event::Commit(index, age) => Self::commit(schedule, index, age),
        }
    }

    fn failed_over(schedule: &mut Schedule<Self>) {
        let counts = schedule.kind.counts.clone();
        Self::set_topics(schedule, counts);
    }

    fn check(schedule: &Schedule<Self>) {
        let mut active: BTreeMap<(Text, i32), usize> = BTreeMap::new();
        let mut on: BTreeMap<(Text, i32, &str), usize> = BTreeMap::new();
        for (index, worker) in schedule.clients.iter().enumerate() {
            for (id, number, is_active) in uses(worker) {
                if is_active && let Some(other) = active.insert((id.clone(), number), index) {
                    panic!("{id} {number} is run by {other} and {index}");
                }
                let place = on.insert((id.clone(), number, &worker.process), index);
                if let Some(other) = place.filter(|other| *other != index) {
                    panic!("{id} {number} is on {} twice: {other} and {index}", worker.process);
                }
            }
        }
    }

    fn come_to_rest(schedule: &mut Schedule<Self>) {
        Self::set_topics(schedule, all_topics(4));
    }

    fn check_assigned(schedule: &Schedule<Self>) {
        let described = schedule.h.streams();
        assert_eq!((described.state.name(), described.members.len()), ("Stable", MEMBERS));
        let tasks = schedule.clients.iter().flat_map(|worker| worker.owned.active.values());
        assert_eq!(tasks.map(BTreeSet::len).sum::<usize>(), 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn no_task_runs_twice_and_everything_is_assigned_in_the_end(acts in acts(6, events())) {
        let worker = |index: usize| Worker::new(&format!("m{index}"), PROCESSES[index]);
        let h = harness(&all_topics(3));
        Schedule::new(h, Streams { counts: all_topics(3) }, worker).run(acts);
    }
}
