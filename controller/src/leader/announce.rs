//! Log lines of what the controller decided: an operator sees there why a partition moved, and when.

use ottla_metadata::image::{MetadataImage, TopicId};
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use uuid::Uuid;

/// One line a broker that was fenced or unfenced; for partitions one line an entry, and one line each at debug.
pub(super) fn announce(before: &MetadataImage, records: &[MetadataRecord]) {
    let mut moved = 0_usize;
    let mut leaderless = 0_usize;
    for record in records {
        match &record.record {
            Some(Record::BrokerChange(change)) => {
                if let Some(fenced) = change.fenced {
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
    if moved > 0 {
        tracing::info!(partitions = moved, without_leader = leaderless, "leaders changed");
    }
}
