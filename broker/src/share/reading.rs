//! ShareFetch over share-partitions: reads where somebody may have something, gives it to the member, waits if there is
//! nothing.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::share_partition::session::Partition as SessionPartition;
use ottla_coordinator::share_partition::{AcquiredRecords, FetchedBatch, SharePartition, Wanted};
use ottla_coordinator::share_state::ShareKey;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{Batch, Batches, ControlRecord, EndTransaction};
use ottla_wire::text::Text;
use tokio::time::Instant;

use super::ShareService;
use super::live::LivePartition;
use super::settings::GroupSettings;
use crate::metrics::PartitionTraffic;
use crate::replica::read::FetchPartition;
use crate::replica::waiter::{FetchInterest, InterestKind};
use crate::replica::{FetchResult, Isolation, Partition};

/// What is read of one partition at a time, in bytes: the batches are looked at here before they are sent.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// A ShareFetch, as far as reading goes.
#[derive(Debug, Clone)]
pub(crate) struct ShareFetch {
    pub(crate) group_id: Text,
    pub(crate) member_id: Text,
    pub(crate) wait: Duration,
    pub(crate) bytes_min: usize,
    pub(crate) bytes_max: usize,
    pub(crate) wanted: Wanted,
    /// In the order in which they get room.
    pub(crate) partitions: Vec<SessionPartition>,
}

/// Records of a file.
#[derive(Debug, Clone)]
pub(crate) struct RecordRange {
    pub(crate) file: Arc<File>,
    pub(crate) position: u64,
    pub(crate) length: usize,
    pub(crate) traffic: Option<Arc<PartitionTraffic>>,
}

/// What there is to say of one partition.
#[derive(Debug)]
pub(crate) struct SharePartitionAnswer {
    pub(crate) partition: SessionPartition,
    pub(crate) error: ErrorCode,
    /// With an error about leadership: the leader and its epoch.
    pub(crate) current_leader: Option<(i32, i32)>,
    pub(crate) records: Option<RecordRange>,
    pub(crate) acquired: Vec<AcquiredRecords>,
}

impl SharePartitionAnswer {
    /// An error without more.
    pub(crate) fn refused(partition: SessionPartition, error: ErrorCode) -> Self {
        Self { partition, error, current_leader: None, records: None, acquired: Vec::new() }
    }
}

/// A waiting fetch is known to partitions and share-partitions, until it is answered or dropped.
struct Interested {
    interest: Arc<FetchInterest>,
    of: Vec<(Arc<LivePartition>, u32)>,
}

impl Drop for Interested {
    fn drop(&mut self) {
        for (live, slot) in &self.of {
            live.remove_interest(&self.interest, *slot);
            live.replica.remove_interest(&self.interest, *slot);
        }
    }
}

impl ShareService {
    /// Answers after as long a wait as the request allows, when there is nothing to tell. Partitions without anything to
    /// tell are not in the answer.
    pub(crate) async fn fetch(self: &Arc<Self>, fetch: &ShareFetch) -> Vec<SharePartitionAnswer> {
        let deadline = Instant::now() + fetch.wait;
        let mut interested =
            Interested { interest: FetchInterest::new(InterestKind::Consumer), of: Vec::new() };
        let mut found: Vec<SharePartitionAnswer> = Vec::new();
        loop {
            // The first look loads what is not here yet; to wait for more bytes, nothing may be given before.
            if fetch.bytes_min <= 1 || Instant::now() >= deadline || self.has_enough(fetch) {
                self.look(fetch, &mut found);
            }
            if !found.is_empty() || Instant::now() >= deadline {
                return found;
            }
            if interested.of.is_empty() && !fetch.partitions.is_empty() {
                self.register(fetch, &mut interested);
                if !interested.of.is_empty() {
                    continue; // What came before that has to be seen.
                }
            }
            if tokio::time::timeout_at(deadline, interested.interest.woken()).await.is_err() {
                return found;
            }
        }
    }

    /// Whether there are as many bytes as are asked for, or something else that the member is to hear.
    fn has_enough(self: &Arc<Self>, fetch: &ShareFetch) -> bool {
        let settings = self.settings(&fetch.group_id);
        let mut bytes = 0;
        for partition in &fetch.partitions {
            let Ok((replica, leader_epoch)) = self.led(*partition) else { return true };
            let live = self.live(&key_of(fetch, *partition), &replica, leader_epoch);
            let inner = live.lock();
            if inner.ended.is_some() {
                return true;
            }
            let Some(machine) = inner.machine.as_ref().filter(|machine| machine.may_acquire()) else {
                continue;
            };
            let result = read(&replica, machine.next_fetch_offset(), settings.isolation, fetch.bytes_max);
            if result.error != ErrorCode::None {
                return true;
            }
            bytes += result.slice.map_or(0, |slice| slice.length);
        }
        bytes >= fetch.bytes_min
    }

