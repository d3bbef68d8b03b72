//! The authorizer: every rule of Kafka's, and the index against a plain scan.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn acl(
    (resource_type, pattern_type, name): (AclResourceType, PatternType, &str),
    (principal, host): (&str, &str),
    operation: AclOperation,
    permission: Permission,
) -> Acl {
    Acl {
        resource_type,
        resource_name: name.to_owned(),
        pattern_type,
        principal: principal.to_owned(),
        host: host.to_owned(),
        operation,
        permission,
    }
}

const ALICE: (&str, &str) = ("User:alice", "*");

fn topic(name: &str) -> (AclResourceType, PatternType, &str) {
    (AclResourceType::Topic, PatternType::Literal, name)
}

fn prefix(name: &str) -> (AclResourceType, PatternType, &str) {
    (AclResourceType::Topic, PatternType::Prefixed, name)
}

fn allow(pattern: (AclResourceType, PatternType, &str), operation: AclOperation) -> Acl {
    acl(pattern, ALICE, operation, Permission::Allow)
}

fn deny(pattern: (AclResourceType, PatternType, &str), operation: AclOperation) -> Acl {
    acl(pattern, ALICE, operation, Permission::Deny)
}

fn set(acls: impl IntoIterator<Item = Acl>) -> Acls {
    let mut set = Acls::default();
    for (id, acl) in (1..).zip(acls) {
        set.insert(Uuid::from_u128(id), acl);
    }
    set
}

fn action<'a>(principal: &'a str, operation: AclOperation, name: &'a str) -> Action<'a> {
    Action {
        principal,
        host: "10.0.0.1",
        operation,
        resource_type: AclResourceType::Topic,
        resource_name: name,
    }
}

fn is_allowed(acls: &Acls, operation: AclOperation, name: &str) -> bool {
    Authorizer::new(&AuthorizerOptions::default(), acls).is_allowed(action("User:alice", operation, name))
}

use AclOperation as Do;

#[test]
fn nobody_may_anything_without_a_rule_but_super_users() {
    let options = AuthorizerOptions {
        super_users: BTreeSet::from(["User:root".to_owned()]),
        allow_everyone_if_no_acl_found: false,
    };
    let acls = set([acl(topic("t"), ("User:root", "*"), Do::All, Permission::Deny)]);
    let authorizer = Authorizer::new(&options, &acls);
    assert!(authorizer.is_allowed(action("User:root", Do::Write, "t")));
    assert!(!authorizer.is_allowed(action("User:alice", Do::Write, "t")));
}

#[test]
fn literal_prefixed_and_wildcard_patterns_match_their_names() {
    let acls = set([
        allow(topic("orders"), Do::Read),
        allow(prefix("pay"), Do::Read),
        allow(prefix("payment-"), Do::Write),
        allow(topic("*"), Do::Create),
    ]);
    for (operation, name, allowed) in [
        (Do::Read, "orders", true),
        (Do::Read, "orders2", false),
        (Do::Read, "order", false),
        (Do::Read, "pay", true),
        (Do::Read, "payment-x", true),
        (Do::Write, "payment-x", true),
        (Do::Write, "payment", false),
        (Do::Read, "pa", false),
        (Do::Create, "anything", true),
        (Do::Write, "orders", false),
    ] {
        assert_eq!(is_allowed(&acls, operation, name), allowed, "{operation:?} {name}");
    }
}

#[test]
fn a_rule_that_denies_wins_wherever_it_stands() {
    let acls =
        set([allow(topic("a.b"), Do::All), deny(prefix("a"), Do::Write), deny(topic("*"), Do::Delete)]);
    assert!(is_allowed(&acls, Do::Read, "a.b"));
    assert!(!is_allowed(&acls, Do::Write, "a.b"));
    assert!(!is_allowed(&acls, Do::Delete, "a.b"));
    // To deny an operation does not deny what it would include.
    let acls = set([allow(topic("t"), Do::Describe), deny(topic("t"), Do::Read)]);
    assert!(is_allowed(&acls, Do::Describe, "t"));
    assert!(!is_allowed(&set([allow(topic("t"), Do::All), deny(topic("t"), Do::All)]), Do::Describe, "t"));
}

