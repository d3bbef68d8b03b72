//! Plans: what is compared, in which order, and what is left alone.

use super::*;

fn configs(pairs: &[(&str, &str)]) -> Configs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect()
}

fn topic(partitions: i32, factor: i32, pairs: &[(&str, &str)]) -> Topic {
    Topic {
        partitions: Some(partitions),
        replication_factor: Some(factor),
        configs: configs(pairs),
        internal: false,
    }
}

fn topics(all: &[(&str, Topic)]) -> State {
    let all = all.iter().map(|(name, topic)| ((*name).to_owned(), topic.clone())).collect();
    State { topics: Some(all), ..State::default() }
}

fn rule(principal: &str) -> Rule {
    Rule {
        principal: principal.into(),
        resource_type: "topic".into(),
        resource_name: "a".into(),
        pattern: "literal".into(),
        host: "*".into(),
        permission: "allow".into(),
        operation: "read".into(),
    }
}

#[test]
fn nothing_is_done_where_all_is_as_wanted() {
    let there = topics(&[("a", topic(3, 1, &[("retention.ms", "5"), ("segment.ms", "7")]))]);
    let wanted = topics(&[("a", topic(3, 1, &[("retention.ms", "5")])), ("b", Topic::default())]);
    let plan_of = |wanted: &State, delete| plan(wanted, &there, delete).unwrap();
    assert_eq!(plan_of(&there, true), []);
    // A topic that leaves everything to the cluster agrees with any size.
    assert_eq!(plan_of(&topics(&[("a", Topic::default())]), false), []);
    let made = Change::CreateTopic { name: "b".into(), topic: Topic::default() };
    assert_eq!(plan_of(&wanted, false), [made]);
    assert_eq!(plan(&State::default(), &there, true).unwrap(), []);
}

#[test]
fn deleting_has_to_be_asked_for_and_spares_what_is_the_clusters_own() {
    let own = Topic { internal: true, ..topic(50, 1, &[]) };
    let there =
        topics(&[("a", topic(3, 1, &[("segment.ms", "7")])), ("old", topic(1, 1, &[])), ("__x", own)]);
    let wanted = topics(&[("a", topic(3, 1, &[]))]);
    assert_eq!(plan(&wanted, &there, false).unwrap(), []);
    let changes = plan(&wanted, &there, true).unwrap();
    let setting = Setting { before: Some("7".into()), after: None, is_secret: false };
    let of = Configured::Topic("a".into());
    assert_eq!(
        changes,
        [
            Change::AlterConfigs { of, change: BTreeMap::from([("segment.ms".into(), setting)]) },
            Change::DeleteTopic { name: "old".into() }
        ]
    );
}

#[test]
fn partitions_are_added_and_what_cannot_be_is_refused_all_at_once() {
    let there = topics(&[("a", topic(3, 1, &[])), ("b", topic(3, 1, &[]))]);
    let changes = plan(&topics(&[("a", topic(5, 1, &[]))]), &there, false).unwrap();
    assert_eq!(changes, [Change::AddPartitions { name: "a".into(), from: 3, to: 5 }]);
    let failures =
        plan(&topics(&[("a", topic(2, 1, &[])), ("b", topic(3, 2, &[]))]), &there, false).unwrap_err();
    assert_eq!(failures.len(), 2, "{failures:?}");
}

#[test]
fn settings_are_taken_back_by_null_and_secrets_are_not_compared() {
    let owner = Owner { scope: Scope::Broker, name: "1".into() };
    let of = |configs: Configs| State {
        configs: Some(BTreeMap::from([(owner.clone(), configs)])),
        ..State::default()
    };
    let there = of(BTreeMap::from([
        ("ssl.key.password".to_owned(), None),
        ("log.cleaner.threads".to_owned(), Some("2".to_owned())),
    ]));
    let wanted = of(configs(&[("ssl.key.password", "x"), ("log.cleaner.threads", "2")]));
    assert_eq!(plan(&wanted, &there, true).unwrap(), []);
    let back =
        of(BTreeMap::from([("log.cleaner.threads".to_owned(), None), ("log.retention.ms".to_owned(), None)]));
    let changes = plan(&back, &there, false).unwrap();
    let [Change::AlterConfigs { change, .. }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(change.keys().collect::<Vec<_>>(), ["log.cleaner.threads"]);
    let changes = plan(&wanted, &of(Configs::new()), false).unwrap();
    let [Change::AlterConfigs { change, .. }] = changes.as_slice() else { panic!("{changes:?}") };
    assert!(change["ssl.key.password"].is_secret && !change["log.cleaner.threads"].is_secret);
}

#[test]
fn users_need_a_password_only_when_something_is_missing() {
    let user = |mechanisms: &[&str], has_password: bool| User {
        mechanisms: mechanisms.iter().map(|name| ((*name).to_owned(), 4096)).collect(),
        password: has_password.then(|| crate::command::apply::state::Password::Variable("P".into())),
    };
    let of =
        |user: User| State { users: Some(BTreeMap::from([("alice".to_owned(), user)])), ..State::default() };
    let both = ["SCRAM-SHA-256", "SCRAM-SHA-512"];
    let there = of(user(&both, false));
    assert_eq!(plan(&of(user(&both, false)), &there, true).unwrap(), []);
    assert_eq!(
        plan(&of(user(&both[..1], false)), &there, true).unwrap(),
        [Change::RemoveUser { name: "alice".into(), mechanisms: vec![both[1].into()] }]
    );
    assert_eq!(plan(&there, &State::default(), false).unwrap_err().len(), 1);
    let changes = plan(&of(user(&both, true)), &of(user(&both[1..], false)), false).unwrap();
    assert_eq!(
        changes,
        [Change::SetUser { name: "alice".into(), user: user(&both[..1], true), is_new: false }]
    );
}

#[test]
fn limits_and_rules_are_sets() {
    let entity = Entity(vec![("user".into(), Some("a".into()))]);
    let other = Entity(vec![("ip".into(), None)]);
    let limit = |value| BTreeMap::from([("producer_byte_rate".to_owned(), Some(value))]);
    let there = State {
        quotas: Some(BTreeMap::from([(entity.clone(), limit(1.0)), (other.clone(), limit(2.0))])),
        acls: Some(BTreeSet::from([rule("User:a"), rule("User:b")])),
        ..State::default()
    };
    let wanted = State {
        quotas: Some(BTreeMap::from([(entity.clone(), limit(3.0))])),
        acls: Some(BTreeSet::from([rule("User:b"), rule("User:c")])),
        ..State::default()
    };
    let change = |before, after| BTreeMap::from([("producer_byte_rate".to_owned(), (before, after))]);
    let kept = [
        Change::AlterQuota { entity, is_new: false, change: change(Some(1.0), Some(3.0)) },
        Change::AddRule(rule("User:c")),
    ];
    assert_eq!(plan(&wanted, &there, false).unwrap(), kept);
    let gone = [
        kept[0].clone(),
        Change::AlterQuota { entity: other, is_new: false, change: change(Some(2.0), None) },
        kept[1].clone(),
        Change::RemoveRule(rule("User:a")),
    ];
    assert_eq!(plan(&wanted, &there, true).unwrap(), gone);
}
