//! `ottla produce TOPIC [FILE|-]`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use ottla_wire::compression::Codec;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::client::cluster::Cluster;
use crate::client::partitioner::Partitioner;
use crate::client::producer::{BATCH_BYTES, Producer, ProducerOptions};
use crate::client::records::NewRecord;
use crate::client::{self};
use crate::failure::Failure;
use crate::output::counted;
use crate::parse;
use crate::profile::Session;
use crate::server::signals::Stop;

/// Longest line that is taken: no broker takes a larger record by far.
const LINE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Lines that are read ahead of what is sent.
const LINES_AHEAD: usize = 1024;
/// Bytes of lines that are handed over at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Records are sent when no further line came for so long.
const LINGER: Duration = Duration::from_millis(5);

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  echo hello | ottla produce orders
  ottla produce orders events.txt --key-separator : --compression zstd
  ottla consume orders --json --exit-at-end | ottla produce copy --json")]
pub(crate) struct Produce {
    /// Topic to write to
    topic: String,
    /// File to read, a record a line; - is standard input
    #[arg(default_value = "-", hide_default_value = true)]
    file: PathBuf,
    /// What stands between key and value; a line without it has no key
    #[arg(long, short, value_name = "C", conflicts_with = "json")]
    key_separator: Option<String>,
    /// Write to this partition, whatever the key
    #[arg(long, short, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// A header of every record; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::name_value)]
    header: Vec<(String, String)>,
    /// Who must have a record before it counts as written
    #[arg(long, value_enum, default_value_t)]
    acks: Acks,
    /// How records are compressed
    #[arg(long, short, value_enum, default_value_t)]
    compression: Compression,
    /// Lines are JSON objects with key, value, headers, partition and timestamp_ms, as 'consume --json' writes them
    #[arg(long)]
    json: bool,
}

/// `--acks`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Acks {
    /// All replicas in sync
    #[default]
    All,
    /// The leader
    #[value(name = "1")]
    Leader,
    /// Nobody
    #[value(name = "0")]
    None,
}

/// `--compression`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Compression {
    /// Not at all
    #[default]
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

#[derive(Debug, Serialize)]
struct Document {
    topic: String,
    records: u64,
    /// Bytes of values.
    bytes: u64,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    records: u64,
    /// Null when the broker was not asked (acks=0).
    first_offset: Option<i64>,
    last_offset: Option<i64>,
}

/// Lines with their numbers.
type Lines = Vec<(u64, Vec<u8>)>;

impl Produce {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let input: Box<dyn Read + Send> = if self.file.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(&self.file).with_context(|| format!("cannot open {}", self.file.display()))?)
        };
        let cluster = Cluster::new(client::bootstrap(session).await?, session.timeout);
        let mut producer =
            Producer::new(cluster, &self.topic, self.options()).await.map_err(Failure::from)?;
        let partitions = producer.partitions();
        if let Some(missing) = self.partition.filter(|partition| !partitions.contains(partition)) {
            return Err(Failure::new(format!("topic \"{}\" has no partition {missing}", self.topic))
                .hint(format!("it has partitions 0 to {}", partitions.len().saturating_sub(1)))
                .into());
        }
        let partitioner = Partitioner::new(partitions, usize::from(rand::random::<u16>()), BATCH_BYTES);
        let written = self.write(&mut producer, partitioner, lines(input)).await;
        // What was taken before a bad line is written all the same, as it would be by a pipe.
        let flushed = producer.flush().await.map_err(|error| Failure::from(error).into());
        written.and(flushed)?;
        session.output.done(&self.document(&producer), |document| {
            format!(
                "wrote {} to {}",
                counted(usize::try_from(document.records).unwrap_or(usize::MAX), "record"),
                document.topic
            )
        })
    }

    fn options(&self) -> ProducerOptions {
        let acks = match self.acks {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::None => 0,
        };
        let codec = match self.compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        };
        ProducerOptions { acks, codec }
    }

    async fn write(
        &self,
        producer: &mut Producer,
        mut partitioner: Partitioner,
        mut lines: mpsc::Receiver<io::Result<Lines>>,
    ) -> anyhow::Result<()> {
        let mut stop = Stop::new()?;
        let known: BTreeSet<i32> = producer.partitions().into_iter().collect();
        loop {
            let next = match lines.try_recv() {
                Ok(next) => Some(next),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
                Err(mpsc::error::TryRecvError::Empty) => {
                    match tokio::time::timeout(LINGER, lines.recv()).await {
                        Ok(next) => next,
                        Err(_) => {
                            // Someone types, or writes slowly: what has come goes out.
                            producer.flush().await.map_err(Failure::from)?;
                            tokio::select! {
                                next = lines.recv() => next,
                                () = stop.wait() => None,
                            }
                        }
                    }
                }
            };
            let Some(next) = next else { return Ok(()) };
            for (number, line) in next.with_context(|| format!("cannot read {}", self.file.display()))? {
                let record =
                    self.record(line).map_err(|reason| Failure::new(format!("line {number}: {reason}")))?;
                let partition = match self.partition.or(record.partition) {
                    Some(partition) => partition,
                    None => partitioner.choose(&record),
                };
                if !known.contains(&partition) {
                    let what =
                        format!("line {number}: topic \"{}\" has no partition {partition}", self.topic);
                    let more = format!(
                        "'ottla topic alter {} --partitions {}'",
                        self.topic,
                        partition.saturating_add(1)
                    );
                    return Err(Failure::new(what).hint(format!("{more} adds what is missing")).into());
                }
                producer.add(partition, record).await.map_err(Failure::from)?;
            }
        }
    }

    fn record(&self, line: Vec<u8>) -> Result<NewRecord, String> {
        let mut record = if self.json {
            NewRecord::from_json(std::str::from_utf8(&line).map_err(|_| "not UTF-8")?)?
        } else {
            let line = Bytes::from(line);
            let separator = self.key_separator.as_ref().map(|text| parse::unescape(text).into_bytes());
            match separator
                .filter(|separator| !separator.is_empty())
                .and_then(|s| Some((find(&line, &s)?, s.len())))
            {
                Some((at, length)) => NewRecord {
                    key: Some(line.slice(..at)),
                    value: Some(line.slice(at + length..)),
                    ..NewRecord::default()
                },
                None => NewRecord { value: Some(line), ..NewRecord::default() },
            }
        };
        for (name, value) in &self.header {
            let header =
                (Bytes::from(name.clone().into_bytes()), Some(Bytes::from(value.clone().into_bytes())));
            record.headers.push(header);
        }
        Ok(record)
    }

    fn document(&self, producer: &Producer) -> Document {
        let partitions: Vec<_> = producer
            .written()
            .map(|(partition, written)| {
                (
                    written.bytes,
                    Partition {
                        partition,
                        records: written.records,
                        first_offset: (written.first_offset >= 0).then_some(written.first_offset),
                        last_offset: (written.last_offset >= 0).then_some(written.last_offset),
                    },
                )
            })
            .collect();
        Document {
            topic: self.topic.clone(),
            records: partitions.iter().map(|(_, partition)| partition.records).sum(),
            bytes: partitions.iter().map(|(bytes, _)| bytes).sum(),
            partitions: partitions.into_iter().map(|(_, partition)| partition).collect(),
        }
    }
}

