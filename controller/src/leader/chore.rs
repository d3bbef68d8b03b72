//! What the leader does of itself.

use ottla_metadata::decide::{
    Situation, cordon_directories, elect_leaderless, fail_directories, fence, rebalance_preferred,
    set_controlled_shutdown, sweep_delegation_tokens, unfence,
};
use ottla_metadata::image::{BrokerEpoch, BrokerId, BrokerRegistration};
use ottla_proto::controller as proto;
use ottla_proto::metadata::MetadataRecord;
use uuid::Uuid;

use super::LeaderOptions;
use super::batch::first_records;

/// Something to decide that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Leadership begins.
    Begin,
    /// A broker's lease is over.
    Fence(BrokerId, BrokerEpoch),
    /// A broker may serve.
    Unfence(BrokerId, BrokerEpoch),
    /// A broker wants to stop.
    Shutdown(BrokerId, BrokerEpoch),
    /// Log directories of a broker failed.
    FailDirectories(BrokerId, BrokerEpoch, Vec<Uuid>),
    /// A broker says which of its directories take no new replica.
    CordonDirectories(BrokerId, BrokerEpoch, Vec<Uuid>),
    /// Partitions without a leader may have one now.
    ElectLeaderless,
    /// Leadership goes back to preferred leaders.
    Rebalance,
    /// Delegation tokens may be over at this time, in milliseconds since the epoch.
    SweepTokens(i64),
}

impl Chore {
    /// What it writes.
    pub(super) fn decide(&self, situation: Situation<'_>, options: &LeaderOptions) -> Vec<MetadataRecord> {
        match self {
            Self::Begin => {
                first_records(situation.image, &options.identity.cluster_id(), &options.first_records)
            }
            Self::Fence(id, epoch) => fence(situation, *id, *epoch),
            Self::Unfence(id, epoch) => unfence(situation, *id, *epoch),
            Self::Shutdown(id, epoch) => set_controlled_shutdown(situation, *id, *epoch),
            Self::FailDirectories(id, epoch, failed) => fail_directories(situation, *id, *epoch, failed),
            Self::CordonDirectories(id, epoch, cordoned) => {
                cordon_directories(situation, *id, *epoch, cordoned)
            }
            Self::ElectLeaderless => elect_leaderless(situation),
            Self::Rebalance => rebalance_preferred(situation),
            Self::SweepTokens(now_ms) => sweep_delegation_tokens(situation, *now_ms),
        }
    }

    /// Whether it stops at a limit and goes on in the next entry.
    pub(super) fn comes_in_parts(&self) -> bool {
        matches!(self, Self::ElectLeaderless | Self::Rebalance | Self::SweepTokens(_))
    }
}

/// What a heartbeat says of directories that the image does not know yet.
pub(super) fn of_directories(
    broker: &BrokerRegistration,
    beat: &proto::BrokerHeartbeat,
) -> impl Iterator<Item = Chore> {
    // An id that is none cannot be one of the broker's.
    let ids = |bytes: &[bytes::Bytes]| -> Vec<Uuid> {
        bytes.iter().filter_map(|id| Uuid::from_slice(id).ok()).collect()
    };
    let mut failed = ids(&beat.offline_directories);
    failed.retain(|id| broker.log_directories.contains(id));
    let failed = (!failed.is_empty()).then_some(Chore::FailDirectories(broker.id, broker.epoch, failed));
    let cordoned = beat.cordoned_directories.as_ref().map(|list| ids(&list.directories));
    let cordoned = cordoned
        .filter(|cordoned| *cordoned != broker.cordoned_directories)
        .map(|cordoned| Chore::CordonDirectories(broker.id, broker.epoch, cordoned));
    failed.into_iter().chain(cordoned)
}
