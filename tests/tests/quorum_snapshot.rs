//! A controller that was away for so long that the others' logs do not reach back to it, on real processes.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla_tests::{Cluster, eventually, ottla};
use ottla_wire::decode::Decoder;
use ottla_wire::encode::encode_request_frame;
use ottla_wire::messages::incremental_alter_configs_request::{Config, Resource};
use ottla_wire::messages::{IncrementalAlterConfigsRequest, Message, Request};

const LIMIT: Duration = Duration::from_secs(60);
/// More than a log keeps behind a snapshot.
const CHANGES: i64 = 2_600;
const VERSION: i16 = 1;
const TOPIC: i8 = 2;

/// Sets a topic's retention, on a connection that stays; each change is an entry of its own.
fn set_retention(stream: &mut TcpStream, topic: &str, value: i64) {
    let config =
        Config { name: "retention.ms".into(), value: Some(value.to_string().into()), ..Default::default() };
    let resource = Resource { resource_type: TOPIC, resource_name: topic.into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let key = IncrementalAlterConfigsRequest::KEY;
    let frame = encode_request_frame(key, VERSION, 1, Some("test"), &request).unwrap();
    stream.write_all(&frame.into_bytes()).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    let mut decoder = Decoder::new(Bytes::from(answer));
    decoder.i32().unwrap();
    decoder.skip_tagged_fields().unwrap();
    let answer =
        <IncrementalAlterConfigsRequest as Request>::Response::decode(&mut decoder, VERSION).unwrap();
    assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
}

fn has_snapshot(cluster: &mut Cluster, id: i32) -> bool {
    let data = cluster.node(id).unwrap().data_directory();
    data.join("__cluster_metadata").join("metadata.snapshot").exists()
}

#[test]
#[ignore = "long"]
fn a_controller_that_is_far_behind_gets_a_snapshot_and_so_does_a_new_one() {
    let extra = [("metadata.log.max.record.bytes.between.snapshots", "20000")];
    let mut cluster = Cluster::start(3, &extra).unwrap();
    cluster.create_topic("t", 1, 1, &[]).unwrap();
    let status =
        cluster.ottla(&["quorum", "status", "--output", "json"]).unwrap().ok().unwrap().json().unwrap();
    let leader = i32::try_from(status["leader_id"].as_i64().unwrap()).unwrap();
    let away = if leader == 3 { 2 } else { 3 };
    cluster.node(away).unwrap().kill().unwrap();
    assert!(!has_snapshot(&mut cluster, away));
    let mut stream = TcpStream::connect(cluster.node(leader).unwrap().kafka()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let began = Instant::now();
    for value in 1..=CHANGES {
        set_retention(&mut stream, "t", 1_000_000 + value);
    }
    println!("{CHANGES} changes in {:?}", began.elapsed());
    assert!(has_snapshot(&mut cluster, leader));
    let newcomer = cluster.add_newcomer(&extra).unwrap();
    for id in [away, newcomer] {
        let began = Instant::now();
        cluster.node(id).unwrap().start().unwrap();
        eventually(LIMIT, "the snapshot is there", || Ok(has_snapshot(&mut cluster, id).then_some(())))
            .unwrap();
        let server = cluster.node(id).unwrap().grpc();
        let last = (1_000_000 + CHANGES).to_string();
        eventually(LIMIT, "the node knows the last change", || {
            let got = ottla(&["--server", &server, "config", "get", "--topic", "t"], b"")?.ok()?;
            Ok(got.stdout.contains(&last).then_some(()))
        })
        .unwrap();
        println!("node {id} has all of it after {:?}", began.elapsed());
    }
    cluster.ottla(&["--timeout", "40s", "quorum", "add", &newcomer.to_string()]).unwrap().ok().unwrap();
}
