//! Quotas of a real `ottla server`, measured: what goes through is what the quota says, for one client and for fifty that share it.
//!
//! Kafka's quotas look back on eleven windows of a second, let their worth pass at once, and forget it with them: a client that
//! floods gets through in bursts. So one round of the windows is measured, to just before the next burst.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ottla_tests::Cluster;
use ottla_wire::encode::{Records, encode_request_frame};
use ottla_wire::messages::produce_request::{PartitionData, TopicData};
use ottla_wire::messages::{ProduceRequest, Request};
use ottla_wire::records::{BatchBuilder, BatchOptions};

/// Bytes a second of each quota: far below what a busy machine gets through, so that nothing but the quota holds a client up.
const RATE: u64 = 200_000;
/// The windows that a quota looks back on, all but over.
const MEASURED: Duration = Duration::from_millis(10_800);
/// Small beside what is measured, so that requests under way do not matter.
const VALUE_BYTES: usize = 500;
/// Share of the quota by which the rate of one client may be off.
const OFF_MAX: f64 = 0.05;
/// Likewise of fifty that share it. Each is held up for as long as what is over by then takes at the quota's rate, as Kafka does
/// it, and they do not know of each other: what is over after `t` seconds is the root of `2 · 50 · bytes · quota · t`.
const OFF_MAX_SHARED: f64 = 0.16;

/// A request, and how many bytes of records it brings: those count.
fn frame(client_id: &str) -> (Vec<u8>, u64) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.add(0, None, Some(&[7; VALUE_BYTES]), &[]).unwrap();
    let records = builder.finish().unwrap();
    let count = u64::try_from(records.len()).unwrap();
    let data = PartitionData { index: 0, records: Some(Records::Bytes(records)) };
    let topic = TopicData { name: "orders".into(), partition_data: vec![data], ..Default::default() };
    let request =
        ProduceRequest { transactional_id: None, acks: 1, timeout_ms: 30_000, topic_data: vec![topic] };
    let frame = encode_request_frame(ProduceRequest::KEY, 9, 1, Some(client_id), &request).unwrap();
    (frame.into_bytes().to_vec(), count)
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

/// Bytes a second that so many clients of one id get through.
fn measure(address: &str, client_id: &str, clients: usize) -> f64 {
    let (counted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| flood(address, client_id, &counted, &stop));
        }
        let began = Instant::now();
        std::thread::sleep(MEASURED);
        let bytes = counted.load(Ordering::Relaxed);
        let seconds = began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        bytes as f64 / seconds
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
    for (what, rate, off_max) in [("one client", one, OFF_MAX), ("fifty clients", many, OFF_MAX_SHARED)] {
        let off = rate / RATE as f64 - 1.0;
        println!("{what}: {rate:.0} bytes a second, {:+.2} %", off * 100.0);
        assert!((-OFF_MAX..=off_max).contains(&off), "{what}: {rate:.0} bytes a second");
    }
}
