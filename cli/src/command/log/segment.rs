//! Segments: batches, their checksums, their order; records if wanted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use ottla_wire::records::{Batch, BatchHeader, TimestampType};
use serde::Serialize;
use serde_json::Value;

use crate::client::records::Consumed;

/// Bytes of a batch header.
const HEADER_BYTES: usize = ottla_wire::records::batch::HEADER_BYTES;
/// Larger batches are not read: none is written.
const BATCH_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Plain bytes of a compressed batch whose records are looked at.
const PLAIN_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A batch.
#[derive(Debug, Serialize)]
pub(super) struct BatchEntry {
    position: u64,
    size_bytes: usize,
    base_offset: i64,
    last_offset: i64,
    record_count: i32,
    leader_epoch: i32,
    max_timestamp_ms: i64,
    timestamp_type: &'static str,
    compression: &'static str,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    transactional: bool,
    control: bool,
    crc: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<Vec<Value>>,
}

impl BatchEntry {
    fn new(position: u64, header: &BatchHeader) -> Self {
        Self {
            position,
            size_bytes: header.total_length(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            record_count: header.record_count,
            leader_epoch: header.partition_leader_epoch,
            max_timestamp_ms: header.max_timestamp,
            timestamp_type: match header.timestamp_type() {
                TimestampType::CreateTime => "CreateTime",
                TimestampType::LogAppendTime => "LogAppendTime",
            },
            compression: header.codec().map_or("unknown", ottla_wire::compression::Codec::name),
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            transactional: header.is_transactional(),
            control: header.is_control(),
            crc: header.crc,
            records: None,
        }
    }

    /// One line, and one for each record.
    pub(super) fn write(&self, text: &mut String) {
        let mut flags = String::new();
        if self.transactional {
            flags.push_str(" transactional");
        }
        if self.control {
            flags.push_str(" control");
        }
        if self.producer_id >= 0 {
            flags.extend([format!(
                " producer {} epoch {} sequence {}",
                self.producer_id, self.producer_epoch, self.base_sequence
            )]);
        }
        text.extend([format!(
            "  @{} offsets {}..={} ({} records, {} bytes) leader epoch {} {} {} {}{flags}\n",
            self.position,
            self.base_offset,
            self.last_offset,
            self.record_count,
            self.size_bytes,
            self.leader_epoch,
            self.timestamp_type,
            self.max_timestamp_ms,
            self.compression,
        )]);
        for record in self.records.iter().flatten() {
            text.extend([format!("    {record}\n")]);
        }
    }
}

/// Reads a segment to its end, or to where it cannot be understood any further.
pub(super) fn read(
    path: &Path,
    with_records: bool,
    problems: &mut Vec<String>,
) -> anyhow::Result<Vec<BatchEntry>> {
    let context = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let size = file.metadata().with_context(context)?.len();
    let base = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<i64>().ok());
    let mut next_offset = base.unwrap_or(0);
    let mut batches = Vec::new();
    let mut position = 0;
    while position < size {
        let mut bytes = [0; HEADER_BYTES];
        let left = size - position;
        if left < HEADER_BYTES as u64 {
            problems.push(format!("at {position}: {left} bytes are left, too few for a batch: a torn write"));
            break;
        }
        file.read_exact_at(&mut bytes, position).with_context(context)?;
        let header = match BatchHeader::parse(&bytes) {
            Ok(header) => header,
            Err(error) => {
                problems.push(format!("at {position}: no batch begins here: {error}"));
                break;
            }
        };
        let length = header.total_length();
        if length as u64 > left || length > BATCH_BYTES_MAX {
            problems
                .push(format!("at {position}: the batch says {length} bytes, {left} are left: a torn write"));
            break;
        }
        if header.base_offset < next_offset {
            let found = header.base_offset;
            problems.push(format!("at {position}: offset {found} where at least {next_offset} must be"));
        }
        next_offset = next_offset.max(header.next_offset());
        let mut whole = vec![0; length];
        file.read_exact_at(&mut whole, position).with_context(context)?;
        let mut entry = BatchEntry::new(position, &header);
        match Batch::parse(&Bytes::from(whole)) {
            Ok(batch) => match batch.verify_crc() {
                Ok(()) if with_records => entry.records = Some(records(&batch, position, problems)),
                Ok(()) => {}
                Err(error) => problems.push(format!("at {position}: offset {}: {error}", header.base_offset)),
            },
            Err(error) => problems.push(format!("at {position}: {error}")),
        }
        batches.push(entry);
        position += length as u64;
    }
    Ok(batches)
}

fn records(batch: &Batch, position: u64, problems: &mut Vec<String>) -> Vec<Value> {
    let mut shown = Vec::new();
    let mut wrong = |reason: String| problems.push(format!("at {position}: {reason}"));
    let records = match batch.records_limited(PLAIN_BYTES_MAX) {
        Ok(records) => records,
        Err(error) => {
            wrong(error.to_string());
            return shown;
        }
    };
    for record in records {
        match record {
            Ok(record) => {
                let record = Consumed {
                    topic: "".into(),
                    partition: 0,
                    offset: record.offset,
                    timestamp_ms: record.timestamp,
                    key: record.key,
                    value: record.value,
                    headers: record.headers.into_iter().map(|header| (header.key, header.value)).collect(),
                };
                let mut json = record.to_json();
                if let Some(fields) = json.as_object_mut() {
                    // Not known from the file.
                    fields.shift_remove("topic");
                    fields.shift_remove("partition");
                }
                shown.push(json);
            }
            Err(error) => wrong(error.to_string()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_wire::records::{BatchBuilder, BatchOptions};

    fn batch(base_offset: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions { base_offset, ..BatchOptions::default() });
        builder.add(5, Some(b"k"), Some(b"v"), &[]).unwrap();
        builder.finish().unwrap().to_vec()
    }

    fn dump(bytes: &[u8]) -> (Vec<BatchEntry>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("00000000000000000000.log");
        std::fs::write(&path, bytes).unwrap();
        let mut problems = Vec::new();
        let batches = read(&path, true, &mut problems).unwrap();
        (batches, problems)
    }

    #[test]
    fn a_sound_segment_is_shown_with_its_records() {
        let (batches, problems) = dump(&[batch(0), batch(1)].concat());
        assert_eq!(problems, Vec::<String>::new());
        let json = serde_json::to_value(&batches).unwrap();
        assert_eq!(
            (json[1]["base_offset"].as_i64(), json[1]["compression"].as_str()),
            (Some(1), Some("none"))
        );
        assert_eq!(
            json[0]["records"][0].to_string(),
            "{\"offset\":0,\"timestamp_ms\":5,\"key\":\"k\",\"value\":\"v\",\"headers\":[]}"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let mut flipped = [batch(0), batch(1)].concat();
        let length = batch(0).len();
        flipped[length - 1] ^= 1;
        let (batches, problems) = dump(&flipped);
        assert_eq!(batches.len(), 2);
        assert!(problems[0].starts_with("at 0: offset 0:"), "{problems:?}");

        let torn = &[batch(0), batch(1)].concat()[..length + 65];
        let (batches, problems) = dump(torn);
        assert_eq!(batches.len(), 1);
        assert!(problems[0].contains("a torn write"), "{problems:?}");

        let (_, problems) = dump(&[batch(5), batch(3)].concat());
        assert!(problems[0].contains("offset 3 where at least 6 must be"), "{problems:?}");
        let (_, problems) = dump(&[0; 100]);
        assert_eq!(problems.len(), 1);
    }
}
