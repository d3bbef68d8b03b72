//! What a client is told around the end of a leader: killed, stopped, or only paused.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ottla_tests::{Cluster, eventually};
use ottla_wire::decode::Decoder;
use ottla_wire::encode::{Records, encode_request_frame};
use ottla_wire::messages::metadata_request::Topic;
use ottla_wire::messages::produce_request::{PartitionData, TopicData};
use ottla_wire::messages::{Message, MetadataRequest, ProduceRequest, ProduceResponse, Request};
use ottla_wire::records::{BatchBuilder, BatchOptions};

const LIMIT: Duration = Duration::from_secs(30);
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
/// The first version whose answers name the next leader (KIP-951).
const PRODUCE_VERSION: i16 = 10;
const METADATA_VERSION: i16 = 9;

/// A connection that one request at a time is sent on.
struct Client(TcpStream);

impl Client {
    fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self(stream))
    }

    fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        let frame = encode_request_frame(R::KEY, version, 1, Some("failover"), request).unwrap();
        self.0.write_all(&frame.into_bytes())?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut answer)?;
        let mut decoder = Decoder::new(answer.split_off(4).into());
        if R::KEY.response_header_version(version) >= 1 {
            decoder.skip_tagged_fields().unwrap();
        }
        Ok(R::Response::decode(&mut decoder, version).unwrap())
    }

    /// The leader of partition 0, its epoch, and the error code beside it.
    fn leader(&mut self, topic: &str) -> io::Result<(i32, i32, i16)> {
        let asked = Topic { name: Some(topic.into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![asked]), ..Default::default() };
        let answer = self.call(&request, METADATA_VERSION)?;
        let partition = &answer.topics[0].partitions[0];
        Ok((partition.leader_id, partition.leader_epoch, partition.error_code))
    }

    fn produce(&mut self, topic: &str) -> io::Result<ProduceResponse> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.add(0, None, Some(b"value"), &[]).unwrap();
        let data = PartitionData { index: 0, records: Some(Records::Bytes(builder.finish().unwrap())) };
        let topic = TopicData { name: topic.into(), partition_data: vec![data], ..Default::default() };
        let request =
            ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 10_000, topic_data: vec![topic] };
        self.call(&request, PRODUCE_VERSION)
    }
}

fn start(topic: &str) -> Cluster {
    let cluster = Cluster::start(3, &[]).unwrap();
    cluster.create_topic(topic, 1, 3, &["min.insync.replicas=2"]).unwrap();
    whole(&cluster, topic);
    cluster
}

fn whole(cluster: &Cluster, topic: &str) {
    eventually(LIMIT, "every replica in sync", || {
        Ok((cluster.partition(topic, 0)?["isr"].as_array().map_or(0, Vec::len) == 3).then_some(()))
    })
    .unwrap();
}

/// Another node than this one.
fn other(cluster: &mut Cluster, than: i32) -> String {
    cluster.nodes.iter().find(|node| node.id != than).unwrap().kafka()
}

/// librdkafka asks another broker for metadata the moment its connection breaks, and goes by what it is told for a second.
#[test]
fn who_asks_when_the_leader_was_killed_is_told_of_the_next_one() {
    let mut cluster = start("killed");
    for round in 0..5 {
        let dead = cluster.leader("killed", 0).unwrap();
        let mut leader = Client::connect(&cluster.node(dead).unwrap().kafka()).unwrap();
        let mut survivor = Client::connect(&other(&mut cluster, dead)).unwrap();
        leader.produce("killed").unwrap();
        let (named, epoch, _) = survivor.leader("killed").unwrap();
        assert_eq!(named, dead);
        let broken = std::thread::spawn(move || {
            let mut byte = [0];
            drop(leader.0.read(&mut byte));
            let began = Instant::now();
            let mut answers: Vec<(i32, i32, i16)> = Vec::new();
            while answers.last().is_none_or(|(leader, ..)| *leader < 0) && began.elapsed() < LIMIT {
                if !answers.is_empty() {
                    std::thread::sleep(Duration::from_millis(100));
                }
                answers.push(survivor.leader("killed").unwrap());
            }
            (answers, began.elapsed())
        });
        // Longer than a dial is good for: the client must not profit from what somebody else was told.
        std::thread::sleep(Duration::from_millis(200));
        cluster.node(dead).unwrap().kill().unwrap();
        let (answers, waited) = broken.join().unwrap();
        println!("round {round}: told {answers:?} after the end of {dead}, within {waited:?}");
        assert!(answers.iter().all(|(leader, ..)| *leader != dead), "the dead leader was named: {answers:?}");
        let (next, next_epoch, code) = *answers.last().unwrap();
        assert!(next >= 0 && code == 0 && next_epoch > epoch, "{answers:?} after {epoch}");
        cluster.node(dead).unwrap().start().unwrap();
        cluster.await_brokers(3).unwrap();
        whole(&cluster, "killed");
    }
}

