//! `ottla apply`, `ottla debug bundle` and `ottla metadata dump` on real processes.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::io::Read;

use ottla_tests::{Cluster, Output};

const AUTHORIZER: [(&str, &str); 2] = [
    ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
    ("super.users", "User:ANONYMOUS"),
];

fn run(cluster: &Cluster, line: &str) -> Output {
    cluster.ottla(&line.split(' ').collect::<Vec<_>>()).unwrap()
}

/// What is written down is what was applied; applying it again does nothing; what differs is found, shown and mended.
#[test]
fn a_cluster_becomes_what_files_say_and_stays_so() {
    let cluster = Cluster::start(1, &AUTHORIZER).unwrap();
    let file = cluster.directory().join("cluster.yaml");
    std::fs::write(cluster.directory().join("alice.password"), "wonderland\n").unwrap();
    let wanted = "
topics:
  - {name: orders, partitions: 3, configs: {retention.ms: 86400000, cleanup.policy: [compact, delete]}}
  - {name: shop, partitions: 1}
configs:
  - {scope: cluster, configs: {log.cleaner.threads: 2}}
  - {scope: broker, name: 1, configs: {log.cleaner.backoff.ms: 16000}}
  - {scope: group, name: g, configs: {consumer.session.timeout.ms: 46000}}
  - {scope: client-metrics, name: m, configs: {interval.ms: 10000}}
users:
  - {name: alice, password_file: alice.password}
quotas:
  - {entity: {user: alice, client-id: null}, limits: {producer_byte_rate: 1048576}}
acls:
  - {principal: User:alice, resource_type: topic, resource_name: orders, operation: [read, write]}
";
    std::fs::write(&file, wanted).unwrap();
    let apply = format!("apply {}", file.display());

    let drift = run(&cluster, &format!("{apply} --check"));
    assert_eq!(drift.code, Some(2), "{}", drift.stderr);
    assert!(drift.stdout.contains("+ topic orders") && drift.stdout.contains("plan: "), "{}", drift.stdout);
    let unasked = run(&cluster, &apply);
    assert_eq!(unasked.code, Some(2), "{}", unasked.stdout);
    assert_eq!(
        run(&cluster, "topic list --output json").json().unwrap()["topics"].as_array().unwrap().len(),
        0
    );

    let done = run(&cluster, &format!("{apply} --yes --output json")).ok().unwrap().json().unwrap();
    assert_eq!((done["applied"].as_bool(), done["delete"].as_i64()), (Some(true), Some(0)));
    let agreed = run(&cluster, &format!("{apply} --check")).ok().unwrap();
    assert!(agreed.stdout.contains("nothing to do"), "{}", agreed.stdout);
    let again = run(&cluster, &format!("{apply} --yes --delete")).ok().unwrap();
    assert!(again.stdout.contains("nothing to do"), "{}", again.stdout);

    let exported = run(&cluster, "apply --export").ok().unwrap().stdout;
    for part in
        ["name: orders", "log.cleaner.threads", "scope: client-metrics", "consumer.session.timeout.ms"]
    {
        assert!(exported.contains(part), "{part}: {exported}");
    }
    assert!(!exported.contains("wonderland"));
    let copy = cluster.directory().join("copy.yaml");
    std::fs::write(&copy, &exported).unwrap();
    run(&cluster, &format!("apply {} --check --delete", copy.display())).ok().unwrap();

    run(&cluster, "topic create stray").ok().unwrap();
    run(&cluster, "acl add --principal User:mallory --cluster --operation all").ok().unwrap();
    run(&cluster, "topic alter orders --set retention.ms=5 --set segment.ms=60000").ok().unwrap();
    let found = run(&cluster, &format!("{apply} --check"));
    assert!(found.stdout.contains("retention.ms: 5 -> 86400000"), "{}", found.stdout);
    assert!(!found.stdout.contains("stray") && !found.stdout.contains("mallory"), "{}", found.stdout);
    let mended = run(&cluster, &format!("{apply} --yes --delete")).ok().unwrap().stdout;
    for part in ["- topic stray", "User:mallory may all cluster", "segment.ms: 60000 -> (default)"] {
        assert!(mended.contains(part), "{part}: {mended}");
    }
    run(&cluster, &format!("{apply} --check --delete")).ok().unwrap();
}

