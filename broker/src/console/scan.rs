//! Reading one partition for the console: fetches of bounded size until there are enough messages, the partition ends, or the budget does.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{FetchRequest, fetch_request, fetch_response};
use ottla_wire::records::{Batches, ControlRecord, EndTransaction, Record};
use ottla_wire::text::Text;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Console;
use super::answer::ApiError;
use super::filter::Filter;
use crate::context::BrokerContext;

/// A version of Fetch that names topics.
const FETCH_VERSION: i16 = 12;
/// Bytes of one fetch.
const FETCH_BYTES: i32 = 1 << 20;
/// Plain bytes of one batch: one that has more is named, not shown.
const BATCH_BYTES_MAX: u64 = 64 << 20;
/// Everything of one request takes about this long at most.
const TIME_MAX: Duration = Duration::from_millis(2_500);
/// Bytes that one request reads of all partitions.
const BYTES_MAX: usize = 64 << 20;
/// Headers shown of a message.
const HEADERS_MAX: usize = 100;
/// Bytes shown of a header.
const HEADER_BYTES_MAX: usize = 1_024;

/// What a scan may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    deadline: Instant,
    bytes: usize,
}

impl Budget {
    /// What each of so many scans of one request may use.
    pub(super) fn share(scans: usize) -> Self {
        Self { deadline: Instant::now() + TIME_MAX, bytes: BYTES_MAX / scans.max(1) }
    }

    /// Half of what is left: for a step that may turn out too long.
    fn half(&self) -> Self {
        Self { bytes: self.bytes.div_ceil(2), ..*self }
    }

    fn is_spent(&self) -> bool {
        self.bytes == 0 || Instant::now() >= self.deadline
    }
}

/// One partition, and what is wanted of it.
pub(super) struct Scan<'a> {
    pub(super) console: &'a Console,
    pub(super) context: &'a Arc<BrokerContext>,
    pub(super) topic: &'a Text,
    pub(super) partition: i32,
    /// Records of aborted transactions are left out.
    pub(super) committed: bool,
    pub(super) filter: &'a Filter,
}

/// What was found in a partition.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) partition: i32,
    /// First offset, and the one behind the last.
    pub(super) start: i64,
    pub(super) end: i64,
    /// Where to go on: forward the first offset not looked at, backward the one in front of which nothing was looked at.
    pub(super) next: i64,
    pub(super) messages: Vec<Message>,
    /// Records looked at.
    pub(super) scanned: usize,
    /// It ended before there was enough: by its budget.
    pub(super) is_exhausted: bool,
}

/// A record, or a batch that cannot be shown.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    is_transactional: bool,
    content: Result<Record, String>,
}

