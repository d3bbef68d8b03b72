//! UpdateFeatures (KIP-584): all of a request's updates or none.
//!
//! A level goes up by an upgrade and down only by a downgrade. A safe downgrade of metadata.version is refused: records of
//! the newer format may be in the log already. An unsafe one is not offered, as in Kafka.

use std::collections::BTreeSet;

use ottla_proto::controller as proto;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{FeatureRecord, MetadataRecord};
use ottla_wire::error_code::ErrorCode;

use super::{Decision, Refusal, Situation, record};
use crate::features::{self, ELIGIBLE_LEADER_REPLICAS_VERSION, KRAFT_VERSION, METADATA_VERSION, SUPPORTED};
use crate::image::{MetadataImage, PartitionEpoch, PartitionImage};

const UPGRADE: i32 = 1;
const SAFE_DOWNGRADE: i32 = 2;
const UNSAFE_DOWNGRADE: i32 = 3;

/// The features of a new cluster, for its first entry.
pub fn default_features() -> Vec<MetadataRecord> {
    SUPPORTED
        .iter()
        .filter(|feature| feature.level_default > 0)
        .map(|feature| level_record(feature.name, feature.level_default))
        .collect()
}

fn level_record(name: &str, level: i16) -> MetadataRecord {
    record(Record::Feature(FeatureRecord { name: name.to_owned(), level: level.into() }))
}

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::UpdateFeatures,
) -> Decision<proto::UpdateFeaturesReply> {
    let mut records = Vec::new();
    let mut seen = BTreeSet::new();
    let mut failed = false;
    let features: Vec<_> = command
        .updates
        .iter()
        .map(|update| {
            let outcome = if seen.insert(update.name.as_str()) {
                check(situation.image, update)
            } else {
                Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    "the feature stands in the request more than once",
                ))
            };
            let (code, message) = match outcome {
                Ok(Some(level)) => {
                    records.push(level_record(&update.name, level));
                    if update.name == ELIGIBLE_LEADER_REPLICAS_VERSION && level == 0 {
                        records.extend(without_eligible_replicas(situation.image));
                    }
                    (ErrorCode::None, String::new())
                }
                Ok(None) => (ErrorCode::None, String::new()),
                Err(refusal) => {
                    failed = true;
                    (refusal.code, refusal.message)
                }
            };
            proto::UpdatedFeature { name: update.name.clone(), error_code: i32::from(code.code()), message }
        })
        .collect();
    if failed || command.validate_only {
        records.clear();
    }
    Decision { records, reply: proto::UpdateFeaturesReply { features } }
}

/// The new level; `None`: it is that already.
fn check(image: &MetadataImage, update: &proto::FeatureUpdate) -> Result<Option<i16>, Refusal> {
    let name = &update.name;
    let refuse = |why: String| {
        let text = format!("Invalid update version {} for feature {name}. {why}", update.level_max);
        Err(Refusal::new(ErrorCode::InvalidUpdateVersion, text))
    };
    if ![UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE].contains(&update.upgrade_type) {
        return refuse("The controller does not support the given upgrade type.".to_owned());
    }
    if update.level_max < 0 {
        return refuse("A feature version cannot be less than 0.".to_owned());
    }
    let Some(supported) = features::supported(name) else {
        return refuse("No node knows a feature of this name.".to_owned());
    };
    let range = supported.level_min..=supported.level_max;
    let level = match i16::try_from(update.level_max) {
        Ok(level) if range.contains(&level) => level,
        _ => {
            return refuse(format!(
                "It is supported from {} to {}.",
                supported.level_min, supported.level_max
            ));
        }
    };
    let now = image.feature_level(name);
    if level == now {
        return Ok(None);
    }
    if level < now && update.upgrade_type == UPGRADE {
        return refuse(
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or \
             unsafe downgrade."
                .to_owned(),
        );
    }
    if level > now && update.upgrade_type != UPGRADE {
        return refuse("Can't downgrade to a newer version.".to_owned());
    }
    if name == METADATA_VERSION && level < now {
        return refuse(if update.upgrade_type == UNSAFE_DOWNGRADE {
            "Unsafe metadata downgrade is not supported in this version.".to_owned()
        } else {
            "Refusing to perform the requested downgrade because it might delete metadata information."
                .to_owned()
        });
    }
    if name == KRAFT_VERSION {
        return refuse("The voters are those of controller.quorum.voters.".to_owned());
    }
    Ok(Some(level))
}

/// Without the feature nobody outside an ISR counts as complete: all that did are forgotten in the same entry.
fn without_eligible_replicas(image: &MetadataImage) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for topic in image.topics() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            if partition.eligible_leader_replicas.is_empty() && partition.last_known_leader.is_empty() {
                continue;
            }
            let new = PartitionImage {
                eligible_leader_replicas: Vec::new(),
                last_known_leader: Vec::new(),
                partition_epoch: PartitionEpoch(partition.partition_epoch.0 + 1),
                ..PartitionImage::clone(partition)
            };
            records.push(record(Record::Partition(new.to_record(topic.id, index))));
        }
    }
    records
}
