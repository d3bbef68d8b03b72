//! DescribeQuorum 0-2: who keeps the metadata, who leads, and how far each has got (KIP-595, KIP-853).

use std::sync::Arc;

use ottla_metadata::config::get_list;
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_quorum_request::Partition as Asked;
use ottla_wire::messages::describe_quorum_response::{
    CurrentVoter, Listener, Node, Observer, Partition, Topic,
};
use ottla_wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::{Operation, REFUSED};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// The only log that a quorum keeps, by the name that clients know it by; it has one partition.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeQuorumRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    if let Err(code) = context.access(&call).cluster(Operation::Describe) {
        return call.ready(&DescribeQuorumResponse {
            error_code: code.code(),
            error_message: Some(REFUSED.into()),
            ..Default::default()
        });
    }
    call.waiting(async move { describe(&context, request).await })
}

async fn describe(context: &BrokerContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let quorum = match context.controller.describe_quorum().await {
        Ok(quorum) => quorum,
        Err(error) => {
            return DescribeQuorumResponse {
                error_code: ErrorCode::RequestTimedOut.code(),
                error_message: Some(Text::from(error.to_string())),
                ..Default::default()
            };
        }
    };
    let topics = request.topics.iter().map(|topic| Topic {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|asked| match (&*topic.topic_name, asked.partition_index) {
                (METADATA_TOPIC, 0) => partition(&quorum),
                _ => unknown(asked),
            })
            .collect(),
    });
    DescribeQuorumResponse { topics: topics.collect(), nodes: nodes(context, &quorum), ..Default::default() }
}

fn unknown(asked: &Asked) -> Partition {
    let code = ErrorCode::UnknownTopicOrPartition;
    Partition {
        partition_index: asked.partition_index,
        error_code: code.code(),
        error_message: Some("no quorum keeps this partition".into()),
        ..Default::default()
    }
}

fn partition(quorum: &proto::DescribeQuorumReply) -> Partition {
    Partition {
        leader_id: quorum.leader_id,
        leader_epoch: i32::try_from(quorum.leader_epoch).unwrap_or(i32::MAX),
        high_watermark: quorum.high_watermark,
        current_voters: quorum
            .voters
            .iter()
            .map(|voter| CurrentVoter {
                replica_id: voter.node_id,
                replica_directory_id: directory_id(voter),
                log_end_offset: voter.log_end_offset,
                last_fetch_timestamp: voter.last_fetch_ms,
                last_caught_up_timestamp: voter.last_caught_up_ms,
            })
            .collect(),
        observers: quorum
            .observers
            .iter()
            .map(|observer| Observer {
                replica_id: observer.node_id,
                replica_directory_id: directory_id(observer),
                log_end_offset: observer.log_end_offset,
                last_fetch_timestamp: observer.last_fetch_ms,
                last_caught_up_timestamp: observer.last_caught_up_ms,
            })
            .collect(),
        ..Default::default()
    }
}

fn directory_id(member: &proto::QuorumMember) -> Uuid {
    Uuid::from_slice(&member.incarnation).unwrap_or_default()
}

/// Where the voters listen, under the name that this node has for the controllers' listener.
fn nodes(context: &BrokerContext, quorum: &proto::DescribeQuorumReply) -> Vec<Node> {
    let names = get_list(&context.options.properties, "controller.listener.names");
    let name = names.first().copied().unwrap_or("CONTROLLER");
    let listener = |endpoint: &str| {
        let (host, port) = endpoint.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Listener { name: Text::from(name), host: Text::from(host), port: port.parse().ok()? })
    };
    quorum
        .voters
        .iter()
        .chain(&quorum.observers)
        .map(|member| Node {
            node_id: member.node_id,
            listeners: listener(&member.endpoint).into_iter().collect(),
        })
        .collect()
}
