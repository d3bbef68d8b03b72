//! Readers: each has a task for each partition, which reads from the first offset to the end and tells what it was given,
//! by which leader, and where the high watermark was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla_verify::Event;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{FetchRequest, fetch_request, fetch_response};
use ottla_wire::text::Text;

use super::payload::Name;
use super::run::{Run, deadline};
use crate::client::ClientError;
use crate::client::cluster::{Cluster, RETRY_PAUSE};
use crate::client::fetcher;
use crate::client::offsets::{self, LATEST};

/// Newest version of Fetch that is asked: it names topics.
const FETCH_VERSION: i16 = 12;
/// How long a leader may hold a fetch without news.
const WAIT_MS_MAX: i32 = 250;
/// More than that, for the way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the ends of the partitions are looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Records in runs: offset, writer, number, how many.
pub(super) type Runs = Vec<(i64, u32, u64, u32)>;

/// One reader in one partition.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    run: &'a Run,
    reader: u32,
    partition: u32,
    committed: bool,
    /// Bytes of one answer.
    bytes_max: i32,
    pub(super) position: i64,
}

impl<'a> Lane<'a> {
    /// From where the run began.
    pub(super) fn new(run: &'a Run, reader: u32, partition: u32, committed: bool, bytes_max: i32) -> Self {
        let position = end_of(&run.starts, partition).unwrap_or(0);
        Self { run, reader, partition, committed, bytes_max, position }
    }

    /// Goes elsewhere.
    pub(super) fn seek(&mut self, to: i64) {
        self.position = to;
        let (r, p) = (self.reader, self.partition);
        self.run.recorder.record(&Event::Seek { t: self.run.recorder.now(), r, p, to });
    }

    /// Reads to the end. False: it gave up before.
    pub(super) async fn read_to_end(mut self) -> bool {
        let mut cluster = self.run.cluster();
        loop {
            let end = self.run.ends.borrow().as_ref().and_then(|ends| end_of(ends, self.partition));
            if end.is_some_and(|end| self.position >= end) {
                return true;
            }
            if self.run.gives_up() {
                return false;
            }
            if self.poll(&mut cluster, WAIT_MS_MAX).await.is_err() {
                self.recover(&mut cluster).await;
            }
        }
    }

    /// After a failure: leaders are looked up anew.
    pub(super) async fn recover(&self, cluster: &mut Cluster) {
        tokio::time::sleep(RETRY_PAUSE).await;
        // The next poll tells whether this helped.
        drop(cluster.refresh(&[self.run.place(self.partition).0.to_owned()]).await);
    }

    /// Asks once; what came is taken down, and given in runs.
    pub(super) async fn poll(&mut self, cluster: &mut Cluster, wait_ms: i32) -> Result<Runs, ClientError> {
        let (topic, index) = self.run.place(self.partition);
        let what = || format!("{topic}:{index}");
        let Some(leader) = cluster.leader(topic, index) else {
            return Err(ClientError::refused(what(), ErrorCode::LeaderNotAvailable.code()));
        };
        let address = cluster.address(leader).unwrap_or_default().to_owned();
        let epoch = cluster.leader_epoch(topic, index);
        let request = self.request(topic, index, epoch, wait_ms);
        let asked = self.run.recorder.now();
        let answer = cluster.ask_at_within(&address, &request, FETCH_VERSION, ANSWER_TIMEOUT).await?;
        if answer.error_code != 0 {
            return Err(ClientError::refused(what(), answer.error_code));
        }
        let Some(one) = answer.responses.into_iter().flat_map(|topic| topic.partitions).next() else {
            let reason = "no partition in the answer".to_owned();
            return Err(ClientError::Garbled { address, what: "Fetch", reason });
        };
        match ErrorCode::from_code(one.error_code) {
            ErrorCode::None => self.take(asked, epoch, one),
            ErrorCode::OffsetOutOfRange => {
                self.out_of_range(asked);
                Err(ClientError::refused(what(), one.error_code))
            }
            _ => Err(ClientError::refused(what(), one.error_code)),
        }
    }

