//! Everything beside segments: caches that cost time when they are gone, never data.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use ottla_log::index::{Entry as _, Position, Time};
use ottla_wire::records::BatchHeader;
use serde::Serialize;

/// Bytes of an aborted transaction: version, producer id, first, last and last stable offset.
const ABORTED_BYTES: usize = 2 + 4 * 8;
/// Larger files are none of these.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// An entry of an index or snapshot.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub(super) enum Entry {
    Position {
        offset: i64,
        position: u32,
    },
    Time {
        timestamp_ms: i64,
        offset: i64,
    },
    Aborted {
        producer_id: i64,
        first_offset: i64,
        last_offset: i64,
        last_stable_offset: i64,
    },
    Producer {
        producer_id: i64,
        epoch: i16,
        last_sequence: i32,
        last_offset: i64,
        transaction_start: Option<i64>,
    },
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position { offset, position } => write!(f, "offset {offset} @{position}"),
            Self::Time { timestamp_ms, offset } => write!(f, "timestamp {timestamp_ms} offset {offset}"),
            Self::Aborted { producer_id, first_offset, last_offset, last_stable_offset } => {
                write!(
                    f,
                    "aborted: producer {producer_id} offsets {first_offset}..={last_offset} last stable {last_stable_offset}"
                )
            }
            Self::Producer { producer_id, epoch, last_sequence, last_offset, transaction_start } => {
                write!(
                    f,
                    "producer {producer_id} epoch {epoch} last sequence {last_sequence} last offset {last_offset}"
                )?;
                transaction_start.map_or(Ok(()), |start| write!(f, " transaction open since {start}"))
            }
        }
    }
}

fn whole(path: &Path) -> anyhow::Result<Vec<u8>> {
    let context = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(context)?.len();
    anyhow::ensure!(size <= FILE_BYTES_MAX, "{} is larger than such a file can be", path.display());
    std::fs::read(path).with_context(context)
}

fn base_offset(path: &Path) -> i64 {
    path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).unwrap_or(0)
}

/// Whole entries; room that Kafka reserves at the end of a file that is written to is zero.
fn chunks<'a>(
    bytes: &'a [u8],
    size: usize,
    problems: &mut Vec<String>,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    if !bytes.len().is_multiple_of(size) {
        problems.push(format!("{} bytes are no whole number of entries of {size}", bytes.len()));
    }
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / size + 1);
    bytes.chunks_exact(size).take(used)
}

/// `.index`; checked against its segment, if that is there.
pub(super) fn offset_index(path: &Path, problems: &mut Vec<String>) -> anyhow::Result<Vec<Entry>> {
    let bytes = whole(path)?;
    let base = base_offset(path);
    let segment = File::open(path.with_extension("log")).ok();
    let mut entries = Vec::new();
    let mut last: Option<Position> = None;
    for chunk in chunks(&bytes, Position::BYTES, problems) {
        let entry = Position::read(chunk);
        let offset = base.saturating_add(i64::from(entry.relative_offset));
        if last.is_some_and(|last| {
            entry.relative_offset <= last.relative_offset || entry.position <= last.position
        }) {
            problems.push(format!("offset {offset} @{} does not rise", entry.position));
        }
        if let Some(segment) = &segment {
            check_position(segment, offset, entry.position, problems);
        }
        last = Some(entry);
        entries.push(Entry::Position { offset, position: entry.position });
    }
    Ok(entries)
}

fn check_position(segment: &File, offset: i64, position: u32, problems: &mut Vec<String>) {
    let mut bytes = [0; ottla_wire::records::batch::HEADER_BYTES];
    if segment.read_exact_at(&mut bytes, u64::from(position)).is_err() {
        problems.push(format!("offset {offset} @{position} points behind the end of the segment"));
        return;
    }
    match BatchHeader::parse(&bytes) {
        Ok(header) if (header.base_offset..=header.last_offset()).contains(&offset) => {}
        Ok(header) => {
            let (first, last) = (header.base_offset, header.last_offset());
            problems.push(format!("offset {offset} @{position} points at the batch {first}..={last}"));
        }
        Err(_) => problems.push(format!("offset {offset} @{position} points at no batch")),
    }
}

/// `.timeindex`.
pub(super) fn time_index(path: &Path, problems: &mut Vec<String>) -> anyhow::Result<Vec<Entry>> {
    let bytes = whole(path)?;
    let base = base_offset(path);
    let mut entries = Vec::new();
    let mut last: Option<Time> = None;
    for chunk in chunks(&bytes, Time::BYTES, problems) {
        let entry = Time::read(chunk);
        let offset = base.saturating_add(i64::from(entry.relative_offset));
        if last.is_some_and(|last| {
            entry.timestamp < last.timestamp || entry.relative_offset < last.relative_offset
        }) {
            problems.push(format!("timestamp {} offset {offset} does not rise", entry.timestamp));
        }
        last = Some(entry);
        entries.push(Entry::Time { timestamp_ms: entry.timestamp, offset });
    }
    Ok(entries)
}

