//! Histograms that keep nothing, in the place of those that openraft records its statistics in.
//!
//! openraft shows its statistics only with its feature `runtime-stats`, which is off here; it records them all the same, and
//! the crate that it does so with builds tables for every resolution it knows, 26 MB, in the first histogram. That is more than
//! the rest of an idle node. This crate has the name and as much of the interface as openraft uses, so that Cargo takes it
//! instead. Times that matter of the quorum are measured in `ottla-controller` and shown at `/metrics`.

use std::fmt;
use std::marker::PhantomData;

/// A histogram without memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram<Slot = ()>(PhantomData<Slot>);

impl<Slot> Histogram<Slot> {
    /// An empty one, and it stays empty.
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Forgets a value.
    pub const fn record(&mut self, _value: u64) {}

    /// Forgets a value that came so many times.
    pub const fn record_n(&mut self, _value: u64, _count: u64) {}

    /// The percentiles of no values.
    pub const fn percentile_stats(&self) -> PercentileStats {
        PercentileStats { samples: 0, p0_1: 0, p1: 0, p5: 0, p10: 0, p50: 0, p90: 0, p99: 0, p99_9: 0 }
    }
}

/// Percentiles, each the value that so many per cent of the samples do not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values there were.
    pub samples: u64,
    /// 0.1 %.
    pub p0_1: u64,
    /// 1 %.
    pub p1: u64,
    /// 5 %.
    pub p5: u64,
    /// 10 %.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "n={} p50={} p90={} p99={}", self.samples, self.p50, self.p90, self.p99)
    }
}

/// A chart of nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty one, and it stays empty.
    pub const fn new() -> Self {
        Self
    }

    /// Forgets a histogram.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept() {
        let mut histogram: Histogram = Histogram::new();
        histogram.record(7);
        histogram.record_n(9, 3);
        assert_eq!(histogram.percentile_stats().samples, 0);
        assert_eq!(size_of::<Histogram>(), 0);
    }
}
