//! Partitions of the network under `ottla verify`: three nodes, each in a network namespace, packets dropped one way, both ways, on
//! some ports or at random. They need root, `ip` and `iptables`, and say so where those are missing:
//!
//!     cargo build --bin ottla
//!     cargo test -p ottla-tests --test fault_partitions -- --ignored --nocapture --test-threads 1
//!
//! `OTTLA_FAULT_ROUNDS` says how many cuts the long one makes, `OTTLA_FAULT_SEED` repeats their choice.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ottla_tests::{Cluster, Connection, Dice, Network, Traffic, Verify, eventually, from_environment};
use ottla_wire::error_code::ErrorCode;

const PARTITIONS: u64 = 6;
/// A lease, by default.
const LEASE: Duration = Duration::from_secs(9);
/// Where a majority reaches each other and the clients, writes go on within this time: a lease, an election, a client that looks
/// for the new leader.
const WRITES_LIMIT: Duration = Duration::from_secs(16);
/// How long a cut lasts at least: longer than a lease, so that what it does to leaders has happened.
const CUT_MIN: Duration = Duration::from_secs(13);
/// After a cut everything is in sync again within this time.
const HEAL_LIMIT: Duration = Duration::from_secs(15);
/// For what is no subject of the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// So that a follower that is cut from its leader alone leaves the ISR within a test's time. Leases are as they are by default.
const PROPERTIES: [(&str, &str); 1] = [("replica.lag.time.max.ms", "5000")];

/// Three nodes in a network of their own.
struct Lab {
    // Before the network: processes end before their namespaces go.
    cluster: Cluster,
    network: Network,
}

/// Who is who when a cut is made; places in the lists of nodes.
#[derive(Debug, Clone, Copy)]
struct Roles {
    /// Leads partition 0.
    leader: usize,
    /// The other two; the quorum's leader is the first, unless it is `leader`.
    others: [usize; 2],
    /// Leads the quorum.
    quorum: usize,
}

impl Lab {
    fn start(properties: &[(&str, &str)]) -> Result<Self> {
        let network = Network::create(3)?;
        let mut cluster = Cluster::prepare_at(network.addresses(), properties)?;
        for (at, node) in cluster.nodes.iter_mut().enumerate() {
            node.run_by(&network.runner(at));
            node.start()?;
        }
        cluster.await_brokers(3)?;
        Ok(Self { cluster, network })
    }

    fn quorum_leader(&self) -> Result<usize> {
        eventually(PATIENCE, "a leader of the quorum", || {
            let status = self.cluster.ottla(&["quorum", "status", "--output", "json"])?.ok()?.json()?;
            let id = status["leader_id"].as_u64().filter(|id| *id > 0);
            Ok(id.map(|id| usize::try_from(id - 1).unwrap_or(0)))
        })
    }

    fn roles(&self, topic: &str) -> Result<Roles> {
        let quorum = self.quorum_leader()?;
        let leader = usize::try_from(self.cluster.leader(topic, 0)? - 1)?;
        let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let others = if other == quorum { [other, one] } else { [one, other] };
        Ok(Roles { leader, others, quorum })
    }

    /// The metadata plane of a member and of its peers: sessions, metadata, Raft.
    fn isolate_from_controllers(&self, member: usize) -> Result<()> {
        for node in &self.cluster.nodes {
            self.network.isolate(member, Traffic::Port(node.grpc_port))?;
        }
        Ok(())
    }

    /// The data plane of a member and of its peers: replication.
    fn isolate_from_followers(&self, member: usize) -> Result<()> {
        for node in &self.cluster.nodes {
            self.network.isolate(member, Traffic::Port(node.kafka_port))?;
        }
        Ok(())
    }
}

/// What is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// What a leader sends does not reach a follower.
    LeaderToFollower,
    /// What a follower sends does not reach its leader.
    FollowerToLeader,
    /// A bridge: two do not reach each other, both see the third.
    LeaderAndFollower,
    /// The same with a controller that follows the quorum and one that leads it.
    QuorumLeaderAndFollower,
    /// A leader alone; clients reach everyone.
    Leader,
    /// The quorum's leader alone; clients reach everyone.
    QuorumLeader,
    /// What the quorum's leader sends reaches nobody; it hears everyone.
    QuorumLeaderIsMute,
    /// What is sent to the quorum's leader does not reach it; everyone hears it.
    QuorumLeaderIsDeaf,
    /// A leader does not reach the controllers, nor they it; its followers and clients do.
    LeaderFromControllers,
    /// A leader does not reach its followers, nor they it; the controllers and clients do.
    LeaderFromFollowers,
    /// One node from everyone, clients as well.
    Everything,
    /// A ring: each hears only one of the others.
    Ring,
    /// Nobody hears anybody.
    Everyone,
}

