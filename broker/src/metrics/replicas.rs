//! Replicas on this node as a scrape finds them: Kafka's `kafka.server:type=ReplicaManager`, `kafka.cluster:type=Partition`,
//! `kafka.log:type=Log` and the topic part of `BrokerTopicMetrics`.

use std::fmt::{Debug, Error, Formatter};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;

use super::scrape::{counter, counters, gauge, gauges, whole};
use super::topics::Topics;
use crate::replica::{Partition, PartitionView, ReplicaManager};

/// So many partitions and topics have series of their own; the rest is in the sums only, and counted.
const LISTED_PARTITIONS_MAX: usize = 5_000;

pub(super) struct Replicas {
    manager: Arc<ReplicaManager>,
    topics: Mutex<Topics>,
}

impl Replicas {
    pub(super) fn new(manager: Arc<ReplicaManager>) -> Self {
        Self { manager, topics: Mutex::default() }
    }
}

impl Debug for Replicas {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Replicas")
    }
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct PartitionLabel {
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct TopicLabel {
    topic: String,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct DirectoryLabel {
    directory: String,
}

/// What a partition did since the node started; the hot path adds, a scrape reads.
#[derive(Debug, Default)]
pub struct PartitionTraffic {
    /// Bytes of batches that producers sent and that were appended.
    pub produced_bytes: crate::replica::Counter,
    /// Offsets that those took: records, but for a batch that compaction had thinned before it was sent.
    pub produced_records: crate::replica::Counter,
    /// Bytes of batches that consumers were sent.
    pub fetched_bytes: crate::replica::Counter,
}

struct Seen {
    label: PartitionLabel,
    view: PartitionView,
}

impl Collector for Replicas {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut partitions = self.manager.partitions();
        partitions.sort_by(|one, other| (one.topic(), one.index()).cmp(&(other.topic(), other.index())));
        let unlisted = partitions.len().saturating_sub(LISTED_PARTITIONS_MAX);
        let seen: Vec<Seen> = partitions
            .iter()
            .map(|partition| Seen {
                label: PartitionLabel { topic: partition.topic().to_string(), partition: partition.index() },
                view: partition.view(),
            })
            .collect();
        sums(&mut encoder, &seen)?;
        gauge(
            &mut encoder,
            "unlisted_partitions",
            "Replicas on this node beyond the limit of series: they are in the sums only",
            whole(unlisted),
        )?;
        self.counted(&mut encoder)?;
        self.directories(&mut encoder, &seen)?;
        self.by_topic(&mut encoder, partitions.iter().take(LISTED_PARTITIONS_MAX))?;
        by_partition(&mut encoder, seen.get(..LISTED_PARTITIONS_MAX).unwrap_or(&seen))
    }
}

fn sums(encoder: &mut DescriptorEncoder<'_>, seen: &[Seen]) -> Result<(), Error> {
    let count = |is: fn(&PartitionView) -> bool| whole(seen.iter().filter(|one| is(&one.view)).count());
    gauge(encoder, "partitions", "Replicas on this node", whole(seen.len()))?;
    gauge(encoder, "leaders", "Partitions that this node leads", count(|view| view.is_leader))?;
    gauge(
        encoder,
        "under_replicated_partitions",
        "Partitions led here with an ISR smaller than the replica set",
        count(|view| view.is_leader && view.isr.len() < view.replica_count),
    )?;
    gauge(
        encoder,
        "under_min_isr_partitions",
        "Partitions led here with an ISR smaller than min.insync.replicas",
        count(|view| view.is_leader && view.is_under_min_isr),
    )?;
    gauge(
        encoder,
        "at_min_isr_partitions",
        "Partitions led here whose ISR has just min.insync.replicas members: one more away stops acks=all",
        count(|view| view.is_at_min_isr),
    )?;
    gauge(
        encoder,
        "producer_ids",
        "Idempotent producers that the logs on this node remember, in each partition anew",
        whole(seen.iter().map(|one| one.view.producers).sum::<usize>()),
    )?;
    let behind = |view: &PartitionView| {
        let known = view.followers.iter().filter(|follower| follower.log_end >= 0);
        known.map(|follower| view.log_end_offset - follower.log_end).max().unwrap_or(0)
    };
    gauge(
        encoder,
        "follower_lag_max",
        "Records that the follower furthest behind lacks of a partition led here",
        seen.iter().filter(|one| one.view.is_leader).map(|one| behind(&one.view)).max().unwrap_or(0).max(0),
    )?;
    gauge(
        encoder,
        "offline_replicas",
        "Replicas on this node that have no log: their directory is offline",
        count(|view| view.is_offline),
    )
}

impl Replicas {
    fn counted(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let counted = &self.manager.shared().counters;
        for (name, help, value) in [
            ("isr_shrinks", "Members that left an in-sync replica set led here", &counted.isr_shrinks),
            ("isr_expands", "Members that joined an in-sync replica set led here", &counted.isr_expands),
            ("isr_refusals", "ISR changes that the controller refused", &counted.isr_refusals),
            ("failed_partitions", "Replicas taken offline since the start", &counted.partitions_failed),
            ("full_disk_refusals", "Appends refused because a disk was full", &counted.appends_without_space),
            ("replicated_in_bytes", "Bytes that followers here have fetched", &counted.replicated_bytes),
            ("truncations", "Logs truncated after a change of leaders", &counted.truncations),
            (
                "replica_fetch_failures",
                "Fetches from leaders that failed as a whole",
                &counted.fetch_failures,
            ),
            ("compactions", "Passes of the log cleaner that came to their end", &counted.compactions),
            ("compacted_bytes", "Bytes that passes of the log cleaner read", &counted.compacted_bytes),
            ("uncleanable", "Logs found that cannot be compacted", &counted.uncleanable_partitions),
        ] {
            counter(encoder, name, help, value.get())?;
        }
        let (sum, count, buckets) = counted.flush_times.read();
        let help =
            "Time of a sync of a partition's log to its disk: flush.ms, flush.messages, closed segments";
        encoder
            .encode_descriptor("log_flush_seconds", help, None, MetricType::Histogram)?
            .encode_histogram::<TopicLabel>(sum, count, &buckets, None)
    }

    fn directories(&self, encoder: &mut DescriptorEncoder<'_>, seen: &[Seen]) -> Result<(), Error> {
        let all = self.manager.directories().all();
        let label = |directory: &crate::replica::LogDir| DirectoryLabel {
            directory: directory.path().display().to_string(),
        };
        gauges(
            encoder,
            "log_directory_offline",
            "1 for a log directory that failed",
            self.manager
                .directories()
                .configured()
                .map(|directory| (label(directory), i64::from(directory.is_offline()))),
        )?;
        gauges(
            encoder,
            "log_directory_bytes",
            "Bytes of all logs in a directory",
            all.iter().map(|directory| {
                let own = seen.iter().filter(|one| Arc::ptr_eq(&one.view.log_dir, directory));
                (label(directory), whole(own.map(|one| one.view.size_bytes).sum::<u64>()))
            }),
        )?;
        // A directory that failed tells nothing of its disk.
        let disks: Vec<_> = all
            .iter()
            .filter_map(|directory| {
                let space = rustix::fs::statvfs(directory.path()).ok().filter(|_| !directory.is_offline())?;
                let bytes = |blocks: u64| whole(blocks.saturating_mul(space.f_frsize));
                Some((label(directory), bytes(space.f_blocks), bytes(space.f_bavail)))
            })
            .collect();
        gauges(
            encoder,
            "log_directory_disk_bytes",
            "Size of the disk that a log directory is on",
            disks.iter().map(|(label, total, _)| (label.clone(), *total)),
        )?;
        gauges(
            encoder,
            "log_directory_disk_free_bytes",
            "Bytes of that disk that this process may still write",
            disks.iter().map(|(label, _, free)| (label.clone(), *free)),
        )
    }
}

impl Replicas {
    fn by_topic<'a>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        partitions: impl Iterator<Item = &'a Arc<Partition>>,
    ) -> Result<(), Error> {
        let counted = partitions.map(|partition| {
            let traffic = &partition.traffic;
            let counts = [&traffic.produced_bytes, &traffic.produced_records, &traffic.fetched_bytes];
            (&**partition.topic(), partition.index(), counts.map(crate::replica::Counter::get))
        });
        let topics = self.topics.lock().look(counted);
        for (kind, name, help) in [
            (0, "topic_produced_bytes", "Bytes appended for producers, by topic"),
            (1, "topic_produced_records", "Records appended for producers, by topic"),
            (2, "topic_fetched_bytes", "Bytes sent to consumers, by topic"),
        ] {
            let values = topics.iter().filter_map(|(topic, counts)| {
                Some((TopicLabel { topic: topic.clone() }, *counts.get(kind)?))
            });
            counters(encoder, name, help, values)?;
        }
        Ok(())
    }
}

