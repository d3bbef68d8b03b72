//! Real `ottla server` processes behind an authorizer: who is nobody may do nothing, and what rules allow.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use ottla_tests::{Cluster, Output};

const AUTHORIZER: (&str, &str) =
    ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");

fn run(cluster: &Cluster, line: &str) -> Output {
    cluster.ottla(&line.split(' ').collect::<Vec<_>>()).unwrap()
}

/// What a command that must work printed.
fn ok(cluster: &Cluster, line: &str) -> String {
    run(cluster, line).ok().unwrap().stdout
}

/// Callers of the admin plane are rule-bound like clients: without a rule nobody may do anything, or see it.
#[test]
fn without_a_rule_the_admin_plane_gives_nothing() {
    let cluster = Cluster::start(1, &[AUTHORIZER]).unwrap();
    for line in [
        "topic create t",
        "acl add --principal User:ANONYMOUS --cluster --operation all",
        "acl list",
        "user list",
        "quota list",
        "quota set producer_byte_rate=1 --user u",
        "quorum status",
        "config set --cluster log.retention.ms=1000",
        "config get --topic t",
    ] {
        let refused = run(&cluster, line);
        assert_eq!(refused.code, Some(1), "{line}");
        assert!(refused.stderr.contains("Authorization failed"), "{line}: {}", refused.stderr);
    }
    assert_eq!(ok(&cluster, "topic list --output json").matches("name").count(), 0);
}

/// Rules, users and quotas are kept: what a node was told before it was killed holds afterwards.
#[test]
fn what_was_set_is_kept_through_a_kill() {
    let mut cluster = Cluster::start(1, &[AUTHORIZER, ("super.users", "User:ANONYMOUS")]).unwrap();
    ok(&cluster, "acl add --principal User:alice --topic orders --operation read,write");
    ok(&cluster, "acl add --principal User:bob --group shop- --prefixed --operation read --deny");
    cluster.ottla_with_input(&["user", "add", "alice"], b"secret\n").unwrap().ok().unwrap();
    ok(&cluster, "quota set producer_byte_rate=1000 --user alice --client-id");
    let all = |cluster: &Cluster| {
        ["acl list", "user list", "quota list"].map(|line| ok(cluster, &format!("{line} --output json")))
    };
    let before = all(&cluster);
    assert_eq!(before[0].matches("\"principal\"").count(), 3, "{}", before[0]);
    assert!(before[1].contains("SCRAM-SHA-512") && before[2].contains("producer_byte_rate"));
    cluster.nodes[0].kill().unwrap();
    cluster.nodes[0].start().unwrap();
    cluster.await_brokers(1).unwrap();
    assert_eq!(all(&cluster), before);

    let removed = ok(&cluster, "acl remove --topic orders --pattern match --yes");
    assert!(removed.contains("2 rules"), "{removed}");
    ok(&cluster, "user remove alice --yes");
    ok(&cluster, "quota unset producer_byte_rate --user alice --client-id");
    let after = all(&cluster);
    assert!(after[0].contains("User:bob") && !after[0].contains("User:alice"), "{}", after[0]);
    assert!(!after[1].contains("alice") && !after[2].contains("alice"));
}

/// A password file of the one node's own user, in properties of SASL on both listeners.
fn sasl_properties(kafka: &str) -> Vec<(String, String)> {
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"node\" \
                 password=\"node-secret\" user_node=\"node-secret\" user_carol=\"carol-secret\";";
    [
        ("listener.security.protocol.map", format!("CONTROLLER:SASL_PLAINTEXT,PLAINTEXT:{kafka}").as_str()),
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
        ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
        ("sasl.mechanism.controller.protocol", "PLAIN"),
        ("listener.name.controller.plain.sasl.jaas.config", plain),
        ("listener.name.plaintext.plain.sasl.jaas.config", plain),
        ("super.users", "User:node"),
        // Sessions end while the test runs: nodes and clients sign in again by themselves.
        ("connections.max.reauth.ms", "3000"),
        ("delegation.token.secret.key", "of-the-test"),
        AUTHORIZER,
    ]
    .iter()
    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
    .collect()
}

