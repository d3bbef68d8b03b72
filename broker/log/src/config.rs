//! A log's settings, by the names of Kafka's topic properties.

/// Settings of one log; see each property's own documentation for its meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`.
    pub segment_bytes: usize,
    /// `segment.ms`, less the jitter that was drawn for this log.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: at most so much earlier a segment rolls.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`.
    pub segment_index_bytes: usize,
    /// `index.interval.bytes`.
    pub index_interval_bytes: usize,
    /// `retention.ms`; -1: for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; -1: any size.
    pub retention_bytes: i64,
    /// `cleanup.policy` contains delete.
    pub deletes: bool,
    /// `flush.messages`: records between two syncs that the log makes by itself.
    pub flush_messages: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            deletes: true,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            producer_id_expiration_ms: 24 * 3_600_000,
        }
    }
}