/// A controlled shutdown: whoever writes is told by the old leader who leads now, before the connection ends.
#[test]
fn a_leader_that_is_stopped_names_the_next_one() {
    let mut cluster = start("stopped");
    for round in 0..3 {
        let old = cluster.leader("stopped", 0).unwrap();
        let mut client = Client::connect(&cluster.node(old).unwrap().kafka()).unwrap();
        // As a client that goes at once where it is sent to.
        let writer = std::thread::spawn(move || {
            let mut refused: Option<(Instant, i32)> = None;
            loop {
                let answer = client.produce("stopped").unwrap();
                let partition = &answer.responses[0].partition_responses[0];
                if let Some((since, next)) = refused
                    && partition.error_code == 0
                {
                    return (since.elapsed(), next);
                }
                if partition.error_code == 0 {
                    continue;
                }
                assert_eq!(partition.error_code, NOT_LEADER_OR_FOLLOWER);
                let next = partition.current_leader.leader_id;
                assert!(next >= 0, "{partition:?}");
                if refused.is_none_or(|(_, named)| named != next) && next != old {
                    let endpoint = answer.node_endpoints.iter().find(|endpoint| endpoint.node_id == next);
                    let endpoint = endpoint.unwrap();
                    client = Client::connect(&format!("{}:{}", &*endpoint.host, endpoint.port)).unwrap();
                    refused = Some((refused.map_or_else(Instant::now, |(since, _)| since), next));
                }
                // The next leader may not know yet that it leads.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        std::thread::sleep(Duration::from_millis(200));
        cluster.node(old).unwrap().stop().unwrap();
        let (gap, next) = writer.join().unwrap();
        println!("round {round}: from {old} to {next} within {gap:?}");
        assert_ne!(next, old);
        cluster.node(old).unwrap().start().unwrap();
        cluster.await_brokers(3).unwrap();
        whole(&cluster, "stopped");
    }
}

/// A broker that stands still for less than its lease is not fenced, and leads on: no false alarm.
#[test]
fn a_leader_that_stands_still_for_less_than_its_lease_leads_on() {
    let mut cluster = start("paused");
    let quorum = eventually(LIMIT, "a quorum leader", || {
        let quorum = cluster.ottla(&["quorum", "status", "--output", "json"])?.ok()?.json()?;
        Ok(quorum["leader_id"].as_i64().filter(|id| *id >= 0))
    })
    .unwrap();
    // The quorum's own leader may be replaced when it is silent: that is another matter.
    let leader = cluster.leader("paused", 0).unwrap();
    if i64::from(leader) == quorum {
        let next = (1..=3).find(|id| *id != leader).unwrap().to_string();
        cluster.ottla(&["quorum", "transfer", &next]).unwrap().ok().unwrap();
    }
    let address = other(&mut cluster, leader);
    let before = Client::connect(&address).unwrap().leader("paused").unwrap();
    cluster.node(leader).unwrap().pause().unwrap();
    let mut asked = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        asked.push(Client::connect(&address).unwrap().leader("paused").unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.node(leader).unwrap().resume().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    asked.push(Client::connect(&address).unwrap().leader("paused").unwrap());
    assert!(asked.iter().all(|told| *told == before), "{before:?}, then {asked:?}");
    let mut client = Client::connect(&cluster.node(leader).unwrap().kafka()).unwrap();
    let answer = client.produce("paused").unwrap();
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "{answer:?}");
}
