//! AddOffsetsToTxn 0-4: the offsets of a group become part of a transaction: the partition of the offsets topic that holds
//! the group is added to it.

use std::sync::Arc;

use ottla_coordinator::group::TopicPartition;
use ottla_coordinator::partitioner::partition_for;
use ottla_coordinator::transaction::{
    AddPartitions, Command, PRODUCER_FENCED_SINCE_ADD_OFFSETS, Reply, TransactionVersion, for_request_version,
};
use ottla_metadata::config::get_i32;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};
use crate::internal_topics::CONSUMER_OFFSETS;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AddOffsetsToTxnRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let version = call.version;
    let access = context.access(&call);
    let permitted = access
        .transactional_id(Operation::Write, &request.transactional_id)
        .and_then(|()| access.group(Operation::Read, &request.group_id));
    if let Err(code) = permitted {
        return call.ready(&AddOffsetsToTxnResponse { error_code: code.code(), ..Default::default() });
    }
    // The topic may be created only when the group's coordinator is looked for; it has so many partitions then.
    let partition = context.groups.partition_of(&request.group_id).unwrap_or_else(|| {
        let count = get_i32(&context.options.properties, "offsets.topic.num.partitions").max(1);
        partition_for(&request.group_id, count)
    });
    call.exclusive(async move {
        let command = Command::AddPartitions(AddPartitions {
            transactional_id: request.transactional_id,
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
            client_version: TransactionVersion::V0,
            partitions: vec![TopicPartition { topic: CONSUMER_OFFSETS.into(), partition }],
            wait_ms_max: 0,
        });
        let error = match context.transactions.submit(command).await {
            Reply::AddPartitions(error) => error,
            _ => ErrorCode::UnknownServerError,
        };
        let error = for_request_version(error, version, PRODUCER_FENCED_SINCE_ADD_OFFSETS);
        AddOffsetsToTxnResponse { error_code: error.code(), ..Default::default() }
    })
}
