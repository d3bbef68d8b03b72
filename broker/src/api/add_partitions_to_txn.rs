//! AddPartitionsToTxn 0-5: partitions become part of a transaction. From version 4 on it is what brokers send, for several
//! transactions at once: to add on behalf of a producer, or only to look (KIP-890).

use std::sync::Arc;

use ottla_coordinator::group::TopicPartition;
use ottla_coordinator::transaction::{
    AddPartitions, Command, PRODUCER_FENCED_SINCE_ADD_PARTITIONS, Reply, TransactionVersion,
    for_request_version,
};
use ottla_metadata::image::MetadataImage;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::add_partitions_to_txn_request::Transaction;
use ottla_wire::messages::add_partitions_to_txn_response::{
    ResultsByPartition, ResultsByTopicV3AndBelow, ResultsByTopicV3AndBelowResultsByPartition,
    ResultsByTransaction, TopicResult,
};
use ottla_wire::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use ottla_wire::text::Text;

use super::authorization::{Access, Operation};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::transactions::verification::ADDITION_WAIT_MS_MAX;

/// From this version on several transactions are asked about at once.
const MANY_FROM: i16 = 4;
/// From this version on brokers add for producers of transactions version 2.
const VERSION_2_FROM: i16 = 5;

/// One transaction of a request, whatever its version.
struct Asked {
    transactional_id: Text,
    producer_id: i64,
    producer_epoch: i16,
    verify_only: bool,
    topics: Vec<(Text, Vec<i32>)>,
}

impl From<Transaction> for Asked {
    fn from(asked: Transaction) -> Self {
        Self {
            transactional_id: asked.transactional_id,
            producer_id: asked.producer_id,
            producer_epoch: asked.producer_epoch,
            verify_only: asked.verify_only,
            topics: asked.topics.into_iter().map(|topic| (topic.name, topic.partitions)).collect(),
        }
    }
}

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AddPartitionsToTxnRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let version = call.version;
    if version < MANY_FROM {
        let asked = Asked {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request
                .v3_and_below_topics
                .into_iter()
                .map(|topic| (topic.name, topic.partitions))
                .collect(),
        };
        let refused = forbidden(&context.access(&call), &asked);
        return call.exclusive(async move {
            let codes = match refused {
                Some(codes) => codes,
                None => carry_out(&context, version, &asked).await,
            };
            let results_by_topic_v3_and_below = by_topic(&asked, &codes)
                .map(|(name, partitions)| ResultsByTopicV3AndBelow {
                    name,
                    results_by_partition: partitions
                        .map(|(partition_index, code)| ResultsByTopicV3AndBelowResultsByPartition {
                            partition_index,
                            partition_error_code: code.code(),
                        })
                        .collect(),
                })
                .collect();
            AddPartitionsToTxnResponse { results_by_topic_v3_and_below, ..Default::default() }
        });
    }
    // Only brokers ask so; for whom they ask they have checked themselves.
    if let Err(code) = context.access(&call).cluster(Operation::ClusterAction) {
        return call.ready(&AddPartitionsToTxnResponse { error_code: code.code(), ..Default::default() });
    }
    let answer = async move {
        let asked = request.transactions.into_iter().map(Asked::from);
        let each = asked.map(|asked| one_of_many(&context, version, asked));
        let results_by_transaction = futures_util::future::join_all(each).await;
        AddPartitionsToTxnResponse { results_by_transaction, ..Default::default() }
    };
    call.exclusive(answer)
}

async fn one_of_many(context: &BrokerContext, version: i16, asked: Asked) -> ResultsByTransaction {
    let codes = carry_out(context, version, &asked).await;
    let topic_results = by_topic(&asked, &codes)
        .map(|(name, partitions)| TopicResult {
            name,
            results_by_partition: partitions
                .map(|(partition_index, code)| ResultsByPartition {
                    partition_index,
                    partition_error_code: code.code(),
                })
                .collect(),
        })
        .collect();
    ResultsByTransaction { transactional_id: asked.transactional_id, topic_results }
}

