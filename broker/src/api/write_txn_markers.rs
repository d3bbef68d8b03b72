//! WriteTxnMarkers 1-2: a coordinator, or an administrator who ends a hanging transaction, has markers written into the
//! partitions that this broker leads.

use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::group::TopicPartition;
use ottla_coordinator::transaction::TransactionVersion;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::write_txn_markers_response::{Marker, Partition, Topic};
use ottla_wire::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};
use crate::replica::EndMarker;
use crate::transactions::markers::WrittenMarkers;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: WriteTxnMarkersRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let timeout = Duration::from_millis(context.options.transactions.commit_timeout_ms);
    let access = context.access(&call);
    if !access.has_cluster(Operation::Alter)
        && let Err(code) = access.cluster(Operation::ClusterAction)
    {
        return call.ready(&refused(&request, code));
    }
    let begun: Vec<(i64, WrittenMarkers)> = request
        .markers
        .into_iter()
        .map(|asked| {
            let marker = EndMarker {
                producer_id: asked.producer_id,
                producer_epoch: asked.producer_epoch,
                commit: asked.transaction_result,
                coordinator_epoch: asked.coordinator_epoch,
                raises_epoch: TransactionVersion(asked.transaction_version.into()).supports_epoch_bump(),
            };
            let partitions: Vec<TopicPartition> = asked
                .topics
                .iter()
                .flat_map(|topic| {
                    let of_topic =
                        |partition: &i32| TopicPartition { topic: topic.name.clone(), partition: *partition };
                    topic.partition_indexes.iter().map(of_topic)
                })
                .collect();
            (
                asked.producer_id,
                WrittenMarkers::begin(&context.replicas, &context.groups, marker, &partitions),
            )
        })
        .collect();
    call.waiting(async move {
        let groups = &context.groups;
        let each = begun.into_iter().map(|(producer_id, begun)| async move {
            let written = begun.finish(groups, timeout).await;
            Marker { producer_id, topics: by_topic(written) }
        });
        let markers = futures_util::future::join_all(each).await;
        WriteTxnMarkersResponse { markers }
    })
}

fn refused(request: &WriteTxnMarkersRequest, code: ErrorCode) -> WriteTxnMarkersResponse {
    let markers = request.markers.iter().map(|asked| {
        let each = asked.topics.iter().flat_map(|topic| {
            topic
                .partition_indexes
                .iter()
                .map(|partition| (TopicPartition { topic: topic.name.clone(), partition: *partition }, code))
        });
        Marker { producer_id: asked.producer_id, topics: by_topic(each.collect()) }
    });
    WriteTxnMarkersResponse { markers: markers.collect() }
}

fn by_topic(written: Vec<(TopicPartition, ErrorCode)>) -> Vec<Topic> {
    let mut topics: Vec<Topic> = Vec::new();
    for (partition, error) in written {
        let answer = Partition { partition_index: partition.partition, error_code: error.code() };
        match topics.last_mut() {
            Some(topic) if topic.name == partition.topic => topic.partitions.push(answer),
            _ => topics.push(Topic { name: partition.topic, partitions: vec![answer] }),
        }
    }
    topics
}