/// `.txnindex`.
pub(super) fn transaction_index(path: &Path, problems: &mut Vec<String>) -> anyhow::Result<Vec<Entry>> {
    let bytes = whole(path)?;
    let number = |entry: &[u8], at: usize| {
        entry.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_be_bytes)
    };
    let mut entries = Vec::new();
    if !bytes.len().is_multiple_of(ABORTED_BYTES) {
        problems.push(format!("{} bytes are no whole number of entries of {ABORTED_BYTES}", bytes.len()));
    }
    for chunk in bytes.chunks_exact(ABORTED_BYTES) {
        if chunk[..2] != [0, 0] {
            problems.push(format!(
                "an entry has the version {}, known is 0",
                i16::from_be_bytes([chunk[0], chunk[1]])
            ));
        }
        entries.push(Entry::Aborted {
            producer_id: number(chunk, 2),
            first_offset: number(chunk, 10),
            last_offset: number(chunk, 18),
            last_stable_offset: number(chunk, 26),
        });
    }
    Ok(entries)
}

/// `.snapshot`.
pub(super) fn snapshot(path: &Path, problems: &mut Vec<String>) -> Vec<Entry> {
    let state = match ottla_log::snapshot::read(path) {
        Ok(state) => state,
        Err(error) => {
            problems.push(error.to_string());
            return Vec::new();
        }
    };
    let entry = |(producer_id, producer): (i64, &ottla_log::producer_state::Producer)| Entry::Producer {
        producer_id,
        epoch: producer.epoch,
        last_sequence: producer.batches.back().map_or(-1, |batch| batch.last_sequence),
        last_offset: producer.batches.back().map_or(-1, |batch| batch.last_offset),
        transaction_start: producer.transaction_start,
    };
    state.producers().map(entry).collect()
}

/// A checkpoint: version, count, and so many lines that end in a number.
pub(super) fn checkpoint(path: &Path, problems: &mut Vec<String>) -> anyhow::Result<Vec<String>> {
    let lines = text(path)?;
    match lines.as_slice() {
        [version, count, entries @ ..] => {
            if version != "0" {
                problems.push(format!("version {version}, known is 0"));
            }
            if count.parse() != Ok(entries.len()) {
                problems.push(format!("{count} entries are told, {} are there", entries.len()));
            }
            for line in entries {
                if line.rsplit(' ').next().is_none_or(|offset| offset.parse::<i64>().is_err()) {
                    problems.push(format!("'{line}' does not end in an offset"));
                }
            }
            Ok(entries.to_vec())
        }
        _ => {
            problems.push("version and count are missing".to_owned());
            Ok(lines)
        }
    }
}

/// The lines of a text file.
pub(super) fn text(path: &Path) -> anyhow::Result<Vec<String>> {
    Ok(String::from_utf8_lossy(&whole(path)?).lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, bytes: &[u8], look: impl FnOnce(&Path, &mut Vec<String>)) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut problems = Vec::new();
        look(&path, &mut problems);
        problems
    }

    #[test]
    fn an_index_must_rise_and_reserved_room_is_passed_over() {
        let name = "00000000000000000100.index";
        let mut bytes = Vec::new();
        for (offset, position) in [(5u32, 70u32), (9, 140)] {
            Position { relative_offset: offset, position }.write(&mut bytes);
        }
        bytes.extend_from_slice(&[0; 16]);
        let sound = with(name, &bytes, |path, problems| {
            let expected = [
                Entry::Position { offset: 105, position: 70 },
                Entry::Position { offset: 109, position: 140 },
            ];
            assert_eq!(offset_index(path, problems).unwrap(), expected);
        });
        assert_eq!(sound, Vec::<String>::new());
        bytes.truncate(16);
        Position { relative_offset: 3, position: 10 }.write(&mut bytes);
        let wrong = with(name, &bytes, |path, problems| drop(offset_index(path, problems)));
        assert_eq!(wrong, ["offset 103 @10 does not rise"]);
    }

    #[test]
    fn a_checkpoint_counts_its_lines() {
        let sound = with("replication-offset-checkpoint", b"0\n1\norders 0 7\n", |path, problems| {
            assert_eq!(checkpoint(path, problems).unwrap(), ["orders 0 7"]);
        });
        assert_eq!(sound, Vec::<String>::new());
        let wrong = with("leader-epoch-checkpoint", b"0\n2\n0 x\n", |path, problems| {
            drop(checkpoint(path, problems));
        });
        assert_eq!(wrong, ["2 entries are told, 1 are there", "'0 x' does not end in an offset"]);
    }

    #[test]
    fn a_damaged_snapshot_is_said_to_be_one() {
        let wrong = with("00000000000000000001.snapshot", b"\0\x01abcdef", |path, problems| {
            drop(snapshot(path, problems));
        });
        assert_eq!(wrong.len(), 1);
    }
}
