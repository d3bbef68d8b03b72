//! Random schedules of clients that behave like real ones, with commits, failures of appends, failovers and time. What
//! must hold at every step: no commit of an old generation is taken (I71), no partition has two owners in a generation
//! (I69), the state is the log's replay (I73). And in the end, when clients are left alone, everything is assigned.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const PARTITIONS: u8 = 6;
const CASES: u32 = 256;

#[derive(Debug, Clone)]
enum Act {
    /// A client does what is next for it: join, sync, beat.
    Go(usize),
    /// A client commits an offset under the generation that it knows, or so many before: a zombie's request that was
    /// long on its way.
    Commit(usize, i32),
    Leave(usize),
    /// The client's process is replaced; a static one comes back under its name.
    Restart(usize),
    Pass(u64),
    /// Appends on their way are committed, or the first of them fails.
    Settle(bool),
    FailOver,
    Expire,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => (0..5usize).prop_map(Act::Go),
        4 => (0..5usize, 0..3i32).prop_map(|(index, back)| Act::Commit(index, back)),
        1 => (0..5usize).prop_map(Act::Leave),
        1 => (0..5usize).prop_map(Act::Restart),
        3 => (0..8_000u64).prop_map(Act::Pass),
        4 => prop_oneof![6 => Just(true), 1 => Just(false)].prop_map(Act::Settle),
        1 => Just(Act::FailOver),
        1 => Just(Act::Expire),
    ];
    proptest::collection::vec(act, 1..160)
}

#[derive(Debug, Default)]
struct Client {
    instance: Option<String>,
    member: String,
    generation: i32,
    members: Vec<String>,
    leads: bool,
    stable: bool,
    join: Option<RequestToken>,
    sync: Option<RequestToken>,
}

struct World {
    h: Harness,
    clients: Vec<Client>,
    /// Owners by generation: a partition and the member that was told it is its.
    owned: BTreeMap<(i32, u8), String>,
    newest: i32,
}

impl World {
    fn new() -> Self {
        let mut h = Harness::new(config());
        h.held = true;
        let client = |index: usize| Client {
            instance: (index >= 3).then(|| format!("static-{index}")),
            ..Client::default()
        };
        Self { h, clients: (0..5).map(client).collect(), owned: BTreeMap::new(), newest: 0 }
    }

    fn reset(&mut self, index: usize) {
        let instance = self.clients[index].instance.take();
        self.clients[index] = Client { instance, ..Client::default() };
    }

    /// Reads the answers that came.
    fn read(&mut self) {
        for index in 0..self.clients.len() {
            if let Some(token) = self.clients[index].join.filter(|token| !self.h.waits(*token)) {
                self.clients[index].join = None;
                let reply = self.h.joined(token);
                self.on_join(index, &reply);
            }
            if let Some(token) = self.clients[index].sync.filter(|token| !self.h.waits(*token)) {
                self.clients[index].sync = None;
                let reply = self.h.synced(token);
                self.on_sync(index, &reply);
            }
        }
    }

    fn on_join(&mut self, index: usize, reply: &JoinReply) {
        let client = &mut self.clients[index];
        match reply.error {
            ErrorCode::None => {
                client.member = reply.member_id.to_string();
                client.generation = reply.generation_id;
                client.leads = reply.leader == reply.member_id && !reply.skip_assignment;
                client.members = reply.members.iter().map(|member| member.member_id.to_string()).collect();
                self.newest = self.newest.max(reply.generation_id);
            }
            ErrorCode::MemberIdRequired => client.member = reply.member_id.to_string(),
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.reset(index),
            _ => {}
        }
    }

    fn on_sync(&mut self, index: usize, reply: &SyncReply) {
        match reply.error {
            ErrorCode::None => {
                let client = &mut self.clients[index];
                client.stable = true;
                for partition in &reply.assignment {
                    let key = (client.generation, *partition);
                    let owner = client.instance.clone().unwrap_or_else(|| client.member.clone());
                    let before = self.owned.insert(key, owner.clone());
                    assert!(before.is_none_or(|before| before == owner), "two owners of {key:?}");
                }
            }
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.reset(index),
            _ => self.clients[index].generation = 0,
        }
    }

