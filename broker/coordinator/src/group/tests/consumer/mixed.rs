//! Random schedules of clients of both protocols in one group, which so changes its protocol back and forth, with
//! failovers and time. What must hold at every step: no partition is used by two clients. And in the end, when everyone
//! does what is next, everything is assigned.

use ottla_wire::persisted::{self, ConsumerProtocolAssignment, consumer_protocol_assignment};
use proptest::prelude::*;

use super::*;

const CLIENTS: usize = 5;
const PARTITIONS: i32 = 6;
const CASES: u32 = 128;
/// Time passes in steps of this, and clients look at their clocks in between.
const STEP_MS: u64 = 500;
/// A client without an answer for this long stops; the sessions of the classic ones are the shortest.
const PATIENCE_MS: u64 = 9_000;

#[derive(Debug, Clone)]
enum Act {
    /// A client does what is next for it.
    Go(usize),
    Leave(usize),
    /// A client's process is replaced by one of the other protocol.
    Switch(usize),
    Pass(u64),
    FailOver,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        14 => (0..CLIENTS).prop_map(Act::Go),
        1 => (0..CLIENTS).prop_map(Act::Leave),
        2 => (0..CLIENTS).prop_map(Act::Switch),
        3 => (1..6_u64).prop_map(Act::Pass),
        1 => Just(Act::FailOver),
    ];
    proptest::collection::vec(act, 1..150)
}

/// A classic consumer, which gives everything up before it joins again.
#[derive(Debug, Default)]
struct Eager {
    member: String,
    generation: i32,
    used: BTreeSet<i32>,
    join: Option<RequestToken>,
    sync: Option<RequestToken>,
}

enum Client {
    Classic(Eager),
    Consumer(Peer),
}

struct World {
    h: Harness,
    clients: Vec<Client>,
    heard_ms: Vec<u64>,
    made: usize,
}

