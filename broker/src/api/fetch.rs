//! Fetch 4-18: records to consumers and to followers.
//!
//! Sessions, waiting and reading are in `crate::replica`; here a request is translated, and the answer refers to the
//! records as ranges of the log's files, which the connection sends without reading them.

use std::sync::Arc;

use ottla_replica::fetch_session::{PartitionKey, PartitionRequest, TopicKey};
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::fetch_request::Topic;
use ottla_wire::messages::fetch_response::{
    AbortedTransaction, CurrentLeader, DivergingEpoch, NodeEndpoint, Partition as PartitionData,
    Response as TopicData,
};
use ottla_wire::messages::{FetchRequest, FetchResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::{Access, Operation};
use super::{Answer, Call, Client, Dispatcher, Response};
use crate::context::BrokerContext;
use crate::metrics::PartitionTraffic;
use crate::network::FileRange;
use crate::quotas::QuotaKind;
use crate::replica::{FetchAnswer, FetchRequest as Fetch, FetchResult, FetchingReplica, Isolation, Permits};

/// From this version on topics are named by id.
const BY_ID_FROM: i16 = 13;
/// From this version on a follower says who it is, and of which epoch, in a struct of its own.
const REPLICA_STATE_FROM: i16 = 15;
/// From this version on the answer names the endpoints of new leaders (KIP-951).
const ENDPOINTS_FROM: i16 = 16;
/// From this version on consumers may be sent to a nearer replica (KIP-392).
const RACK_FROM: i16 = 11;
/// From this version on the answer can say what is wrong with the session.
const SESSION_FROM: i16 = 7;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    client: &mut Client,
    call: Call,
    request: FetchRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let mut fetch = translate(&context, call.version, request);
    let access = context.access(&call);
    let is_follower = fetch.replica.is_some();
    if is_follower {
        let permitted = access.cluster(Operation::ClusterAction);
        client.is_broker |= permitted.is_ok();
        fetch.permits = permitted.err().map(|_| Permits::new(|_| false));
    } else if access.is_bound() {
        fetch.permits = Some(Permits::new(move |topic| is_readable(&access, topic)));
    }
    if !is_follower {
        let burst = context.quotas.burst_bytes(QuotaKind::Fetch, &call.principal, call.client_name());
        fetch.bytes_max = fetch.bytes_max.min(burst);
        fetch.bytes_min = fetch.bytes_min.min(fetch.bytes_max);
    }
    Answer::Waiting(Box::pin(async move {
        let is_full = fetch.session_epoch <= 0;
        let answer = context.sessions.fetch(&context.replicas, fetch).await;
        let (error, session_id) = (answer.error, answer.session_id);
        let (response, sent) = respond(&context, &call, answer);
        if is_follower {
            context.metrics.replicated_out_bytes.inc_by(sent.bytes);
            return response;
        }
        // As in Kafka the whole answer counts, and not its records alone; above the limit it is not sent.
        let bytes = response.segments.length() as u64;
        let quotas = &context.quotas;
        let throttle_time_ms =
            quotas.try_count_bytes(QuotaKind::Fetch, &call.principal, call.client_name(), bytes);
        if throttle_time_ms > 0 {
            let session_id = if is_full { 0 } else { session_id };
            return throttled(&call, error, session_id, throttle_time_ms);
        }
        context.metrics.fetched_bytes.inc_by(sent.bytes);
        sent.traffic.iter().for_each(|(traffic, bytes)| traffic.fetched_bytes.add(*bytes));
        response
    }))
}

fn is_readable(access: &Access, topic: &TopicKey) -> bool {
    let permitted = match topic {
        TopicKey::Name(name) => access.topic(Operation::Read, name),
        TopicKey::Id(id) => access.topic_by_id(Operation::Read, Uuid::from_u128(*id)),
    };
    permitted.is_ok()
}

/// The answer of a consumer above its quota: nothing, and when to ask again. A full fetch makes no session by it.
fn throttled(call: &Call, error: ErrorCode, session_id: i32, throttle_time_ms: i32) -> Response {
    let response =
        FetchResponse { throttle_time_ms, error_code: error.code(), session_id, ..Default::default() };
    call.respond(&response).muted(throttle_time_ms)
}

/// The records of an answer, to be counted when it is sent.
#[derive(Default)]
struct Sent {
    bytes: u64,
    traffic: Vec<(Arc<PartitionTraffic>, usize)>,
}

