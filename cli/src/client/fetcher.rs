//! Reads records: one long poll to each leader at a time, all leaders at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use ottla_broker::security::ClientSecurity;
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{FetchRequest, FetchResponse, fetch_request, fetch_response};
use ottla_wire::records::{Batches, ControlRecord, EndTransaction};
use ottla_wire::text::Text;

use super::ClientError;
use super::cluster::{Cluster, RETRY_PAUSE};
use super::connection::Connection;
use super::offsets::{self, TopicPartition};
use super::records::Consumed;

/// Newest version of Fetch that is asked: it names topics.
const FETCH_VERSION: i16 = 12;
/// How long a leader may hold a fetch without news.
const WAIT_MS_MAX: i32 = 500;
/// Of one answer; a first batch that is larger comes all the same.
const RESPONSE_BYTES: i32 = 16 * 1024 * 1024;
/// Of one partition in an answer.
const PARTITION_BYTES: i32 = 1024 * 1024;
/// Plain bytes of one batch: a larger one is refused, lest a small batch fill the memory.
const BATCH_PLAIN_BYTES_MAX: u64 = 512 * 1024 * 1024;

type InFlight = BoxFuture<'static, Answer>;

#[derive(Debug)]
struct Answer {
    leader: i32,
    address: String,
    connection: Option<Connection>,
    response: Result<FetchResponse, ClientError>,
}

/// Reads partitions from given offsets on.
pub(crate) struct Fetcher {
    cluster: Cluster,
    positions: BTreeMap<TopicPartition, i64>,
    read_committed: bool,
    in_flight: FuturesUnordered<InFlight>,
    busy: HashSet<i32>,
    connections: HashMap<String, Connection>,
    /// Someone who was taken for a leader is none.
    stale: bool,
    failing_since: Option<Instant>,
}

impl Fetcher {
    /// Reads from `positions` on.
    pub(crate) fn new(
        cluster: Cluster,
        positions: BTreeMap<TopicPartition, i64>,
        read_committed: bool,
    ) -> Self {
        Self {
            cluster,
            positions,
            read_committed,
            in_flight: FuturesUnordered::new(),
            busy: HashSet::new(),
            connections: HashMap::new(),
            stale: false,
            failing_since: None,
        }
    }

    /// The next offset of each partition.
    pub(crate) fn positions(&self) -> &BTreeMap<TopicPartition, i64> {
        &self.positions
    }

    /// Gives the cluster back; what is under way is dropped.
    pub(crate) fn into_cluster(self) -> Cluster {
        self.cluster
    }

    /// The next records; none when a poll brought nothing. May be dropped while it waits: what is under way goes on with the
    /// next call.
    pub(crate) async fn next(&mut self) -> Result<Vec<Consumed>, ClientError> {
        if self.stale {
            tokio::time::sleep(RETRY_PAUSE).await;
            let mut topics: Vec<String> = self.positions.keys().map(|(topic, _)| topic.to_string()).collect();
            topics.dedup();
            match self.cluster.refresh(&topics).await {
                Ok(()) => self.stale = false,
                Err(error) => self.note_failure(error)?,
            }
        }
        self.start_polls();
        let Some(answer) = self.in_flight.next().await else {
            // Nobody leads anything.
            self.note_failure(ClientError::refused(
                "no partition has a leader",
                ErrorCode::LeaderNotAvailable.code(),
            ))?;
            self.stale = true;
            return Ok(Vec::new());
        };
        self.busy.remove(&answer.leader);
        if let Some(connection) = answer.connection {
            self.connections.insert(answer.address, connection);
        }
        match answer.response {
            Ok(response) => self.take(response).await,
            Err(error) => {
                self.stale = true;
                self.note_failure(error)?;
                Ok(Vec::new())
            }
        }
    }

