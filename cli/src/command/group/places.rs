//! Which partitions a command means: `--topic T`, `--topic T:0,2`; and files of offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::client::offsets::TopicPartition;

/// Bytes of a file of offsets that are read at most.
pub(super) const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A topic, or some of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicPlaces {
    pub(super) name: String,
    /// `None`: all.
    pub(super) partitions: Option<BTreeSet<i32>>,
}

impl TopicPlaces {
    /// `orders`, `orders:0`, `orders:0,2`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is no topic; write orders, or orders:0,2 for some of its partitions");
        let (name, partitions) = match text.split_once(':') {
            Some((name, partitions)) => (name, Some(partitions)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(wrong());
        }
        let partitions = partitions.map(|list| {
            list.split(',').map(|one| one.trim().parse::<i32>().ok().filter(|number| *number >= 0)).collect()
        });
        match partitions {
            Some(None) => Err(wrong()),
            Some(Some(partitions)) => Ok(Self { name: name.to_owned(), partitions: Some(partitions) }),
            None => Ok(Self { name: name.to_owned(), partitions: None }),
        }
    }
}

/// The partitions among these that are meant.
pub(super) fn chosen(topics: &[TopicPlaces], all: &BTreeSet<TopicPartition>) -> Vec<TopicPartition> {
    let is_meant = |(topic, partition): &&TopicPartition| {
        topics.iter().any(|place| {
            *place.name == **topic && place.partitions.as_ref().is_none_or(|some| some.contains(partition))
        })
    };
    all.iter().filter(is_meant).cloned().collect()
}

/// Lines of `topic,partition,offset`, as Kafka's own tool writes and reads them. Empty lines and those behind `#` are passed
/// over.
pub(super) fn offsets_of_file(text: &str) -> Result<BTreeMap<TopicPartition, i64>, String> {
    let mut offsets = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split(',').map(|word| word.trim().trim_matches('"'));
        let parsed = (|| {
            let topic = words.next().filter(|topic| !topic.is_empty())?;
            let partition = words.next()?.parse::<i32>().ok().filter(|partition| *partition >= 0)?;
            let offset = words.next()?.parse::<i64>().ok().filter(|offset| *offset >= 0)?;
            Some((Arc::from(topic), partition, offset))
        })();
        match (parsed, words.next()) {
            (Some((topic, partition, offset)), None) => {
                if offsets.insert((topic, partition), offset).is_some() {
                    return Err(format!("line {}: the partition is named twice", at + 1));
                }
            }
            _ => return Err(format!("line {}: '{line}' is not topic,partition,offset", at + 1)),
        }
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_whole_or_in_part() {
        let part = TopicPlaces::parse("a:0, 2").unwrap();
        assert_eq!(part.partitions, Some(BTreeSet::from([0, 2])));
        let all: BTreeSet<TopicPartition> =
            [("a", 0), ("a", 1), ("a", 2), ("b", 7)].map(|(topic, number)| (Arc::from(topic), number)).into();
        let whole = TopicPlaces::parse("b").unwrap();
        let numbers =
            |topics: &[TopicPlaces]| chosen(topics, &all).iter().map(|one| one.1).collect::<Vec<_>>();
        assert_eq!(numbers(&[part, whole]), [0, 2, 7]);
        for wrong in ["", ":1", "a:", "a:x", "a:-1", "a:1,"] {
            assert!(TopicPlaces::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_has_a_line_for_each_partition() {
        let offsets = offsets_of_file("# of billing\norders,0,5\n\n \"orders\" , 1 , 7 \n").unwrap();
        assert_eq!(offsets.into_values().collect::<Vec<_>>(), [5, 7]);
        for wrong in ["orders,0", "orders,0,5,6", "orders,x,5", "orders,0,-5", ",0,5", "a,0,1\na,0,2"] {
            assert!(offsets_of_file(wrong).is_err(), "{wrong}");
        }
    }
}
