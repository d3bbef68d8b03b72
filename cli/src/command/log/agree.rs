//! Whether the files of a log agree with each other: a time index with its segment, a file of settings with what is read from it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ottla_log::directory;
use ottla_wire::records::BatchHeader;
use ottla_wire::records::batch::HEADER_BYTES;

use super::caches::Entry;

/// A batch, as a time index sees it.
struct Seen {
    last_offset: i64,
    timestamp: i64,
    /// The largest of this batch and all before it.
    timestamp_max: i64,
}

/// Every batch of a segment up to the first that cannot be read; what is wrong there is said of the segment itself.
fn batches(segment: &File) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut position = 0;
    let mut bytes = [0; HEADER_BYTES];
    while segment.read_exact_at(&mut bytes, position).is_ok()
        && let Ok(header) = BatchHeader::parse(&bytes)
    {
        let before = seen.last().map_or(-1, |last| last.timestamp_max);
        let timestamp = header.max_timestamp;
        seen.push(Seen {
            last_offset: header.last_offset(),
            timestamp,
            timestamp_max: before.max(timestamp),
        });
        position += header.total_length() as u64;
    }
    seen
}

/// Checks the entries of a `.timeindex` against the segment beside it, if that is there: up to an entry's offset no record is
/// younger, and the batch that has the offset is of that time.
pub(super) fn time_index(path: &Path, entries: &[Entry], problems: &mut Vec<String>) {
    let Ok(segment) = File::open(path.with_extension("log")) else { return };
    let batches = batches(&segment);
    for entry in entries {
        let Entry::Time { timestamp_ms, offset } = entry else { continue };
        let at = batches.partition_point(|batch| batch.last_offset < *offset);
        match batches.get(at) {
            None => problems.push(format!(
                "timestamp {timestamp_ms} offset {offset} points behind the end of the segment"
            )),
            Some(batch) if batch.timestamp_max > *timestamp_ms => problems.push(format!(
                "timestamp {timestamp_ms} offset {offset}: a record of {} is not behind it",
                batch.timestamp_max
            )),
            Some(batch) if batch.timestamp != *timestamp_ms => problems.push(format!(
                "timestamp {timestamp_ms} offset {offset}: the batch there is of {}",
                batch.timestamp
            )),
            Some(_) => {}
        }
    }
}

/// Checks what a directory says of itself: its owner, its topic.
pub(super) fn text(path: &Path, problems: &mut Vec<String>) {
    let Some(parent) = path.parent() else { return };
    let problem = match path.file_name().and_then(std::ffi::OsStr::to_str) {
        Some("meta.properties") => directory::read_owner(parent).err(),
        Some("partition.metadata") => directory::read_topic_id(parent).err(),
        _ => None,
    };
    problems.extend(problem.map(|error| error.to_string()));
}

/// The lines of a `leader-epoch-checkpoint`: both numbers rise.
pub(super) fn epochs(lines: &[String], problems: &mut Vec<String>) {
    let parse = |line: &String| {
        let (epoch, offset) = line.split_once(' ')?;
        Some((epoch.parse::<i32>().ok()?, offset.trim().parse::<i64>().ok()?))
    };
    let epochs: Vec<_> = lines.iter().filter_map(parse).collect();
    for pair in epochs.windows(2) {
        if pair[1].0 <= pair[0].0 || pair[1].1 < pair[0].1 {
            problems
                .push(format!("epoch {} from offset {} does not follow {}", pair[1].0, pair[1].1, pair[0].0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_wire::records::{BatchBuilder, BatchOptions};

    #[test]
    fn a_time_index_is_held_against_its_segment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("00000000000000000000.timeindex");
        let mut content = Vec::new();
        for (base_offset, timestamp) in [(0, 10), (1, 30), (2, 20)] {
            let mut builder = BatchBuilder::new(BatchOptions { base_offset, ..BatchOptions::default() });
            builder.add(timestamp, None, Some(b"v"), &[]).unwrap();
            content.extend_from_slice(&builder.finish().unwrap());
        }
        std::fs::write(path.with_extension("log"), content).unwrap();
        let check = |timestamp_ms, offset| {
            let mut problems = Vec::new();
            time_index(&path, &[Entry::Time { timestamp_ms, offset }], &mut problems);
            problems.pop().unwrap_or_default()
        };
        assert_eq!(check(10, 0), "");
        assert_eq!(check(30, 1), "");
        assert!(check(20, 2).ends_with("a record of 30 is not behind it"));
        assert!(check(40, 1).ends_with("the batch there is of 30"));
        assert!(check(40, 9).ends_with("behind the end of the segment"));
    }

    #[test]
    fn epochs_rise() {
        let mut problems = Vec::new();
        epochs(&["0 0".into(), "2 5".into(), "1 9".into()], &mut problems);
        assert_eq!(problems, ["epoch 1 from offset 9 does not follow 2"]);
    }

    #[test]
    fn an_owner_that_cannot_be_read_is_said_to_be_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.properties");
        std::fs::write(&path, "version=1\n").unwrap();
        let mut problems = Vec::new();
        text(&path, &mut problems);
        assert_eq!(problems.len(), 1);
    }
}
