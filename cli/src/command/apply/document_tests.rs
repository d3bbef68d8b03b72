//! Documents as people write them.

use super::*;

const FULL: &str = "
topics:
  - name: orders
    partitions: 6
    replication_factor: 3
    configs: {retention.ms: 86400000, cleanup.policy: [compact, delete], preallocate: true, segment.ms: null}
  - name: \"1\"
configs:
  - {scope: cluster, configs: {log.retention.ms: '5'}}
  - {scope: broker, name: 1, configs: {log.cleaner.threads: 2}}
users:
  - {name: alice, password_file: alice.password}
  - {name: bob, mechanisms: [scram-sha-512], iterations: 8192, password_env: BOB}
quotas:
  - entity: {user: alice, client-id: null}
    limits: {producer_byte_rate: 1e6, request_percentage: 12.5}
acls:
  - {principal: User:alice, resource_type: Topic, resource_name: orders, operation: [read, WRITE]}
  - {principal: [User:a, User:b], resource_type: cluster, operation: ALTER_CONFIGS, permission: DENY, host: 10.0.0.1}
";

fn read_text(text: &str) -> anyhow::Result<State> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    read(&[file.path().to_owned()])
}

#[test]
fn a_full_document_is_read() {
    let state = read_text(FULL).unwrap();
    let topics = state.topics.unwrap();
    let orders = &topics["orders"];
    assert_eq!((orders.partitions, orders.replication_factor), (Some(6), Some(3)));
    assert_eq!(orders.configs["retention.ms"].as_deref(), Some("86400000"));
    assert_eq!(orders.configs["cleanup.policy"].as_deref(), Some("compact,delete"));
    assert_eq!(orders.configs["preallocate"].as_deref(), Some("true"));
    assert_eq!(orders.configs["segment.ms"], None);
    assert_eq!(topics["1"], Topic::default());
    let configs = state.configs.unwrap();
    let broker = Owner { scope: Scope::Broker, name: "1".into() };
    assert_eq!(configs[&broker]["log.cleaner.threads"].as_deref(), Some("2"));
    let users = state.users.unwrap();
    assert_eq!(users["alice"].mechanisms.len(), 2);
    assert_eq!(users["bob"].mechanisms, BTreeMap::from([("SCRAM-SHA-512".to_owned(), 8192)]));
    assert_eq!(users["bob"].password, Some(Password::Variable("BOB".into())));
    assert!(matches!(&users["alice"].password, Some(Password::File(file)) if file.is_absolute()));
    let entity = Entity(vec![("client-id".into(), None), ("user".into(), Some("alice".into()))]);
    assert_eq!(state.quotas.unwrap()[&entity]["producer_byte_rate"], Some(1e6));
    let rules: Vec<String> = state.acls.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        rules,
        [
            "User:a may not alter-configs cluster kafka-cluster from 10.0.0.1",
            "User:alice may read topic orders",
            "User:alice may write topic orders",
            "User:b may not alter-configs cluster kafka-cluster from 10.0.0.1",
        ]
    );
}

#[test]
fn files_and_documents_add_up_and_nothing_is_said_twice() {
    let state = read_text("topics: [{name: a}]\n---\ntopics: [{name: b}]\nacls: []\n").unwrap();
    assert_eq!(state.topics.unwrap().len(), 2);
    assert!(state.acls.unwrap().is_empty() && state.users.is_none());
    let state = read_text("topics: []").unwrap();
    assert!(state.topics.unwrap().is_empty());
    for (wrong, why) in [
        ("topics: [{name: a}, {name: a}]", "named twice"),
        ("topcis: []", "topcis"),
        ("topics: [{nmae: a}]", "nmae"),
        ("topics: 5", ""),
        ("configs: [{scope: broker, configs: {}}]", "needs a name"),
        ("configs: [{scope: cluster, name: x, configs: {}}]", "no name"),
        ("users: [{name: a, mechanisms: [MD5]}]", "MD5"),
        ("users: [{name: a, password_file: x, password_env: y}]", "both"),
        ("acls: [{principal: User:a, resource_type: topic, operation: read}]", "resource_name"),
        ("a: &a [*a]", ""),
        ("\u{0}", ""),
        ("{", ""),
    ] {
        let error = format!("{:#}", read_text(wrong).unwrap_err());
        assert!(error.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn what_is_written_down_reads_as_the_same() {
    let mut state = read_text(FULL).unwrap();
    // What no cluster tells: passwords, and settings that are taken back.
    for user in state.users.as_mut().unwrap().values_mut() {
        user.password = None;
    }
    state.topics.as_mut().unwrap().get_mut("orders").unwrap().configs.remove("segment.ms");
    let written = crate::output::yaml(&serde_json::to_value(Document::of(state.clone())).unwrap());
    assert_eq!(read_text(&written).unwrap(), state, "{written}");
    let json = serde_json::to_string(&Document::of(state.clone())).unwrap();
    assert_eq!(read_text(&json).unwrap(), state, "{json}");
}
