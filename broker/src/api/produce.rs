//! Produce 3-13: appends batches to the partitions that this broker leads.
//!
//! Everything is appended when the request is dispatched, so that requests of one connection land in the order of the
//! wire; with acks=all the answer then waits, without the connection waiting, until every member of the ISR has the
//! records. acks=0 is not answered; if it fails the connection is closed, which is all that such a client can notice.
//!
//! The first records of a transaction in a partition wait until the transaction's coordinator has said that they may come
//! (`produce_transactional.rs`); nothing behind them on the connection is dispatched before.

use std::sync::Arc;
use std::time::Duration;

use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::produce_request::TopicData;
use ottla_wire::messages::produce_response::{
    CurrentLeader, NodeEndpoint, PartitionResponse, RecordError, Response as TopicResponse,
};
use ottla_wire::messages::{ProduceRequest, ProduceResponse};
use ottla_wire::text::Text;

use super::authorization::{Access, Operation};
use super::produce_transactional::{Questions, Verified};
use super::{Answer, Call, Client, Dispatcher, Response};
use crate::context::BrokerContext;
use crate::internal_topics::is_internal;
use crate::quotas::QuotaKind;
use crate::replica::{AckState, AppendedRecords, Partition, PartitionId, ProduceRefusal, Waiter};

/// From this version on topics are named by id.
const BY_ID_FROM: i16 = 13;
/// From this version on an answer that moves the client elsewhere names the new leader (KIP-951).
const LEADER_HINT_FROM: i16 = 10;

/// The client id of who may write internal topics.
const ADMIN_CLIENT: &str = "__admin_client";

/// A partition whose acknowledgement is still open.
struct Open {
    topic: usize,
    partition: usize,
    replica: Arc<Partition>,
    appended: AppendedRecords,
    /// acks=1 of a topic with `flush.messages=1`: the leader's own disk is waited for, and nobody else.
    is_own_disk: bool,
}

impl Open {
    fn wait(&self, waiter: &Arc<Waiter>) -> AckState {
        if self.is_own_disk {
            self.replica.await_synced(&self.appended, waiter)
        } else {
            self.replica.await_ack(&self.appended, waiter)
        }
    }

    fn result(&self) -> AckState {
        if self.is_own_disk {
            self.replica.synced_result(&self.appended)
        } else {
            self.replica.ack_result(&self.appended)
        }
    }
}

pub(super) fn handle(dispatcher: &Dispatcher, _: &mut Client, call: Call, request: ProduceRequest) -> Answer {
    let context = &dispatcher.context;
    // As in Kafka the whole request counts, and not its records alone.
    let bytes = call.request_bytes as u64;
    let throttle_time_ms =
        context.quotas.count_bytes(QuotaKind::Produce, &call.principal, call.client_name(), bytes);
    let access = context.access(&call);
    if let Some(id) = &request.transactional_id
        && let Err(code) = access.transactional_id(Operation::Write, id)
    {
        let response = ProduceResponse { throttle_time_ms, ..refuse_all(&request, code) };
        return call.ready(&response).muted(throttle_time_ms);
    }
    let questions = Questions::of(context, &access, call.version, &request);
    if questions.is_empty() {
        return append(context, call, access, request, &Verified::default(), throttle_time_ms)
            .muted(throttle_time_ms);
    }
    let context = Arc::clone(context);
    Answer::Exclusive(Box::pin(async move {
        let verified = questions.ask(&context).await;
        match append(&context, call, access, request, &verified, throttle_time_ms) {
            Answer::Ready(response) => response,
            Answer::Waiting(response) | Answer::Exclusive(response) => response.await,
            // Without acknowledgement there is nothing to say, and no connection to close from here.
            Answer::None | Answer::Close(_) => Response::default(),
        }
    }))
    .muted(throttle_time_ms)
}