impl World {
    fn new() -> Self {
        let clients = (0..CLIENTS).map(|_| Client::Classic(Eager::default())).collect();
        Self { h: harness(PARTITIONS), clients, heard_ms: vec![0; CLIENTS], made: 0 }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Go(index) => self.go(index),
            Act::Leave(index) => match &mut self.clients[index] {
                Client::Classic(eager) => {
                    let id = std::mem::take(eager).member;
                    self.h.leave("g", &[(&id, None)]);
                }
                Client::Consumer(peer) => {
                    peer.leave(&mut self.h, LEAVE_EPOCH);
                    (peer.epoch, peer.given, peer.owned) = Default::default();
                }
            },
            Act::Switch(index) => {
                self.made += 1;
                let consumer = Client::Consumer(Peer::new(&format!("p{}", self.made), &["t"]));
                let is_classic = matches!(self.clients[index], Client::Classic(_));
                self.clients[index] = if is_classic { consumer } else { Client::Classic(Eager::default()) };
            }
            Act::Pass(steps) => {
                for _ in 0..steps {
                    self.h.pass(STEP_MS);
                    self.stop_impatient();
                }
            }
            Act::FailOver => {
                let view = Arc::clone(&self.h.machine.machinery.topics);
                self.h.fail_over();
                self.h.machine.set_topics(view);
            }
        }
        self.receive();
        self.check();
    }

    fn stop_impatient(&mut self) {
        self.receive();
        for (client, heard_ms) in self.clients.iter_mut().zip(&self.heard_ms) {
            if self.h.now.monotonic_ms < heard_ms + PATIENCE_MS {
                continue;
            }
            match client {
                Client::Classic(eager) => eager.used.clear(),
                Client::Consumer(peer) => (peer.epoch, peer.given, peer.owned) = Default::default(),
            }
        }
    }

    fn go(&mut self, index: usize) {
        let now_ms = self.h.now.monotonic_ms;
        let h = &mut self.h;
        match &mut self.clients[index] {
            Client::Consumer(peer) if peer.epoch == JOIN_EPOCH => {
                assert_eq!(peer.join(h), ErrorCode::None);
                self.heard_ms[index] = now_ms;
            }
            Client::Consumer(peer) => {
                peer.owned = peer.given.clone();
                let command = ConsumerHeartbeat { owned: Some(peer.owned.clone()), ..peer.command() };
                let reply = h.heartbeat(command);
                match reply.error {
                    ErrorCode::None => {
                        peer.learn(&reply);
                        self.heard_ms[index] = now_ms;
                    }
                    ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => {
                        (peer.epoch, peer.given, peer.owned) = Default::default();
                    }
                    other => panic!("{other:?}"),
                }
            }
            Client::Classic(eager) if eager.join.is_some() || eager.sync.is_some() => {}
            Client::Classic(eager) if eager.generation == 0 => {
                eager.used.clear();
                eager.join = Some(h.join("g", &eager.member));
            }
            Client::Classic(eager) => match h.beat("g", &eager.member, eager.generation) {
                ErrorCode::None => self.heard_ms[index] = now_ms,
                ErrorCode::RebalanceInProgress => {
                    eager.used.clear();
                    eager.generation = 0;
                }
                ErrorCode::UnknownMemberId => *eager = Eager::default(),
                ErrorCode::IllegalGeneration => {
                    *eager = Eager { member: std::mem::take(&mut eager.member), ..Eager::default() };
                }
                other => panic!("{other:?}"),
            },
        }
    }

    fn receive(&mut self) {
        for index in 0..CLIENTS {
            let Client::Classic(eager) = &mut self.clients[index] else { continue };
            if let Some(reply) = eager.join.and_then(|token| self.h.replies.remove(&token)) {
                let Reply::Join(reply) = reply else { panic!() };
                eager.join = None;
                match reply.error {
                    ErrorCode::None => {
                        eager.member = reply.member_id.to_string();
                        eager.generation = reply.generation_id;
                        let mut command = sync_command("g", &eager.member, reply.generation_id);
                        command.assignments = shares(&reply.members);
                        eager.sync = Some(self.h.send(Command::Sync(command)));
                    }
                    ErrorCode::RebalanceInProgress | ErrorCode::NotCoordinator => {}
                    ErrorCode::UnknownMemberId => *eager = Eager::default(),
                    other => panic!("{other:?}"),
                }
            }
            let Client::Classic(eager) = &mut self.clients[index] else { continue };
            if let Some(reply) = eager.sync.and_then(|token| self.h.replies.remove(&token)) {
                let Reply::Sync(reply) = reply else { panic!() };
                eager.sync = None;
                match reply.error {
                    ErrorCode::None => {
                        self.heard_ms[index] = self.h.now.monotonic_ms;
                        eager.used = assigned(&reply.assignment);
                    }
                    ErrorCode::UnknownMemberId => *eager = Eager::default(),
                    _ => eager.generation = 0,
                }
            }
        }
    }

    fn check(&self) {
        let mut used = BTreeMap::new();
        for (index, client) in self.clients.iter().enumerate() {
            let numbers: BTreeSet<i32> = match client {
                Client::Classic(eager) => eager.used.clone(),
                Client::Consumer(peer) => {
                    peer.given.values().chain(peer.owned.values()).flatten().copied().collect()
                }
            };
            for number in numbers {
                if let Some(other) = used.insert(number, index) {
                    panic!("{number} is used by {other} and {index}");
                }
            }
        }
    }

    /// Everybody does what is next: everything is assigned.
    fn finish(&mut self) {
        for _ in 0..60 {
            for _ in 0..4 {
                self.h.pass(STEP_MS);
                self.stop_impatient();
            }
            for index in 0..CLIENTS {
                self.go(index);
                self.receive();
                self.check();
            }
        }
        let used = |client: &Client| match client {
            Client::Classic(eager) => eager.used.len(),
            Client::Consumer(peer) => peer.owned.values().map(BTreeSet::len).sum(),
        };
        let all: usize = self.clients.iter().map(used).sum();
        assert_eq!(i32::try_from(all).unwrap(), PARTITIONS);
        assert_eq!(self.h.listing().map(|(_, state)| state), Some("Stable"));
        let any_consumer = self.clients.iter().any(|client| matches!(client, Client::Consumer(_)));
        assert_eq!(
            self.h.listing().map(|(kind, _)| kind),
            Some(if any_consumer { "consumer" } else { "classic" })
        );
    }
}

/// What a leader gives its members: one partition after the other.
fn shares(members: &[JoinedMember]) -> Vec<(Text, Bytes)> {
    let count = i32::try_from(members.len()).unwrap();
    let share = |(place, member): (i32, &JoinedMember)| {
        let partitions = (0..PARTITIONS).filter(|number| number % count == place).collect();
        let partition = consumer_protocol_assignment::AssignedPartition { topic: text("t"), partitions };
        let assignment = ConsumerProtocolAssignment { assigned_partitions: vec![partition], user_data: None };
        (member.member_id.clone(), persisted::encode_value(&assignment, 0).unwrap())
    };
    (0..).zip(members).map(share).collect()
}

fn assigned(bytes: &Bytes) -> BTreeSet<i32> {
    if bytes.is_empty() {
        return BTreeSet::new();
    }
    let assignment: ConsumerProtocolAssignment = persisted::decode_consumer_protocol(bytes).unwrap();
    assignment.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn no_partition_has_two_users_of_whatever_protocol(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        assert_eq!(world.h.replayed().durable(), world.h.machine.durable());
        world.finish();
    }
}
