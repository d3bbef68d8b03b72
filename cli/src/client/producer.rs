//! Writes records: batches by partition, a request to each leader, again until the deadline. With acks=all it is idempotent:
//! what is sent twice is kept once. One batch of a partition is under way at a time, so order holds whatever fails.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use ottla_wire::compression::Codec;
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse, produce_request};
use ottla_wire::records::{BatchBuilder, BatchOptions};
use ottla_wire::text::Text;

use super::ClientError;
use super::cluster::{Cluster, RETRY_PAUSE};
use super::records::NewRecord;

/// Newest version of Produce that is asked: it names topics.
const PRODUCE_VERSION: i16 = 12;
/// Newest version of InitProducerId that is asked.
const INIT_PRODUCER_ID_VERSION: i16 = 4;
/// Plain bytes after which a batch is closed: half of the usual message.max.bytes.
pub(crate) const BATCH_BYTES: usize = 512 * 1024;
/// Plain bytes that wait at most; then they are sent before more is taken.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How records are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerOptions {
    /// -1: all; 1: the leader; 0: none.
    pub(crate) acks: i16,
    pub(crate) codec: Codec,
}

/// What was written of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Offset of the first record; -1 when the broker was not asked (acks=0).
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// Records of one partition that wait, in batches; the first batch is the next to be sent.
#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Pending>,
    /// Sequence of the next new batch.
    sequence: i32,
    written: Option<Written>,
}

#[derive(Debug, Default)]
struct Pending {
    records: Vec<NewRecord>,
    plain_bytes: usize,
    /// Given when it is first sent, and kept when it is sent again.
    sequence: Option<i32>,
}

/// Writes to one topic.
#[derive(Debug)]
pub(crate) struct Producer {
    cluster: Cluster,
    topic: String,
    options: ProducerOptions,
    producer_id: i64,
    producer_epoch: i16,
    queues: BTreeMap<i32, Queue>,
    waiting_bytes: usize,
}

impl Producer {
    /// Asks for the topic's partitions, and for a producer id when acks=all.
    pub(crate) async fn new(
        mut cluster: Cluster,
        topic: &str,
        options: ProducerOptions,
    ) -> Result<Self, ClientError> {
        let deadline = Instant::now() + cluster.timeout();
        cluster.refresh_until(&[topic.to_owned()], deadline).await?;
        let mut producer = Self {
            cluster,
            topic: topic.to_owned(),
            options,
            producer_id: -1,
            producer_epoch: -1,
            queues: BTreeMap::new(),
            waiting_bytes: 0,
        };
        if options.acks == -1 {
            producer.ask_producer_id(deadline).await?;
        }
        Ok(producer)
    }

