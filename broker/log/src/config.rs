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
    /// `file.delete.delay.ms`: how long a file that was deleted stays, renamed, for readers that are about to open it.
    pub file_delete_delay_ms: i64,
    /// `cleanup.policy` contains compact.
    pub compacts: bool,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: so long every record stays.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: so long a record may wait to be compacted, whatever the ratio.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: so long tombstones and transaction markers stay behind the pass that first could remove them.
    pub delete_retention_ms: i64,
    /// `flush.messages`: records between two syncs that the log makes by itself.
    pub flush_messages: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
}

impl LogConfig {
    /// How old a segment's first record may be when the segment is written to: a compacted log has to close segments in time
    /// for `max.compaction.lag.ms` (KIP-354).
    pub(crate) fn segment_age_ms_max(&self) -> i64 {
        if self.compacts && self.max_compaction_lag_ms > 0 {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        }
    }
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
            file_delete_delay_ms: 60_000,
            compacts: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 3_600_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            producer_id_expiration_ms: 24 * 3_600_000,
        }
    }
}
