//! Wall clocks that differ and that jump, under `ottla verify`: leases, elections and time limits are on clocks that only go on.
//! The clocks are moved by the library of `Shim`; no rights are needed. The long ones:
//!
//!     cargo build --bin ottla
//!     cargo test -p ottla-tests --test fault_clocks -- --ignored --nocapture --test-threads 1

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::time::Duration;

use ottla_tests::{Cluster, Knob, Shim, Verify, from_environment};

const PATIENCE: Duration = Duration::from_secs(60);
const WRITES_LIMIT: Duration = Duration::from_secs(10);
const PARTITIONS: u64 = 6;
const HOUR_MS: i64 = 3_600_000;

/// Three nodes; the wall clocks of the first two are an hour behind and an hour ahead.
fn skewed(properties: &[(&str, &str)]) -> (Cluster, Vec<Shim>) {
    let mut cluster = Cluster::prepare(3, properties).unwrap();
    let mut shims = Vec::new();
    for (node, offset_ms) in cluster.nodes.iter_mut().zip([-HOUR_MS, HOUR_MS, 0]) {
        let data = node.data_directory();
        let shim = Shim::install(node, &data).unwrap();
        shim.set(Knob::WallOffsetMs, offset_ms).unwrap();
        node.start().unwrap();
        shims.push(shim);
    }
    cluster.await_brokers(3).unwrap();
    for shim in &shims {
        shim.assert_loaded().unwrap();
    }
    (cluster, shims)
}

/// A topic for verify that takes records of any time: with Kafka's default those of an hour later than the broker's clock are
/// refused, which is right.
fn topic(cluster: &Cluster, seed: u64) {
    let any_time = format!("message.timestamp.after.max.ms={}", i64::MAX);
    cluster
        .create_topic(&format!("ottla-verify-{seed}"), 6, 3, &["min.insync.replicas=2", &any_time])
        .unwrap();
}

fn term(cluster: &Cluster) -> u64 {
    let status =
        cluster.ottla(&["quorum", "status", "--output", "json"]).unwrap().ok().unwrap().json().unwrap();
    status["leader_epoch"].as_u64().unwrap_or_else(|| panic!("no leader_epoch in {status}"))
}

fn run(extra: &[&str], properties: &[(&str, &str)], jumps: &[[i64; 3]], pause: Duration) {
    let seed = from_environment("OTTLA_FAULT_SEED").unwrap_or_else(rand::random);
    println!("OTTLA_FAULT_SEED={seed}");
    let (cluster, shims) = skewed(properties);
    topic(&cluster, seed);
    let mut verify = Verify::start(&cluster, seed, extra).unwrap();
    cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
    let before = term(&cluster);
    for offsets in jumps {
        for (shim, offset) in shims.iter().zip(offsets) {
            shim.set(Knob::WallOffsetMs, *offset).unwrap();
        }
        std::thread::sleep(pause);
    }
    let went_on = verify
        .await_writes(PARTITIONS, WRITES_LIMIT)
        .unwrap_or_else(|error| panic!("{error:#}\nkept in {}", verify.keep(&cluster)));
    println!("every partition was written to {went_on:?} after the last jump");
    cluster.await_in_sync(&verify.topic, 3, PATIENCE).unwrap();
    let after = term(&cluster);
    let log = cluster.logs();
    assert!(
        !log.contains("it is fenced"),
        "a jump of the clock fenced a broker: kept in {}",
        verify.keep(&cluster)
    );
    assert_eq!(before, after, "a jump of the clock began an election: kept in {}", verify.keep(&cluster));
    verify.finish_held(&cluster, 50).unwrap_or_else(|error| panic!("{error:#}"));
}

/// S-C20: clocks that are two hours apart, and each jumps by up to two hours, ahead and back.
#[test]
fn s_c20_clocks_that_are_hours_apart_and_jump_fence_nobody() {
    let jumps = [[HOUR_MS, -HOUR_MS, HOUR_MS], [-HOUR_MS, HOUR_MS, -HOUR_MS], [0, 0, 0]];
    run(&["--rate", "200"], &[], &jumps, Duration::from_millis(400));
}

/// S-C20: clocks that jump by an hour five times a second, for longer than a lease.
#[test]
#[ignore = "long"]
fn s_c20_clocks_that_strobe_fence_nobody() {
    let jumps: Vec<[i64; 3]> =
        [[HOUR_MS, 0, -HOUR_MS], [-HOUR_MS, HOUR_MS, 0], [0, -HOUR_MS, HOUR_MS]].repeat(30);
    run(&["--rate", "400"], &[], &jumps, Duration::from_millis(200));
}

/// S-C20 with transactions: a jump ahead may end those that are open, as their time is over; none is torn.
#[test]
#[ignore = "long"]
fn s_c20_clocks_that_jump_tear_no_transaction() {
    let properties =
        [("transaction.state.log.num.partitions", "3"), ("transaction.state.log.replication.factor", "3")];
    let jumps: Vec<[i64; 3]> = [[HOUR_MS, 0, -HOUR_MS], [0, 0, 0]].repeat(8);
    run(&["--transactions", "--rate", "100"], &properties, &jumps, Duration::from_secs(2));
}
