//! ShareAcknowledge 1-2: what became of records that a member of a share group was given (KIP-932).

use std::sync::Arc;

use ottla_coordinator::share_partition::session::{FINAL_EPOCH, Partition};
use ottla_metadata::features::SHARE_VERSION;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::share_acknowledge_response::{
    CurrentLeader, NodeEndpoint, Partition as PartitionData, Response as TopicData,
};
use ottla_wire::messages::{ShareAcknowledgeRequest, ShareAcknowledgeResponse};
use ottla_wire::text::Text;

use super::authorization::Operation;
use super::share_requests::{self, Outcomes, Said};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// From this version on members may renew their locks, and are told how long these are.
const RENEW_FROM: i16 = 2;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ShareAcknowledgeRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let access = context.access(&call);
    let served = context.image.current().feature_level(SHARE_VERSION) > 0;
    let key = if served {
        share_requests::session_key(request.group_id.clone(), request.member_id.clone())
    } else {
        Err(ErrorCode::UnsupportedVersion)
    };
    let begun = key.and_then(|key| {
        access.group(Operation::Read, &key.group_id)?;
        context.share.session_acknowledge(&key, request.share_session_epoch)?;
        Ok(key)
    });
    let session = match begun {
        Ok(session) => session,
        Err(code) => {
            return call.ready(&ShareAcknowledgeResponse {
                error_code: code.code(),
                error_message: Some(Text::from(code.message())),
                ..Default::default()
            });
        }
    };
    let renews = (call.version >= RENEW_FROM, request.is_renew_ack);
    let is_last = request.share_session_epoch == FINAL_EPOCH;
    let said = said(request);
    let listener = Arc::clone(&call.listener);
    call.waiting(async move {
        let outcomes =
            share_requests::acknowledge(Arc::clone(&context), access, session.clone(), said, renews).await;
        if is_last {
            context.share.end_session(&session);
        }
        let lock_ms = context.share.lock_duration_ms(&session.group_id);
        respond(&context, &listener, outcomes, lock_ms)
    })
}

fn said(request: ShareAcknowledgeRequest) -> Vec<(Partition, Vec<Said>)> {
    let mut all = Vec::new();
    for topic in request.topics {
        for partition in topic.partitions {
            let said = partition.acknowledgement_batches.into_iter().map(|batch| Said {
                first: batch.first_offset,
                last: batch.last_offset,
                types: batch.acknowledge_types,
            });
            all.push(((topic.topic_id, partition.partition_index), said.collect()));
        }
    }
    all
}

fn respond(
    context: &BrokerContext,
    listener: &str,
    outcomes: Outcomes,
    acquisition_lock_timeout_ms: i32,
) -> ShareAcknowledgeResponse {
    let mut response = ShareAcknowledgeResponse { acquisition_lock_timeout_ms, ..Default::default() };
    let mut leaders = Vec::new();
    for ((topic_id, partition_index), code) in outcomes {
        let mut data = PartitionData {
            partition_index,
            error_code: code.code(),
            error_message: (code != ErrorCode::None).then(|| Text::from(code.message())),
            ..Default::default()
        };
        if code == ErrorCode::NotLeaderOrFollower {
            let (leader_id, leader_epoch) = share_requests::leader_of(context, (topic_id, partition_index));
            data.current_leader = CurrentLeader { leader_id, leader_epoch };
            leaders.push(leader_id);
        }
        match response.responses.iter_mut().find(|topic| topic.topic_id == topic_id) {
            Some(topic) => topic.partitions.push(data),
            None => response.responses.push(TopicData { topic_id, partitions: vec![data] }),
        }
    }
    leaders.sort_unstable();
    leaders.dedup();
    let nodes = leaders.into_iter().filter_map(|id| context.node(id, listener));
    response.node_endpoints = nodes
        .map(|node| NodeEndpoint {
            node_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack.map(Text::from),
        })
        .collect();
    response
}
