//! The whole table of rights (`ottla_broker::rights`) on a real `ottla server`, over the wire: each API without the right, and with it.
//!
//! Every other right of the same API is given in both rounds, so that it is this one that is missed.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod ask;
mod client;

use ottla_broker::rights::{RIGHTS, Right, Without};
use ottla_tests::Cluster;
use ottla_wire::api::ApiKey;
use ottla_wire::error_code::ErrorCode;

use client::{Client, Granted};

const PLAIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"node\" \
                     password=\"node-secret\" user_node=\"node-secret\" user_carol=\"carol-secret\";";

/// Rights that no single request on a broker of one node shows, and what shows them instead.
const SHOWN_ELSEWHERE: &[(ApiKey, &str, &str)] = &[
    (
        ApiKey::ConsumerGroupDescribe,
        "each topic that its members have",
        "needs a member with an assignment: groups' tests",
    ),
    (
        ApiKey::DescribeTransactions,
        "each topic of a transaction",
        "needs an open transaction: transactions' tests",
    ),
    (ApiKey::ListTransactions, "each transactional id", "needs a transaction: transactions' tests"),
];

fn start() -> Cluster {
    let mut cluster = Cluster::prepare(
        1,
        &[
            ("listener.security.protocol.map", "CONTROLLER:SASL_PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
            ("sasl.mechanism.controller.protocol", "PLAIN"),
            ("listener.name.controller.plain.sasl.jaas.config", PLAIN),
            ("listener.name.plaintext.plain.sasl.jaas.config", PLAIN),
            ("super.users", "User:node"),
            ("delegation.token.secret.key", "of-the-test"),
            ("auto.create.topics.enable", "true"),
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ],
    )
    .unwrap();
    let password = cluster.directory().join("node");
    std::fs::write(&password, "node-secret\n").unwrap();
    cluster.nodes[0].start().unwrap();
    let words = format!(
        "--sasl-mechanism PLAIN --sasl-user node --sasl-password-file {} --timeout 60s cluster await --brokers 1",
        password.display()
    );
    cluster.ottla(&words.split(' ').collect::<Vec<_>>()).unwrap().ok().unwrap();
    cluster
}

/// The rights that are given whichever is missed: those of the same API, but for the same one under another condition, and
/// for what would do instead.
fn others(missed: &Right) -> Vec<&'static Right> {
    let is_same = |right: &Right| right.operation == missed.operation && right.resource == missed.resource;
    // Of a token one right is as good as the other.
    let one_will_do = missed.api == ApiKey::DescribeDelegationToken;
    RIGHTS.iter().filter(|right| right.api == missed.api && !is_same(right) && !one_will_do).collect()
}

#[test]
fn every_right_is_asked_for_and_is_enough() {
    let cluster = start();
    let address = cluster.nodes[0].kafka();
    let mut node = Client::log_in(&address, "node", "node-secret").unwrap();
    let mut carol = Client::log_in(&address, "carol", "carol-secret").unwrap();
    ask::prepare(&mut node).unwrap();
    let mut shown = 0;
    let mut wrong = Vec::new();
    let tried = || RIGHTS.iter().filter(|right| ask::has_request(right.api));
    for right in tried() {
        if SHOWN_ELSEWHERE.iter().any(|(api, which, _)| *api == right.api && *which == right.which) {
            continue;
        }
        let others = others(right);
        node.give(&others).unwrap();
        let refused = ask::ask(&mut carol, right).unwrap();
        let all: Vec<&Right> = others.into_iter().chain([right]).collect();
        node.give(&all).unwrap();
        let allowed = ask::ask(&mut carol, right).unwrap();
        node.give(&[]).unwrap();
        let name = format!("{:?}: {:?} {:?}, {}", right.api, right.operation, right.resource, right.which);
        let (without, with) = (is_refused(right, &refused), is_refused(right, &allowed));
        if !without || with {
            wrong.push(format!("{name}\n  without: {refused}\n  with: {allowed}"));
        }
        shown += 1;
    }
    assert!(wrong.is_empty(), "{} of {shown}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(shown + SHOWN_ELSEWHERE.len(), tried().count());
}

/// Whether an answer says that the right is missing.
fn is_refused(right: &Right, answer: &str) -> bool {
    match right.without {
        Without::Code(code) => has_code(answer, code),
        Without::LeftOut if right.api == ApiKey::CreateTopics => {
            has_code(answer, ErrorCode::TopicAuthorizationFailed)
        }
        Without::LeftOut => !answer.contains(ask::marker(right)),
    }
}

fn has_code(answer: &str, code: ErrorCode) -> bool {
    let code = code.code();
    answer.contains(&format!("error_code: {code},")) || answer.contains(&format!("error_code: {code} }}"))
}

/// A rule for everything of the kind, as ACLs have it.
fn granted(right: &Right) -> Granted {
    Granted { resource_type: right.resource.code(), operation: right.operation.code() }
}
