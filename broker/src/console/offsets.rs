//! Where partitions begin and end, asked of their leaders, and how large replicas are, asked of all brokers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ottla_metadata::image::MetadataImage;
use ottla_wire::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, ListOffsetsRequest, describe_log_dirs_request,
    list_offsets_request,
};
use ottla_wire::text::Text;
use parking_lot::Mutex;

use super::Console;
use super::peers::AskError;
use crate::context::BrokerContext;

/// A version of ListOffsets that names topics and knows of leader epochs.
const LIST_OFFSETS_VERSION: i16 = 7;
/// The version of DescribeLogDirs that tells of the disk.
const LOG_DIRS_VERSION: i16 = 4;
/// Kafka's names of the ends.
pub(super) const LATEST: i64 = -1;
pub(super) const EARLIEST: i64 = -2;
/// How old the sizes in lists of topics may be before they are asked for again.
const SIZES_AGE_MAX: Duration = Duration::from_secs(5);

/// Partitions of topics.
pub(super) type Partitions = BTreeMap<Text, Vec<i32>>;
/// An offset for each partition whose leader answered.
pub(super) type Offsets = HashMap<(Text, i32), i64>;

/// Bytes of topics: all replicas together.
pub(super) type TopicBytes = HashMap<Text, i64>;

/// What a broker's log directories hold together, and their disks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Disks {
    pub(super) directories: usize,
    /// Directories that failed.
    pub(super) failed: usize,
    pub(super) log_bytes: i64,
    /// Of the disks; two directories on one disk tell of the same bytes, which are counted once.
    pub(super) total_bytes: i64,
    pub(super) free_bytes: i64,
}

/// Sizes of all topics as they were last asked for. A list is answered from these, and a newer look begins behind it: a page
/// does not wait for the slowest broker.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    bytes: Option<Arc<TopicBytes>>,
    disks: BTreeMap<i32, Disks>,
    looked: Option<Instant>,
    is_looking: bool,
}

impl Console {
    /// Offsets by time stamp (or [`LATEST`], [`EARLIEST`]); partitions without an answer are left out.
    pub(super) async fn offsets_at(
        &self,
        context: &Arc<BrokerContext>,
        wanted: &Partitions,
        timestamp: i64,
    ) -> Offsets {
        self.offsets_for(context, wanted, timestamp, false).await
    }