    fn go(&mut self, index: usize) {
        let client = &self.clients[index];
        if client.join.is_some() || client.sync.is_some() {
            return;
        }
        let (member, generation) = (client.member.clone(), client.generation);
        let instance = client.instance.as_deref().map(text);
        if generation == 0 {
            let mut command = self.h.join_command("g", &member);
            command.group_instance_id = instance;
            command.require_known_member_id = true;
            self.clients[index].join = Some(self.h.send(Command::Join(command)));
        } else if !client.stable {
            let mut command = sync_command("g", &member, generation);
            command.group_instance_id = instance;
            if client.leads {
                command.assignments = shares(&client.members);
            }
            self.clients[index].sync = Some(self.h.send(Command::Sync(command)));
        } else {
            match self.h.beat("g", &member, generation) {
                ErrorCode::None => {}
                ErrorCode::UnknownMemberId => self.reset(index),
                _ => (self.clients[index].generation, self.clients[index].stable) = (0, false),
            }
        }
    }

    fn commit(&mut self, index: usize, back: i32) {
        let client = &self.clients[index];
        let generation = client.generation - back;
        if generation <= 0 {
            return;
        }
        let (member, stale) = (client.member.clone(), generation < self.newest);
        let mut command = commit_command("g", &[("t", 0, i64::from(generation))]);
        (command.member_id, command.generation_id) = (text(&member), generation);
        let token = self.h.send(Command::OffsetCommit(command));
        if self.h.waits(token) {
            assert!(!stale, "a commit of generation {generation} is taken in {}", self.newest);
        } else {
            self.h.answer(token);
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Go(index) => self.go(*index),
            Act::Commit(index, back) => self.commit(*index, *back),
            Act::Leave(index) => {
                let member = self.clients[*index].member.clone();
                if !member.is_empty() {
                    self.h.leave("g", &[(&member, None)]);
                }
            }
            Act::Restart(index) => self.reset(*index),
            Act::Pass(ms) => self.h.pass(*ms),
            Act::Settle(true) => self.h.commit(),
            Act::Settle(false) => {
                if !self.h.appends.is_empty() {
                    self.h.fail(ErrorCode::NotEnoughReplicas);
                }
            }
            Act::FailOver => {
                self.h.fail_over();
                // The last words of the old coordinator.
                self.read();
                // A generation whose assignment was not logged is forgotten and counted again.
                let durable = self.h.machine.durable().group("g").and_then(|group| group.metadata.as_ref());
                let logged = durable.map_or(0, |metadata| metadata.generation);
                self.owned.retain(|(generation, _), _| *generation <= logged);
                self.newest = logged;
            }
            Act::Expire => {
                self.h.expire();
                if self.h.state("g") == GroupState::Dead {
                    // An empty group without offsets is forgotten: the next one counts from one.
                    self.owned.clear();
                    self.newest = 0;
                }
            }
        }
        self.read();
        assert_eq!(self.h.machine.durable(), self.h.replayed().durable(), "live state is the log's replay");
    }

    /// Clients go on undisturbed until all are stable.
    fn come_to_rest(&mut self) {
        self.h.held = false;
        self.h.commit();
        for _ in 0..400 {
            for index in 0..self.clients.len() {
                self.read();
                self.go(index);
            }
            self.h.pass(500);
            self.read();
        }
    }
}

/// Each partition to one member, in turn.
fn shares(members: &[String]) -> Vec<(Text, Bytes)> {
    let count = u8::try_from(members.len()).unwrap().max(1);
    let share = |(index, member): (usize, &String)| {
        let index = u8::try_from(index).unwrap();
        let own: Vec<u8> = (0..PARTITIONS).filter(|partition| partition % count == index).collect();
        (text(member), Bytes::from(own))
    };
    members.iter().enumerate().map(share).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn whatever_happens_no_partition_has_two_owners_and_in_the_end_all_are_assigned(acts in acts()) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
        }
        world.come_to_rest();
        let group = world.h.machine.describe("g").unwrap();
        prop_assert_eq!(group.state, GroupState::Stable);
        prop_assert_eq!(group.members.len(), 5);
        let assigned: Vec<u8> = group.members.iter().flat_map(|member| member.assignment.to_vec()).collect();
        prop_assert_eq!(assigned.len(), usize::from(PARTITIONS));
        prop_assert_eq!(assigned.into_iter().collect::<BTreeSet<u8>>().len(), usize::from(PARTITIONS));
    }
}
