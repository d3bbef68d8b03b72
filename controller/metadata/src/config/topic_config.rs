//! A topic's properties, typed, as they hold on one broker.

use std::collections::BTreeMap;
use std::str::FromStr;

use ottla_proto::metadata::ResourceType;

use super::sources::{Layers, topic_fallback};
use super::{ConfigKind, definition};
use crate::image::MetadataImage;

/// What happens to old records. Neither: they stay for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Segments beyond the retention go.
    pub delete: bool,
    /// Only the last record of each key stays.
    pub compact: bool,
}

/// A topic's properties.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// Replicas that must have a batch before `acks=all` is answered.
    pub min_insync_replicas: i32,
    /// Records between two fsyncs.
    pub flush_messages: i64,
    /// Time between two fsyncs, in milliseconds.
    pub flush_ms: i64,
    /// Size of a segment.
    pub segment_bytes: i32,
    /// Age of a segment at which the next begins, in milliseconds.
    pub segment_ms: i64,
    /// A random part of this is taken off `segment_ms`, in milliseconds.
    pub segment_jitter_ms: i64,
    /// Size of an index file at most.
    pub segment_index_bytes: i32,
    /// Bytes of records between two index entries.
    pub index_interval_bytes: i32,
    /// Age at which records go, in milliseconds; -1: never.
    pub retention_ms: i64,
    /// Size of a partition above which its oldest segments go; -1: any.
    pub retention_bytes: i64,
    /// What happens to old records.
    pub cleanup_policy: CleanupPolicy,
    /// Size of a record batch at most.
    pub max_message_bytes: i32,
    /// `producer` keeps what comes; otherwise batches are compressed anew.
    pub compression_type: String,
    /// 1 to 9; -1: the codec's own.
    pub compression_gzip_level: i32,
    /// 1 to 17.
    pub compression_lz4_level: i32,
    /// -131072 to 22.
    pub compression_zstd_level: i32,
    /// Records carry the broker's time, not the producer's.
    pub log_append_time: bool,
    /// How far a record's time may lie behind, in milliseconds.
    pub message_timestamp_before_max_ms: i64,
    /// How far a record's time may lie ahead, in milliseconds.
    pub message_timestamp_after_max_ms: i64,
    /// Time between a file's renaming and its removal, in milliseconds.
    pub file_delete_delay_ms: i64,
    /// Segments get their full size on disk at once.
    pub preallocate: bool,
    /// How long compaction keeps tombstones, in milliseconds.
    pub delete_retention_ms: i64,
    /// Records younger than this are not compacted, in milliseconds.
    pub min_compaction_lag_ms: i64,
    /// Records older than this are compacted whatever the ratio, in milliseconds.
    pub max_compaction_lag_ms: i64,
    /// Share of uncompacted bytes from which compaction begins, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// A replica outside the ISR may lead when no other lives.
    pub unclean_leader_election_enable: bool,
}

/// Reads a topic's properties one by one.
struct Reader<'a> {
    topic: Option<&'a BTreeMap<String, String>>,
    layers: Layers<'a>,
}

impl Reader<'_> {
    /// Values are validated before they are stored; one that cannot be read is passed over for the default.
    fn read<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        if let Some(value) = self.topic.and_then(|set| set.get(name)).and_then(|text| parse(text.trim())) {
            return Some(value);
        }
        let found = definition(ConfigKind::Topic, name)?;
        let fallback = topic_fallback(self.layers, found).and_then(|text| parse(text.trim()));
        fallback.or_else(|| found.default.and_then(&parse))
    }

    fn number<T: FromStr + Default>(&self, name: &str) -> T {
        self.read(name, |text| text.parse().ok()).unwrap_or_default()
    }

    fn boolean(&self, name: &str) -> bool {
        self.read(name, |text| text.to_ascii_lowercase().parse().ok()).unwrap_or(false)
    }

    fn text(&self, name: &str) -> String {
        self.read(name, |text| Some(text.to_owned())).unwrap_or_default()
    }

    fn cleanup_policy(&self) -> CleanupPolicy {
        let policy = self.text("cleanup.policy");
        let has = |wanted: &str| policy.split(',').any(|item| item.trim() == wanted);
        CleanupPolicy { delete: has("delete"), compact: has("compact") }
    }
}

impl TopicConfig {
    /// The properties of a topic as they hold on a broker; of a topic without any, or none at all, the broker's defaults.
    pub fn effective(
        image: &MetadataImage,
        properties: &BTreeMap<String, String>,
        broker_id: i32,
        topic: &str,
    ) -> Self {
        let reader = Reader {
            topic: image.config(ResourceType::Topic, topic),
            layers: Layers::new(image, properties, Some(broker_id)),
        };
        Self {
            // The controller decides with these two: single brokers have no say.
            min_insync_replicas: super::min_insync_replicas(image, properties, topic),
            unclean_leader_election_enable: super::unclean_leader_election_enable(image, properties, topic),
            flush_messages: reader.number("flush.messages"),
            flush_ms: reader.number("flush.ms"),
            segment_bytes: reader.number("segment.bytes"),
            segment_ms: reader.number("segment.ms"),
            segment_jitter_ms: reader.number("segment.jitter.ms"),
            segment_index_bytes: reader.number("segment.index.bytes"),
            index_interval_bytes: reader.number("index.interval.bytes"),
            retention_ms: reader.number("retention.ms"),
            retention_bytes: reader.number("retention.bytes"),
            cleanup_policy: reader.cleanup_policy(),
            max_message_bytes: reader.number("max.message.bytes"),
            compression_type: reader.text("compression.type"),
            compression_gzip_level: reader.number("compression.gzip.level"),
            compression_lz4_level: reader.number("compression.lz4.level"),
            compression_zstd_level: reader.number("compression.zstd.level"),
            log_append_time: reader.text("message.timestamp.type") == "LogAppendTime",
            message_timestamp_before_max_ms: reader.number("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: reader.number("message.timestamp.after.max.ms"),
            file_delete_delay_ms: reader.number("file.delete.delay.ms"),
            preallocate: reader.boolean("preallocate"),
            delete_retention_ms: reader.number("delete.retention.ms"),
            min_compaction_lag_ms: reader.number("min.compaction.lag.ms"),
            max_compaction_lag_ms: reader.number("max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: reader.number("min.cleanable.dirty.ratio"),
        }
    }
}
