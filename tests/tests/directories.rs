//! Several `log.dirs` of real processes (KIP-112, KIP-113, KIP-858, KIP-1066): replicas that move while they are written to,
//! directories that take nothing new, and one that fails.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use ottla_tests::{Cluster, call_once, eventually};
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::produce_request::{PartitionData, TopicData};
use ottla_wire::messages::{
    AlterReplicaLogDirsRequest, DescribeLogDirsRequest, DescribeLogDirsResponse, ProduceRequest, Request,
    alter_replica_log_dirs_request as alter, describe_log_dirs_request as describe,
};
use ottla_wire::records::{BatchBuilder, BatchOptions};

/// A cluster may take this long to be over a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request and its answer, on a connection of its own.
fn call<R: Request>(address: &str, version: i16, request: &R) -> Result<R::Response> {
    call_once(address, Duration::from_secs(10), version, request)
}

fn described(address: &str, version: i16, topics: Option<&[&str]>) -> Result<DescribeLogDirsResponse> {
    let topic = |name: &&str| describe::Topic { topic: (*name).into(), partitions: (0..12).collect() };
    let topics = topics.map(|names| names.iter().map(topic).collect());
    call(address, version, &DescribeLogDirsRequest { topics })
}

/// Where the replicas of a topic lie on a node: partition, directory, whether it is a copy that is being made.
fn places(address: &str, topic: &str) -> Result<Vec<(i32, PathBuf, bool)>> {
    let answer = described(address, 5, Some(&[topic]))?;
    let mut places = Vec::new();
    for directory in &answer.results {
        for partition in directory.topics.iter().flat_map(|topic| &topic.partitions) {
            let path = PathBuf::from(directory.log_dir.to_string());
            places.push((partition.partition_index, path, partition.is_future_key));
        }
    }
    places.sort();
    Ok(places)
}

/// Asks to move the first partition of a topic.
fn moved(address: &str, topic: &str, to: &Path) -> ErrorCode {
    let topics = vec![alter::Topic { name: topic.into(), partitions: vec![0] }];
    let dirs = vec![alter::Dir { path: to.display().to_string().into(), topics }];
    let answer = call(address, 2, &AlterReplicaLogDirsRequest { dirs }).unwrap();
    ErrorCode::from_code(answer.results[0].partitions[0].error_code)
}

fn produce(address: &str, topic: &str, partition: i32, value: &[u8]) -> Result<ErrorCode> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.add(1, None, Some(value), &[])?;
    let data = PartitionData { index: partition, records: Some(Records::Bytes(builder.finish()?)) };
    let topic_data = vec![TopicData { name: topic.into(), partition_data: vec![data], ..Default::default() }];
    let request = ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 5_000, topic_data };
    let answer = call(address, 9, &request)?;
    Ok(ErrorCode::from_code(answer.responses[0].partition_responses[0].error_code))
}

/// The values of a topic's records, in the order they are read.
fn values(cluster: &Cluster, topic: &str) -> Vec<String> {
    let read = cluster.ottla(&["consume", topic, "--from", "beginning", "--exit-at-end", "--format", "%v\n"]);
    read.unwrap().ok().unwrap().stdout.lines().map(str::to_owned).collect()
}

fn count(cluster: &Cluster, topic: &str) -> usize {
    values(cluster, topic).len()
}

/// A cluster of which every node has two log directories, and the metadata a place of its own; not started.
fn prepared(nodes: usize) -> (Cluster, Vec<[PathBuf; 2]>) {
    let cluster = Cluster::prepare(nodes, &[]).unwrap();
    let mut directories = Vec::new();
    for node in &cluster.nodes {
        let own = ["a", "b"].map(|name| node.directory().join(name));
        cluster
            .rewrite(
                node.id,
                &[
                    ("log.dirs", &format!("{},{}", own[0].display(), own[1].display())),
                    ("metadata.log.dir", &node.directory().join("metadata").display().to_string()),
                    ("replica.high.watermark.checkpoint.interval.ms", "500"),
                ],
            )
            .unwrap();
        directories.push(own);
    }
    (cluster, directories)
}

fn start(cluster: &mut Cluster) {
    let count = cluster.nodes.len();
    for node in &mut cluster.nodes {
        node.start().unwrap();
    }
    cluster.await_brokers(count).unwrap();
}

