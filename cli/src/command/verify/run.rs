//! What all tasks of a run share, and the order in which they end.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::payload::Maker;
use super::recorder::Recorder;
use crate::client::Bootstrap;
use crate::client::cluster::Cluster;

/// How long an answer may take where nobody holds it back: what stands still is given up and tried elsewhere.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long is tried what a run cannot do without: to find out who leads, to begin as a producer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest sleep of a writer: it looks whether it shall stop.
const NAP: Duration = Duration::from_millis(200);

/// What the user asked for.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The topics: what is written; with transactions also what the transformers write.
    pub(super) topics: Vec<String>,
    /// Of each topic.
    pub(super) partitions: u32,
    pub(super) producers: u32,
    pub(super) consumers: u32,
    /// Records a second of all producers; 0: as many as go.
    pub(super) rate: u32,
    pub(super) duration: Option<Duration>,
    pub(super) records: Option<u64>,
    pub(super) record_bytes: usize,
    /// Most records of a batch.
    pub(super) batch_records: u32,
    pub(super) transactions: bool,
    /// How long a writer tries to write a batch or to end a transaction before it gives up.
    pub(super) delivery_timeout: Duration,
    pub(super) seed: u64,
}

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) recorder: Recorder,
    pub(super) maker: Maker,
    bootstrap: Bootstrap,
    began: Instant,
    stopped: Cell<bool>,
    sent: Cell<u64>,
    /// Where all partitions ended when the run began.
    pub(super) starts: Vec<i64>,
    /// The ends of the partitions that are written, when the writers have stopped.
    pub(super) input_ends: RefCell<Option<Vec<i64>>>,
    /// The ends of all partitions, when nobody writes any more.
    pub(super) ends: RefCell<Option<Vec<i64>>>,
    /// Readers and transformers that are not at the end by then give up.
    give_up: Cell<Option<Instant>>,
}

impl Run {
    pub(super) fn new(plan: Plan, recorder: Recorder, bootstrap: Bootstrap) -> Self {
        let maker = Maker { run: plan.seed, record_bytes: plan.record_bytes };
        Self {
            plan,
            recorder,
            maker,
            bootstrap,
            began: Instant::now(),
            stopped: Cell::new(false),
            sent: Cell::new(0),
            starts: Vec::new(),
            input_ends: RefCell::new(None),
            ends: RefCell::new(None),
            give_up: Cell::new(None),
        }
    }

    /// A client of its own.
    pub(super) fn cluster(&self) -> Cluster {
        Cluster::new(self.bootstrap.clone(), REQUEST_TIMEOUT)
    }

    /// Until when a batch or an end that begins now is tried.
    pub(super) fn delivery(&self) -> Instant {
        Instant::now() + self.plan.delivery_timeout
    }

    /// Whether writers go on.
    pub(super) fn is_writing(&self) -> bool {
        !self.stopped.get()
            && !self.recorder.is_broken()
            && self.plan.duration.is_none_or(|duration| self.began.elapsed() < duration)
            && self.plan.records.is_none_or(|records| self.sent.get() < records)
    }

    /// Writers shall stop.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
    }

    /// Takes up to `wanted` of the records that are still to be written.
    pub(super) fn claim(&self, wanted: u32) -> u32 {
        let sent = self.sent.get();
        let left = self.plan.records.map_or(u64::from(wanted), |records| records.saturating_sub(sent));
        let count = wanted.min(u32::try_from(left).unwrap_or(u32::MAX));
        self.sent.set(sent + u64::from(count));
        count
    }

    /// All that is not at its end in this time gives up.
    pub(super) fn give_up_in(&self, limit: Duration) {
        self.give_up.set(Some(Instant::now() + limit));
    }

    /// Whether a task that is not at its end shall give up.
    pub(super) fn gives_up(&self) -> bool {
        self.recorder.is_broken() || self.give_up.get().is_some_and(|at| Instant::now() >= at)
    }

    /// A partition's topic and its number in it.
    pub(super) fn place(&self, partition: u32) -> (&str, i32) {
        let topic = usize::try_from(partition / self.plan.partitions).unwrap_or(usize::MAX);
        let name = self.plan.topics.get(topic).map_or("", String::as_str);
        (name, i32::try_from(partition % self.plan.partitions).unwrap_or(i32::MAX))
    }

    /// How many partitions all topics have.
    pub(super) fn partitions(&self) -> u32 {
        self.plan.partitions.saturating_mul(u32::try_from(self.plan.topics.len()).unwrap_or(1))
    }
}

/// Until when something that begins now is tried.
pub(super) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Keeps a task at its share of the rate.
#[derive(Debug)]
pub(super) struct Pace {
    record_pause: Duration,
    next: Instant,
}

impl Pace {
    /// One of `tasks` tasks.
    pub(super) fn new(rate: u32, tasks: u32) -> Self {
        let record_pause =
            if rate == 0 { Duration::ZERO } else { Duration::from_secs(1) * tasks.max(1) / rate };
        Self { record_pause, next: Instant::now() }
    }

    /// After `count` records: waits for the time of the next ones. What was missed while the cluster stood still is not
    /// made up for.
    pub(super) async fn wait(&mut self, count: u32, run: &Run) {
        let now = Instant::now();
        self.next = (self.next + self.record_pause.saturating_mul(count)).max(now);
        // Even without a rate the other tasks must have their turn.
        tokio::task::yield_now().await;
        while Instant::now() < self.next && run.is_writing() {
            tokio::time::sleep(self.next.saturating_duration_since(Instant::now()).min(NAP)).await;
        }
    }
}

/// Random choices that a seed repeats (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// Of its own for each task.
    pub(super) fn new(seed: u64, task: u64) -> Self {
        Self(seed ^ task.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 1 to `most`.
    pub(super) fn up_to(&mut self, most: u32) -> u32 {
        u32::try_from(self.next() % u64::from(most.max(1))).unwrap_or(0) + 1
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: u32) -> bool {
        self.up_to(times) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_repeat_and_stay_within() {
        let throws = |seed| {
            let mut dice = Dice::new(seed, 3);
            (0..1_000).map(|_| dice.up_to(6)).collect::<Vec<_>>()
        };
        assert_eq!(throws(1), throws(1));
        assert_ne!(throws(1), throws(2));
        assert!((1..=6).all(|face| throws(1).contains(&face)));
        assert!(throws(1).iter().all(|face| (1..=6).contains(face)));
    }
}