#[test]
fn some_operations_include_to_describe() {
    for operation in [Do::Read, Do::Write, Do::Delete, Do::Alter, Do::All] {
        assert!(is_allowed(&set([allow(topic("t"), operation)]), Do::Describe, "t"), "{operation:?}");
    }
    for operation in [Do::Create, Do::AlterConfigs, Do::ClusterAction] {
        assert!(!is_allowed(&set([allow(topic("t"), operation)]), Do::Describe, "t"), "{operation:?}");
    }
    assert!(is_allowed(&set([allow(topic("t"), Do::AlterConfigs)]), Do::DescribeConfigs, "t"));
    assert!(!is_allowed(&set([allow(topic("t"), Do::Describe)]), Do::Read, "t"));
}

#[test]
fn hosts_and_everybody_count() {
    let acls = set([
        acl(topic("t"), ("User:alice", "10.0.0.1"), Do::Read, Permission::Allow),
        acl(topic("u"), ("User:alice", "10.0.0.2"), Do::Read, Permission::Allow),
        acl(topic("v"), ("User:*", "*"), Do::Read, Permission::Allow),
        acl(topic("w"), ("User:*", "10.0.0.1"), Do::Read, Permission::Deny),
        allow(topic("w"), Do::Read),
    ]);
    let read = |name| is_allowed(&acls, Do::Read, name);
    assert_eq!([read("t"), read("u"), read("v"), read("w")], [true, false, true, false]);
}

#[test]
fn a_resource_without_any_rule_may_be_open_to_everybody() {
    let options = AuthorizerOptions { allow_everyone_if_no_acl_found: true, ..AuthorizerOptions::default() };
    let acls = set([
        acl(topic("t"), ("User:bob", "*"), Do::Read, Permission::Allow),
        deny(prefix("secret"), Do::Read),
    ]);
    let authorizer = Authorizer::new(&options, &acls);
    let read = |name| authorizer.is_allowed(action("User:alice", Do::Write, name));
    // A rule of somebody else, or of another operation, closes it.
    assert_eq!([read("other"), read("t"), read("secrets")], [true, false, false]);
}

#[test]
fn an_operation_may_be_allowed_on_some_resource_of_a_kind() {
    let somewhere = |acls: Vec<Acl>| {
        let acls = set(acls);
        Authorizer::new(&AuthorizerOptions::default(), &acls).is_allowed_somewhere(
            "User:alice",
            "10.0.0.1",
            Do::Write,
            AclResourceType::Topic,
        )
    };
    assert!(!somewhere(vec![]));
    assert!(somewhere(vec![allow(topic("t"), Do::Write)]));
    assert!(somewhere(vec![allow(prefix("t"), Do::All)]));
    assert!(!somewhere(vec![allow(topic("t"), Do::Read)]));
    assert!(!somewhere(vec![allow(topic("t"), Do::Write), deny(topic("*"), Do::Write)]));
    assert!(!somewhere(vec![allow(topic("t"), Do::Write), deny(topic("t"), Do::Write)]));
    assert!(!somewhere(vec![allow(topic("tt"), Do::Write), deny(prefix("t"), Do::Write)]));
    assert!(!somewhere(vec![allow(prefix("tt"), Do::Write), deny(prefix("t"), Do::All)]));
    assert!(somewhere(vec![allow(prefix("t"), Do::Write), deny(prefix("tt"), Do::Write)]));
    assert!(somewhere(vec![allow(topic("*"), Do::Write), deny(topic("t"), Do::Write)]));
}

#[test]
fn the_allowed_operations_are_bits() {
    let acls = set([allow(topic("t"), Do::Read)]);
    let options = AuthorizerOptions::default();
    let supported = crate::decide::supported_operations(AclResourceType::Topic);
    let bits = Authorizer::new(&options, &acls).authorized_operations(
        "User:alice",
        "h",
        AclResourceType::Topic,
        "t",
        supported,
    );
    assert_eq!(bits, 1 << 3 | 1 << 8);
}

#[test]
fn options_come_from_the_properties() {
    let mut properties = BTreeMap::new();
    assert_eq!(AuthorizerOptions::from_properties(&properties), None);
    for (name, value) in [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("super.users", "User:a; User:CN=b,O=c"),
        ("allow.everyone.if.no.acl.found", "TRUE"),
    ] {
        properties.insert(name.to_owned(), value.to_owned());
    }
    let options = AuthorizerOptions::from_properties(&properties).unwrap();
    assert!(options.super_users.contains("User:CN=b,O=c") && options.super_users.len() == 2);
    assert!(options.allow_everyone_if_no_acl_found);
}

