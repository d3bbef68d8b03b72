//! One batch of one partition, sent until its fate is known: what `verify` and `perf` write with.
//!
//! A fate is one of three. A timeout or a broken connection, and most refusals too, leave open whether the batch is in the
//! log; it counts as refused only when no attempt can have written it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{InitProducerIdRequest, ProduceRequest, produce_request};
use ottla_wire::text::Text;

use super::ClientError;
use super::cluster::{Cluster, RETRY_PAUSE};

/// Newest version of Produce that is asked: it names topics, and from it on a transaction's partitions add themselves.
pub(crate) const PRODUCE_VERSION: i16 = 12;
/// Newest version of Produce of transactions whose partitions are added by hand.
pub(crate) const PRODUCE_VERSION_ADDED: i16 = 11;
/// Newest version of InitProducerId that is asked.
const INIT_PRODUCER_ID_VERSION: i16 = 4;
/// How long a leader may wait for its followers before it answers; the batch is sent again then.
const ATTEMPT: Duration = Duration::from_secs(3);
/// More than [`ATTEMPT`], for the way.
const WAY: Duration = Duration::from_secs(1);

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Acknowledged: its first offset, -1 where the broker no longer knows it.
    Written(i64),
    /// Certainly not in the log.
    Refused(ClientError),
    /// In the log or not.
    Unknown(ClientError),
}

/// Where a batch goes and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) acks: i16,
    pub(crate) transactional_id: Option<&'a str>,
    /// Newest version of Produce.
    pub(crate) version: i16,
}

/// Sends a batch, again and again until the deadline. It must be idempotent, or it may be written several times.
pub(crate) async fn send(
    cluster: &mut Cluster,
    target: Target<'_>,
    batch: &Bytes,
    deadline: Instant,
) -> Fate {
    let mut may_be_written = false;
    loop {
        let error = match attempt(cluster, target, batch).await {
            Ok(offset) => return Fate::Written(offset),
            Err(error) => error,
        };
        let leaves_open = leaves_open(&error);
        may_be_written |= leaves_open;
        if !error.is_retriable() || Instant::now() >= deadline {
            return if may_be_written { Fate::Unknown(error) } else { Fate::Refused(error) };
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        // The next attempt will tell whether this helped.
        drop(cluster.refresh(&[target.topic.to_owned()]).await);
    }
}

async fn attempt(cluster: &mut Cluster, target: Target<'_>, batch: &Bytes) -> Result<i64, ClientError> {
    let what = || format!("{}:{}", target.topic, target.partition);
    let Some(leader) = cluster.leader(target.topic, target.partition) else {
        return Err(ClientError::refused(what(), ErrorCode::LeaderNotAvailable.code()));
    };
    let address = cluster.address(leader).unwrap_or_default().to_owned();
    let request = request(target, batch);
    if target.acks == 0 {
        let mut connection = cluster.take_connection(&address).await?;
        let answer = connection.send(&request, target.version).await;
        cluster.keep(&address, connection, &answer);
        return answer.map(|()| -1);
    }
    let answer = cluster.ask_at_within(&address, &request, target.version, ATTEMPT + WAY).await?;
    let one = answer.responses.into_iter().flat_map(|topic| topic.partition_responses).next();
    let Some(one) = one else {
        let reason = "no partition in the answer".to_owned();
        return Err(ClientError::Garbled { address, what: "Produce", reason });
    };
    match ErrorCode::from_code(one.error_code) {
        ErrorCode::None => Ok(one.base_offset),
        // Sent again after it was written: the broker keeps the first, and no longer knows where.
        ErrorCode::DuplicateSequenceNumber => Ok(-1),
        code => {
            let message = one.error_message.map(|text| text.to_string());
            Err(ClientError::Refused { what: what(), code, message })
        }
    }
}

/// Whether the batch may be in the log although this was the answer.
fn leaves_open(error: &ClientError) -> bool {
    let ClientError::Refused { code, .. } = error else { return true };
    !matches!(
        code,
        ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::InvalidTopicException
            | ErrorCode::InvalidRecord
            | ErrorCode::InvalidRequiredAcks
            | ErrorCode::InvalidTimestamp
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::UnsupportedCompressionType
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::NotEnoughReplicas
    )
}

fn request(target: Target<'_>, batch: &Bytes) -> ProduceRequest {
    let records = Some(Records::Bytes(batch.clone()));
    ProduceRequest {
        transactional_id: target.transactional_id.map(Text::from),
        acks: target.acks,
        timeout_ms: i32::try_from(ATTEMPT.as_millis()).unwrap_or(i32::MAX),
        topic_data: vec![produce_request::TopicData {
            name: Text::from(target.topic),
            partition_data: vec![produce_request::PartitionData { index: target.partition, records }],
            ..produce_request::TopicData::default()
        }],
    }
}

/// A new producer id and its epoch, for a producer without transactions.
pub(crate) async fn producer_id(cluster: &mut Cluster, deadline: Instant) -> Result<(i64, i16), ClientError> {
    let request = InitProducerIdRequest {
        // Not what is the default, which is an empty text.
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    loop {
        let error = match cluster.ask_any(&request, INIT_PRODUCER_ID_VERSION).await {
            Ok(answer) if answer.error_code == 0 => return Ok((answer.producer_id, answer.producer_epoch)),
            Ok(answer) => ClientError::refused("producer id", answer.error_code),
            Err(error) => error,
        };
        if !error.is_retriable() || Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_that_come_before_the_append_are_certain() {
        let refused = |code: ErrorCode| ClientError::refused("t:0", code.code());
        for code in [ErrorCode::MessageTooLarge, ErrorCode::NotEnoughReplicas, ErrorCode::InvalidRecord] {
            assert!(!leaves_open(&refused(code)), "{code}");
        }
        for code in [
            ErrorCode::NotEnoughReplicasAfterAppend,
            ErrorCode::RequestTimedOut,
            ErrorCode::NotLeaderOrFollower,
            ErrorCode::OutOfOrderSequenceNumber,
            ErrorCode::UnknownServerError,
        ] {
            assert!(leaves_open(&refused(code)), "{code}");
        }
        assert!(leaves_open(&ClientError::Connection { address: String::new(), reason: String::new() }));
    }
}