    fn register(self: &Arc<Self>, fetch: &ShareFetch, interested: &mut Interested) {
        for (slot, partition) in (0..).zip(&fetch.partitions) {
            let key = key_of(fetch, *partition);
            let Some(replica) = self.led(*partition).ok().map(|(replica, _)| replica) else { continue };
            let Some(live) = self.known(&key).filter(|live| Arc::ptr_eq(&live.replica, &replica)) else {
                continue;
            };
            live.add_interest(&interested.interest, slot);
            replica.add_interest(&interested.interest, slot);
            interested.of.push((live, slot));
        }
    }

    /// The replica, if this broker leads it, with the epoch.
    fn led(
        &self,
        (topic_id, index): SessionPartition,
    ) -> Result<(Arc<Partition>, i32), Box<SharePartitionAnswer>> {
        let refused = |error| Box::new(SharePartitionAnswer::refused((topic_id, index), error));
        let image = self.foundation.replicas.image();
        let known = image.topic_by_id(topic_id.into()).ok_or_else(|| refused(ErrorCode::UnknownTopicId))?;
        let known = usize::try_from(index).ok().and_then(|index| known.partitions.get(index));
        let known = known.ok_or_else(|| refused(ErrorCode::UnknownTopicOrPartition))?;
        let replica = self
            .foundation
            .replicas
            .topic_by_id(topic_id)
            .and_then(|topic| topic.partition(index).ok())
            .filter(|replica| replica.is_leader());
        match replica {
            Some(replica) => {
                let leader_epoch = replica.view().leader_epoch;
                Ok((replica, leader_epoch))
            }
            None => {
                let leader = known.leader.map_or(-1, |leader| leader.0);
                let mut answer = refused(ErrorCode::NotLeaderOrFollower);
                answer.current_leader = Some((leader, known.leader_epoch.0));
                Err(answer)
            }
        }
    }

    /// One look at every partition, as far as there is room.
    fn look(self: &Arc<Self>, fetch: &ShareFetch, found: &mut Vec<SharePartitionAnswer>) {
        let settings = self.settings(&fetch.group_id);
        let mut records_left = fetch.wanted.records_max;
        let mut bytes_left = fetch.bytes_max;
        for partition in &fetch.partitions {
            if records_left <= 0 || bytes_left == 0 {
                break;
            }
            let (replica, leader_epoch) = match self.led(*partition) {
                Ok(led) => led,
                Err(refused) => {
                    found.push(*refused);
                    continue;
                }
            };
            let live = self.live(&key_of(fetch, *partition), &replica, leader_epoch);
            let wanted = Wanted { records_max: records_left, ..fetch.wanted };
            let answer = self.look_at(fetch, &live, settings, wanted, bytes_left);
            let Some(answer) = answer else { continue };
            records_left -= answer.acquired.iter().map(|part| part.last - part.first + 1).sum::<i64>();
            bytes_left =
                bytes_left.saturating_sub(answer.records.as_ref().map_or(0, |records| records.length));
            found.push(answer);
        }
    }

    fn look_at(
        self: &Arc<Self>,
        fetch: &ShareFetch,
        live: &Arc<LivePartition>,
        settings: GroupSettings,
        wanted: Wanted,
        bytes_max: usize,
    ) -> Option<SharePartitionAnswer> {
        let partition = (live.key.topic_id, live.key.partition);
        let mut inner = live.lock();
        if let Some(error) = inner.ended {
            drop(inner);
            self.give_up(live, error);
            // Nobody coordinates now, or a newer state is to be read: the next look does.
            let passes = matches!(error, ErrorCode::CoordinatorNotAvailable | ErrorCode::FencedStateEpoch);
            return (!passes).then(|| SharePartitionAnswer::refused(partition, error));
        }
        let machine = inner.machine.as_mut()?;
        machine.set_limits(settings.limits);
        let expired = machine.expire_locks(self.clock.monotonic_ms());
        let answer = self.acquire(fetch, live, machine, settings.isolation, wanted, bytes_max);
        drop(inner);
        if expired {
            self.save(live);
        }
        if answer.as_ref().is_some_and(|answer| !answer.acquired.is_empty()) {
            self.lock_taken.notify_one();
        }
        answer
    }

