//! Features.

use ottla_proto::controller as proto;
use ottla_proto::controller::command::Command;
use ottla_proto::controller::command_reply::Reply;
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;

use super::tests::{alter, assigned, code, created, fenced, ids, partition, run, three};
use super::*;
use crate::features;

fn update(
    image: &MetadataImage,
    updates: &[(&str, i32, i32)],
    validate_only: bool,
) -> (Vec<ErrorCode>, MetadataImage) {
    let updates = updates
        .iter()
        .map(|(name, level_max, upgrade_type)| proto::FeatureUpdate {
            name: (*name).to_owned(),
            level_max: *level_max,
            upgrade_type: *upgrade_type,
        })
        .collect();
    match run(image, Command::UpdateFeatures(proto::UpdateFeatures { validate_only, updates })) {
        (Reply::UpdateFeatures(reply), image) => {
            (reply.features.iter().map(|feature| code(feature.error_code)).collect(), image)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_cluster_has_kafkas_defaults() {
    let image = three();
    let levels: Vec<_> = image.features().collect();
    let wanted = [
        ("eligible.leader.replicas.version", 1),
        ("group.version", 1),
        ("metadata.version", 30),
        ("share.version", 1),
        ("streams.version", 1),
        ("transaction.version", 2),
    ];
    assert_eq!(levels, wanted);
}

#[test]
fn updates_that_cannot_be_are_refused() {
    let image = three();
    let bad = [
        ("no.such", 1, 1),
        ("group.version", 9, 1),
        ("share.version", -1, 1),
        ("group.version", 0, 1),
        ("group.version", 0, 0),
        ("metadata.version", 7, 1),
        ("metadata.version", 7, 2),
        ("metadata.version", 7, 3),
        ("metadata.version", 31, 1),
        ("kraft.version", 1, 1),
    ];
    for one in bad {
        let (answers, same) = update(&image, &[one], false);
        assert_eq!((answers, &same), (vec![ErrorCode::InvalidUpdateVersion], &image), "{one:?}");
    }
    let (answers, same) = update(&image, &[("transaction.version", 1, 2), ("no.such", 1, 1)], false);
    assert_eq!((answers, &same), (vec![ErrorCode::None, ErrorCode::InvalidUpdateVersion], &image));
}

#[test]
fn a_level_goes_down_and_up_again() {
    let image = three();
    assert_eq!(update(&image, &[("group.version", 1, 1)], false), (vec![ErrorCode::None], image.clone()));
    assert_eq!(
        update(&image, &[("transaction.version", 1, 2)], true),
        (vec![ErrorCode::None], image.clone())
    );
    let (answers, lower) = update(&image, &[("transaction.version", 1, 2)], false);
    assert_eq!((answers, lower.feature_level(features::TRANSACTION_VERSION)), (vec![ErrorCode::None], 1));
    assert_eq!(update(&lower, &[("transaction.version", 2, 2)], false).0, [ErrorCode::InvalidUpdateVersion]);
    let (_, again) = update(&lower, &[("transaction.version", 2, 1)], false);
    assert_eq!(again.feature_level(features::TRANSACTION_VERSION), 2);
    let (_, off) = update(&image, &[("group.version", 0, 3)], false);
    assert_eq!(off.feature_level(features::GROUP_VERSION), 0);
}

#[test]
fn without_eligible_leader_replicas_nobody_outside_the_isr_counts_as_complete() {
    let image = created(&three(), assigned("t", &[(0, &[1, 2, 3])]));
    let set = [(0, "min.insync.replicas", Some("3"))];
    let (_, image) = alter(&image, ResourceType::Topic, "t", false, &set);
    let image = fenced(&image, 3);
    assert_eq!(partition(&image, "t", 0).eligible_leader_replicas, ids(&[3]));
    let (_, image) = update(&image, &[("eligible.leader.replicas.version", 0, 2)], false);
    assert!(partition(&image, "t", 0).eligible_leader_replicas.is_empty());
    let image = fenced(&image, 2);
    assert!(partition(&image, "t", 0).eligible_leader_replicas.is_empty());
}

#[test]
fn a_groups_session_must_be_longer_than_its_heartbeat() {
    let image = three();
    let set =
        |changes: &[(i32, &str, Option<&str>)]| alter(&image, ResourceType::Group, "g", false, changes).0;
    assert_eq!(set(&[(0, "streams.session.timeout.ms", Some("50000"))]), ErrorCode::None);
    let heartbeat = "share.heartbeat.interval.ms";
    assert_eq!(set(&[(0, heartbeat, Some("15000"))]), ErrorCode::None);
    let (session, interval) = ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms");
    assert_eq!(set(&[(0, session, Some("45000")), (0, interval, Some("15000"))]), ErrorCode::None);
    let properties = super::tests::properties(&[
        ("group.consumer.min.session.timeout.ms", "1000"),
        ("group.consumer.session.timeout.ms", "20000"),
        ("group.consumer.heartbeat.interval.ms", "5000"),
    ]);
    let values = |value: &str| std::iter::once((session.to_owned(), value.to_owned())).collect();
    assert!(crate::config::validate_group_set(&properties, &values("5001")).is_ok());
    assert!(crate::config::validate_group_set(&properties, &values("5000")).is_err());
}

#[test]
fn the_resources_that_have_configs_are_listed_by_type() {
    let image = created(&three(), assigned("t", &[(0, &[1])]));
    let (_, image) =
        alter(&image, ResourceType::Group, "g", false, &[(0, "consumer.session.timeout.ms", Some("50000"))]);
    let list = |types: &[i8]| crate::config::list_config_resources(&image, types);
    assert_eq!(list(&[2]).unwrap(), [(2, "t".to_owned())]);
    assert_eq!(list(&[4]).unwrap().len(), 3);
    assert_eq!(list(&[32, 16]).unwrap(), [(32, "g".to_owned())]);
    assert_eq!(list(&[]).unwrap().len(), 1 + 3 + 3 + 1);
    assert_eq!(list(&[99]), None);
}