fn append(
    context: &Arc<BrokerContext>,
    call: Call,
    access: Access,
    request: ProduceRequest,
    verified: &Verified,
    throttle_time_ms: i32,
) -> Answer {
    let acks = request.acks;
    if !(-1..=1).contains(&acks) {
        return call.ready(&refuse_all(&request, ErrorCode::InvalidRequiredAcks));
    }
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let is_admin = call.client_name() == ADMIN_CLIENT;
    let version = call.version;
    let mut append =
        Append { context, access, is_admin, version, acks, verified, open: Vec::new(), failed: false };
    let responses =
        request.topic_data.into_iter().enumerate().map(|(index, topic)| append.topic(index, topic)).collect();
    let Append { open, failed, .. } = append;
    let mut response = ProduceResponse { responses, throttle_time_ms, ..Default::default() };
    if acks == 0 {
        return if failed {
            Answer::Close("a produce without acknowledgement failed".into())
        } else {
            Answer::None
        };
    }
    if call.version >= LEADER_HINT_FROM && failed {
        add_endpoints(context, &call, &mut response);
    }
    if open.is_empty() {
        return call.ready(&response);
    }
    let waiter = Waiter::new(open.len());
    let open: Vec<Open> = open
        .into_iter()
        .filter(|open| {
            open.wait(&waiter) == AckState::Pending || {
                settle(context, &mut response, open);
                waiter.complete_one();
                false
            }
        })
        .collect();
    if open.is_empty() {
        if call.version >= LEADER_HINT_FROM {
            add_endpoints(context, &call, &mut response);
        }
        return call.ready(&response);
    }
    let context = Arc::clone(context);
    let at = call.clone();
    call.waiting(async move {
        let _ = tokio::time::timeout(timeout, waiter.wait()).await;
        for open in &open {
            settle(&context, &mut response, open);
        }
        if version >= LEADER_HINT_FROM {
            add_endpoints(&context, &at, &mut response);
        }
        response
    })
}

/// Enters the outcome of one acknowledgement into the answer. Whose leader is another one since is told which (KIP-951): that
/// is what most records meet that were under way when leadership moved.
fn settle(context: &BrokerContext, response: &mut ProduceResponse, open: &Open) {
    let code = match open.result() {
        AckState::Done => return,
        AckState::Pending => ErrorCode::RequestTimedOut,
        AckState::Failed(code) => code,
    };
    if let Some(answer) = response
        .responses
        .get_mut(open.topic)
        .and_then(|topic| topic.partition_responses.get_mut(open.partition))
    {
        answer.error_code = code.code();
        answer.base_offset = -1;
        answer.log_append_time_ms = -1;
        answer.log_start_offset = -1;
        if code == ErrorCode::NotLeaderOrFollower {
            answer.current_leader = leader_of(context, open.replica.id());
        }
    }
}

fn leader_of(context: &BrokerContext, id: PartitionId) -> CurrentLeader {
    let (leader_id, leader_epoch) = context.replicas.leader_of(id);
    CurrentLeader { leader_id, leader_epoch }
}

struct Append<'a> {
    context: &'a BrokerContext,
    access: Access,
    /// Kafka's admin client may write internal topics.
    is_admin: bool,
    version: i16,
    acks: i16,
    verified: &'a Verified,
    open: Vec<Open>,
    failed: bool,
}

