//! ElectLeaders 0-2: gives leadership back to the preferred leaders, or to any replica that lives (KIP-183, KIP-460).

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use ottla_wire::messages::{ElectLeadersRequest, ElectLeadersResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::forward::{message_of, misunderstood, number_of, patience, submit};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// The types of elections.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ElectLeadersRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    if let Err(code) = context.access(&call).cluster(Operation::Alter) {
        return call.ready(&refused(&request, code, REFUSED));
    }
    call.exclusive(async move { elect(&context, request).await })
}

async fn elect(context: &BrokerContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    if !matches!(request.election_type, PREFERRED | UNCLEAN) {
        let message = format!("there is no election of type {}", request.election_type);
        return refused(&request, ErrorCode::InvalidRequest, &message);
    }
    let partitions: Vec<proto::TopicPartition> = request
        .topic_partitions
        .iter()
        .flatten()
        .flat_map(|topic| {
            topic.partitions.iter().map(|partition| proto::TopicPartition {
                topic: topic.topic.to_string(),
                partition: *partition,
            })
        })
        .collect();
    // To the controller no partition means all of them; here an empty list is one of nothing.
    if partitions.is_empty() && request.topic_partitions.is_some() {
        return ElectLeadersResponse::default();
    }
    let command = proto::ElectLeaders { unclean: request.election_type == UNCLEAN, partitions };
    let command = proto::command::Command::ElectLeaders(command);
    match submit(context, command, patience(request.timeout_ms)).await {
        Ok(proto::command_reply::Reply::ElectLeaders(reply)) => {
            ElectLeadersResponse { replica_election_results: answers(reply.partitions), ..Default::default() }
        }
        Ok(_) => {
            let (code, message) = misunderstood();
            refused(&request, code, &message)
        }
        Err((code, message)) => refused(&request, code, &message),
    }
}

fn refused(request: &ElectLeadersRequest, code: ErrorCode, message: &str) -> ElectLeadersResponse {
    let outcomes = request.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic
            .partitions
            .iter()
            .map(|partition| PartitionResult {
                partition_id: *partition,
                error_code: code.code(),
                error_message: Some(Text::from(message)),
            })
            .collect(),
    });
    ElectLeadersResponse {
        error_code: code.code(),
        replica_election_results: outcomes.collect(),
        ..Default::default()
    }
}

/// The outcomes come in the order asked: those of one topic stand together.
fn answers(outcomes: Vec<proto::ElectedLeader>) -> Vec<ReplicaElectionResult> {
    let mut topics: Vec<ReplicaElectionResult> = Vec::new();
    for outcome in outcomes {
        let partition = PartitionResult {
            partition_id: outcome.partition,
            error_code: number_of(outcome.error_code),
            error_message: message_of(outcome.error_code, outcome.message),
        };
        match topics.last_mut() {
            Some(topic) if *topic.topic == *outcome.topic => topic.partition_result.push(partition),
            _ => topics.push(ReplicaElectionResult {
                topic: Text::from(outcome.topic),
                partition_result: vec![partition],
            }),
        }
    }
    topics
}
