//! Random schedules of members, with failures of appends, failovers, changing topics and settings, and time. What must
//! hold at every step: no active task is run by two members, by what they were told and acknowledged, and no process has
//! a task twice; the state is the log's replay. And in the end, when everyone sends heartbeats, everything is assigned.

use proptest::prelude::*;

use super::*;
use crate::consumer_group::GroupOverrides;
use crate::streams_group::StreamsOverrides;

const MEMBERS: usize = 5;
const PROCESSES: [&str; MEMBERS] = ["p", "p", "q", "r", "r"];
const CASES: u32 = 192;

#[derive(Debug, Clone)]
enum Act {
    /// A heartbeat that tells nothing, or joins if the member must.
    Beat(usize),
    /// A heartbeat that tells what the member has, once it let go of the rest.
    Acknowledge(usize),
    Leave(usize),
    /// The process dies without a word and comes back under a new member id.
    Restart(usize),
    /// The answer to a heartbeat is lost.
    Lost(usize),
    Partitions(i32),
    /// The changelog is gone until the next change of partitions.
    Missing,
    Replicas(i32),
    Pass(u64),
    /// Appends on their way are committed; or the last of them is refused; or the first is late.
    Settle,
    Refuse,
    Late,
    FailOver,
    /// A commit of a task with the epoch that a member once had.
    Commit(usize, i32),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        10 => (0..MEMBERS).prop_map(Act::Beat),
        8 => (0..MEMBERS).prop_map(Act::Acknowledge),
        1 => (0..MEMBERS).prop_map(Act::Leave),
        1 => (0..MEMBERS).prop_map(Act::Restart),
        2 => (0..MEMBERS).prop_map(Act::Lost),
        1 => (1..6_i32).prop_map(Act::Partitions),
        1 => Just(Act::Missing),
        1 => (0..3_i32).prop_map(Act::Replicas),
        2 => (0..12_000_u64).prop_map(Act::Pass),
        8 => Just(Act::Settle),
        1 => Just(Act::Refuse),
        1 => Just(Act::Late),
        1 => Just(Act::FailOver),
        3 => ((0..MEMBERS), 0..4_i32).prop_map(|(index, age)| Act::Commit(index, age)),
    ];
    proptest::collection::vec(act, 1..140)
}

struct World {
    h: Harness,
    workers: Vec<Worker>,
    /// When each member stops using its tasks, unless it gets an answer before.
    expires_ms: Vec<u64>,
    /// When a member that was told to let go of tasks stops, unless it said before that it has.
    lets_go_ms: Vec<Option<u64>>,
    waiting: Vec<Option<(RequestToken, u64)>>,
    /// Who did not get an answer, or an error, tells everything next time, as clients do.
    unsure: Vec<Option<u64>>,
    counts: Vec<(&'static str, i32)>,
    restarts: usize,
}

impl World {
    fn new() -> Self {
        let mut h = harness(&all_topics(3));
        h.held = true;
        let worker = |index: usize| Worker::new(&format!("m{index}"), PROCESSES[index]);
        Self {
            h,
            workers: (0..MEMBERS).map(worker).collect(),
            expires_ms: vec![0; MEMBERS],
            lets_go_ms: vec![None; MEMBERS],
            waiting: vec![None; MEMBERS],
            unsure: vec![None; MEMBERS],
            counts: all_topics(3),
            restarts: 0,
        }
    }

    fn send(&mut self, index: usize, command: StreamsHeartbeat) {
        if self.waiting[index].is_none() {
            let token = self.h.send(Command::StreamsHeartbeat(Box::new(command)));
            self.waiting[index] = Some((token, self.h.now.monotonic_ms));
        }
    }

    fn beat(&mut self, index: usize, acknowledges: bool) {
        if self.waiting[index].is_some() {
            return;
        }
        let worker = &mut self.workers[index];
        let command = if worker.epoch <= JOIN_EPOCH {
            (worker.owned, worker.given) = (TaskSet::default(), TaskSet::default());
            worker.join_command()
        } else if acknowledges || self.unsure[index].is_some() {
            worker.owned = worker.given.clone();
            self.lets_go_ms[index] = None;
            let timeout_ms = self.unsure[index].map(|_| i32::try_from(REBALANCE_TIMEOUT_MS).unwrap());
            StreamsHeartbeat {
                owned: Some(worker.owned.clone()),
                rebalance_timeout_ms: timeout_ms,
                ..worker.command()
            }
        } else {
            worker.command()
        };
        self.send(index, command);
    }

