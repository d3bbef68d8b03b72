//! Long runs of faults on real processes. They are ignored by default: `cargo test --release -p ottla-tests --test faults --
//! --ignored --nocapture --test-threads 1`. `the_file_…` needs kcat.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ottla_tests::{Cluster, eventually};

/// How often a thing is done: `OTTLA_FAULT_ROUNDS`, or the default of the test.
fn rounds(default: usize) -> usize {
    std::env::var("OTTLA_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// S-L01: a hundred starts and kills in a row on one data directory, each with acknowledged records before it.
#[test]
#[ignore = "long"]
fn a_hundred_kills_in_a_row_lose_nothing() {
    let mut cluster = Cluster::start(1, &[]).unwrap();
    cluster.create_topic("t", 1, 1, &[]).unwrap();
    let mut expected = Vec::new();
    for round in 0..rounds(100) {
        let values: Vec<String> = (0..20).map(|n| format!("round{round}-{n}")).collect();
        cluster
            .ottla_with_input(&["produce", "t", "-"], (values.join("\n") + "\n").as_bytes())
            .unwrap()
            .ok()
            .unwrap();
        expected.extend(values);
        cluster.nodes[0].kill().unwrap();
        let began = Instant::now();
        cluster.nodes[0].start().unwrap();
        cluster.await_brokers(1).unwrap();
        println!("round {round}: up after {:?}", began.elapsed());
    }
    let read = cluster
        .ottla(&["consume", "t", "--from", "beginning", "--exit-at-end", "--format", "%v\n"])
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(read.stdout.lines().collect::<Vec<_>>(), expected);
}

/// I70: a topic whose creation was acknowledged is there, whatever happens to the Raft leader.
#[test]
#[ignore = "long"]
fn topics_that_were_acknowledged_outlive_the_raft_leader() {
    let mut cluster = Cluster::start(3, &[]).unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut refused = 0;
    for round in 0..rounds(50) {
        let leader = eventually(Duration::from_secs(30), "a Raft leader", || {
            let quorum = cluster.ottla(&["quorum", "status", "--output", "json"])?;
            Ok(quorum.json().ok().and_then(|json| json["leader_id"].as_i64()).filter(|id| *id >= 0))
        })
        .unwrap();
        // Creations run while the leader dies.
        let creators: Vec<(String, Child)> = (0..8)
            .map(|n| {
                let name = format!("topic-{round}-{n}");
                let child = Command::new(ottla_tests::binary())
                    .args(["--server", &cluster.server(), "topic", "create", &name, "--partitions", "3"])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                (name, child)
            })
            .collect();
        std::thread::sleep(Duration::from_millis(u64::try_from(round).unwrap() * 7 % 60));
        let dead = cluster.node(i32::try_from(leader).unwrap()).unwrap();
        dead.kill().unwrap();
        for (name, mut child) in creators {
            if child.wait().unwrap().success() {
                acknowledged.insert(name);
            } else {
                refused += 1;
            }
        }
        cluster.node(i32::try_from(leader).unwrap()).unwrap().start().unwrap();
        cluster.await_brokers(3).unwrap();
    }
    let listed = cluster.ottla(&["topic", "list", "--output", "json"]).unwrap().ok().unwrap();
    println!("{} creations acknowledged, {refused} not", acknowledged.len());
    let missing: Vec<&String> =
        acknowledged.iter().filter(|name| !listed.stdout.contains(&format!("\"{name}\""))).collect();
    assert!(missing.is_empty(), "acknowledged and missing: {missing:?}\n{}", logs(&cluster));
    assert!(acknowledged.len() >= rounds(50), "{} acknowledged, {refused} not", acknowledged.len());
}

const PARTITIONS: usize = 6;

/// Writes keyed lines, `key:number of the line in its key:text`, of about `bytes` in all.
fn write_lines(path: &Path, bytes: usize) -> Vec<String> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut lines = Vec::new();
    let mut written = 0;
    let mut counts = BTreeMap::new();
    let words = ["log", "segment", "index", "epoch", "leader", "follower", "quorum", "record"];
    while written < bytes {
        let number = lines.len();
        let key = format!("key{}", number % 997);
        let count: &mut usize = counts.entry(key.clone()).or_default();
        let text: String = (0..18).map(|at| words[(number / 7 + at * number) % words.len()]).collect();
        let line = format!("{key}:{count:06}:{text}");
        *count += 1;
        written += line.len() + 1;
        writeln!(file, "{line}").unwrap();
        lines.push(line);
    }
    file.flush().unwrap();
    lines
}

fn logs(cluster: &Cluster) -> String {
    let of = |node: &ottla_tests::Node| format!("--- {}\n{}", node.kafka(), node.log());
    cluster.nodes.iter().map(of).collect()
}

/// kcat, fed with the file in a steady stream, so that it is at work while brokers die.
fn kcat_produce(cluster: &Cluster, path: &Path, is_idempotent: bool) -> Child {
    let mut kcat = Command::new("kcat")
        .args(["-b", &cluster.bootstrap(), "-P", "-t", "t", "-K", ":"])
        .args(["-X", "acks=all", "-X", "message.timeout.ms=300000", "-X", "queue.buffering.max.kbytes=65536"])
        .args(["-X", &format!("enable.idempotence={is_idempotent}"), "-X", "linger.ms=5"])
        .args(["-X", "topic.metadata.refresh.interval.ms=2000", "-X", "reconnect.backoff.max.ms=500"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut input = kcat.stdin.take().unwrap();
    let mut file = std::fs::File::open(path).unwrap();
    std::thread::spawn(move || {
        let mut chunk = vec![0; 500_000];
        loop {
            let length = std::io::Read::read(&mut file, &mut chunk).unwrap();
            // kcat that has given up closes its end: the test sees that by its exit code.
            if length == 0 || input.write_all(&chunk[..length]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    kcat
}

fn kcat_consume(cluster: &Cluster, partition: usize) -> Vec<String> {
    let read = Command::new("kcat")
        .args(["-b", &cluster.bootstrap(), "-C", "-t", "t", "-p", &partition.to_string()])
        .args(["-o", "beginning", "-e", "-q", "-f", "%k:%s\n"])
        .output()
        .unwrap();
    assert!(read.status.success());
    String::from_utf8(read.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// I38 and I41 with a foreign client: 100 MB by kcat with keys, acks=all, while one broker after another is killed and
/// restarted; every line comes out in the order of its key, once.
#[test]
#[ignore = "long; needs kcat"]
fn the_file_that_goes_in_comes_out_while_brokers_die() {
    let megabytes: usize =
        std::env::var("OTTLA_FAULT_MEGABYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let mut cluster = Cluster::start(3, &[]).unwrap();
    cluster.create_topic("t", 6, 3, &["min.insync.replicas=2"]).unwrap();
    let path = cluster.directory().join("lines.txt");
    let lines = write_lines(&path, megabytes * 1_000_000);
    let began = Instant::now();
    let mut producer = kcat_produce(&cluster, &path, true);
    let mut kills = 0;
    let mut next = 0;
    while producer.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(400), "kcat does not come to its end");
        // kcat gives up when no broker is connected: it gets the time to come back to the one that died before.
        std::thread::sleep(Duration::from_millis(1_500));
        cluster.nodes[next % 3].kill().unwrap();
        kills += 1;
        std::thread::sleep(Duration::from_millis(300));
        cluster.nodes[next % 3].start().unwrap();
        cluster.await_brokers(3).unwrap();
        // One broker after another: the next dies when every replica is in sync again.
        let mut behind = String::new();
        eventually(Duration::from_secs(60), "every replica is in sync", || {
            for partition in 0..PARTITIONS {
                let state = cluster.partition("t", partition)?;
                if state["isr"].as_array().map(Vec::len) != Some(3) {
                    behind = state.to_string();
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .unwrap_or_else(|error| panic!("{error}: {behind}\n{}", logs(&cluster)));
        next += 1;
    }
    assert!(producer.wait().unwrap().success());
    println!("{} lines in {:?} through {kills} kills", lines.len(), began.elapsed());
    assert!(kills >= 2, "the file was in before a broker could die");
    let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in &lines {
        by_key.entry(line.split_once(':').unwrap().0).or_default().push(line);
    }
    let mut found = 0;
    for partition in 0..PARTITIONS {
        let mut read: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in kcat_consume(&cluster, partition) {
            read.entry(line.split_once(':').unwrap().0.to_owned()).or_default().push(line);
        }
        for (key, values) in read {
            assert_eq!(values, by_key[key.as_str()], "{key} in partition {partition}");
            found += values.len();
        }
    }
    assert_eq!(found, lines.len());
}