#[test]
fn a_replica_moves_while_it_is_written_to_and_not_where_nothing_new_may_go() {
    let (mut cluster, directories) = prepared(1);
    start(&mut cluster);
    let [first, second] = &directories[0];
    let address = cluster.nodes[0].kafka();
    cluster.create_topic("orders", 1, 1, &[]).unwrap();
    let (written, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(produce(&address, "orders", 0, &vec![7; 20_000]).unwrap(), ErrorCode::None);
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..4 {
            let place = places(&address, "orders").unwrap();
            let target = if place[0].1 == *first { second } else { first };
            let before = written.load(Ordering::Relaxed);
            assert_eq!(moved(&address, "orders", target), ErrorCode::None);
            eventually(PATIENCE, "the replica is in the other directory", || {
                Ok((places(&address, "orders")? == [(0, target.clone(), false)]).then_some(()))
            })
            .unwrap();
            eventually(PATIENCE, "records go on", || {
                Ok((written.load(Ordering::Relaxed) > before + 20).then_some(()))
            })
            .unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(count(&cluster, "orders"), written.load(Ordering::Relaxed));

    // --- a directory that takes nothing new ---
    let own = places(&address, "orders").unwrap()[0].1.clone();
    let other = if own == *first { second } else { first };
    let cordon = format!("cordoned.log.dirs={}", other.display());
    cluster.ottla(&["config", "set", &cordon, "--broker", "1"]).unwrap().ok().unwrap();
    eventually(PATIENCE, "it is shown as cordoned", || {
        let answer = described(&address, 5, None)?;
        let mut shown = answer.results.iter();
        Ok(shown
            .all(|dir| dir.is_cordoned == (Path::new(dir.log_dir.as_str()) == other.as_path()))
            .then_some(()))
    })
    .unwrap();
    assert_eq!(moved(&address, "orders", other), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(moved(&address, "orders", &own), ErrorCode::None, "where it is it may stay");
    cluster.create_topic("new", 6, 1, &[]).unwrap();
    assert!(places(&address, "new").unwrap().iter().all(|(_, path, _)| *path == own));
    let unknown = ["config", "set", "cordoned.log.dirs=/no/such", "--broker", "1"];
    let refused = cluster.ottla(&unknown).unwrap().ok().unwrap_err().to_string();
    assert!(refused.contains("/no/such is none of log.dirs"), "{refused}");
    cluster.ottla(&["config", "unset", "cordoned.log.dirs", "--broker", "1"]).unwrap().ok().unwrap();
    eventually(PATIENCE, "it takes replicas again", || {
        Ok((moved(&address, "orders", other) == ErrorCode::None).then_some(()))
    })
    .unwrap();
    assert_eq!(moved(&address, "orders", Path::new("/no/such")), ErrorCode::LogDirNotFound);
    assert_eq!(moved(&address, "nothing", other), ErrorCode::ReplicaNotAvailable);

    // --- a kill in the middle of it ---
    cluster.nodes[0].kill().unwrap();
    start(&mut cluster);
    assert_eq!(count(&cluster, "orders"), written.load(Ordering::Relaxed));
    eventually(PATIENCE, "the move goes on, or is over", || {
        let place = places(&address, "orders")?;
        Ok((place.len() == 1 && !place[0].2).then_some(()))
    })
    .unwrap();
    assert_eq!(count(&cluster, "orders"), written.load(Ordering::Relaxed));

    // --- every version ---
    for version in 1..=5 {
        let answer = described(&address, version, None).unwrap();
        assert_eq!(answer.results.len(), 2, "version {version}");
        let topics: Vec<_> = answer.results.iter().flat_map(|dir| &dir.topics).collect();
        assert!(topics.iter().any(|topic| topic.name == "orders"), "version {version}: {topics:?}");
        let total = if version < 4 { -1 } else { answer.results[0].total_bytes };
        assert!(answer.results.iter().all(|dir| dir.total_bytes == total && dir.error_code == 0));
        assert!(version < 4 || total > 0, "version {version}");
    }
}

/// Whether every record is there that was acknowledged. One that was written but not acknowledged in time may be there twice.
fn assert_all(cluster: &Cluster, topic: &str, partitions: i32, what: &[&str]) {
    let found: BTreeSet<String> = values(cluster, topic).into_iter().collect();
    let expected =
        (0..partitions).flat_map(|partition| what.iter().map(move |one| format!("{one} {partition}")));
    assert_eq!(found, expected.collect());
}

/// Writes to every partition until each has taken a record.
fn produce_to_all(cluster: &Cluster, topic: &str, partitions: i32, what: &str) {
    for partition in 0..partitions {
        eventually(PATIENCE, "a leader takes the record", || {
            let leader = cluster.leader(topic, usize::try_from(partition)?)?;
            let node = cluster.nodes.iter().find(|node| node.id == leader);
            let Some(node) = node else { return Ok(None) };
            let code = produce(&node.kafka(), topic, partition, format!("{what} {partition}").as_bytes())?;
            Ok((code == ErrorCode::None).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn a_directory_that_fails_takes_its_own_partitions_offline_and_no_others() {
    const PARTITIONS: i32 = 6;
    let (mut cluster, directories) = prepared(3);
    start(&mut cluster);
    cluster.create_topic("orders", 6, 3, &["min.insync.replicas=2"]).unwrap();
    produce_to_all(&cluster, "orders", PARTITIONS, "before");
    let address = cluster.nodes[0].kafka();
    let [good, bad] = directories[0].clone();
    let before = places(&address, "orders").unwrap();
    let lost: Vec<i32> = before.iter().filter(|place| place.1 == bad).map(|place| place.0).collect();
    assert_eq!((before.len(), lost.len()), (6, 3), "{before:?}");

    // A file in the directory's place: nothing in it can be opened, created or renamed any more.
    let aside = bad.with_extension("aside");
    std::fs::rename(&bad, &aside).unwrap();
    std::fs::write(&bad, b"").unwrap();
    produce_to_all(&cluster, "orders", PARTITIONS, "meanwhile");
    let is_in = |partition: &serde_json::Value, field: &str, id: i64| {
        partition[field].as_array().is_some_and(|ids| ids.iter().any(|one| one.as_i64() == Some(id)))
    };
    eventually(PATIENCE, "its partitions are led and in sync elsewhere", || {
        for partition in 0..PARTITIONS {
            let shown = cluster.partition("orders", usize::try_from(partition)?)?;
            let is_lost = lost.contains(&partition);
            let is_led_here = shown["leader"].as_i64() == Some(1);
            ensure!(!(is_lost && is_led_here), "{partition} is led from the failed directory");
            if is_in(&shown, "isr", 1) == is_lost {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .unwrap();
    produce_to_all(&cluster, "orders", PARTITIONS, "without");
    assert_all(&cluster, "orders", PARTITIONS, &["before", "meanwhile", "without"]);
    assert!(cluster.nodes[0].is_running());
    let shown = described(&address, 5, None).unwrap();
    for directory in &shown.results {
        let is_bad = Path::new(directory.log_dir.as_str()) == bad;
        assert_eq!(ErrorCode::from_code(directory.error_code) == ErrorCode::KafkaStorageError, is_bad);
        assert_eq!(directory.topics.is_empty(), is_bad);
    }
    assert_eq!(moved(&address, "orders", &bad), ErrorCode::KafkaStorageError);
    let place = places(&address, "orders").unwrap();
    assert!(place.len() == 3 && place.iter().all(|place| place.1 == good), "{place:?}");

    // It stays so over a restart, and nothing is made anew in the good one.
    cluster.nodes[0].stop().unwrap();
    start_one(&mut cluster);
    let address = cluster.nodes[0].kafka();
    produce_to_all(&cluster, "orders", PARTITIONS, "still");
    assert_eq!(places(&address, "orders").unwrap().len(), 3);
    let shown = described(&address, 5, None).unwrap();
    let codes: Vec<_> = shown
        .results
        .iter()
        .map(|dir| (PathBuf::from(dir.log_dir.to_string()), ErrorCode::from_code(dir.error_code)))
        .collect();
    assert!(codes.contains(&(bad.clone(), ErrorCode::KafkaStorageError)), "{codes:?}");
    assert_eq!(codes.len(), 2, "{codes:?}");
    let metrics = http_get(&format!("127.0.0.1:{}", cluster.nodes[0].http_port), "/metrics");
    let line = metrics.lines().find(|line| {
        line.contains("log_directory_offline{") && line.contains(&format!("\"{}\"", bad.display()))
    });
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{line:?}");

    // The disk is back: the replicas catch up where they were.
    cluster.nodes[0].stop().unwrap();
    std::fs::remove_file(&bad).unwrap();
    std::fs::rename(&aside, &bad).unwrap();
    start_one(&mut cluster);
    eventually(PATIENCE, "everything is in sync again", || {
        for partition in 0..PARTITIONS {
            if !is_in(&cluster.partition("orders", usize::try_from(partition)?)?, "isr", 1) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .unwrap();
    assert_eq!(places(&address, "orders").unwrap(), before);
    assert_all(&cluster, "orders", PARTITIONS, &["before", "meanwhile", "without", "still"]);
}

fn start_one(cluster: &mut Cluster) {
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(3).unwrap();
}

fn http_get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_node_without_a_good_directory_stops() {
    let (mut cluster, directories) = prepared(1);
    start(&mut cluster);
    cluster.create_topic("orders", 2, 1, &[]).unwrap();
    let address = cluster.nodes[0].kafka();
    for partition in 0..2 {
        assert_eq!(produce(&address, "orders", partition, b"x").unwrap(), ErrorCode::None);
    }
    for path in &directories[0] {
        std::fs::rename(path, path.with_extension("aside")).unwrap();
        std::fs::write(path, b"").unwrap();
    }
    for partition in 0..2 {
        // The high watermarks are news for the checkpoints, which cannot be written.
        drop(produce(&address, "orders", partition, b"y"));
    }
    let status = cluster.nodes[0].wait(PATIENCE).unwrap();
    assert!(!status.success(), "{status:?}");
    assert!(cluster.nodes[0].log().contains("every log directory has failed"));
}