/// What the rules say, read off one by one.
fn plainly(acls: &Acls, action: Action<'_>) -> (bool, bool) {
    let (mut denied, mut allowed) = (false, false);
    for (_, acl) in acls.iter() {
        let is_meant = acl.resource_type == action.resource_type
            && acl.covers(action.resource_name)
            && (acl.principal == action.principal || acl.principal == EVERYBODY)
            && (acl.host == WILDCARD || acl.host == action.host);
        if !is_meant {
            continue;
        }
        let is_same = acl.operation == Do::All || acl.operation == action.operation;
        let includes = match action.operation {
            Do::Describe => matches!(acl.operation, Do::Read | Do::Write | Do::Delete | Do::Alter),
            Do::DescribeConfigs => acl.operation == Do::AlterConfigs,
            _ => false,
        };
        match acl.permission {
            Permission::Deny => denied |= is_same,
            Permission::Allow => allowed |= is_same || includes,
        }
    }
    (denied, allowed)
}

fn any_acl() -> impl Strategy<Value = Acl> {
    // Letters of two bytes: a prefix ends where a character does.
    let name = prop_oneof![4 => "[aé]{1,4}", 1 => Just("*".to_owned())];
    let kind = proptest::sample::select(vec![AclResourceType::Topic, AclResourceType::Group]);
    let pattern = proptest::sample::select(PatternType::ALL);
    let who = proptest::sample::select(vec!["User:alice", "User:bob", "User:*"]);
    let host = proptest::sample::select(vec!["*", "1", "2"]);
    let operation = proptest::sample::select(AclOperation::ALL);
    let permission = proptest::sample::select(Permission::ALL);
    (kind, pattern, name, who, host, operation, permission).prop_map(
        |(kind, pattern, name, who, host, operation, permission)| {
            acl((kind, pattern, &name), (who, host), operation, permission)
        },
    )
}

proptest! {
    #[test]
    fn the_index_says_what_the_rules_say_whatever_comes_and_goes(
        steps in proptest::collection::vec((any_acl(), any::<bool>(), any::<prop::sample::Index>()), 1..60),
        names in proptest::collection::vec("[aé*]{0,5}", 1..6),
    ) {
        let mut acls = Acls::default();
        for ((acl, removes, at), id) in steps.into_iter().zip(1u128..) {
            let ids: Vec<Uuid> = acls.iter().map(|(id, _)| id).collect();
            if removes && !ids.is_empty() {
                prop_assert!(acls.remove(*at.get(&ids)));
            } else {
                acls.insert(Uuid::from_u128(id), acl);
            }
        }
        for resource_name in &names {
            for operation in AclOperation::ALL.iter().skip(1) {
                let action = Action {
                    principal: "User:alice",
                    host: "1",
                    operation: *operation,
                    resource_type: AclResourceType::Topic,
                    resource_name,
                };
                let verdict = acls.index().verdict(
                    action.principal, action.host, *operation, action.resource_type, resource_name,
                );
                prop_assert_eq!((verdict.denied, verdict.allowed), plainly(&acls, action));
            }
            let covers = acls.iter().any(|(_, acl)| {
                acl.resource_type == AclResourceType::Topic && acl.covers(resource_name)
            });
            prop_assert_eq!(acls.index().covers(AclResourceType::Topic, resource_name), covers);
        }
        let ids: Vec<Uuid> = acls.iter().map(|(id, _)| id).collect();
        for id in ids {
            acls.remove(id);
        }
        prop_assert_eq!(acls, Acls::default());
    }
}

/// Nanoseconds that a decision may take here: without optimisation, on a busy machine, it is some microseconds. A walk over
/// all rules would take hundreds.
const DECISION_NS_MAX: u128 = 50_000;

#[test]
fn a_decision_does_not_walk_over_all_rules() {
    let rules = (0..10_000).map(|at| {
        let user = format!("User:user-{}", at % 500);
        let name = format!("topic-{at}");
        let pattern = if at % 2 == 0 { topic(&name) } else { prefix(&name) };
        acl(pattern, (&user, "*"), Do::Read, Permission::Allow)
    });
    let acls = set(rules);
    let options = AuthorizerOptions::default();
    let authorizer = Authorizer::new(&options, &acls);
    const ROUNDS: u32 = 2_000;
    let started = std::time::Instant::now();
    let mut allowed = 0;
    for _ in 0..ROUNDS {
        allowed += u32::from(authorizer.is_allowed(action("User:user-7", Do::Read, "topic-507")));
        allowed += u32::from(authorizer.is_allowed(action("User:user-7", Do::Read, "topic-508")));
    }
    let each = started.elapsed().as_nanos() / u128::from(2 * ROUNDS);
    assert_eq!(allowed, ROUNDS);
    assert!(each < DECISION_NS_MAX, "{each} ns");
}
