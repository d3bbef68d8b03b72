//! DescribeProducers 0: the producers that partitions know, with their open transactions (KIP-664).

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_producers_response::{ActiveProducer, Partition, Topic};
use ottla_wire::messages::{DescribeProducersRequest, DescribeProducersResponse};
use ottla_wire::text::Text;

use super::authorization::{Access, Operation};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeProducersRequest,
) -> Answer {
    let context = &dispatcher.context;
    let access = context.access(&call);
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partition_indexes
                .iter()
                .map(|index| describe(context, &access, &topic.name, *index))
                .collect();
            Topic { name: topic.name, partitions }
        })
        .collect();
    call.ready(&DescribeProducersResponse { topics, ..Default::default() })
}

fn describe(context: &BrokerContext, access: &Access, topic: &Text, partition_index: i32) -> Partition {
    let exists = context.image.current().topic_by_name(topic).is_some_and(|topic| {
        usize::try_from(partition_index).is_ok_and(|index| index < topic.partitions.len())
    });
    let producers = if let Err(code) = access.topic(Operation::Read, topic) {
        Err(code)
    } else if exists {
        let replica = context.replicas.by_name(topic, partition_index);
        replica.ok_or(ErrorCode::NotLeaderOrFollower).and_then(|replica| replica.active_producers())
    } else {
        Err(ErrorCode::UnknownTopicOrPartition)
    };
    match producers {
        Ok(producers) => Partition {
            partition_index,
            active_producers: producers
                .into_iter()
                .map(|producer| ActiveProducer {
                    producer_id: producer.producer_id,
                    producer_epoch: producer.producer_epoch.into(),
                    last_sequence: producer.last_sequence,
                    last_timestamp: producer.last_timestamp_ms,
                    coordinator_epoch: producer.coordinator_epoch,
                    current_txn_start_offset: producer.transaction_start_offset,
                })
                .collect(),
            ..Default::default()
        },
        Err(error) => Partition { partition_index, error_code: error.code(), ..Default::default() },
    }
}
