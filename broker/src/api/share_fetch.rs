//! ShareFetch 1-2: records for a member of a share group, and what became of earlier ones (KIP-932).
//!
//! The answer refers to the records as ranges of the log's files, as Fetch does. With `is_renew_ack` (version 2, KIP-1222)
//! a request only says that the member goes on, and nothing is read.

use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::share_partition::session::{FINAL_EPOCH, Partition, SessionFetch, SessionKey};
use ottla_coordinator::share_partition::{AcquireMode, Wanted};
use ottla_metadata::features::SHARE_VERSION;
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::share_fetch_response::{
    AcquiredRecord, CurrentLeader, NodeEndpoint, Partition as PartitionData, Response as TopicData,
};
use ottla_wire::messages::{ShareFetchRequest, ShareFetchResponse};
use ottla_wire::text::Text;

use super::authorization::{Access, Operation};
use super::share_requests::{self, Outcomes, Said};
use super::{Answer, Call, Client, Dispatcher, Response};
use crate::context::BrokerContext;
use crate::network::FileRange;
use crate::quotas::{QuotaKind, tell};
use crate::share::{ShareFetch, SharePartitionAnswer};

/// From this version on members may renew their locks and say how exactly the number of records is kept.
const RENEW_FROM: i16 = 2;
/// No wait is longer, in milliseconds: a client that is gone must not be waited with for ever.
const WAIT_MS_MAX: u64 = 600_000;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    client: &mut Client,
    call: Call,
    mut request: ShareFetchRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    context.share.counters.fetches.add(1);
    let access = context.access(&call);
    let said = take_said(&mut request);
    let begun = begin(&context, &access, client, call.version, &request, !said.is_empty());
    let (session, partitions) = match begun {
        Ok(begun) => begun,
        Err((code, message)) => {
            context.share.counters.failed_fetches.add(1);
            let message = Text::from(message.unwrap_or_else(|| code.message()));
            return call.ready(&ShareFetchResponse {
                error_code: code.code(),
                error_message: Some(message),
                ..Default::default()
            });
        }
    };
    let burst = context.quotas.burst_bytes(QuotaKind::Fetch, &call.principal, call.client_name());
    let is_last = request.share_session_epoch == FINAL_EPOCH;
    let fetch = translate(&context, &session, partitions, &request, burst);
    let renews = (call.version >= RENEW_FROM, request.is_renew_ack);
    Answer::Waiting(Box::pin(async move {
        let outcomes =
            share_requests::acknowledge(Arc::clone(&context), access.clone(), session.clone(), said, renews)
                .await;
        if is_last {
            context.share.end_session(&session);
        }
        let found = if is_last || request.is_renew_ack {
            Vec::new()
        } else {
            read(&context, &access, fetch, !outcomes.is_empty()).await
        };
        respond(&context, &call, &session, found, outcomes)
    }))
}

/// What the request says of records, taken out of it.
fn take_said(request: &mut ShareFetchRequest) -> Vec<(Partition, Vec<Said>)> {
    let mut all = Vec::new();
    for topic in &mut request.topics {
        for partition in &mut topic.partitions {
            let batches = std::mem::take(&mut partition.acknowledgement_batches);
            if batches.is_empty() {
                continue;
            }
            let said = batches.into_iter().map(|batch| Said {
                first: batch.first_offset,
                last: batch.last_offset,
                types: batch.acknowledge_types,
            });
            all.push(((topic.topic_id, partition.partition_index), said.collect()));
        }
    }
    all
}

type Begun = (SessionKey, Vec<Partition>);

/// Checks the request as a whole, and begins or goes on with its session.
fn begin(
    context: &Arc<BrokerContext>,
    access: &Access,
    client: &mut Client,
    version: i16,
    request: &ShareFetchRequest,
    acknowledges: bool,
) -> Result<Begun, (ErrorCode, Option<&'static str>)> {
    if context.image.current().feature_level(SHARE_VERSION) == 0 {
        return Err((ErrorCode::UnsupportedVersion, None));
    }
    let key = share_requests::session_key(request.group_id.clone(), request.member_id.clone())
        .map_err(|code| (code, Some("The group id or the member id is missing.")))?;
    access.group(Operation::Read, &key.group_id).map_err(|code| (code, None))?;
    let reads =
        request.max_bytes > 0 || request.max_records > 0 || request.min_bytes > 0 || request.max_wait_ms > 0;
    if version >= RENEW_FROM && request.is_renew_ack && reads {
        return Err((ErrorCode::InvalidRequest, Some("A request that renews cannot ask for records.")));
    }
    if !(0..=1).contains(&request.share_acquire_mode) {
        return Err((ErrorCode::InvalidRequest, Some("The acquire mode is not known.")));
    }
    let named: Vec<Partition> = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|one| (topic.topic_id, one.partition_index)))
        .collect();
    let forgotten: Vec<Partition> = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic_id, *index)))
        .collect();
    let connection = client.share.get_or_insert_with(|| context.share.connected()).id();
    let fetch = SessionFetch {
        epoch: request.share_session_epoch,
        partitions: &named,
        forgotten: &forgotten,
        acknowledges,
        connection,
    };
    let partitions = context.share.session_fetch(&key, fetch).map_err(|code| (code, None))?;
    Ok((key, partitions))
}

