//! What a seed makes of a run: how large the cluster is, how it is configured, how bad the network and the disks are.

use super::random::Random;

/// The shape of one run. All times are of the simulated clock.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of everything.
    pub seed: u64,
    /// 3 or 5.
    pub brokers: i32,
    /// 1 or 3.
    pub controllers: usize,
    /// Of the topic; each has three replicas.
    pub partitions: i32,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
    /// `flush.messages=1`.
    pub synced_only: bool,
    /// Producers are idempotent and send again; else each record is sent once.
    pub idempotent: bool,
    /// Records of one producer and partition on their way at once.
    pub in_flight_max: usize,
    /// Producers.
    pub producers: u32,
    /// Consumers; each reads all partitions.
    pub consumers: u32,
    /// Consumers may read from followers.
    pub follower_reads: bool,
    /// `replica.lag.time.max.ms`.
    pub lag_ms_max: u64,
    /// `broker.session.timeout.ms`.
    pub session_timeout_ms: u64,
    /// How long faults go on, in milliseconds.
    pub fault_ms: u64,
    /// Between two faults on average, in milliseconds.
    pub fault_pause_ms: u64,
    /// Of a message on its way, in microseconds.
    pub delay_us: (u64, u64),
    /// Messages lost, per thousand.
    pub loss: u64,
    /// Which kinds of fault happen, by their weights.
    pub weights: Vec<(Trouble, u64)>,
}

/// Kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// kill -9 of a broker.
    Kill,
    /// kill -9 of all brokers at once.
    KillAll,
    /// A broker's machine loses power.
    PowerLoss,
    /// All machines of brokers lose power (`flush.messages=1` only).
    PowerLossOfAll,
    /// SIGTERM.
    CleanStop,
    /// SIGSTOP for a while.
    Pause,
    /// One node is cut off from all.
    Isolate,
    /// One direction between two nodes is cut.
    OneWay,
    /// The nodes fall into two halves.
    Split,
    /// A disk is slow for a while.
    SlowDisk,
    /// Messages are slow, or lost, for a while.
    BadNetwork,
    /// A controller's process ends.
    KillController,
    /// Leadership goes back to the preferred leaders.
    Rebalance,
}

const ALL: [Trouble; 13] = [
    Trouble::Kill,
    Trouble::KillAll,
    Trouble::PowerLoss,
    Trouble::PowerLossOfAll,
    Trouble::CleanStop,
    Trouble::Pause,
    Trouble::Isolate,
    Trouble::OneWay,
    Trouble::Split,
    Trouble::SlowDisk,
    Trouble::BadNetwork,
    Trouble::KillController,
    Trouble::Rebalance,
];

impl Plan {
    /// The plan of a seed: sizes, settings and the distribution of faults are all drawn from it.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let synced_only = random.chance(250);
        let mut weights = Vec::new();
        for trouble in ALL {
            // Some kinds not at all, some often.
            let weight = if random.chance(350) { 0 } else { random.between(1, 10) };
            let is_allowed = synced_only || trouble != Trouble::PowerLossOfAll;
            if is_allowed && weight > 0 {
                weights.push((trouble, weight));
            }
        }
        let idempotent = random.chance(750);
        Self {
            seed,
            brokers: if random.chance(250) { 5 } else { 3 },
            controllers: if random.chance(150) { 1 } else { 3 },
            partitions: i32::try_from(random.between(1, 3)).unwrap_or(1),
            min_insync_replicas: 2,
            synced_only,
            idempotent,
            in_flight_max: if idempotent { usize::try_from(random.between(1, 5)).unwrap_or(1) } else { 1 },
            producers: 2,
            consumers: 2,
            follower_reads: random.chance(300),
            lag_ms_max: random.between(500, 4_000),
            session_timeout_ms: random.between(1_500, 6_000),
            fault_ms: random.between(10_000, 40_000),
            fault_pause_ms: random.between(500, 5_000),
            delay_us: (random.between(50, 500), random.between(500, 20_000)),
            loss: if random.chance(500) { 0 } else { random.between(1, 30) },
            weights,
        }
    }
}
