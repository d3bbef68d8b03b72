//! Images for tests.

use ottla_proto::metadata as proto;
use ottla_proto::metadata::metadata_record::Record;

use super::record;
use crate::image::{BrokerId, LogIndex, MetadataImage};

/// Brokers with their racks, registered at the indexes 1, 2, … and unfenced.
pub(crate) fn cluster(brokers: &[(i32, &str)]) -> MetadataImage {
    // Index 0 is a log's first.
    let features = super::default_features();
    let mut image = MetadataImage::default().apply(LogIndex(0), &features).unwrap().0;
    for (index, (id, rack)) in (1..).zip(brokers) {
        let registration = proto::RegisterBrokerRecord {
            broker_id: *id,
            incarnation_id: bytes::Bytes::copy_from_slice(uuid::Uuid::from_u128(7).as_bytes()),
            rack: (*rack).to_owned(),
            ..Default::default()
        };
        let unfence = proto::BrokerChangeRecord {
            broker_id: *id,
            broker_epoch: index,
            fenced: Some(false),
            ..Default::default()
        };
        let records = [record(Record::RegisterBroker(registration)), record(Record::BrokerChange(unfence))];
        image = image.apply(LogIndex(index), &records).unwrap().0;
    }
    image
}

/// The image with a broker fenced.
pub(crate) fn fence(image: MetadataImage, id: i32) -> MetadataImage {
    let broker_epoch = image.broker(BrokerId(id)).unwrap().epoch.0;
    let change =
        proto::BrokerChangeRecord { broker_id: id, broker_epoch, fenced: Some(true), ..Default::default() };
    next(&image, &[record(Record::BrokerChange(change))])
}

/// The image after one more entry.
pub(crate) fn next(image: &MetadataImage, records: &[proto::MetadataRecord]) -> MetadataImage {
    image.apply(LogIndex(image.index().0 + 1), records).unwrap().0
}