    /// A failure may pass, but not for longer than the timeout.
    fn note_failure(&mut self, error: ClientError) -> Result<(), ClientError> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let passes = error.is_retriable()
            || matches!(error, ClientError::Refused { code: ErrorCode::UnknownTopicOrPartition, .. });
        if passes && since.elapsed() < self.cluster.timeout() { Ok(()) } else { Err(error) }
    }

    fn start_polls(&mut self) {
        let mut by_leader: HashMap<i32, Vec<(TopicPartition, i64)>> = HashMap::new();
        for (partition, offset) in &self.positions {
            match self.cluster.leader(&partition.0, partition.1) {
                Some(leader) if !self.busy.contains(&leader) => {
                    by_leader.entry(leader).or_default().push((partition.clone(), *offset));
                }
                Some(_) => {}
                None => self.stale = true,
            }
        }
        for (leader, partitions) in by_leader {
            let Some(address) = self.cluster.address(leader).map(str::to_owned) else { continue };
            let request = self.request(partitions);
            let connection = self.connections.remove(&address).filter(|connection| !connection.is_over());
            let (security, limit) = (self.cluster.security(), self.cluster.timeout());
            self.busy.insert(leader);
            self.in_flight.push(Box::pin(poll(leader, address, connection, request, security, limit)));
        }
    }

    fn request(&self, partitions: Vec<(TopicPartition, i64)>) -> FetchRequest {
        let mut topics: BTreeMap<Arc<str>, Vec<fetch_request::Partition>> = BTreeMap::new();
        for ((topic, partition), fetch_offset) in partitions {
            topics.entry(topic).or_default().push(fetch_request::Partition {
                partition,
                fetch_offset,
                partition_max_bytes: PARTITION_BYTES,
                ..fetch_request::Partition::default()
            });
        }
        FetchRequest {
            max_wait_ms: WAIT_MS_MAX,
            min_bytes: 1,
            max_bytes: RESPONSE_BYTES,
            isolation_level: i8::from(self.read_committed),
            topics: topics
                .into_iter()
                .map(|(name, partitions)| fetch_request::Topic {
                    topic: Text::from(&*name),
                    partitions,
                    ..fetch_request::Topic::default()
                })
                .collect(),
            ..FetchRequest::default()
        }
    }

    async fn take(&mut self, response: FetchResponse) -> Result<Vec<Consumed>, ClientError> {
        if response.error_code != 0 {
            self.stale = true;
            self.note_failure(ClientError::refused("fetch", response.error_code))?;
            return Ok(Vec::new());
        }
        let mut records = Vec::new();
        for topic in response.responses {
            let name: Arc<str> = Arc::from(&*topic.topic);
            for partition in topic.partitions {
                let key = (name.clone(), partition.partition_index);
                let Some(position) = self.positions.get(&key).copied() else { continue };
                match ErrorCode::from_code(partition.error_code) {
                    ErrorCode::None => {
                        self.failing_since = None;
                        let next = read(&key, position, self.read_committed, partition, &mut records)?;
                        self.positions.insert(key, next);
                    }
                    ErrorCode::OffsetOutOfRange => self.put_in_range(key, position).await?,
                    _ => {
                        self.stale = true;
                        let what = format!("{}:{}", key.0, key.1);
                        self.note_failure(ClientError::refused(what, partition.error_code))?;
                    }
                }
            }
        }
        Ok(records)
    }

    /// Records were deleted under way, or somebody asked for what is not there yet: the nearest offset that is.
    async fn put_in_range(&mut self, partition: TopicPartition, position: i64) -> Result<(), ClientError> {
        let ask = |timestamp| BTreeMap::from([(partition.clone(), timestamp)]);
        let first = offsets::list(&mut self.cluster, &ask(offsets::EARLIEST), self.read_committed).await?;
        let last = offsets::list(&mut self.cluster, &ask(offsets::LATEST), self.read_committed).await?;
        let range = (first.get(&partition).copied().unwrap_or(0), last.get(&partition).copied().unwrap_or(0));
        let next = position.clamp(range.0, range.1.max(range.0));
        eprintln!("{}:{} has no offset {position}; going on at {next}", partition.0, partition.1);
        self.positions.insert(partition, next);
        Ok(())
    }
}

async fn poll(
    leader: i32,
    address: String,
    connection: Option<Connection>,
    request: FetchRequest,
    security: ClientSecurity,
    limit: Duration,
) -> Answer {
    let mut connection = match connection {
        Some(connection) => connection,
        None => match Connection::open(&address, &security, limit).await {
            Ok(connection) => connection,
            Err(error) => return Answer { leader, address, connection: None, response: Err(error) },
        },
    };
    let wait = Duration::from_millis(u64::from(WAIT_MS_MAX.unsigned_abs()));
    let response = connection.ask_within(&request, FETCH_VERSION, limit + wait).await;
    let kept = response.is_ok().then_some(connection);
    Answer { leader, address, connection: kept, response }
}

/// Puts the records of a partition from `position` on behind `records`; gives the next offset.
pub(crate) fn read(
    partition: &TopicPartition,
    position: i64,
    read_committed: bool,
    answer: fetch_response::Partition,
    records: &mut Vec<Consumed>,
) -> Result<i64, ClientError> {
    let Some(Records::Bytes(bytes)) = answer.records else { return Ok(position) };
    let mut aborted = Aborted::new(answer.aborted_transactions.unwrap_or_default());
    let corrupt = |reason: String| ClientError::Refused {
        what: format!("{}:{} behind offset {position}", partition.0, partition.1),
        code: ErrorCode::CorruptMessage,
        message: Some(reason),
    };
    let mut next = position;
    for batch in Batches::new(bytes) {
        let batch = batch.map_err(|error| corrupt(error.to_string()))?;
        batch.verify_crc().map_err(|error| corrupt(error.to_string()))?;
        let header = batch.header;
        if header.next_offset() <= position {
            continue;
        }
        next = header.next_offset();
        if read_committed {
            aborted.advance(header.last_offset());
        }
        let in_order =
            batch.records_limited(BATCH_PLAIN_BYTES_MAX).map_err(|error| corrupt(error.to_string()))?;
        if header.is_control() {
            if let Some(Ok(marker)) = { in_order }.next() {
                aborted.end(header.producer_id, &marker);
            }
            continue;
        }
        if read_committed && header.is_transactional() && aborted.holds(header.producer_id) {
            continue;
        }
        for record in in_order {
            let record = record.map_err(|error| corrupt(error.to_string()))?;
            if record.offset < position {
                continue;
            }
            records.push(Consumed {
                topic: partition.0.clone(),
                partition: partition.1,
                offset: record.offset,
                timestamp_ms: record.timestamp,
                key: record.key,
                value: record.value,
                headers: record.headers.into_iter().map(|header| (header.key, header.value)).collect(),
            });
        }
    }
    Ok(next)
}