fn translate(
    context: &BrokerContext,
    session: &SessionKey,
    partitions: Vec<Partition>,
    request: &ShareFetchRequest,
    burst: usize,
) -> ShareFetch {
    let bytes = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0).min(WAIT_MS_MAX);
    ShareFetch {
        group_id: session.group_id.clone(),
        member_id: session.member_id.clone(),
        wait: Duration::from_millis(wait_ms),
        bytes_min: bytes(request.min_bytes),
        bytes_max: bytes(request.max_bytes).min(context.options.fetch_bytes_max).min(burst),
        wanted: Wanted {
            records_max: i64::from(request.max_records.max(0)),
            batch_size: i64::from(request.batch_size.max(0)),
            mode: if request.share_acquire_mode == 1 {
                AcquireMode::RecordLimit
            } else {
                AcquireMode::BatchOptimized
            },
        },
        partitions,
    }
}

/// Reads what may be read. What was said of records is answered at once: the member waits for that.
async fn read(
    context: &BrokerContext,
    access: &Access,
    mut fetch: ShareFetch,
    has_said: bool,
) -> Vec<SharePartitionAnswer> {
    let mut refused = Vec::new();
    fetch.partitions.retain(|partition| match access.topic_by_id(Operation::Read, partition.0) {
        Ok(()) => true,
        Err(code) => {
            refused.push(SharePartitionAnswer::refused(*partition, code));
            false
        }
    });
    if has_said || !refused.is_empty() {
        fetch.wait = Duration::ZERO;
    }
    let mut found = context.share.fetch(&fetch).await;
    found.append(&mut refused);
    found
}

fn respond(
    context: &BrokerContext,
    call: &Call,
    session: &SessionKey,
    found: Vec<SharePartitionAnswer>,
    mut outcomes: Outcomes,
) -> Response {
    let mut response = ShareFetchResponse {
        acquisition_lock_timeout_ms: context.share.lock_duration_ms(&session.group_id),
        ..Default::default()
    };
    let (mut files, mut leaders, mut bytes) = (Vec::new(), Vec::new(), 0);
    for answer in found {
        let said = outcomes.remove(&answer.partition).unwrap_or(ErrorCode::None);
        let topic_id = answer.partition.0;
        bytes += answer.records.as_ref().map_or(0, |records| records.length as u64);
        let data = partition_data(answer, said, &mut files, &mut leaders);
        push(&mut response, topic_id, data);
    }
    for ((topic_id, partition_index), said) in outcomes {
        let mut data = PartitionData {
            partition_index,
            records: Some(Records::Bytes(bytes::Bytes::new())),
            ..Default::default()
        };
        set_said(&mut data, said);
        if said == ErrorCode::NotLeaderOrFollower {
            let (leader_id, leader_epoch) = share_requests::leader_of(context, (topic_id, partition_index));
            data.current_leader = CurrentLeader { leader_id, leader_epoch };
            leaders.push(leader_id);
        }
        push(&mut response, topic_id, data);
    }
    leaders.sort_unstable();
    leaders.dedup();
    let nodes = leaders.into_iter().filter_map(|id| context.node(id, &call.listener));
    response.node_endpoints = nodes
        .map(|node| NodeEndpoint {
            node_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack.map(Text::from),
        })
        .collect();
    context.metrics.fetched_bytes.inc_by(bytes);
    let answer = call.respond_with_files(&response, files);
    // What was given is the member's: it is sent, and the client is to be quiet afterwards. The whole answer counts.
    let bytes = answer.segments.length() as u64;
    let throttle_time_ms =
        context.quotas.count_bytes(QuotaKind::Fetch, &call.principal, call.client_name(), bytes);
    if throttle_time_ms == 0 {
        return answer;
    }
    tell(answer, call.api_key, call.version, throttle_time_ms)
}

fn push(response: &mut ShareFetchResponse, topic_id: uuid::Uuid, data: PartitionData) {
    match response.responses.iter_mut().find(|topic| topic.topic_id == topic_id) {
        Some(topic) => topic.partitions.push(data),
        None => response.responses.push(TopicData { topic_id, partitions: vec![data] }),
    }
}

fn set_said(data: &mut PartitionData, said: ErrorCode) {
    data.acknowledge_error_code = said.code();
    data.acknowledge_error_message = (said != ErrorCode::None).then(|| Text::from(said.message()));
}

fn partition_data(
    answer: SharePartitionAnswer,
    said: ErrorCode,
    files: &mut Vec<FileRange>,
    leaders: &mut Vec<i32>,
) -> PartitionData {
    let records = match answer.records {
        Some(records) => {
            let token = u32::try_from(files.len()).unwrap_or(u32::MAX);
            if let Some(traffic) = &records.traffic {
                traffic.fetched_bytes.add(records.length);
            }
            files.push(FileRange {
                file: records.file,
                position: records.position,
                length: records.length as u64,
            });
            Records::External { token, length: records.length }
        }
        None => Records::Bytes(bytes::Bytes::new()),
    };
    let current_leader = answer.current_leader.map(|(leader_id, leader_epoch)| {
        leaders.push(leader_id);
        CurrentLeader { leader_id, leader_epoch }
    });
    let acquired = answer.acquired.iter().map(|part| AcquiredRecord {
        first_offset: part.first,
        last_offset: part.last,
        delivery_count: part.delivery_count,
    });
    let mut data = PartitionData {
        partition_index: answer.partition.1,
        error_code: answer.error.code(),
        error_message: (answer.error != ErrorCode::None).then(|| Text::from(answer.error.message())),
        current_leader: current_leader.unwrap_or_default(),
        records: Some(records),
        acquired_records: acquired.collect(),
        ..Default::default()
    };
    set_said(&mut data, said);
    data
}
