//! Transactions as administrators see and end them (KIP-664): ListTransactions, DescribeTransactions, DescribeProducers,
//! WriteTxnMarkers.

use std::time::Instant;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_producers_response::ActiveProducer;
use ottla_wire::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, FindCoordinatorRequest, ListTransactionsRequest,
    WriteTxnMarkersRequest, describe_producers_request, describe_transactions_response,
    list_transactions_response, write_txn_markers_request,
};
use ottla_wire::text::Text;

use super::ClientError;
use super::cluster::{Cluster, RETRY_PAUSE};

/// Newest versions that are asked.
const FIND_COORDINATOR_VERSION: i16 = 3;
const LIST_VERSION: i16 = 2;
const DESCRIBE_VERSION: i16 = 0;
const DESCRIBE_PRODUCERS_VERSION: i16 = 0;
/// The marker of a hanging transaction has the epoch of its records: that of version 1, which is without KIP-890's rule.
const WRITE_MARKERS_VERSION: i16 = 1;
/// Kafka's key type of transactional ids.
const TRANSACTION: i8 = 1;

/// A transactional id in a list, and who coordinates it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) coordinator: i32,
    pub(crate) state: list_transactions_response::TransactionState,
}

/// All transactional ids of all coordinators. `state`: only those in this state.
pub(crate) async fn list(
    cluster: &mut Cluster,
    state: Option<&str>,
    pattern: Option<&str>,
    duration_ms: Option<i64>,
) -> Result<Vec<Listed>, ClientError> {
    let request = ListTransactionsRequest {
        state_filters: state.into_iter().map(Text::from).collect(),
        transactional_id_pattern: pattern.map(Text::from),
        duration_filter: duration_ms.unwrap_or(-1),
        ..Default::default()
    };
    let deadline = Instant::now() + cluster.timeout();
    cluster.refresh_until(&[], deadline).await?;
    let mut listed = Vec::new();
    for coordinator in cluster.broker_ids() {
        let answer = loop {
            let answer = cluster.ask(coordinator, &request, LIST_VERSION).await?;
            let code = ErrorCode::from_code(answer.error_code);
            if !code.is_retriable() || Instant::now() >= deadline {
                break answer;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        if answer.error_code != 0 {
            return Err(ClientError::refused(format!("broker {coordinator}"), answer.error_code));
        }
        if let Some(unknown) = answer.unknown_state_filters.first() {
            return Err(ClientError::Refused {
                what: format!("state \"{unknown}\""),
                code: ErrorCode::InvalidRequest,
                message: Some("there is no such state of transactions".to_owned()),
            });
        }
        listed.extend(answer.transaction_states.into_iter().map(|state| Listed { coordinator, state }));
    }
    listed.sort_by(|a, b| a.state.transactional_id.as_str().cmp(b.state.transactional_id.as_str()));
    Ok(listed)
}

/// One transactional id, told by its coordinator, and who that is.
pub(crate) async fn describe(
    cluster: &mut Cluster,
    transactional_id: &str,
) -> Result<(i32, describe_transactions_response::TransactionState), ClientError> {
    let deadline = Instant::now() + cluster.timeout();
    cluster.refresh_until(&[], deadline).await?;
    loop {
        let failure = match describe_once(cluster, transactional_id).await {
            Ok(found) => return Ok(found),
            Err(failure) => failure,
        };
        if !failure.is_retriable() || Instant::now() >= deadline {
            return Err(failure);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn describe_once(
    cluster: &mut Cluster,
    transactional_id: &str,
) -> Result<(i32, describe_transactions_response::TransactionState), ClientError> {
    let what = || format!("transactional id \"{transactional_id}\"");
    let request = FindCoordinatorRequest {
        key: Text::from(transactional_id),
        key_type: TRANSACTION,
        ..Default::default()
    };
    let found = cluster.ask_any(&request, FIND_COORDINATOR_VERSION).await?;
    if found.error_code != 0 {
        return Err(ClientError::refused(what(), found.error_code));
    }
    let request = DescribeTransactionsRequest { transactional_ids: vec![Text::from(transactional_id)] };
    let address = format!("{}:{}", found.host, found.port);
    let answer = cluster.ask_at(&address, &request, DESCRIBE_VERSION).await?;
    let state = answer.transaction_states.into_iter().next();
    let state = state.ok_or_else(|| ClientError::refused(what(), ErrorCode::UnknownServerError.code()))?;
    if state.error_code != 0 {
        return Err(ClientError::refused(what(), state.error_code));
    }
    Ok((found.node_id, state))
}

/// The producers that a partition's leader knows.
pub(crate) async fn producers(
    cluster: &mut Cluster,
    topic: &str,
    partition: i32,
) -> Result<Vec<ActiveProducer>, ClientError> {
    let leader = leader(cluster, topic, partition).await?;
    let request = DescribeProducersRequest {
        topics: vec![describe_producers_request::Topic {
            name: Text::from(topic),
            partition_indexes: vec![partition],
        }],
    };
    let answer = cluster.ask(leader, &request, DESCRIBE_PRODUCERS_VERSION).await?;
    let found = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let what = || format!("{topic}:{partition}");
    let found = found.ok_or_else(|| ClientError::refused(what(), ErrorCode::UnknownServerError.code()))?;
    if found.error_code != 0 {
        return Err(ClientError::refused(what(), found.error_code));
    }
    Ok(found.active_producers)
}

/// Writes an abort marker for the open transaction of a producer, past its coordinator.
pub(crate) async fn abort(
    cluster: &mut Cluster,
    topic: &str,
    partition: i32,
    producer: &ActiveProducer,
) -> Result<(), ClientError> {
    let leader = leader(cluster, topic, partition).await?;
    let what = || format!("{topic}:{partition}");
    let producer_epoch = i16::try_from(producer.producer_epoch)
        .map_err(|_| ClientError::refused(what(), ErrorCode::InvalidProducerEpoch.code()))?;
    let request = WriteTxnMarkersRequest {
        markers: vec![write_txn_markers_request::Marker {
            producer_id: producer.producer_id,
            producer_epoch,
            transaction_result: false,
            // As Kafka's own tool has it where no coordinator has written here yet.
            coordinator_epoch: producer.coordinator_epoch.max(0),
            topics: vec![write_txn_markers_request::Topic {
                name: Text::from(topic),
                partition_indexes: vec![partition],
            }],
            ..Default::default()
        }],
    };
    let answer = cluster.ask(leader, &request, WRITE_MARKERS_VERSION).await?;
    let codes = answer.markers.iter().flat_map(|marker| &marker.topics).flat_map(|topic| &topic.partitions);
    match codes.map(|partition| partition.error_code).next() {
        Some(0) => Ok(()),
        Some(code) => Err(ClientError::refused(what(), code)),
        None => Err(ClientError::refused(what(), ErrorCode::UnknownServerError.code())),
    }
}

async fn leader(cluster: &mut Cluster, topic: &str, partition: i32) -> Result<i32, ClientError> {
    let deadline = Instant::now() + cluster.timeout();
    loop {
        cluster.refresh_until(&[topic.to_owned()], deadline).await?;
        if let Some(leader) = cluster.leader(topic, partition) {
            return Ok(leader);
        }
        let exists = cluster.topic(topic).is_some_and(|topic| topic.leaders.contains_key(&partition));
        if !exists || Instant::now() >= deadline {
            let code =
                if exists { ErrorCode::LeaderNotAvailable } else { ErrorCode::UnknownTopicOrPartition };
            return Err(ClientError::refused(format!("{topic}:{partition}"), code.code()));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