    /// As [`Self::offsets_at`]; `committed`: up to the first record of a transaction that is still open.
    pub(super) async fn offsets_for(
        &self,
        context: &Arc<BrokerContext>,
        wanted: &Partitions,
        timestamp: i64,
        committed: bool,
    ) -> Offsets {
        let image = context.image.current();
        let asked = by_leader(&image, wanted).into_iter().map(|(leader, topics)| async move {
            let partition = |partition_index| list_offsets_request::Partition {
                partition_index,
                current_leader_epoch: -1,
                timestamp,
            };
            let topics = topics.into_iter().map(|(name, partitions)| list_offsets_request::Topic {
                name,
                partitions: partitions.into_iter().map(partition).collect(),
            });
            let request = ListOffsetsRequest {
                replica_id: -1,
                isolation_level: i8::from(committed),
                topics: topics.collect(),
                ..Default::default()
            };
            self.peers.call(context, leader, &request, LIST_OFFSETS_VERSION).await
        });
        let mut found = Offsets::new();
        for answer in join_all(asked).await {
            match answer {
                Ok(answer) => {
                    for topic in answer.topics {
                        for one in topic.partitions.iter().filter(|one| one.error_code == 0) {
                            found.insert((topic.name.clone(), one.partition_index), one.offset);
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "offsets are not known"),
            }
        }
        found
    }

    /// What brokers say of their log directories; topics: `None` means all.
    pub(super) async fn log_directories(
        &self,
        context: &Arc<BrokerContext>,
        brokers: &[i32],
        topics: Option<&Partitions>,
    ) -> Vec<(i32, Result<DescribeLogDirsResponse, AskError>)> {
        let request = DescribeLogDirsRequest {
            topics: topics.map(|topics| {
                let topic = |(name, partitions): (&Text, &Vec<i32>)| describe_log_dirs_request::Topic {
                    topic: name.clone(),
                    partitions: partitions.clone(),
                };
                topics.iter().map(topic).collect()
            }),
        };
        let request = &request;
        let asked = brokers.iter().map(|broker| async move {
            (*broker, self.peers.call(context, *broker, request, LOG_DIRS_VERSION).await)
        });
        join_all(asked).await
    }

    /// Bytes of every topic, some seconds old; `None`: not known yet.
    pub(super) fn topic_bytes(self: &Arc<Self>) -> Option<Arc<TopicBytes>> {
        self.keep_looking_at_sizes();
        self.sizes.known.lock().bytes.clone()
    }

    /// The disks of every broker that answered, as old as the sizes of topics.
    pub(super) fn broker_disks(self: &Arc<Self>) -> BTreeMap<i32, Disks> {
        self.keep_looking_at_sizes();
        self.sizes.known.lock().disks.clone()
    }

    fn keep_looking_at_sizes(self: &Arc<Self>) {
        let mut known = self.sizes.known.lock();
        let is_old = known.looked.is_none_or(|looked| looked.elapsed() > SIZES_AGE_MAX);
        if is_old && !known.is_looking && self.broker.get().is_some() {
            known.is_looking = true;
            tokio::spawn(Arc::clone(self).look_at_sizes());
        }
    }

    async fn look_at_sizes(self: Arc<Self>) {
        let (mut bytes, mut disks) = (TopicBytes::new(), BTreeMap::new());
        if let Ok(context) = self.context() {
            let brokers = living(&context.image.current());
            for (broker, answer) in self.log_directories(context, &brokers, None).await {
                if let Ok(answer) = &answer {
                    disks.insert(broker, Disks::of(answer));
                }
                for topic in answer.iter().flat_map(|answer| &answer.results).flat_map(|dir| &dir.topics) {
                    let size: i64 = topic.partitions.iter().map(|one| one.partition_size).sum();
                    *bytes.entry(topic.name.clone()).or_default() += size;
                }
            }
        }
        let mut known = self.sizes.known.lock();
        *known =
            Known { bytes: Some(Arc::new(bytes)), disks, looked: Some(Instant::now()), is_looking: false };
    }
}

impl Disks {
    fn of(answer: &DescribeLogDirsResponse) -> Self {
        let mut disks = Self { directories: answer.results.len(), ..Self::default() };
        let mut counted = BTreeSet::new();
        for directory in &answer.results {
            disks.failed += usize::from(directory.error_code != 0);
            let partitions = directory.topics.iter().flat_map(|topic| &topic.partitions);
            disks.log_bytes += partitions.map(|one| one.partition_size).sum::<i64>();
            let (total, free) = (directory.total_bytes, directory.usable_bytes);
            if total > 0 && counted.insert((total, free)) {
                disks.total_bytes += total;
                disks.free_bytes += free.max(0);
            }
        }
        disks
    }
}

/// Brokers that can be asked.
pub(super) fn living(image: &MetadataImage) -> Vec<i32> {
    image.brokers().filter(|broker| !broker.fenced).map(|broker| broker.id.0).collect()
}

/// The same partitions, by who leads them; those without a leader are left out.
pub(super) fn by_leader(image: &MetadataImage, wanted: &Partitions) -> BTreeMap<i32, Partitions> {
    let mut found: BTreeMap<i32, Partitions> = BTreeMap::new();
    for (name, partitions) in wanted {
        let Some(topic) = image.topic_by_name(name) else { continue };
        for partition in partitions {
            let known = usize::try_from(*partition).ok().and_then(|index| topic.partitions.get(index));
            if let Some(leader) = known.and_then(|partition| partition.leader) {
                found.entry(leader.0).or_default().entry(name.clone()).or_default().push(*partition);
            }
        }
    }
    found
}