impl Scan<'_> {
    /// Messages from `first` on.
    pub(super) async fn forward(
        &self,
        first: i64,
        end: i64,
        limit: usize,
        mut budget: Budget,
    ) -> Result<Found, ApiError> {
        let mut sink = Sink { limit, ..Sink::default() };
        let next = self.between(first, end, &mut budget, &mut sink, true).await?;
        let is_exhausted = sink.kept.len() < limit && next < end;
        Ok(self.found((first, end), next, sink, is_exhausted))
    }

    /// The last messages in front of `end`: in steps back that double. A step whose end was not reached is taken again, as long as
    /// there is room for: else what is older would be shown and what is newer would not.
    pub(super) async fn backward(
        &self,
        start: i64,
        end: i64,
        limit: usize,
        mut budget: Budget,
    ) -> Result<Found, ApiError> {
        let mut all = Sink { limit, ..Sink::default() };
        let mut upper = end.max(start);
        let factor = if self.filter.is_empty() { 1 } else { 16 };
        let mut step = i64::try_from(limit).unwrap_or(i64::MAX).saturating_mul(factor);
        let mut is_exhausted = false;
        while upper > start && all.kept.len() < limit {
            let lower = upper.saturating_sub(step).max(start);
            let mut sink = Sink { limit, ..Sink::default() };
            let mut half = budget.half();
            let given = half.bytes;
            let reached = self.between(lower, upper, &mut half, &mut sink, false).await?;
            let used = given - half.bytes;
            budget.bytes = budget.bytes.saturating_sub(used);
            all.scanned += sink.scanned;
            if reached < upper {
                step = shorter(step, reached - lower, used, budget.half().bytes);
                is_exhausted = step == 0 || budget.is_spent();
                if is_exhausted {
                    break;
                }
                continue;
            }
            while let Some(message) = sink.kept.pop_back()
                && all.kept.len() < limit
            {
                all.kept.push_front(message);
            }
            upper = lower;
            step = step.saturating_mul(2);
        }
        let next = if all.kept.len() >= limit {
            all.kept.front().map_or(upper, |first| first.offset)
        } else {
            upper
        };
        Ok(self.found((start, end), next, all, is_exhausted))
    }

    fn found(&self, (start, end): (i64, i64), next: i64, sink: Sink, is_exhausted: bool) -> Found {
        let (messages, scanned) = (sink.kept.into(), sink.scanned);
        Found { partition: self.partition, start, end, next, messages, scanned, is_exhausted }
    }

    /// Reads from `from` up to `to` into the sink; gives the first offset that was not looked at.
    async fn between(
        &self,
        from: i64,
        to: i64,
        budget: &mut Budget,
        sink: &mut Sink,
        stops_full: bool,
    ) -> Result<i64, ApiError> {
        let mut next = from;
        while next < to && !budget.is_spent() && !(stops_full && sink.is_full()) {
            let answer = self.fetch(next).await?;
            let throttle_ms = u64::try_from(answer.throttle_time_ms).unwrap_or(0);
            let data =
                answer.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
            let Some(data) = data else {
                // A quota of fetches held it back.
                let pause = Duration::from_millis(throttle_ms.clamp(10, 500));
                tokio::time::sleep_until((Instant::now() + pause).min(budget.deadline)).await;
                continue;
            };
            if data.error_code != 0 {
                let code = ErrorCode::from_code(data.error_code);
                return Err(ApiError::of_code(
                    code,
                    format!("partition {}: {}", self.partition, code.name()),
                ));
            }
            let Some(Records::Bytes(bytes)) = data.records.filter(|records| !records.is_empty()) else {
                // There is nothing more that may be read.
                return Ok(to.max(from));
            };
            budget.bytes = budget.bytes.saturating_sub(bytes.len());
            let aborted = Aborted::new(data.aborted_transactions.unwrap_or_default());
            // Batches may be large and compressed: the broker's other work goes on meanwhile.
            let reached =
                tokio::task::block_in_place(|| self.take(bytes, next, to, aborted, sink, stops_full));
            if reached <= next {
                break;
            }
            next = reached;
        }
        Ok(next.min(to.max(from)))
    }

    async fn fetch(&self, offset: i64) -> Result<ottla_wire::messages::FetchResponse, ApiError> {
        let image = self.context.image.current();
        let known = image.topic_by_name(self.topic).zip(usize::try_from(self.partition).ok());
        let known = known.and_then(|(topic, index)| topic.partitions.get(index));
        let leader = known.and_then(|partition| partition.leader);
        let leader = leader.ok_or_else(|| ApiError::plain(ErrorCode::LeaderNotAvailable))?;
        let partition = fetch_request::Partition {
            partition: self.partition,
            current_leader_epoch: -1,
            fetch_offset: offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: FETCH_BYTES,
            ..Default::default()
        };
        let topic = fetch_request::Topic {
            topic: self.topic.clone(),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = FetchRequest {
            replica_id: -1,
            max_bytes: FETCH_BYTES,
            isolation_level: i8::from(self.committed),
            session_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        Ok(self.console.peers.call(self.context, leader.0, &request, FETCH_VERSION).await?)
    }

    /// Takes the records between two offsets out of batches; gives the first offset that was not looked at.
    fn take(
        &self,
        bytes: Bytes,
        from: i64,
        to: i64,
        mut aborted: Aborted,
        sink: &mut Sink,
        stops_full: bool,
    ) -> i64 {
        let mut next = from;
        for batch in Batches::new(bytes) {
            let Ok(batch) = batch else { break };
            let header = batch.header;
            aborted.advance(header.last_offset());
            if header.is_control() {
                if let Ok(mut records) = batch.records_limited(BATCH_BYTES_MAX)
                    && let Some(Ok(marker)) = records.next()
                {
                    aborted.end(header.producer_id, &marker);
                }
                next = header.next_offset();
                continue;
            }
            let is_hidden =
                self.committed && header.is_transactional() && aborted.now.contains(&header.producer_id);
            if !is_hidden {
                let is_transactional = header.is_transactional();
                let push = |sink: &mut Sink, offset, timestamp, content| {
                    sink.push(Message {
                        partition: self.partition,
                        offset,
                        timestamp,
                        is_transactional,
                        content,
                    });
                };
                match batch.records_limited(BATCH_BYTES_MAX) {
                    Ok(records) => {
                        for record in records {
                            match record {
                                Ok(record) if record.offset < next => {}
                                Ok(record) if record.offset >= to => return to,
                                Ok(record) => {
                                    if stops_full && sink.is_full() {
                                        return record.offset;
                                    }
                                    sink.scanned += 1;
                                    if self.filter.fits(&record) {
                                        push(sink, record.offset, record.timestamp, Ok(record));
                                    }
                                }
                                Err(error) => {
                                    push(
                                        sink,
                                        header.base_offset.max(next),
                                        header.max_timestamp,
                                        Err(error.to_string()),
                                    );
                                    break;
                                }
                            }
                        }
                    }
                    Err(error) => {
                        push(
                            sink,
                            header.base_offset.max(next),
                            header.max_timestamp,
                            Err(error.to_string()),
                        );
                    }
                }
            }
            next = header.next_offset();
            if next >= to {
                return next;
            }
        }
        next
    }
}

/// How many offsets to step back instead of `step`, of which the first `read` took `used` bytes, with `room` for so many; 0: none.
fn shorter(step: i64, read: i64, used: usize, room: usize) -> i64 {
    if read <= 0 || step <= 1 {
        return 0;
    }
    let each = used / usize::try_from(read).unwrap_or(usize::MAX).max(1);
    let fit = i64::try_from(room / each.max(1)).unwrap_or(i64::MAX);
    fit.clamp(1, step / 2)
}

/// The last messages, up to a limit.
#[derive(Default)]
struct Sink {
    kept: VecDeque<Message>,
    limit: usize,
    scanned: usize,
}

impl Sink {
    fn is_full(&self) -> bool {
        self.kept.len() >= self.limit
    }

    fn push(&mut self, message: Message) {
        if self.is_full() {
            self.kept.pop_front();
        }
        self.kept.push_back(message);
    }
}

/// Which producers' records are those of an aborted transaction, as the log goes by.
struct Aborted {
    /// By first offset, the greatest first.
    ahead: Vec<(i64, i64)>,
    now: HashSet<i64>,
}

impl Aborted {
    fn new(transactions: Vec<fetch_response::AbortedTransaction>) -> Self {
        let mut ahead: Vec<(i64, i64)> =
            transactions.into_iter().map(|one| (one.first_offset, one.producer_id)).collect();
        ahead.sort_unstable_by(|one, other| other.cmp(one));
        Self { ahead, now: HashSet::new() }
    }

    fn advance(&mut self, last_offset: i64) {
        while let Some((_, producer_id)) = self.ahead.pop_if(|(first, _)| *first <= last_offset) {
            self.now.insert(producer_id);
        }
    }

    fn end(&mut self, producer_id: i64, marker: &Record) {
        if let Ok(ControlRecord::EndTransaction { end: EndTransaction::Abort, .. }) =
            ControlRecord::parse(marker)
        {
            self.now.remove(&producer_id);
        }
    }
}

impl Message {
    /// The message with at most so many bytes of key and of value.
    pub(super) fn shown(&self, bytes_max: usize) -> Value {
        let mut shown = json!({
            "partition": self.partition,
            "offset": self.offset,
            "timestamp_ms": self.timestamp,
            "transactional": self.is_transactional,
        });
        match &self.content {
            Ok(record) => {
                let headers: Vec<Value> = record
                    .headers
                    .iter()
                    .take(HEADERS_MAX)
                    .map(|header| {
                        json!([
                            field(Some(&header.key), HEADER_BYTES_MAX),
                            field(header.value.as_ref(), HEADER_BYTES_MAX)
                        ])
                    })
                    .collect();
                shown["key"] = field(record.key.as_ref(), bytes_max);
                shown["value"] = field(record.value.as_ref(), bytes_max);
                shown["headers"] = json!(headers);
                shown["headers_in_all"] = json!(record.headers.len());
            }
            Err(error) => shown["error"] = json!(error),
        }
        shown
    }
}

/// `{"text"}` or, where it is no UTF-8, `{"base64"}`, with the length and whether it was cut; null stays null.
fn field(bytes: Option<&Bytes>, bytes_max: usize) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    let cut = bytes.get(..bytes_max).unwrap_or(bytes);
    let is_cut = cut.len() < bytes.len();
    let text = match std::str::from_utf8(cut) {
        Ok(text) => Some(text),
        // The cut may go through a letter.
        Err(error) if is_cut && error.error_len().is_none() => {
            cut.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok())
        }
        Err(_) => None,
    };
    match text {
        Some(text) => json!({ "text": text, "bytes": bytes.len(), "cut": is_cut }),
        None => json!({ "base64": BASE64.encode(cut), "bytes": bytes.len(), "cut": is_cut }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_text_or_base64_and_a_cut_leaves_letters_whole() {
        let show = |bytes: &'static [u8], most| field(Some(&Bytes::from_static(bytes)), most);
        assert_eq!(show(b"abc", 9), json!({ "text": "abc", "bytes": 3, "cut": false }));
        assert_eq!(show("aä".as_bytes(), 2), json!({ "text": "a", "bytes": 3, "cut": true }));
        assert_eq!(show(&[0xff, 0xfe], 9), json!({ "base64": "//4=", "bytes": 2, "cut": false }));
        assert_eq!(show(b"", 9), json!({ "text": "", "bytes": 0, "cut": false }));
        assert_eq!(field(None, 9), Value::Null);
    }

    #[test]
    fn a_step_that_was_too_long_is_taken_as_far_as_there_is_room() {
        // Five of fifty records took 5 MB, and there are 2.5 MB.
        assert_eq!(shorter(50, 5, 5_000_000, 2_500_000), 2);
        assert_eq!(shorter(50, 5, 5_000_000, 100), 1);
        assert_eq!(shorter(50, 49, 10, 5_000_000), 25);
        assert_eq!(shorter(1, 0, 0, 5_000_000), 0);
        assert_eq!(shorter(50, 0, 10, 5_000_000), 0);
    }

    #[test]
    fn the_last_messages_are_kept() {
        let mut sink = Sink { limit: 2, ..Sink::default() };
        for offset in 0..5 {
            let content = Err(String::new());
            sink.push(Message { partition: 0, offset, timestamp: 0, is_transactional: false, content });
        }
        assert_eq!(sink.kept.iter().map(|message| message.offset).collect::<Vec<_>>(), [3, 4]);
    }
}
