//! Record batches in every codec: what a producer may send is judged and stored, at most as large as allowed, and what was
//! stored can be read. The first byte chooses what the records are, the second what the topic wants of them.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla_wire::compression::{self, Codec};
use ottla_wire::records::validate::{ProduceRules, TargetCompression, validate_produce};
use ottla_wire::records::{
    Batch, BatchBuilder, BatchHeader, BatchOptions, HEADER_BYTES, TimestampType, checksum, set_base_offset,
};

/// Bytes that the records of one batch may take when decompressed.
const RECORDS_BYTES_MAX: u64 = 1 << 20;
/// Where the checksum lies in a header, and what it covers.
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn codec(choice: u8) -> Codec {
    CODECS[usize::from(choice) % CODECS.len()]
}

fn rules(choice: u8) -> ProduceRules {
    let compression = match choice % 8 {
        0..=2 => TargetCompression::Producer,
        other => TargetCompression::Codec(codec(other), None),
    };
    let timestamp_type =
        if choice & 0x10 == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime };
    ProduceRules {
        compression,
        timestamp_type,
        keys_required: choice & 0x20 != 0,
        decompressed_bytes_max: RECORDS_BYTES_MAX,
        ..ProduceRules::default()
    }
}

/// A batch of which the records are these bytes, whatever they are, with a right checksum.
fn around(header: &BatchHeader, records: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(records);
    let length = i32::try_from(bytes.len() - 12).expect("inputs are small");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = checksum(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn built(codec: Codec, data: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
    for record in data.chunks(40) {
        let (key, value) = record.split_at(record.len() / 3);
        builder.add(1, Some(key), Some(value), &[(b"h", Some(value))]).expect("small records");
    }
    builder.finish().expect("a batch of small records")
}

fuzz_target!(|data: &[u8]| {
    let [how, wanted, rest @ ..] = data else { return };
    if rest.is_empty() {
        return;
    }
    let codec = codec(*how);
    let batch = match how % 3 {
        // Compressed bytes that nobody has made.
        0 => {
            let mut header = BatchHeader::parse(&built(codec, b"x")[..HEADER_BYTES]).expect("a whole header");
            header.record_count = i32::from(how >> 4) + 1;
            header.last_offset_delta = header.record_count - 1;
            around(&header, rest)
        }
        // Records that nobody has made, in a sound codec.
        1 => {
            let Ok(records) = compression::compress(codec, None, rest) else { return };
            let mut header = BatchHeader::parse(&built(codec, b"x")[..HEADER_BYTES]).expect("a whole header");
            header.record_count = i32::from(how >> 4) + 1;
            header.last_offset_delta = header.record_count - 1;
            around(&header, &records)
        }
        _ => built(codec, rest).to_vec(),
    };
    let rules = rules(*wanted);
    let batch = Bytes::from(batch);
    let Ok(valid) = validate_produce(&batch, &rules) else {
        // What the validator refuses may still be read from a disk.
        if let Ok(parsed) = Batch::parse(&batch)
            && let Ok(records) = parsed.records_limited(RECORDS_BYTES_MAX)
        {
            let _ = records.take_while(Result::is_ok).count();
        }
        return;
    };
    let Ok(mut stored) = valid.store(batch, &rules) else { return };
    set_base_offset(&mut stored, 17);
    let parsed = Batch::parse(&stored.freeze()).expect("what is stored has a sound header");
    parsed.verify_crc().expect("what is stored has a right checksum");
    let records = parsed.records_limited(RECORDS_BYTES_MAX * 2).expect("what is stored can be read");
    let mut next = 17;
    for record in records {
        let record = record.expect("what was judged valid can be read");
        assert_eq!(record.offset, next);
        next += 1;
    }
    assert_eq!(next, parsed.header.next_offset());
});
