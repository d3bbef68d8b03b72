//! Random schedules of members, with failures of appends, failovers, changing topics and time. What must hold at every
//! step: no partition is used by two members, by what they were told and acknowledged; the state is the log's replay.
//! And in the end, when everyone sends heartbeats, everything is assigned.

use proptest::prelude::*;

use super::*;

const MEMBERS: usize = 5;
const CASES: u32 = 192;

#[derive(Debug, Clone)]
enum Act {
    /// A heartbeat that tells nothing, or joins if the member must.
    Beat(usize),
    /// A heartbeat that tells what the member has, once it let go of the rest.
    Acknowledge(usize),
    /// Of static members alternately for a while and for good.
    Leave(usize),
    /// The process dies without a word and comes back under a new member id.
    Restart(usize),
    /// The answer to a heartbeat is lost.
    Lost(usize),
    Partitions(i32),
    Subscribe(usize, bool),
    Pass(u64),
    /// Appends on their way are committed; or the last of them is refused; or the first is late.
    Settle,
    Refuse,
    Late,
    FailOver,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        10 => (0..MEMBERS).prop_map(Act::Beat),
        8 => (0..MEMBERS).prop_map(Act::Acknowledge),
        1 => (0..MEMBERS).prop_map(Act::Leave),
        1 => (0..MEMBERS).prop_map(Act::Restart),
        2 => (0..MEMBERS).prop_map(Act::Lost),
        1 => (1..9_i32).prop_map(Act::Partitions),
        1 => (0..MEMBERS, any::<bool>()).prop_map(|(index, both)| Act::Subscribe(index, both)),
        2 => (0..12_000_u64).prop_map(Act::Pass),
        8 => Just(Act::Settle),
        1 => Just(Act::Refuse),
        1 => Just(Act::Late),
        1 => Just(Act::FailOver),
    ];
    proptest::collection::vec(act, 1..140)
}

struct World {
    h: Harness,
    peers: Vec<Peer>,
    /// When each member stops using its partitions, unless it gets an answer before: it may have been told to let go of
    /// some, and be removed when it has not by the rebalance timeout.
    expires_ms: Vec<u64>,
    /// When a member that was told to let go of partitions stops, unless it said before that it has.
    lets_go_ms: Vec<Option<u64>>,
    waiting: Vec<Option<(RequestToken, u64)>>,
    /// Who did not get an answer, or an error, tells everything next time, as clients do, and so is told everything.
    /// Since when: what was decided then has its time from then on.
    unsure: Vec<Option<u64>>,
    view: Arc<TopicsView>,
    restarts: usize,
    leaves: usize,
}

impl World {
    fn new() -> Self {
        let mut h = harness(6);
        let view = topics(&[("t", 6), ("u", 3)]);
        h.machine.set_topics(Arc::clone(&view));
        h.held = true;
        let peer = |index: usize| {
            let id = format!("m{index}");
            if index >= 3 { Peer::of_instance(&id, &format!("i{index}")) } else { Peer::new(&id, &["t"]) }
        };
        Self {
            h,
            peers: (0..MEMBERS).map(peer).collect(),
            expires_ms: vec![0; MEMBERS],
            lets_go_ms: vec![None; MEMBERS],
            waiting: vec![None; MEMBERS],
            unsure: vec![None; MEMBERS],
            view,
            restarts: 0,
            leaves: 0,
        }
    }

    fn send(&mut self, index: usize, command: ConsumerHeartbeat) {
        if self.waiting[index].is_none() {
            let token = self.h.send(Command::ConsumerHeartbeat(Box::new(command)));
            self.waiting[index] = Some((token, self.h.now.monotonic_ms));
        }
    }

    fn beat(&mut self, index: usize, acknowledges: bool) {
        if self.waiting[index].is_some() {
            return;
        }
        let peer = &mut self.peers[index];
        let command = if peer.epoch <= JOIN_EPOCH {
            (peer.owned, peer.given) = (Partitions::new(), Partitions::new());
            peer.join_command()
        } else if self.unsure[index].is_some() {
            peer.owned = peer.given.clone();
            self.lets_go_ms[index] = None;
            let (epoch, owned) = (peer.epoch, Some(peer.owned.clone()));
            ConsumerHeartbeat { member_epoch: epoch, owned, ..peer.join_command() }
        } else if acknowledges {
            peer.owned = peer.given.clone();
            self.lets_go_ms[index] = None;
            let topics = peer.topics.iter().map(|name| text(name)).collect();
            ConsumerHeartbeat { owned: Some(peer.owned.clone()), topics: Some(topics), ..peer.command() }
        } else {
            peer.command()
        };
        self.send(index, command);
    }

