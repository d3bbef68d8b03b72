//! Leaders that stand still and wake up: what they were asked meanwhile they must not acknowledge.
//!
//!     cargo test -p ottla-tests --test fault_leases -- --ignored --nocapture --test-threads 1

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ottla_tests::{Cluster, Connection, Verify, eventually, from_environment};
use ottla_wire::error_code::ErrorCode;

const PATIENCE: Duration = Duration::from_secs(60);
/// Short, so that a test can wait for its end.
const LEASE: Duration = Duration::from_secs(3);
const PROPERTIES: [(&str, &str); 2] =
    [("broker.session.timeout.ms", "3000"), ("broker.heartbeat.interval.ms", "500")];

/// A cluster with a topic of one partition; its leader's place in the list of nodes.
fn prepare() -> (Cluster, usize) {
    let cluster = Cluster::start(3, &PROPERTIES).unwrap();
    cluster.create_topic("t", 1, 3, &["min.insync.replicas=2"]).unwrap();
    cluster.await_in_sync("t", 3, PATIENCE).unwrap();
    let leader = usize::try_from(cluster.leader("t", 0).unwrap() - 1).unwrap();
    (cluster, leader)
}

/// Writes by way of whoever leads; gives when that was acknowledged.
fn write_elsewhere(cluster: &Cluster, asleep: usize, value: &str) -> Instant {
    eventually(PATIENCE, "another leads", || {
        for (at, node) in cluster.nodes.iter().enumerate() {
            if at == asleep {
                continue;
            }
            let Ok(mut connection) = Connection::open(&node.kafka(), Duration::from_secs(5)) else {
                continue;
            };
            if connection.produce("t", 0, -1, value).is_ok_and(|produced| produced.error == ErrorCode::None) {
                return Ok(Some(Instant::now()));
            }
        }
        Ok(None)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()))
}

fn values(cluster: &Cluster) -> BTreeSet<String> {
    let read = cluster.ottla(&["consume", "t", "--from", "beginning", "--exit-at-end", "--format", "%v\n"]);
    let read = read.unwrap().ok().unwrap().stdout;
    let values: BTreeSet<String> = read.lines().map(str::to_owned).collect();
    assert_eq!(values.len(), read.lines().count(), "something is there twice:\n{read}");
    values
}

