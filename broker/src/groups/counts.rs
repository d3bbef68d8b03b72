//! How many groups this broker coordinates, by type and state, for Prometheus.

use std::collections::BTreeMap;

use super::GroupService;

impl GroupService {
    /// Groups by type and state, counted now.
    pub fn counts(&self) -> BTreeMap<(&'static str, &'static str), usize> {
        let shards: Vec<_> = self.shards.read().values().cloned().collect();
        let mut counts = BTreeMap::new();
        for shard in shards {
            // One that is loading has nothing to say yet; the others are counted all the same.
            let _ = shard.query(|machine| {
                for (kind, count) in machine.counts() {
                    *counts.entry(kind).or_default() += count;
                }
                Ok(())
            });
        }
        counts
    }
}