    fn acquire(
        &self,
        fetch: &ShareFetch,
        live: &LivePartition,
        machine: &mut SharePartition,
        isolation: Isolation,
        wanted: Wanted,
        bytes_max: usize,
    ) -> Option<SharePartitionAnswer> {
        let partition = (live.key.topic_id, live.key.partition);
        if !machine.may_acquire() {
            return None;
        }
        let mut offset = machine.next_fetch_offset();
        let mut result = read(&live.replica, offset, isolation, bytes_max);
        if result.error == ErrorCode::OffsetOutOfRange {
            let view = live.replica.view();
            machine.log_starts_at(view.log_start_offset);
            offset = machine.next_fetch_offset();
            result = read(&live.replica, offset, isolation, bytes_max);
        }
        if result.error != ErrorCode::None {
            let current_leader = result.current_leader;
            return Some(SharePartitionAnswer {
                current_leader,
                ..SharePartitionAnswer::refused(partition, result.error)
            });
        }
        machine.log_starts_at(result.log_start_offset);
        let slice = result.slice.as_ref()?;
        let bytes = match slice.to_bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(topic = %live.replica.topic(), partition = live.key.partition, %error, "cannot be read");
                return Some(SharePartitionAnswer::refused(partition, ErrorCode::KafkaStorageError));
            }
        };
        let batches: Vec<Batch> = Batches::new(bytes).map_while(Result::ok).collect();
        let fetched = fetched(&batches, &result);
        let now_ms = self.clock.monotonic_ms();
        let acquired = machine.acquire(now_ms, &fetch.member_id.detached(), offset, &fetched, wanted);
        let (first, last) = (acquired.first()?.first, acquired.last()?.last);
        let records = acquired.iter().map(|part| usize::try_from(part.last - part.first + 1).unwrap_or(0));
        self.counters.acquired_records.add(records.sum());
        // Only the batches that something was taken of are sent.
        let before = batches.iter().take_while(|batch| batch.header.last_offset() < first);
        let skipped: usize = before.map(|batch| batch.bytes().len()).sum();
        let taken = batches
            .iter()
            .filter(|batch| batch.header.last_offset() >= first && batch.header.base_offset <= last);
        let length = taken.map(|batch| batch.bytes().len()).sum();
        let records = RecordRange {
            file: Arc::clone(&slice.file),
            position: slice.position + skipped as u64,
            length,
            traffic: result.traffic.clone(),
        };
        Some(SharePartitionAnswer {
            partition,
            error: ErrorCode::None,
            current_leader: None,
            records: Some(records),
            acquired,
        })
    }
}

fn key_of(fetch: &ShareFetch, (topic_id, partition): SessionPartition) -> ShareKey {
    ShareKey { group_id: fetch.group_id.clone(), topic_id, partition }
}

fn read(replica: &Partition, offset: i64, isolation: Isolation, bytes_max: usize) -> FetchResult {
    replica.fetch(&FetchPartition {
        offset,
        bytes_max: bytes_max.min(READ_BYTES_MAX),
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        isolation,
        replica: None,
        is_eligible: false,
        allow_follower: false,
        preferred_read_replica: -1,
        at_least_one_batch: true,
    })
}

/// The batches as the machine sees them. Of aborted transactions, known with read committed, nobody gets anything.
fn fetched(batches: &[Batch], result: &FetchResult) -> Vec<FetchedBatch> {
    let mut aborted = result.aborted.clone().unwrap_or_default();
    aborted.sort_by_key(|(_, first_offset)| std::cmp::Reverse(*first_offset));
    let mut open = std::collections::BTreeSet::new();
    let mut fetched = Vec::with_capacity(batches.len());
    for batch in batches {
        let header = &batch.header;
        while aborted.last().is_some_and(|(_, first_offset)| *first_offset <= header.last_offset()) {
            open.extend(aborted.pop().map(|(producer_id, _)| producer_id));
        }
        if header.is_control() && is_abort(batch) {
            open.remove(&header.producer_id);
        }
        let is_aborted = header.is_transactional() && open.contains(&header.producer_id);
        fetched.push(FetchedBatch {
            first: header.base_offset,
            last: header.last_offset(),
            is_void: header.is_control() || is_aborted,
        });
    }
    fetched
}

fn is_abort(batch: &Batch) -> bool {
    let Ok(mut records) = batch.records() else { return false };
    let Some(Ok(record)) = records.next() else { return false };
    matches!(
        ControlRecord::parse(&record),
        Ok(ControlRecord::EndTransaction { end: EndTransaction::Abort, .. })
    )
}
