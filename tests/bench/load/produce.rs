//! Batches of records, plain or of an idempotent producer: what idempotence costs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
            let mut ready = Vec::new();
            for (address, partitions) in leaders {
                let mut connection = Connection::open(&address).await?;
                await_leader(&mut connection, &topic, &partitions).await?;
                let options =
                    if idempotent { identified(&bootstrap).await? } else { BatchOptions::default() };
                ready.push((connection, partitions, options));
            }
            let began = Instant::now();
            let mut tasks = JoinSet::new();
            for (connection, partitions, options) in ready {
                tasks.spawn_local(one(connection, topic.clone(), partitions, rounds, options));
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

/// Of a new idempotent producer, before its first batch.
async fn identified(bootstrap: &str) -> Result<BatchOptions> {
    let request = InitProducerIdRequest {
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let given = any(bootstrap).await?.call(4, &request).await?;
    Ok(BatchOptions {
        producer_id: given.producer_id,
        producer_epoch: given.producer_epoch,
        base_sequence: 0,
        ..Default::default()
    })
}

/// Writes a record to each partition, as soon as its leader knows that it is.
async fn await_leader(connection: &mut Connection, topic: &str, partitions: &[i32]) -> Result<()> {
    for partition in partitions {
        loop {
            let probe = batch(BatchOptions::default(), 1, b"probe")?;
            let answer = connection.call(12, &request(topic, None, vec![(*partition, probe)])).await?;
            match refusals(&answer).next() {
                None => break,
                // Unknown partition, not leader, too few replicas in sync.
                Some(3 | 6 | 19) => tokio::time::sleep(Duration::from_millis(20)).await,
                Some(code) => bail!("refused: {code}"),
            }
        }
    }
    Ok(())
}

/// `rounds` requests, each with a batch for every partition of one leader.
async fn one(
    mut connection: Connection,
    topic: String,
    partitions: Vec<i32>,
    rounds: usize,
    mut options: BatchOptions,
) -> Result<()> {
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
            if options.base_sequence >= 0 {
                options.base_sequence =
                    options.base_sequence.checked_add(RECORDS).context("too many records")?;
            }
        }
    }
    Ok(())
}