impl Append<'_> {
    fn topic(&mut self, index: usize, topic: TopicData) -> TopicResponse {
        let TopicData { topic_id, name, partition_data } = topic;
        let replicas = &self.context.replicas;
        let known = if self.version >= BY_ID_FROM {
            let permitted = self.access.topic_by_id(Operation::Write, topic_id);
            permitted.and_then(|()| replicas.topic_by_id(topic_id).ok_or(ErrorCode::UnknownTopicId))
        } else {
            let permitted = self.access.topic(Operation::Write, &name);
            permitted.and_then(|()| replicas.topic_by_name(&name).ok_or(ErrorCode::UnknownTopicOrPartition))
        };
        let partition_responses = partition_data
            .into_iter()
            .enumerate()
            .map(|(position, data)| {
                let replica =
                    known.as_ref().map_err(|code| *code).and_then(|topic| topic.partition(data.index));
                let replica = replica.and_then(|replica| self.check_writable(replica));
                match replica {
                    Ok(replica) => self.partition(index, position, data.index, &replica, data.records),
                    Err(code) => {
                        let mut refused = self.refused(data.index, ProduceRefusal::from(code));
                        if let (ErrorCode::NotLeaderOrFollower, Ok(topic)) = (code, &known) {
                            let id = PartitionId { topic_id: topic.id(), index: data.index };
                            refused.current_leader = leader_of(self.context, id);
                        }
                        refused
                    }
                }
            })
            .collect();
        TopicResponse { topic_id, name, partition_responses }
    }

    /// What coordinators keep in topics is theirs to write.
    fn check_writable(&self, replica: Arc<Partition>) -> Result<Arc<Partition>, ErrorCode> {
        if is_internal(replica.topic()) && !self.is_admin {
            return Err(ErrorCode::InvalidTopicException);
        }
        Ok(replica)
    }

    fn partition(
        &mut self,
        topic: usize,
        position: usize,
        index: i32,
        replica: &Arc<Partition>,
        records: Option<Records>,
    ) -> PartitionResponse {
        let Some(Records::Bytes(records)) = records else {
            return self.refused(index, ProduceRefusal::from(ErrorCode::InvalidRecord));
        };
        let length = records.len();
        let appended = self.verified.of(topic, position).map_err(ProduceRefusal::from).and_then(|verified| {
            replica.append_of_version(records, self.acks, self.version, verified, BrokerContext::now_ms())
        });
        match appended {
            Ok(appended) => {
                let records = usize::try_from(appended.last_offset - appended.base_offset + 1).unwrap_or(0);
                self.context.metrics.produced_bytes.inc_by(length as u64);
                self.context.metrics.produced_records.inc_by(records as u64);
                replica.traffic.produced_bytes.add(length);
                replica.traffic.produced_records.add(records);
                let is_own_disk = self.acks == 1 && replica.is_synced_only();
                if self.acks == -1 || is_own_disk {
                    self.open.push(Open {
                        topic,
                        partition: position,
                        replica: Arc::clone(replica),
                        appended,
                        is_own_disk,
                    });
                }
                PartitionResponse {
                    index,
                    base_offset: appended.base_offset,
                    log_append_time_ms: appended.log_append_time_ms,
                    log_start_offset: appended.log_start_offset,
                    ..Default::default()
                }
            }
            Err(refusal) => self.refused(index, refusal),
        }
    }

    fn refused(&mut self, index: i32, refusal: ProduceRefusal) -> PartitionResponse {
        self.failed = true;
        self.context.metrics.failed_produces.inc();
        PartitionResponse {
            index,
            error_code: refusal.code.code(),
            base_offset: -1,
            log_start_offset: -1,
            record_errors: refusal
                .record_errors
                .into_iter()
                .map(|(batch_index, message)| RecordError {
                    batch_index,
                    batch_index_error_message: Some(message.into()),
                })
                .collect(),
            error_message: (!refusal.message.is_empty()).then(|| refusal.message.into()),
            current_leader: refusal
                .current_leader
                .map(|(leader_id, leader_epoch)| CurrentLeader { leader_id, leader_epoch })
                .unwrap_or_default(),
            ..Default::default()
        }
    }
}

fn refuse_all(request: &ProduceRequest, code: ErrorCode) -> ProduceResponse {
    let responses = request
        .topic_data
        .iter()
        .map(|topic| TopicResponse {
            topic_id: topic.topic_id,
            name: topic.name.clone(),
            partition_responses: topic
                .partition_data
                .iter()
                .map(|data| PartitionResponse {
                    index: data.index,
                    error_code: code.code(),
                    base_offset: -1,
                    ..Default::default()
                })
                .collect(),
        })
        .collect();
    ProduceResponse { responses, ..Default::default() }
}

/// Names the endpoints of the leaders that the answer points to.
fn add_endpoints(context: &BrokerContext, call: &Call, response: &mut ProduceResponse) {
    let mut leaders: Vec<i32> = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .map(|partition| partition.current_leader.leader_id)
        .filter(|leader| *leader >= 0)
        .collect();
    leaders.sort_unstable();
    leaders.dedup();
    response.node_endpoints = leaders
        .into_iter()
        .filter_map(|node_id| {
            let node = context.node(node_id, &call.listener)?;
            Some(NodeEndpoint { node_id, host: node.host, port: node.port, rack: node.rack.map(Text::from) })
        })
        .collect();
}
