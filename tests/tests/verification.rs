//! `transaction.partition.verification.enable` on a real process: whether a transaction that nobody began is believed.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::time::Duration;

use anyhow::Result;
use ottla_tests::{Cluster, call_once, eventually};
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::produce_request::{PartitionData, TopicData};
use ottla_wire::messages::{FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest, Request};
use ottla_wire::records::{BatchBuilder, BatchOptions};

const PATIENCE: Duration = Duration::from_secs(60);
/// The last version in which a producer adds its partitions itself.
const PRODUCE_VERSION: i16 = 11;

fn call<R: Request>(address: &str, version: i16, request: &R) -> Result<R::Response> {
    call_once(address, Duration::from_secs(20), version, request)
}

/// The code that a record is answered with whose transaction was never begun.
fn produce(address: &str, id: &str) -> i16 {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let find = FindCoordinatorRequest { key: id.into(), key_type: 1, ..Default::default() };
    let producer = eventually(PATIENCE, "a producer id is given", || {
        // Looking for the coordinator makes its topic.
        call(address, 3, &find)?;
        Ok(call(address, 4, &request).ok().filter(|answer| answer.error_code == 0))
    })
    .unwrap();
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        base_sequence: 0,
        transactional: true,
        ..Default::default()
    });
    builder.add(1, None, Some(b"x"), &[]).unwrap();
    let data = PartitionData { index: 0, records: Some(Records::Bytes(builder.finish().unwrap())) };
    let topic = TopicData { name: "orders".into(), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest {
        transactional_id: Some(id.into()),
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![topic],
    };
    let answer = call(address, PRODUCE_VERSION, &request).unwrap();
    answer.responses[0].partition_responses[0].error_code
}

#[test]
fn verification_of_transactions_is_switched_while_brokers_run() {
    const NAME: &str = "transaction.partition.verification.enable";
    let cluster = Cluster::start(
        1,
        &[
            ("transaction.state.log.num.partitions", "1"),
            ("transaction.state.log.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
        ],
    )
    .unwrap();
    cluster.create_topic("orders", 1, 1, &[]).unwrap();
    let address = cluster.nodes[0].kafka();
    assert_eq!(produce(&address, "verified"), ErrorCode::TransactionAbortable.code());
    cluster.ottla(&["config", "set", "--cluster", &format!("{NAME}=false")]).unwrap().ok().unwrap();
    assert_eq!(produce(&address, "believed"), 0);
    cluster.ottla(&["config", "unset", "--cluster", NAME]).unwrap().ok().unwrap();
    assert_eq!(produce(&address, "verified-again"), ErrorCode::TransactionAbortable.code());
}