fn by_partition(encoder: &mut DescriptorEncoder<'_>, seen: &[Seen]) -> Result<(), Error> {
    let mut one = |name: &str, help: &str, value: fn(&PartitionView) -> i64| {
        let values = seen.iter().map(|one| (one.label.clone(), value(&one.view)));
        gauges(encoder, name, help, values)
    };
    one("partition_log_start_offset", "First offset of a replica's log", |view| view.log_start_offset)?;
    one("partition_log_end_offset", "Next offset of a replica's log", |view| view.log_end_offset)?;
    one("partition_high_watermark", "First offset that is not known to be committed", |view| {
        view.high_watermark
    })?;
    one("partition_last_stable_offset", "What read_committed may see lies below it", |view| {
        view.last_stable_offset
    })?;
    one("partition_size_bytes", "Bytes of a replica's log", |view| whole(view.size_bytes))?;
    let led = || seen.iter().filter(|one| one.view.is_leader);
    gauges(
        encoder,
        "partition_in_sync_replicas",
        "Members of the ISR of a partition led here",
        led().map(|one| (one.label.clone(), whole(one.view.isr.len()))),
    )?;
    gauges(
        encoder,
        "partition_under_replicated",
        "1 for a partition led here whose ISR is smaller than its replica set",
        led().map(|one| (one.label.clone(), i64::from(one.view.isr.len() < one.view.replica_count))),
    )?;
    gauges(
        encoder,
        "partition_under_min_isr",
        "1 for a partition led here whose ISR is smaller than min.insync.replicas",
        led().map(|one| (one.label.clone(), i64::from(one.view.is_under_min_isr))),
    )
}
