//! Counts by topic out of counts by replica. A replica that leaves the node takes its counts along; those of its topic may not fall for
//! that, as a count that falls is a restart to Prometheus, and all that was ever counted would be seen as one leap.

use std::collections::{BTreeMap, HashMap};

/// What was counted, by kind: see [`super::replicas`].
pub(super) type Counts = [u64; 3];

/// What one topic's replicas on this node counted.
#[derive(Debug, Default)]
struct Topic {
    /// By replicas that have left.
    left: Counts,
    /// By partition, when last looked at.
    seen: HashMap<i32, Counts>,
}

/// The topics that have a replica here.
#[derive(Debug, Default)]
pub(super) struct Topics(BTreeMap<String, Topic>);

fn add(to: &mut Counts, counts: Counts) {
    for (sum, count) in to.iter_mut().zip(counts) {
        *sum += count;
    }
}

impl Topics {
    /// Takes what all replicas have counted by now, and gives the sums by topic. A topic without a replica is forgotten.
    pub(super) fn look<'a>(
        &mut self,
        replicas: impl Iterator<Item = (&'a str, i32, Counts)>,
    ) -> Vec<(String, Counts)> {
        let mut now: BTreeMap<&str, HashMap<i32, Counts>> = BTreeMap::new();
        for (topic, partition, counts) in replicas {
            now.entry(topic).or_default().insert(partition, counts);
        }
        self.0.retain(|topic, _| now.contains_key(topic.as_str()));
        now.into_iter()
            .map(|(name, seen)| {
                let topic = self.0.entry(name.to_owned()).or_default();
                for (partition, old) in &topic.seen {
                    let is_same = seen
                        .get(partition)
                        .is_some_and(|new| new.iter().zip(old).all(|(new, old)| new >= old));
                    if !is_same {
                        add(&mut topic.left, *old);
                    }
                }
                let mut sum = topic.left;
                for counts in seen.values() {
                    add(&mut sum, *counts);
                }
                topic.seen = seen;
                (name.to_owned(), sum)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_topic_never_fall() {
        let mut topics = Topics::default();
        let mut look = |replicas: &[(&'static str, i32, u64)]| -> Vec<(String, u64)> {
            let replicas = replicas.iter().map(|(topic, partition, count)| (*topic, *partition, [*count; 3]));
            topics.look(replicas).into_iter().map(|(topic, counts)| (topic, counts[2])).collect()
        };
        assert_eq!(look(&[("a", 0, 5), ("a", 1, 7), ("b", 0, 1)]), [("a".into(), 12), ("b".into(), 1)]);
        // A replica leaves, and one that comes back counts from 0.
        assert_eq!(look(&[("a", 0, 6), ("b", 0, 1)]), [("a".into(), 13), ("b".into(), 1)]);
        assert_eq!(look(&[("a", 0, 6), ("a", 1, 2)]), [("a".into(), 15)]);
        assert_eq!(look(&[("a", 0, 1), ("a", 1, 2)]), [("a".into(), 16)], "made anew between two looks");
        // Deleted, and made anew: another topic.
        assert_eq!(look(&[]), []);
        assert_eq!(look(&[("b", 0, 4)]), [("b".into(), 4)]);
    }
}