    fn request(&self, topic: &str, partition: i32, epoch: i32, wait_ms: i32) -> FetchRequest {
        FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes: self.bytes_max,
            isolation_level: i8::from(self.committed),
            topics: vec![fetch_request::Topic {
                topic: Text::from(topic),
                partitions: vec![fetch_request::Partition {
                    partition,
                    current_leader_epoch: epoch,
                    fetch_offset: self.position,
                    partition_max_bytes: self.bytes_max,
                    ..fetch_request::Partition::default()
                }],
                ..fetch_request::Topic::default()
            }],
            ..FetchRequest::default()
        }
    }

    fn take(
        &mut self,
        asked: u64,
        epoch: i32,
        answer: fetch_response::Partition,
    ) -> Result<Runs, ClientError> {
        let (topic, index) = self.run.place(self.partition);
        let (from, hw) = (self.position, answer.high_watermark);
        let mut records = Vec::new();
        let next = fetcher::read(&(Arc::from(topic), index), from, self.committed, answer, &mut records);
        let t = self.run.recorder.now();
        let (mut runs, mut alien) = (Runs::new(), Vec::new());
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                // Bytes that are no batch: nobody can have written them.
                alien.push((from, error.to_string()));
                from
            }
        };
        for record in records.iter().filter(|record| record.offset < next) {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            match Name::parse(self.run.plan.seed, self.partition, key, value) {
                Ok(name) => push(&mut runs, record.offset, name),
                Err(what) => alien.push((record.offset, what)),
            }
        }
        self.position = next;
        let is_broken = !alien.is_empty() && next == from;
        let (s, r, p) = (asked, self.reader, self.partition);
        let known = runs.clone();
        self.run.recorder.record(&Event::Poll { s, t, r, p, from, next, hw, epoch, runs, alien });
        if is_broken {
            return Err(ClientError::refused(topic, ErrorCode::CorruptMessage.code()));
        }
        Ok(known)
    }

    fn out_of_range(&self, asked: u64) {
        let (t, r, p) = (self.run.recorder.now(), self.reader, self.partition);
        self.run.recorder.record(&Event::OutOfRange { s: asked, t, r, p, at: self.position });
    }
}

fn push(runs: &mut Runs, offset: i64, name: Name) {
    if let Some((first, writer, number, count)) = runs.last_mut()
        && *writer == name.writer
        && *first + i64::from(*count) == offset
        && *number + u64::from(*count) == name.number
    {
        *count += 1;
        return;
    }
    runs.push((offset, name.writer, name.number, 1));
}

/// The end of a partition.
pub(super) fn end_of(ends: &[i64], partition: u32) -> Option<i64> {
    usize::try_from(partition).ok().and_then(|at| ends.get(at)).copied()
}

/// The ends of all partitions of all topics.
pub(super) async fn ends(run: &Run) -> Result<Vec<i64>, ClientError> {
    let mut cluster = run.cluster();
    let places = (0..run.partitions()).map(|partition| run.place(partition));
    let wanted: BTreeMap<_, _> = places.map(|(topic, index)| ((Arc::from(topic), index), LATEST)).collect();
    cluster.refresh_until(&run.plan.topics, deadline()).await?;
    let until = deadline();
    let found = loop {
        match offsets::list(&mut cluster, &wanted, false).await {
            Err(error) if error.is_retriable() && Instant::now() < until => {}
            other => break other?,
        }
    };
    let end = |partition| {
        let (topic, index) = run.place(partition);
        found.get(&(Arc::from(topic), index)).copied().unwrap_or(0)
    };
    Ok((0..run.partitions()).map(end).collect())
}

/// Looks at the ends of all partitions as long as the run goes.
pub(super) async fn watch(run: &Run) {
    let mut clusters: Vec<(u32, Cluster)> = (0..run.partitions()).map(|one| (one, run.cluster())).collect();
    while run.ends.borrow().is_none() && !run.gives_up() {
        tokio::time::sleep(LOOK_PAUSE).await;
        let looks = clusters.iter_mut().map(async |(partition, cluster)| {
            let (topic, index) = run.place(*partition);
            if cluster.leader(topic, index).is_none() {
                drop(cluster.refresh(&[topic.to_owned()]).await);
            }
            let wanted = [((Arc::from(topic), index), LATEST)].into();
            let asked = run.recorder.now();
            let found = offsets::list_once(cluster, &wanted, false).await;
            match found.ok().and_then(|found| found.into_values().next()) {
                Some(end) => {
                    let t = run.recorder.now();
                    run.recorder.record(&Event::Look { s: asked, t, p: *partition, end });
                }
                None => drop(cluster.refresh(&[topic.to_owned()]).await),
            }
        });
        futures_util::future::join_all(looks).await;
    }
}
