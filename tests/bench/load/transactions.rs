//! Transactions one after another (version 2: the first record brings a partition in), each over several partitions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ottla_wire::messages::{EndTxnRequest, InitProducerIdRequest};
use ottla_wire::records::BatchOptions;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

use crate::connection::{Connection, coordinator, leaders};
use crate::produce::{batch, refusals, request};
use crate::{Settings, merged, percentiles};

/// Refusals after which a client tries again: the coordinator is loading or elsewhere, the last transaction still ends.
const RETRIED: [i16; 6] = [3, 6, 14, 15, 16, CONCURRENT_TRANSACTIONS];
const CONCURRENT_TRANSACTIONS: i16 = 51;
/// A client waits this long before it tries again. Kafka's own wait longer; here it is the broker's time that is measured.
const RETRY_PAUSE: Duration = Duration::from_millis(1);
const RECORD_BYTES: usize = 100;

/// `producers=` producers, each with one transaction after another for `seconds=`: `records=` records over all the partitions of
/// `topic=`, acknowledged by all replicas, and the commit.
pub(crate) async fn run(settings: &Settings) -> Result<Value> {
    let (bootstrap, topic) = (settings.text("bootstrap")?.to_owned(), settings.text("topic")?.to_owned());
    let (producers, records): (usize, i32) = (settings.number("producers")?, settings.number("records")?);
    let stay = settings.duration()?;
    LocalSet::new()
        .run_until(async move {
            let mut ready = Vec::new();
            for number in 0..producers {
                let mut producer =
                    Producer::open(&bootstrap, &topic, &format!("load-{number}"), records).await?;
                // The first one makes what it needs.
                producer.transaction().await?;
                ready.push(producer);
            }
            let began = Instant::now();
            let mut tasks = JoinSet::new();
            for mut producer in ready {
                tasks.spawn_local(async move {
                    let mut samples = Vec::new();
                    while began.elapsed() < stay {
                        let begin = Instant::now();
                        producer.transaction().await?;
                        samples.push(begin.elapsed());
                    }
                    anyhow::Ok((samples, producer.retries))
                });
            }
            let (mut all, mut retries) = (Vec::new(), 0);
            while let Some(done) = tasks.join_next().await {
                let (samples, retried) = done??;
                all.extend(samples);
                retries += retried;
            }
            let rate = all.len() as f64 / began.elapsed().as_secs_f64();
            let figures =
                json!({ "transactions": all.len(), "transactions a second": rate, "retries": retries });
            Ok(merged(figures, percentiles("transaction ", all)))
        })
        .await
}

struct Producer {
    id: String,
    topic: String,
    coordinator: Connection,
    leaders: Vec<(Connection, Vec<i32>)>,
    records_each: i32,
    options: BatchOptions,
    retries: u64,
}

impl Producer {
    async fn open(bootstrap: &str, topic: &str, id: &str, records: i32) -> Result<Self> {
        let mut opened = Vec::new();
        for (address, partitions) in leaders(bootstrap, topic).await? {
            opened.push((Connection::open(&address).await?, partitions));
        }
        let partitions = i32::try_from(opened.iter().map(|(_, partitions)| partitions.len()).sum::<usize>())?;
        ensure!(partitions > 0 && records % partitions == 0, "as many records for each partition");
        let mut coordinator = Connection::open(&coordinator(bootstrap, 1, id).await?).await?;
        let request = InitProducerIdRequest {
            transactional_id: Some(id.into()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        loop {
            let given = coordinator.call(4, &request).await?;
            match given.error_code {
                0 => {
                    let options = BatchOptions {
                        producer_id: given.producer_id,
                        producer_epoch: given.producer_epoch,
                        base_sequence: 0,
                        transactional: true,
                        ..Default::default()
                    };
                    return Ok(Self {
                        id: id.to_owned(),
                        topic: topic.to_owned(),
                        coordinator,
                        leaders: opened,
                        records_each: records / partitions,
                        options,
                        retries: 0,
                    });
                }
                code if RETRIED.contains(&code) => tokio::time::sleep(Duration::from_millis(20)).await,
                code => bail!("no producer id: {code}"),
            }
        }
    }

    async fn transaction(&mut self) -> Result<()> {
        let value = [b'x'; RECORD_BYTES];
        let bytes = batch(self.options, self.records_each, &value)?;
        // To all leaders at once; a leader that refuses is asked again.
        for (connection, partitions) in &mut self.leaders {
            let batches = partitions.iter().map(|partition| (*partition, bytes.clone())).collect();
            connection.send(12, &request(&self.topic, Some(&self.id), batches)).await?;
        }
        for (connection, _) in &mut self.leaders {
            loop {
                let answer = connection.receive::<ottla_wire::messages::ProduceRequest>(12).await?;
                let mut again = Vec::new();
                for partition in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
                    match partition.error_code {
                        0 => {}
                        code if RETRIED.contains(&code) => again.push((partition.index, bytes.clone())),
                        code => bail!("a batch was refused: {code}"),
                    }
                }
                if refusals(&answer).next().is_none() {
                    break;
                }
                self.retries += 1;
                tokio::time::sleep(RETRY_PAUSE).await;
                connection.send(12, &request(&self.topic, Some(&self.id), again)).await?;
            }
        }
        self.end().await
    }

    async fn end(&mut self) -> Result<()> {
        loop {
            let request = EndTxnRequest {
                transactional_id: self.id.as_str().into(),
                producer_id: self.options.producer_id,
                producer_epoch: self.options.producer_epoch,
                committed: true,
            };
            let answer = self.coordinator.call(5, &request).await?;
            match answer.error_code {
                0 => {
                    self.options.producer_id = answer.producer_id;
                    self.options.producer_epoch = answer.producer_epoch;
                    return Ok(());
                }
                code if RETRIED.contains(&code) => {
                    self.retries += 1;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                code => bail!("the end was refused: {code}"),
            }
        }
    }
}
