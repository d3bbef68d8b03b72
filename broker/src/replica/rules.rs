//! A topic's settings as its partitions need them: for the log, for the machine, for what producers may send.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_log::LogConfig;
use ottla_metadata::config::{self, TopicConfig};
use ottla_metadata::image::MetadataImage;
use ottla_replica::MachineOptions;
use ottla_wire::compression::Codec;
use ottla_wire::records::TimestampType;
use ottla_wire::records::validate::{ProduceRules, Refusal, TargetCompression, validate_produce};

use super::appends::ProduceRefusal;
use super::options::ReplicaOptions;
use super::throttles::ThrottledReplicas;

const PRODUCER_ID_EXPIRATION: &str = "producer.id.expiration.ms";

/// From this version of Produce on a batch may be compressed with Zstandard (KIP-110).
const ZSTD_FROM: i16 = 7;

/// A topic's settings; one value for all its partitions, replaced whole when a setting changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    min_insync_replicas: usize,
    flush_messages: i64,
    /// With time 0 and every codec: each request brings its own.
    produce: ProduceRules,
    log: Arc<LogConfig>,
    throttled_leaders: ThrottledReplicas,
    throttled_followers: ThrottledReplicas,
}

/// Records that may be appended.
#[derive(Debug)]
pub(crate) struct Checked {
    /// As they were, or with corrected time stamps, or compressed anew.
    pub(crate) records: Bytes,
    /// With log-append time that time, otherwise -1.
    pub(crate) log_append_time_ms: i64,
}

