//! The history: a header, then one event a line.
//!
//! A record is named by its lane and its number: the lane is a writer `w` and a partition `p`, the number `n` counts the
//! lane's records from 0 on without gaps. Partitions are numbered through all topics of the header: those of the first
//! topic, then those of the second. Times are microseconds since the start of the run. Runs of records are told as runs, so
//! that the history has a line a batch, not a line a record.

use serde::{Deserialize, Serialize};

/// Version of the format that is written here, and the only one that is read.
pub const VERSION: u32 = 1;
/// Longest line that is read: a poll of very many runs stays far below it.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most partitions of a history: the checker keeps state for each.
const PARTITIONS_MAX: u32 = 100_000;

/// Why a history cannot be checked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HistoryError {
    /// No line of a history.
    #[error("not a line of a history: {0}")]
    Line(String),
    /// The line is longer than [`LINE_BYTES_MAX`].
    #[error("a line of more than {LINE_BYTES_MAX} bytes")]
    LongLine,
    /// The first line is no header.
    #[error("it does not begin with a header")]
    NoHeader,
    /// Written in another version.
    #[error("it is of version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// It contradicts itself.
    #[error("{0}")]
    Contradiction(String),
}

/// A topic of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u32,
}

/// What the run was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// The topics: the one that is written; with transactions also the one that transformers write.
    pub topics: Vec<Topic>,
    /// Whether the writers are idempotent: no record may be in the log twice.
    pub idempotent: bool,
    /// Whether all is written in transactions.
    pub transactions: bool,
    /// Seed of all that was chosen at random.
    pub seed: u64,
    /// When the run began (ms since 1970).
    pub started_ms: i64,
}

impl Header {
    /// How many partitions all topics have.
    pub fn partitions(&self) -> u32 {
        self.topics.iter().fold(0, |sum, topic| sum.saturating_add(topic.partitions))
    }

    /// `topic:partition` of a partition's number.
    pub fn partition_name(&self, partition: u32) -> String {
        let mut rest = partition;
        for topic in &self.topics {
            if rest < topic.partitions {
                return format!("{}:{rest}", topic.name);
            }
            rest -= topic.partitions;
        }
        format!("partition {partition}")
    }

    pub(crate) fn check(&self) -> Result<(), HistoryError> {
        if self.version != VERSION {
            return Err(HistoryError::Version(self.version));
        }
        if self.partitions() > PARTITIONS_MAX {
            return Err(HistoryError::Contradiction(format!("more than {PARTITIONS_MAX} partitions")));
        }
        Ok(())
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The cluster said so.
    Committed,
    /// The cluster said so, or nobody ever asked for a commit.
    Aborted,
    /// A commit was asked for, and what became of it is not known.
    Unknown,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "snake_case")]
