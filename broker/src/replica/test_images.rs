//! Images for tests of replicas.

use std::sync::Arc;

use ottla_metadata::image::{LogIndex, MetadataImage};
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{
    BrokerChangeRecord, Endpoint, MetadataRecord, PartitionRecord, RegisterBrokerRecord, TopicRecord,
};
use uuid::Uuid;

/// The topic of the images.
pub(crate) const TOPIC: &str = "topic";

/// Two brokers that are not fenced (epochs 10 and 20) and one topic replicated on both. Broker 1 listens on the port.
pub(crate) fn image(
    port: u16,
    partitions: i32,
    leader: i32,
    (leader_epoch, partition_epoch): (i32, i32),
    isr: &[i32],
) -> Arc<MetadataImage> {
    let topic_id = Uuid::from_u128(7).as_bytes().to_vec();
    let mut image = MetadataImage::default();
    let mut apply = |index: i64, record: Record| {
        image = image.apply(LogIndex(index), &[MetadataRecord { record: Some(record) }]).unwrap().0;
    };
    for broker_id in [1, 2] {
        let broker_epoch = i64::from(broker_id) * 10;
        let endpoint = Endpoint {
            name: "PLAINTEXT".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: u32::from(port),
            security_protocol: "PLAINTEXT".to_owned(),
        };
        apply(
            broker_epoch,
            Record::RegisterBroker(RegisterBrokerRecord {
                broker_id,
                incarnation_id: vec![0; 16].into(),
                endpoints: vec![endpoint],
                grpc_endpoint: format!("127.0.0.1:{port}"),
                ..Default::default()
            }),
        );
        let unfence =
            BrokerChangeRecord { broker_id, broker_epoch, fenced: Some(false), ..Default::default() };
        apply(broker_epoch + 1, Record::BrokerChange(unfence));
    }
    apply(30, Record::Topic(TopicRecord { topic_id: topic_id.clone().into(), name: TOPIC.to_owned() }));
    for partition in 0..partitions {
        let record = PartitionRecord {
            topic_id: topic_id.clone().into(),
            partition,
            replicas: vec![1, 2],
            isr: isr.to_vec(),
            leader,
            leader_epoch,
            partition_epoch,
            ..Default::default()
        };
        apply(31 + i64::from(partition), Record::Partition(record));
    }
    Arc::new(image)
}
