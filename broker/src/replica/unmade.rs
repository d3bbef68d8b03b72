//! Replicas that could not be made because the disk was full. They are offline until there is room, and are made then: nobody has to
//! start the broker again.
//!
//! Crash story: nothing is remembered on disk. A start makes every replica that the image gives this broker and that has no log.

use super::manager::ReplicaManager;

/// So many are made in one round: images wait meanwhile.
const MADE_PER_ROUND_MAX: usize = 100;

impl ReplicaManager {
    /// Makes replicas that there was no room for. Called regularly; blocks on the disk.
    pub(crate) fn make_unmade(&self) {
        if self.unmade.lock().is_empty() || !self.directories.has_room() {
            return;
        }
        // No image takes a replica away, or gives it another role, before it has both its log and its role.
        let applying = self.applying.lock();
        let image = self.image();
        let waiting: Vec<_> = self.unmade.lock().iter().copied().take(MADE_PER_ROUND_MAX).collect();
        for id in waiting {
            // What is not there any more was removed.
            if let (Some(replica), Some(partition)) =
                (self.by_id(id), image.partition(id.topic_id.into(), id.index))
            {
                let created = self.directories.create(replica.topic(), id, &replica.rules());
                if created.is_full {
                    break;
                }
                if let Some(log) = created.log {
                    replica.take_log(Box::new(log), created.log_dir);
                    replica.assign_as(partition);
                    tracing::info!(topic = %replica.topic(), partition = id.index, "there is room: the replica is made");
                }
            }
            self.unmade.lock().remove(&id);
        }
        drop(applying);
        self.shared.placement_changed.notify_one();
    }
}
