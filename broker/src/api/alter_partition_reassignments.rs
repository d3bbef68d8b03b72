//! AlterPartitionReassignments 0-1: moves partitions to other brokers, or ends such a move (KIP-455).

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::alter_partition_reassignments_response::{Partition, Response};
use ottla_wire::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::forward::{message_of, misunderstood, number_of, patience, submit};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// From this version on a request may hold the number of replicas fixed (KIP-860).
const FACTOR_FROM: i16 = 1;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AlterPartitionReassignmentsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let version = call.version;
    if let Err(code) = context.access(&call).cluster(Operation::Alter) {
        let mut response = AlterPartitionReassignmentsResponse::default();
        refuse(&mut response, code, REFUSED);
        return call.ready(&response);
    }
    call.exclusive(async move { alter(&context, version, request).await })
}

async fn alter(
    context: &BrokerContext,
    version: i16,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let may_change_factor = version < FACTOR_FROM || request.allow_replication_factor_change;
    let command = proto::AlterReassignments {
        allow_replication_factor_change: may_change_factor,
        partitions: request
            .topics
            .iter()
            .flat_map(|topic| {
                topic.partitions.iter().map(|partition| proto::Reassignment {
                    topic: topic.name.to_string(),
                    partition: partition.partition_index,
                    cancel: partition.replicas.is_none(),
                    replicas: partition.replicas.clone().unwrap_or_default(),
                })
            })
            .collect(),
    };
    let command = proto::command::Command::AlterReassignments(command);
    let outcome = match submit(context, command, patience(request.timeout_ms)).await {
        Ok(proto::command_reply::Reply::AlterReassignments(reply)) => Ok(reply.partitions),
        Ok(_) => Err(misunderstood()),
        Err(refusal) => Err(refusal),
    };
    let mut response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: may_change_factor,
        ..Default::default()
    };
    match outcome {
        Ok(outcomes) => response.responses = answers(outcomes),
        Err((code, message)) => refuse(&mut response, code, &message),
    }
    response
}

fn refuse(response: &mut AlterPartitionReassignmentsResponse, code: ErrorCode, message: &str) {
    response.error_code = code.code();
    response.error_message = Some(Text::from(message));
}

/// The outcomes come in the order asked: those of one topic stand together.
fn answers(outcomes: Vec<proto::ElectedLeader>) -> Vec<Response> {
    let mut topics: Vec<Response> = Vec::new();
    for outcome in outcomes {
        let partition = Partition {
            partition_index: outcome.partition,
            error_code: number_of(outcome.error_code),
            error_message: message_of(outcome.error_code, outcome.message),
        };
        match topics.last_mut() {
            Some(topic) if *topic.name == *outcome.topic => topic.partitions.push(partition),
            _ => topics.push(Response { name: Text::from(outcome.topic), partitions: vec![partition] }),
        }
    }
    topics
}
