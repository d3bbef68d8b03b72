//! Speed of validating and building batches: `cargo bench -p ottla-wire --bench records`.

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use ottla_wire::compression::Codec;
use ottla_wire::records::{Batch, BatchBuilder, BatchOptions, ProduceRules, validate_produce, verify_crc};

const RECORDS: usize = 1000;
const VALUE_BYTES: usize = 1024;

fn main() {
    divan::main();
}

fn rules() -> ProduceRules {
    ProduceRules { max_message_bytes: usize::MAX, ..ProduceRules::default() }
}

fn value() -> Vec<u8> {
    (0..VALUE_BYTES).map(|at| b"event-stream "[at * at % 13]).collect()
}

fn built(codec: Codec, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
    for _ in 0..RECORDS {
        builder.add(0, Some(b"key"), Some(value), &[]).expect("a record that fits");
    }
    builder.finish().expect("a batch that fits")
}

#[divan::bench(args = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd])]
fn validate(bencher: Bencher, codec: Codec) {
    let batch = built(codec, &value());
    bencher.counter(BytesCount::new(RECORDS * VALUE_BYTES)).bench(|| validate_produce(&batch, &rules()));
}

#[divan::bench]
fn checksum(bencher: Bencher) {
    let batch = built(Codec::None, &value());
    bencher.counter(BytesCount::new(batch.len())).bench(|| verify_crc(&batch));
}

#[divan::bench(args = [Codec::None, Codec::Lz4, Codec::Zstd])]
fn build(bencher: Bencher, codec: Codec) {
    let value = value();
    bencher.counter(BytesCount::new(RECORDS * VALUE_BYTES)).bench(|| built(codec, &value));
}

#[divan::bench(args = [Codec::None, Codec::Lz4])]
fn iterate(bencher: Bencher, codec: Codec) {
    let batch = Batch::parse(&built(codec, &value())).expect("a batch");
    bencher
        .counter(BytesCount::new(RECORDS * VALUE_BYTES))
        .bench(|| batch.records().expect("records").flatten().count());
}