/// Who signs in to gRPC is bound by the rules of that user, by every mechanism; who does not, or wrongly, gets nowhere. The same
/// words let produce and consume in.
#[test]
fn users_sign_in_to_the_admin_plane_and_to_brokers() {
    let all = sasl_properties("SASL_PLAINTEXT");
    let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut cluster = Cluster::prepare(3, &all).unwrap();
    let directory = cluster.directory().to_owned();
    let secret = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (node, carol) = (secret("node", "node-secret\n"), secret("carol", "carol-secret\n"));
    let (alice, wrong) = (secret("alice", "alice-secret\n"), secret("wrong", "guess\n"));
    let as_node = format!("--sasl-mechanism PLAIN --sasl-user node --sasl-password-file {node}");
    let as_carol = format!("--sasl-mechanism PLAIN --sasl-user carol --sasl-password-file {carol}");
    let as_alice = format!("--sasl-user alice --sasl-password-file {alice}");
    for node in &mut cluster.nodes {
        node.start().unwrap();
    }
    ok(&cluster, &format!("{as_node} --timeout 60s cluster await --brokers 3"));
    ok(&cluster, &format!("{as_node} topic create orders --partitions 3 --replication-factor 3"));
    ok(&cluster, &format!("{as_node} user add alice --password-file {alice}"));

    // Nobody, a wrong password, a user who is not there: no connection. A user without rights: no right.
    for (line, why) in [
        ("topic list".to_owned(), "TLS or SASL"),
        (format!("--sasl-user alice --sasl-password-file {wrong} topic list"), "invalid credentials"),
        (format!("--sasl-user nobody --sasl-password-file {wrong} topic list"), "invalid credentials"),
        (
            format!("--sasl-mechanism PLAIN --sasl-user carol --sasl-password-file {wrong} topic list"),
            "Invalid username",
        ),
        (
            format!("--sasl-mechanism OAUTHBEARER --sasl-user a --sasl-password-file {wrong} topic list"),
            "token",
        ),
        (format!("{as_carol} topic create mine"), "Authorization failed"),
        (format!("{as_alice} acl list"), "Authorization failed"),
        (format!("{as_alice} partition elect orders"), "Authorization failed"),
        (format!("{as_alice} broker decommission 3"), "Authorization failed"),
        (format!("{as_alice} feature downgrade transaction.version 0"), "Authorization failed"),
        (format!("{as_alice} partition move orders:0 --to 1,2"), "Authorization failed"),
    ] {
        let refused = run(&cluster, &line);
        assert_ne!(refused.code, Some(0), "{line}: {}", refused.stdout);
        assert!(refused.stderr.contains(why), "{line}: {}", refused.stderr);
    }
    ok(&cluster, &format!("{as_node} acl add --principal User:alice --topic orders --operation read,write"));
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let line = format!("{as_alice} --sasl-mechanism {mechanism} topic describe orders");
        assert!(ok(&cluster, &line).contains("orders"));
    }

    // The same words for records.
    let produce = format!("{as_alice} produce orders");
    let words: Vec<&str> = produce.split(' ').collect();
    cluster.ottla_with_input(&words, b"one\ntwo\n").unwrap().ok().unwrap();
    let read = ok(&cluster, &format!("{as_alice} consume orders --from beginning --count 2"));
    assert!(read.contains("one") && read.contains("two"), "{read}");
    let refused = run(&cluster, &format!("{as_carol} consume orders --from beginning --count 1"));
    assert_ne!(refused.code, Some(0));
    let kafka = cluster.bootstrap();
    let direct = format!("--bootstrap {kafka} {as_alice} --sasl-mechanism SCRAM-SHA-256");
    assert!(ok(&cluster, &format!("{direct} consume orders --from beginning --count 2")).contains("two"));

    // Kafka's file of client properties says the same.
    let properties = secret(
        "client.properties",
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=org.apache.kafka.common.security.\
         scram.ScramLoginModule required username=\"alice\" password=\"alice-secret\";\n",
    );
    assert!(ok(&cluster, &format!("--command-config {properties} topic describe orders")).contains("orders"));

    // A delegation token is a user's rights under another name.
    let token =
        run(&cluster, &format!("{as_alice} token create --output json")).ok().unwrap().json().unwrap();
    let hmac = secret("hmac", token["tokens"][0]["hmac"].as_str().unwrap());
    let id = token["tokens"][0]["id"].as_str().unwrap();
    let by_token = format!("--sasl-user {id} --sasl-password-file {hmac} --sasl-delegation-token");
    assert!(ok(&cluster, &format!("{by_token} topic describe orders")).contains("orders"));
    assert!(run(&cluster, &format!("{by_token} acl list")).stderr.contains("Authorization failed"));

    // A node that comes back signs in to the others again.
    cluster.nodes[2].kill().unwrap();
    cluster.nodes[2].start().unwrap();
    ok(&cluster, &format!("{as_node} --timeout 60s cluster await --brokers 3 --healthy"));
}