const CUTS: [Cut; 13] = [
    Cut::LeaderToFollower,
    Cut::FollowerToLeader,
    Cut::LeaderAndFollower,
    Cut::QuorumLeaderAndFollower,
    Cut::Leader,
    Cut::QuorumLeader,
    Cut::QuorumLeaderIsMute,
    Cut::QuorumLeaderIsDeaf,
    Cut::LeaderFromControllers,
    Cut::LeaderFromFollowers,
    Cut::Everything,
    Cut::Ring,
    Cut::Everyone,
];

impl Cut {
    /// Whether a majority is left that reaches each other, and that clients reach: writes must go on. A leader whom the
    /// controllers reach and its followers do not goes on leading alone: what must be on two replicas waits, as with Kafka.
    fn leaves_majority(self) -> bool {
        !matches!(self, Self::LeaderFromFollowers | Self::Ring | Self::Everyone)
    }

    fn make(self, lab: &Lab, roles: Roles) -> Result<()> {
        let network = &lab.network;
        let Roles { leader, others: [first, second], quorum } = roles;
        match self {
            Self::LeaderToFollower => network.cut(leader, second, Traffic::All),
            Self::FollowerToLeader => network.cut(second, leader, Traffic::All),
            Self::LeaderAndFollower => network.cut_both_ways(leader, second, Traffic::All),
            Self::QuorumLeaderAndFollower => network.cut_both_ways(quorum, (quorum + 1) % 3, Traffic::All),
            Self::Leader => network.isolate(leader, Traffic::All),
            Self::QuorumLeader => network.isolate(quorum, Traffic::All),
            Self::QuorumLeaderIsMute => {
                network.cut(quorum, (quorum + 1) % 3, Traffic::All)?;
                network.cut(quorum, (quorum + 2) % 3, Traffic::All)
            }
            Self::QuorumLeaderIsDeaf => {
                network.cut((quorum + 1) % 3, quorum, Traffic::All)?;
                network.cut((quorum + 2) % 3, quorum, Traffic::All)
            }
            Self::LeaderFromControllers => lab.isolate_from_controllers(leader),
            Self::LeaderFromFollowers => lab.isolate_from_followers(leader),
            Self::Everything => {
                network.isolate(leader, Traffic::All)?;
                network.cut_clients(leader)
            }
            Self::Ring => {
                network.cut(leader, first, Traffic::All)?;
                network.cut(first, second, Traffic::All)?;
                network.cut(second, leader, Traffic::All)
            }
            Self::Everyone => {
                network.isolate(leader, Traffic::All)?;
                network.cut_both_ways(first, second, Traffic::All)
            }
        }
    }
}

/// One cut and its end.
fn round(lab: &Lab, verify: &mut Verify, cut: Cut, extra: Duration) -> Result<()> {
    let roles = lab.roles(&verify.topic)?;
    let began = Instant::now();
    cut.make(lab, roles)?;
    println!("{cut:?} with {roles:?}");
    if cut.leaves_majority() {
        let went_on = verify.await_writes(PARTITIONS, WRITES_LIMIT).context("while it was cut")?;
        println!("  every partition was written to again after {went_on:?}");
    }
    std::thread::sleep((CUT_MIN + extra).saturating_sub(began.elapsed()));
    if cut.leaves_majority() {
        // Leases that ran on at first are over by now.
        verify.await_writes(PARTITIONS, WRITES_LIMIT).context("after the leases")?;
    }
    lab.network.heal()?;
    let in_sync = lab.cluster.await_in_sync(&verify.topic, 3, HEAL_LIMIT).context("after it was healed")?;
    let written = verify.await_writes(PARTITIONS, WRITES_LIMIT).context("after it was healed")?;
    println!("  healed: in sync after {in_sync:?}, written to {written:?} later");
    Ok(())
}

