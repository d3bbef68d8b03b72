//! When a broker that has just started is ready: unfenced, and its replicas in sync again.
//!
//! A rolling restart goes on to the next broker when this one is ready. Were it ready with its replicas still behind, the next one's
//! stop would leave partitions with three replicas under a `min.insync.replicas` of two, and producers waiting.

use std::sync::Arc;

use ottla_metadata::image::{BrokerId, MetadataImage, PartitionImage};

/// Why a broker is not ready.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// Once is enough: a broker that falls behind under load serves what it leads all the same.
    was_in_sync: bool,
}

impl Readiness {
    /// Looks at the cluster as this broker knows it; `None`: ready.
    pub(crate) fn why_not(
        &mut self,
        is_fenced: bool,
        image: &MetadataImage,
        broker: BrokerId,
    ) -> Option<String> {
        if is_fenced {
            return Some("fenced: it has not caught up with the cluster yet".to_owned());
        }
        if self.was_in_sync {
            return None;
        }
        let behind = behind(image, broker);
        self.was_in_sync = behind == 0;
        (behind > 0).then(|| format!("replicas that are not in sync yet: {behind}"))
    }
}

/// Replicas of a broker that are to be in sync and are not. A replica that a reassignment adds is no part of the partition yet; one
/// of a partition without a leader has nobody to get in sync with.
fn behind(image: &MetadataImage, broker: BrokerId) -> usize {
    let partitions = image.topics().flat_map(|topic| &topic.partitions);
    let is_behind = |partition: &&Arc<PartitionImage>| {
        partition.leader.is_some()
            && partition.replicas.contains(&broker)
            && !partition.isr.contains(&broker)
            && !partition.adding_replicas.contains(&broker)
    };
    partitions.filter(is_behind).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::test_images::image;

    const OTHER: BrokerId = BrokerId(2);

    #[test]
    fn a_broker_is_ready_when_it_serves_and_its_replicas_are_in_sync() {
        let behind = image(1, 3, 1, (0, 0), &[1]);
        let in_sync = image(1, 3, 1, (0, 1), &[1, 2]);
        let mut readiness = Readiness::default();
        let fenced = readiness.why_not(true, &behind, OTHER).unwrap();
        assert!(fenced.starts_with("fenced"), "{fenced}");
        let why_not = readiness.why_not(false, &behind, OTHER);
        assert_eq!(why_not.as_deref(), Some("replicas that are not in sync yet: 3"));
        assert_eq!(readiness.why_not(false, &in_sync, OTHER), None);
        assert_eq!(readiness.why_not(false, &behind, OTHER), None, "falling behind later is no reason");
        assert!(readiness.why_not(true, &in_sync, OTHER).is_some(), "being fenced is");
    }

    #[test]
    fn replicas_of_others_and_partitions_without_a_leader_are_not_waited_for() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.why_not(false, &image(1, 3, 1, (0, 0), &[1]), BrokerId(1)), None);
        let leaderless = image(1, 1, -1, (0, 0), &[1]);
        assert_eq!(Readiness::default().why_not(false, &leaderless, OTHER), None);
    }
}
