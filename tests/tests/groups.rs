//! Groups by the command line against real processes: lag, resets, deletions, and a coordinator that dies.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::time::Duration;

use ottla_tests::{Cluster, eventually};
use serde_json::{Value, json};

fn run(cluster: &Cluster, line: &str) -> Value {
    let mut words: Vec<&str> = line.split(' ').collect();
    words.extend(["--output", "json"]);
    cluster.ottla(&words).unwrap().ok().unwrap().json().unwrap()
}

fn fails(cluster: &Cluster, line: &str, why: &str) {
    let output = cluster.ottla(&line.split(' ').collect::<Vec<_>>()).unwrap();
    assert!(output.stderr.contains(why), "{line}: {}", output.stderr);
    assert!(output.ok().is_err(), "{line}");
}

fn produce(cluster: &Cluster, topic: &str, count: usize) {
    let input = (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    cluster.ottla_with_input(&["produce", topic, "-"], input.as_bytes()).unwrap().ok().unwrap();
}

/// Reads as the only member of a group.
fn consume(cluster: &Cluster, topic: &str, count: usize) -> Vec<usize> {
    let count = count.to_string();
    let read = cluster.ottla(&["consume", topic, "--group", "g", "--count", &count]).unwrap().ok().unwrap();
    read.stdout.lines().map(|line| line.parse().unwrap()).collect()
}

fn lag(cluster: &Cluster) -> i64 {
    run(cluster, "group describe g")["groups"][0]["lag"].as_i64().unwrap()
}

#[test]
fn a_group_is_described_reset_and_deleted() {
    let cluster = Cluster::start(1, &[]).unwrap();
    cluster.create_topic("t", 1, 1, &[]).unwrap();
    cluster.create_topic("gone", 1, 1, &[]).unwrap();
    produce(&cluster, "t", 20);
    produce(&cluster, "gone", 5);
    assert_eq!(consume(&cluster, "t", 8), (0..8).collect::<Vec<_>>());
    assert_eq!(consume(&cluster, "gone", 5).len(), 5);
    let listed = run(&cluster, "group list --state empty --type classic");
    assert_eq!(listed["groups"][0]["group"], "g");
    assert_eq!(lag(&cluster), 12);
    let planned = run(&cluster, "group reset g --topic t:0 --shift -3");
    let change = json!({ "topic": "t", "partition": 0, "from": 8, "to": 5, "lag": 15 });
    assert_eq!((&planned["executed"], &planned["partitions"][0]), (&json!(false), &change));
    assert_eq!(lag(&cluster), 12, "a plan changes nothing");
    run(&cluster, "group reset g --topic t:0 --shift -3 --execute");
    assert_eq!(consume(&cluster, "t", 2), [5, 6]);
    run(&cluster, "topic delete gone --yes");
    eventually(Duration::from_secs(20), "offsets of the deleted topic are forgotten", || {
        let described = run(&cluster, "group describe g");
        Ok((described["groups"][0]["partitions"].as_array().map(Vec::len) == Some(1)).then_some(()))
    })
    .unwrap();
    fails(&cluster, "group reset g --topic t:7 --to latest", "no partition 7");
    fails(&cluster, "group describe nobody", "does not exist");
    run(&cluster, "group delete-offsets g --topic t --yes");
    // The group had nothing else: with its last offset it may be gone itself.
    let left = run(&cluster, "group list g");
    if left["groups"].as_array().is_some_and(|groups| !groups.is_empty()) {
        run(&cluster, "group delete g --yes");
    }
    fails(&cluster, "group delete g --yes", "does not exist");
}

#[test]
fn a_group_goes_on_where_it_was_when_its_coordinator_dies() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    cluster.create_topic("t", 1, 3, &["min.insync.replicas=2"]).unwrap();
    produce(&cluster, "t", 60);
    let mut read = consume(&cluster, "t", 20);
    let described = run(&cluster, "group describe g");
    let coordinator = described["groups"][0]["coordinator"].as_str().unwrap().to_owned();
    let brokers = run(&cluster, "broker list");
    let port = coordinator.rsplit(':').next().unwrap().parse::<i64>().unwrap();
    let is_it = |broker: &&Value| broker.to_string().contains(&port.to_string());
    let id = brokers["brokers"].as_array().unwrap().iter().find(is_it).unwrap()["id"].as_i64().unwrap();
    cluster.node(i32::try_from(id).unwrap()).unwrap().kill().unwrap();
    read.extend(consume(&cluster, "t", 20));
    cluster.node(i32::try_from(id).unwrap()).unwrap().start().unwrap();
    cluster.await_brokers(3).unwrap();
    read.extend(consume(&cluster, "t", 20));
    assert_eq!(read, (0..60).collect::<Vec<_>>());
    assert_eq!(lag(&cluster), 0);
}
