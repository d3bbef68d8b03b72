//! Log lines and counts of what the controller decided: an operator sees there why a partition moved, and when.

use std::sync::atomic::{AtomicU64, Ordering};

use ottla_metadata::image::{MetadataImage, TopicId};
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use uuid::Uuid;

/// What this controller decided since it started, for `/metrics`: Kafka's `kafka.controller:type=ControllerStats`.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    /// Partitions that were given another leader.
    pub(crate) elections: AtomicU64,
    /// Those among them whose leader may lack records.
    pub(crate) unclean_elections: AtomicU64,
    /// Brokers that were fenced.
    pub(crate) fencings: AtomicU64,
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// One line a broker that was fenced or unfenced; for partitions one line an entry, and one line each at debug.
pub(super) fn announce(before: &MetadataImage, records: &[MetadataRecord], decided: &Decided) {
    let (mut moved, mut elected, mut unclean) = (0_usize, 0_usize, 0_usize);
    let mut leaderless = 0_usize;
    for record in records {
        match &record.record {
            Some(Record::BrokerChange(change)) => {
                if let Some(fenced) = change.fenced {
                    add(&decided.fencings, usize::from(fenced));
                    tracing::info!(broker = change.broker_id, epoch = change.broker_epoch, fenced, "broker");
                }
                if change.in_controlled_shutdown == Some(true) {
                    tracing::info!(
                        broker = change.broker_id,
                        "the broker is about to stop: its leadership moves"
                    );
                }
            }
            Some(Record::Partition(now)) => {
                let Some(topic) =
                    Uuid::from_slice(&now.topic_id).ok().and_then(|id| before.topic_by_id(TopicId(id)))
                else {
                    continue;
                };
                let old = usize::try_from(now.partition).ok().and_then(|index| topic.partitions.get(index));
                let Some(old) = old.filter(|old| old.leader_epoch.0 != now.leader_epoch) else { continue };
                moved += 1;
                leaderless += usize::from(now.leader < 0);
                elected += usize::from(now.leader >= 0 && old.leader.is_none_or(|old| old.0 != now.leader));
                if now.recovering && !old.recovering {
                    unclean += 1;
                    tracing::warn!(
                        topic = &*topic.name,
                        partition = now.partition,
                        leader = now.leader,
                        "an unclean election: the leader was not in sync, what only others had is lost"
                    );
                }
                tracing::debug!(
                    topic = &*topic.name,
                    partition = now.partition,
                    from = old.leader.map_or(-1, |leader| leader.0),
                    to = now.leader,
                    leader_epoch = now.leader_epoch,
                    isr = ?now.isr,
                    "leader"
                );
            }
            _ => {}
        }
    }
    add(&decided.elections, elected);
    add(&decided.unclean_elections, unclean);
    if moved > 0 {
        tracing::info!(partitions = moved, without_leader = leaderless, "leaders changed");
    }
}

#[cfg(test)]
mod tests {
    use ottla_metadata::image::LogIndex;
    use ottla_proto::metadata::{PartitionRecord, TopicRecord};

    use super::*;

    #[test]
    fn elections_are_counted_by_what_they_cost() {
        let id = bytes::Bytes::from_static(&[7; 16]);
        let topic = TopicRecord { name: "t".into(), topic_id: id.clone() };
        let partition = |leader, leader_epoch, recovering| MetadataRecord {
            record: Some(Record::Partition(PartitionRecord {
                topic_id: id.clone(),
                replicas: vec![1, 2],
                isr: vec![1],
                leader,
                leader_epoch,
                recovering,
                directories: vec![bytes::Bytes::from_static(&[0; 16]); 2],
                ..Default::default()
            })),
        };
        let first = [MetadataRecord { record: Some(Record::Topic(topic)) }, partition(1, 0, false)];
        let (image, _) = MetadataImage::default().apply(LogIndex(1), &first).unwrap();
        let counts = |record: MetadataRecord| {
            let decided = Decided::default();
            announce(&image, &[record], &decided);
            [&decided.elections, &decided.unclean_elections].map(|count| count.load(Ordering::Relaxed))
        };
        assert_eq!(counts(partition(2, 1, false)), [1, 0]);
        assert_eq!(counts(partition(2, 1, true)), [1, 1]);
        assert_eq!(counts(partition(-1, 1, false)), [0, 0], "nobody was elected");
        assert_eq!(counts(partition(1, 1, false)), [0, 0], "the leader stayed, with another ISR");
    }
}