fn run(cuts: impl FnOnce(&mut Dice) -> Vec<Cut>) {
    let seed = from_environment("OTTLA_FAULT_SEED").unwrap_or_else(rand::random);
    println!("OTTLA_FAULT_SEED={seed}");
    let mut dice = Dice::new(seed);
    let cuts = cuts(&mut dice);
    let lab = Lab::start(&PROPERTIES).unwrap_or_else(|error| panic!("{error:#}"));
    let mut verify = Verify::start(&lab.cluster, seed, &["--rate", "400"]).unwrap();
    for cut in &cuts {
        lab.cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
        round(&lab, &mut verify, *cut, dice.ms_up_to(4_000)).unwrap_or_else(|error| {
            panic!("{cut:?}, seed {seed}: {error:#}\nkept in {}", verify.keep(&lab.cluster))
        });
    }
    let acknowledged = cuts.len() as u64 * 300;
    verify.finish_held(&lab.cluster, acknowledged).unwrap_or_else(|error| panic!("{error:#}"));
}

/// S-R17: packets are lost one way between a leader and a follower.
#[test]
#[ignore = "needs root"]
fn s_r17_one_way_between_a_leader_and_a_follower() {
    run(|_| vec![Cut::LeaderToFollower, Cut::FollowerToLeader]);
}

/// S-R17: two do not see each other, both see the third.
#[test]
#[ignore = "needs root"]
fn s_r17_bridges() {
    run(|_| vec![Cut::LeaderAndFollower, Cut::QuorumLeaderAndFollower]);
}

/// S-R17: each hears only one of the others; nobody hears anybody.
#[test]
#[ignore = "needs root"]
fn s_r17_a_ring_and_everyone_alone() {
    run(|_| vec![Cut::Ring, Cut::Everyone]);
}

/// S-C04: the leader of the quorum is cut off, whole and one way.
#[test]
#[ignore = "needs root"]
fn s_c04_the_leader_of_the_quorum_is_cut_off() {
    run(|_| vec![Cut::QuorumLeader, Cut::QuorumLeaderIsMute, Cut::QuorumLeaderIsDeaf]);
}

/// S-R05: the leader of a partition is cut off from the other nodes, with and without its clients.
#[test]
#[ignore = "needs root"]
fn s_r05_a_leader_is_cut_off() {
    run(|_| vec![Cut::Leader, Cut::Everything]);
}

/// S-R05: a leader is cut off from the controllers, and its followers and clients reach it; and the other way round.
#[test]
#[ignore = "needs root"]
fn s_r05_a_leader_is_cut_off_from_controllers_and_from_followers() {
    run(|_| vec![Cut::LeaderFromControllers, Cut::LeaderFromFollowers]);
}

/// All of them in an order that the seed says.
#[test]
#[ignore = "long; needs root"]
fn s_r17_partitions_of_every_kind() {
    let rounds = from_environment("OTTLA_FAULT_ROUNDS").unwrap_or(30);
    run(|dice| (0..rounds).map(|_| CUTS[dice.index(CUTS.len())]).collect());
}

/// What one node said to a producer that tried it again and again.
#[derive(Debug, Default)]
struct Tries {
    /// When the last acknowledged request was sent.
    last: Option<Instant>,
    /// When the first acknowledgement came.
    first: Option<Instant>,
    /// After the last acknowledgement.
    refused: Option<ErrorCode>,
}

fn try_until(address: &str, acks: i16, until: impl Fn(&Tries) -> bool) -> Tries {
    let mut tries = Tries::default();
    let mut connection = None;
    while !until(&tries) {
        std::thread::sleep(Duration::from_millis(5));
        let open = || Connection::open(address, Duration::from_secs(2)).ok();
        let Some(mut one) = connection.take().or_else(open) else { continue };
        let sent = Instant::now();
        let Ok(produced) = one.produce("probe", 0, acks, "x") else { continue };
        connection = Some(one);
        if produced.error == ErrorCode::None {
            tries.last = Some(sent);
            tries.first.get_or_insert_with(Instant::now);
            tries.refused = None;
        } else {
            tries.refused.get_or_insert(produced.error);
        }
    }
    tries
}

