//! Time of one decision among many rules: `cargo bench -p ottla-metadata --bench authorizer`. The aim: under 200 ns at 10,000 rules.

use divan::Bencher;
use ottla_metadata::acl::{
    Acl, AclOperation, AclResourceType, Action, Authorizer, AuthorizerOptions, PatternType, Permission,
};
use ottla_metadata::image::{LogIndex, MetadataImage};
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use uuid::Uuid;

fn main() {
    divan::main();
}

/// Half literal, half prefixed, of 500 users; some deny.
fn rules(count: u32) -> MetadataImage {
    let record = |at: u32| {
        let acl = Acl {
            resource_type: AclResourceType::Topic,
            resource_name: format!("topic-{at}"),
            pattern_type: if at.is_multiple_of(2) { PatternType::Literal } else { PatternType::Prefixed },
            principal: format!("User:user-{}", at % 500),
            host: "*".to_owned(),
            operation: AclOperation::Read,
            permission: if at % 50 == 49 { Permission::Deny } else { Permission::Allow },
        };
        MetadataRecord { record: Some(Record::Acl(acl.to_record(Uuid::from_u128(u128::from(at) + 1)))) }
    };
    let records: Vec<MetadataRecord> = (0..count).map(record).collect();
    MetadataImage::default().apply(LogIndex(0), &records).expect("rules that apply").0
}

fn decide(bencher: Bencher<'_, '_>, count: u32, principal: &str, topic: &str) {
    let (image, options) = (rules(count), AuthorizerOptions::default());
    let authorizer = Authorizer::new(&options, image.acls());
    bencher.bench_local(|| {
        authorizer.is_allowed(divan::black_box(Action {
            principal,
            host: "10.0.0.1",
            operation: AclOperation::Read,
            resource_type: AclResourceType::Topic,
            resource_name: topic,
        }))
    });
}

const COUNTS: [u32; 3] = [100, 1_000, 10_000];

#[divan::bench(args = COUNTS)]
fn allowed_by_name(bencher: Bencher<'_, '_>, count: u32) {
    decide(bencher, count, "User:user-6", "topic-6");
}

#[divan::bench(args = COUNTS)]
fn allowed_by_the_beginning_of_a_name(bencher: Bencher<'_, '_>, count: u32) {
    decide(bencher, count, "User:user-7", "topic-7-of-many");
}

#[divan::bench(args = COUNTS)]
fn refused(bencher: Bencher<'_, '_>, count: u32) {
    decide(bencher, count, "User:user-8", "topic-7");
}
