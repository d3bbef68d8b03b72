//! TxnOffsetCommit 0-5: offsets that count once the transaction commits (KIP-98, KIP-447). From version 5 on the group's
//! partition is added to the transaction here, before it had to be by AddOffsetsToTxn (KIP-890).

use std::sync::Arc;

use ottla_coordinator::group::{Command, OffsetCommit, Reply, TopicPartition};
use ottla_coordinator::transaction::verification::error_for_txn_offset_commit;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::txn_offset_commit_response::{Partition, Topic};
use ottla_wire::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::authorization::{Access, Operation};
use super::offset_commit::mark_unknown;
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::internal_topics::CONSUMER_OFFSETS;
use crate::transactions::verification::Question;

/// From this version on the group's partition is added here.
const ADDS_FROM: i16 = 5;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: TxnOffsetCommitRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let version = call.version;
    let access = context.access(&call);
    call.exclusive(async move { commit(&context, &access, version, request).await })
}

async fn commit(
    context: &BrokerContext,
    access: &Access,
    version: i16,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let (transactional_id, group_id) = (request.transactional_id.clone(), request.group_id.clone());
    let (producer_id, producer_epoch) = (request.producer_id, request.producer_epoch);
    let mut commit = OffsetCommit::from_transaction_request(request);
    let permitted = access
        .transactional_id(Operation::Write, &transactional_id)
        .and_then(|()| access.group(Operation::Read, &group_id));
    if let Err(code) = permitted {
        return refused(&commit, code);
    }
    {
        let image = context.image.current();
        for (topic, offsets) in &mut commit.topics {
            match access.topic(Operation::Read, topic) {
                Ok(()) => mark_unknown(&image, topic, offsets, ErrorCode::UnknownTopicOrPartition),
                Err(code) => offsets.iter_mut().for_each(|offset| offset.error = code),
            }
        }
    }
    let has_known = commit.topics.iter().flat_map(|(_, offsets)| offsets).any(|o| o.error == ErrorCode::None);
    if group_id.is_empty() {
        return refused(&commit, ErrorCode::InvalidGroupId);
    }
    if has_known {
        let group = context.groups.partition_of(&group_id).and_then(|index| {
            let replica =
                context.replicas.by_name(CONSUMER_OFFSETS, index).filter(|replica| replica.is_leader());
            replica.map(|replica| (index, replica))
        });
        let Some((partition, replica)) = group else {
            return refused(&commit, ErrorCode::NotCoordinator);
        };
        let question = Question {
            transactional_id,
            producer_id,
            producer_epoch,
            partitions: vec![TopicPartition { topic: CONSUMER_OFFSETS.into(), partition }],
            add: version >= ADDS_FROM,
        };
        if let Err(error) = context.transactions.admit_offsets(&replica, &question).await {
            let error = match error {
                // Of the group's partition: its coordinator is elsewhere by now.
                ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
                error => error_for_txn_offset_commit(error, version),
            };
            return refused(&commit, error);
        }
    }
    let Reply::OffsetCommit(results) = context.groups.submit(Command::OffsetCommit(commit)).await else {
        return TxnOffsetCommitResponse::default();
    };
    let topics = results
        .into_iter()
        .map(|result| Topic {
            name: result.topic,
            partitions: result
                .partitions
                .into_iter()
                .map(|(partition_index, error)| Partition { partition_index, error_code: error.code() })
                .collect(),
        })
        .collect();
    TxnOffsetCommitResponse { topics, ..Default::default() }
}

/// Every partition gets the error, except those that have one.
fn refused(commit: &OffsetCommit, error: ErrorCode) -> TxnOffsetCommitResponse {
    let topics = commit.topics.iter().map(|(name, offsets)| Topic {
        name: name.clone(),
        partitions: offsets
            .iter()
            .map(|offset| Partition {
                partition_index: offset.partition,
                error_code: if offset.error == ErrorCode::None { error } else { offset.error }.code(),
            })
            .collect(),
    });
    TxnOffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}
