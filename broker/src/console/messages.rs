//! `GET /topics/{name}/messages`: records of one partition or of all, by offset, by time, the oldest or the newest, with filters.
//!
//! `from` is one of `newest`, `oldest`, `offset` (with `offset`), `before` (the last ones in front of `offset`), `time` (with
//! `time`, ms since 1970). Without `partition` all partitions are read and merged by time stamp.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use futures_util::StreamExt;
use futures_util::stream;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use serde_json::{Value, json};

use super::Console;
use super::answer::{Answer, ApiError, Json};
use super::filter::Filter;
use super::login::Caller;
use super::offsets::{EARLIEST, LATEST, Offsets, Partitions};
use super::parameters::Parameters;
use super::scan::{Budget, Found, Scan};
use super::topics::unknown_topic;
use crate::api::authorization::Operation;
use crate::context::BrokerContext;

/// Messages of an answer.
const LIMIT_MAX: i64 = 500;
const LIMIT: i64 = 50;
/// Bytes shown of each key and value.
const SHOWN_BYTES_MAX: i64 = 1 << 20;
const SHOWN_BYTES: i64 = 1_024;
/// Bytes shown of all messages of an answer: beyond, fields are cut shorter.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Partitions that are read at once where none is named. A topic with more asks for one.
const PARTITIONS_MAX: usize = 64;
/// Partitions that are asked at the same time.
const AT_ONCE: usize = 8;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Newest,
    Oldest,
    At(i64),
    Before(i64),
    Time(i64),
}

struct Wanted {
    from: From,
    partition: Option<i32>,
    limit: usize,
    shown_bytes: usize,
    committed: bool,
    filter: Filter,
}

impl Wanted {
    fn read(parameters: &Parameters) -> Result<Self, ApiError> {
        let number = |name, least, most| parameters.number(name, least, most);
        let given = |name: &str| ApiError::invalid(format!("\"{name}\" is not given"));
        let offset = || number("offset", 0, i64::MAX)?.ok_or_else(|| given("offset"));
        let from = match parameters.word("from", &["newest", "oldest", "offset", "before", "time"])? {
            "oldest" => From::Oldest,
            "offset" => From::At(offset()?),
            "before" => From::Before(offset()?),
            "time" => From::Time(number("time", 0, i64::MAX)?.ok_or_else(|| given("time"))?),
            _ => From::Newest,
        };
        let partition = number("partition", 0, i64::from(i32::MAX))?.and_then(|one| i32::try_from(one).ok());
        if partition.is_none() && matches!(from, From::At(_) | From::Before(_)) {
            return Err(ApiError::invalid("an offset is one of a partition: \"partition\" is not given"));
        }
        let size = |name, default, most| {
            let found = number(name, 1, most)?.unwrap_or(default);
            Ok::<_, ApiError>(usize::try_from(found).unwrap_or(1))
        };
        Ok(Self {
            from,
            partition,
            limit: size("limit", LIMIT, LIMIT_MAX)?,
            shown_bytes: size("bytes", SHOWN_BYTES, SHOWN_BYTES_MAX)?,
            committed: parameters.word("isolation", &["committed", "uncommitted"])? == "committed",
            filter: Filter::read(parameters)?,
        })
    }

    /// Whether the newest come first.
    fn is_backward(&self) -> bool {
        matches!(self.from, From::Newest | From::Before(_))
    }
}

/// The handler.
pub(super) async fn read(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let wanted = Wanted::read(&Parameters::parse(query.as_deref())?)?;
    caller.access(&console).topic(Operation::Read, &name).map_err(ApiError::plain)?;
    let context = console.context()?;
    let topic = Text::from(name.as_str());
    let partitions = chosen(context, &name, wanted.partition)?;
    let all = Partitions::from([(topic.clone(), partitions.clone())]);
    let times = async {
        match wanted.from {
            From::Time(time) => Some(console.offsets_at(context, &all, time).await),
            _ => None,
        }
    };
    let (starts, written, ends, times) = tokio::join!(
        console.offsets_at(context, &all, EARLIEST),
        console.offsets_at(context, &all, LATEST),
        console.offsets_for(context, &all, LATEST, wanted.committed),
        times,
    );
    let share = Budget::share(partitions.len());
    let scans = partitions.iter().map(|partition| {
        let key = (topic.clone(), *partition);
        let bounds = starts.get(&key).zip(ends.get(&key)).map(|(start, end)| (*start, *end));
        let first = times.as_ref().and_then(|times| times.get(&key).copied());
        let (console, wanted, topic) = (&console, &wanted, &topic);
        async move {
            let (start, end) = bounds.ok_or_else(|| no_leader(context, topic, *partition))?;
            let scan = Scan {
                console,
                context,
                topic,
                partition: *partition,
                committed: wanted.committed,
                filter: &wanted.filter,
            };
            // No record at or after a time: reading begins at the end.
            let first = match wanted.from {
                From::At(offset) => offset.max(start),
                From::Time(_) => first.filter(|offset| *offset >= 0).unwrap_or(end),
                _ => start,
            };
            let found = match wanted.from {
                From::Newest => scan.backward(start, end, wanted.limit, share).await,
                From::Before(offset) => scan.backward(start, end.min(offset), wanted.limit, share).await,
                _ => scan.forward(first, end, wanted.limit, share).await,
            };
            // Wherever reading began: what is told of the partition is where its log does.
            found.map(|found| Found { start, end, ..found })
        }
    });
    // Collected first: a closure that borrows cannot be moved into the stream.
    let scans: Vec<_> = scans.collect();
    let results: Vec<Result<Found, ApiError>> = stream::iter(scans).buffer_unordered(AT_ONCE).collect().await;
    merged(&wanted, &partitions, &written, results)
}