fn produce_rules(topic: &TopicConfig) -> ProduceRules {
    ProduceRules {
        max_message_bytes: positive(topic.max_message_bytes),
        keys_required: topic.cleanup_policy.compact,
        timestamp_type: if topic.log_append_time {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        timestamp_before_max_ms: topic.message_timestamp_before_max_ms,
        timestamp_after_max_ms: topic.message_timestamp_after_max_ms,
        compression: match topic.compression_type.as_str() {
            "uncompressed" => TargetCompression::Codec(Codec::None, None),
            "gzip" => TargetCompression::Codec(Codec::Gzip, Some(topic.compression_gzip_level)),
            "snappy" => TargetCompression::Codec(Codec::Snappy, None),
            "lz4" => TargetCompression::Codec(Codec::Lz4, Some(topic.compression_lz4_level)),
            "zstd" => TargetCompression::Codec(Codec::Zstd, Some(topic.compression_zstd_level)),
            _ => TargetCompression::Producer,
        },
        ..ProduceRules::default()
    }
}

fn log_config(topic: &TopicConfig, producer_id_expiration_ms: i64) -> LogConfig {
    LogConfig {
        segment_bytes: positive(topic.segment_bytes),
        segment_ms: topic.segment_ms,
        segment_jitter_ms: topic.segment_jitter_ms,
        segment_index_bytes: positive(topic.segment_index_bytes),
        index_interval_bytes: positive(topic.index_interval_bytes),
        retention_ms: topic.retention_ms,
        retention_bytes: topic.retention_bytes,
        deletes: topic.cleanup_policy.delete,
        file_delete_delay_ms: topic.file_delete_delay_ms,
        compacts: topic.cleanup_policy.compact,
        min_cleanable_dirty_ratio: topic.min_cleanable_dirty_ratio,
        min_compaction_lag_ms: topic.min_compaction_lag_ms,
        max_compaction_lag_ms: topic.max_compaction_lag_ms,
        delete_retention_ms: topic.delete_retention_ms,
        flush_messages: topic.flush_messages,
        flush_ms: topic.flush_ms,
        producer_id_expiration_ms,
    }
}

/// A size that was checked to be positive when it was set.
fn positive(size: i32) -> usize {
    usize::try_from(size).unwrap_or(0)
}

impl Rules {
    /// The settings of a topic in an image, over the node's static properties.
    pub fn of(
        image: &MetadataImage,
        properties: &BTreeMap<String, String>,
        broker_id: i32,
        topic: &str,
    ) -> Self {
        let throttled = |property: &str| {
            let value = config::topic_value(image, properties, Some(broker_id), topic, property);
            ThrottledReplicas::parse(&value.unwrap_or_default(), broker_id)
        };
        let throttled_leaders = throttled("leader.replication.throttled.replicas");
        let throttled_followers = throttled("follower.replication.throttled.replicas");
        let topic = TopicConfig::effective(image, properties, broker_id, topic);
        let expiration = config::broker_value(image, properties, Some(broker_id), PRODUCER_ID_EXPIRATION);
        let producer_id_expiration_ms = expiration
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or_else(|| config::get_i64(properties, PRODUCER_ID_EXPIRATION));
        Self {
            throttled_leaders,
            throttled_followers,
            min_insync_replicas: positive(topic.min_insync_replicas).max(1),
            flush_messages: topic.flush_messages,
            produce: produce_rules(&topic),
            log: Arc::new(log_config(&topic, producer_id_expiration_ms)),
        }
    }

    /// The defaults, with every replica under the throttle.
    #[cfg(test)]
    pub(crate) fn default_throttled() -> std::sync::Arc<Self> {
        let defaults = Self::of(&MetadataImage::default(), &BTreeMap::new(), 1, "");
        let (throttled_leaders, throttled_followers) = (ThrottledReplicas::All, ThrottledReplicas::All);
        std::sync::Arc::new(Self { throttled_leaders, throttled_followers, ..defaults })
    }

    /// Whether sending a partition's records to followers that catch up counts against the throttle (KIP-73).
    pub(crate) fn is_throttled_as_leader(&self, index: i32) -> bool {
        self.throttled_leaders.contains(index)
    }

    /// Whether fetching a partition's records while catching up counts against the throttle (KIP-73).
    pub(crate) fn is_throttled_as_follower(&self, index: i32) -> bool {
        self.throttled_followers.contains(index)
    }

    /// For the log.
    pub fn log_config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.log)
    }

    /// Whether `cleanup.policy` asks for compaction.
    pub fn compacts(&self) -> bool {
        self.log.compacts
    }

    /// Whether records go by compaction alone.
    pub(crate) fn is_only_compacted(&self) -> bool {
        self.log.compacts && !self.log.deletes
    }

    /// `flush.ms`: what was appended is synced after this long at the latest.
    pub fn flush_ms(&self) -> i64 {
        self.log.flush_ms
    }

    /// For the machine.
    pub fn machine_options(&self, options: &ReplicaOptions) -> MachineOptions {
        MachineOptions {
            lag_ms_max: options.replica_lag_time_ms_max,
            min_insync_replicas: self.min_insync_replicas,
            synced_only: self.is_synced_only(),
        }
    }

    /// `flush.messages=1`: nothing counts before it is on disk.
    pub fn is_synced_only(&self) -> bool {
        self.flush_messages <= 1
    }

    /// Checks what a client produced and brings it into the form in which it is stored.
    pub(crate) fn check(
        &self,
        records: Bytes,
        produce_version: i16,
        now_ms: i64,
    ) -> Result<Checked, ProduceRefusal> {
        let rules = ProduceRules { now_ms, zstd_allowed: produce_version >= ZSTD_FROM, ..self.produce };
        let valid = validate_produce(&records, &rules).map_err(refusal)?;
        let records = valid.store(records, &rules).map_err(refusal)?.freeze();
        let log_append_time_ms = match rules.timestamp_type {
            TimestampType::LogAppendTime => now_ms,
            TimestampType::CreateTime => -1,
        };
        Ok(Checked { records, log_append_time_ms })
    }
}

fn refusal(refusal: Refusal) -> ProduceRefusal {
    let code = refusal.error_code();
    ProduceRefusal {
        message: refusal.message,
        record_errors: refusal.record_errors,
        ..ProduceRefusal::from(code)
    }
}