/// Where `needle` begins.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Reads lines on a thread of its own: a terminal or a pipe may block for ever.
fn lines(input: Box<dyn Read + Send>) -> mpsc::Receiver<io::Result<Lines>> {
    let mut input = BufReader::with_capacity(CHUNK_BYTES, input);
    let (sender, receiver) = mpsc::channel(LINES_AHEAD / 64);
    std::thread::spawn(move || {
        let mut number = 0;
        let mut chunk = Vec::new();
        let mut chunk_bytes = 0;
        loop {
            let line = match read_line(&mut input) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    // Nobody listens any more when this fails, as below.
                    drop(sender.blocking_send(Err(error)));
                    return;
                }
            };
            number += 1;
            chunk_bytes += line.len();
            chunk.push((number, line));
            // Nothing more is at hand, or it is enough: hand it over.
            if input.buffer().is_empty() || chunk_bytes >= CHUNK_BYTES || chunk.len() >= LINES_AHEAD {
                chunk_bytes = 0;
                if sender.blocking_send(Ok(std::mem::take(&mut chunk))).is_err() {
                    return;
                }
            }
        }
        if !chunk.is_empty() {
            drop(sender.blocking_send(Ok(chunk)));
        }
    });
    receiver
}

/// One line without its end; `None` at the end of the input.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if u64::try_from(read).unwrap_or(u64::MAX) >= LINE_BYTES_MAX {
        return Err(io::Error::other(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produce(words: &[&str]) -> Produce {
        let words = ["ottla", "produce", "t"].iter().chain(words);
        match crate::arguments::read(words).unwrap().command {
            crate::arguments::Command::Produce(produce) => produce,
            _ => panic!("not a produce"),
        }
    }

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        let plain = produce(&[]).record(b"k:v".to_vec()).unwrap();
        assert_eq!((plain.key, plain.value), (None, Some("k:v".into())));
        let keyed = produce(&["--key-separator", ":", "--header", "a=b"]);
        let record = keyed.record(b"k:v:w".to_vec()).unwrap();
        assert_eq!((record.key, record.value), (Some("k".into()), Some("v:w".into())));
        assert_eq!(record.headers, [("a".into(), Some("b".into()))]);
        assert_eq!(keyed.record(b"v".to_vec()).unwrap().key, None);
        let tab = produce(&["--key-separator", r"\t"]);
        assert_eq!(tab.record(b"k\tv".to_vec()).unwrap().key, Some("k".into()));
    }

    #[tokio::test]
    async fn lines_come_without_their_ends_and_with_their_numbers() {
        let mut receiver = lines(Box::new(&b"a\nb\r\n\nc"[..]));
        let mut all = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            all.extend(chunk.unwrap());
        }
        let expected = [(1, b"a".to_vec()), (2, b"b".to_vec()), (3, Vec::new()), (4, b"c".to_vec())];
        assert_eq!(all, expected);
    }
}