    /// The member stops: it uses nothing any more.
    fn forget(&mut self, index: usize) {
        (self.lets_go_ms[index], self.unsure[index]) = (None, None);
        let peer = &mut self.peers[index];
        peer.epoch = JOIN_EPOCH;
        (peer.owned, peer.given) = (Partitions::new(), Partitions::new());
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Beat(index) => self.beat(index, false),
            Act::Acknowledge(index) => self.beat(index, true),
            Act::Leave(index) if self.waiting[index].is_none() && self.peers[index].epoch > JOIN_EPOCH => {
                self.leaves += 1;
                let for_a_while = self.peers[index].instance.is_some() && self.leaves.is_multiple_of(2);
                let epoch = if for_a_while { LEAVE_STATIC_EPOCH } else { LEAVE_EPOCH };
                let command = ConsumerHeartbeat { member_epoch: epoch, ..self.peers[index].command() };
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
                self.peers[index].id = format!("m{index}-{}", self.restarts);
            }
            Act::Lost(index) => {
                if let Some((_, sent_ms)) = self.waiting[index].take() {
                    self.unsure[index].get_or_insert(sent_ms);
                }
            }
            Act::Partitions(count) => {
                self.view = topics(&[("t", count), ("u", 3)]);
                self.bump_view();
            }
            Act::Subscribe(index, both) => {
                let names: &[&str] = if both { &["t", "u"] } else { &["t"] };
                self.peers[index].topics = names.iter().map(|name| (*name).to_owned()).collect();
                if self.peers[index].epoch > JOIN_EPOCH && self.unsure[index].is_none() {
                    let names = Some(names.iter().copied().map(text).collect());
                    let command = ConsumerHeartbeat { topics: names, ..self.peers[index].command() };
                    self.send(index, command);
                }
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
                self.bump_view();
            }
        }
        self.receive();
        self.check();
    }

    /// Views of one version are equal; these are built anew, so they are numbered here.
    fn bump_view(&mut self) {
        let mut view = (*self.view).clone();
        let version = self.h.machine.machinery.topics.version();
        let mut number = 0_u128;
        while view.version() <= version {
            number += 1;
            view.put(TopicView { id: Uuid::from_u128(1_000 + number), name: text("other"), partitions: 1 });
        }
        self.view = Arc::new(view);
        self.h.machine.set_topics(Arc::clone(&self.view));
    }

    /// A client that got no answer for long uses nothing any more.
    fn stop_expired(&mut self) {
        for index in 0..MEMBERS {
            let due_ms = self.expires_ms[index].min(self.lets_go_ms[index].unwrap_or(u64::MAX));
            if self.h.now.monotonic_ms >= due_ms && self.peers[index].epoch > JOIN_EPOCH {
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
            let Reply::ConsumerHeartbeat(reply) = reply else { panic!("{reply:?}") };
            let lost_ms = self.unsure[index].take();
            if reply.error != ErrorCode::None {
                self.unsure[index] = Some(lost_ms.unwrap_or(sent_ms));
            }
            match reply.error {
                ErrorCode::None => {
                    let used = uses(&self.peers[index]);
                    self.peers[index].learn(&reply);
                    self.expires_ms[index] = sent_ms + REBALANCE_TIMEOUT_MS;
                    let given = &self.peers[index].given;
                    let keeps_all = used.iter().all(|(topic, numbers)| {
                        given.get(topic).is_some_and(|given| numbers.is_subset(given))
                    });
                    let told_ms = lost_ms.unwrap_or(sent_ms) + REBALANCE_TIMEOUT_MS;
                    if !keeps_all {
                        self.lets_go_ms[index].get_or_insert(told_ms);
                    }
                }
                ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator => {}
                ErrorCode::UnreleasedInstanceId => assert!(self.peers[index].instance.is_some()),
                ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => {
                    self.forget(index);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn check(&self) {
        let mut used: BTreeMap<(Uuid, i32), usize> = BTreeMap::new();
        for (index, peer) in self.peers.iter().enumerate() {
            for (topic, numbers) in uses(peer) {
                for number in numbers {
                    if let Some(other) = used.insert((topic, number), index) {
                        panic!("{topic} {number} is used by {other} and {index}");
                    }
                }
            }
        }
    }

    /// Everybody sends heartbeats: everything is assigned.
    fn finish(&mut self) {
        self.h.commit();
        self.receive();
        for round in 0..60 {
            // Static members whose former selves have not been heard of for long are let in.
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
        let described = self.h.described();
        assert_eq!((described.state.name(), described.members.len()), ("Stable", MEMBERS));
        let both = self.peers.iter().any(|peer| peer.topics.len() == 2);
        let wanted = self.view.by_name("t").unwrap().partitions + if both { 3 } else { 0 };
        let given: usize = self.peers.iter().flat_map(|peer| peer.owned.values()).map(BTreeSet::len).sum();
        assert_eq!(i32::try_from(given).unwrap(), wanted);
        self.h.assert_replayed();
    }
}

/// What a member uses: what it was given, and what it has not told yet that it let go of.
fn uses(peer: &Peer) -> Partitions {
    let mut all = peer.given.clone();
    for (topic, numbers) in &peer.owned {
        all.entry(*topic).or_default().extend(numbers);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn no_partition_has_two_owners_and_everything_is_assigned_in_the_end(acts in acts()) {
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
