//! Internal topics of streams groups (KIP-1071): every heartbeat of every member names those that are missing, each is
//! created once at a time, and members are told why one could not be.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ottla_coordinator::streams_group::MissingTopic;
use ottla_wire::text::Text;
use parking_lot::Mutex;

/// Topics that are known to be on their way or to have failed. While there are more, further ones wait.
const TOPICS_MAX: usize = 10_000;
/// Pause before a topic that could not be created is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct TopicCreations {
    topics: Mutex<HashMap<Text, Creation>>,
}

#[derive(Debug)]
enum Creation {
    UnderWay,
    Failed { message: String, at: Instant, told_until: Instant },
}

impl TopicCreations {
    /// The topics that the caller is to create now; it must then call [`Self::finish`] for each.
    pub(crate) fn begin(&self, missing: Vec<MissingTopic>) -> Vec<MissingTopic> {
        let now = Instant::now();
        let mut topics = self.topics.lock();
        topics.retain(|_, creation| match creation {
            Creation::UnderWay => true,
            Creation::Failed { told_until, .. } => *told_until > now,
        });
        let mut begun = Vec::new();
        for topic in missing {
            let may_begin = match topics.get(&topic.name) {
                None => topics.len() < TOPICS_MAX,
                Some(Creation::UnderWay) => false,
                Some(Creation::Failed { at, .. }) => now.duration_since(*at) >= RETRY_PAUSE,
            };
            if may_begin {
                topics.insert(topic.name.detached(), Creation::UnderWay);
                begun.push(topic);
            }
        }
        begun
    }

    /// What became of a topic: why it could not be created is told for some time.
    pub(crate) fn finish(&self, name: &str, outcome: Result<(), String>, told_for: Duration) {
        let mut topics = self.topics.lock();
        match outcome {
            Ok(()) => drop(topics.remove(name)),
            Err(message) => {
                let at = Instant::now();
                let failed = Creation::Failed { message, at, told_until: at + told_for };
                topics.insert(Text::from(name), failed);
            }
        }
    }

    /// Why some of these could not be created: `name (why)` of each.
    pub(crate) fn failures<'a>(&self, names: impl Iterator<Item = &'a Text>) -> Vec<String> {
        let now = Instant::now();
        let topics = self.topics.lock();
        let failure = |name: &Text| match topics.get(name) {
            Some(Creation::Failed { message, told_until, .. }) if *told_until > now => {
                Some(format!("{name} ({message})"))
            }
            _ => None,
        };
        names.filter_map(failure).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(names: &[&str]) -> Vec<MissingTopic> {
        let one = |name: &&str| MissingTopic {
            name: Text::from(*name),
            partitions: 1,
            replication_factor: -1,
            configs: Default::default(),
        };
        names.iter().map(one).collect()
    }

    #[test]
    fn each_topic_is_created_once_at_a_time_and_failures_are_told() {
        let creations = TopicCreations::default();
        assert_eq!(creations.begin(missing(&["a", "b"])).len(), 2);
        let names: Vec<Text> =
            creations.begin(missing(&["b", "c"])).into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["c"]);
        let told_for = Duration::from_secs(60);
        creations.finish("a", Ok(()), told_for);
        creations.finish("b", Err("too many replicas".to_owned()), told_for);
        let asked = [Text::from("a"), Text::from("b"), Text::from("c")];
        assert_eq!(creations.failures(asked.iter()), ["b (too many replicas)"]);
        assert_eq!(creations.begin(missing(&["a", "b"])).len(), 1, "the other failed a moment ago");
        creations.finish("b", Err("again".to_owned()), Duration::ZERO);
        assert!(creations.failures(asked.iter()).is_empty());
        assert_eq!(creations.begin(missing(&["b"])).len(), 1);
    }
}
