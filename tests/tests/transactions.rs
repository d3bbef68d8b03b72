//! Transactions of a raw producer (KIP-98, KIP-890) on real `ottla server` processes that are killed between its steps.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use ottla_tests::{Cluster, call_once, eventually};
use ottla_wire::encode::Records;
use ottla_wire::messages::produce_request::{PartitionData, TopicData};
use ottla_wire::messages::{
    EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest, Request,
};
use ottla_wire::records::{BatchBuilder, BatchOptions};

/// A cluster may take this long to be over a kill.
const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 3;
const STATE_LOG: [(&str, &str); 3] = [
    ("transaction.state.log.num.partitions", "3"),
    ("transaction.state.log.replication.factor", "3"),
    ("transaction.state.log.min.isr", "2"),
];

/// One request and its answer, on a connection of its own.
fn call<R: Request>(address: &str, version: i16, request: &R) -> Result<R::Response> {
    call_once(address, Duration::from_secs(10), version, request)
}

/// A producer of transactions version 2.
struct Producer {
    id: &'static str,
    producer_id: i64,
    epoch: i16,
}

impl Producer {
    fn new(cluster: &mut Cluster, id: &'static str, timeout_ms: i32) -> Self {
        let mut producer = Self { id, producer_id: -1, epoch: -1 };
        let request = InitProducerIdRequest {
            transactional_id: Some(id.into()),
            transaction_timeout_ms: timeout_ms,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let answer = eventually(PATIENCE, "a producer id is given", || {
            let Some((_, address)) = coordinator(cluster, id) else { return Ok(None) };
            Ok(call(&address, 4, &request).ok().filter(|answer| answer.error_code == 0))
        })
        .unwrap();
        (producer.producer_id, producer.epoch) = (answer.producer_id, answer.producer_epoch);
        producer
    }

    /// One record in each partition, the first of this epoch.
    fn send(&self, cluster: &mut Cluster, value: &str) {
        for partition in 0..PARTITIONS {
            eventually(PATIENCE, "a record is taken", || self.try_send(cluster, partition, value)).unwrap();
        }
    }

    fn try_send(&self, cluster: &mut Cluster, partition: i32, value: &str) -> Result<Option<()>> {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            base_sequence: 0,
            transactional: true,
            ..Default::default()
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        builder.add(i64::try_from(now.as_millis())?, None, Some(value.as_bytes()), &[])?;
        let request = ProduceRequest {
            transactional_id: Some(self.id.into()),
            acks: -1,
            timeout_ms: 5_000,
            topic_data: vec![TopicData {
                name: "t".into(),
                partition_data: vec![PartitionData {
                    index: partition,
                    records: Some(Records::Bytes(builder.finish()?)),
                }],
                ..Default::default()
            }],
        };
        let leader = cluster.leader("t", usize::try_from(partition)?)?;
        let Ok(node) = cluster.node(leader) else { return Ok(None) };
        let Ok(answer) = call(&node.kafka(), 12, &request) else { return Ok(None) };
        match answer.responses[0].partition_responses[0].error_code {
            0 => Ok(Some(())),
            // Moving leaders and coordinators; the end of the last transaction that is under way.
            3 | 5 | 6 | 7 | 14 | 15 | 16 | 19 | 20 | 51 => Ok(None),
            error => bail!("the record was refused: {error}"),
        }
    }

    /// Ends the transaction; an answer that got lost is asked for again.
    fn end(&mut self, cluster: &mut Cluster, commit: bool) {
        let request = EndTxnRequest {
            transactional_id: self.id.into(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed: commit,
        };
        let answer = eventually(PATIENCE, "the transaction is ended", || {
            let Some((_, address)) = coordinator(cluster, self.id) else { return Ok(None) };
            let Ok(answer) = call(&address, 5, &request) else { return Ok(None) };
            match answer.error_code {
                0 => Ok(Some(answer)),
                14 | 15 | 16 | 51 => Ok(None),
                error => bail!("the end was refused: {error}"),
            }
        })
        .unwrap();
        (self.producer_id, self.epoch) = (answer.producer_id, answer.producer_epoch);
    }
}

/// Who coordinates a transactional id: node and address.
fn coordinator(cluster: &Cluster, id: &str) -> Option<(i32, String)> {
    let request = FindCoordinatorRequest { key: id.into(), key_type: 1, ..Default::default() };
    cluster.nodes.iter().find_map(|node| {
        let found = call(&node.kafka(), 3, &request).ok().filter(|found| found.error_code == 0)?;
        Some((found.node_id, format!("{}:{}", found.host, found.port)))
    })
}

fn committed(cluster: &Cluster) -> Vec<String> {
    let read = [
        "consume",
        "t",
        "--from",
        "beginning",
        "--exit-at-end",
        "--isolation",
        "read_committed",
        "--format",
        "%v\n",
    ];
    let read = cluster.ottla(&read).unwrap().ok().unwrap();
    let mut values: Vec<String> = read.stdout.lines().map(str::to_owned).collect();
    values.sort();
    values
}

fn await_state(cluster: &Cluster, id: &str, state: &str) {
    eventually(PATIENCE, "the transaction is over", || {
        let described = cluster.ottla(&["transaction", "describe", id, "--output", "json"])?;
        let is_there = described.code == Some(0) && described.json()?["state"] == state;
        Ok(is_there.then_some(()))
    })
    .unwrap();
}

/// The values of whole transactions: each once in each partition.
fn whole(values: &[&str]) -> Vec<String> {
    let mut all: Vec<String> =
        values.iter().flat_map(|value| (0..PARTITIONS).map(|_| (*value).to_owned())).collect();
    all.sort();
    all
}

fn kill_coordinator(cluster: &mut Cluster, id: &str) -> i32 {
    let (dead, _) = coordinator(cluster, id).unwrap();
    cluster.node(dead).unwrap().kill().unwrap();
    dead
}

fn revive(cluster: &mut Cluster, dead: i32) {
    cluster.node(dead).unwrap().start().unwrap();
    cluster.await_brokers(3).unwrap();
}

/// The coordinator is killed at every step: after the records, after the decision, before the next transaction.
#[test]
fn transactions_are_whole_or_absent_whenever_their_coordinator_dies() {
    let mut cluster = Cluster::start(3, &STATE_LOG).unwrap();
    cluster.create_topic("t", 3, 3, &["min.insync.replicas=2"]).unwrap();
    let mut producer = Producer::new(&mut cluster, "x", 60_000);

    producer.send(&mut cluster, "killed-before-its-end");
    let dead = kill_coordinator(&mut cluster, "x");
    producer.end(&mut cluster, true);
    await_state(&cluster, "x", "CompleteCommit");
    assert_eq!(committed(&cluster), whole(&["killed-before-its-end"]));
    revive(&mut cluster, dead);

    producer.send(&mut cluster, "killed-after-its-commit");
    producer.end(&mut cluster, true);
    let dead = kill_coordinator(&mut cluster, "x");
    await_state(&cluster, "x", "CompleteCommit");
    let both = whole(&["killed-after-its-commit", "killed-before-its-end"]);
    assert_eq!(committed(&cluster), both);
    revive(&mut cluster, dead);

    producer.send(&mut cluster, "killed-after-its-abort");
    producer.end(&mut cluster, false);
    let dead = kill_coordinator(&mut cluster, "x");
    await_state(&cluster, "x", "CompleteAbort");
    assert_eq!(committed(&cluster), both, "nothing of an aborted transaction is seen");
    revive(&mut cluster, dead);

    // The successor ends what it left, and it can do nothing any more.
    producer.send(&mut cluster, "left-open");
    let successor = Producer::new(&mut cluster, "x", 60_000);
    assert_eq!(successor.producer_id, producer.producer_id);
    assert!(successor.epoch > producer.epoch);
    await_state(&cluster, "x", "Empty");
    let refused = eventually(PATIENCE, "the zombie is refused", || {
        match producer.try_send(&mut cluster, 0, "zombie") {
            Ok(Some(())) => panic!("the zombie's record was taken"),
            Ok(None) => Ok(None),
            Err(refusal) => Ok(Some(refusal.to_string())),
        }
    });
    assert_eq!(refused.unwrap(), "the record was refused: 47");
    assert_eq!(committed(&cluster), both);
}

#[test]
fn a_transaction_that_its_producer_forgot_is_aborted_when_its_time_is_over() {
    let quick = [
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "200"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
    ];
    let mut cluster = Cluster::start(1, &quick).unwrap();
    cluster.create_topic("t", 3, 1, &[]).unwrap();
    let forgotten = Producer::new(&mut cluster, "forgotten", 1_500);
    forgotten.send(&mut cluster, "forgotten");
    let open = cluster.ottla(&["producer", "list", "t", "--partition", "0", "--output", "json"]).unwrap();
    assert_eq!(open.json().unwrap()["producers"][0]["transaction_start_offset"], 0);
    await_state(&cluster, "forgotten", "CompleteAbort");
    assert_eq!(committed(&cluster), whole(&[]));
    let listed = cluster.ottla(&["transaction", "list", "--output", "json"]).unwrap().json().unwrap();
    assert_eq!(listed["transactions"][0]["transactional_id"], "forgotten");

    // Past its coordinator, an administrator can end what hangs in a partition.
    let hanging = Producer::new(&mut cluster, "hanging", 60_000);
    hanging.send(&mut cluster, "hanging");
    for partition in ["0", "1", "2"] {
        let abort = ["transaction", "abort", "--topic", "t", "--partition", partition, "--start-offset", "2"];
        cluster.ottla(&abort).unwrap().ok().unwrap();
    }
    assert_eq!(committed(&cluster), whole(&[]));
    let again = ["transaction", "abort", "--topic", "t", "--partition", "0", "--start-offset", "2"];
    assert!(
        cluster.ottla(&again).unwrap().stderr.contains("no transaction"),
        "there is nothing left to abort"
    );
}