    async fn ask_producer_id(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        loop {
            let error = match self.cluster.ask_any(&request, INIT_PRODUCER_ID_VERSION).await {
                Ok(answer) if answer.error_code == 0 => {
                    self.producer_id = answer.producer_id;
                    self.producer_epoch = answer.producer_epoch;
                    return Ok(());
                }
                Ok(answer) => ClientError::refused("producer id", answer.error_code),
                // A broker without idempotence: the records go as they are.
                Err(ClientError::Version { .. }) => return Ok(()),
                Err(error) => error,
            };
            if !error.is_retriable() || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The partitions of the topic.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.cluster
            .topic(&self.topic)
            .map(|topic| topic.leaders.keys().copied().collect())
            .unwrap_or_default()
    }

    /// Takes a record; sends when enough have come together.
    pub(crate) async fn add(&mut self, partition: i32, mut record: NewRecord) -> Result<(), ClientError> {
        record.timestamp_ms.get_or_insert_with(now_ms);
        let bytes = record.bytes();
        let queue = self.queues.entry(partition).or_default();
        let fits = queue
            .batches
            .back()
            .is_some_and(|batch| batch.sequence.is_none() && batch.plain_bytes + bytes <= BATCH_BYTES);
        if !fits {
            queue.batches.push_back(Pending::default());
        }
        if let Some(batch) = queue.batches.back_mut() {
            batch.records.push(record);
            batch.plain_bytes += bytes;
        }
        self.waiting_bytes += bytes;
        if self.waiting_bytes >= WAITING_BYTES_MAX
            || self.queues.get(&partition).is_some_and(|q| q.batches.len() > 2)
        {
            self.flush().await?;
        }
        Ok(())
    }

    /// What was written so far, by partition.
    pub(crate) fn written(&self) -> impl Iterator<Item = (i32, Written)> {
        self.queues.iter().filter_map(|(partition, queue)| Some((*partition, queue.written?)))
    }

    /// Sends all that waits; each batch may take as long as the timeout.
    pub(crate) async fn flush(&mut self) -> Result<(), ClientError> {
        let mut deadline = Instant::now() + self.cluster.timeout();
        while self.waiting_bytes > 0 {
            let before = self.waiting_bytes;
            let failure = self.send_round(deadline).await?;
            if self.waiting_bytes < before {
                deadline = Instant::now() + self.cluster.timeout();
            }
            let Some(failure) = failure else { continue };
            if Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            self.cluster.refresh_until(std::slice::from_ref(&self.topic), deadline).await?;
        }
        Ok(())
    }

    /// Sends the first batch of every partition, all leaders at once. Gives the last reason to try again.
    async fn send_round(&mut self, deadline: Instant) -> Result<Option<ClientError>, ClientError> {
        let mut failure = None;
        let mut by_leader: HashMap<i32, Vec<(i32, Bytes)>> = HashMap::new();
        let partitions: Vec<i32> =
            self.queues.iter().filter(|(_, queue)| !queue.batches.is_empty()).map(|(id, _)| *id).collect();
        for partition in partitions {
            let Some(leader) = self.cluster.leader(&self.topic, partition) else {
                failure = Some(self.refused(partition, ErrorCode::LeaderNotAvailable));
                continue;
            };
            let batch = self.encode_first(partition)?;
            by_leader.entry(leader).or_default().push((partition, batch));
        }
        let mut rounds = Vec::new();
        for (leader, batches) in by_leader {
            let address = self.cluster.address(leader).unwrap_or_default().to_owned();
            match self.cluster.take_connection(&address).await {
                Ok(connection) => rounds.push((address, connection, batches)),
                Err(error) => failure = Some(error),
            }
        }
        let (acks, limit) = (self.options.acks, self.cluster.timeout());
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1)).min(limit);
        let topic = Text::from(self.topic.as_str());
        let answers = join_all(rounds.into_iter().map(async |(address, mut connection, batches)| {
            let partitions: Vec<i32> = batches.iter().map(|(partition, _)| *partition).collect();
            let request = request(&topic, acks, left, batches);
            let answer = if acks == 0 {
                connection.send(&request, PRODUCE_VERSION).await.map(|()| None)
            } else {
                // The broker answers within `left`; the rest is for the way.
                connection
                    .ask_within(&request, PRODUCE_VERSION, left + Duration::from_secs(5))
                    .await
                    .map(Some)
            };
            (address, connection, partitions, answer)
        }))
        .await;
        for (address, connection, partitions, answer) in answers {
            self.cluster.keep(&address, connection, &answer);
            match answer {
                Ok(None) => partitions.into_iter().for_each(|partition| self.acknowledge(partition, -1)),
                Ok(Some(response)) => failure = self.take_answer(response)?.or(failure),
                Err(error) if error.is_retriable() && self.may_repeat() => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Ok(failure)
    }

    /// Whether a batch whose fate is not known may be sent again: with acks=all the broker keeps it once, acks=1 means at
    /// least once, acks=0 means at most once.
    fn may_repeat(&self) -> bool {
        self.options.acks != 0
    }

    fn take_answer(&mut self, response: ProduceResponse) -> Result<Option<ClientError>, ClientError> {
        let mut failure = None;
        for one in response.responses.into_iter().flat_map(|topic| topic.partition_responses) {
            let code = ErrorCode::from_code(one.error_code);
            match code {
                ErrorCode::None => self.acknowledge(one.index, one.base_offset),
                // Sent again after it was written: the broker keeps the first, and no longer knows where.
                ErrorCode::DuplicateSequenceNumber => self.acknowledge(one.index, -1),
                ErrorCode::MessageTooLarge if self.split(one.index) => {}
                _ => {
                    let message =
                        one.record_errors.iter().find_map(|error| error.batch_index_error_message.clone());
                    let message = message.or(one.error_message).map(|text| text.to_string());
                    let what = format!("{}:{}", self.topic, one.index);
                    let refusal = ClientError::Refused { what, code, message };
                    if !code.is_retriable() {
                        return Err(refusal);
                    }
                    failure = Some(refusal);
                }
            }
        }
        Ok(failure)
    }

    /// The first batch of a partition is done with.
    fn acknowledge(&mut self, partition: i32, base_offset: i64) {
        let Some(queue) = self.queues.get_mut(&partition) else { return };
        let Some(batch) = queue.batches.pop_front() else { return };
        self.waiting_bytes -= batch.plain_bytes;
        let records = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
        let last_offset = if base_offset < 0 { -1 } else { base_offset.saturating_add_unsigned(records) - 1 };
        let value_bytes = |record: &NewRecord| record.value.as_ref().map_or(0, Bytes::len);
        let bytes: usize = batch.records.iter().map(value_bytes).sum();
        let written = queue.written.get_or_insert(Written {
            first_offset: base_offset,
            last_offset,
            records: 0,
            bytes: 0,
        });
        written.last_offset = last_offset;
        written.records += records;
        written.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// Halves a batch that the broker finds too large; its sequence was not used. False: it is a single record.
    fn split(&mut self, partition: i32) -> bool {
        let Some(queue) = self.queues.get_mut(&partition) else { return false };
        let Some(mut first) = queue.batches.pop_front() else { return false };
        if first.records.len() < 2 {
            queue.batches.push_front(first);
            return false;
        }
        if let Some(sequence) = first.sequence {
            queue.sequence = sequence;
        }
        let second = first.records.split_off(first.records.len() / 2);
        let pending = |records: Vec<NewRecord>| Pending {
            plain_bytes: records.iter().map(NewRecord::bytes).sum(),
            records,
            sequence: None,
        };
        queue.batches.push_front(pending(second));
        queue.batches.push_front(pending(first.records));
        true
    }

    fn encode_first(&mut self, partition: i32) -> Result<Bytes, ClientError> {
        let idempotent = self.producer_id >= 0;
        let (producer_id, producer_epoch, codec) =
            (self.producer_id, self.producer_epoch, self.options.codec);
        let topic = &self.topic;
        let Some(queue) = self.queues.get_mut(&partition) else { return Ok(Bytes::new()) };
        let Some(batch) = queue.batches.front_mut() else { return Ok(Bytes::new()) };
        let sequence = match batch.sequence {
            Some(sequence) => sequence,
            None => {
                let sequence = queue.sequence;
                queue.sequence = next_sequence(sequence, batch.records.len());
                *batch.sequence.insert(sequence)
            }
        };
        let options = BatchOptions {
            codec,
            producer_id,
            producer_epoch,
            base_sequence: if idempotent { sequence } else { -1 },
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        let wrong = |error: ottla_wire::records::BuildError| ClientError::Refused {
            what: format!("{topic}:{partition}"),
            code: ErrorCode::MessageTooLarge,
            message: Some(error.to_string()),
        };
        for record in &batch.records {
            let headers: Vec<(&[u8], Option<&[u8]>)> =
                record.headers.iter().map(|(key, value)| (&**key, value.as_deref())).collect();
            let timestamp = record.timestamp_ms.unwrap_or_default();
            builder
                .add(timestamp, record.key.as_deref(), record.value.as_deref(), &headers)
                .map_err(wrong)?;
        }
        builder.finish().map_err(wrong)
    }

    fn refused(&self, partition: i32, code: ErrorCode) -> ClientError {
        ClientError::refused(format!("{}:{partition}", self.topic), code.code())
    }
}

/// Sequences count up to the largest i32 and go on with 0.
fn next_sequence(sequence: i32, records: usize) -> i32 {
    let next = i64::from(sequence).saturating_add_unsigned(u64::try_from(records).unwrap_or(0));
    i32::try_from(next & 0x7fff_ffff).unwrap_or(0)
}

fn request(topic: &Text, acks: i16, limit: Duration, batches: Vec<(i32, Bytes)>) -> ProduceRequest {
    let partition_data = batches
        .into_iter()
        .map(|(index, batch)| produce_request::PartitionData { index, records: Some(Records::Bytes(batch)) })
        .collect();
    ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: i32::try_from(limit.as_millis()).unwrap_or(i32::MAX),
        topic_data: vec![produce_request::TopicData {
            name: topic.clone(),
            partition_data,
            ..produce_request::TopicData::default()
        }],
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer() -> Producer {
        Producer {
            cluster: Cluster::new(crate::client::Bootstrap::default(), Duration::from_secs(1)),
            topic: "t".into(),
            options: ProducerOptions { acks: -1, codec: Codec::None },
            producer_id: 7,
            producer_epoch: 0,
            queues: BTreeMap::new(),
            waiting_bytes: 0,
        }
    }

    fn header(batch: &Bytes) -> ottla_wire::records::BatchHeader {
        ottla_wire::records::BatchHeader::parse_whole(batch).unwrap()
    }

    #[tokio::test]
    async fn a_batch_that_is_sent_again_keeps_its_sequence_and_the_next_goes_on_from_it() {
        let mut producer = producer();
        for _ in 0..3 {
            producer.add(0, NewRecord::default()).await.unwrap();
        }
        let first = producer.encode_first(0).unwrap();
        assert_eq!(producer.encode_first(0).unwrap(), first);
        assert_eq!((header(&first).base_sequence, header(&first).record_count), (0, 3));
        // What comes after the first sending must not slip into the batch that may be written already.
        producer.add(0, NewRecord::default()).await.unwrap();
        producer.acknowledge(0, 100);
        let second = producer.encode_first(0).unwrap();
        assert_eq!((header(&second).base_sequence, header(&second).record_count), (3, 1));
        producer.acknowledge(0, 103);
        let written: Vec<_> = producer.written().collect();
        assert_eq!(written, [(0, Written { first_offset: 100, last_offset: 103, records: 4, bytes: 0 })]);
        assert_eq!(producer.waiting_bytes, 0);
    }

    #[tokio::test]
    async fn a_batch_that_is_too_large_is_halved_and_its_sequence_given_back() {
        let mut producer = producer();
        for _ in 0..4 {
            producer.add(0, NewRecord::default()).await.unwrap();
        }
        producer.encode_first(0).unwrap();
        assert!(producer.split(0));
        let half = producer.encode_first(0).unwrap();
        assert_eq!((header(&half).base_sequence, header(&half).record_count), (0, 2));
        producer.acknowledge(0, 0);
        let half = producer.encode_first(0).unwrap();
        assert_eq!((header(&half).base_sequence, header(&half).record_count), (2, 2));
        assert!(producer.split(0));
        assert!(!producer.split(0), "one record cannot be halved");
    }

    #[test]
    fn sequences_go_on_with_zero() {
        assert_eq!(next_sequence(0, 5), 5);
        assert_eq!(next_sequence(i32::MAX, 1), 0);
        assert_eq!(next_sequence(i32::MAX - 1, 3), 1);
    }
}
