//! Rights as handlers ask for them.

use std::collections::BTreeSet;

use ottla_metadata::acl::{Acl, PatternType, Permission};
use ottla_metadata::image::LogIndex;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{MetadataRecord, TopicRecord};

use super::*;

fn options(super_users: &[&str]) -> Arc<AuthorizerOptions> {
    Arc::new(AuthorizerOptions {
        super_users: super_users.iter().map(|&user| user.to_owned()).collect::<BTreeSet<_>>(),
        allow_everyone_if_no_acl_found: false,
    })
}

/// An image with the topics `a` (id 1) and `b` (id 2), and rules for alice.
fn image(rules: &[(AclResourceType, &str, Operation)]) -> Arc<MetadataImage> {
    let mut records = Vec::new();
    for (id, name) in [(1, "a"), (2, "b")] {
        let topic_id = bytes::Bytes::copy_from_slice(Uuid::from_u128(id).as_bytes());
        records.push(Record::Topic(TopicRecord { topic_id, name: name.to_owned() }));
    }
    for (at, (resource_type, name, operation)) in (10..).zip(rules) {
        let acl = Acl {
            resource_type: *resource_type,
            resource_name: (*name).to_owned(),
            pattern_type: PatternType::Literal,
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation: *operation,
            permission: Permission::Allow,
        };
        records.push(Record::Acl(acl.to_record(Uuid::from_u128(at))));
    }
    let records: Vec<_> = records.into_iter().map(|record| MetadataRecord { record: Some(record) }).collect();
    Arc::new(MetadataImage::default().apply(LogIndex(0), &records).unwrap().0)
}

fn access(user: &str, rules: &[(AclResourceType, &str, Operation)]) -> Access {
    Access::new(&options(&["User:root"]), image(rules), user.to_owned(), "127.0.0.1".into())
}

#[test]
fn each_kind_of_resource_has_its_code() {
    let nobody = access("User:alice", &[]);
    assert_eq!(nobody.topic(Operation::Read, "a"), Err(ErrorCode::TopicAuthorizationFailed));
    assert_eq!(nobody.group(Operation::Read, "g"), Err(ErrorCode::GroupAuthorizationFailed));
    assert_eq!(nobody.cluster(Operation::Alter), Err(ErrorCode::ClusterAuthorizationFailed));
    assert_eq!(
        nobody.transactional_id(Operation::Write, "t"),
        Err(ErrorCode::TransactionalIdAuthorizationFailed)
    );
    assert_eq!(
        nobody.user(Operation::CreateTokens, "User:bob"),
        Err(ErrorCode::DelegationTokenAuthorizationFailed)
    );
    assert_eq!(nobody.idempotent_write(), Err(ErrorCode::ClusterAuthorizationFailed));
    assert_eq!(nobody.create_topic("x"), Err(ErrorCode::TopicAuthorizationFailed));
}

#[test]
fn super_users_and_clusters_without_an_authorizer_ask_no_rule() {
    let root = access("User:root", &[]);
    assert!(
        !root.is_bound() && root.cluster(Operation::Alter).is_ok() && root.sees_topic(Operation::Read, "a")
    );
    let all = Access::everything();
    assert!(all.idempotent_write().is_ok() && all.topic_by_id(Operation::Read, Uuid::nil()).is_ok());
    let bits = |operations: &[Operation]| operations.iter().fold(0, |bits, one| bits | 1 << one.code());
    assert_eq!(all.topic_operations("a"), bits(supported_operations(AclResourceType::Topic)));
    assert_eq!(root.cluster_operations(), bits(supported_operations(AclResourceType::Cluster)));
}

#[test]
fn operations_and_lists_show_what_is_allowed() {
    let alice = access("User:alice", &[(AclResourceType::Topic, "a", Operation::Read)]);
    assert_eq!(alice.topic_operations("a"), 1 << Operation::Read.code() | 1 << Operation::Describe.code());
    assert_eq!((alice.topic_operations("b"), alice.cluster_operations()), (0, 0));
    assert!(alice.sees_topic(Operation::Describe, "a") && !alice.sees_topic(Operation::Describe, "b"));
}

#[test]
fn a_topic_by_id_is_the_topic_of_the_image() {
    let alice = access("User:alice", &[(AclResourceType::Topic, "a", Operation::Read)]);
    assert_eq!(alice.topic_by_id(Operation::Read, Uuid::from_u128(1)), Ok(()));
    assert_eq!(
        alice.topic_by_id(Operation::Read, Uuid::from_u128(2)),
        Err(ErrorCode::TopicAuthorizationFailed)
    );
    assert_eq!(alice.topic_by_id(Operation::Read, Uuid::from_u128(3)), Ok(()));
}

#[test]
fn one_of_two_rights_will_do() {
    let writer = access("User:alice", &[(AclResourceType::Topic, "a", Operation::Write)]);
    assert_eq!(writer.idempotent_write(), Ok(()));
    let idempotent = [(AclResourceType::Cluster, CLUSTER_NAME, Operation::IdempotentWrite)];
    assert_eq!(access("User:alice", &idempotent).idempotent_write(), Ok(()));
    let creator = [(AclResourceType::Cluster, CLUSTER_NAME, Operation::Create)];
    assert_eq!(access("User:alice", &creator).create_topic("anything"), Ok(()));
    let creator = access("User:alice", &[(AclResourceType::Topic, "x", Operation::Create)]);
    assert!(creator.create_topic("x").is_ok() && creator.create_topic("y").is_err());
}

#[test]
fn refused_items_are_taken_out_in_order() {
    let alice = access("User:alice", &[(AclResourceType::Topic, "a", Operation::Delete)]);
    let mut names = vec!["b", "a", "c"];
    let refused = alice.take_refused(&mut names, |access, name| access.topic(Operation::Delete, name));
    let code = ErrorCode::TopicAuthorizationFailed;
    assert_eq!((names, refused), (vec!["a"], vec![("b", code), ("c", code)]));
    let mut names = vec!["b"];
    let all = Access::everything();
    assert!(all.take_refused(&mut names, |access, name| access.topic(Operation::Delete, name)).is_empty());
}

#[test]
fn configs_belong_to_topics_groups_and_the_cluster() {
    let alice = access("User:alice", &[(AclResourceType::Group, "g", Operation::AlterConfigs)]);
    let number = |kind: ResourceType| i8::try_from(i32::from(kind)).unwrap();
    assert_eq!(alice.config(Operation::DescribeConfigs, number(ResourceType::Group), "g"), Ok(()));
    assert_eq!(
        alice.config(Operation::AlterConfigs, number(ResourceType::Topic), "g"),
        Err(ErrorCode::TopicAuthorizationFailed)
    );
    for other in [number(ResourceType::Broker), 99] {
        let code = Err(ErrorCode::ClusterAuthorizationFailed);
        assert_eq!(alice.config(Operation::AlterConfigs, other, "1"), code);
    }
}