    /// The member stops: it runs nothing any more.
    fn forget(&mut self, index: usize) {
        (self.lets_go_ms[index], self.unsure[index]) = (None, None);
        let worker = &mut self.workers[index];
        worker.epoch = JOIN_EPOCH;
        (worker.owned, worker.given) = (TaskSet::default(), TaskSet::default());
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Beat(index) => self.beat(index, false),
            Act::Acknowledge(index) => self.beat(index, true),
            Act::Leave(index) if self.waiting[index].is_none() && self.workers[index].epoch > JOIN_EPOCH => {
                let command = StreamsHeartbeat { member_epoch: LEAVE_EPOCH, ..self.workers[index].command() };
                self.forget(index);
                self.send(index, command);
                if let Some((token, _)) = self.waiting[index].take() {
                    self.h.replies.remove(&token);
                }
            }
            Act::Leave(_) => {}
            Act::Restart(index) => {
                self.restarts += 1;
                self.forget(index);
                self.waiting[index] = None;
                self.workers[index].id = format!("m{index}-{}", self.restarts);
                // Its disk is locked and fresh for the others.
                self.workers[index].process = format!("{}-{}", PROCESSES[index], self.restarts);
            }
            Act::Lost(index) => {
                if let Some((_, sent_ms)) = self.waiting[index].take() {
                    self.unsure[index].get_or_insert(sent_ms);
                }
            }
            Act::Partitions(count) => self.set_topics(all_topics(count)),
            Act::Missing => {
                let there = self.counts.iter().copied().take(2).collect();
                self.set_topics(there);
            }
            Act::Replicas(replicas) => {
                let streams =
                    StreamsOverrides { standby_replicas: Some(replicas), ..StreamsOverrides::default() };
                let overrides = GroupOverrides { streams, ..GroupOverrides::default() };
                self.h.machine.set_overrides(Arc::new(BTreeMap::from([(text("g"), overrides)])));
            }
            Act::Pass(ms) => {
                for step in [ms / 2, ms - ms / 2] {
                    self.h.pass(step);
                    self.stop_expired();
                }
            }
            Act::Settle => self.h.commit(),
            Act::Refuse => {
                if let Some(last) = self.h.appends.pop() {
                    self.h.appends.insert(0, last);
                    self.h.fail(ErrorCode::NotEnoughReplicas);
                }
            }
            Act::Late => {
                if let Some(first) = self.h.appends.first() {
                    let records = first.records.clone();
                    self.h.log.extend(records.into_iter().map(|record| (None, record)));
                    self.h.fail(ErrorCode::RequestTimedOut);
                }
            }
            Act::FailOver => {
                self.h.fail_over();
                self.set_topics(self.counts.clone());
            }
            Act::Commit(index, age) => self.commit(index, age),
        }
        self.receive();
        self.check();
    }

    fn set_topics(&mut self, counts: Vec<(&'static str, i32)>) {
        set_topics(&mut self.h, &counts);
        self.counts = counts;
    }

    /// No commit from the past: of a task that someone else may run, or with an epoch from before the task was given.
    fn commit(&mut self, index: usize, age: i32) {
        let worker = &self.workers[index];
        let epoch = worker.epoch - age;
        let command = OffsetCommit {
            member_id: text(&worker.id),
            generation_id: epoch.max(1),
            ..commit_command("g", &[("lines", 0, 1)])
        };
        let live = self.h.machine.groups.get("g").and_then(|group| group.streams.as_ref());
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

    /// A client that got no answer for long runs nothing any more.
    fn stop_expired(&mut self) {
        for index in 0..MEMBERS {
            let due_ms = self.expires_ms[index].min(self.lets_go_ms[index].unwrap_or(u64::MAX));
            if self.h.now.monotonic_ms >= due_ms && self.workers[index].epoch > JOIN_EPOCH {
                self.forget(index);
                self.waiting[index] = None;
            }
        }
    }

    fn receive(&mut self) {
        for index in 0..MEMBERS {
            let Some((token, sent_ms)) = self.waiting[index] else { continue };
            let Some(reply) = self.h.replies.remove(&token) else { continue };
            self.waiting[index] = None;
            let Reply::StreamsHeartbeat(reply) = reply else { panic!("{reply:?}") };
            let lost_ms = self.unsure[index].take();
            if reply.error != ErrorCode::None {
                self.unsure[index] = Some(lost_ms.unwrap_or(sent_ms));
            }
            match reply.error {
                ErrorCode::None => {
                    let used = uses(&self.workers[index]);
                    self.workers[index].learn(&reply);
                    self.expires_ms[index] = sent_ms + REBALANCE_TIMEOUT_MS;
                    let given = uses(&Worker { owned: TaskSet::default(), ..self.workers[index].clone() });
                    if !used.is_subset(&given) {
                        let told_ms = lost_ms.unwrap_or(sent_ms) + REBALANCE_TIMEOUT_MS;
                        self.lets_go_ms[index].get_or_insert(told_ms);
                    }
                }
                ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator => {}
                // Tasks that are no more, as of a topic that shrank: real clients are fenced by other means.
                ErrorCode::FencedMemberEpoch
                | ErrorCode::UnknownMemberId
                | ErrorCode::GroupIdNotFound
                | ErrorCode::InvalidRequest => self.forget(index),
                other => panic!("{other:?}"),
            }
        }
    }

    fn check(&self) {
        let mut active: BTreeMap<(Text, i32), usize> = BTreeMap::new();
        let mut on: BTreeMap<(Text, i32, &str), usize> = BTreeMap::new();
        for (index, worker) in self.workers.iter().enumerate() {
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

    /// Everybody sends heartbeats: everything is assigned.
    fn finish(&mut self) {
        self.set_topics(all_topics(4));
        self.h.commit();
        self.receive();
        for round in 0..60 {
            self.h.pass(if round < 20 { 3_000 } else { 100 });
            self.stop_expired();
            self.h.commit();
            for index in 0..MEMBERS {
                self.beat(index, true);
                self.h.commit();
                self.receive();
                self.check();
            }
        }
        let described = self.h.streams();
        assert_eq!((described.state.name(), described.members.len()), ("Stable", MEMBERS));
        let given: usize =
            self.workers.iter().flat_map(|worker| worker.owned.active.values()).map(BTreeSet::len).sum();
        assert_eq!(given, 8);
        self.h.assert_replayed();
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn no_task_runs_twice_and_everything_is_assigned_in_the_end(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
            if world.h.appends.is_empty() && world.h.machine.groups.contains_key("g") {
                world.h.assert_replayed();
            }
        }
        world.finish();
    }
}
