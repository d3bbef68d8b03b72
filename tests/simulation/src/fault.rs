//! Rules that can be switched off, to see that the checkers notice.
//!
//! Not noticed so far: `NoLease`, `NoEpochCheck`, `NoBrokerEpoch`, `NoPartitionEpoch`, `AlwaysClean`. Either another rule covers
//! for them or the worlds are too small; what a green run says of these rules is nothing.

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
}

impl Fault {
    /// All but none.
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
}
