//! Real `ottla server` processes, killed and restarted.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::collections::BTreeSet;
use std::time::Duration;

use ottla_tests::{Cluster, eventually, ottla};

/// Values of a topic as `ottla consume` prints them.
fn values(cluster: &Cluster, topic: &str) -> Vec<String> {
    let read = cluster
        .ottla(&["consume", topic, "--from", "beginning", "--exit-at-end", "--format", "%v\n"])
        .unwrap()
        .ok()
        .unwrap();
    read.stdout.lines().map(str::to_owned).collect()
}

fn produce(cluster: &Cluster, topic: &str, prefix: &str, count: usize) -> Vec<String> {
    let values: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
    let input = values.join("\n") + "\n";
    cluster.ottla_with_input(&["produce", topic, "-"], input.as_bytes()).unwrap().ok().unwrap();
    values
}

/// S-L01, in small: what was acknowledged is there after a kill -9, whatever was under way.
#[test]
fn one_node_keeps_what_it_acknowledged_through_kills() {
    let mut cluster = Cluster::start(1, &[]).unwrap();
    cluster.create_topic("t", 1, 1, &[]).unwrap();
    let mut expected = Vec::new();
    for round in 0..10 {
        expected.extend(produce(&cluster, "t", &format!("round{round}"), 50));
        cluster.nodes[0].kill().unwrap();
        cluster.nodes[0].start().unwrap();
        cluster.await_brokers(1).unwrap();
    }
    assert_eq!(values(&cluster, "t"), expected);
}

/// I38, I39: with acks=all and two in-sync replicas the death of the leader loses nothing, and it comes back into the ISR.
#[test]
fn three_nodes_keep_everything_when_the_leader_dies() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    cluster.create_topic("t", 1, 3, &["min.insync.replicas=2"]).unwrap();
    let mut expected = produce(&cluster, "t", "before", 100);
    let dead = cluster.leader("t", 0).unwrap();
    cluster.node(dead).unwrap().kill().unwrap();
    eventually(Duration::from_secs(20), "another broker leads", || {
        let leader = cluster.leader("t", 0)?;
        Ok((leader >= 0 && leader != dead).then_some(()))
    })
    .unwrap();
    expected.extend(produce(&cluster, "t", "after", 100));
    assert_eq!(values(&cluster, "t"), expected);
    cluster.node(dead).unwrap().start().unwrap();
    eventually(Duration::from_secs(40), "the ISR is whole again", || {
        let isr: BTreeSet<i64> = cluster.partition("t", 0)?["isr"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_i64)
            .collect();
        Ok((isr.len() == 3).then_some(()))
    })
    .unwrap();
}

/// A controller that lost its quorum fences nobody: whoever lives when the quorum is back goes on leading. (It once wrote
/// "fenced" for the broker beside it while alone, and the quorum committed that afterwards.)
#[test]
fn the_survivor_of_a_lost_quorum_goes_on_leading() {
    let mut cluster = Cluster::start(3, &[("broker.session.timeout.ms", "3000")]).unwrap();
    for survivor in 1..=3_i32 {
        let topic = format!("t{survivor}");
        let order: Vec<String> = (0..3).map(|n| ((survivor - 1 + n) % 3 + 1).to_string()).collect();
        cluster
            .ottla(&[
                "topic",
                "create",
                &topic,
                "--assign",
                &order.join(":"),
                "--config",
                "min.insync.replicas=2",
            ])
            .unwrap()
            .ok()
            .unwrap();
        let before = produce(&cluster, &topic, "before", 3);
        let epoch = cluster.partition(&topic, 0).unwrap()["leader_epoch"].clone();
        let others: Vec<i32> = (1..=3).filter(|id| *id != survivor).collect();
        for id in &others {
            cluster.node(*id).unwrap().kill().unwrap();
        }
        std::thread::sleep(Duration::from_secs(2));
        for id in &others {
            cluster.node(*id).unwrap().start().unwrap();
        }
        cluster.await_brokers(3).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let now = cluster.partition(&topic, 0).unwrap();
        assert_eq!(
            (&now["leader"], &now["leader_epoch"]),
            (&survivor.into(), &epoch),
            "{now}\n{}",
            cluster.nodes.iter().map(ottla_tests::Node::log).collect::<String>()
        );
        assert_eq!(values(&cluster, &topic), before);
    }
}

/// S-R23, in small: a node that is told to stop gives its leadership away first and ends well.
#[test]
fn a_node_that_is_told_to_stop_hands_over_and_ends_well() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    cluster.create_topic("t", 3, 3, &["min.insync.replicas=2"]).unwrap();
    let expected = produce(&cluster, "t", "x", 30);
    let status = cluster.nodes[0].stop().unwrap();
    assert_eq!(status.code(), Some(0), "{}", cluster.nodes[0].log());
    for partition in 0..3 {
        assert_ne!(cluster.leader("t", partition).unwrap(), 1);
    }
    let mut found = values(&cluster, "t");
    found.sort();
    let mut expected = expected;
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_directory_in_use_is_refused_and_its_owner_named() {
    let mut cluster = Cluster::start(1, &[]).unwrap();
    let file = cluster.nodes[0].directory().join("server.properties");
    let other = [
        "--set",
        "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
        "--set",
        "ottla.http.listener=",
    ];
    let mut arguments = vec!["server", "--config", file.to_str().unwrap()];
    arguments.extend(other);
    let refused = ottla(&arguments, b"").unwrap();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("in use") || refused.stderr.contains("lock"), "{}", refused.stderr);
    assert!(cluster.nodes[0].is_running());
}
