//! Quotas of a real `ottla server`, measured: what goes through is what the quota says, for one client and for fifty that share it.
//!
//! Ten seconds' worth pass at once, and are what passes in the first ten seconds; after that a flood gets through evenly. Both are
//! measured.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ottla_tests::{Cluster, call_once};
use ottla_wire::encode::{Records, encode_request_frame};
use ottla_wire::messages::fetch_request::{Partition as FetchPartition, Topic as FetchTopic};
use ottla_wire::messages::produce_request::{PartitionData, TopicData};
use ottla_wire::messages::{FetchRequest, ProduceRequest, Request};
use ottla_wire::records::{BatchBuilder, BatchOptions};

/// Bytes a second of each quota: far below what a busy machine gets through, so that nothing but the quota holds a client up.
const RATE: u64 = 200_000;
/// What is measured: from the first request on, and right after that.
const MEASURED: [Duration; 2] = [Duration::from_millis(10_500), Duration::from_secs(10)];
/// Small beside what is measured, so that requests under way do not matter.
const VALUE_BYTES: usize = 500;
/// Share of the quota by which a rate may be off.
const OFF_MAX: f64 = 0.05;

/// A request. All of it counts but the length in front.
fn frame(client_id: &str) -> (Vec<u8>, u64) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.add(0, None, Some(&[7; VALUE_BYTES]), &[]).unwrap();
    let records = builder.finish().unwrap();
    let data = PartitionData { index: 0, records: Some(Records::Bytes(records)) };
    let topic = TopicData { name: "orders".into(), partition_data: vec![data], ..Default::default() };
    let request =
        ProduceRequest { transactional_id: None, acks: 1, timeout_ms: 30_000, topic_data: vec![topic] };
    let frame = encode_request_frame(ProduceRequest::KEY, 9, 1, Some(client_id), &request).unwrap();
    let frame = frame.into_bytes().to_vec();
    let count = u64::try_from(frame.len() - 4).unwrap();
    (frame, count)
}

/// Sends as fast as answers come; counts the bytes of what was answered.
fn flood(address: &str, client_id: &str, counted: &AtomicU64, stop: &AtomicBool) {
    let (frame, count) = frame(client_id);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&frame).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut answer).unwrap();
        counted.fetch_add(count, Ordering::Relaxed);
    }
}

/// Bytes a second that so many clients of one id get through, in each of the times.
fn measure(address: &str, client_id: &str, clients: usize) -> [f64; 2] {
    let (counted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| flood(address, client_id, &counted, &stop));
        }
        let rates = MEASURED.map(|time| {
            let (began, before) = (Instant::now(), counted.load(Ordering::Relaxed));
            std::thread::sleep(time);
            let bytes = counted.load(Ordering::Relaxed) - before;
            bytes as f64 / began.elapsed().as_secs_f64()
        });
        stop.store(true, Ordering::Relaxed);
        rates
    })
}

#[test]
fn a_quota_is_kept_for_one_client_and_for_fifty() {
    let cluster = Cluster::start(1, &[]).unwrap();
    cluster.create_topic("orders", 1, 1, &[]).unwrap();
    for client_id in ["one", "many"] {
        let limit = format!("producer_byte_rate={RATE}");
        cluster.ottla(&["quota", "set", &limit, "--client-id", client_id]).unwrap().ok().unwrap();
    }
    let address = cluster.nodes[0].kafka();
    let (one, many) = std::thread::scope(|scope| {
        let one = scope.spawn(|| measure(&address, "one", 1));
        let many = scope.spawn(|| measure(&address, "many", 50));
        (one.join().unwrap(), many.join().unwrap())
    });
    for (clients, rates) in [("one client", one), ("fifty clients", many)] {
        for (when, rate) in ["from the first request on", "after that"].into_iter().zip(rates) {
            let off = rate / RATE as f64 - 1.0;
            println!("{clients}, {when}: {rate:.0} bytes a second, {:+.2} %", off * 100.0);
            assert!(off.abs() <= OFF_MAX, "{clients}, {when}: {rate:.0} bytes a second");
        }
    }
}

/// As with Kafka the whole answer counts: also one without records is too much for a client above its quota.
#[test]
fn of_a_fetch_every_byte_counts() {
    let cluster = Cluster::start(1, &[]).unwrap();
    cluster.create_topic("orders", 1, 1, &[]).unwrap();
    let limit = "consumer_byte_rate=1";
    cluster.ottla(&["quota", "set", limit, "--client-id", "test"]).unwrap().ok().unwrap();
    let partition = FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() };
    let topic = FetchTopic { topic: "orders".into(), partitions: vec![partition], ..Default::default() };
    let request = FetchRequest {
        replica_id: -1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let fetch = || {
        let patience = Duration::from_secs(60);
        call_once(&cluster.nodes[0].kafka(), patience, 12, &request).unwrap()
    };
    let (first, second) = (fetch(), fetch());
    assert_eq!((first.throttle_time_ms, first.responses.len()), (0, 1));
    assert!(second.throttle_time_ms > 0 && second.responses.is_empty(), "{second:?}");
}