/// What a client that lacks a right is told, a code for each partition; none: it has them all.
fn forbidden(access: &Access, asked: &Asked) -> Option<Vec<ErrorCode>> {
    let partitions = || asked.topics.iter().map(|(topic, partitions)| (topic, partitions.len()));
    if let Err(code) = access.transactional_id(Operation::Write, &asked.transactional_id) {
        return Some(vec![code; partitions().map(|(_, count)| count).sum()]);
    }
    let mut is_refused = false;
    let codes = partitions().flat_map(|(topic, count)| {
        let permitted = access.topic(Operation::Write, topic);
        is_refused |= permitted.is_err();
        std::iter::repeat_n(permitted.err().unwrap_or(ErrorCode::OperationNotAttempted), count)
    });
    let codes = codes.collect();
    is_refused.then_some(codes)
}

/// The codes, given in the order of the request, by topic.
fn by_topic<'a>(
    asked: &'a Asked,
    codes: &'a [ErrorCode],
) -> impl Iterator<Item = (Text, impl Iterator<Item = (i32, ErrorCode)> + 'a)> + 'a {
    let mut rest = codes.iter().copied();
    asked.topics.iter().map(move |(name, partitions)| {
        let of_topic: Vec<(i32, ErrorCode)> = partitions.iter().copied().zip(rest.by_ref()).collect();
        (name.clone(), of_topic.into_iter())
    })
}

/// One code a partition, in the order of the request.
async fn carry_out(context: &BrokerContext, version: i16, asked: &Asked) -> Vec<ErrorCode> {
    let partitions: Vec<TopicPartition> = asked
        .topics
        .iter()
        .flat_map(|(topic, partitions)| {
            partitions.iter().map(|partition| TopicPartition { topic: topic.clone(), partition: *partition })
        })
        .collect();
    let count = partitions.len();
    if let Some(codes) = unknown(&context.image.current(), &partitions) {
        return codes;
    }
    let for_client = |error| for_request_version(error, version, PRODUCER_FENCED_SINCE_ADD_PARTITIONS);
    let (producer_id, producer_epoch) = (asked.producer_id, asked.producer_epoch);
    if asked.verify_only {
        let verified = context.transactions.query(&asked.transactional_id, |machine| {
            machine.verify(&asked.transactional_id, producer_id, producer_epoch, &partitions)
        });
        return verified.unwrap_or_else(|error| vec![for_client(error); count]);
    }
    let is_version_2 = version >= VERSION_2_FROM;
    let command = Command::AddPartitions(AddPartitions {
        transactional_id: asked.transactional_id.clone(),
        producer_id,
        producer_epoch,
        client_version: if is_version_2 { TransactionVersion::V2 } else { TransactionVersion::V0 },
        partitions,
        wait_ms_max: if is_version_2 { ADDITION_WAIT_MS_MAX } else { 0 },
    });
    let error = match context.transactions.submit(command).await {
        Reply::AddPartitions(error) => error,
        _ => ErrorCode::UnknownServerError,
    };
    vec![for_client(error); count]
}

/// If a partition does not exist nothing is added; none: all exist.
fn unknown(image: &MetadataImage, partitions: &[TopicPartition]) -> Option<Vec<ErrorCode>> {
    let exists = |partition: &TopicPartition| {
        image.topic_by_name(&partition.topic).is_some_and(|topic| {
            usize::try_from(partition.partition).is_ok_and(|index| index < topic.partitions.len())
        })
    };
    if partitions.iter().all(exists) {
        return None;
    }
    let code = |partition| {
        if exists(partition) { ErrorCode::OperationNotAttempted } else { ErrorCode::UnknownTopicOrPartition }
    };
    Some(partitions.iter().map(code).collect())
}