fn no_leader(context: &BrokerContext, topic: &str, partition: i32) -> ApiError {
    let image = context.image.current();
    let index = usize::try_from(partition).ok();
    let known = image.topic_by_name(topic).and_then(|topic| topic.partitions.get(index?));
    let why = match known.and_then(|partition| partition.leader) {
        Some(leader) => format!("the leader of partition {partition}, broker {}, does not answer", leader.0),
        None => format!("partition {partition} has no leader"),
    };
    ApiError::of_code(ErrorCode::LeaderNotAvailable, why)
}

/// The partitions to read.
fn chosen(context: &BrokerContext, name: &str, partition: Option<i32>) -> Result<Vec<i32>, ApiError> {
    let image = context.image.current();
    let topic = image.topic_by_name(name).ok_or_else(|| unknown_topic(name))?;
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    match partition {
        Some(one) if one < count => Ok(vec![one]),
        Some(one) => Err(ApiError::not_found(
            ErrorCode::UnknownTopicOrPartition,
            format!("topic \"{name}\" has no partition {one}"),
        )),
        None if topic.partitions.len() > PARTITIONS_MAX => Err(ApiError::invalid(format!(
            "topic \"{name}\" has more than {PARTITIONS_MAX} partitions: choose one with \"partition\""
        ))),
        None => Ok((0..count).collect()),
    }
}

/// One list out of those of the partitions. A partition that failed is told of; if it was the only one, that is the answer.
fn merged(
    wanted: &Wanted,
    partitions: &[i32],
    written: &Offsets,
    results: Vec<Result<Found, ApiError>>,
) -> Answer {
    let written: HashMap<i32, i64> =
        written.iter().map(|((_, partition), offset)| (*partition, *offset)).collect();
    let mut messages = Vec::new();
    let mut failures = Vec::new();
    let mut positions: Vec<Value> = Vec::new();
    let (mut scanned, mut is_exhausted) = (0, false);
    for result in results {
        match result {
            Ok(found) => {
                scanned += found.scanned;
                is_exhausted |= found.is_exhausted;
                positions.push(json!({
                    "partition": found.partition,
                    "start": found.start,
                    "end": found.end,
                    "next": found.next,
                    // Beyond the end: what belongs to a transaction that is still open, and what was written after it began.
                    "held_back": written.get(&found.partition).map_or(0, |to| (to - found.end).max(0)),
                }));
                messages.extend(found.messages);
            }
            Err(error) if partitions.len() == 1 => return Err(error),
            Err(error) => failures.push(error.message().to_owned()),
        }
    }
    if wanted.is_backward() {
        messages
            .sort_by_key(|message| std::cmp::Reverse((message.timestamp, message.offset, message.partition)));
        if partitions.len() == 1 {
            messages.sort_by_key(|message| std::cmp::Reverse(message.offset));
        }
    } else if partitions.len() == 1 {
        messages.sort_by_key(|message| message.offset);
    } else {
        messages.sort_by_key(|message| (message.timestamp, message.partition, message.offset));
    }
    messages.truncate(wanted.limit);
    let room = (ANSWER_BYTES_MAX / messages.len().max(1)).min(wanted.shown_bytes);
    positions.sort_by_key(|position| position["partition"].as_i64());
    let messages: Vec<Value> = messages.iter().map(|message| message.shown(room)).collect();
    Ok(Json(json!({
        "messages": messages,
        "positions": positions,
        "scanned": scanned,
        "exhausted": is_exhausted,
        "failures": failures,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(query: &str) -> Result<Wanted, ApiError> {
        Wanted::read(&Parameters::parse(Some(query)).unwrap())
    }

    #[test]
    fn where_reading_begins_is_one_of_five() {
        assert_eq!(wanted("").unwrap().from, From::Newest);
        assert_eq!(wanted("from=offset&offset=7&partition=1").unwrap().from, From::At(7));
        assert_eq!(wanted("from=before&offset=7&partition=1").unwrap().from, From::Before(7));
        assert_eq!(wanted("from=time&time=9").unwrap().from, From::Time(9));
        for wrong in [
            "from=offset&partition=0",
            "from=offset&offset=3",
            "from=offset&offset=-1&partition=0",
            "from=offset&offset=9223372036854775808&partition=0",
            "from=time",
            "from=nowhere",
            "limit=0",
            "limit=501",
            "bytes=1048577",
            "partition=-1",
            "partition=4294967296",
            "isolation=none",
        ] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }
}
