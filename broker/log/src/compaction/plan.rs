//! What is to be compacted: how dirty a log is, and a picture of its segments to work from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use super::rewrite::CompactionReport;
use crate::config::LogConfig;
use crate::error::LogError;
use crate::log::Log;
use crate::segment::Segment;
use crate::segment_file::SegmentFile;

/// How much a log needs compaction; the dirtiest log should be next.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cleanable {
    /// First offset that no pass has seen.
    pub first_dirty: i64,
    /// What may be compacted ends before this offset.
    pub end: i64,
    /// Bytes from the log's start to the first dirty offset, in whole segments.
    pub clean_bytes: u64,
    /// Bytes that a pass would look at first.
    pub dirty_bytes: u64,
    /// `dirty_bytes` over both.
    pub ratio: f64,
    /// `max.compaction.lag.ms` has passed for a dirty record: do it whatever the ratio.
    pub must: bool,
    /// The policy asks for it, and the ratio or the lag is reached.
    pub is_due: bool,
}

/// The last thing a producer wrote, which must stay.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastOfProducer {
    /// Offset of its last record; none: only markers.
    pub(super) data_offset: Option<i64>,
    pub(super) epoch: i16,
}

/// A segment as it was when the pass was planned.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) base_offset: i64,
    /// Where the next segment begins.
    pub(super) end_offset: i64,
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// A pass that is about to begin. While it exists the log gives no other.
#[derive(Debug)]
pub struct CompactionPlan {
    pub(super) directory: Arc<Path>,
    pub(super) config: Arc<LogConfig>,
    pub(super) sources: Vec<Source>,
    pub(super) transaction_indexes: Vec<SegmentFile>,
    pub(super) producers: HashMap<i64, LastOfProducer>,
    pub(super) first_dirty: i64,
    pub(super) end: i64,
    pub(super) now_ms: i64,
    pub(super) generation: u64,
    pub(super) token: Arc<()>,
    /// The log's; a sync that fails is the end of it.
    pub(super) broken: Arc<AtomicBool>,
}

/// The token of a pass that is under way, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Running(Weak<()>);

impl Running {
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Log {
    /// How much there is to compact. `first_dirty` is the log's entry in `cleaner-offset-checkpoint`; none: nothing was ever
    /// compacted.
    pub fn cleanable(&self, first_dirty: Option<i64>, now_ms: i64) -> Result<Cleanable, LogError> {
        let active_base = self.segments.last().map_or(0, Segment::base_offset);
        let start = self.log_start_offset;
        // A checkpoint from before the log was cut would take new records for old ones.
        let first_dirty = first_dirty.unwrap_or(start).min(self.first_dirty_max);
        // One that lies outside is not of this log.
        let first_dirty = if (start..=active_base).contains(&first_dirty) { first_dirty } else { start };
        let inactive = &self.segments[..self.segments.len().saturating_sub(1)];
        let dirty_at = self.segment_of(first_dirty).min(inactive.len());
        let lag_ms = self.config.min_compaction_lag_ms;
        let too_young =
            |segment: &&Segment| lag_ms > 0 && segment.max_timestamp > now_ms.saturating_sub(lag_ms);
        let end = self
            .last_stable_offset(self.high_watermark)
            .min(active_base)
            .min(inactive[dirty_at..].iter().find(too_young).map_or(active_base, Segment::base_offset))
            .max(first_dirty);
        let in_range = |from: i64, to: i64| {
            let segments =
                inactive.iter().filter(move |one| one.base_offset() >= from && one.base_offset() < to);
            segments.map(Segment::size).sum::<u64>()
        };
        let first_dirty_base = inactive.get(dirty_at).map_or(active_base, Segment::base_offset);
        let first_base = self.segments.first().map_or(0, Segment::base_offset);
        let dirty_bytes = if end > first_dirty { in_range(first_dirty_base, end) } else { 0 };
        let clean_bytes = in_range(first_base, first_dirty_base);
        let total = clean_bytes + dirty_bytes;
        let ratio = if total == 0 { 0.0 } else { dirty_bytes as f64 / total as f64 };
        let must = dirty_bytes > 0 && self.lag_has_passed(&inactive[dirty_at..], now_ms)?;
        let is_due = self.config.compacts
            && dirty_bytes > 0
            && (must || ratio > self.config.min_cleanable_dirty_ratio);
        Ok(Cleanable { first_dirty, end, clean_bytes, dirty_bytes, ratio, must, is_due })
    }

    /// Whether a dirty record is older than `max.compaction.lag.ms` (KIP-354), by the first batch of each segment.
    fn lag_has_passed(&self, dirty: &[Segment], now_ms: i64) -> Result<bool, LogError> {
        let lag_ms = self.config.max_compaction_lag_ms.max(self.config.min_compaction_lag_ms);
        if lag_ms == i64::MAX {
            return Ok(false);
        }
        for segment in dirty {
            let first = segment.first_time()?;
            if first.is_some_and(|first| first >= 0 && now_ms.saturating_sub(first) > lag_ms) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A pass over what [`Self::cleanable`] says; none if there is nothing, or another pass is under way.
    pub fn plan_compaction(
        &mut self,
        first_dirty: Option<i64>,
        now_ms: i64,
    ) -> Result<Option<CompactionPlan>, LogError> {
        let cleanable = self.cleanable(first_dirty, now_ms)?;
        if cleanable.dirty_bytes == 0 || self.compaction.is_under_way() {
            return Ok(None);
        }
        let sources = self.segments.windows(2).take_while(|pair| pair[0].base_offset() < cleanable.end);
        let sources: Vec<Source> = sources
            .map(|pair| Source {
                base_offset: pair[0].base_offset(),
                end_offset: pair[1].base_offset(),
                path: pair[0].path(),
                size: pair[0].size(),
            })
            .collect();
        let producers = self.producers.producers().map(|(id, producer)| {
            let data_offset = producer.batches.back().map(|batch| batch.last_offset);
            (id, LastOfProducer { data_offset, epoch: producer.epoch })
        });
        let token = Arc::new(());
        let plan = CompactionPlan {
            directory: Arc::clone(&self.directory),
            config: Arc::clone(&self.config),
            sources,
            transaction_indexes: self.segments.iter().map(|one| one.transactions.file().clone()).collect(),
            producers: producers.collect(),
            first_dirty: cleanable.first_dirty,
            end: cleanable.end,
            now_ms,
            generation: self.generation,
            token: Arc::clone(&token),
            broken: Arc::clone(&self.broken),
        };
        self.compaction = Running(Arc::downgrade(&token));
        Ok(Some(plan))
    }

    /// A pass came to its end: gives the entry for `cleaner-offset-checkpoint`. None: the log was cut meanwhile, and what the
    /// checkpoint has stays (unless it lies beyond the cut, see [`Self::cleanable`]).
    pub fn finish_compaction(&mut self, plan: CompactionPlan, report: &CompactionReport) -> Option<i64> {
        if plan.generation != self.generation {
            return None;
        }
        self.first_dirty_max = i64::MAX;
        Some(report.first_dirty)
    }
}
