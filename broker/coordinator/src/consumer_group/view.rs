//! What the machine knows of topics: names, ids, numbers of partitions. The shell keeps one up to date from the
//! metadata image and hands out snapshots.
//!
//! Racks are not in it: none of the assignors of the server looks at them (as in Kafka since 4.0), so a change of racks
//! is no reason to rebalance.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_wire::text::Text;
use uuid::Uuid;

/// Topics are spread over this many maps, so that a change copies one small part of a large cluster's topics.
const SHARDS: usize = 64;

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Text,
    /// How many partitions it has: 0 to this minus one.
    pub partitions: i32,
}

/// All topics at one moment. Cloning costs 128 reference counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsView {
    version: i64,
    by_name: Vec<Arc<BTreeMap<Text, Arc<TopicView>>>>,
    by_id: Vec<Arc<BTreeMap<Uuid, Arc<TopicView>>>>,
}

impl Default for TopicsView {
    fn default() -> Self {
        Self { version: 0, by_name: vec![Arc::default(); SHARDS], by_id: vec![Arc::default(); SHARDS] }
    }
}

impl TopicsView {
    /// Grows with every change; two snapshots of one node with one version are equal.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Adds a topic or replaces one of its name or id.
    pub fn put(&mut self, topic: TopicView) {
        if self.by_name(&topic.name).is_some_and(|known| **known == topic) {
            return;
        }
        self.remove(&topic.name);
        if let Some(renamed) = self.by_id(topic.id).map(|known| known.name.clone()) {
            self.remove(&renamed);
        }
        self.version += 1;
        let topic = Arc::new(topic);
        let by_id = &mut self.by_id[id_shard(topic.id)];
        Arc::make_mut(by_id).insert(topic.id, Arc::clone(&topic));
        let by_name = &mut self.by_name[name_shard(&topic.name)];
        Arc::make_mut(by_name).insert(topic.name.clone(), topic);
    }

    /// Forgets a topic.
    pub fn remove(&mut self, name: &str) {
        let shard = name_shard(name);
        if !self.by_name[shard].contains_key(name) {
            return;
        }
        if let Some(topic) = Arc::make_mut(&mut self.by_name[shard]).remove(name) {
            Arc::make_mut(&mut self.by_id[id_shard(topic.id)]).remove(&topic.id);
            self.version += 1;
        }
    }

    /// The topic of a name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<TopicView>> {
        self.by_name[name_shard(name)].get(name)
    }

    /// The topic of an id.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<TopicView>> {
        self.by_id[id_shard(id)].get(&id)
    }

    /// All topics, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicView>> {
        self.by_name.iter().flat_map(|shard| shard.values())
    }
}

fn name_shard(name: &str) -> usize {
    let sum = name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    sum % SHARDS
}

fn id_shard(id: Uuid) -> usize {
    usize::from(id.as_bytes()[15]) % SHARDS
}

/// A number that changes when a subscribed topic comes, goes, is made anew or grows (KIP-1101): 64-bit FNV-1a over the
/// names in order. Topics that are not there do not count.
pub(crate) fn metadata_hash<'a>(names: impl Iterator<Item = &'a Text>, topics: &TopicsView) -> i64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = BASIS;
    let mut any = false;
    for topic in names.filter_map(|name| topics.by_name(name)) {
        any = true;
        let count = topic.partitions.to_be_bytes();
        let name = topic.name.bytes();
        for byte in name.chain([0]).chain(topic.id.as_bytes().iter().copied()).chain(count) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }
    // Zero says that there is nothing, which is also what a group has that never looked.
    if any { i64::from_be_bytes(hash.to_be_bytes()) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, id: u128, partitions: i32) -> TopicView {
        TopicView { id: Uuid::from_u128(id), name: Text::from(name), partitions }
    }

    #[test]
    fn a_topic_made_anew_replaces_the_one_of_its_name() {
        let mut topics = TopicsView::default();
        topics.put(topic("t", 1, 1));
        let before = topics.version();
        topics.put(topic("t", 1, 1));
        assert_eq!(topics.version(), before);
        topics.put(topic("t", 2, 1));
        assert!(topics.by_id(Uuid::from_u128(1)).is_none());
        assert_eq!(topics.by_name("t").unwrap().id, Uuid::from_u128(2));
        topics.remove("t");
        assert_eq!((topics.topics().count(), topics.by_id(Uuid::from_u128(2))), (0, None));
        assert!(topics.version() > before + 1);
    }

    #[test]
    fn the_hash_follows_what_is_subscribed_and_nothing_else() {
        let mut topics = TopicsView::default();
        let names = [Text::from("a"), Text::from("b")];
        let hash = |topics: &TopicsView| metadata_hash(names.iter(), topics);
        assert_eq!(hash(&topics), 0);
        topics.put(topic("a", 1, 1));
        let one = hash(&topics);
        topics.put(topic("other", 9, 1));
        assert_eq!(hash(&topics), one);
        topics.put(topic("a", 1, 2));
        let grown = hash(&topics);
        topics.put(topic("b", 3, 1));
        let mut seen = vec![0, one, grown, hash(&topics)];
        topics.put(topic("a", 4, 2));
        seen.push(hash(&topics));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }
}