/// S-R06, I44: a leader stands still for longer than its lease, with produce requests in its sockets. When it wakes up it refuses
/// them all, also those with acks=1: another has led meanwhile.
#[test]
fn s_r06_a_leader_that_slept_through_its_lease_acknowledges_nothing() {
    let (cluster, leader) = prepare();
    let mut connections: Vec<(i16, Connection)> = [1, -1, 1, -1]
        .into_iter()
        .map(|acks| (acks, Connection::open(&cluster.nodes[leader].kafka(), PATIENCE).unwrap()))
        .collect();
    for (at, (acks, connection)) in connections.iter_mut().enumerate() {
        let produced = connection.produce("t", 0, *acks, &format!("before-{at}")).unwrap();
        assert_eq!(produced.error, ErrorCode::None);
    }
    cluster.nodes[leader].pause().unwrap();
    for (at, (acks, connection)) in connections.iter_mut().enumerate() {
        for number in 0..5 {
            connection.send_produce("t", 0, *acks, &format!("asleep-{at}-{number}")).unwrap();
        }
    }
    let asleep = Instant::now();
    let other = write_elsewhere(&cluster, leader, "elsewhere");
    println!("another led after {:?}", other.duration_since(asleep));
    std::thread::sleep((LEASE + Duration::from_millis(500)).saturating_sub(asleep.elapsed()));
    cluster.nodes[leader].resume().unwrap();
    for (at, (acks, connection)) in connections.iter_mut().enumerate() {
        for number in 0..5 {
            // An answer that does not come (the connection is closed) acknowledges nothing either.
            let Ok(produced) = connection.receive_produced() else { break };
            assert_ne!(
                produced.error,
                ErrorCode::None,
                "asleep-{at}-{number} with acks={acks} was acknowledged after the lease\n{}",
                cluster.logs()
            );
        }
    }
    // It goes on being asked while it comes back. What it acknowledges then, it does so as a leader that all others follow.
    let mut acknowledged = Vec::new();
    let back = Instant::now();
    while back.elapsed() < Duration::from_secs(2) {
        let Ok(mut connection) = Connection::open(&cluster.nodes[leader].kafka(), PATIENCE) else { continue };
        for _ in 0..50 {
            let value = format!("back-{}", back.elapsed().as_micros());
            match connection.produce("t", 0, 1, &value) {
                Ok(produced) if produced.error == ErrorCode::None => acknowledged.push(value),
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    cluster.await_in_sync("t", 3, PATIENCE).unwrap();
    let values = values(&cluster);
    let lost: Vec<&String> = acknowledged.iter().filter(|value| !values.contains(*value)).collect();
    assert!(lost.is_empty(), "acknowledged when it came back, and lost: {lost:?}\n{}", cluster.logs());
    for at in 0..connections.len() {
        // With acks=1 what only the old leader had may be gone.
        assert!(at % 2 == 0 || values.contains(&format!("before-{at}")), "{values:?}");
    }
    assert!(
        values.contains("elsewhere") && !values.iter().any(|value| value.starts_with("asleep")),
        "{values:?}"
    );
}

/// S-R06, I44: what a leader had appended, and its followers had not fetched, when it fell asleep: waiting replies are no
/// acknowledgements when it wakes up, and the records are gone from everywhere.
#[test]
fn s_r06_what_waited_for_followers_is_not_acknowledged_after_the_lease() {
    let (cluster, leader) = prepare();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let mut connection = Connection::open(&cluster.nodes[leader].kafka(), PATIENCE).unwrap();
    assert_eq!(connection.produce("t", 0, -1, "before").unwrap().error, ErrorCode::None);
    for other in &others {
        cluster.nodes[*other].pause().unwrap();
    }
    // A fetch that waits at the leader is answered with the first record; whoever asks next sleeps.
    for number in 0..5 {
        connection.send_produce("t", 0, -1, &format!("waiting-{number}")).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.nodes[leader].pause().unwrap();
    for other in &others {
        cluster.nodes[*other].resume().unwrap();
    }
    write_elsewhere(&cluster, leader, "elsewhere");
    std::thread::sleep(LEASE);
    cluster.nodes[leader].resume().unwrap();
    let mut acknowledged = BTreeSet::from(["before".to_owned(), "elsewhere".to_owned()]);
    for number in 0..5 {
        let Ok(produced) = connection.receive_produced() else { break };
        if produced.error == ErrorCode::None {
            acknowledged.insert(format!("waiting-{number}"));
        }
    }
    cluster.await_in_sync("t", 3, PATIENCE).unwrap();
    let values = values(&cluster);
    assert!(
        acknowledged.is_subset(&values),
        "acknowledged {acknowledged:?}, there is {values:?}\n{}",
        cluster.logs()
    );
    assert!(acknowledged.len() < 7, "the followers had everything: nothing was tried");
}

/// S-R06 again and again, with verify and the lease of the defaults: each broker in turn sleeps for twice its lease.
#[test]
#[ignore = "long"]
fn s_r06_brokers_sleep_through_their_leases_in_turn() {
    let seed = from_environment("OTTLA_FAULT_SEED").unwrap_or_else(rand::random);
    let rounds = from_environment("OTTLA_FAULT_ROUNDS").unwrap_or(6);
    println!("OTTLA_FAULT_SEED={seed} OTTLA_FAULT_ROUNDS={rounds}");
    let cluster = Cluster::start(3, &[]).unwrap();
    let mut verify = Verify::start(&cluster, seed, &["--rate", "400"]).unwrap();
    for round in 0..rounds {
        let node = &cluster.nodes[usize::try_from(round % 3).unwrap()];
        node.pause().unwrap();
        let went_on = verify
            .await_writes(6, Duration::from_secs(16))
            .unwrap_or_else(|error| panic!("{error:#}\nkept in {}", verify.keep(&cluster)));
        std::thread::sleep(Duration::from_secs(18).saturating_sub(went_on));
        node.resume().unwrap();
        let in_sync = cluster
            .await_in_sync(&verify.topic, 3, PATIENCE)
            .unwrap_or_else(|error| panic!("{error:#}\nkept in {}", verify.keep(&cluster)));
        println!("node {} slept: written to after {went_on:?}; awake: in sync after {in_sync:?}", node.id);
    }
    verify.finish_held(&cluster, rounds * 300).unwrap_or_else(|error| panic!("{error:#}"));
}

/// S-C19, S-L17: a broker that stands still for a third of a second again and again is slow, and not dead: nobody fences it.
#[test]
#[ignore = "long"]
fn s_c19_a_broker_that_stumbles_is_not_fenced() {
    let seed = from_environment("OTTLA_FAULT_SEED").unwrap_or_else(rand::random);
    println!("OTTLA_FAULT_SEED={seed}");
    let cluster = Cluster::start(3, &[]).unwrap();
    let mut verify = Verify::start(&cluster, seed, &["--rate", "400"]).unwrap();
    let status = cluster.ottla(&["quorum", "status", "--output", "json"]).unwrap().json().unwrap();
    let leader = status["leader_id"].as_i64().unwrap();
    // The quorum's leader has a shorter patience of its own to keep.
    let stumbling = cluster.nodes.iter().find(|node| i64::from(node.id) != leader).unwrap();
    for _ in 0..40 {
        stumbling.pause().unwrap();
        std::thread::sleep(Duration::from_millis(330));
        stumbling.resume().unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    for _ in 0..3 {
        stumbling.pause().unwrap();
        std::thread::sleep(Duration::from_secs(5));
        stumbling.resume().unwrap();
        std::thread::sleep(Duration::from_secs(3));
    }
    verify
        .await_writes(6, Duration::from_secs(10))
        .unwrap_or_else(|error| panic!("{error:#}\nkept in {}", verify.keep(&cluster)));
    assert!(!cluster.logs().contains("it is fenced"), "kept in {}", verify.keep(&cluster));
    cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
    verify.finish_held(&cluster, 300).unwrap_or_else(|error| panic!("{error:#}"));
}
