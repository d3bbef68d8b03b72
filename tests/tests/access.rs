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
