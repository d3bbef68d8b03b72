//! Rules that can be switched off, to see that the checkers notice.
//!
//! Each is noticed by the exploration (`exhaustive`) or by simulated clusters (`cluster`), those of long histories by one that
//! is written down for them (`exhaustive/histories.rs`) and by an ambush (`cluster/ambush`). One of them loses nothing:
//! without leases (`NoLease`) a leader that is deposed and does not know it may still acknowledge what its followers, who do
//! not know it either, fetch from it, and whoever leads next is one of them and has it. What is missed is I44.

/// A fault that a test builds in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Fault {
    /// All rules hold.
    #[default]
    None,
    /// A new follower cuts its log at its high watermark, as Kafka did before KIP-101.
    CutAtWatermark,
    /// A leader does not look whether the follower's history is its own.
    NoDivergence,
    /// A fetch counts whatever leader epoch it was made under.
    NoEpochCheck,
    /// A fetch counts as if the follower had what it is about to be sent.
    CountsWhatIsSent,
    /// A leader goes on after its lease.
    NoLease,
    /// A leader moves the high watermark whatever `min.insync.replicas` is.
    NoMinimum,
    /// A leader takes its own proposal for accepted.
    NoController,
    /// A proposal does not say which incarnation of a follower it means (KIP-903).
    NoBrokerEpoch,
    /// A broker says that it was shut down cleanly whatever happened (KIP-966).
    AlwaysClean,
    /// The controller takes a proposal for its own latest state (no compare-and-set).
    NoPartitionEpoch,
    /// `flush.messages=1` is not followed.
    NoSync,
    /// The controller lets anyone lead.
    UncleanElection,
    /// A leader appends records of transactions without asking the coordinator (KIP-890).
    NoVerification,
    /// A marker counts whatever epoch it has.
    NoMarkerEpoch,
    /// Readers of committed records are given all below the high watermark.
    ReadsUnstable,
    /// A coordinator says, and has done, what it decided before that is committed.
    DecidesAlone,
    /// A coordinator leads before what it has loaded is committed.
    LoadsUncommitted,
    /// A leader refuses a marker that it has already, before that one is committed.
    RefusesEarly,
}

impl Fault {
    /// Of replication.
    pub const ALL: [Self; 12] = [
        Self::CutAtWatermark,
        Self::NoDivergence,
        Self::NoEpochCheck,
        Self::CountsWhatIsSent,
        Self::NoLease,
        Self::NoMinimum,
        Self::NoController,
        Self::NoBrokerEpoch,
        Self::AlwaysClean,
        Self::NoPartitionEpoch,
        Self::NoSync,
        Self::UncleanElection,
    ];
    /// Of transactions.
    pub const OF_TRANSACTIONS: [Self; 6] = [
        Self::NoVerification,
        Self::NoMarkerEpoch,
        Self::ReadsUnstable,
        Self::DecidesAlone,
        Self::LoadsUncommitted,
        Self::RefusesEarly,
    ];

    /// The fault of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::OF_TRANSACTIONS).find(|fault| format!("{fault:?}") == name)
    }
}
