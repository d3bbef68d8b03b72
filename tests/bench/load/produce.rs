//! Batches of records, plain or of an idempotent producer: what idempotence costs.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ottla_wire::encode::Records;
use ottla_wire::messages::produce_request::{PartitionData, TopicData};
use ottla_wire::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use ottla_wire::records::{BatchBuilder, BatchOptions};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

use crate::Settings;
use crate::connection::{Connection, any, leaders};

/// As many requests of a connection are in flight as an idempotent producer may have.
const IN_FLIGHT_MAX: usize = 5;
const RECORDS: i32 = 60;
const RECORD_BYTES: usize = 1024;

/// So many records of so many bytes as one batch.
pub(crate) fn batch(options: BatchOptions, records: i32, value: &[u8]) -> Result<Bytes> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut builder = BatchBuilder::new(options);
    for _ in 0..records {
        builder.add(now, None, Some(value), &[])?;
    }
    Ok(builder.finish()?)
}

/// One request with a batch for each of the partitions.
pub(crate) fn request(
    topic: &str,
    transactional_id: Option<&str>,
    batches: Vec<(i32, Bytes)>,
) -> ProduceRequest {
    let data = |(index, bytes)| PartitionData { index, records: Some(Records::Bytes(bytes)) };
    ProduceRequest {
        transactional_id: transactional_id.map(Into::into),
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicData {
            name: topic.into(),
            partition_data: batches.into_iter().map(data).collect(),
            ..Default::default()
        }],
    }
}

/// The refusals in an answer.
pub(crate) fn refusals(answer: &ProduceResponse) -> impl Iterator<Item = i16> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    partitions.map(|partition| partition.error_code).filter(|code| *code != 0)
}

/// `megabytes=` to the partitions of `topic=`, a connection for each of its leaders; `idempotent=true` or `false`.
pub(crate) async fn run(settings: &Settings) -> Result<Value> {
    let (bootstrap, topic) = (settings.text("bootstrap")?.to_owned(), settings.text("topic")?.to_owned());
    let idempotent: bool = settings.number("idempotent")?;
    let megabytes: usize = settings.number("megabytes")?;
    let leaders = leaders(&bootstrap, &topic).await?;
    let partitions: usize = leaders.values().map(Vec::len).sum();
    let batch_bytes = usize::try_from(RECORDS)? * RECORD_BYTES;
    let rounds = (megabytes * 1_000_000).div_ceil(batch_bytes * partitions);
    LocalSet::new()
        .run_until(async move {
            let began = Instant::now();
            let mut tasks = JoinSet::new();
            for (address, partitions) in leaders {
                tasks.spawn_local(one(
                    bootstrap.clone(),
                    address,
                    topic.clone(),
                    partitions,
                    rounds,
                    idempotent,
                ));
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            let seconds = began.elapsed().as_secs_f64();
            let bytes = rounds * partitions * batch_bytes;
            Ok(json!({ "bytes": bytes, "MB/s": bytes as f64 / seconds / 1e6 }))
        })
        .await
}

/// `rounds` requests, each with a batch for every partition of one leader.
async fn one(
    bootstrap: String,
    address: String,
    topic: String,
    partitions: Vec<i32>,
    rounds: usize,
    idempotent: bool,
) -> Result<()> {
    let mut options = BatchOptions::default();
    if idempotent {
        let request = InitProducerIdRequest {
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let given = any(&bootstrap).await?.call(4, &request).await?;
        (options.producer_id, options.producer_epoch) = (given.producer_id, given.producer_epoch);
        options.base_sequence = 0;
    }
    let mut connection = Connection::open(&address).await?;
    let value: Vec<u8> = (0..RECORD_BYTES).map(|at| b"abcdefghijklmnop"[at * 7 % 16]).collect();
    let mut in_flight = 0;
    for round in 0..rounds + IN_FLIGHT_MAX {
        if in_flight == IN_FLIGHT_MAX || (round >= rounds && in_flight > 0) {
            let answer = connection.receive::<ProduceRequest>(12).await?;
            if let Some(code) = refusals(&answer).next() {
                bail!("refused: {code}");
            }
            in_flight -= 1;
        }
        if round < rounds {
            // Each partition has its own sequence, and all are as far.
            let batches =
                partitions.iter().map(|partition| Ok((*partition, batch(options, RECORDS, &value)?)));
            let batches = batches.collect::<Result<_>>()?;
            connection.send(12, &request(&topic, None, batches)).await?;
            in_flight += 1;
            if idempotent {
                options.base_sequence =
                    options.base_sequence.checked_add(RECORDS).context("too many records")?;
            }
        }
    }
    Ok(())
}