fn translate(context: &BrokerContext, version: i16, request: FetchRequest) -> Fetch {
    let uses_topic_ids = version >= BY_ID_FROM;
    let (replica_id, replica_epoch) = if version >= REPLICA_STATE_FROM {
        (request.replica_state.replica_id, request.replica_state.replica_epoch)
    } else {
        (request.replica_id, -1)
    };
    let mut forgotten = Vec::new();
    for topic in request.forgotten_topics_data {
        let key = topic_key(uses_topic_ids, topic.topic_id, &topic.topic);
        forgotten
            .extend(topic.partitions.into_iter().map(|index| PartitionKey { topic: key.clone(), index }));
    }
    Fetch {
        wait_ms_max: u64::try_from(request.max_wait_ms).unwrap_or(0),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0).min(context.options.fetch_bytes_max),
        isolation: if request.isolation_level == 1 {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        },
        replica: (replica_id >= 0)
            .then_some(FetchingReplica { broker_id: replica_id, broker_epoch: replica_epoch }),
        allow_follower: version >= RACK_FROM,
        rack: request.rack_id.to_string(),
        session_id: if version >= SESSION_FROM { request.session_id } else { 0 },
        session_epoch: if version >= SESSION_FROM { request.session_epoch } else { -1 },
        uses_topic_ids,
        permits: None,
        partitions: request.topics.into_iter().flat_map(|topic| partitions(uses_topic_ids, topic)).collect(),
        forgotten,
    }
}

fn partitions(uses_topic_ids: bool, topic: Topic) -> impl Iterator<Item = (PartitionKey, PartitionRequest)> {
    let key = topic_key(uses_topic_ids, topic.topic_id, &topic.topic);
    topic.partitions.into_iter().map(move |partition| {
        (
            PartitionKey { topic: key.clone(), index: partition.partition },
            PartitionRequest {
                fetch_offset: partition.fetch_offset,
                bytes_max: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                log_start_offset: partition.log_start_offset,
                high_watermark: partition.high_watermark,
            },
        )
    })
}

fn topic_key(uses_topic_ids: bool, id: Uuid, name: &Text) -> TopicKey {
    if uses_topic_ids { TopicKey::Id(id.as_u128()) } else { TopicKey::Name(Arc::from(&**name)) }
}

fn respond(context: &BrokerContext, call: &Call, answer: FetchAnswer) -> (Response, Sent) {
    let mut response = FetchResponse {
        error_code: answer.error.code(),
        session_id: answer.session_id,
        ..Default::default()
    };
    let mut files = Vec::new();
    let mut leaders = Vec::new();
    let mut sent = Sent::default();
    for (key, mut result) in answer.partitions {
        if let Some((leader, _)) = result.current_leader {
            leaders.push(leader);
        }
        if result.error != ErrorCode::None {
            context.metrics.failed_fetches.inc();
        }
        if let (Some(traffic), Some(slice)) = (result.traffic.take(), &result.slice) {
            sent.traffic.push((traffic, slice.length));
        }
        let data = partition_data(key.index, result, &mut files, &mut sent.bytes);
        // Partitions of one topic stand together; the session gives them in the order of room, topic after topic.
        match response.responses.last_mut() {
            Some(last) if is_same(last, &key.topic) => last.partitions.push(data),
            _ => response.responses.push(topic_data(&key.topic, data)),
        }
    }
    if call.version >= ENDPOINTS_FROM && !leaders.is_empty() {
        leaders.sort_unstable();
        leaders.dedup();
        response.node_endpoints = leaders
            .into_iter()
            .filter_map(|id| context.node(id, &call.listener))
            .map(|node| NodeEndpoint {
                node_id: node.id,
                host: node.host,
                port: node.port,
                rack: node.rack.map(Text::from),
            })
            .collect();
    }
    (call.respond_with_files(&response, files), sent)
}

fn topic_data(topic: &TopicKey, data: PartitionData) -> TopicData {
    let mut answer = TopicData { partitions: vec![data], ..Default::default() };
    match topic {
        TopicKey::Name(name) => answer.topic = Text::from(&**name),
        TopicKey::Id(id) => answer.topic_id = Uuid::from_u128(*id),
    }
    answer
}

fn is_same(answer: &TopicData, topic: &TopicKey) -> bool {
    match topic {
        TopicKey::Name(name) => *answer.topic == **name,
        TopicKey::Id(id) => answer.topic_id.as_u128() == *id,
    }
}

fn partition_data(
    index: i32,
    result: FetchResult,
    files: &mut Vec<FileRange>,
    bytes: &mut u64,
) -> PartitionData {
    let records = match result.slice {
        Some(slice) if slice.length > 0 => {
            let token = u32::try_from(files.len()).unwrap_or(u32::MAX);
            let length = slice.length;
            *bytes += length as u64;
            files.push(FileRange { file: slice.file, position: slice.position, length: length as u64 });
            Records::External { token, length }
        }
        _ => Records::Bytes(bytes::Bytes::new()),
    };
    PartitionData {
        partition_index: index,
        error_code: result.error.code(),
        high_watermark: result.high_watermark,
        last_stable_offset: result.last_stable_offset,
        log_start_offset: result.log_start_offset,
        aborted_transactions: result.aborted.map(|aborted| {
            aborted
                .into_iter()
                .map(|(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset })
                .collect()
        }),
        preferred_read_replica: result.preferred_read_replica,
        records: Some(records),
        diverging_epoch: result
            .diverging
            .map(|(epoch, end_offset)| DivergingEpoch { epoch, end_offset })
            .unwrap_or_default(),
        current_leader: result
            .current_leader
            .map(|(leader_id, leader_epoch)| CurrentLeader { leader_id, leader_epoch })
            .unwrap_or_default(),
        ..Default::default()
    }
}