/// S-R05, I44: a leader that is cut off from the other nodes and not from its clients refuses writes, also those with acks=1,
/// when its lease is over and before anybody else leads; one with acks=all it does not acknowledge any more from the start.
#[test]
#[ignore = "needs root"]
fn s_r05_a_leader_that_is_cut_off_stops_acknowledging_before_another_leads() {
    let lab = Lab::start(&[]).unwrap_or_else(|error| panic!("{error:#}"));
    lab.cluster.create_topic("probe", 1, 3, &["min.insync.replicas=2"]).unwrap();
    lab.cluster.await_in_sync("probe", 3, PATIENCE).unwrap();
    let roles = lab.roles("probe").unwrap();
    let address = |at: usize| lab.cluster.nodes[at].kafka();
    lab.network.isolate(roles.leader, Traffic::All).unwrap();
    let cut = Instant::now();
    let end = cut + LEASE + Duration::from_secs(6);
    let is_over = |_: &Tries| Instant::now() >= end;
    let (old, strict, first, second) = std::thread::scope(|scope| {
        let old = scope.spawn(|| try_until(&address(roles.leader), 1, is_over));
        let strict = scope.spawn(|| try_until(&address(roles.leader), -1, is_over));
        let first = scope.spawn(|| try_until(&address(roles.others[0]), 1, is_over));
        let second = scope.spawn(|| try_until(&address(roles.others[1]), 1, is_over));
        (old.join().unwrap(), strict.join().unwrap(), first.join().unwrap(), second.join().unwrap())
    });
    let after = |at: Option<Instant>| at.map(|at| at.duration_since(cut));
    println!("{roles:?}; acks=1 went on at the old leader until {:?}", after(old.last));
    assert_eq!(old.refused, Some(ErrorCode::NotLeaderOrFollower), "{old:?}");
    assert!(after(old.last) < Some(LEASE), "it acknowledged after its lease: {old:?}");
    assert!(strict.last.is_none(), "acks=all was acknowledged without followers: {strict:?}");
    let new = first.first.into_iter().chain(second.first).min();
    let new =
        new.unwrap_or_else(|| panic!("nobody else leads: {first:?} {second:?}\n{}", lab.cluster.logs()));
    println!("another acknowledged after {:?}", new.duration_since(cut));
    assert!(old.last < Some(new), "two leaders acknowledged at the same time");
    lab.network.heal().unwrap();
    let in_sync = lab.cluster.await_in_sync("probe", 3, HEAL_LIMIT).unwrap();
    println!("healed: in sync after {in_sync:?}");
}

/// S-R18: a fifth of all packets between the nodes is lost, and one of them has a thin line.
#[test]
#[ignore = "needs root"]
fn s_r18_a_fifth_of_all_packets_is_lost_and_one_line_is_slow() {
    let seed = from_environment("OTTLA_FAULT_SEED").unwrap_or_else(rand::random);
    println!("OTTLA_FAULT_SEED={seed}");
    let seconds = from_environment("OTTLA_FAULT_SECONDS").unwrap_or(40);
    let lab = Lab::start(&PROPERTIES).unwrap_or_else(|error| panic!("{error:#}"));
    let mut verify = Verify::start(&lab.cluster, seed, &["--rate", "200"]).unwrap();
    let before = verify.acknowledged().unwrap();
    for member in 0..3 {
        lab.network.lose(member, 0.2).unwrap();
    }
    lab.network.slow(2, "1mbit").unwrap();
    std::thread::sleep(Duration::from_secs(seconds));
    let meanwhile = verify.acknowledged().unwrap() - before;
    lab.network.heal().unwrap();
    lab.network.speed_up(2).unwrap();
    let in_sync = lab
        .cluster
        .await_in_sync(&verify.topic, 3, HEAL_LIMIT * 2)
        .unwrap_or_else(|error| panic!("{error:#}\nkept in {}", verify.keep(&lab.cluster)));
    println!("{meanwhile} batches in {seconds} s; healed: in sync after {in_sync:?}");
    assert!(meanwhile > seconds / 2, "nothing went on: {meanwhile} batches");
    verify.await_writes(PARTITIONS, WRITES_LIMIT).unwrap();
    verify.finish_held(&lab.cluster, 300).unwrap_or_else(|error| panic!("{error:#}"));
}
