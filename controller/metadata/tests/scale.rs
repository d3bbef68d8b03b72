//! What a cluster of 100,000 partitions costs: loading its image, and changing one thing of it.
//!
//! Times on a processor are printed (Linux): `cargo test --release -p ottla-metadata --test scale -- --ignored --nocapture`. A debug build is
//! given ten times as long.

#![allow(clippy::unwrap_used, reason = "a test stops where its ground is gone")]

use std::time::Duration;

use ottla_metadata::image::{LogIndex, MetadataImage};
use ottla_proto::controller::SnapshotChunk;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{
    ConfigRecord, Endpoint, MetadataRecord, PartitionRecord, RegisterBrokerRecord, ResourceType, TopicRecord,
};
use prost::Message;
use uuid::Uuid;

const PARTITIONS: u32 = 100_000;
const BROKERS: i32 = 9;
/// A snapshot of this many partitions is an image within this time.
const LOAD_MAX: Duration = Duration::from_secs(3);
/// An entry that changes one thing is applied within this time.
const ENTRY_MAX: Duration = Duration::from_millis(1);
const SLOWNESS: u32 = if cfg!(debug_assertions) { 10 } else { 1 };

/// Time of this thread on a processor: the machine may be busy with other things.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn record(record: Record) -> MetadataRecord {
    MetadataRecord { record: Some(record) }
}

fn id(number: u32) -> bytes::Bytes {
    // Bits of topic ids are spread as those of random ones are.
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    bytes::Bytes::copy_from_slice(Uuid::from_u128(spread).as_bytes())
}

fn partition(topic: u32, partition: i32, epoch: i32) -> MetadataRecord {
    let first = (partition + i32::try_from(topic % 9).unwrap()) % BROKERS;
    let replicas: Vec<i32> = (0..3).map(|step| 1 + (first + step) % BROKERS).collect();
    record(Record::Partition(PartitionRecord {
        topic_id: id(topic),
        partition,
        isr: replicas.clone(),
        leader: replicas[0],
        directories: (0..3).map(id).collect(),
        replicas,
        partition_epoch: epoch,
        ..Default::default()
    }))
}

/// Every topic has a config of its own, as with a tool that sets retention.
fn records(topics: u32) -> Vec<MetadataRecord> {
    let mut all: Vec<_> = (1..=BROKERS)
        .map(|broker_id| {
            let endpoints =
                vec![Endpoint { name: "PLAINTEXT".into(), host: "h".into(), port: 1, ..Default::default() }];
            let incarnation_id = id(broker_id.unsigned_abs());
            let broker = RegisterBrokerRecord { broker_id, incarnation_id, endpoints, ..Default::default() };
            record(Record::RegisterBroker(broker))
        })
        .collect();
    for topic in 0..topics {
        all.push(record(Record::Topic(TopicRecord { topic_id: id(topic), name: format!("topic-{topic}") })));
        let count = i32::try_from(PARTITIONS / topics).unwrap();
        all.extend((0..count).map(|at| partition(topic, at, 0)));
        all.push(config(topic, "86400000"));
    }
    all
}

fn config(topic: u32, value: &str) -> MetadataRecord {
    record(Record::Config(ConfigRecord {
        resource_type: ResourceType::Topic.into(),
        resource_name: format!("topic-{topic}"),
        name: "retention.ms".into(),
        value: Some(value.to_owned()),
    }))
}

/// The mean time of one entry, of many that each change something else.
fn per_entry(image: &MetadataImage, count: u32, of: impl Fn(u32) -> Vec<MetadataRecord>) -> Duration {
    let entries: Vec<_> = (0..count).map(of).collect();
    let mut image = image.clone();
    let started = cpu();
    for (index, records) in (image.index().0 + 1..).zip(&entries) {
        // The one before is alive, as readers hold it.
        image = image.apply(LogIndex(index), records).unwrap().0;
    }
    cpu().saturating_sub(started) / count
}

fn measure(topics: u32) {
    let whole = records(topics);
    let chunks: Vec<Vec<u8>> = whole
        .chunks(1_000)
        .map(|part| SnapshotChunk { records: part.to_vec(), ..Default::default() }.encode_to_vec())
        .collect();
    let bytes: usize = chunks.iter().map(Vec::len).sum();
    let started = cpu();
    let decoded: Vec<_> =
        chunks.iter().flat_map(|chunk| SnapshotChunk::decode(&chunk[..]).unwrap().records).collect();
    let decoding = cpu().saturating_sub(started);
    let image = MetadataImage::from_records(LogIndex(10), &decoded, &[]).unwrap();
    let loading = cpu().saturating_sub(started);
    assert_eq!(image.topic_count(), usize::try_from(topics).unwrap());
    let started = cpu();
    let written = image.to_records().0;
    let writing = cpu().saturating_sub(started);
    assert_eq!(written.len(), whole.len());
    let one =
        per_entry(&image, 1_000, |n| vec![partition(n * 97 % topics, 0, i32::try_from(n).unwrap() + 1)]);
    let set = per_entry(&image, 1_000, |n| vec![config(n * 97 % topics, &n.to_string())]);
    let made = per_entry(&image, 1_000, |n| {
        let topic = PARTITIONS + n;
        let name = format!("topic-{topic}");
        vec![
            record(Record::Topic(TopicRecord { topic_id: id(topic), name })),
            partition(topic, 0, 0),
            config(topic, "1"),
        ]
    });
    println!(
        "{topics} topics of {} partitions, {bytes} bytes: decoded in {decoding:?}, loaded in {loading:?}, written in \
         {writing:?}; one entry: partition {one:?}, config {set:?}, new topic {made:?}",
        PARTITIONS / topics
    );
    assert!(loading < LOAD_MAX * SLOWNESS, "loaded in {loading:?}");
    for (what, took) in [("partition", one), ("config", set), ("new topic", made)] {
        assert!(took < ENTRY_MAX * SLOWNESS, "an entry that changes one {what} took {took:?}");
    }
}

#[test]
#[ignore = "prints times: run it alone"]
fn a_hundred_thousand_partitions_load_fast_and_change_for_little() {
    for topics in [100_000, 10_000, 1_000, 10] {
        measure(topics);
    }
}
