//! Quotas, rules of access, SCRAM credentials and delegation tokens.

use ottla_proto::controller as proto;
use ottla_proto::controller::command::Command;
use ottla_proto::controller::command_reply::Reply;
use ottla_proto::metadata as records;
use ottla_wire::error_code::ErrorCode;

use super::tests::{after, code, decide_with, properties, run, three};
use super::*;
use crate::acl::Acl;
use crate::credentials::{Principal, ScramMechanism};
use crate::image::LogIndex;
use crate::quotas::{ClientQuota, QuotaEntity};

type Part<'a> = (&'a str, Option<&'a str>);

fn parts(entity: &[Part<'_>]) -> Vec<records::QuotaEntityPart> {
    entity
        .iter()
        .map(|(kind, name)| records::QuotaEntityPart {
            r#type: (*kind).to_owned(),
            name: name.map(str::to_owned),
        })
        .collect()
}

fn quota(
    image: &MetadataImage,
    entity: &[Part<'_>],
    changes: &[(&str, Option<f64>)],
    validate_only: bool,
) -> (ErrorCode, MetadataImage) {
    let changes = changes
        .iter()
        .map(|(key, value)| proto::QuotaChange { key: (*key).to_owned(), value: *value })
        .collect();
    let entries = vec![proto::QuotaAlteration { entity: parts(entity), changes }];
    match run(image, Command::AlterClientQuotas(proto::AlterClientQuotas { validate_only, entries })) {
        (Reply::AlterClientQuotas(reply), image) => (code(reply.entries[0].error_code), image),
        other => panic!("{other:?}"),
    }
}

fn limited(image: &MetadataImage, entity: &[Part<'_>], value: f64) -> MetadataImage {
    let (answer, image) = quota(image, entity, &[("producer_byte_rate", Some(value))], false);
    assert_eq!(answer, ErrorCode::None);
    image
}

const EIGHT: [&[Part<'static>]; 8] = [
    &[("user", Some("u")), ("client-id", Some("c"))],
    &[("user", Some("u")), ("client-id", None)],
    &[("user", Some("u"))],
    &[("user", None), ("client-id", Some("c"))],
    &[("user", None), ("client-id", None)],
    &[("user", None)],
    &[("client-id", Some("c"))],
    &[("client-id", None)],
];

#[test]
fn the_most_specific_limit_wins() {
    let mut image = three();
    // From the least specific to the most: each overrules all before it.
    for (entity, value) in EIGHT.iter().rev().zip(1u32..) {
        image = limited(&image, entity, f64::from(value));
        let found = image.client_quotas().quota_for("u", "c", "producer_byte_rate").unwrap();
        let has = |kind: &str| entity.iter().any(|(other, _)| *other == kind);
        let (per_user, per_client_id) = (has("user"), has("client-id"));
        assert_eq!(found, ClientQuota { value: f64::from(value), per_user, per_client_id });
    }
    let of =
        |user, client| image.client_quotas().quota_for(user, client, "producer_byte_rate").map(|q| q.value);
    assert_eq!([of("u", "x"), of("x", "c"), of("x", "x")], [Some(7.0), Some(5.0), Some(4.0)]);
    assert_eq!(image.client_quotas().quota_for("u", "c", "consumer_byte_rate"), None);
}

#[test]
fn limits_are_changed_and_removed() {
    let image = three();
    let both = [("producer_byte_rate", Some(1000.0)), ("request_percentage", Some(12.5))];
    let (answer, set) = quota(&image, &[("user", Some("u"))], &both, false);
    assert_eq!((answer, set.client_quotas().iter().count()), (ErrorCode::None, 1));
    let (_, less) = quota(&set, &[("user", Some("u"))], &[("request_percentage", None)], false);
    assert_eq!(less.client_quotas().iter().next().unwrap().1, [("producer_byte_rate", 1000.0)]);
    let (_, none) = quota(&less, &[("user", Some("u"))], &[("producer_byte_rate", None)], false);
    assert!(none.client_quotas().is_empty());
    assert_eq!(
        quota(&none, &[("user", Some("u"))], &[("producer_byte_rate", None)], false).0,
        ErrorCode::None
    );
    assert_eq!(quota(&image, &[("user", None)], &both, true), (ErrorCode::None, image.clone()));
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let image = three();
    let bad: [(&[Part<'_>], &str, f64); 17] = [
        (&[("client-id", Some("q"))], "no_such", 1.0),
        (&[("no-such", Some("q"))], "producer_byte_rate", 1.0),
        (&[("client-id", Some("q"))], "connection_creation_rate", 1.0),
        (&[("ip", Some("1.2.3.4"))], "producer_byte_rate", 1.0),
        (&[("ip", Some("not an ip!"))], "connection_creation_rate", 1.0),
        (&[("ip", Some("1.2.3.4"))], "connection_creation_rate", 2_147_483_648.0),
        (&[], "producer_byte_rate", 1.0),
        (&[("client-id", Some("q"))], "producer_byte_rate", -1.0),
        (&[("client-id", Some("q"))], "producer_byte_rate", 0.0),
        (&[("client-id", Some("q"))], "producer_byte_rate", 1.5),
        (&[("client-id", Some("q"))], "producer_byte_rate", 1e30),
        (&[("client-id", Some("q"))], "request_percentage", f64::NAN),
        (&[("client-id", Some("q"))], "request_percentage", f64::INFINITY),
        (&[("client-id", Some(""))], "producer_byte_rate", 1.0),
        (&[("user", Some("a")), ("user", Some("b"))], "producer_byte_rate", 1.0),
        (&[("ip", Some("127.0.0.9")), ("user", Some("q"))], "connection_creation_rate", 1.0),
        (&[("ip", None), ("client-id", None)], "connection_creation_rate", 1.0),
    ];
    for (entity, key, value) in bad {
        let (answer, same) = quota(&image, entity, &[(key, Some(value))], false);
        assert_eq!((answer, &same), (ErrorCode::InvalidRequest, &image), "{entity:?} {key} {value}");
    }
    // All changes of an entity or none.
    let half = [("producer_byte_rate", Some(5.0)), ("no_such", Some(5.0))];
    assert_eq!(
        quota(&image, &[("user", Some("q"))], &half, false),
        (ErrorCode::InvalidRequest, image.clone())
    );
}

#[test]
fn addresses_have_limits_of_their_own() {
    let rate = [("connection_creation_rate", Some(2.0))];
    let (_, image) = quota(&three(), &[("ip", None)], &rate, false);
    let (_, image) =
        quota(&image, &[("ip", Some("127.0.0.1"))], &[("connection_creation_rate", Some(9.0))], false);
    let of = |ip| image.client_quotas().quota_for_ip(ip, "connection_creation_rate");
    assert_eq!([of("127.0.0.1"), of("127.0.0.2")], [Some(9.0), Some(2.0)]);
}

fn found(
    image: &MetadataImage,
    filters: &[(&str, i8, Option<&str>)],
    strict: bool,
) -> Result<Vec<QuotaEntity>, ErrorCode> {
    let filters: Result<Vec<_>, _> =
        filters.iter().map(|(kind, matched, name)| QuotaFilter::new(kind, *matched, *name)).collect();
    let described = filters.and_then(|filters| describe_client_quotas(image, &filters, strict));
    described.map(|all| all.into_iter().map(|(entity, _)| entity).collect()).map_err(|refusal| refusal.code)
}

#[test]
fn filters_find_limits() {
    let image = EIGHT.iter().fold(three(), |image, entity| limited(&image, entity, 5.0));
    let count = |filters: &[_], strict| found(&image, filters, strict).unwrap().len();
    assert_eq!(count(&[("user", 0, Some("u"))], true), 1);
    assert_eq!(count(&[("user", 0, Some("u"))], false), 3);
    assert_eq!(count(&[("user", 1, None)], true), 1);
    assert_eq!(count(&[("user", 2, None)], true), 2);
    assert_eq!(count(&[("user", 2, None)], false), 6);
    assert_eq!(count(&[("user", 2, None), ("client-id", 0, Some("c"))], true), 2);
    assert_eq!(count(&[], false), 8);
    assert_eq!(count(&[], true), 0);
    assert_eq!(count(&[("ip", 2, None)], false), 0);
    for (filters, error) in [
        (&[("no-such", 2, None)][..], ErrorCode::UnsupportedVersion),
        (&[("user", 0, None)], ErrorCode::InvalidRequest),
        (&[("user", 9, Some("x"))], ErrorCode::InvalidRequest),
        (&[("user", 2, Some("x"))], ErrorCode::InvalidRequest),
        (&[("user", 0, Some("a")), ("user", 0, Some("b"))], ErrorCode::InvalidRequest),
        (&[("ip", 2, None), ("user", 2, None)], ErrorCode::InvalidRequest),
    ] {
        assert_eq!(found(&image, filters, false), Err(error), "{filters:?}");
    }
}

type Rule<'a> = (i32, &'a str, i32, &'a str, i32, i32);

fn rule(
    (resource_type, name, pattern_type, principal, operation, permission): Rule<'_>,
    id: u128,
) -> records::AclRecord {
    records::AclRecord {
        id: id.to_be_bytes().to_vec().into(),
        resource_type,
        resource_name: name.to_owned(),
        pattern_type,
        principal: principal.to_owned(),
        host: "*".to_owned(),
        operation,
        permission,
    }
}

fn add_rules(image: &MetadataImage, rules: &[Rule<'_>], first_id: u128) -> (Vec<ErrorCode>, MetadataImage) {
    let acls = rules.iter().zip(first_id..).map(|(one, id)| rule(*one, id)).collect();
    match run(image, Command::CreateAcls(proto::CreateAcls { acls })) {
        (Reply::CreateAcls(reply), image) => {
            (reply.acls.iter().map(|acl| code(acl.error_code)).collect(), image)
        }
        other => panic!("{other:?}"),
    }
}

fn any() -> proto::AclFilter {
    proto::AclFilter { resource_type: 1, pattern_type: 1, operation: 1, permission: 1, ..Default::default() }
}

#[test]
fn rules_are_added_once_and_found_by_filters() {
    let mine = [
        (2, "topic", 3, "User:me", 3, 3),
        (2, "topic", 3, "User:me", 4, 2),
        (2, "to", 4, "User:me", 4, 3),
        (2, "*", 3, "User:me", 8, 3),
        (3, "topic", 3, "User:me", 3, 3),
        (4, "kafka-cluster", 3, "User:you", 5, 3),
    ];
    let (answers, image) = add_rules(&three(), &mine, 1);
    assert_eq!((answers, image.acls().len()), (vec![ErrorCode::None; 6], 6));
    assert_eq!(add_rules(&image, &mine, 100), (vec![ErrorCode::None; 6], image.clone()));
    let named = |pattern_type| proto::AclFilter {
        resource_type: 2,
        resource_name: Some("topic".to_owned()),
        pattern_type,
        ..any()
    };
    let count = |filter: &proto::AclFilter| image.acls().filtered(&acl_filter(filter).unwrap()).count();
    assert_eq!(count(&any()), 6);
    assert_eq!(count(&proto::AclFilter { principal: Some("User:you".to_owned()), ..any() }), 1);
    assert_eq!(count(&proto::AclFilter { permission: 2, ..any() }), 1);
    assert_eq!(count(&proto::AclFilter { operation: 3, ..any() }), 2);
    assert_eq!([count(&named(3)), count(&named(4)), count(&named(2)), count(&named(1))], [2, 0, 4, 2]);
    assert_eq!(
        acl_filter(&proto::AclFilter { operation: 99, ..any() }).unwrap_err().code,
        ErrorCode::InvalidRequest
    );
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let image = three();
    let bad = [
        (1, "t", 3, "User:x", 3, 3),
        (2, "", 3, "User:x", 3, 3),
        (2, "t", 1, "User:x", 3, 3),
        (2, "t", 2, "User:x", 3, 3),
        (2, "t", 3, "User:x", 1, 3),
        (2, "t", 3, "User:x", 3, 1),
        (4, "other-cluster", 3, "User:x", 5, 3),
        (2, "t", 3, "x", 3, 3),
        (2, "t", 3, "User:", 3, 3),
        (2, "t", 3, "User:x", 9, 3),
    ];
    for one in bad {
        assert_eq!(add_rules(&image, &[one], 1), (vec![ErrorCode::InvalidRequest], image.clone()), "{one:?}");
    }
}

#[test]
fn a_deletion_answers_what_went_and_removes_it_once() {
    let (_, image) = add_rules(&three(), &[(2, "a", 3, "User:x", 3, 3), (2, "b", 3, "User:x", 3, 3)], 1);
    let named = proto::AclFilter { resource_name: Some("a".to_owned()), pattern_type: 3, ..any() };
    let nobody = proto::AclFilter { principal: Some("User:no".to_owned()), ..any() };
    let filters = vec![named.clone(), nobody, named];
    let (Reply::DeleteAcls(reply), image) = run(&image, Command::DeleteAcls(proto::DeleteAcls { filters }))
    else {
        panic!()
    };
    let counts: Vec<_> = reply.filters.iter().map(|filter| filter.acls.len()).collect();
    assert_eq!((counts, image.acls().len()), (vec![1, 0, 1], 1));
    assert_eq!(Acl::from_record(&reply.filters[0].acls[0]).unwrap().resource_name, "a");
}

fn upsertion(user: &str, mechanism: i32, iterations: i32) -> proto::ScramUpsertion {
    let bytes = if mechanism == 2 { 64 } else { 32 };
    proto::ScramUpsertion {
        user: user.to_owned(),
        mechanism,
        salt: vec![1; 4].into(),
        stored_key: vec![2; bytes].into(),
        server_key: vec![3; bytes].into(),
        iterations,
    }
}

fn scram(
    image: &MetadataImage,
    upserted: &[(&str, i32, i32)],
    deleted: &[(&str, i32)],
) -> (Vec<(String, ErrorCode)>, MetadataImage) {
    let command = proto::AlterScramCredentials {
        upsertions: upserted.iter().map(|(user, mechanism, n)| upsertion(user, *mechanism, *n)).collect(),
        deletions: deleted
            .iter()
            .map(|(user, mechanism)| records::RemoveScramCredentialRecord {
                user: (*user).to_owned(),
                mechanism: *mechanism,
            })
            .collect(),
    };
    match run(image, Command::AlterScramCredentials(command)) {
        (Reply::AlterScramCredentials(reply), image) => {
            (reply.users.into_iter().map(|user| (user.user, code(user.error_code))).collect(), image)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn scram_credentials_are_set_described_and_deleted() {
    let none =
        |users: &[&str]| users.iter().map(|user| ((*user).to_owned(), ErrorCode::None)).collect::<Vec<_>>();
    let (answers, image) = scram(&three(), &[("a", 1, 4096), ("b", 2, 16384)], &[]);
    assert_eq!(answers, none(&["a", "b"]));
    let (_, image) = scram(&image, &[("a", 2, 8192)], &[]);
    let described = describe_scram_users(&image, &["a", "x", "a"]);
    let errors: Vec<_> = described.iter().map(|user| user.error).collect();
    assert_eq!(errors, [ErrorCode::DuplicateResource, ErrorCode::ResourceNotFound]);
    let all = describe_scram_users(&image, &[]);
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].credentials, [(ScramMechanism::Sha256, 4096), (ScramMechanism::Sha512, 8192)]);
    let (answers, image) = scram(&image, &[], &[("a", 1), ("a", 2), ("b", 2)]);
    assert_eq!((answers, image.scram_credentials().count()), (none(&["a", "b"]), 0));
}

#[test]
fn scram_changes_that_cannot_be_are_refused_user_by_user() {
    let image = three();
    for ((user, mechanism, iterations), error) in [
        (("u", 1, 4095), ErrorCode::UnacceptableCredential),
        (("u", 1, 16385), ErrorCode::UnacceptableCredential),
        (("u", 3, 4096), ErrorCode::UnsupportedSaslMechanism),
        (("u", 0, 4096), ErrorCode::UnsupportedSaslMechanism),
        (("", 1, 4096), ErrorCode::UnacceptableCredential),
    ] {
        let (answers, same) = scram(&image, &[(user, mechanism, iterations)], &[]);
        assert_eq!((answers, &same), (vec![(user.to_owned(), error)], &image));
    }
    let (answers, _) = scram(&image, &[("u", 1, 4096), ("u", 1, 4096)], &[("v", 1)]);
    let wanted =
        [("u".to_owned(), ErrorCode::DuplicateResource), ("v".to_owned(), ErrorCode::ResourceNotFound)];
    assert_eq!(answers, wanted);
    let (answers, image) = scram(&image, &[("u", 1, 4096), ("w", 1, 4096)], &[("u", 2)]);
    assert_eq!((answers[0].1, answers[1].1), (ErrorCode::ResourceNotFound, ErrorCode::None));
    assert_eq!(image.scram_credentials().count(), 1);
}

fn user(name: &str) -> records::Principal {
    records::Principal { r#type: "User".to_owned(), name: name.to_owned() }
}

fn token(
    image: &MetadataImage,
    command: Command,
) -> Result<(proto::DelegationTokenReply, MetadataImage), ErrorCode> {
    let properties = properties(&[("delegation.token.secret.key", "secret")]);
    match decide_with(image, &properties, command) {
        Ok(Decision { reply: Reply::DelegationToken(reply), records }) => Ok((reply, after(image, &records))),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

fn creation() -> proto::CreateDelegationToken {
    proto::CreateDelegationToken {
        token_id: "id".to_owned(),
        owner: None,
        requester: Some(user("alice")),
        renewers: vec![user("bob")],
        lifetime_ms: -1,
        now_ms: 1_000,
    }
}

const DAY_MS: i64 = 86_400_000;

#[test]
fn a_token_lives_is_renewed_and_ends() {
    let (reply, image) = token(&three(), Command::CreateDelegationToken(creation())).unwrap();
    assert_eq!((reply.issue_ms, reply.expiry_ms, reply.max_ms), (1_000, 1_000 + DAY_MS, 1_000 + 7 * DAY_MS));
    let renew = |image: &MetadataImage, who: &str, renew_period_ms, now_ms| {
        let command = proto::RenewDelegationToken {
            token_id: "id".to_owned(),
            requester: Some(user(who)),
            renew_period_ms,
            now_ms,
        };
        token(image, Command::RenewDelegationToken(command))
    };
    let (reply, image) = renew(&image, "bob", -1, 5_000).unwrap();
    assert_eq!(reply.expiry_ms, 5_000 + DAY_MS);
    assert_eq!(renew(&image, "alice", 100 * DAY_MS, 5_000).unwrap().0.expiry_ms, 1_000 + 7 * DAY_MS);
    assert_eq!(renew(&image, "mallory", -1, 5_000).unwrap_err(), ErrorCode::DelegationTokenOwnerMismatch);
    assert_eq!(renew(&image, "alice", -1, 6_000 + DAY_MS).unwrap_err(), ErrorCode::DelegationTokenExpired);
    let expire = |image: &MetadataImage, token_id: &str, who: &str, expiry_period_ms| {
        let command = proto::ExpireDelegationToken {
            token_id: token_id.to_owned(),
            requester: Some(user(who)),
            expiry_period_ms,
            now_ms: 6_000,
        };
        token(image, Command::ExpireDelegationToken(command))
    };
    assert_eq!(expire(&image, "no", "alice", -1).unwrap_err(), ErrorCode::DelegationTokenNotFound);
    assert_eq!(expire(&image, "id", "eve", -1).unwrap_err(), ErrorCode::DelegationTokenOwnerMismatch);
    let (reply, soon) = expire(&image, "id", "alice", 10).unwrap();
    assert_eq!((reply.expiry_ms, soon.delegation_token("id").unwrap().expiry_ms), (6_010, 6_010));
    let alice = [Principal { kind: "User".to_owned(), name: "alice".to_owned() }];
    let seen = |image: &MetadataImage, now_ms| {
        describe_delegation_tokens(image, Some(&alice), now_ms, |_| true).count()
    };
    assert_eq!([seen(&soon, 6_000), seen(&soon, 7_000)], [1, 0]);
    let none = BTreeMap::new();
    let situation = Situation { image: &soon, properties: &none, seed: 1 };
    assert!(sweep_delegation_tokens(situation, 6_010).is_empty());
    let swept = after(&soon, &sweep_delegation_tokens(situation, 6_011));
    assert!(swept.delegation_token("id").is_none());
    let (reply, gone) = expire(&image, "id", "bob", -1).unwrap();
    assert_eq!((reply.expiry_ms, gone.delegation_token("id")), (6_000, None));
}

#[test]
fn tokens_that_cannot_be_are_refused() {
    let image = three();
    let refused =
        decide_with(&image, &BTreeMap::new(), Command::CreateDelegationToken(creation())).unwrap_err();
    assert_eq!(refused.code, ErrorCode::DelegationTokenAuthDisabled);
    let group = records::Principal { r#type: "Group".to_owned(), name: "g".to_owned() };
    let command = proto::CreateDelegationToken { renewers: vec![group], ..creation() };
    assert_eq!(
        token(&image, Command::CreateDelegationToken(command)).unwrap_err(),
        ErrorCode::InvalidPrincipalType
    );
    let (reply, image) = token(
        &image,
        Command::CreateDelegationToken(proto::CreateDelegationToken { lifetime_ms: 500, ..creation() }),
    )
    .unwrap();
    assert_eq!((reply.expiry_ms, reply.max_ms), (1_500, 1_500));
    assert_eq!(
        token(&image, Command::CreateDelegationToken(creation())).unwrap_err(),
        ErrorCode::InvalidRequest
    );
}

#[test]
fn a_snapshot_carries_all_of_it() {
    let image = EIGHT.iter().fold(three(), |image, entity| limited(&image, entity, 5.0));
    let (_, image) = quota(&image, &[("ip", None)], &[("connection_creation_rate", Some(3.0))], false);
    let (_, image) = add_rules(&image, &[(2, "a", 3, "User:x", 3, 3), (3, "b", 4, "User:*", 2, 2)], 1);
    let (_, image) = scram(&image, &[("a", 1, 4096), ("a", 2, 4096)], &[]);
    let (_, image) = token(&image, Command::CreateDelegationToken(creation())).unwrap();
    let completed = records::CompletedCommandRecord {
        command_id: vec![7; 16].into(),
        reply: vec![1, 2].into(),
        index: 0,
    };
    let image = after(&image, &[record(Record::CompletedCommand(completed))]);
    assert_eq!(image.completed_command(&[7; 16]).unwrap().index, image.index());
    let (all, brokers) = image.to_records();
    let later = LogIndex(image.index().0 + 5);
    let restored = MetadataImage::from_records(later, &all, &brokers).unwrap();
    let same = restored.apply(LogIndex(later.0 + 1), &[]).unwrap().0;
    assert_eq!(same.to_records(), image.to_records());
    assert_eq!(restored.acls(), image.acls());
    assert_eq!(restored.client_quotas(), image.client_quotas());
    assert_eq!(restored.completed_command(&[7; 16]), image.completed_command(&[7; 16]));
}

#[test]
fn only_the_newest_commands_are_remembered() {
    let mut image = three();
    for id in 0..=crate::COMPLETED_COMMANDS_MAX {
        let command_id = id.to_be_bytes().to_vec().into();
        let completed = records::CompletedCommandRecord { command_id, ..Default::default() };
        image = after(&image, &[record(Record::CompletedCommand(completed))]);
    }
    assert!(image.completed_command(&0usize.to_be_bytes()).is_none());
    assert!(image.completed_command(&1usize.to_be_bytes()).is_some());
}