pub enum Event {
    /// The first line.
    History(Header),
    /// Reader `r` begins; `committed`: it reads read_committed.
    Reader {
        /// The reader.
        r: u32,
        /// Its isolation.
        committed: bool,
    },
    /// Records `n` to `n + c` of a lane are about to be sent, for the first time.
    Send {
        /// When.
        t: u64,
        /// Names the outcome that belongs to it.
        op: u64,
        /// Writer.
        w: u32,
        /// Partition.
        p: u32,
        /// First number.
        n: u64,
        /// How many.
        c: u32,
        /// The transaction.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        x: Option<u64>,
        /// Records that these were made of, in runs: partition, writer, first number, how many.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        src: Vec<(u32, u32, u64, u32)>,
    },
    /// They were acknowledged; offset of the first, -1 when the broker no longer knows it.
    Sent {
        /// When.
        t: u64,
        /// Of which sending.
        op: u64,
        /// Offset.
        o: i64,
    },
    /// They were refused: they are certainly not in the log.
    Refused {
        /// When.
        t: u64,
        /// Of which sending.
        op: u64,
        /// In words.
        why: String,
    },
    /// The writer gave up; they may be in the log or not.
    Unknown {
        /// When.
        t: u64,
        /// Of which sending.
        op: u64,
        /// In words.
        why: String,
    },
    /// The end of a transaction is about to be asked for.
    End {
        /// When.
        t: u64,
        /// The transaction.
        x: u64,
        /// Commit, or abort.
        commit: bool,
    },
    /// A transaction is over for its producer.
    Ended {
        /// When.
        t: u64,
        /// The transaction.
        x: u64,
        /// How.
        outcome: Outcome,
    },
    /// A reader was given what lies from offset `from` to before `next`.
    Poll {
        /// When it was asked.
        s: u64,
        /// When the answer was there.
        t: u64,
        /// Reader.
        r: u32,
        /// Partition.
        p: u32,
        /// Where it was.
        from: i64,
        /// Where it is now.
        next: i64,
        /// The high watermark that the answer named.
        hw: i64,
        /// Epoch of the leader that answered; -1: not known.
        epoch: i32,
        /// The records in runs: offset, writer, number, how many.
        runs: Vec<(i64, u32, u64, u32)>,
        /// Records that no writer of this run can have written: offset, and what is there.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        alien: Vec<(i64, String)>,
    },
    /// A reader goes to another place by its own will.
    Seek {
        /// When.
        t: u64,
        /// Reader.
        r: u32,
        /// Partition.
        p: u32,
        /// Where to.
        to: i64,
    },
    /// A leader told a reader that the place where it had come to does not exist.
    OutOfRange {
        /// When it was asked.
        s: u64,
        /// When the answer was there.
        t: u64,
        /// Reader.
        r: u32,
        /// Partition.
        p: u32,
        /// Where the reader was.
        at: i64,
    },
    /// A leader was asked for the end of the partition (the offset behind the high watermark).
    Look {
        /// When it was asked.
        s: u64,
        /// When the answer was there.
        t: u64,
        /// Partition.
        p: u32,
        /// The end.
        end: i64,
    },
    /// All writers have stopped; these are the ends of all partitions.
    Final {
        /// When.
        t: u64,
        /// By partition.
        ends: Vec<i64>,
    },
    /// The transformers have come to the end of what they transform.
    Drained {
        /// When.
        t: u64,
    },
    /// Something that helps to understand the run.
    Note {
        /// When.
        t: u64,
        /// In words.
        text: String,
    },
}

/// Reads one line.
pub fn parse_line(line: &[u8]) -> Result<Event, HistoryError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(HistoryError::LongLine);
    }
    serde_json::from_slice(line).map_err(|error| HistoryError::Line(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_is_promised() {
        let event = Event::Send { t: 1, op: 2, w: 3, p: 4, n: 5, c: 6, x: None, src: Vec::new() };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(line, r#"{"e":"send","t":1,"op":2,"w":3,"p":4,"n":5,"c":6}"#);
        assert_eq!(parse_line(line.as_bytes()), Ok(event));
        let event = Event::Poll {
            s: 1,
            t: 2,
            r: 0,
            p: 1,
            from: 0,
            next: 3,
            hw: 3,
            epoch: 7,
            runs: vec![(0, 1, 0, 3)],
            alien: Vec::new(),
        };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            r#"{"e":"poll","s":1,"t":2,"r":0,"p":1,"from":0,"next":3,"hw":3,"epoch":7,"runs":[[0,1,0,3]]}"#
        );
        assert_eq!(parse_line(line.as_bytes()), Ok(event));
    }

    #[test]
    fn lines_that_are_no_events_are_errors() {
        for line in ["", "{}", "[]", r#"{"e":"nonsense"}"#, r#"{"e":"sent","t":-1,"op":0,"o":0}"#] {
            assert!(matches!(parse_line(line.as_bytes()), Err(HistoryError::Line(_))), "{line}");
        }
    }

    #[test]
    fn partitions_are_numbered_through_the_topics() {
        let topic = |name: &str, partitions| Topic { name: name.to_owned(), partitions };
        let header = Header {
            version: VERSION,
            topics: vec![topic("a", 2), topic("b", 1)],
            idempotent: true,
            transactions: false,
            seed: 0,
            started_ms: 0,
        };
        let names: Vec<_> = (0..4).map(|partition| header.partition_name(partition)).collect();
        assert_eq!(names, ["a:0", "a:1", "b:0", "partition 3"]);
        let huge = Header { topics: vec![topic("a", u32::MAX), topic("b", 1)], ..header };
        assert!(huge.check().is_err());
    }
}
