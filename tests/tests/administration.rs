//! Partitions and brokers come and go by the command line, on real processes, and no record is lost.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::time::Duration;

use ottla_tests::{Cluster, eventually};
use serde_json::Value;

fn run(cluster: &Cluster, arguments: &[&str]) -> String {
    cluster.ottla(arguments).unwrap().ok().unwrap().stdout
}

fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--output", "json"]).collect();
    cluster.ottla(&arguments).unwrap().ok().unwrap().json().unwrap()
}

fn produce(cluster: &Cluster, prefix: &str) -> Vec<String> {
    let values: Vec<String> = (0..200).map(|n| format!("{prefix}-{n}")).collect();
    let input = values.join("\n") + "\n";
    cluster.ottla_with_input(&["produce", "t", "-"], input.as_bytes()).unwrap().ok().unwrap();
    values
}

fn values(cluster: &Cluster) -> Vec<String> {
    let read = run(cluster, &["consume", "t", "--from", "beginning", "--exit-at-end", "--format", "%v\n"]);
    let mut values: Vec<String> = read.lines().map(str::to_owned).collect();
    values.sort();
    values
}

fn holders(cluster: &Cluster) -> Vec<i64> {
    let partitions = json(cluster, &["partition", "list", "t"]);
    let replicas = partitions["partitions"].as_array().unwrap().iter();
    let replicas = replicas.flat_map(|partition| partition["replicas"].as_array().unwrap().clone());
    let mut ids: Vec<i64> = replicas.map(|id| id.as_i64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn sorted(one: i32, other: i32) -> [i64; 2] {
    [one.min(other).into(), one.max(other).into()]
}

/// Three brokers become two: what the third holds leaves it, and then it is forgotten.
#[test]
fn a_broker_is_drained_and_decommissioned() {
    let mut cluster = Cluster::start(3, &[("broker.session.timeout.ms", "3000")]).unwrap();
    cluster.create_topic("t", 6, 2, &[]).unwrap();
    let mut expected = produce(&cluster, "before");
    assert_eq!(holders(&cluster), [1, 2, 3]);
    run(&cluster, &["broker", "drain", "3", "--watch"]);
    assert_eq!(holders(&cluster), [1, 2]);
    let states = || {
        let list = json(&cluster, &["broker", "list"]);
        list["brokers"].as_array().unwrap().iter().map(|broker| broker["state"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(states(), ["running", "running", "cordoned"]);
    run(&cluster, &["broker", "undrain", "3"]);
    eventually(Duration::from_secs(10), "it takes replicas again", || {
        Ok((states()[2] == "running").then_some(()))
    })
    .unwrap();
    run(&cluster, &["broker", "drain", "3", "--watch"]);
    cluster.create_topic("later", 4, 2, &[]).unwrap();
    assert_eq!(json(&cluster, &["broker", "list"])["brokers"][2]["replicas"], 0, "nothing new comes to it");
    let refused = cluster.ottla(&["broker", "decommission", "3"]).unwrap();
    assert!(refused.stderr.contains("its node runs"), "{}", refused.stderr);
    cluster.node(3).unwrap().stop().unwrap();
    eventually(Duration::from_secs(30), "the broker is forgotten", || {
        Ok(cluster.ottla(&["broker", "decommission", "3"])?.ok().ok())
    })
    .unwrap();
    assert_eq!(json(&cluster, &["broker", "list"])["brokers"].as_array().unwrap().len(), 2);
    expected.extend(produce(&cluster, "after"));
    expected.sort();
    assert_eq!(values(&cluster), expected);
}

/// A partition goes where it is told to, leadership when it is told to, and a throttle leaves nothing behind.
#[test]
fn a_partition_moves_and_leadership_follows_on_request() {
    let cluster = Cluster::start(3, &[]).unwrap();
    cluster.create_topic("t", 1, 2, &[]).unwrap();
    let mut expected = produce(&cluster, "v");
    expected.sort();
    let old = cluster.leader("t", 0).unwrap();
    let new = (1..=3).find(|id| {
        let replicas = cluster.partition("t", 0).unwrap()["replicas"].as_array().unwrap().clone();
        !replicas.contains(&Value::from(*id))
    });
    let to = format!("{},{old}", new.unwrap());
    run(&cluster, &["partition", "move", "t", "--to", &to, "--throttle", "10MB", "--watch"]);
    assert_eq!(holders(&cluster), sorted(old, new.unwrap()));
    let configs = json(&cluster, &["topic", "describe", "t"])["topics"][0]["configs"].clone();
    assert_eq!(configs, serde_json::json!({}), "the throttle is lifted");
    run(&cluster, &["partition", "elect", "t:0"]);
    assert_eq!(Some(cluster.leader("t", 0).unwrap()), new);
    assert_eq!(values(&cluster), expected);
    let refused = cluster.ottla(&["partition", "move", "t:0", "--cancel"]).unwrap();
    assert!(refused.stderr.contains("no reassignment is in progress"), "{}", refused.stderr);
}

/// Features go down and up, and not where they cannot.
#[test]
fn features_change_by_command() {
    let cluster = Cluster::start(1, &[]).unwrap();
    let level = |name: &str| {
        let features = json(&cluster, &["feature", "list"]);
        let found = features["features"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned();
        found.unwrap()["level"].as_i64().unwrap()
    };
    let before = level("transaction.version");
    run(&cluster, &["feature", "downgrade", "transaction.version", "1", "--dry-run"]);
    assert_eq!(level("transaction.version"), before);
    run(&cluster, &["feature", "downgrade", "transaction.version", "1"]);
    assert_eq!(level("transaction.version"), 1);
    run(&cluster, &["feature", "upgrade", "transaction.version", "2"]);
    assert_eq!(level("transaction.version"), 2);
    assert!(cluster.ottla(&["feature", "upgrade", "transaction.version", "9"]).unwrap().ok().is_err());
    assert!(cluster.ottla(&["feature", "downgrade", "metadata.version", "7"]).unwrap().ok().is_err());
}
