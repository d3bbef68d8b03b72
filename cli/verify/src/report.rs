//! What the checker says in the end.

use std::fmt::Write as _;

use serde::Serialize;

/// A promise of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// What was acknowledged is in the log, where the acknowledgement said, and readers are given it.
    NoLoss,
    /// What an idempotent producer wrote is in the log once.
    NoDuplicates,
    /// Records of a writer in a partition, hence of a key, lie in the order in which they were written.
    OrderPerKey,
    /// Nothing is read that was never written, or whose writing was refused.
    NoPhantoms,
    /// High watermarks and ends do not go back behind what was acknowledged or read.
    WatermarkMonotone,
    /// All readers are given the same records at the same offsets.
    SameLog,
    /// Of a transaction readers of committed data are given all or nothing.
    Atomicity,
    /// Readers of committed data are given no record of a transaction that is open or aborted.
    Isolation,
    /// Of each record that was consumed in a transaction, exactly one transaction with its product is committed.
    ExactlyOnce,
}

impl Invariant {
    /// Those that are checked on every history.
    pub const ALWAYS: [Self; 6] = [
        Self::NoLoss,
        Self::NoDuplicates,
        Self::OrderPerKey,
        Self::NoPhantoms,
        Self::WatermarkMonotone,
        Self::SameLog,
    ];
    /// Those that are checked on transactions.
    pub const OF_TRANSACTIONS: [Self; 3] = [Self::Atomicity, Self::Isolation, Self::ExactlyOnce];

    /// The invariant as a sentence that is true when it holds.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoLoss => "no acknowledged record is lost",
            Self::NoDuplicates => "no record is in the log twice",
            Self::OrderPerKey => "the records of a key lie in the order of their writing",
            Self::NoPhantoms => "nothing is read that was never written",
            Self::WatermarkMonotone => "the high watermark never goes back",
            Self::SameLog => "all consumers see the same log",
            Self::Atomicity => "transactions are seen whole or not at all",
            Self::Isolation => "no open or aborted transaction is read as committed",
            Self::ExactlyOnce => "each consumed record is transformed exactly once",
        }
    }
}

/// What is known of an invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It held in all that happened.
    Held,
    /// It was broken.
    Refuted,
    /// Too little was seen to say so.
    Unproven,
}

/// An invariant and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which.
    pub invariant: Invariant,
    /// What is known.
    pub state: State,
    /// How often it was broken.
    pub violations: u64,
    /// The first violations, or why it is not proven.
    pub examples: Vec<String>,
}

/// A write that took long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// `topic:partition`.
    pub partition: String,
    /// When it was sent (microseconds since the start).
    pub at_us: u64,
    /// Until it was acknowledged (microseconds).
    pub wait_us: u64,
}

/// Numbers of records, but for transactions and polls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Refused for certain.
    pub refused: u64,
    /// Of an outcome that is not known.
    pub unknown: u64,
    /// Different records that were read.
    pub read: u64,
    /// Answers to polls.
    pub polls: u64,
    /// Transactions that were committed.
    pub transactions_committed: u64,
    /// Transactions that were aborted.
    pub transactions_aborted: u64,
    /// Transactions of an outcome that is not known.
    pub transactions_unknown: u64,
    /// Records that were transformed in committed transactions.
    pub transformed: u64,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every invariant held.
    pub held: bool,
    /// Seed of the run.
    pub seed: u64,
    /// Time from the first to the last event (microseconds).
    pub duration_us: u64,
    /// Numbers.
    pub counts: Counts,
    /// The longest waits for an acknowledgement, one of a partition, the longest first.
    pub longest_waits: Vec<Wait>,
    /// By invariant.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// What is known of an invariant; `None`: it was not looked at.
    pub fn state(&self, invariant: Invariant) -> Option<State> {
        self.verdicts.iter().find(|verdict| verdict.invariant == invariant).map(|verdict| verdict.state)
    }

    /// For people.
    pub fn text(&self) -> String {
        let counts = &self.counts;
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<24}{value}");
        };
        line("duration", seconds(self.duration_us));
        line("records sent", counts.sent.to_string());
        line("  acknowledged", counts.acknowledged.to_string());
        line("  refused", counts.refused.to_string());
        line("  outcome unknown", counts.unknown.to_string());
        line("records read", format!("{} in {} polls", counts.read, counts.polls));
        if self.verdicts.iter().any(|verdict| verdict.invariant == Invariant::Atomicity) {
            line("transactions committed", counts.transactions_committed.to_string());
            line("  aborted", counts.transactions_aborted.to_string());
            line("  outcome unknown", counts.transactions_unknown.to_string());
            line("records transformed", counts.transformed.to_string());
        }
        for (at, wait) in self.longest_waits.iter().enumerate() {
            let value = format!("{} in {} at {}", seconds(wait.wait_us), wait.partition, seconds(wait.at_us));
            line(if at == 0 { "longest waits" } else { "" }, value);
        }
        line("seed", self.seed.to_string());
        text.push('\n');
        for verdict in &self.verdicts {
            let word = match verdict.state {
                State::Held => "held",
                State::Refuted => "REFUTED",
                State::Unproven => "unproven",
            };
            let _ = write!(text, "{word:<10}{}", verdict.invariant.sentence());
            if verdict.state == State::Refuted {
                let times = match verdict.violations {
                    1 => "once".to_owned(),
                    many => format!("{many} times"),
                };
                let _ = write!(text, ": {times}");
            }
            text.push('\n');
            for example in &verdict.examples {
                let _ = writeln!(text, "            {example}");
            }
        }
        text
    }
}

fn seconds(us: u64) -> String {
    format!("{}.{:03} s", us / 1_000_000, us / 1_000 % 1_000)
}