/// Everything that can be refused is refused before anything is done.
#[test]
fn a_plan_that_cannot_be_done_changes_nothing() {
    let cluster = Cluster::start(1, &AUTHORIZER).unwrap();
    let file = cluster.directory().join("wrong.yaml");
    run(&cluster, "topic create orders --partitions 3").ok().unwrap();
    for (text, why) in [
        ("topics: [{name: new}, {name: bad, configs: {no.such.setting: 1}}]", "no.such.setting"),
        ("topics: [{name: new}, {name: orders, partitions: 1}]", "never taken away"),
        ("topics: [{name: new}, {name: orders, replication_factor: 3}]", "partition move"),
        (
            "topics: [{name: new}]\nquotas: [{entity: {planet: mars}, limits: {producer_byte_rate: 1}}]",
            "planet",
        ),
        (
            "topics: [{name: new}]\nacls: [{principal: User:a, resource_type: topic, resource_name: a, operation: fly}]",
            "fly",
        ),
        ("topics: [{name: new}]\nusers: [{name: a, password_file: nowhere}]", "nowhere"),
        ("topics: [{name: new}]\nconfigs: [{scope: cluster, configs: {node.id: 7}}]", "node.id"),
    ] {
        std::fs::write(&file, text).unwrap();
        let refused = run(&cluster, &format!("apply {} --yes", file.display()));
        assert_ne!(refused.code, Some(0), "{text}: {}", refused.stdout);
        assert!(refused.stderr.contains(why), "{text}: {}", refused.stderr);
        let topics = run(&cluster, "topic list --output json").ok().unwrap().stdout;
        assert!(!topics.contains("\"new\""), "{text}: {topics}");
    }
}

/// The archive has what helps and no secret; a stopped controller's disk is read, a running one's is not.
#[test]
fn what_is_inside_is_shown_without_secrets() {
    let [authorizer, super_users] = AUTHORIZER;
    let secret = ("ssl.key.password", "hunter2");
    let mut cluster = Cluster::start(1, &[authorizer, super_users, secret]).unwrap();
    run(&cluster, "topic create orders --config retention.ms=777777").ok().unwrap();
    cluster.ottla_with_input(&["user", "add", "alice"], b"wonderland\n").unwrap().ok().unwrap();
    let archive = cluster.directory().join("fault.tar.gz");
    let properties = cluster.nodes[0].directory().join("server.properties");
    let log = cluster.nodes[0].directory().join("server.log");
    let made = run(
        &cluster,
        &format!(
            "debug bundle {} --node-config {} --log {} --log /nowhere --output json",
            archive.display(),
            properties.display(),
            log.display()
        ),
    );
    let made = made.ok().unwrap().json().unwrap();
    assert_eq!(made["missing"].as_object().unwrap().len(), 1, "{made}");
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&archive).unwrap();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for part in
        ["fault/bundle.json", "777777", "ottla_", "ssl.key.password=(secret)", "node.id=1", "doctor-1.json"]
    {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("hunter2") && !text.contains("wonderland"));

    let data = cluster.nodes[0].data_directory();
    let dump = format!("metadata dump {}", data.display());
    let refused = run(&cluster, &dump);
    assert!(refused.code == Some(1) && refused.stderr.contains("in use"), "{}", refused.stderr);
    cluster.nodes[0].stop().unwrap();
    let dumped = run(&cluster, &format!("{dump} --output json")).ok().unwrap();
    let shown = dumped.json().unwrap();
    assert_eq!(shown["problems"].as_array().unwrap().len(), 0, "{shown}");
    assert!(dumped.stdout.contains("orders") && dumped.stdout.contains("alice"), "{}", dumped.stdout);
    assert!(!dumped.stdout.contains("hunter2"));
    assert!(run(&cluster, &dump).ok().unwrap().stdout.contains("RegisterBroker"));
    // A look changes nothing: the node starts as ever.
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(1).unwrap();
    run(&cluster, "topic describe orders").ok().unwrap();
}