/// Which producers' records are those of an aborted transaction, as the log goes by.
#[derive(Debug)]
struct Aborted {
    /// By first offset, the last to come first.
    ahead: Vec<(i64, i64)>,
    now: HashSet<i64>,
}

impl Aborted {
    fn new(transactions: Vec<fetch_response::AbortedTransaction>) -> Self {
        let mut ahead: Vec<_> =
            transactions.into_iter().map(|one| (one.first_offset, one.producer_id)).collect();
        ahead.sort_unstable_by(|one, other| other.cmp(one));
        Self { ahead, now: HashSet::new() }
    }

    /// A batch up to `last_offset` comes.
    fn advance(&mut self, last_offset: i64) {
        while let Some((_, producer_id)) = self.ahead.pop_if(|(first, _)| *first <= last_offset) {
            self.now.insert(producer_id);
        }
    }

    fn end(&mut self, producer_id: i64, marker: &ottla_wire::records::Record) {
        if let Ok(ControlRecord::EndTransaction { end: EndTransaction::Abort, .. }) =
            ControlRecord::parse(marker)
        {
            self.now.remove(&producer_id);
        }
    }

    fn holds(&self, producer_id: i64) -> bool {
        self.now.contains(&producer_id)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ottla_wire::records::{BatchBuilder, BatchOptions, Marker, end_transaction_marker};

    use super::*;

    fn batch(base_offset: i64, producer_id: i64, values: &[&str]) -> Vec<u8> {
        let transactional = producer_id >= 0;
        let options = BatchOptions {
            base_offset,
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            transactional,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        for value in values {
            builder.add(1, None, Some(value.as_bytes()), &[]).unwrap();
        }
        builder.finish().unwrap().to_vec()
    }

    fn marker(offset: i64, producer_id: i64, end: EndTransaction) -> Vec<u8> {
        let marker = Marker { producer_id, producer_epoch: 0, coordinator_epoch: 0, timestamp_ms: 1 };
        let mut bytes = end_transaction_marker(end, marker).unwrap().to_vec();
        ottla_wire::records::set_base_offset(&mut bytes, offset);
        bytes
    }

    fn values(
        position: i64,
        read_committed: bool,
        bytes: Vec<u8>,
        aborted: &[(i64, i64)],
    ) -> (Vec<String>, i64) {
        let aborted = aborted
            .iter()
            .map(|(producer_id, first_offset)| fetch_response::AbortedTransaction {
                producer_id: *producer_id,
                first_offset: *first_offset,
            })
            .collect();
        let answer = fetch_response::Partition {
            records: Some(Records::Bytes(Bytes::from(bytes))),
            aborted_transactions: Some(aborted),
            ..fetch_response::Partition::default()
        };
        let mut records = Vec::new();
        let next = read(&("t".into(), 0), position, read_committed, answer, &mut records).unwrap();
        let text = |record: Consumed| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        (records.into_iter().map(text).collect(), next)
    }

    #[test]
    fn records_before_the_position_are_passed_over() {
        let bytes = [batch(0, -1, &["a", "b", "c"]), batch(3, -1, &["d"])].concat();
        assert_eq!(values(1, false, bytes.clone(), &[]), (vec!["b".into(), "c".into(), "d".into()], 4));
        assert_eq!(values(3, false, bytes, &[]), (vec!["d".into()], 4));
    }

    #[test]
    fn a_batch_that_is_cut_off_waits_for_the_next_answer() {
        let mut bytes = [batch(0, -1, &["a"]), batch(1, -1, &["b"])].concat();
        bytes.truncate(bytes.len() - 3);
        assert_eq!(values(0, false, bytes, &[]), (vec!["a".into()], 1));
    }

    #[test]
    fn aborted_records_are_left_out_only_when_committed_ones_are_wanted() {
        let bytes = [
            batch(0, 7, &["lost"]),
            batch(1, 8, &["kept"]),
            marker(2, 7, EndTransaction::Abort),
            batch(3, 7, &["later"]),
            marker(4, 7, EndTransaction::Commit),
            marker(5, 8, EndTransaction::Commit),
        ]
        .concat();
        assert_eq!(values(0, true, bytes.clone(), &[(7, 0)]), (vec!["kept".into(), "later".into()], 6));
        let all = vec!["lost".into(), "kept".into(), "later".into()];
        assert_eq!(values(0, false, bytes, &[]), (all, 6));
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut bytes = batch(0, -1, &["a"]);
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        let answer = fetch_response::Partition {
            records: Some(Records::Bytes(bytes.into())),
            ..fetch_response::Partition::default()
        };
        assert!(read(&("t".into(), 0), 0, false, answer, &mut Vec::new()).is_err());
    }
}
