//! Features: what this software can, as ranges of levels, and the levels that the cluster has agreed on (KIP-584).

use crate::image::MetadataImage;

/// A feature that this software has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SupportedFeature {
    /// Its name.
    pub name: &'static str,
    /// The lowest level; 0: it can be switched off.
    pub level_min: i16,
    /// The highest level.
    pub level_max: i16,
    /// Its level in a new cluster.
    pub level_default: i16,
}

/// The format of metadata. The numbers are Kafka's; 30 is that of Kafka 4.3.
pub const METADATA_VERSION: &str = "metadata.version";
/// Of the quorum's own protocol (KIP-853).
pub const KRAFT_VERSION: &str = "kraft.version";
/// Of transactions: 2 is KIP-890.
pub const TRANSACTION_VERSION: &str = "transaction.version";
/// Of group coordination: 1 is KIP-848.
pub const GROUP_VERSION: &str = "group.version";
/// Eligible leader replicas (KIP-966).
pub const ELIGIBLE_LEADER_REPLICAS_VERSION: &str = "eligible.leader.replicas.version";
/// Share groups (KIP-932).
pub const SHARE_VERSION: &str = "share.version";
/// Streams groups (KIP-1071).
pub const STREAMS_VERSION: &str = "streams.version";

/// The lowest metadata.version that clients are told of: that of Kafka 3.3, below which no software of this age goes.
const METADATA_VERSION_MIN: i16 = 7;
/// That of Kafka 4.3.
const METADATA_VERSION_MAX: i16 = 30;

const fn feature(name: &'static str, level_max: i16, level_default: i16) -> SupportedFeature {
    SupportedFeature { name, level_min: 0, level_max, level_default }
}

/// Every feature.
pub const SUPPORTED: [SupportedFeature; 7] = [
    SupportedFeature {
        name: METADATA_VERSION,
        level_min: METADATA_VERSION_MIN,
        level_max: METADATA_VERSION_MAX,
        level_default: METADATA_VERSION_MAX,
    },
    // The voters are those of controller.quorum.voters: level 1, of voters that change, is known and not in use.
    feature(KRAFT_VERSION, 1, 0),
    feature(TRANSACTION_VERSION, 2, 2),
    feature(GROUP_VERSION, 1, 1),
    feature(ELIGIBLE_LEADER_REPLICAS_VERSION, 1, 1),
    feature(SHARE_VERSION, 1, 1),
    feature(STREAMS_VERSION, 1, 1),
];

/// A feature by its name.
pub fn supported(name: &str) -> Option<&'static SupportedFeature> {
    SUPPORTED.iter().find(|feature| feature.name == name)
}

/// Whether eligible leader replicas are kept.
pub fn has_eligible_leader_replicas(image: &MetadataImage) -> bool {
    image.feature_level(ELIGIBLE_LEADER_REPLICAS_VERSION) > 0
}
