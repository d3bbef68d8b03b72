//! Random schedules of consumer groups, with static members, changing subscriptions and topics. What must hold at every
//! step: no partition is used by two members, by what they were told and acknowledged; the state is the log's replay.
//! And in the end, when everyone sends heartbeats, everything is assigned.

use proptest::prelude::*;

use super::super::heartbeats::{Client, Kind, MEMBERS, Schedule, acts};
use super::*;

const CASES: u32 = 192;

#[derive(Debug, Clone)]
enum Event {
    Partitions(i32),
    Subscribe(usize, bool),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1..9_i32).prop_map(Event::Partitions),
        (0..MEMBERS, any::<bool>()).prop_map(|(index, both)| Event::Subscribe(index, both)),
    ]
}

impl Client for Peer {
    fn epoch(&self) -> i32 {
        self.epoch
    }

    fn forget(&mut self) {
        self.epoch = JOIN_EPOCH;
        (self.owned, self.given) = (Partitions::new(), Partitions::new());
    }

    fn join(&self) -> Command {
        Command::ConsumerHeartbeat(Box::new(self.join_command()))
    }

    fn beat(&self) -> Command {
        Command::ConsumerHeartbeat(Box::new(self.command()))
    }

    fn tell(&mut self, all: bool) -> Command {
        self.owned = self.given.clone();
        let (epoch, owned) = (self.epoch, Some(self.owned.clone()));
        let command = if all {
            ConsumerHeartbeat { member_epoch: epoch, owned, ..self.join_command() }
        } else {
            let topics = self.topics.iter().map(|name| text(name)).collect();
            ConsumerHeartbeat { owned, topics: Some(topics), ..self.command() }
        };
        Command::ConsumerHeartbeat(Box::new(command))
    }

    /// Static members go alternately for a while and for good.
    fn leave(&self, count: usize) -> Command {
        let for_a_while = self.instance.is_some() && count.is_multiple_of(2);
        let epoch = if for_a_while { LEAVE_STATIC_EPOCH } else { LEAVE_EPOCH };
        Command::ConsumerHeartbeat(Box::new(ConsumerHeartbeat { member_epoch: epoch, ..self.command() }))
    }

    fn restart(&mut self, index: usize, count: usize) {
        self.id = format!("m{index}-{count}");
    }

    fn error(reply: &Reply) -> ErrorCode {
        answer(reply).error
    }

    fn learn(&mut self, reply: &Reply) -> bool {
        let used = uses(self);
        Peer::learn(self, answer(reply));
        used.iter()
            .all(|(topic, numbers)| self.given.get(topic).is_some_and(|given| numbers.is_subset(given)))
    }

    fn is_dismissed_by(&self, error: ErrorCode) -> bool {
        match error {
            ErrorCode::UnreleasedInstanceId if self.instance.is_some() => false,
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => true,
            other => panic!("{other:?}"),
        }
    }
}

fn answer(reply: &Reply) -> &ConsumerHeartbeatReply {
    match reply {
        Reply::ConsumerHeartbeat(reply) => reply,
        other => panic!("{other:?}"),
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

/// The topics there are.
struct Consumers {
    view: Arc<TopicsView>,
}

impl Consumers {
    /// Views of one version are equal; these are built anew, so they are numbered here.
    fn bump_view(schedule: &mut Schedule<Self>) {
        let mut view = (*schedule.kind.view).clone();
        let version = schedule.h.machine.machinery.topics.version();
        let mut number = 0_u128;
        while view.version() <= version {
            number += 1;
            view.put(TopicView { id: Uuid::from_u128(1_000 + number), name: text("other"), partitions: 1 });
        }
        schedule.kind.view = Arc::new(view);
        schedule.h.machine.set_topics(Arc::clone(&schedule.kind.view));
    }
}

impl Kind for Consumers {
    type Client = Peer;
    type Event = Event;
    const REBALANCE_TIMEOUT_MS: u64 = REBALANCE_TIMEOUT_MS;

    fn happen(schedule: &mut Schedule<Self>, event: Event) {
        match event {
            Event::Partitions(count) => {
                schedule.kind.view = topics(&[("t", count), ("u", 3)]);
                Self::bump_view(schedule);
            }
            Event::Subscribe(index, both) => {
                let names: &[&str] = if both { &["t", "u"] } else { &["t"] };
                schedule.clients[index].topics = names.iter().map(|name| (*name).to_owned()).collect();
                if schedule.is_sure(index) {
                    let topics = Some(names.iter().copied().map(text).collect());
                    let command = ConsumerHeartbeat { topics, ..schedule.clients[index].command() };
                    schedule.send(index, Command::ConsumerHeartbeat(Box::new(command)));
                }
            }
        }
    }

    fn failed_over(schedule: &mut Schedule<Self>) {
        Self::bump_view(schedule);
    }

    fn check(schedule: &Schedule<Self>) {
        let mut used: BTreeMap<(Uuid, i32), usize> = BTreeMap::new();
        for (index, peer) in schedule.clients.iter().enumerate() {
            for (topic, numbers) in uses(peer) {
                for number in numbers {
                    if let Some(other) = used.insert((topic, number), index) {
                        panic!("{topic} {number} is used by {other} and {index}");
                    }
                }
            }
        }
    }

    fn check_assigned(schedule: &Schedule<Self>) {
        let described = schedule.h.described();
        assert_eq!((described.state.name(), described.members.len()), ("Stable", MEMBERS));
        let both = schedule.clients.iter().any(|peer| peer.topics.len() == 2);
        let wanted = schedule.kind.view.by_name("t").unwrap().partitions + if both { 3 } else { 0 };
        let given: usize =
            schedule.clients.iter().flat_map(|peer| peer.owned.values()).map(BTreeSet::len).sum();
        assert_eq!(i32::try_from(given).unwrap(), wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn no_partition_has_two_owners_and_everything_is_assigned_in_the_end(acts in acts(2, events())) {
        let mut h = harness(6);
        let view = topics(&[("t", 6), ("u", 3)]);
        h.machine.set_topics(Arc::clone(&view));
        let peer = |index: usize| {
            let id = format!("m{index}");
            if index >= 3 { Peer::of_instance(&id, &format!("i{index}")) } else { Peer::new(&id, &["t"]) }
        };
        Schedule::new(h, Consumers { view }, peer).run(acts);
    }
}
