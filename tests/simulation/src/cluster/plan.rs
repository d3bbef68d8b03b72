//! What a seed makes of a run: how large the cluster is, how it is configured, how bad the network and the disks are.

use super::ambush::Ambush;
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
    /// Producers are transactional.
    pub transactions: Option<Transactions>,
    /// What is laid.
    pub ambush: Option<Ambush>,
}

/// Of transactional producers.
#[derive(Debug, Clone)]
pub struct Transactions {
    /// Transactional ids.
    pub ids: usize,
    /// Partitions of the coordinators' log: they come behind those of the topic.
    pub coordinators: i32,
    /// Transactions version 2 (KIP-890), or classic ones.
    pub is_version_2: bool,
    /// A transaction that is open for longer is aborted.
    pub timeout_ms: i32,
    /// How often a process is replaced by another: so many of a thousand transactions.
    pub successors: u64,
}

/// What kind of run a seed is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Random faults, plain and idempotent producers.
    Plain,
    /// Random faults, transactional producers.
    Transactions,
    /// An ambush.
    Ambush(Ambush),
}

impl Family {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let ambushes = Ambush::ALL.into_iter().map(Self::Ambush);
        [Self::Plain, Self::Transactions].into_iter().chain(ambushes).collect()
    }

    /// As it is written in commands.
    pub fn name(self) -> String {
        match self {
            Self::Plain => "plain".to_owned(),
            Self::Transactions => "transactions".to_owned(),
            Self::Ambush(ambush) => format!("{ambush:?}").to_lowercase(),
        }
    }
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
    pub fn of(family: Family, seed: u64) -> Self {
        let plan = Self::plain(seed);
        match family {
            Family::Plain => plan,
            Family::Transactions => plan.with_transactions(),
            Family::Ambush(Ambush::LateMarker) => {
                plan.with_ambush(Ambush::LateMarker).with_transactions().with_steady_producers()
            }
            Family::Ambush(ambush) => plan.with_ambush(ambush),
        }
    }

    /// Of the topic and of the coordinators' log.
    pub fn all_partitions(&self) -> i32 {
        self.partitions + self.transactions.as_ref().map_or(0, |transactions| transactions.coordinators)
    }

    /// The command that runs it again.
    pub fn replay(&self) -> String {
        let family = match (&self.transactions, self.ambush) {
            (_, Some(ambush)) => Family::Ambush(ambush),
            (Some(_), None) => Family::Transactions,
            (None, None) => Family::Plain,
        };
        format!(
            "cargo run --release -p ottla-simulation -- --family {} --seed {} --trace",
            family.name(),
            self.seed
        )
    }

    fn with_transactions(self) -> Self {
        let mut random = Random::new(self.seed, 7);
        let transactions = Transactions {
            ids: usize::try_from(random.between(1, 3)).unwrap_or(1),
            coordinators: i32::try_from(random.between(1, 2)).unwrap_or(1),
            is_version_2: random.chance(700),
            timeout_ms: i32::try_from(random.between(2_000, 10_000)).unwrap_or(5_000),
            successors: random.between(0, 120),
        };
        Self { idempotent: true, producers: 0, transactions: Some(transactions), ..self }
    }

    /// No process is replaced, and each transaction has an epoch of its own.
    fn with_steady_producers(self) -> Self {
        let steady = |transactions| Transactions {
            is_version_2: true,
            successors: 0,
            timeout_ms: 10_000,
            ..transactions
        };
        Self { transactions: self.transactions.map(steady), ..self }
    }

    fn with_ambush(self, ambush: Ambush) -> Self {
        let mut random = Random::new(self.seed, 9);
        Self {
            brokers: 3,
            controllers: 3,
            synced_only: false,
            idempotent: true,
            in_flight_max: 5,
            producers: 4,
            // Who is behind for a moment stays in the ISR.
            lag_ms_max: random.between(3_000, 5_000),
            session_timeout_ms: random.between(1_500, 2_500),
            fault_ms: random.between(40_000, 60_000),
            loss: 0,
            weights: Vec::new(),
            ambush: Some(ambush),
            ..self
        }
    }

    fn plain(seed: u64) -> Self {
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
            transactions: None,
            ambush: None,
        }
    }
}
